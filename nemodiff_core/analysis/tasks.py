"""The graded tasks: what the bundled model learns and what every answer is checked against."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nemodiff_core.analysis.example import Example, Grade
from nemodiff_core.analysis.families import arithmetic, code, dates, lists, qa, records, stories, sudoku

TEST_SHARE = 0.05


@dataclass(frozen=True)
class Family:
    """One kind of task with an exact checker."""

    name: str
    title: str
    generate: Callable[[random.Random], Example]
    check: Callable[[Example, str], Grade]
    weight: float  # share of the examples drawn for training


FAMILIES: dict[str, Family] = {
    module.NAME: Family(module.NAME, title, module.generate, module.check, weight)
    for module, title, weight in (
        (stories, "Short stories", 0.9),
        (arithmetic, "Worked arithmetic", 1.6),
        (records, "JSON and sentences", 1.2),
        (lists, "Lists: sort, reverse, deduplicate", 8.0),
        (sudoku, "4×4 Sudoku", 2.0),
        (dates, "Dates and units", 1.0),
        (code, "Small Python functions", 1.0),
        (qa, "Questions about two sentences", 2.4),
    )
}


def generate(family: str, rng: random.Random) -> Example:
    """One example of a family, from either split."""
    return FAMILIES[family].generate(rng)


def grade(example: Example, text: str) -> Grade:
    """Whether `text` answers the example, without opinion."""
    return FAMILIES[example.family].check(example, text)


def split_of(example: Example) -> str:
    """`train` or `test`, from the problem's content: rephrasing a test problem does not make it new."""
    digest = hashlib.blake2b(f"{example.family}|{example.facts['key']}".encode(), digest_size=4).digest()
    return "test" if int.from_bytes(digest) < TEST_SHARE * 2**32 else "train"


def stream(split: str, seed: int, families: Sequence[str] | None = None) -> Iterator[Example]:
    """Endless examples of one split, families drawn by weight; the same for the same seed."""
    rng = random.Random(seed)
    chosen = [FAMILIES[name] for name in families or FAMILIES]
    weights = [family.weight for family in chosen]
    while True:
        family = rng.choices(chosen, weights)[0]
        while split_of(example := family.generate(rng)) != split:
            pass
        yield example


def examples_for(split: str, per_family: int, seed: int = 0, families: Sequence[str] | None = None) -> list[Example]:
    """`per_family` examples of every family with different content, in the order of FAMILIES."""
    chosen = []
    for name in families or FAMILIES:
        found: dict[str, Example] = {}
        for example in stream(split, seed, [name]):
            found.setdefault(example.facts["key"], example)
            if len(found) == per_family:
                break
        chosen += found.values()
    return chosen
