"""What the commands share that read a trace and write another."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from nemodiff_core.trace import Trace


def console_for(json_path: str | None) -> Console:
    """Where tables go: a trace printed to standard output must stay alone there."""
    return Console(stderr=json_path == "-", highlight=False)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error; yields the function that moves it to (done, of)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def save(trace: Trace, json_path: str | None, console: Console) -> None:
    """Write the trace to a file, or to standard output for `-`."""
    if json_path == "-":
        sys.stdout.write(trace.to_json() + "\n")
    elif json_path is not None:
        trace.save(json_path)
        console.print(f"Trace saved to {json_path}", style="dim", markup=False)
