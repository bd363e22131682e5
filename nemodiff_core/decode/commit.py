"""Commit policies: which masked cells receive their token in a step of block diffusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from nemodiff_core.request import DecodeRequest

DEFAULT_THRESHOLD = 0.9


class CommitPolicy(Protocol):
    """Picks cells by confidence; always at least one, so that every block ends."""

    def choose(self, confidences: Sequence[float], step: int) -> list[int]:
        """Indices into `confidences` (one per masked cell, never empty) to commit in step `step` of the block."""
        ...


@dataclass(frozen=True)
class Threshold:
    """Every cell at least this sure, and the surest one in any case (facts §4.2 step 6).

    Needs between 1 and as many steps as there are masks.
    """

    bound: float

    def choose(self, confidences: Sequence[float], step: int) -> list[int]:
        best = max(range(len(confidences)), key=confidences.__getitem__)
        return [i for i, confidence in enumerate(confidences) if confidence >= self.bound or i == best]


@dataclass(frozen=True)
class EvenSchedule:
    """The masks of a block spread evenly over `steps`, the remainder first; the surest go first.

    Needs exactly min(steps, masks) steps.
    """

    steps: int
    masks: int  # at the start of the block

    def choose(self, confidences: Sequence[float], step: int) -> list[int]:
        share, rest = divmod(self.masks, self.steps)
        count = min(max(share + (step < rest), 1), len(confidences))
        ranked = sorted(range(len(confidences)), key=lambda i: -confidences[i])
        return sorted(ranked[:count])


def policy_for(request: DecodeRequest, masks: int) -> CommitPolicy:
    """The policy that a request asks for, for a block with `masks` cells to fill."""
    if request.steps is not None:
        return EvenSchedule(request.steps, masks)
    return Threshold(DEFAULT_THRESHOLD if request.threshold is None else request.threshold)
