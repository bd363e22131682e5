"""Block diffusion: fill a block over several bidirectional forwards, then commit it causally (facts §4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from nemodiff_core.decode.calls import Decoding, prefill, read
from nemodiff_core.decode.canvas import Block, Clock, event
from nemodiff_core.decode.commit import Budget
from nemodiff_core.decode.denoise import Denoiser
from nemodiff_core.decode.refine import Critic, Reviser
from nemodiff_core.decode.sampling import Choice
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import TokenEvent


@dataclass(frozen=True)
class Standing:
    """What the first block holds when a run goes on in its midst: tokens by offset, which may still be revised,
    and by offset what a cell may not become."""

    tokens: Mapping[int, int] = field(default_factory=dict)
    bans: Mapping[int, frozenset[int]] = field(default_factory=dict)


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
    standing: Standing = Standing(),
) -> Decoding[None]:
    """Yield the prefill, and for each block its denoise steps, its revisions and its commit pass.

    Every block has its full length; what lies behind the end token or the budget is dropped, so that a
    smaller budget writes a prefix of the same text. Pinned cells hold their token from the start; no end
    token may come before the last of them. `standing` is what the first block holds already.
    """
    size, origin = request.block_length, len(prompt)
    pins = {origin + offset: token for offset, token in request.pins}
    start, end = origin, origin + request.max_new_tokens  # absolute positions
    denoiser = yield from Denoiser.for_request(model, request, end + size, mask_id=mask_id, generator=generator, clock=clock)
    cache, block, sampler, record = denoiser.cache, denoiser.block, denoiser.sampler, denoiser.record
    reviser = Reviser(denoiser, Critic(request.revise_bound, request.revise_rank), request.revise_rounds)
    budget = Budget(request)
    last_pin = max(pins, default=-1)

    def bans(first: int) -> torch.Tensor | None:
        """[size + 1, vocab]: what the cells of the block at `first`, and the one behind it, may not become."""
        held = request.stop_at_eos and first < last_pin  # no end token before the last pin
        if not held and not (standing.bans and first == origin):
            return None
        banned = torch.zeros((size + 1, model.config.vocab_size), dtype=torch.bool, device=model.device)
        if held:
            banned[: last_pin - first, eos_id] = True
        if first == origin:
            for offset, tokens in standing.bans.items():
                banned[offset, list(tokens)] = True
        return banned

    banned = bans(start)
    packed = yield prefill(model, prompt, cache, Choice(sampler, banned=None if banned is None else banned[0]))
    (seed,) = yield from read(packed)
    thinking = _Thinking(request, end_think_id, origin)
    stands = dict(standing.tokens)
    if 0 in stands:
        seed = replace(seed, token=stands[0])
    seeds = [event("seed", start, seed)] if start not in pins and 0 not in stands else []
    yield record.step("prefill", 0, start, 0, seeds, [(start, seed)])

    number = 0
    while True:
        given = {p - start: token for p, token in pins.items() if start <= p < min(start + size, end)}
        if 0 not in given:
            thinking.saw([seed.token])
        given |= thinking.due(start, size, given)
        if 0 not in given and seed.token == eos_id and request.stop_at_eos and start >= last_pin:
            return
        denoiser.begin(seed.token, {**stands, **given})
        shown = tuple(TokenEvent(start + o, token, "pin") for o, token in sorted(given.items()))
        limit = budget.for_block(-(-(end - start) // size))

        def kept(start: int = start) -> int:
            return _kept(block, eos_id, request, end - start, last_pin - start)

        before = record.count
        yield from denoiser.fill(
            "denoise",
            start,
            number,
            denoiser.policy(len(block.masked)),
            kept,
            fixed=frozenset((0, *given)),
            banned=None if banned is None else banned[:-1],
            limit=limit,
            first=shown,
        )
        if record.count > before:
            shown = ()
        # Only what stays enters the cache: the next block's context is exactly the text (facts §3.3).
        verdict = yield from reviser.settle(
            start,
            number,
            kept,
            fixed=frozenset((0, *given)),
            banned=banned,
            limit=limit,
            recommit_cost=int(budget.counts_commits),
            opening=shown,
        )
        if record.count > before:
            shown = ()
        budget.spend(denoiser.forwards + 1)
        stays, seed = verdict.kept, verdict.following
        thinking.saw(block.cells[:stays])
        ended = request.stop_at_eos and block.cells[stays - 1] == eos_id and start + stays > last_pin
        finished = ended or start + stays >= end
        dropped = [TokenEvent(start + i, t, "reject") for i, t in enumerate(block.cells) if i >= stays and t != mask_id]
        following = start + stays
        seeds = [] if finished or following in pins else [event("seed", following, seed)]
        looks = [] if finished else [(following, seed)]
        scores = verdict.scores if request.revise_rounds else ()
        yield record.step("commit", start, following, number, (*shown, *dropped, *seeds), looks, scores)
        if finished:
            return
        start, number, banned, stands = start + size, number + 1, bans(start + size), {}


class _Thinking:
    """The thinking budget: the end-think token is pinned where it falls due (facts §4.2 step 4).

    It is pinned when its block begins, as in the reference, so the block may still write another one to its left.
    """

    def __init__(self, request: DecodeRequest, end_think_id: int | None, origin: int) -> None:
        self.token, self.origin = end_think_id, origin
        self.budget = None if end_think_id is None else request.max_thinking_tokens

    def due(self, start: int, size: int, taken: dict[int, int]) -> dict[int, int]:
        """The forced token by offset, if it falls into this block and its cell is free."""
        if self.budget is None:
            return {}
        offset = max(0, self.origin + self.budget - start)
        while offset in taken:
            offset += 1
        return {offset: self.token} if offset < size else {}

    def saw(self, tokens: Sequence[int]) -> None:
        """Thinking that ended needs no further care."""
        if self.budget is not None and self.token in tokens:
            self.budget = None


def _kept(block: Block, eos_id: int, request: DecodeRequest, room: int, last_pin: int) -> int:
    """How many cells of the block belong to the answer: up to the end token or the budget.

    An end token ends the block only when nothing to its left is masked: a later commit there could not move
    it, but an end token further left may still come. One before `last_pin` (an offset) is text like any other.
    """
    kept = min(len(block.cells), room)
    low = max(last_pin, 0)
    if request.stop_at_eos and eos_id in block.cells[low:kept]:
        first = block.cells.index(eos_id, low)
        if block.mask_id not in block.cells[:first]:
            return first + 1
    return kept
