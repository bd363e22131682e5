"""The two records every task family speaks: a problem with its answer, and a verdict on an answer."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Example:
    """One generated problem.

    ``facts`` holds what the checker needs, JSON-able, and always ``facts['key']``: the problem's
    content without its phrasing, which decides whether it is a training or a test problem.
    """

    family: str
    kind: str
    prompt: str
    answer: str
    facts: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Grade:
    """A checker's verdict and, in a few words, the reason for it."""

    correct: bool
    reason: str
