"""Filling one block: bidirectional forwards that commit masked cells until none is left that matters.

Shared by block diffusion, revision and infill, which differ only in what the block holds to begin with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from nemodiff_core.cache import KVCache
from nemodiff_core.decode.calls import Decoding, Forward, NewCache, read, read_with_judgements
from nemodiff_core.decode.canvas import Block, Clock, Recorder, event
from nemodiff_core.decode.commit import CommitPolicy, policy_for, surest
from nemodiff_core.decode.learned import TOP
from nemodiff_core.decode.sampling import Choice, Judgement, Look, Sampler, judge
from nemodiff_core.model import Layout, TriModeModel
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import TokenEvent


@dataclass
class Denoiser:
    """One run's means of filling blocks."""

    model: TriModeModel
    request: DecodeRequest
    cache: KVCache
    block: Block
    sampler: Sampler
    record: Recorder
    reopened: set[int] = field(default_factory=set)  # cells of this block that had their second chance
    committed_in: dict[int, int] = field(default_factory=dict)  # offset -> forward of this block that wrote it
    forwards: int = 0  # of this block so far

    @classmethod
    def for_request(
        cls, model: TriModeModel, request: DecodeRequest, capacity: int, *, mask_id: int, generator: torch.Generator, clock: Clock
    ) -> Decoding[Denoiser]:
        """Everything fresh for one run over at most `capacity` positions."""
        needed = TOP if request.policy == "sampler" else 0
        sampler = Sampler(
            mask_id,
            request.temperature,
            request.top_p,
            max(request.candidates, needed),
            generator=generator,
            margins=request.policy == "margin",
        )
        block = Block(request.block_length, mask_id, model.device)
        return cls(model, request, (yield NewCache(capacity)), block, sampler, Recorder(clock, request.candidates))

    def policy(self, masks: int) -> CommitPolicy:
        """The request's policy for a block with `masks` cells to fill."""
        return policy_for(self.request, masks, self.model.commit_sampler)

    def begin(self, seed: int, given: Mapping[int, int], reach: int | None = None) -> None:
        """Start a new block from its seed and its other given cells, by offset; see `Block.reach`."""
        self.reopened.clear()
        self.committed_in.clear()
        self.forwards = 0
        self.block.begin(seed, given, reach)

    def fill(
        self,
        phase: str,
        start: int,
        number: int,
        policy: CommitPolicy,
        kept: Callable[[], int],
        *,
        fixed: frozenset[int] = frozenset(),
        banned: torch.Tensor | None = None,
        limit: int | None = None,
        first: tuple[TokenEvent, ...] = (),
        span: range | None = None,
        quiet: bool = False,
    ) -> Decoding[None]:
        """Denoise until no cell before `kept()` is masked; yields one Step a forward.

        `start` is the block's absolute position, `number` its number. Cells in `fixed` are never reopened,
        `banned` [block, vocab] bool says what a cell may not become. With a `limit` of forwards, at least an
        even share of what is masked commits in each, and all of it in the last; what the policy would not
        have chosen is marked as forced. `first` are events that the first step carries besides its own, `span`
        the absolute positions that belong to the canvas, if not all. The Steps of a `quiet` filling carry nothing.
        """
        block, count = self.block, 0
        span = range(start, start + len(block.cells)) if span is None else span
        while block.masked and block.masked[0] < kept():
            offsets, looks, doubted = yield from self._look(fixed, banned, reopen=limit is None or count + 1 < limit)
            masked = len(block.masked)
            chosen = policy.choose(looks[:masked], count, offsets[:masked])
            willing = set(chosen)
            if limit is not None:
                chosen = sorted(willing | set(surest(looks[:masked], -(-masked // max(limit - count, 1)))))
            events = [event("commit", start + offsets[i], looks[i], i not in willing) for i in chosen]
            events += [TokenEvent(start + o, block.cells[o], "remask", j.probability) for o, j in doubted]
            seen = []
            if self.request.candidates:
                seen = sorted((start + o, look) for o, look in zip(offsets, looks) if start + o in span)
            self.reopened.update(o for o, _ in doubted)
            self.committed_in.update((offsets[i], self.forwards) for i in chosen)
            block.fill(
                [*(offsets[i] for i in chosen), *(o for o, _ in doubted)],
                [*(looks[i].token for i in chosen), *(block.mask_id for _ in doubted)],
            )
            shown = ((), ()) if quiet else ((*first, *events), seen)
            yield self.record.step(phase, span.start, span.stop, number, *shown)
            first, count = (), count + 1
            self.forwards += 1

    def _look(
        self, fixed: frozenset[int], banned: torch.Tensor | None, reopen: bool
    ) -> Decoding[tuple[list[int], list[Look], list[tuple[int, Judgement]]]]:
        """One forward: offsets with their looks, the masked ones first, and committed cells it no longer believes.

        A committed cell is judged by a shadow: a mask at its position that sees everything but the cell
        itself, so that the model says what it would write there now that more is known (Hong et al. 2025,
        "Wide-In, Narrow-Out"). Every cell reopens at most once, so a block of n masks needs at most 2n steps.
        """
        block, masked = self.block, len(self.block.masked)
        # With candidates, every cell of the block is looked at again; without, only those still masked.
        count = len(block.cells) if self.request.candidates else masked
        offsets = block.offsets[:count]
        bans = None if banned is None else banned[block.rows(count)]
        judged = [] if self.request.remask_bound is None or not reopen else [
            o for o in block.offsets[masked:] if o < block.reach and o not in fixed and o not in self.reopened
        ]
        if not judged:
            choice = Choice(self.sampler, drawn=masked, banned=bans)
            packed = yield Forward(block.tensor, "bidirectional", self.cache, rows=block.rows(count), choice=choice)
            return offsets, (yield from read(packed)), []
        logits = yield self._with_shadows(judged)
        packed = self.sampler.choose(logits[block.rows(count)], drawn=masked, banned=bans)
        cells = torch.tensor([block.cells[o] for o in judged], device=logits.device)
        looks, judgements = yield from read_with_judgements(packed, judge(logits[len(block.cells) :], cells, block.mask_id))
        doubted = [(o, j) for o, j in zip(judged, judgements) if j.probability < self.request.remask_bound]
        return offsets, looks, doubted

    def _with_shadows(self, judged: list[int]) -> Forward:
        """Asks for logits [block + judged, vocab] of the block and of a shadow for each judged cell."""
        block, device = self.block, self.model.device
        size, extra = len(block.cells), len(judged)
        at = torch.tensor(judged, device=device)
        tokens = torch.cat((block.tensor[0], torch.full((extra,), block.mask_id, device=device)))[None]
        offsets = torch.cat((torch.arange(size, device=device), at))
        visible = torch.ones((size + extra, size + extra), dtype=torch.bool, device=device)
        shadows = visible[:, size:]
        shadows.fill_(False)
        shadows[size:].fill_diagonal_(True)
        visible[torch.arange(size, size + extra, device=device), at] = False
        return Forward(tokens, Layout(offsets, visible, reach=size), self.cache)
