"""An engine whose model is in another process: the same methods, checked here before anything is sent.

What comes back is data from elsewhere until every part of it has been checked (trace_reader.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nemodiff_core.admission import admit, admit_batch
from nemodiff_core.analysis.devices import Device
from nemodiff_core.engine import BatchRun, Recording
from nemodiff_core.errors import NemodiffError, TraceError
from nemodiff_core.fork import Intervention, Plan, plan
from nemodiff_core.request import DecodeRequest, Limits
from nemodiff_core.serving.outline import Outline
from nemodiff_core.serving.work import Packet
from nemodiff_core.trace import STOP_REASONS, Step, Trace, fold
from nemodiff_core.trace_reader import StepReader, from_data, plain_object

Send = Callable[[dict[str, Any], threading.Event], Generator[list[Packet], None, None]]
_device: TypeAdapter[Device] = TypeAdapter(Device)


class Distant:
    """What an Engine is, over `send(work, stop)`, which has `work.perform` done elsewhere and yields its batches.

    `send` must end soon after `stop` is set or it is closed, and end the work there as well. It may raise
    NemodiffError. Any thread may call any method; how many runs go on at once is `capacity`.
    """

    def __init__(
        self, send: Send, outline: Outline, limits: Limits | None = None, capacity: Callable[[], int] = lambda: 1
    ) -> None:
        self.send = send
        self.checkpoint = outline
        self.limits = limits or Limits()
        self.end_think_id = outline.tokenizer.end_think_id
        self._capacity = capacity

    @classmethod
    def meet(cls, send: Send, limits: Limits | None = None, capacity: Callable[[], int] = lambda: 1) -> Distant:
        """The engine at the other end, which is asked what it is. Raises NemodiffError."""
        told = _only(send, {"do": "about"}, None, "about")
        return cls(send, Outline.read(told.get("outline")), limits, capacity)

    @property
    def capacity(self) -> int:
        """Runs that go on at once."""
        return self._capacity()

    def run(self, request: DecodeRequest, stop: threading.Event | None = None) -> DistantRun:
        """See `Engine.run`."""
        work = {"do": "decode", "request": request.model_dump(mode="json")}
        return DistantRun(self, request, *admit(self, request), work, stop)

    def run_batch(self, requests: Sequence[DecodeRequest], stop: threading.Event | None = None) -> DistantBatch:
        """See `Engine.run_batch`."""
        admit_batch(self, requests)
        rows = [Row(self, request, *admit(self, request), batch=len(requests)) for request in requests]
        return DistantBatch(rows, {"do": "batch", "requests": [request.model_dump(mode="json") for request in requests]}, stop)

    def fork(self, parent: Trace, what: Intervention, stop: threading.Event | None = None) -> DistantRun:
        """See `Engine.fork`."""
        child = plan(self, parent, what)
        work = {
            "do": "fork", "parent": parent.to_dict(), "step": what.step, "action": what.action,
            "position": what.position, "token": what.token, "changes": dict(what.changes),
        }  # fmt: skip
        return DistantRun(self, child.request, child.prompt, [], work, stop, child)

    def regret(self, trace: Trace, stop: threading.Event | None = None) -> Trace:
        """See `Engine.regret`."""
        found = self._trace({"do": "regret", "trace": trace.to_dict()}, stop)
        if found.output != trace.output:
            raise _damaged("the trace that came back is of another run")
        # Steps keep more digits here than they have on the way.
        return replace(trace, vocabulary=trace.vocabulary | found.vocabulary, annotations=found.annotations)

    def oracle(self, trace: Trace, budget: int, stop: threading.Event | None = None) -> Trace:
        """See `Engine.oracle`."""
        return self._trace({"do": "oracle", "trace": trace.to_dict(), "budget": budget}, stop)

    def probe(self, working_set: int, patience_s: float) -> Device:
        """See `Engine.probe`."""
        told = _only(self.send, {"do": "probe", "working_set": working_set, "patience_s": patience_s}, None, "device")
        try:
            return _device.validate_python(told.get("device"))
        except ValidationError as error:
            raise _damaged("the device has no figures") from error

    def describe(self) -> dict[str, Any]:
        """What a trace says about the model, and its longest context."""
        return {**self.checkpoint.describe(), "max_context": self.checkpoint.config.max_position_embeddings}

    def text(self, ids: Sequence[int]) -> str:
        """Readable text of ids, special tokens left out."""
        return self.checkpoint.tokenizer.decode(ids)

    def environment(self) -> dict[str, Any]:
        """Versions and hardware where runs are computed."""
        return self.checkpoint.environment

    def identity(self) -> dict[str, Any]:
        """See `Engine.identity`."""
        return {**self.describe(), "weights": self.checkpoint.weights}

    def _trace(self, work: dict[str, Any], stop: threading.Event | None) -> Trace:
        told = _only(self.send, work, stop, "trace")
        try:
            return from_data(told.get("trace"))
        except TraceError as error:
            raise _damaged(str(error)) from error


class Row(Recording):
    """One request and what has come of its run so far. Where it was computed is known at its end."""

    def __init__(self, engine: Distant, request: DecodeRequest, prompt: list[int], given: Sequence[Any], batch: int = 1) -> None:
        super().__init__(engine, request, prompt, given, batch)
        self._model: dict[str, Any] = engine.checkpoint.describe()
        self._environment: dict[str, Any] = engine.environment()

    def origin(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The model and the environment that a trace names."""
        return self._model, self._environment

    def opened(self, packet: Packet) -> None:
        """The other end has taken the request. Raises NemodiffError where it is not the model that was met."""
        model, ours = packet.get("model"), self._model
        if not isinstance(model, dict) or {**model, "device": ours["device"]} != ours or not isinstance(model["device"], str):
            raise NemodiffError("the model's process has another model than the one that was loaded here; start the app again.")
        if packet.get("prompt") != self.prompt_ids:
            raise NemodiffError("the model's process reads the prompt in other tokens; run the same version on both sides.")
        self._model = model

    def ended(self, packet: Packet) -> None:
        """The run came to its end. Raises NemodiffError where it is not the one whose steps came."""
        if packet.get("output") != fold(len(self.prompt_ids), self.steps).output():
            raise _damaged("the steps do not add up to the output")
        if packet.get("stop_reason") not in STOP_REASONS:
            raise _damaged("it does not say why the run ended")
        self._environment = plain_object(packet.get("environment"), "environment")
        self.stop_reason = packet["stop_reason"]


