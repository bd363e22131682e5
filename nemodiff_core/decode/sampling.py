"""Choosing tokens from logits, and how sure the model is of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


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

    def choose(self, logits: torch.Tensor) -> torch.Tensor:
        """Everything one step needs to know of its rows [rows, vocab], packed as [rows, 3 + 2k] float32.

        Columns: token, confidence, entropy, k candidate ids, k candidate probabilities. Packed, because one
        tensor is one transfer. Ids are exact in float32 up to 2^24. `logits` is used up.
        """
        z = logits.float()
        norm = z.logsumexp(-1, keepdim=True)
        log_p = z - norm
        entropy = -(log_p.exp() * log_p).sum(-1)
        log_p[:, self.mask_id] = -torch.inf
        if self.temperature == 0:
            token = log_p.argmax(-1)
            confidence = log_p.gather(-1, token[:, None])[:, 0].exp()
        else:
            warm = log_p / self.temperature
            p = warm.softmax(-1)
            token = torch.multinomial(_nucleus(p, self.top_p), 1, generator=self.generator)[:, 0]
            source = p if self.tempered else log_p.exp()
            confidence = source.gather(-1, token[:, None])[:, 0]
        columns = [torch.stack((token.float(), confidence, entropy), -1)]
        if self.candidates:
            top = log_p.topk(min(self.candidates, log_p.shape[-1] - 1), dim=-1)
            columns += [top.indices.float(), top.values.exp()]
        return torch.cat(columns, -1)


def read(packed: torch.Tensor) -> list[Look]:
    """Bring a packed table to the host: the one synchronisation of a step."""
    k = (packed.shape[1] - 3) // 2
    return [
        Look(int(row[0]), row[1], row[2], tuple(map(int, row[3 : 3 + k])), tuple(row[3 + k :])) for row in packed.tolist()
    ]


def _nucleus(p: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the smallest set of tokens whose probability reaches `top_p` (at least one); [rows, vocab]."""
    if top_p >= 1:
        return p
    ordered, order = p.sort(dim=-1, descending=True, stable=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    outside[:, 0] = False
    return p.scatter(-1, order, ordered.masked_fill(outside, 0.0))
