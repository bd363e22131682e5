"""Runs that outlive the process that decodes them: the same work, done again elsewhere, goes on where it was left.

A run is determined by its request, a sampled one by its seed too. So the packets that had come are computed again,
held against those that were passed on, and only what follows them is new to whoever asked.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import closing
from typing import Any

from nemodiff_core.errors import NemodiffError
from nemodiff_core.serving.distant import Send
from nemodiff_core.serving.work import Packet

_log = logging.getLogger(__name__)


class Lost(Exception):
    """The process that did the work is gone, and the work with it."""


def restarting(send: Send) -> Send:
    """`send` for which a run goes on in another process when its own is lost; once, for a run may be what ends them.

    Raises NemodiffError where that is lost as well, or writes other tokens than those that were passed on.
    """

    def sent(work: dict[str, Any], stop: threading.Event) -> Generator[list[Packet], None, None]:
        told = _Told()
        while True:
            try:
                with closing(send(work, stop)) as batches:
                    for batch in batches:
                        if new := list(told.news(batch)):
                            yield new
                return
            except Lost as error:
                if stop.is_set():
                    return
                if told.restarts:
                    raise NemodiffError(
                        "two of the model's processes went away during this run; ask for less, or try again in a moment."
                    ) from error
                _log.warning("a model's process is lost, its work is done again elsewhere: %s", error)
                told.again()

    return sent


class _Told:
    """What was passed on of one piece of work."""

    def __init__(self) -> None:
        self.restarts = 0
        self._marks: list[bytes] = []
        self._repeated = 0  # of them, by the process that does the work now
        self._clocks: dict[Any, int] = {}  # of each row's last step
        self._opened: float | None = None
        self._late_ns = 0  # by which the clock of this process is behind that of the run

    def again(self) -> None:
        """Another process begins from the start."""
        self.restarts += 1
        self._repeated = 0

    def news(self, batch: Iterable[Packet]) -> Generator[Packet, None, None]:
        """The packets that nobody has seen yet. Raises NemodiffError where one differs from what was seen."""
        for packet in batch:
            self._set_clock()
            mark = _mark(packet)
            if self._repeated < len(self._marks):
                if mark != self._marks[self._repeated] and packet.get("type") != "fault":
                    raise NemodiffError(
                        "the process that decoded this run was lost, and another one writes it differently; run it again."
                    )
                self._repeated += 1
                if packet.get("type") != "fault":
                    continue
            else:
                self._marks.append(mark)
                self._repeated += 1
            yield self._shifted(packet) if self.restarts else self._noted(packet)

    def _set_clock(self) -> None:
        now = time.monotonic()
        if self._opened is None:
            self._opened = now
        if self.restarts and not self._repeated:
            self._late_ns = int((now - self._opened) * 1e6) * 1000

    def _noted(self, packet: Packet) -> Packet:
        if (elapsed := _elapsed(packet)) is not None:
            self._clocks[packet["row"]] = elapsed
        return packet

    def _shifted(self, packet: Packet) -> Packet:
        """A packet of the second process on the clock of the run, which counts the lost time too."""
        if (elapsed := _elapsed(packet)) is not None:
            elapsed = max(self._clocks.get(packet["row"], 0), elapsed + self._late_ns)
            return self._noted({**packet, "step": {**packet["step"], "elapsed_ns": elapsed}})
        if packet.get("type") == "end" and isinstance(packet.get("environment"), dict):
            return {**packet, "environment": {**packet["environment"], "restarts": self.restarts}}
        return packet


def _elapsed(packet: Packet) -> int | None:
    """A step's time; None for other packets, and for damaged ones, which the reader refuses."""
    step = packet.get("step")
    sound = isinstance(step, dict) and type(step.get("elapsed_ns")) is int and type(packet.get("row")) is int
    return step["elapsed_ns"] if sound else None


def _mark(packet: Packet) -> bytes:
    """What a packet says apart from times, machines, and figures whose last digits differ between devices."""
    said: dict[str, Any] = {name: packet.get(name) for name in ("type", "row", "prompt", "output", "stop_reason", "text")}
    if isinstance(step := packet.get("step"), dict):
        events = step.get("events") if isinstance(step.get("events"), list) else []
        changes = [[event.get(name) for name in ("position", "token", "kind")] for event in events if isinstance(event, dict)]
        said["step"] = [*(step.get(name) for name in ("index", "phase", "span", "block")), changes]
    return json.dumps(said).encode()
