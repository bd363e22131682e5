"""Quadratic self-speculation: every forward verifies one draft and writes the next, whatever is accepted (facts §4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from nemodiff_core.cache import KVCache
from nemodiff_core.decode.calls import Decoding, Forward, NewCache, read
from nemodiff_core.decode.canvas import Clock, Recorder, event
from nemodiff_core.decode.sampling import Look, Sampler
from nemodiff_core.decode.thinking import ThinkingBudget
from nemodiff_core.decode.verification import verify
from nemodiff_core.model import Layout, TriModeModel
from nemodiff_core.request import DecodeRequest


def layout(chain: int, opening: int, size: int, device: torch.device) -> Layout:
    """First a chain of `chain` known tokens, then, for each of them from `opening` on, its group of `size` masks.

    A token of the chain sees the chain up to itself, which is causal; the masks of a group see the same and
    one another.
    """
    tokens = torch.arange(chain, device=device)
    group = torch.cat((tokens, tokens[opening:].repeat_interleave(size)))  # [q] the chain token it belongs to
    depth = torch.cat((torch.zeros_like(tokens), torch.arange(1, size + 1, device=device).repeat(chain - opening)))
    is_mask = depth > 0
    up_to_own = group <= group[:, None]
    own_masks = is_mask[:, None] & (group == group[:, None])
    return Layout(group + depth, torch.where(is_mask, own_masks, up_to_own), reach=chain + size, causal=chain)


class Speculator:
    """The forward that verifies and drafts in one, on a model and its cache."""

    def __init__(self, model: TriModeModel, cache: KVCache, size: int, verifier: Sampler, drafter: Sampler) -> None:
        self.model, self.cache, self.size = model, cache, size
        self.verifier, self.drafter = verifier, drafter
        # Most forwards have as many groups as the one before; a layout of 64 groups takes 17 MB.
        self._layout = lru_cache(maxsize=2)(lambda chain, opening: layout(chain, opening, size, model.device))

    def forward(self, chain: Sequence[int], opening: int) -> Decoding[tuple[list[Look], list[Look]]]:
        """Read `chain` behind the cached prefix, with masks behind each token from `opening` on.

        Returns the causal picks behind those tokens, and drafts for the size-1 positions behind the pick that
        ends the chain's right part: chain tokens from opening+1 on are drafts, right up to the first that
        was not picked. The cache keeps the whole chain, whose keys and values are causal; cropping is the
        caller's. Which group is read is found out on the device, so that a forward is waited for once.
        """
        model, size, device = self.model, self.size, self.model.device
        plan, count = self._layout(len(chain), opening), len(chain)
        tokens = torch.full((1, len(plan.offsets)), self.drafter.mask_id, device=device)
        tokens[0, :count] = torch.tensor(list(chain), device=device)
        x = yield Forward(tokens, plan, self.cache, write=True, head=False)
        picks = self.verifier.choose(model.head(x[opening:count]))
        right = (picks[:-1, 0] == tokens[0, opening + 1 : count]).long().cumprod(0).sum()
        # A group's first mask stands where its token's pick comes to stand; drafts begin behind it.
        masks = count + right * size + torch.arange(1, size, device=device)
        drafts = self.drafter.choose(model.head(x[masks.to(x.device)]))
        looks = yield from read(torch.cat((picks, drafts)))
        return looks[: len(picks)], looks[len(picks) :]


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
    """Yield the prefill, which writes the first draft as well, and one verification per cycle.

    Every emitted token is the causal pass's own choice given the text before it, so greedy output is AR's
    and sampling keeps AR's distribution. A forward reads up to B·(B+1) tokens: fewest forwards, most work.
    """
    size = request.block_length
    knobs = (request.temperature, request.top_p, request.candidates)
    verifier = Sampler(mask_id, *knobs, generator=generator)
    drafter = Sampler(mask_id, *knobs, tempered=True, generator=generator)
    record = Recorder(clock)
    start, end = len(prompt), len(prompt) + request.max_new_tokens  # start: position of the pending token
    stop_id = eos_id if request.stop_at_eos else None
    thinking = ThinkingBudget(request, end_think_id, start)
    cache = yield NewCache(end, widest=request.block_length * (request.block_length + 1))
    speculator = Speculator(model, cache, size, verifier, drafter)

    def useful(ahead: list[Look]) -> list[Look]:
        """Drafts behind the pending token that can still be accepted: the answer's last token is always a pick."""
        return ahead[: thinking.reach(end - 1) - start - 1] if start + 1 < end and pending != stop_id else []

    picks, ahead = yield from speculator.forward(prompt, len(prompt) - 1)
    seed = thinking.event("seed", start, picks[0])
    pending = seed.token
    drafts = useful(ahead)
    drafted = {start + 1 + i: draft for i, draft in enumerate(drafts)}
    events = [seed, *(event("draft", position, draft) for position, draft in drafted.items())]
    yield record.step("prefill", 0, start + size, 0, events, [(start, picks[0]), *drafted.items()])

    cycle = 0
    while start + 1 < end and pending != stop_id:
        chain = [pending, *(draft.token for draft in drafts)]
        picks, ahead = yield from speculator.forward(chain, 0)
        verdict = verify(start, chain[1:], picks, end, stop_id, thinking)
        looks = {start + 1 + i: pick for i, pick in enumerate(picks)}
        span = start, start + len(chain) + size
        start, pending = start + verdict.emitted, verdict.pending
        cache.crop(start)
        drafts = useful(ahead)
        drafted = {start + 1 + i: draft for i, draft in enumerate(drafts)}
        events = [*verdict.events, *(event("draft", position, draft) for position, draft in drafted.items())]
        # Picks behind the text were made for drafts that are gone; the new draft's looks replace them.
        yield record.step("verify", *span, cycle, events, (looks | drafted).items())
        cycle += 1
