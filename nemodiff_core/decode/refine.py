"""Revision: the causal pass judges a finished block, and what it doubts is written again.

The commit pass of block diffusion computes, for free, how probable every token of the block is given only
what stands before it. A token it doubts was most likely committed together with others that it could not see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch

from nemodiff_core.decode.calls import LAST, Decoding, Forward, prefill, read, read_with_judgements
from nemodiff_core.decode.canvas import Clock, event
from nemodiff_core.decode.denoise import Denoiser
from nemodiff_core.decode.sampling import Choice, Judgement, Look, judge
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Score, TokenEvent


@dataclass(frozen=True)
class Critic:
    """Doubts tokens of low causal probability, or those that rank too low; never the causal pass's own choice."""

    bound: float
    rank: int | None = None

    def doubts(self, judgement: Judgement) -> bool:
        """Whether the token should be written again."""
        if judgement.rank == 0:
            return False
        return judgement.probability < self.bound or (self.rank is not None and judgement.rank >= self.rank)


def reopened(doubted: Sequence[int], committed_in: Mapping[int, int], fixed: frozenset[int], kept: int) -> list[int]:
    """Offsets to write again: the doubted ones and those that depend on the first of them, ascending.

    A cell depends on a doubted one when it stands to its right (the causal pass judged it given the doubted
    token) and was committed in the same forward or later, so never without it. Cells that were there before
    stay, as do `fixed` ones.
    """
    first = min(doubted)
    since = committed_in.get(first, -1)
    later = (o for o in range(first + 1, kept) if committed_in.get(o, -1) >= since)
    return sorted({o for o in (*doubted, *later) if o not in fixed})


@dataclass(frozen=True)
class Verdict:
    """What the last causal pass over a block said. The cache holds the block's `kept` cells."""

    kept: int
    following: Look  # what the causal pass would write behind them
    of_following: Judgement | None  # and what it thinks of the token that stands there, if one was given
    scores: tuple[Score, ...]  # of cells 1 .. kept-1


@dataclass
class Reviser:
    """Judges finished blocks and has doubted cells written again, at most `rounds` times a block."""

    denoiser: Denoiser
    critic: Critic
    rounds: int

    def settle(
        self,
        start: int,
        number: int,
        kept: Callable[[], int],
        *,
        following: int | None = None,
        fixed: frozenset[int] = frozenset(),
        banned: torch.Tensor | None = None,
        limit: int | None = None,
        recommit_cost: int = 0,
        opening: tuple[TokenEvent, ...] = (),
    ) -> Decoding[Verdict]:
        """Judge the block at `start` and revise it until nothing is doubted or rounds or forwards are used up.

        Yields the Steps of every round and returns the Verdict of the last causal pass, whose own Step is the
        caller's to make. `kept()` is how many cells belong to the text, `following` a token that already
        stands behind them, `banned` [block + 1, vocab] what the cells and the one behind them may not become,
        `limit` how many forwards the block may have (`Denoiser.forwards`); a causal pass that was not the last
        counts `recommit_cost` among them. The first Step carries the `opening` events.

        In every round the first doubted cell takes the causal pass's own choice, which is exact given what
        stands before it, and the others are denoised around it. So the first doubt moves to the right with
        every round, and a block of n cells is settled after at most n - 1 of them.
        """
        cache, block = self.denoiser.cache, self.denoiser.block
        for attempt in range(self.rounds + 1):
            count = kept()
            ban = None if banned is None else banned[count]
            if not self.rounds:
                choice = Choice(self.denoiser.sampler, banned=ban)
                packed = yield Forward(block.tensor[:, :count], "causal", cache, write=True, rows=LAST, choice=choice)
                (look,) = yield from read(packed)
                return Verdict(count, look, None, ())
            judged = block.tensor[0, 1:count]
            if following is not None:
                judged = torch.cat((judged, judged.new_tensor([following])))
            logits = yield Forward(block.tensor[:, :count], "causal", cache, write=True)
            packed = self.denoiser.sampler.choose(logits[-1:], banned=ban)
            judged = judge(logits[: len(judged)], judged, block.mask_id)
            (look,), judgements = yield from read_with_judgements(packed, judged)
            inside = judgements[: count - 1]
            scores = tuple(_score(start + 1 + i, block.cells[1 + i], j) for i, j in enumerate(inside))
            doubted = [i + 1 for i, j in enumerate(inside) if i + 1 not in fixed and self.critic.doubts(j)]
            used = self.denoiser.forwards
            if not doubted or attempt == self.rounds or (limit is not None and used + recommit_cost >= limit):
                return Verdict(count, look, judgements[-1] if following is not None else None, scores)
            cache.crop(start)
            self.denoiser.forwards += recommit_cost
            again = reopened(doubted, self.denoiser.committed_in, fixed, count)
            # A ban outranks the causal pass: then the cell is denoised like the others.
            causal = inside[again[0] - 1]
            allowed = banned is None or not bool(banned[again[0], causal.best])
            events = [TokenEvent(start + o, block.cells[o], "remask", min(inside[o - 1].probability, 1.0)) for o in again]
            if allowed:
                events[0] = TokenEvent(start + again[0], causal.best, "seed", min(causal.best_probability, 1.0))
            masks = [block.mask_id] * len(again)
            block.fill(again, [causal.best, *masks[1:]] if allowed else masks)
            self.denoiser.committed_in.update(dict.fromkeys(again, used))
            yield self.denoiser.record.step("commit", start, start + count, number, (*opening, *events), (), scores)
            opening = ()
            yield from self.denoiser.fill(
                "revise",
                start,
                number,
                self.denoiser.policy(len(block.masked)),
                kept,
                fixed=fixed,
                banned=None if banned is None else banned[:-1],
                limit=None if limit is None else limit - used - recommit_cost,
            )
        raise AssertionError("unreachable: the last attempt returns")


