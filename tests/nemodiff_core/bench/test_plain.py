"""The plain loops write what nemodiff writes, with as many forwards, on transformers' model and on its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nemodiff_core import metrics
from nemodiff_core.bench import plain
from nemodiff_core.errors import NemodiffError
from nemodiff_core.request import parse_request

PROMPTS = ("Sort these numbers: 41, 7, 88", "What is 859 + 344?")


@pytest.mark.parametrize("mode", plain.LOOPS)
@torch.inference_mode()
def test_loops_write_the_tokens_of_the_decoders(mode: str, tiny_engine: Any):
    tokenizer, model = tiny_engine.checkpoint.tokenizer, tiny_engine.checkpoint.model
    theirs = plain.transformers_model(model)
    for prompt in PROMPTS:
        run = tiny_engine.run(parse_request({"prompt": prompt, "mode": mode, "block_length": 8, "max_new_tokens": 21}))
        for _ in run:
            pass
        trace = run.trace()
        task = plain.Task(trace.prompt.ids, 21, tokenizer.eos_id, tokenizer.mask_id, block_length=8)
        for passes in (plain.TransformersPasses(theirs), plain.OwnPasses(model, len(task.prompt) + 32)):
            assert plain.LOOPS[mode](passes, task) == trace.output.ids
            assert passes.forwards == metrics.forwards(trace)


class Script:
    """Passes that say the same text behind a prompt of three tokens, whatever they are given."""

    device, forwards, length = torch.device("cpu"), 0, 0
    text = [5, 6, 7, 2, 8, 8, 8, 8, 8, 8, 8, 8]

    def causal(self, tokens: torch.Tensor, last: bool = False) -> torch.Tensor:
        self.length += len(tokens)
        said = self._from(self.length - 3 - (0 if last else len(tokens) - 1))
        return said[:1] if last else said[: len(tokens)]

    def open(self, tokens: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return self._from(self.length - 3)[rows]

    def crop(self, length: int) -> None:
        self.length = length

    def _from(self, first: int) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor(self.text[first:]), 10) * 50.0


@pytest.mark.parametrize("mode", plain.LOOPS)
def test_loops_stop_at_the_end_token(mode: str):
    task = plain.Task([0, 0, 0], 9, eos_id=2, mask_id=9, block_length=4)
    assert plain.LOOPS[mode](Script(), task) == [5, 6, 7, 2]


def test_a_spread_model_has_no_transformers_twin(tiny_engine: Any):
    model = tiny_engine.checkpoint.model
    model.layer_devices = (torch.device("cpu"),) * 2
    assert plain.missing(model).startswith("unmeasured")
    with pytest.raises(NemodiffError, match="several devices"):
        plain.transformers_model(model)
