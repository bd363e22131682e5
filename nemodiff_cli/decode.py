"""`nemodiff decode`: cells resolving in place in the terminal, figures at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nemodiff_core.errors import NemodiffError
from nemodiff_core.metrics import summary
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Canvas, Trace

FRAMES_PER_SECOND = 12.0
# Told apart without colour as well: masks are dots, drafts underlined, rejected tokens struck through.
STYLES = {
    "seed": "bold blue",
    "committed": "",
    "draft": "underline yellow",
    "accepted": "green",
    "bonus": "bold green",
    "pinned": "bold magenta",
    "rejected": "strike dim",
}
MASK = "·"


def check_target(json_path: str | None) -> None:
    """Refuse a file that could not be written, before the work and not after it. Raises NemodiffError."""
    if json_path not in (None, "-") and not Path(json_path).parent.is_dir():
        raise NemodiffError(f"there is no folder {Path(json_path).parent} to save the trace in; create it first.")


def run_decode(request: DecodeRequest, engine: Any, json_path: str | None) -> Trace:
    """Decode one request, show it and return its trace; save that where asked. Raises NemodiffError."""
    # A trace printed to standard output must stay alone there.
    console = Console(stderr=json_path == "-", highlight=False)
    run = engine.run(request)
    canvas, piece = Canvas(len(run.prompt_ids)), engine.checkpoint.tokenizer.piece
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            shown = 0.0
            for step in run:
                canvas.apply(step)
                # Drawing is for eyes: at their rate, not at that of the steps.
                if console.is_terminal and time.monotonic() - shown >= 1 / FRAMES_PER_SECOND:
                    live.update(frame(canvas, piece), refresh=True)
                    shown = time.monotonic()
    except KeyboardInterrupt:
        pass  # what is written so far is shown and saved
    finally:
        run.close()
    trace = run.trace()
    console.print(frame(canvas, piece), "")
    console.print(figures(trace))
    if json_path == "-":
        sys.stdout.write(trace.to_json() + "\n")
    elif json_path is not None:
        trace.save(json_path)
        console.print(f"Trace saved to {json_path}", style="dim")
    return trace


def frame(canvas: Canvas, piece: Callable[[int], str]) -> Text:
    """The answer as it stands, each cell in the style of its status."""
    text = Text()
    for _, cell in sorted(canvas.cells.items()):
        if cell.token is None:
            text.append(MASK, style="dim")
        else:
            text.append(_printable(piece(cell.token)), style=STYLES.get(cell.status, ""))
    return text


def figures(trace: Trace) -> Table:
    """The run's figures on one line, named as everywhere else."""
    found = summary(trace)
    shown = {
        "tokens": f"{found['tokens']}",
        "NFE": f"{found['nfe']}",
        "TPF": f"{found['tpf']:.2f}",
        "acceptance": None if found["acceptance_length"] is None else f"{found['acceptance_length']:.2f}",
        "seconds": f"{found['seconds']:.2f}",
        "tokens/s": f"{found['tokens_per_second']:.1f}",
        "stopped by": trace.stop_reason,
    }
    table = Table(box=None, pad_edge=False, header_style="dim")
    row = {name: value for name, value in shown.items() if value is not None}
    for name in row:
        table.add_column(name, justify="right")
    table.add_row(*row.values())
    return table


def _printable(piece: str) -> str:
    """Token text is data: control characters must not reach the terminal as commands."""
    return "".join(c if c in "\n\t" or (c.isprintable()) else "\ufffd" for c in piece)
