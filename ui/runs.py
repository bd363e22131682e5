"""The runs that visitors can come back to: bounded in number, size and age, found by unguessable ids."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nemodiff_core.errors import NemodiffError

MAX_SWEEPS = 2  # of one visitor; opening their runs must not push them out


@dataclass
class RunRecord:
    """One run as the browser was told it: the messages, in order. `owner` None: shown to everybody."""

    id: str
    owner: str | None
    lanes: int = 1
    created: float = 0.0  # seconds of the store's clock
    stop: threading.Event = field(default_factory=threading.Event)
    job: Any = None  # what the run is to do, until it is done (ui/jobs.py)
    blind: Any = None  # the round of a blind race (ui/blind.py)
    model: str = ""  # the name of the model it runs on (ui/models.py); "": the page's own
    log: list[str] = field(default_factory=list)
    size: int = 0  # characters held
    sweep: Any = None  # ui/sweeps.Results, where this stands for a sweep: its runs take the device one by one
    ended: bool = False

    def add(self, message: str) -> None:
        """Remember one message as it was sent."""
        self.log.append(message)
        self.size += len(message)


class RunStore:
    """Keeps the last runs of every visitor in memory; forgets the oldest first. Safe to share among threads."""

    def __init__(
        self,
        *,
        max_runs: int = 200,
        max_per_owner: int = 32,  # what-ifs grow into trees
        max_age_s: float = 3600.0,
        max_characters: int = 256_000_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runs: dict[str, RunRecord] = {}  # oldest first
        self._lock = threading.Lock()
        self._max_runs, self._max_per_owner = max_runs, max_per_owner
        self._max_age_s, self._max_characters = max_age_s, max_characters
        self._clock = clock
        self.elsewhere: Callable[[str], RunRecord | None] | None = None  # where runs that everybody may see are fetched from

    def create(self, owner: str | None, lanes: int = 1, run_id: str | None = None, sweep: Any = None) -> RunRecord:
        """A new run. The id carries 144 random bits unless one is given (recorded traces have fixed names)."""
        record = RunRecord(run_id or secrets.token_urlsafe(18), owner, lanes, self._clock(), sweep=sweep)
        with self._lock:
            self._runs[record.id] = record
            self._prune(owner)
        return record

    def get(self, run_id: object) -> RunRecord:
        """The run with this id. Raises NemodiffError: ids come from browsers."""
        with self._lock:
            self._prune(None)
            record = self._runs.get(run_id) if isinstance(run_id, str) else None
        if record is None and isinstance(run_id, str) and self.elsewhere is not None:
            record = self.elsewhere(run_id)
            if record is not None:
                self.keep(record)
        if record is None:
            raise NemodiffError("This run is no longer kept here; run the prompt again, or open a saved trace.")
        return record

    def keep(self, record: RunRecord) -> None:
        """Take in a finished run that has no owner: it stays."""
        with self._lock:
            self._runs[record.id] = record

    def stop(self, owner: str) -> int:
        """Ask every unfinished run of one visitor to stop; how many were asked."""
        return self._stop(lambda record: record.owner == owner)

    def stop_all(self) -> None:
        """Ask every unfinished run of everybody to stop."""
        self._stop(lambda record: True)

    def forget(self, owner: str) -> None:
        """A visitor has left: stop and drop everything of theirs."""
        self.stop(owner)
        with self._lock:
            self._runs = {key: r for key, r in self._runs.items() if r.owner != owner}

    def _stop(self, chosen: Callable[[RunRecord], bool]) -> int:
        with self._lock:
            unfinished = [record for record in self._runs.values() if not record.ended and chosen(record)]
        for record in unfinished:
            record.stop.set()
        return len(unfinished)

    def _prune(self, owner: str | None) -> None:
        kept = [r for r in self._runs.values() if r.owner is not None]  # the recorded ones stay
        now = self._clock()
        drop = [r for r in kept if now - r.created > self._max_age_s]
        rest = [r for r in kept if r not in drop]
        if owner is not None:
            mine = [r for r in rest if r.owner == owner and r.sweep is None]
            drop += mine[: max(0, len(mine) - self._max_per_owner)]
            drop += [r for r in rest if r.owner == owner and r.sweep is not None][:-MAX_SWEEPS]
            rest = [r for r in rest if r not in drop]
        held = sum(r.size for r in rest)
        while rest and (len(rest) > self._max_runs or held > self._max_characters):
            oldest = rest.pop(0)
            held -= oldest.size
            drop.append(oldest)
        for record in drop:
            record.stop.set()
            self._runs.pop(record.id, None)
