"""Linear self-speculation: diffusion drafts a block, the causal pass verifies it (facts §4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch

from nemodiff_core.decode.calls import Decoding, Forward, NewCache, prefill, read, read_with_judgements
from nemodiff_core.decode.canvas import Block, Clock, Recorder, event
from nemodiff_core.decode.commit import Threshold
from nemodiff_core.decode.sampling import Choice, Sampler, choose_beside, drawn_from, judge
from nemodiff_core.decode.thinking import ThinkingBudget
from nemodiff_core.decode.verification import verify
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest

SHORTEST = 2  # a block of one cell would draft nothing


class BlockLength:
    """The length of the next block: `longest`, or twice the recent acceptance length where it may adapt.

    The recent length is a mean in which every cycle weighs half as much as the one after it. Twice of it
    leaves room to grow: blocks that are accepted whole double, and refused ones shrink within a few cycles.
    """

    def __init__(self, longest: int, adaptive: bool) -> None:
        self.longest, self.adaptive = longest, adaptive
        self._recent = longest / 2

    def next(self) -> int:
        """Cells of the next block, the pending token included."""
        return max(SHORTEST, min(self.longest, round(2 * self._recent))) if self.adaptive else self.longest

    def saw(self, emitted: int) -> None:
        """A verification emitted so many tokens."""
        self._recent = (self._recent + emitted) / 2


def leading(sureness: Sequence[float], bound: float) -> list[int]:
    """Indices of the run from the left whose values reach `bound`, and the first in any case.

    The ratio is right only if a draft was drawn from the recorded distribution, whatever became of the cells
    before it. So whether a cell is filled may depend on its distribution but not on the token drawn there, and
    no cell may be filled after one to its right: accepting it would tell something about that one's token.
    """
    return list(range(max(1, next((i for i, value in enumerate(sureness) if value < bound), len(sureness)))))


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
    """Yield the prefill and, for each cycle, its draft steps and the verification.

    Every emitted token is the causal pass's own choice given the text before it, so greedy output is AR's
    and sampling keeps AR's distribution; drafts only decide how many tokens a verification yields. By the
    rule `match` that choice is made without regard to the draft, by `ratio` it leans towards the draft as
    far as the distribution allows.
    """
    knobs = (request.temperature, request.top_p, request.candidates)
    drafter = Sampler(mask_id, *knobs, tempered=True, generator=generator)
    verifier = Sampler(mask_id, *knobs, generator=generator)
    bound = request.threshold or 0.0  # 0 fills all masks at once
    policy = Threshold(bound)
    by_ratio = request.verification == "ratio" and request.temperature > 0
    record = Recorder(clock)
    start, end = len(prompt), len(prompt) + request.max_new_tokens  # start: position of the pending token
    stop_id = eos_id if request.stop_at_eos else None
    thinking = ThinkingBudget(request, end_think_id, start)
    lengths = BlockLength(request.block_length, request.adaptive_block)
    cache = yield NewCache(end + request.block_length)
    block_of = lru_cache(maxsize=None)(lambda length: Block(length, mask_id, model.device))

    packed = yield prefill(model, prompt, cache, Choice(verifier))
    (look,) = yield from read(packed)
    seed = thinking.event("seed", start, look)
    yield record.step("prefill", 0, start, 0, [seed], [(start, look)])

    pending, cycle = seed.token, 0
    while start + 1 < end and pending != stop_id:
        size = thinking.reach(start + lengths.next()) - start
        block = block_of(size)
        block.begin(pending)
        proposals = None  # [size, vocab]: what every cell's draft was drawn from
        while masked := block.masked:
            rows = block.rows(len(masked))
            draft = Forward(block.tensor, "bidirectional", cache, rows=rows, draft=request.adapter)
            if by_ratio:
                logits = yield draft
                packed = drafter.choose(logits)
                # Cells that this step leaves masked are overwritten by the step that fills them.
                q = drawn_from(drafter, logits)
                proposals = q.new_zeros(size, q.shape[1]) if proposals is None else proposals
                proposals[rows] = q
                looks, judgements = yield from read_with_judgements(packed, judge(q.log(), packed[:, 0].long(), mask_id))
                drafted = leading([judgement.best_probability for judgement in judgements], bound)
            else:
                packed = yield replace(draft, choice=Choice(drafter))
                looks = yield from read(packed)
                drafted = policy.choose(looks, 0)
            events = [event("draft", start + masked[i], looks[i]) for i in drafted]
            block.fill([masked[i] for i in drafted], [looks[i].token for i in drafted])
            yield record.step("draft", start, start + size, cycle, events, ((start + i, k) for i, k in zip(masked, looks)))

        verification = Forward(block.tensor, "causal", cache, write=True)
        if proposals is None:
            packed = yield replace(verification, choice=Choice(verifier))
        else:
            logits = yield verification
            packed = choose_beside(verifier, logits, block.tensor[0, 1:], proposals[1:])
        picks = yield from read(packed)
        # picks[i] is the causal choice for the position behind block cell i.
        verdict = verify(start, block.cells[1:], picks, end, stop_id, thinking)
        cache.crop(start + verdict.emitted)
        looks = ((start + 1 + i, pick) for i, pick in enumerate(picks))
        yield record.step("verify", start, start + size, cycle, verdict.events, looks)
        lengths.saw(verdict.emitted)
        pending = verdict.pending
        start, cycle = start + verdict.emitted, cycle + 1
