"""Decoding for somebody in another process: work and its answer as plain data, which any transport can carry.

The answer is a stream of packets. A run's are `open` for each row, then `step`s in the order in which they happened,
and an `end` for each row; other work is answered by one `trace`, `device` or `about`. `fault` ends any of them.
Packets travel in batches, so that a fast model costs a message only so many times a second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError, RequestError
from nemodiff_core.fork import Action, Intervention
from nemodiff_core.request import parse_request
from nemodiff_core.serving.outline import Outline
from nemodiff_core.trace_reader import from_data

RATE_HZ = 25.0  # as often as a browser draws

Packet = dict[str, Any]
_log = logging.getLogger(__name__)


class _Work(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Decode(_Work):
    """One run."""

    do: Literal["decode"]
    request: dict[str, Any]

    def packets(self, engine: Engine, stop: threading.Event) -> Iterator[Packet]:
        run = engine.run(parse_request(self.request), stop)
        return _told([run], run, ((0, step) for step in run))


class Batch(_Work):
    """Runs that share their forwards."""

    do: Literal["batch"]
    requests: list[dict[str, Any]] = Field(max_length=256)

    def packets(self, engine: Engine, stop: threading.Event) -> Iterator[Packet]:
        run = engine.run_batch([parse_request(fields) for fields in self.requests], stop)
        return _told(run.rows, run, run)


class Fork(_Work):
    """A run that goes on from a step of a recorded one; only its own steps are sent."""

    do: Literal["fork"]
    parent: dict[str, Any]
    step: int
    action: Action
    position: int | None
    token: int | None
    changes: dict[str, Any]

    def packets(self, engine: Engine, stop: threading.Event) -> Iterator[Packet]:
        what = Intervention(self.step, self.action, self.position, self.token, self.changes)
        run = engine.fork(from_data(self.parent), what, stop)
        return _told([run], run, ((0, step) for step in islice(run, self.step + 1, None)))


class Regret(_Work):
    """A trace with its wrong commits."""

    do: Literal["regret"]
    trace: dict[str, Any]

    def packets(self, engine: Engine, stop: threading.Event) -> Iterator[Packet]:
        yield {"type": "trace", "trace": engine.regret(from_data(self.trace), stop).to_dict()}


class Oracle(_Work):
    """The speed of light for a trace."""

    do: Literal["oracle"]
    trace: dict[str, Any]
    budget: int = Field(ge=1, le=100_000)  # forwards a block

    def packets(self, engine: Engine, stop: threading.Event) -> Iterator[Packet]:
        yield {"type": "trace", "trace": engine.oracle(from_data(self.trace), self.budget, stop).to_dict()}


class Probe(_Work):
    """How fast the device is."""

    do: Literal["probe"]
    working_set: int = Field(ge=1)  # bytes
    patience_s: float = Field(ge=0, le=600)

    def packets(self, engine: Engine, stop: threading.Event) -> Iterator[Packet]:
        yield {"type": "device", "device": asdict(engine.probe(self.working_set, self.patience_s))}


class About(_Work):
    """What the model is."""

    do: Literal["about"]

    def packets(self, engine: Engine, stop: threading.Event) -> Iterator[Packet]:
        yield {"type": "about", "outline": Outline.of(engine).to_dict()}


Work = Annotated[Decode | Batch | Fork | Regret | Oracle | Probe | About, Field(discriminator="do")]
_work: TypeAdapter[Work] = TypeAdapter(Work)


def parse_work(work: Any) -> Work:
    """Work from plain data. Raises RequestError with one sentence about the first thing that is wrong."""
    try:
        return _work.validate_python(work)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise RequestError(f"the work cannot be read ({where}: {first['msg']}); run the same version on both sides.") from error


def perform(
    engine: Engine, work: Mapping[str, Any], stop: threading.Event | None = None, rate_hz: float = RATE_HZ
) -> Generator[list[Packet], None, None]:
    """Do the work and yield its packets, JSON-able, in batches: the first at once, then at most `rate_hz` a second.

    Setting `stop`, or closing the generator, ends a run between two steps. Nothing is raised: what goes wrong is
    the last packet.
    """
    packets = _packets(engine, work, stop or threading.Event())
    batch: list[Packet] = []
    sent = float("-inf")
    with closing(packets):
        for packet in packets:
            batch.append(packet)
            if (now := time.monotonic()) - sent >= 1.0 / rate_hz:
                yield batch
                batch, sent = [], now
        if batch:
            yield batch


def _packets(engine: Engine, work: Mapping[str, Any], stop: threading.Event) -> Iterator[Packet]:
    try:
        yield from parse_work(work).packets(engine, stop)
    except NemodiffError as error:
        yield {"type": "fault", "text": str(error)}
    except Exception as error:  # who asked must hear of it whatever it was
        _log.error("work failed", exc_info=error)
        yield {"type": "fault", "text": f"the run failed ({type(error).__name__}: {error}); change a setting or run it again."}


def _told(rows: Any, run: Any, steps: Iterator[tuple[int, Any]]) -> Iterator[Packet]:
    """The packets of a run; `steps` yields (row, Step)."""
    try:
        for number, row in enumerate(rows):
            model, _ = row.origin()
            yield {"type": "open", "row": number, "model": model, "prompt": list(row.prompt_ids)}
        for number, step in steps:
            yield {"type": "step", "row": number, "step": step.to_dict()}
        for number, row in enumerate(rows):
            trace = row.trace()
            yield {
                "type": "end", "row": number, "output": trace.output.ids,
                "stop_reason": trace.stop_reason, "environment": trace.environment,
            }  # fmt: skip
    finally:
        run.close()
