"""Fixtures that several packages' tests share: a very small random model behind a real tokenizer."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from nemodiff_cli import main
from nemodiff_core.checkpoint import Checkpoint, save
from nemodiff_core.config import ModelConfig, RopeConfig
from nemodiff_core.engine import Engine
from nemodiff_core.model import TriModeModel
from nemodiff_core.tokenizer import Tokenizer
from nemodiff_core.training.vocabulary import EOS, MASK, train_vocabulary

# Models this small gain nothing from a second thread, and wait for it wherever the machine is busy.
torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    """Tests with event loops of their own run in a thread: once a browser was open, the main thread has Playwright's."""
    if pyfuncitem.get_closest_marker("own_thread"):
        test = pyfuncitem.obj

        def in_thread(**given: Any) -> Any:
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(test, **given).result()

        pyfuncitem.obj = in_thread
    return (yield)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Tokenizer:
    """Bytes only: 128 special ids and one token a byte."""
    return train_vocabulary(384, examples=20)


def random_model(seed: int = 0, vocabulary: int = 384) -> TriModeModel:
    """Random weights, large enough that greedy choices vary with the context."""
    torch.manual_seed(seed)
    config = ModelConfig(
        vocab_size=vocabulary,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=1024,
        eos_token_id=EOS,
        mask_token_id=MASK,
        rope=RopeConfig(theta=1e4, original_max_position_embeddings=512),
    )
    model = TriModeModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.25)
    return model


@pytest.fixture
def tiny_engine(tiny_tokenizer: Tokenizer) -> Engine:
    model = random_model()
    return Engine(Checkpoint(model, tiny_tokenizer, model.config, "random", None, Path("random")))


class Answer(NamedTuple):
    """What a command said."""

    status: int
    out: str
    err: str


Command = Callable[..., Answer]


@pytest.fixture
def nemodiff(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line in this process."""

    def call(*arguments: object, stdin: str = "") -> Answer:
        monkeypatch.setattr(sys, "argv", ["nemodiff", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main.run()
        return Answer(ended.value.code, *capsys.readouterr())

    return call


@pytest.fixture
def model(tiny_engine: Engine, tmp_path: Path) -> Path:
    """The small random model as a checkpoint folder."""
    return save(tiny_engine.checkpoint.model, tiny_engine.checkpoint.tokenizer, tmp_path / "small")
