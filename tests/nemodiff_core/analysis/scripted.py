"""A stand-in for a model whose predictions a test writes down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from nemodiff_core.checkpoint import Checkpoint
from nemodiff_core.engine import Engine
from nemodiff_core.model import TriModeModel
from nemodiff_core.tokenizer import Tokenizer
from tests.conftest import random_model

Wish = dict[int, tuple[int, float]]  # offset -> token and its logit, all others being 0


class ScriptedModel(TriModeModel):
    """Answers `fill(cells)` in bidirectional passes and `follow(ids)` behind every token of causal ones."""

    def __init__(self, fill: Callable[[Sequence[int]], Wish], follow: Callable[[Sequence[int]], int]) -> None:
        super().__init__(random_model().config)
        self.fill, self.follow = fill, follow
        self.text: list[int] = []  # what the cache holds

    def forward(self, tokens, *, pattern, cache=None, write=False, rows=None, draft=False) -> torch.Tensor:
        ids = tokens[0].tolist()
        logits = torch.zeros(1, len(ids), self.config.vocab_size)
        if pattern == "bidirectional":
            for offset, (token, height) in self.fill(ids).items():
                logits[0, offset, token] = height
        else:
            before = self.text[: cache.length]
            for n in range(len(ids)):
                logits[0, n, self.follow(before + ids[: n + 1])] = 12.0
            self.text = before + ids
            cache.advance(len(ids))
        return logits if rows is None else logits[:, rows]


def scripted_engine(tokenizer: Tokenizer, fill: Callable, follow: Callable) -> Engine:
    """An engine over a ScriptedModel."""
    model = ScriptedModel(fill, follow).eval().requires_grad_(False)
    return Engine(Checkpoint(model, tokenizer, model.config, "scripted", None, Path("scripted")))
