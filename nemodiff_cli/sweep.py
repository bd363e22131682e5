"""`nemodiff sweep`: a grid of settings on a set of prompts, with the Pareto front marked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from nemodiff_core.analysis.sweep import Grid, Point, Prompt, Source, Sweep, file_prompts, pareto, task_prompts
from nemodiff_core.checkpoint import find
from nemodiff_core.errors import NemodiffError

FRONT = "●"


def run_sweep(source: Source, grid: Grid, out: Path, workers: int) -> None:
    """Run what is missing in the folder, then print the table of all settings. Raises NemodiffError."""
    if workers < 1:
        raise NemodiffError("--workers must be at least 1.")
    find(source.model, source.revision, weights=False)  # a misspelt model is told before anything else
    console = Console(stderr=True, highlight=False)
    sweep = Sweep(grid, out)
    if grid.refused:
        console.print(
            f"{len(grid.refused)} of {grid.combinations} combinations are refused as they stand and run in part or not "
            f"at all, the first because {grid.refused[0]}",
            style="dim",
        )
    if sweep.rows:
        console.print(f"{len(sweep.rows)} of {sweep.total} runs are done already.", style="dim")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(f"{len(grid.settings)} settings", total=sweep.total, completed=len(sweep.rows))
            for _ in sweep.run(source, workers=workers):
                bar.advance(task)
    except KeyboardInterrupt:
        console.print(f"{len(sweep.rows)} of {sweep.total} runs are done; the same command continues.", style="dim")
        raise
    by = ("tpf", "correct") if any(prompt.example for prompt in grid.prompts) else ("tpf", "tokens_per_second")
    wide_console().print(summary_table(pareto(sweep.rows, by)), f"{FRONT} Pareto front of {' and '.join(by)}", sep="\n")
    console.print(f"Rows and traces are in {out}", style="dim")


def collect_knobs(named: Mapping[str, Sequence[Any] | None], others: Sequence[str]) -> dict[str, list[Any]]:
    """Lists of values by knob, from the options and from `NAME=VALUE` texts. Raises NemodiffError."""
    knobs = {name: list(values) for name, values in named.items() if values}
    for text in others:
        name, equals, value = text.partition("=")
        if not equals:
            raise NemodiffError(f"--knob needs NAME=VALUE, not {text!r}; write for example --knob revise_bound=0.2.")
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        knobs.setdefault(name.strip().replace("-", "_"), []).append(parsed)
    return knobs


def collect_prompts(file: Path | None, per_family: int, families: Sequence[str], seed: int) -> list[Prompt]:
    """Prompts of a text file, else of the graded tasks. Raises NemodiffError."""
    if per_family < 1:
        raise NemodiffError("--prompts must be at least 1.")
    if file is not None:
        if families:
            raise NemodiffError("--families choose among the graded tasks; leave them out beside --prompts-file.")
        return file_prompts(file)
    names = [name for text in families for name in text.split(",") if name]
    return task_prompts(per_family, seed, names or None)


def summary_table(points: Sequence[Point]) -> Table:
    """One line a setting: the knobs that differ between settings, then the figures."""
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="dim")
    names = [name for name in points[0].knobs if len({json.dumps(p.knobs[name]) for p in points}) > 1] if points else []
    table.add_column("")
    for name in names:
        table.add_column(name.replace("_", " "), no_wrap=name == "mode")
    for name in ("runs", "correct", "TPF", "acceptance", "tokens/s"):
        table.add_column(name, justify="right")
    for point in points:
        table.add_row(
            FRONT if point.front else "",
            *("" if point.knobs[name] is None else str(point.knobs[name]) for name in names),
            str(point.runs),
            "" if point.accuracy is None else f"{100 * point.accuracy:.1f} %",
            _figure(point.tpf, 2),
            _figure(point.acceptance_length, 2),
            _figure(point.tokens_per_second, 0),
        )
    return table


def wide_console() -> Console:
    """Standard output for tables: as wide as the terminal, and wide enough where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, 160))


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
