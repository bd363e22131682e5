"""Autoregressive decoding: one causal forward, one token (facts §4.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nemodiff_core.decode.calls import LAST, Decoding, Forward, NewCache, prefill, read
from nemodiff_core.decode.canvas import Clock, Recorder
from nemodiff_core.decode.sampling import Choice, Sampler
from nemodiff_core.decode.thinking import ThinkingBudget
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest


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
) -> Decoding[None]:
    """Yield a prefill step and then one step per token; the last token is never fed back."""
    sampler = Sampler(mask_id, request.temperature, request.top_p, request.candidates, generator=generator)
    record = Recorder(clock)
    thinking = ThinkingBudget(request, end_think_id, len(prompt))
    cache = yield NewCache(len(prompt) + request.max_new_tokens)
    token = torch.empty((1, 1), dtype=torch.long, device=model.device)
    choice = Choice(sampler)
    packed = yield prefill(model, prompt, cache, choice)
    phase, start, position = "prefill", 0, len(prompt)
    for emitted in range(1, request.max_new_tokens + 1):
        (look,) = yield from read(packed)
        chosen = thinking.event("commit", position, look)
        yield record.step(phase, start, position, 0, [chosen], [(position, look)])
        if emitted == request.max_new_tokens or (chosen.token == eos_id and request.stop_at_eos):
            return
        packed = yield Forward(token.fill_(chosen.token), "causal", cache, write=True, rows=LAST, choice=choice)
        phase, start, position = "ar", position, position + 1
