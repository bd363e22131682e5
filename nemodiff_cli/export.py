"""`nemodiff export`: a saved run as a page, a film or a table."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rich.console import Console

from nemodiff_core.errors import NemodiffError

from ui import files
from ui.export.formats import FORMATS
from ui.export.html import player_html
from ui.export.palette import Theme

TABLES = tuple(name.removeprefix("csv-") for name in FORMATS if name.startswith("csv-"))
ENDINGS = (".html", ".gif", ".mp4", ".csv")


def run_export(sources: Sequence[Path], to: Path, table: str | None, theme: str) -> None:
    """Read saved runs, several as a race, and write them as what the name `to` ends in. Raises NemodiffError."""
    if to.suffix.lower() not in ENDINGS:
        raise NemodiffError(f"--to must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, not in {to.suffix or 'nothing'}.")
    if theme not in get_args(Theme):
        raise NemodiffError("--theme is light or dark.")
    kind = to.suffix.lower()[1:]
    if kind == "csv":
        if (table or TABLES[0]) not in TABLES:
            raise NemodiffError(f"--table is one of {', '.join(TABLES)}.")
        kind = f"csv-{table or TABLES[0]}"
    elif table is not None:
        raise NemodiffError("--table chooses what a .csv holds; leave it out beside other endings.")
    if not to.parent.is_dir():
        raise NemodiffError(f"there is no folder {to.parent} to save the export in; create it first.")
    traces = [trace for source in sources for trace in files.read(source)]
    began = time.perf_counter()
    data = player_html(traces, apart=len(sources) > 1).encode() if kind == "html" else FORMATS[kind].make(traces, theme)
    partial = to.with_name(to.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, to)
    took = time.perf_counter() - began
    Console(stderr=True, highlight=False).print(f"{to}  {len(data) / 1024:.0f} KB in {took:.1f} s", style="dim", markup=False)