class DistantBatch(BatchRun):
    """See `BatchRun`. Where another thread waits for a packet, closing ends the run when that has come."""

    def __init__(self, rows: Sequence[Row], work: dict[str, Any], stop: threading.Event | None) -> None:
        super().__init__(rows, stop or threading.Event())
        self._work = work

    def _run(self) -> Iterator[tuple[int, Step]]:
        rows, live = self.rows, set(range(len(self.rows)))
        readers = [StepReader(len(row.prompt_ids), row.steps) for row in rows]
        try:
            if self._over():
                return
            with closing(_arrived(self.engine.send(self._work, self.stop))) as packets:
                for packet in packets:
                    if self._over():
                        return
                    number, kind = packet.get("row"), packet["type"]
                    if type(number) is not int or number not in live:
                        raise _damaged(f"a packet is of row {ascii(number)[:20]}, which is not open")
                    if kind == "open":
                        rows[number].opened(packet)
                    elif kind == "step":
                        step = readers[number].read(packet.get("step"))
                        rows[number].steps.append(step)
                        yield number, step
                    elif kind == "end":
                        rows[number].ended(packet)
                        live.discard(number)
                    else:
                        raise _damaged(f"a packet is of the unknown kind {ascii(kind)[:20]}")
            if live and not self._over():
                raise NemodiffError("the model's process went away before the run had ended; run it again.")
        except Exception as error:
            for number in live:
                rows[number].stop_reason = "error"
            if isinstance(error, TraceError):
                raise _damaged(str(error)) from error
            raise

    def _over(self) -> bool:
        return self.stop.is_set() or self._closed


class DistantRun(Row):
    """See `Run`: iterate it once for its Steps; `trace()` is valid at any time, also in mid-run."""

    def __init__(
        self, engine: Distant, request: DecodeRequest, prompt: list[int], given: Sequence[Any], work: dict[str, Any],
        stop: threading.Event | None, child: Plan | None = None,
    ) -> None:  # fmt: skip
        super().__init__(engine, request, prompt, given)
        if child is not None:
            self.steps, self.parent = list(child.copied), child.parent
        self._copied = tuple(self.steps)
        self._alone = DistantBatch([self], work, stop)

    def __iter__(self) -> Iterator[Step]:
        yield from self._copied
        for _, step in self._alone:
            yield step

    def close(self) -> None:
        """End the run now; see `DistantBatch.close`."""
        self._alone.close()


def _arrived(batches: Generator[list[Packet], None, None]) -> Iterator[Packet]:
    """The packets one by one. Raises NemodiffError for what is none, and for a fault its sentence."""
    try:
        for batch in batches:
            if not isinstance(batch, list):
                raise _damaged("a batch of packets is none")
            for packet in batch:
                if not isinstance(packet, dict) or not isinstance(packet.get("type"), str):
                    raise _damaged("a packet has no type")
                if packet["type"] == "fault":
                    raise NemodiffError(str(packet.get("text"))[:1000])
                yield packet
    finally:
        batches.close()


def _only(send: Send, work: dict[str, Any], stop: threading.Event | None, kind: str) -> Packet:
    """The one packet that answers work which is no run. Raises NemodiffError."""
    stop = stop or threading.Event()
    with closing(_arrived(send(work, stop))) as packets:
        for packet in packets:
            if packet["type"] != kind:
                raise _damaged(f"a packet is of kind {ascii(packet['type'])[:20]} and not {kind}")
            return packet
    raise NemodiffError("It was stopped; start it again." if stop.is_set() else "the model's process went away before it had answered; try again.")


def _damaged(why: str) -> NemodiffError:
    return NemodiffError(f"what came from the model's process is damaged ({why.rstrip('.')}); run it again.")
