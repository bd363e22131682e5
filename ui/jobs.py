"""What a press of a button is to do once it has the device: one lane after another, each a decoding run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from nemodiff_core.request import DecodeRequest, Limits
from nemodiff_core.trace import Step, Trace


class Running(Protocol):
    """A run as the engine hands it out. Where its tokens are not that engine's, `piece(token)` says how they are written."""

    def __iter__(self) -> Iterator[Step]: ...

    def trace(self) -> Trace: ...

    def close(self) -> None: ...


Lane = Callable[[Any, threading.Event], Running]  # (engine, stop) -> a run that has not begun


@dataclass(frozen=True)
class Together:
    """Lanes that share every forward on the page's own engine, a request each."""

    requests: tuple[DecodeRequest, ...]

    def __len__(self) -> int:
        return len(self.requests)

    def start(self, engine: Any, stop: threading.Event) -> Any:
        """The engine's run of them all. Raises NemodiffError."""
        return engine.run_batch(self.requests, stop)


@dataclass(frozen=True)
class Job:
    """Lanes to run in their order, or all at once."""

    lanes: tuple[Lane, ...] | Together
    blind: Any = None  # the round of a blind race (ui/blind.py)


def decode(requests: Sequence[DecodeRequest], limits: Limits) -> Job:
    """A job of one lane a request. Raises RequestError where the host does not allow one of them."""
    for request in requests:
        request.check(limits)
    return Job(tuple(_lane(request) for request in requests))


def recorded(trace: Trace) -> Lane:
    """A lane that is there already."""
    return lambda engine, stop: Recorded(trace)


def batch(requests: Sequence[DecodeRequest], limits: Limits) -> Job:
    """A job of one lane a request, all in one batch. Raises RequestError where the host does not allow one of them."""
    for request in requests:
        request.check(limits)
    return Job(Together(tuple(requests)))


def _lane(request: DecodeRequest) -> Lane:
    return lambda engine, stop: engine.run(request, stop=stop)


def elsewhere(run_on: Callable[[Any, threading.Event], Running], lease: Callable[[threading.Event], AbstractContextManager[Any]]) -> Lane:
    """A lane on another engine, which `lease(stop)` gives, loaded if need be, when the lane's turn has come."""

    def start(engine: Any, stop: threading.Event) -> Running:
        with ExitStack() as held:
            other = held.enter_context(lease(stop))
            return Elsewhere(run_on(other, stop), other.checkpoint.tokenizer.piece, held.pop_all().close)

    return start


@dataclass(frozen=True)
class Elsewhere:
    """A run of another engine, which knows how its tokens are written."""

    run: Running
    piece: Callable[[int], str]
    give_back: Callable[[], None]  # the engine, once the run is over

    def __iter__(self) -> Iterator[Step]:
        return iter(self.run)

    def trace(self) -> Trace:
        return self.run.trace()

    def close(self) -> None:
        try:
            self.run.close()
        finally:
            self.give_back()


@dataclass(frozen=True)
class Recorded:
    """A finished trace in the place of a run."""

    whole: Trace

    def __iter__(self) -> Iterator[Step]:
        return iter(self.whole.steps)

    def trace(self) -> Trace:
        return self.whole

    def piece(self, token: int) -> str:
        return self.whole.vocabulary[str(token)]

    def close(self) -> None:
        pass
