"""How many threads a forward gets, by what forwards took lately."""

from __future__ import annotations

from collections import Counter, defaultdict

_WIDE, _PROBE, _WEIGHT = 6, 64, 0.2  # rows worth two threads; how often the other number is tried; of a new measurement


class Pace:
    """How many threads the next forward gets: two for wide ones, unless one was quicker lately.

    It is where the other core has no time: a thread that waits for another costs more than it gains.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: Counter[int] = Counter()
        # Seconds a row, lately, by number of threads; widths that lie within a factor of two are alike.
        self._seconds: defaultdict[int, dict[int, float]] = defaultdict(dict)

    def threads(self, rows: int) -> int:
        """1 or 2, for a forward of so many rows."""
        if self._most < 2 or rows < _WIDE:
            return 1
        width = rows.bit_length()
        self._counts[width] += 1
        seconds = self._seconds[width]
        if len(seconds) < 2:
            return 1 + self._counts[width] % 2
        quicker = min(seconds, key=seconds.__getitem__)
        return 3 - quicker if self._counts[width] % _PROBE == 0 else quicker

    def note(self, rows: int, threads: int, seconds: float) -> None:
        """What a forward took."""
        if self._most > 1 and rows >= _WIDE:
            known, took = self._seconds[rows.bit_length()], seconds / rows
            before = known.get(threads, took)
            known[threads] = before + _WEIGHT * (min(took, 4 * before) - before)
