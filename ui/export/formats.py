"""Every format a run can be exported in, for the route and the command line alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nemodiff_core.errors import NemodiffError
from nemodiff_core.trace import Trace

from ui.export.html import player_html
from ui.export.palette import Theme
from ui.export.tables import cycles_csv, metrics_csv, steps_csv, tokens_csv

Make = Callable[[Sequence[Trace], Theme], bytes]


@dataclass(frozen=True)
class Format:
    """How to make a file, what to call it and what it is."""

    make: Make
    media_type: str
    suffix: str  # of the file's name, what tells it from others of its kind included


def _csv(table: Callable[[Sequence[Trace]], str]) -> Make:
    # The mark in front is what spreadsheets recognise UTF-8 by.
    return lambda traces, theme: table(traces).encode("utf-8-sig")


def _html(traces: Sequence[Trace], theme: Theme) -> bytes:
    return player_html(traces).encode()


def _film(kind: str) -> Make:
    def make(traces: Sequence[Trace], theme: Theme) -> bytes:
        from ui.export import video

        return getattr(video, kind)(traces, theme)

    return make


_CSV = "text/csv; charset=utf-8"
FORMATS: dict[str, Format] = {
    "html": Format(_html, "text/html; charset=utf-8", ".html"),
    "gif": Format(_film("gif"), "image/gif", ".gif"),
    "mp4": Format(_film("mp4"), "video/mp4", ".mp4"),
    "csv-steps": Format(_csv(steps_csv), _CSV, "-steps.csv"),
    "csv-tokens": Format(_csv(tokens_csv), _CSV, "-tokens.csv"),
    "csv-cycles": Format(_csv(cycles_csv), _CSV, "-cycles.csv"),
    "csv-metrics": Format(_csv(metrics_csv), _CSV, "-metrics.csv"),
}


def find(name: Any) -> Format:
    """The format of a name. Raises NemodiffError that lists them."""
    if not isinstance(name, str) or name not in FORMATS:
        raise NemodiffError(f"There is no such format; choose one of json, {', '.join(FORMATS)}.")
    return FORMATS[name]
