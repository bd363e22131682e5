"""Autoregressive decoding: one causal forward, one token (facts §4.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from nemodiff_core.decode.canvas import Clock, Recorder, event
from nemodiff_core.decode.sampling import Sampler, read
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Step

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
    """Yield a prefill step and then one step per token; the last token is never fed back."""
    sampler = Sampler(mask_id, request.temperature, request.top_p, request.candidates, generator=generator)
    record = Recorder(clock)
    cache = model.new_cache(len(prompt) + request.max_new_tokens)
    token = torch.empty((1, 1), dtype=torch.long, device=model.device)
    logits = model(torch.tensor([list(prompt)], device=model.device), pattern="causal", cache=cache, write=True, rows=LAST)
    phase, start, position = "prefill", 0, len(prompt)
    for emitted in range(1, request.max_new_tokens + 1):
        (look,) = read(sampler.choose(logits[0]))
        yield record.step(phase, start, position, 0, [event("commit", position, look)], [(position, look)])
        if emitted == request.max_new_tokens or (look.token == eos_id and request.stop_at_eos):
            return
        logits = model(token.fill_(look.token), pattern="causal", cache=cache, write=True, rows=LAST)
        phase, start, position = "ar", position, position + 1
