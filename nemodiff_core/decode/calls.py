"""What a decoder asks for while it decodes.

A decoder is a generator. Between its Steps it yields calls and is sent their answers, so that it reads like its
algorithm, and whoever drives it (batch.py) may run the forwards of many decoders as one.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from nemodiff_core.cache import KVCache
from nemodiff_core.decode.sampling import Choice, Judgement, Look, judgements_of, looks_of
from nemodiff_core.model import Layout, Pattern, TriModeModel
from nemodiff_core.trace import Step


@dataclass(frozen=True, slots=True)
class NewCache:
    """Answered with an empty KVCache for so many positions; every decoder's first call, made once."""

    capacity: int
    widest: int = 0  # inputs of the widest pass, where that is more than a block


@dataclass(frozen=True, slots=True, eq=False)
class Forward:
    """One forward; the fields mean what `TriModeModel.forward` says. Answered with logits [rows, vocab].

    Where `head` is False, the answer are hidden states [rows, hidden] (layouts only). Where there is a `choice`, the
    answer is what it makes of the logits.
    """

    tokens: torch.Tensor  # [1, q] int64
    pattern: Pattern | Layout
    cache: KVCache
    write: bool = False  # of a layout: its causal part
    rows: slice | torch.Tensor | None = None
    draft: bool = False
    head: bool = True
    choice: Choice | None = None

    @property
    def kept(self) -> int:
        """How many of the tokens the cache keeps."""
        whole = self.tokens.shape[1] if isinstance(self.pattern, str) else self.pattern.causal
        return whole if self.write else 0

    def run(self, model: TriModeModel) -> torch.Tensor:
        """The answer, for this row alone."""
        cache, plan = self.cache, self.pattern
        if isinstance(plan, str):
            logits = model(self.tokens, pattern=plan, cache=cache, write=self.write, rows=self.rows, draft=self.draft)[0]
            return self.answered(logits)
        prefix = cache.length
        mask = torch.cat((plan.visible.new_ones(len(plan.offsets), prefix), plan.visible), dim=1)
        x = model.hidden(
            self.tokens, plan.offsets + prefix, prefix + plan.reach, mask=mask, cache=cache, draft=self.draft
        )
        cache.advance(self.kept)
        x = self.chosen(x[0])
        return self.answered(model.head(x)) if self.head else x

    def answered(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits [rows, vocab], or what the choice makes of them."""
        return logits if self.choice is None else self.choice(logits)

    def chosen(self, x: torch.Tensor) -> torch.Tensor:
        """The `rows` of x [q, hidden]."""
        if self.rows is None:
            return x
        return x[self.rows.to(x.device) if isinstance(self.rows, torch.Tensor) else self.rows]


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Answered with the rows of each table, as lists of floats: the one synchronisation of a step."""

    tables: Sequence[torch.Tensor]  # [rows, columns] float32 each


Call = NewCache | Forward | Read
T = TypeVar("T")
Decoding = Generator[Step | Call, Any, T]  # a decoder, or a part of one that returns T


def prefill(model: TriModeModel, prompt: Sequence[int], cache: KVCache, choice: Choice | None = None) -> Forward:
    """Write the prompt into the cache; logits [1, vocab] of what comes behind it, or the choice from them."""
    return causal(model, prompt, cache, write=True, rows=LAST, choice=choice)


def causal(model: TriModeModel, tokens: Sequence[int], cache: KVCache, **more: Any) -> Forward:
    """A causal pass over `tokens` behind what is cached."""
    return Forward(torch.tensor([list(tokens)], device=model.device), "causal", cache, **more)


LAST = slice(-1, None)  # the row of a causal pass that says what comes next


def read(packed: torch.Tensor) -> Decoding[list[Look]]:
    """What a step chose (`Sampler.choose`). Raises NemodiffError for NaN logits."""
    (rows,) = yield Read((packed,))
    return looks_of(rows)


def read_judgements(judged: torch.Tensor) -> Decoding[list[Judgement]]:
    """What a step judged (`judge`)."""
    (rows,) = yield Read((judged,))
    return judgements_of(rows)


def read_with_judgements(packed: torch.Tensor, judged: torch.Tensor) -> Decoding[tuple[list[Look], list[Judgement]]]:
    """What one step chose and what it judged, in one transfer. Raises NemodiffError for NaN logits."""
    looks, judgements = yield Read((packed, judged))
    return looks_of(looks), judgements_of(judgements)
