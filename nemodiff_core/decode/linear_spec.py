"""Linear self-speculation: diffusion drafts a block, the causal pass verifies it (facts §4.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from nemodiff_core.decode.canvas import Block, Clock, Recorder, event
from nemodiff_core.decode.commit import Threshold
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
    """Yield the prefill and, for each cycle, its draft steps and the verification.

    Every emitted token is the causal pass's own choice given the text before it, so greedy output is AR's
    and sampling keeps AR's distribution; drafts only decide how many tokens a verification yields.
    """
    size = request.block_length
    knobs = (request.temperature, request.top_p, request.candidates)
    drafter = Sampler(mask_id, *knobs, tempered=True, generator=generator)
    verifier = Sampler(mask_id, *knobs, generator=generator)
    policy = Threshold(request.threshold or 0.0)  # 0 fills all masks at once
    record = Recorder(clock)
    start, end = len(prompt), len(prompt) + request.max_new_tokens  # start: position of the pending token
    cache = model.new_cache(end + size)
    block = Block(size, mask_id, model.device)

    prompt_ids = torch.tensor([list(prompt)], device=model.device)
    logits = model(prompt_ids, pattern="causal", cache=cache, write=True, rows=LAST)
    (pending,) = read(verifier.choose(logits[0]))
    yield record.step("prefill", 0, start, 0, [event("seed", start, pending)], [(start, pending)])

    cycle = 0
    while start + 1 < end and not (pending.token == eos_id and request.stop_at_eos):
        block.begin(pending.token)
        while masked := block.masked:
            logits = model(block.tensor, pattern="bidirectional", cache=cache, rows=block.rows(len(masked)))
            looks = read(drafter.choose(logits[0]))
            drafted = policy.choose([look.confidence for look in looks], 0)
            events = [event("draft", start + masked[i], looks[i]) for i in drafted]
            block.fill([masked[i] for i in drafted], [looks[i].token for i in drafted])
            yield record.step("draft", start, start + size, cycle, events, ((start + i, k) for i, k in zip(masked, looks)))

        logits = model(block.tensor, pattern="causal", cache=cache, write=True)
        # picks[i] is the causal choice for the position behind block cell i.
        picks = read(verifier.choose(logits[0]))
        matched = 0
        while matched < size - 1 and picks[matched].token == block.cells[matched + 1]:
            matched += 1
        emitted = min(matched + 1, end - start - 1)
        if request.stop_at_eos:
            stop = next((i for i, pick in enumerate(picks[:emitted]) if pick.token == eos_id), emitted)
            emitted = min(stop + 1, emitted)
        kept = min(emitted, matched)  # drafts that stay; one more token, if any, is the bonus
        events = [
            *(event("accept", start + 1 + i, picks[i]) for i in range(kept)),
            *(TokenEvent(start + i, block.cells[i], "reject") for i in range(kept + 1, size)),
            *(event("bonus", start + 1 + i, picks[i]) for i in range(kept, emitted)),
        ]
        cache.crop(start + emitted)
        looks = ((start + 1 + i, pick) for i, pick in enumerate(picks))
        yield record.step("verify", start, start + size, cycle, events, looks)
        pending = picks[emitted - 1]
        start, cycle = start + emitted, cycle + 1
