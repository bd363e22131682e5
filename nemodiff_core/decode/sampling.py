"""Choosing tokens from logits, and how sure the model is of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nemodiff_core.errors import NemodiffError

# Temperatures below this are greedy in all but name; dividing by them would leave float32's range.
COLDEST = 1e-6


@dataclass(frozen=True, slots=True)
class Look:
    """What one forward said about one position, on the host."""

    token: int
    confidence: float
    entropy: float  # nats
    ids: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampler:
    """How a request turns logits into tokens.

    The mask token is never chosen, but keeps its share of the probability, so that confidence means the same
    as in the reference (facts §11). Probabilities are computed in float32 whatever the logits' dtype.
    `tempered` says whether confidence is read after the temperature (drafts, facts §4.3) or before it.
    """

    mask_id: int
    temperature: float = 0.0
    top_p: float = 1.0
    candidates: int = 0
    tempered: bool = False
    generator: torch.Generator | None = None

    def choose(self, logits: torch.Tensor, drawn: int | None = None) -> torch.Tensor:
        """Everything one step needs to know of its rows [rows, vocab], packed as [rows, 3 + 2k] float32.

        Columns: token, confidence, entropy, k candidate ids, k candidate probabilities. Packed, because one
        tensor is one transfer. Ids are exact in float32 up to 2^24. Rows from `drawn` on are only looked at:
        they use no randomness, so that recording more of a step cannot change what it chooses.
        """
        log_p = logits.log_softmax(-1, dtype=torch.float32)
        # The bound only matters for tokens of probability 0, whose share would be 0 times minus infinity.
        entropy = -torch.linalg.vecdot(log_p.exp(), log_p.clamp_min(-1e4))
        log_p[:, self.mask_id] = -torch.inf
        token = log_p.argmax(-1)
        source = log_p
        if self.temperature > 0:
            warm = (log_p[:drawn] / max(self.temperature, COLDEST)).log_softmax(-1)
            token[:drawn] = _draw(_nucleus(warm.exp(), self.top_p), self.generator)
            if self.tempered:
                source = torch.cat((warm, log_p[len(warm) :]))
        confidence = source.gather(-1, token[:, None])[:, 0].exp()
        columns = [torch.stack((token.float(), confidence, entropy), -1)]
        if self.candidates:
            top = log_p.topk(min(self.candidates, log_p.shape[-1] - 1), dim=-1)
            columns += [top.indices.float(), top.values.exp()]
        return torch.cat(columns, -1)


def read(packed: torch.Tensor) -> list[Look]:
    """Bring a packed table to the host: the one synchronisation of a step. Raises NemodiffError for NaN logits."""
    k = (packed.shape[1] - 3) // 2
    rows = packed.tolist()
    if any(row[2] != row[2] for row in rows):
        raise NemodiffError(
            "the model computed values that are not numbers; load it in float32 or bfloat16, or check its weights."
        )
    return [Look(int(row[0]), row[1], row[2], tuple(map(int, row[3 : 3 + k])), tuple(row[3 + k :])) for row in rows]


def _draw(p: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """One index a row, in proportion to p [rows, vocab], by inverting the cumulative sum.

    Not torch.multinomial: it checks its input twice on the host, a wait each time, and draws a number for every
    token of the vocabulary instead of one a row. Float64, so that rare tokens keep their share.
    """
    steps = p.cumsum(-1, dtype=torch.float64)
    # Short of the last step by a hair, so that rounding cannot point behind it.
    heights = torch.rand((len(p), 1), dtype=torch.float64, device=p.device, generator=generator) * (1 - 2**-40)
    drawn = torch.searchsorted(steps, heights * steps[:, -1:], right=True)[:, 0]
    return drawn.clamp_max_(p.shape[-1] - 1)  # NaN points behind the end; `read` reports it


def _nucleus(p: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the smallest set of tokens whose probability reaches `top_p` (at least one); [rows, vocab]."""
    if top_p >= 1:
        return p
    ordered, order = p.sort(dim=-1, descending=True, stable=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    outside[:, 0] = False
    return p.scatter(-1, order, ordered.masked_fill(outside, 0.0))
