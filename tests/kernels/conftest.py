"""Kernels run compiled where there is a GPU, else in Triton's interpreter; every test here sees only `ops` and `device`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import kernels
from kernels.dispatch import WISH

GPU = torch.cuda.is_available()


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if GPU else "cpu")


@pytest.fixture(scope="session")
def ops(device: torch.device) -> kernels.Ops:
    """Every operation as a kernel."""
    if GPU:
        return kernels.use(device, "triton")
    interpreted = kernels.use(device, "interpret")
    from tests.kernels import interpreter  # imports Triton, which comes after the choice

    interpreter.prepare()
    return interpreted


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """New memory holds NaN, or an impossible integer, so that an element a kernel forgets to write shows up."""
    for name in ("empty", "empty_like"):
        allocate = getattr(torch, name)

        def poisoned(*arguments, allocate=allocate, **named) -> torch.Tensor:
            made = allocate(*arguments, **named)
            return made.fill_(float("nan") if made.is_floating_point() else -(2**30))

        monkeypatch.setattr(torch, name, poisoned)
    yield


@pytest.fixture(autouse=True)
def quiet_numpy() -> Iterator[None]:
    """The interpreter computes with NumPy, which remarks on infinities that a GPU takes in its stride."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        yield


@pytest.fixture(autouse=True)
def no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WISH, raising=False)
