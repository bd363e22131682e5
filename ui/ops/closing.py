"""An orderly end: after SIGTERM nobody new is let in, running answers finish, and the process exits with status 0."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from nemodiff_core.errors import RequestError

from ui.ops.logs import event

SENTENCE = "This host is stopping and takes no more runs; try again in a minute."
STOPPING_S = 10.0  # that runs have to end once they were told to stop, which they do between two steps
DELIVERY_S = 5.0  # that browsers have to fetch what was the last of their run
_POLL_S = 0.05


class Closing:
    """Whether the app is on its way out, and the way itself."""

    def __init__(self, grace_s: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.grace_s, self.clock = grace_s, clock
        self.begun = threading.Event()

    def check(self) -> None:
        """Refuse what would begin now. Raises RequestError."""
        if self.begun.is_set():
            raise RequestError(SENTENCE)

    def on_signals(self) -> None:
        """Begin at SIGTERM; a second one ends the process at once. For the main thread alone."""

        def begin(number: int, frame: Any) -> None:
            self.begun.set()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

        signal.signal(signal.SIGTERM, begin)

    def stay(self, runs: Callable[[], int], stop: Callable[[], None], undelivered: Callable[[], bool] = lambda: False) -> None:
        """Return once closing has begun and the runs are over: finished, or stopped when the grace was.

        `runs()` counts those that run or wait, `stop()` tells them all to stop, and `undelivered()` is whether
        browsers have not been told of every end yet.
        """
        while not self.begun.wait(0.5):  # short waits, so that the interpreter can run signal handlers everywhere
            pass
        began = self.clock()
        event("stopping", runs=runs(), grace_s=self.grace_s)
        self._until(lambda: not runs(), self.grace_s)
        if cut := runs():
            stop()
            self._until(lambda: not runs(), STOPPING_S)
        self._until(lambda: not undelivered(), DELIVERY_S)
        event("stopped", seconds=round(self.clock() - began, 1), cut=cut)

    def _until(self, done: Callable[[], bool], seconds: float) -> None:
        end = self.clock() + seconds
        while not done() and self.clock() < end:
            time.sleep(_POLL_S)
