"""What is counted and logged of runs and models while they come and go, without a word that anybody typed."""

from __future__ import annotations

from typing import Any

from nemodiff_core import metrics
from nemodiff_core.trace import Trace

from ui.ops.logs import event
from ui.ops.meters import Meters

_SHOWN = 6  # characters of an id: enough to find a run's lines, not enough to find the run


class Account:
    """Keeps the books of one run. Lanes that were recorded at another time do not count."""

    def __init__(self, meters: Meters, run_id: str) -> None:
        self.meters, self.run = meters, run_id[:_SHOWN]
        self._going: dict[int, Any] = {}  # lane -> mode

    def begin(self, lane: int, trace: Trace) -> None:
        """A lane begins to decode."""
        self._going[lane] = mode = trace.request.get("mode")
        self.meters.run_started(mode)
        event("run started", run=self.run, lane=lane, mode=mode)

    def end(self, lane: int, trace: Trace) -> None:
        """A lane has ended by itself, or was stopped between two steps."""
        if self._going.pop(lane, None) is None:
            return
        self.meters.run_ended(trace)
        event(
            "run ended", run=self.run, lane=lane, mode=trace.request.get("mode"), stop_reason=trace.stop_reason, tokens=metrics.tokens(trace),
            forwards=metrics.forwards(trace), seconds=round(metrics.seconds(trace), 3),
        )  # fmt: skip

    def lost(self, reason: str) -> None:
        """The lanes that have begun will tell no end: an `error`, or `cancelled` because the visitor has left."""
        for lane, mode in self._going.items():
            self.meters.run_lost(mode, reason)
            event("run ended", run=self.run, lane=lane, mode=mode, stop_reason=reason)
        self._going = {}


def model_ended(meters: Meters, loader: Any) -> None:
    """Loading a model has ended: it is there, could not be loaded, or nobody waited for it any more (ui/loader.Loader)."""
    name = "typed by a visitor" if loader.choice.typed else loader.choice.name
    if loader.engine is not None:
        event("model loaded", model=name)
    elif loader.problem is not None:
        meters.load_failed()
        event("model failed", model=name)
