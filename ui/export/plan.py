"""Which moments of a run a film shows, and for how long. At most MAX_FRAMES, whatever the run's length."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from nemodiff_core.trace import Trace

MAX_FRAMES = 240
FRAME_MS = 90
SHORT_MS, SLOWEST_MS = 2400, 250  # a short run is slowed until it lasts this long, or a frame that
HOLD_MS = 1400
SLOWED_MS = 9000  # a race is slowed to at most this, and quickened only where the frames would not do
_RATES = (1000, 256, 64, 16, 4, 1, 1 / 4, 1 / 16, 1 / 64, 1 / 256)


@dataclass(frozen=True)
class Moment:
    """What one frame shows: the step of every lane (-1: before its first) and the time on the run's clock."""

    steps: tuple[int, ...]
    time_ns: float


@dataclass(frozen=True)
class Plan:
    """The frames of a film. The last one stays `hold_ms` instead of `frame_ms`."""

    moments: tuple[Moment, ...]
    frame_ms: int
    clock: str  # what a second of the film stands for
    hold_ms: int = HOLD_MS

    @property
    def duration_ms(self) -> int:
        """How long the film lasts."""
        return (len(self.moments) - 1) * self.frame_ms + self.hold_ms


def make_plan(traces: Sequence[Trace]) -> Plan:
    """One lane goes forward by forward, several go by the measured clock, each from its own start."""
    return _by_forward(traces[0]) if len(traces) == 1 else _by_clock(traces)


def _by_forward(trace: Trace) -> Plan:
    last = len(trace.steps)
    frames = min(MAX_FRAMES, last + 1)
    shown = [round(i * last / max(1, frames - 1)) - 1 for i in range(frames)]
    moments = tuple(Moment((step,), trace.steps[step].elapsed_ns if step >= 0 else 0) for step in shown)
    frame_ms = max(FRAME_MS, min(SLOWEST_MS, round(SHORT_MS / frames, -1)))
    every = last / max(1, frames - 1)
    return Plan(moments, int(frame_ms), "one forward a frame" if every <= 1 else f"{every:.1f} forwards a frame")


def _by_clock(traces: Sequence[Trace]) -> Plan:
    ends = [[step.elapsed_ns for step in trace.steps] for trace in traces]
    whole = max((times[-1] for times in ends if times), default=0)
    room = (MAX_FRAMES - 1) * FRAME_MS * 1e6
    rate = next((rate for rate in _RATES if whole * rate <= (SLOWED_MS * 1e6 if rate > 1 else room)), room / max(1, whole))
    tick = FRAME_MS * 1e6 / rate
    frames = min(MAX_FRAMES, 1 + max(1, -int(-whole // tick)))
    times = [min(whole, i * tick) for i in range(frames - 1)] + [whole]
    moments = tuple(Moment(tuple(bisect_right(lane, time) - 1 for lane in ends), time) for time in times)
    return Plan(moments, FRAME_MS, _named(rate))


def _named(rate: float) -> str:
    if rate == 1:
        return "real time"
    return f"slowed {rate:g}×" if rate > 1 else f"{1 / rate:.3g}× as fast"
