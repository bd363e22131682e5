"""The line before the device: who runs next, how long the others will wait, and who may not join.

Fair by start times (Goyal, Vin and Cheng 1996, start-time fair queueing): a visitor's next run is dated at the end
of the seconds that they have used, but never before what is served now. So somebody who comes for the first time
passes a second run of somebody else's, long runs put their owner further back than short ones, and nobody starves.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nemodiff_core.errors import RequestError
from nemodiff_core.request import Limits

_WINDOW_S = 60.0
_USUAL_S = 5.0  # a run's length as long as none has been seen
_WEIGHT = 0.2  # of the last run in the average
_TELL_S = 2.0  # between two things that are said to one who waits


class Place:
    """One run's place, to be left in any case: use it in a `with`, and `wait` there until it has its turn."""

    def __init__(self, line: Line, visitor: str, arrival: int, date: float) -> None:
        self._line, self.visitor, self.arrival, self.date = line, visitor, arrival, date
        self.began: float | None = None  # seconds of the line's clock
        self._turn = threading.Event()  # of its own: who waits in a long line is not woken by every change in it

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for the turn; whether it has come."""
        self._line._look()
        return self._turn.wait(seconds)

    def begin(self, date: float, now: float) -> None:
        """For the line: the turn has come."""
        self.date, self.began = date, now
        self._turn.set()

    @property
    def ahead(self) -> int:
        """Runs that come before this one, those that run now included."""
        return self._line._ahead(self)

    @property
    def expected_s(self) -> float:
        """How long it will be until the turn comes, if runs take as long as they usually do."""
        return self._line._expected(self)

    def leave(self) -> None:
        """Give the turn, or the place, back. Leaving twice does nothing."""
        self._line._leave(self)

    def told(self, give_up: Callable[[], bool], every_s: float = _TELL_S) -> Iterator[str]:
        """Wait for the turn, or until `give_up` says so; yields what to say to the one who waits, when that has changed."""
        last, due = None, 0.0
        while not (give_up() or self.wait(min(every_s, 0.5) if last else 0.0)):
            if (now := time.monotonic()) >= due and (words := self._words()) != last:
                last, due = words, now + every_s
                yield words

    def _words(self) -> str:
        ahead = self.ahead
        runs = f"{ahead} {'run is' if ahead == 1 else 'runs are'} ahead on this device"
        return f"{runs}; yours starts by itself in about {_about(self.expected_s)}."


class Line:
    """Safe to share among threads. `capacity` says how many runs the device takes at once."""

    def __init__(self, limits: Limits, capacity: Callable[[], int] = lambda: 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._capacity, self._clock = limits, capacity, clock
        self._lock = threading.RLock()
        self._waiting: list[Place] = []
        self._running: list[Place] = []
        self._used: dict[str, float] = {}  # date at which a visitor's last run ended, as long as it matters
        self._now = 0.0  # date of what was served last
        self._usual: float | None = None
        self._joined: dict[str, deque[float]] = {}  # a visitor's last joins
        self._arrivals = 0

    def check(self, visitor: str) -> None:
        """Refuse a run that could not join now. Raises RequestError."""
        with self._lock:
            self._check(visitor)

    def join(self, visitor: str, counted: bool = True) -> Place:
        """A place behind the visitor's own others, and where it is fair among all. Raises RequestError.

        Parts of a longer work, such as the runs of a sweep, are not `counted` against the limits of single runs.
        """
        with self._lock:
            if counted:
                self._check(visitor)
                self._joined.setdefault(visitor, deque()).append(self._clock())
            self._arrivals += 1
            place = Place(self, visitor, self._arrivals, self._now)
            self._waiting.append(place)
            self._serve()
            return place

    @contextmanager
    def turn(self, visitor: str, give_up: Callable[[], bool] = lambda: False, counted: bool = True) -> Iterator[None]:
        """A turn for work that has no page to tell of its waiting. Raises RequestError, also when `give_up` says so."""
        with self.join(visitor, counted) as place:
            while not place.wait(0.2):
                if give_up():
                    raise RequestError("It was stopped before its turn came; start it again.")
            yield

    @property
    def waiting(self) -> int:
        """Runs that wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Runs that have their turn."""
        return len(self._running)

    # -- within the lock ------------------------------------------------------------------------------

    def _check(self, visitor: str) -> None:
        limits, now = self._limits, self._clock()
        self._joined = {name: times for name, times in self._joined.items() if now - times[-1] < _WINDOW_S}
        recent = self._joined.get(visitor, deque())
        while recent and now - recent[0] >= _WINDOW_S:
            recent.popleft()
        if sum(place.visitor == visitor for place in self._waiting) >= limits.max_waiting_per_visitor:
            raise RequestError("Your last run still waits for its turn; let it begin, or stop it first.")
        if len(recent) >= limits.max_runs_per_minute:
            left = max(1, math.ceil(_WINDOW_S - (now - recent[0])))
            raise RequestError(f"This host allows {limits.max_runs_per_minute} runs a minute; run again in {left} s, or look at the recorded runs meanwhile.")
        # Those who would begin at once need no place to wait.
        if len(self._waiting) >= limits.max_waiting and len(self._running) >= self._capacity():
            raise RequestError(
                f"{len(self._waiting)} runs already wait for this device, and it takes no more; "
                f"try again in about {_about(self._time(len(self._waiting)))}, or look at the recorded runs meanwhile."
            )

    def _serve(self) -> None:
        while self._waiting and len(self._running) < max(1, self._capacity()):
            ((date, _), place) = min(self._orders(), key=lambda found: found[0])
            self._now = max(self._now, date)
            self._waiting.remove(place)
            self._running.append(place)
            place.begin(date, self._clock())

    def _orders(self) -> list[tuple[tuple[float, int], Place]]:
        """Everybody who waits, with what they are ordered by: the date of their run, then who came first."""
        before = Counter(place.visitor for place in self._running)
        found = []
        for place in self._waiting:  # a visitor's own in the order in which they came
            date = max(place.date, self._used.get(place.visitor, 0.0)) + before[place.visitor] * self._length
            found.append(((date, place.arrival), place))
            before[place.visitor] += 1
        return found

    @property
    def _length(self) -> float:
        return _USUAL_S if self._usual is None else self._usual

    # -- what places ask ------------------------------------------------------------------------------

    def _look(self) -> None:
        """A device that takes more runs than before, such as a cluster with one more replica, tells nobody."""
        with self._lock:
            if self._waiting and len(self._running) < self._capacity():
                self._serve()

    def _ahead(self, place: Place) -> int:
        with self._lock:
            if place.began is not None:
                return 0
            orders = self._orders()
            mine = next((order for order, other in orders if other is place), None)
            return 0 if mine is None else len(self._running) + sum(order < mine for order, _ in orders)

    def _expected(self, place: Place) -> float:
        ahead = self._ahead(place)
        with self._lock:
            return self._time(ahead - len(self._running)) if ahead else 0.0

    def _time(self, before: int) -> float:
        """Seconds until `before` waiting runs have begun, and then one more."""
        now, capacity = self._clock(), max(1, self._capacity())
        left = [max(0.0, self._length - (now - place.began)) for place in self._running]
        return (sum(left) + before * self._length) / capacity

    def _leave(self, place: Place) -> None:
        with self._lock:
            if place in self._running:
                self._running.remove(place)
                seconds = max(0.0, self._clock() - place.began)
                self._usual = seconds if self._usual is None else (1 - _WEIGHT) * self._usual + _WEIGHT * seconds
                self._used[place.visitor] = place.date + seconds
                here = {other.visitor for other in (*self._waiting, *self._running)}
                self._used = {name: date for name, date in self._used.items() if date > self._now or name in here}
            elif place in self._waiting:
                self._waiting.remove(place)
            self._serve()


def _about(seconds: float) -> str:
    """A duration as one would say it."""
    if seconds < 90:
        return f"{max(1, round(seconds / 5) * 5 if seconds > 10 else round(seconds))} s"
    return f"{round(seconds / 60)} minutes"
