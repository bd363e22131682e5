"""Commit policies: which masked cells receive their token in a step of block diffusion.

One idea each, chosen by name in the request. Every policy commits at least one cell a step, so every block
ends after at most as many steps as it has masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from nemodiff_core.decode.learned import DEFAULT_BOUND, CommitSampler, Learned
from nemodiff_core.decode.sampling import Look
from nemodiff_core.request import DecodeRequest

DEFAULT_THRESHOLD = 0.9
DEFAULT_ENTROPY = 0.3  # nats, all cells of a step together
DEFAULT_MARGIN = 0.8


class CommitPolicy(Protocol):
    """Picks cells by what one forward said about them."""

    def choose(self, looks: Sequence[Look], step: int, offsets: Sequence[int] = ()) -> list[int]:
        """Ascending indices into `looks` (one per masked cell, left to right, never empty) to commit in step `step`.

        `offsets` are the cells' places in their block, for policies that care.
        """
        ...


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


@dataclass(frozen=True)
class Threshold:
    """Every cell at least this sure, and the surest one in any case (facts §4.2 step 6).

    Needs between 1 and as many steps as there are masks.
    """

    bound: float

    def choose(self, looks: Sequence[Look], step: int, offsets: Sequence[int] = ()) -> list[int]:
        best = _best([look.confidence for look in looks])
        return [i for i, look in enumerate(looks) if look.confidence >= self.bound or i == best]


@dataclass(frozen=True)
class EvenSchedule:
    """The masks of a block spread evenly over `steps`, the remainder first; the surest go first.

    Needs exactly min(steps, masks) steps: the dial from one forward a block to one forward a token.
    """

    steps: int
    masks: int  # at the start of the block

    def choose(self, looks: Sequence[Look], step: int, offsets: Sequence[int] = ()) -> list[int]:
        return surest(looks, _share(self.steps, self.masks, step))


@dataclass(frozen=True)
class Leftmost:
    """The cells from left to right, spread evenly over `steps` as in `EvenSchedule`; surely one a step without.

    Needs exactly min(steps, masks) steps. With one cell a step it writes in the order of AR, but sees the
    block's pinned cells to the right.
    """

    steps: int | None
    masks: int

    def choose(self, looks: Sequence[Look], step: int, offsets: Sequence[int] = ()) -> list[int]:
        count = 1 if self.steps is None else _share(self.steps, self.masks, step)
        return list(range(min(count, len(looks))))


@dataclass(frozen=True)
class EntropyBudget:
    """The cells of lowest entropy as long as their entropies sum to at most `bound` nats; the lowest in any case.

    The sum bounds what committing them independently can lose against committing them one after another:
    their joint distribution differs from the product by at most so many nats. Needs between 1 and as many
    steps as there are masks; a bound of 0 commits one a step but for cells without any doubt.
    """

    bound: float

    def choose(self, looks: Sequence[Look], step: int, offsets: Sequence[int] = ()) -> list[int]:
        ranked = sorted(range(len(looks)), key=lambda i: looks[i].entropy)
        chosen, spent = ranked[:1], looks[ranked[0]].entropy
        for i in ranked[1:]:
            spent += looks[i].entropy
            if spent > self.bound:
                break
            chosen.append(i)
        return sorted(chosen)


@dataclass(frozen=True)
class Margin:
    """Every cell whose first candidate leads the second by at least `bound`, and the clearest one in any case.

    Needs between 1 and as many steps as there are masks. At the same number it is stricter than a threshold
    where two candidates share what is left, and milder where many do.
    """

    bound: float

    def choose(self, looks: Sequence[Look], step: int, offsets: Sequence[int] = ()) -> list[int]:
        best = _best([look.margin for look in looks])
        return [i for i, look in enumerate(looks) if look.margin >= self.bound or i == best]


def surest(looks: Sequence[Look], count: int) -> list[int]:
    """Ascending indices of the `count` looks of highest confidence, at least one."""
    ranked = sorted(range(len(looks)), key=lambda i: -looks[i].confidence)
    return sorted(ranked[: max(count, 1)])


def _share(steps: int, masks: int, step: int) -> int:
    share, rest = divmod(masks, steps)
    return max(share + (step < rest), 1)


def policy_for(request: DecodeRequest, masks: int, net: CommitSampler | None = None) -> CommitPolicy:
    """The policy that a request asks for, for a block with `masks` cells to fill; `net` is the model's own sampler."""
    name = request.policy or ("schedule" if request.steps is not None else "threshold")
    if name == "schedule":
        return EvenSchedule(request.steps, masks)
    if name == "leftmost":
        return Leftmost(request.steps, masks)
    if name == "entropy_budget":
        return EntropyBudget(DEFAULT_ENTROPY if request.entropy_bound is None else request.entropy_bound)
    if name == "margin":
        return Margin(DEFAULT_MARGIN if request.margin_bound is None else request.margin_bound)
    if name == "sampler":
        return Learned(net, DEFAULT_BOUND if request.threshold is None else request.threshold)
    return Threshold(DEFAULT_THRESHOLD if request.threshold is None else request.threshold)


class Budget:
    """How many denoising forwards a block may have, so that the caps on a block and on the answer hold.

    The answer's forwards are shared out evenly over the blocks that may still come, commit passes included;
    what a block leaves unspent goes to the later ones.
    """

    def __init__(self, request: DecodeRequest) -> None:
        self._per_block = request.max_forwards_per_block
        self._left = request.max_forwards
        self.counts_commits = self._left is not None

    def spend(self, forwards: int) -> None:
        """Take forwards, commit passes included, off what the answer has."""
        if self._left is not None:
            self._left -= forwards

    def for_block(self, blocks: int) -> int | None:
        """Denoising forwards for the next of `blocks` blocks that may still come; None = as many as it needs."""
        caps = [] if self._per_block is None else [self._per_block]
        if self._left is not None:
            caps.append(max(self._left // blocks - 1, 1))
        return min(caps, default=None)
