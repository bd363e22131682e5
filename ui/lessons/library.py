"""The recorded runs as lessons see them: traces by name, read when they are first asked for."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nemodiff_core.analysis.example import Example
from nemodiff_core.trace import Trace

from ui import files
from ui.lessons.problem import LessonError

FOLDER = Path(__file__).parent.parent / "recorded"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True)
class Run:
    """One lane of a recorded run; `problem` is what it answers, where a checker knows it."""

    name: str
    lane: int
    trace: Trace
    problem: Example | None = None


class Library:
    """A folder of recorded runs, with the problems they answer in its gallery.json."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self._read: dict[str, tuple[Trace, ...]] = {}

    @property
    def names(self) -> list[str]:
        return sorted(path.name.removesuffix(".json.gz") for path in self.folder.glob("*.json.gz"))

    def lanes(self, name: str) -> tuple[Trace, ...]:
        """The traces of a recorded run. Raises LessonError where there is none of this name."""
        if name not in self._read:
            path = self.folder / f"{name}.json.gz"
            if not (NAME.fullmatch(name) and path.is_file()):
                raise LessonError(f"there is no recorded run “{name}”; there are {', '.join(self.names) or 'none'}.")
            self._read[name] = tuple(files.read(path))
        return self._read[name]

    @cached_property
    def gallery(self) -> dict[str, Any]:
        """gallery.json: `cards`, and `problems` by run."""
        path = self.folder / "gallery.json"
        return json.loads(path.read_text("utf-8")) if path.is_file() else {"cards": [], "problems": {}}

    def run(self, reference: str) -> Run:
        """`name` or `name/lane`, where the lane is its number, from 1, or its mode."""
        name, _, wanted = reference.partition("/")
        lanes = self.lanes(name)
        if not wanted:
            lane = 0
        elif wanted.isdecimal():
            lane = int(wanted) - 1
        else:
            lane = next((i for i, trace in enumerate(lanes) if trace.request["mode"] == wanted), -1)
        if not 0 <= lane < len(lanes):
            raise LessonError(f"the recorded run “{name}” has no lane “{wanted}”.")
        problem = self.gallery["problems"].get(name)
        return Run(name, lane, lanes[lane], Example(**problem) if problem else None)
