"""Fill in the middle: gaps between given text, each written with the text on both sides in sight.

What stands before a gap is read causally, as everywhere. What stands behind it is seen bidirectionally, as far
as it fits into the block that starts at the last given token before the gap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from nemodiff_core.decode.calls import Decoding, causal, prefill, read_judgements
from nemodiff_core.decode.canvas import Clock
from nemodiff_core.decode.denoise import Denoiser
from nemodiff_core.decode.sampling import judge
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Score, TokenEvent


@dataclass(frozen=True)
class Gap:
    """A hole of `shortest` to `longest` tokens; `first` and `others` [vocab] bool say what its cells may become.

    Where a run goes on in its midst, a gap of a known length holds tokens already: `stands` by offset, of which
    `pinned` stay whatever comes. `bans` says by offset what a cell may not become besides.
    """

    shortest: int
    longest: int
    first: torch.Tensor
    others: torch.Tensor
    stands: Mapping[int, int] = field(default_factory=dict)
    pinned: frozenset[int] = frozenset()
    bans: Mapping[int, frozenset[int]] = field(default_factory=dict)

    def banned(self, size: int) -> torch.Tensor:
        """[size, vocab] bool for a block of `size` whose cell 1 is the first of the gap."""
        banned = (~self.others).repeat(size, 1)
        banned[1] = ~self.first
        for offset, tokens in self.bans.items():
            banned[1 + offset, list(tokens)] = True
        return banned


Part = list[int] | Gap  # given tokens, or a gap between them


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
    given: Sequence[Part] = (),
) -> Decoding[None]:
    """Write the parts `given` behind the prompt, filling the gaps from left to right.

    A gap of several possible lengths is first filled in each of them, and gets the length whose text, together
    with what follows it, the causal pass finds most probable per token; the trace shows the forwards of these
    tries as `verify` steps. Gaps longer than a block are refused with the request (skeleton.py).
    """
    size = request.block_length
    room = sum(part.longest if isinstance(part, Gap) else len(part) for part in given)
    denoiser = yield from Denoiser.for_request(
        model, request, len(prompt) + room + 2 * size, mask_id=mask_id, generator=generator, clock=clock
    )
    cache, block, record = denoiser.cache, denoiser.block, denoiser.record

    before = yield prefill(model, prompt, cache)  # [1, vocab]: what the causal pass expects next
    yield record.step("prefill", 0, len(prompt), 0)
    written = list(prompt)
    for number, part in enumerate(given):
        start = len(written)
        if not isinstance(part, Gap):
            logits = yield causal(model, part, cache, write=True)
            scores = yield from _scores(start, part, torch.cat((before, logits[:-1])), mask_id)
            pins = [TokenEvent(start + i, token, "pin") for i, token in enumerate(part)]
            yield record.step("commit", start, start + len(part), number, pins, (), scores)
            before, written = logits[-1:], [*written, *part]
            continue
        # The last token before the gap is the seed of its block, so it is read again together with it.
        cache.crop(start - 1)
        seed, rest = written[-1], given[number + 1 :]
        length = part.shortest
        if part.longest > part.shortest:
            best = -math.inf
            for tried in range(part.shortest, part.longest + 1):
                denoiser.begin(seed, _around(rest, tried, size, mask_id, eos_id), tried + 1)
                score = yield from _try(denoiser, part, start, number, tried, eos_id)
                if score > best:
                    best, length = score, tried
        stands = {1 + offset: token for offset, token in part.stands.items()}
        denoiser.begin(seed, _around(rest, length, size, mask_id, eos_id) | stands, length + 1)
        pins = tuple(TokenEvent(start + offset, part.stands[offset], "pin") for offset in sorted(part.pinned))
        before_filling = record.count
        yield from _fill(denoiser, part, "denoise", start, number, length, first=pins)
        if record.count > before_filling:
            pins = ()
        filled = block.cells[1 : length + 1]
        logits = yield causal(model, [seed, *filled], cache, write=True)
        scores = yield from _scores(start, filled, logits[:-1], mask_id)
        yield record.step("commit", start, start + length, number, pins, (), scores)
        before, written = logits[-1:], [*written, *filled]


def _scores(start: int, tokens: Sequence[int], logits: torch.Tensor, mask_id: int) -> Decoding[list[Score]]:
    """What the causal pass thinks of `tokens` at `start`, from the rows [tokens, vocab] that predicted them."""
    judgements = yield from read_judgements(judge(logits, torch.tensor(list(tokens), device=logits.device), mask_id))
    return [Score(start + i, token, min(j.probability, 1.0), j.rank) for i, (token, j) in enumerate(zip(tokens, judgements))]


def _fill(
    denoiser: Denoiser,
    gap: Gap,
    phase: str,
    start: int,
    number: int,
    length: int,
    *,
    first: tuple[TokenEvent, ...] = (),
    quiet: bool = False,
) -> Decoding[None]:
    """Denoise the `length` cells of the gap at `start`, whose block begins one cell before it."""
    size = len(denoiser.block.cells)
    yield from denoiser.fill(
        phase,
        start - 1,
        number,
        denoiser.policy(length),
        lambda: length + 1,
        fixed=frozenset((0, *(1 + offset for offset in gap.pinned), *range(length + 1, size))),
        banned=gap.banned(size),
        limit=denoiser.request.max_forwards_per_block,
        first=first,
        span=range(start, start + length),
        quiet=quiet,
    )


def _try(denoiser: Denoiser, gap: Gap, start: int, number: int, length: int, eos_id: int) -> Decoding[float]:
    """Fill the block's gap and return the causal pass's mean log-probability of it and of what follows.

    Recorded as `verify` steps without events: a try leaves nothing on the canvas.
    """
    model, cache, block, record = denoiser.model, denoiser.cache, denoiser.block, denoiser.record
    yield from _fill(denoiser, gap, "verify", start, number, length, quiet=True)
    # Up to the next gap or the padding behind the end; the end itself counts, it says that the text is whole.
    tokens = block.cells[1:]
    stop = next((i for i, t in enumerate(tokens) if t == block.mask_id), len(tokens))
    ends = next((i for i, t in enumerate(tokens[length:stop]) if t == eos_id), stop - length)
    tokens = tokens[: min(length + ends + 1, stop)]
    logits = yield causal(model, [block.cells[0], *tokens], cache)
    scores = yield from _scores(start, tokens, logits[:-1], block.mask_id)
    yield record.step("verify", start, start + len(tokens), number, (), (), scores)
    return sum(math.log(max(score.probability, 1e-9)) for score in scores) / len(scores)


def _around(rest: Sequence[Part], length: int, size: int, mask_id: int, eos_id: int) -> dict[int, int]:
    """What stands in the block behind a gap of `length` cells, by offset: later gaps are masks, the end is ends."""
    tokens: list[int] = []
    for part in rest:
        tokens += [mask_id] * part.shortest if isinstance(part, Gap) else part
    room = size - 1 - length
    tokens = (tokens + [eos_id] * room)[:room]
    return {1 + length + i: token for i, token in enumerate(tokens) if token != mask_id}
