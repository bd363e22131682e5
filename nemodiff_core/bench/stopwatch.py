"""Where the time of a run goes: into the forwards of its phases, and between them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from nemodiff_core.checkpoint import Checkpoint
from nemodiff_core.decode.batch import fast_for
from nemodiff_core.engine import Engine
from nemodiff_core.metrics import seconds
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest, Limits
from nemodiff_core.trace import Trace

HOST = "host"
T = TypeVar("T")


def wait(device: torch.device) -> None:
    """Return when everything asked of the device is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class Watched:
    """Stands in for a model and counts the seconds in its forwards; on a GPU it waits for each of them."""

    def __init__(self, model: TriModeModel) -> None:
        self._model = model
        self._spent = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *arguments: Any, **named: Any) -> torch.Tensor:
        return self.timed(self._model, *arguments, **named)

    def hidden(self, *arguments: Any, **named: Any) -> torch.Tensor:
        return self.timed(self._model.hidden, *arguments, **named)

    def head(self, *arguments: Any, **named: Any) -> torch.Tensor:
        return self.timed(self._model.head, *arguments, **named)

    def take(self) -> float:
        """Seconds in forwards since the last call."""
        spent, self._spent = self._spent, 0.0
        return spent

    def timed(self, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """What `call` answers, its time counted."""
        wait(self._model.device)
        began = time.perf_counter()
        result = call(*arguments, **named)
        wait(self._model.device)
        self._spent += time.perf_counter() - began
        return result


@dataclass(frozen=True)
class Split:
    """A run and the seconds of each of its steps that were spent in the model."""

    trace: Trace
    in_forwards: list[float]

    def seconds(self) -> dict[str, float]:
        """Seconds by phase, and `host` for all that happened between forwards; together they are the run's."""
        shares: dict[str, float] = {}
        for step, took in zip(self.trace.steps, self.in_forwards, strict=True):
            shares[step.phase] = shares.get(step.phase, 0.0) + took
        return shares | {HOST: seconds(self.trace) - sum(self.in_forwards)}


class Stopwatch:
    """Runs requests on a checkpoint whose forwards are timed."""

    def __init__(self, checkpoint: Checkpoint, limits: Limits) -> None:
        self.model = Watched(checkpoint.model)
        self.engine = Engine(dataclasses.replace(checkpoint, model=self.model), limits)
        self.engine.fast = fast = fast_for(checkpoint.model)
        if fast is not None:
            fast.together = partial(self.model.timed, fast.together)

    def run(self, request: DecodeRequest) -> Split:
        """Raises NemodiffError."""
        self.model.take()
        run, in_forwards = self.engine.run(request), []
        for _ in run:
            in_forwards.append(self.model.take())
        return Split(run.trace(), in_forwards)
