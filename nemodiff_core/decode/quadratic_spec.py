"""Quadratic self-speculation: every forward verifies one draft and writes the next, whatever is accepted (facts §4.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from nemodiff_core.cache import KVCache
from nemodiff_core.decode.canvas import Clock, Recorder, event
from nemodiff_core.decode.sampling import Look, Sampler, read
from nemodiff_core.decode.thinking import ThinkingBudget
from nemodiff_core.decode.verification import verify
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Step


@dataclass(frozen=True)
class Layout:
    """The input of one forward: first a chain of known tokens, then, for each that opens a group, its B masks."""

    offsets: torch.Tensor  # [q] positions, counted from the chain's first token
    visible: torch.Tensor  # [q, q] bool, True = the query (row) sees the key


def layout(chain: int, opening: int, size: int, device: torch.device) -> Layout:
    """A chain of `chain` tokens, of which those from `opening` on have `size` masks behind them.

    A token of the chain sees the chain up to itself, which is causal; the masks of a group see the same and
    one another.
    """
    tokens = torch.arange(chain, device=device)
    group = torch.cat((tokens, tokens[opening:].repeat_interleave(size)))  # [q] the chain token it belongs to
    depth = torch.cat((torch.zeros_like(tokens), torch.arange(1, size + 1, device=device).repeat(chain - opening)))
    is_mask = depth > 0
    up_to_own = group <= group[:, None]
    own_masks = is_mask[:, None] & (group == group[:, None])
    return Layout(group + depth, torch.where(is_mask, own_masks, up_to_own))


class Speculator:
    """The forward that verifies and drafts in one, on a model and its cache."""

    def __init__(self, model: TriModeModel, cache: KVCache, size: int, verifier: Sampler, drafter: Sampler) -> None:
        self.model, self.cache, self.size = model, cache, size
        self.verifier, self.drafter = verifier, drafter
        # Most forwards have as many groups as the one before; a layout of 64 groups takes 17 MB.
        self._layout = lru_cache(maxsize=2)(lambda chain, opening: layout(chain, opening, size, model.device))

    def forward(self, chain: Sequence[int], opening: int) -> tuple[list[Look], list[Look]]:
        """Read `chain` behind the cached prefix, with masks behind each token from `opening` on.

        Returns the causal picks behind those tokens, and drafts for the size-1 positions behind the pick that
        ends the chain's right part: chain tokens from opening+1 on are drafts, right up to the first that
        was not picked. The cache keeps the whole chain, whose keys and values are causal; cropping is the
        caller's. Which group is read is found out on the device, so that a forward is waited for once.
        """
        model, cache, size, device = self.model, self.cache, self.size, self.model.device
        plan, count = self._layout(len(chain), opening), len(chain)
        tokens = torch.full((1, len(plan.offsets)), self.drafter.mask_id, device=device)
        tokens[0, :count] = torch.tensor(list(chain), device=device)
        prefix = cache.length
        mask = torch.cat((plan.visible.new_ones(len(plan.offsets), prefix), plan.visible), dim=1)
        x = model.hidden(tokens, plan.offsets + prefix, prefix + count + size, mask=mask, cache=cache, write=count)[0]
        cache.advance(count)
        picks = self.verifier.choose(model.head(x[opening:count]))
        right = (picks[:-1, 0] == tokens[0, opening + 1 : count]).long().cumprod(0).sum()
        # A group's first mask stands where its token's pick comes to stand; drafts begin behind it.
        masks = count + right * size + torch.arange(1, size, device=device)
        drafts = self.drafter.choose(model.head(x[masks.to(x.device)]))
        looks = read(torch.cat((picks, drafts)))
        return looks[: len(picks)], looks[len(picks) :]


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
    end_think_id: int | None = None,
) -> Iterator[Step]:
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
    cache = model.new_cache(end)
    speculator = Speculator(model, cache, size, verifier, drafter)

    def useful(ahead: list[Look]) -> list[Look]:
        """Drafts behind the pending token that can still be accepted: the answer's last token is always a pick."""
        return ahead[: thinking.reach(end - 1) - start - 1] if start + 1 < end and pending != stop_id else []

    picks, ahead = speculator.forward(prompt, len(prompt) - 1)
    seed = thinking.event("seed", start, picks[0])
    pending = seed.token
    drafts = useful(ahead)
    drafted = {start + 1 + i: draft for i, draft in enumerate(drafts)}
    events = [seed, *(event("draft", position, draft) for position, draft in drafted.items())]
    yield record.step("prefill", 0, start + size, 0, events, [(start, picks[0]), *drafted.items()])

    cycle = 0
    while start + 1 < end and pending != stop_id:
        chain = [pending, *(draft.token for draft in drafts)]
        picks, ahead = speculator.forward(chain, 0)
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
