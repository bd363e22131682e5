"""Block diffusion: fill a block over several bidirectional forwards, then commit it causally (facts §4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from nemodiff_core.decode.canvas import Block, Clock, Recorder, event
from nemodiff_core.decode.commit import policy_for
from nemodiff_core.decode.sampling import Sampler, read
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Step, TokenEvent

LAST = slice(-1, None)


@torch.inference_mode()
def decode(
    model: TriModeModel,
    prompt: Sequence[int],
    request: DecodeRequest,
    *,
    eos_id: int,
    mask_id: int,
    generator: torch.Generator,
    clock: Clock,
) -> Iterator[Step]:
    """Yield the prefill, and for each block its denoise steps and its commit pass.

    Every block has its full length; what lies behind the end token or the budget is dropped, so that a
    smaller budget writes a prefix of the same text.
    """
    size = request.block_length
    sampler = Sampler(mask_id, request.temperature, request.top_p, request.candidates, generator=generator)
    record = Recorder(clock)
    start, end = len(prompt), len(prompt) + request.max_new_tokens  # absolute positions
    cache = model.new_cache(end + size)
    block = Block(size, mask_id, model.device)

    prompt_ids = torch.tensor([list(prompt)], device=model.device)
    logits = model(prompt_ids, pattern="causal", cache=cache, write=True, rows=LAST)
    (seed,) = read(sampler.choose(logits[0]))
    yield record.step("prefill", 0, start, 0, [event("seed", start, seed)], [(start, seed)])

    number = 0
    while not (seed.token == eos_id and request.stop_at_eos):
        block.begin(seed.token)
        policy = policy_for(request, size - 1)
        step, kept = 0, _kept(block, eos_id, request, end - start)
        while mask_id in block.cells[:kept]:
            # With candidates, every cell of the block is looked at again; without, only those still masked.
            offsets = block.offsets if request.candidates else block.masked
            logits = model(block.tensor, pattern="bidirectional", cache=cache, rows=block.rows(len(offsets)))
            looks = read(sampler.choose(logits[0], drawn=len(block.masked)))
            chosen = policy.choose([look.confidence for look in looks[: len(block.masked)]], step)
            events = [event("commit", start + offsets[i], looks[i]) for i in chosen]
            seen = sorted((start + i, look) for i, look in zip(offsets, looks)) if request.candidates else ()
            block.fill([offsets[i] for i in chosen], [looks[i].token for i in chosen])
            yield record.step("denoise", start, start + size, number, events, seen)
            step, kept = step + 1, _kept(block, eos_id, request, end - start)

        # Only what stays enters the cache: the next block's context is exactly the text (facts §3.3).
        logits = model(block.tensor[:, :kept], pattern="causal", cache=cache, write=True, rows=LAST)
        finished = start + kept >= end or (request.stop_at_eos and eos_id in block.cells[:kept])
        events = [TokenEvent(start + i, t, "reject") for i, t in enumerate(block.cells) if i >= kept and t != mask_id]
        looks = {}
        if not finished:
            (seed,) = read(sampler.choose(logits[0]))
            events.append(event("seed", start + size, seed))
            looks = {start + size: seed}
        yield record.step("commit", start, start + kept, number, events, looks.items())
        if finished:
            return
        start, number = start + size, number + 1


def _kept(block: Block, eos_id: int, request: DecodeRequest, room: int) -> int:
    """How many cells of the block belong to the answer: up to the end token or the budget.

    An end token ends the block only when nothing to its left is masked: a later commit there could not move
    it, but an end token further left may still come.
    """
    kept = min(len(block.cells), room)
    if request.stop_at_eos and eos_id in block.cells[:kept]:
        first = block.cells.index(eos_id)
        if block.mask_id not in block.cells[:first]:
            return first + 1
    return kept
