"""Choosing tokens from logits, and how sure the model is of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

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
    margin: float = 0.0  # lead of the first candidate over the second, where a policy asks for it


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a forward thinks of a token that already stands somewhere, and what it would have written itself."""

    probability: float
    rank: int  # 0 = its own choice
    best: int
    best_probability: float


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
    margins: bool = False

    def choose(self, logits: torch.Tensor, drawn: int | None = None, banned: torch.Tensor | None = None) -> torch.Tensor:
        """Everything one step needs to know of its rows [rows, vocab], packed as [rows, 3 + 2k (+ 1)] float32.

        Columns: token, confidence, entropy, k candidate ids, k candidate probabilities, the margin if asked
        for. Packed, because one tensor is one transfer. Ids are exact in float32 up to 2^24. Rows from `drawn`
        on are only looked at: they use no randomness, so that recording more of a step cannot change what it
        chooses. `banned` [rows, vocab] or [vocab] bool marks tokens that may not be chosen.
        """
        log_p = logits.log_softmax(-1, dtype=torch.float32)
        # The bound only matters for tokens of probability 0, whose share would be 0 times minus infinity.
        entropy = -torch.linalg.vecdot(log_p.exp(), log_p.clamp_min(-1e4))
        log_p[:, self.mask_id] = -torch.inf
        if banned is not None:
            log_p.masked_fill_(banned, -torch.inf)
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
        if self.margins:
            first, second = log_p.topk(2, dim=-1).values.exp().unbind(-1)
            columns.append((first - second)[:, None])
        return torch.cat(columns, -1)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """`Sampler.choose` with all that it needs but the logits, for whoever computes them."""

    sampler: Sampler
    drawn: int | None = None
    banned: torch.Tensor | None = None

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        return self.sampler.choose(logits, self.drawn, self.banned)

    @property
    def by_row(self) -> bool:
        """Whether what a row gives depends on its own logits alone."""
        return self.sampler.temperature == 0 and self.banned is None


def fetch(tables: Sequence[torch.Tensor]) -> list[list[list[float]]]:
    """Bring tables [rows, columns] to the host in one transfer; their rows, each as wide as it was."""
    if len(tables) == 1:
        return [tables[0].tolist()]
    width = max(table.shape[1] for table in tables)
    rows = iter(torch.cat([F.pad(table, (0, width - table.shape[1])) for table in tables]).tolist())
    return [[next(rows)[: table.shape[1]] for _ in range(len(table))] for table in tables]


def looks_of(rows: list[list[float]]) -> list[Look]:
    """What rows packed by `Sampler.choose` say. Raises NemodiffError for NaN logits."""
    if any(row[2] != row[2] for row in rows):
        raise NemodiffError(
            "the model computed values that are not numbers; load it in float32 or bfloat16, or check its weights."
        )
    k, margin = divmod(len(rows[0]) - 3, 2) if rows else (0, 0)
    return [
        Look(
            int(row[0]),
            row[1],
            row[2],
            tuple(map(int, row[3 : 3 + k])),
            tuple(row[3 + k : 3 + 2 * k]),
            row[3 + 2 * k] if margin else 0.0,
        )
        for row in rows
    ]


def judge(logits: torch.Tensor, tokens: torch.Tensor, mask_id: int) -> torch.Tensor:
    """What rows [rows, vocab] think of `tokens` [rows]: probability, rank, best token, its probability; [rows, 4] float32."""
    log_p = logits.log_softmax(-1, dtype=torch.float32)
    log_p[:, mask_id] = -torch.inf
    own = log_p.gather(-1, tokens[:, None])
    best = log_p.max(-1)
    rank = (log_p > own).sum(-1)
    return torch.stack((own[:, 0].exp(), rank.float(), best.indices.float(), best.values.exp()), -1)


def judgements_of(rows: list[list[float]]) -> list[Judgement]:
    """What rows made by `judge` say."""
    return [Judgement(row[0], int(row[1]), int(row[2]), row[3]) for row in rows]


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


def drawn_from(sampler: Sampler, logits: torch.Tensor) -> torch.Tensor:
    """The distribution from which `sampler` draws rows [rows, vocab]: tempered, cut to the nucleus, normalised; float32."""
    log_p = logits.log_softmax(-1, dtype=torch.float32)
    log_p[:, sampler.mask_id] = -torch.inf
    warm = (log_p / max(sampler.temperature, COLDEST)).log_softmax(-1)
    p = _nucleus(warm.exp(), sampler.top_p)  # step by step as in `choose`, so that rounding moves no edge of a nucleus
    return p / p.sum(-1, keepdim=True)


def choose_beside(sampler: Sampler, logits: torch.Tensor, drafts: torch.Tensor, proposals: torch.Tensor) -> torch.Tensor:
    """Choose tokens that follow `sampler`'s distribution p and are the draft as often as that allows.

    Row i of logits [drafts + 1, vocab] keeps drafts[i], drawn from q = proposals[i] [vocab], with probability
    min(1, p/q) and draws from the normalised positive part of p - q otherwise (Leviathan et al. 2023, §2.3);
    the last row has no draft and draws from p. Packed as by `Sampler.choose`, with nothing read on the host.
    """
    p = drawn_from(sampler, logits)
    spare = p.clone()
    spare[:-1] = (p[:-1] - proposals).clamp_min_(0.0)
    # Where rounding leaves nothing, p and q are the same, and p stands for both.
    spare = torch.where(spare.sum(-1, keepdim=True) > 0, spare, p)
    token = _draw(spare, sampler.generator)
    heights = torch.rand(len(drafts), dtype=torch.float64, device=p.device, generator=sampler.generator)
    at = drafts[:, None]
    kept = heights * proposals.gather(-1, at)[:, 0] < p[:-1].gather(-1, at)[:, 0]
    token[:-1] = torch.where(kept, drafts, token[:-1])
    packed = sampler.choose(logits, drawn=0)
    packed[:, 0] = token
    packed[:, 1] = logits.log_softmax(-1, dtype=torch.float32).gather(-1, token[:, None])[:, 0].exp()
    return packed
