"""`nemodiff decode`: cells resolving in place in the terminal, figures at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nemodiff_core.errors import NemodiffError
from nemodiff_core.metrics import seconds, summary, tokens
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Canvas, Step, Trace

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
    _watch(console, run, ((0, step) for step in run), [canvas], lambda: frame(canvas, piece))
    trace = run.trace()
    console.print(frame(canvas, piece), "")
    console.print(figures([trace]))
    _save(console, trace, json_path)
    return trace


def run_batch(requests: Sequence[DecodeRequest], engine: Any, json_path: str | None) -> list[Trace]:
    """Decode requests as one batch, show them and return their traces; save each where asked. Raises NemodiffError."""
    console = Console(stderr=json_path == "-", highlight=False)
    run = engine.run_batch(requests)
    canvases, piece = [Canvas(len(row.prompt_ids)) for row in run.rows], engine.checkpoint.tokenizer.piece

    def draw() -> Group:
        titles = (Text(_printable(request.prompt), style="dim") for request in requests)
        return Group(*(part for title, canvas in zip(titles, canvases) for part in (title, frame(canvas, piece), "")))

    _watch(console, run, run, canvases, draw)
    traces = [row.trace() for row in run.rows]
    console.print(draw())
    console.print(figures(traces))
    took = max(map(seconds, traces))
    if took > 0:
        rate = sum(map(tokens, traces)) / took
        console.print(f"One batch of {len(traces)}, timed by one clock: {rate:.1f} tokens/s together", style="dim")
    for number, trace in enumerate(traces, start=1):
        _save(console, trace, numbered(json_path, number))
    return traces


def numbered(json_path: str | None, number: int) -> str | None:
    """The file of one prompt among several: run.json.gz becomes run-1.json.gz."""
    if json_path in (None, "-"):
        return json_path
    path = Path(json_path)
    stem, dot, suffixes = path.name.partition(".")
    return str(path.with_name(f"{stem}-{number}{dot}{suffixes}"))


def _watch(console: Console, run: Any, steps: Iterable[tuple[int, Step]], canvases: Sequence[Canvas], draw: Callable) -> None:
    """Run to the end, or until interrupted, and show what `draw` makes of the canvases meanwhile."""
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            shown = 0.0
            for row, step in steps:
                canvases[row].apply(step)
                # Drawing is for eyes: at their rate, not at that of the steps.
                if console.is_terminal and time.monotonic() - shown >= 1 / FRAMES_PER_SECOND:
                    live.update(draw(), refresh=True)
                    shown = time.monotonic()
    except KeyboardInterrupt:
        pass  # what is written so far is shown and saved
    finally:
        run.close()


def _save(console: Console, trace: Trace, json_path: str | None) -> None:
    if json_path == "-":
        sys.stdout.write(trace.to_json() + "\n")
    elif json_path is not None:
        trace.save(json_path)
        console.print(f"Trace saved to {json_path}", style="dim")


def frame(canvas: Canvas, piece: Callable[[int], str]) -> Text:
    """The answer as it stands, each cell in the style of its status."""
    text = Text()
    for _, cell in sorted(canvas.cells.items()):
        if cell.token is None:
            text.append(MASK, style="dim")
        else:
            text.append(_printable(piece(cell.token)), style=STYLES.get(cell.status, ""))
    return text


def figures(traces: Sequence[Trace]) -> Table:
    """The figures of runs of one mode, a line each, named as everywhere else."""
    lines = [_figures(trace) for trace in traces]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in lines[0]:
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(*line.values())
    return table


def _figures(trace: Trace) -> dict[str, str]:
    found = summary(trace)

    def number(name: str, digits: int) -> str:
        return "–" if found[name] is None else f"{found[name]:.{digits}f}"

    speculates = trace.request["mode"] in ("linear_spec", "quadratic_spec")
    return {
        "tokens": f"{found['tokens']}",
        "NFE": f"{found['nfe']}",
        "TPF": number("tpf", 2),
        **({"acceptance": number("acceptance_length", 2)} if speculates else {}),
        "seconds": number("seconds", 2),
        "tokens/s": number("tokens_per_second", 1),
        "stopped by": trace.stop_reason,
    }


def _printable(piece: str) -> str:
    """Token text is data: control characters must not reach the terminal as commands."""
    return "".join(c if c in "\n\t" or (c.isprintable()) else "\ufffd" for c in piece)