def _score(position: int, token: int, judgement: Judgement) -> Score:
    return Score(position, token, min(judgement.probability, 1.0), judgement.rank)


def decode(
    model: TriModeModel,
    prompt: Sequence[int],
    request: DecodeRequest,
    *,
    eos_id: int,
    mask_id: int,
    generator: torch.Generator,
    clock: Clock,
    end_think_id: int | None = None,
    given: Sequence[int] = (),
    bans: Mapping[int, frozenset[int]] = MappingProxyType({}),
) -> Decoding[None]:
    """Revise the text `given` behind the prompt, block by block; its length and its pinned cells stay.

    Masks in it are written first, with the rest of their block in sight. `bans` says by offset what a cell may
    not become.

    Every block is judged by a causal pass, and doubted cells are reopened with the rest of their block in
    place (`Reviser`), in one round a block unless the request says how many. Text that the causal pass
    believes costs one forward a block. A cell that is kept is an `accept`, a changed one a `seed` or `commit`.
    """
    size, pins = request.block_length, dict(request.pins)
    text = [pins.get(offset, token) for offset, token in enumerate(given)]
    denoiser = yield from Denoiser.for_request(
        model, request, len(prompt) + len(text) + size, mask_id=mask_id, generator=generator, clock=clock
    )
    cache, sampler, record = denoiser.cache, denoiser.sampler, denoiser.record
    critic = Critic(request.revise_bound, request.revise_rank)
    reviser = Reviser(denoiser, critic, max(request.revise_rounds, 1))

    def banned_from(low: int) -> torch.Tensor:
        """[size + 1, vocab]: what the cells of the block at `low`, and the one behind it, may not become."""
        banned = torch.zeros((size + 1, model.config.vocab_size), dtype=torch.bool, device=model.device)
        banned[:, eos_id] = True  # the length of the text stays, so no cell may become its end
        for offset, tokens in bans.items():
            if low <= offset <= low + size:
                banned[offset - low, list(tokens)] = True
        return banned

    banned = banned_from(0)
    logits = yield prefill(model, prompt, cache)
    packed = sampler.choose(logits, banned=banned[0])
    judged = judge(logits, torch.tensor(text[:1], device=logits.device), mask_id)
    (look,), (judgement,) = yield from read_with_judgements(packed, judged)
    scores = [] if text[0] == mask_id else [_score(len(prompt), text[0], judgement)]
    yield record.step("prefill", 0, len(prompt), 0, (), [(len(prompt), look)], scores)

    for number, low in enumerate(range(0, len(text), size)):
        start, kept = len(prompt) + low, min(size, len(text) - low)
        pinned = {o - low: token for o, token in pins.items() if low <= o < low + kept}
        replaced = low not in pins and (text[low] == mask_id or critic.doubts(judgement))
        cells = [look.token if replaced else text[low], *text[low + 1 : low + kept]]
        # Behind the end of the text stands what training put there.
        beyond = dict.fromkeys(range(kept, size), eos_id)
        denoiser.begin(cells[0], dict(enumerate(cells)) | beyond)
        drafted = [
            TokenEvent(start + o, text[low + o], "pin" if o in pinned else "draft") for o in range(kept) if text[low + o] != mask_id
        ]
        seeds = [event("seed", start, look)] if replaced else []
        fixed, banned, limit = frozenset((0, *pinned, *beyond)), banned_from(low), request.max_forwards_per_block
        opening = (*drafted, *seeds)
        if masks := len(denoiser.block.masked):
            yield from denoiser.fill(
                "revise", start, number, denoiser.policy(masks), lambda: kept, fixed=fixed, banned=banned[:-1], limit=limit, first=opening
            )
            opening = ()
        verdict = yield from reviser.settle(
            start,
            number,
            lambda: kept,
            following=text[low + size] if low + size < len(text) else None,
            fixed=fixed,
            banned=banned,
            limit=limit,
            opening=opening,
        )
        stays = [o for o in range(len(seeds), kept) if o not in denoiser.committed_in and o not in pinned]
        events = [TokenEvent(start + o, cells[o], "accept") for o in stays]
        if not denoiser.committed_in:  # no round was needed, so the draft was not shown yet
            events = [*drafted, *seeds, *events]
        following = [(start + kept, verdict.following)] if verdict.of_following else ()
        yield record.step("commit", start, start + kept, number, events, following, verdict.scores)
        look, judgement = verdict.following, verdict.of_following
