"""`nemodiff bench`: what must be fast, measured on this machine and reported with its name, versions and the date."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as Lines

from nemodiff_core.bench.report import Listen, Report, Table, compare, read, shown
from nemodiff_core.engine import Engine, environment
from nemodiff_core.errors import NemodiffError


@dataclass(frozen=True)
class Ask:
    """What the command line asks for besides the targets."""

    engine: Callable[[], Engine]
    device: str | None = None
    rounds: int = 5
    prompts: int = 1  # of every task
    tokens: int = 256  # longest answer
    seconds: float = 60.0  # for one geometry of `forward`, one mode of `scale`
    geometries: Sequence[str] = ()
    compiles: bool = False
    visitors: int = 50
    runs: int = 2000
    model: str | None = None


def run_bench(targets: Sequence[str], ask: Ask, out: Path | None, against: Path | None) -> None:
    """Measure the targets (without any, all that need no server), print their tables, save the report and compare it. Raises NemodiffError."""
    unknown = [name for name in targets if name not in TARGETS]
    if unknown:
        raise NemodiffError(f"there is no benchmark {unknown[0]}; they are {', '.join(TARGETS)}.")
    old = None if against is None else read(against)
    console = Console()
    tables: list[Table] = []
    for name in targets or [name for name in TARGETS if name not in SERVED]:
        with _progress(console) as bar:
            task = bar.add_task(name, total=None)
            found = TARGETS[name](ask, lambda done, total, words, n=name, t=task: bar.update(t, completed=done, total=total, description=f"{n}: {words}"))
        tables += found
        _print(console, found)
    report = Report(date=time.strftime("%Y-%m-%d"), command=shlex.join(["nemodiff", *sys.argv[1:]])[:500], tables=tables, **environment())
    console.print(f"{report.machine}, torch {report.versions['torch']}, {report.date}", style="dim")
    if old is not None:
        _print(console, compare(old, report))
    if out is not None:
        console.print(f"{out} and {report.save(out)} are written.", style="dim")


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def _print(console: Console, tables: Iterable[Table]) -> None:
    """Every table as lines and columns where it fits the terminal, else row by row."""
    for table in tables:
        columns = table.columns()
        cells = [[shown(row.get(column)) for column in columns] for row in table.rows]
        width = sum(max(map(len, column)) + 3 for column in zip(columns, *cells))
        console.print(f"\n{table.title}", style="bold", markup=False)
        if width < console.width:
            lines = Lines(box=SIMPLE)
            for column in columns:
                lines.add_column(column, justify="left" if column in table.keys else "right")
            for row in cells:
                lines.add_row(*row)
            console.print(lines)
        else:
            for row in cells:
                named = [f"{column} {cell}" for column, cell in zip(columns, row) if cell and column not in table.keys]
                console.print(f"{', '.join(row[: len(table.keys)])}: {'; '.join(named)}", highlight=False, markup=False)
        console.print(table.note, style="dim", markup=False)


# -- the targets --------------------------------------------------------------------------------------


def _decode(ask: Ask, listen: Listen) -> list[Table]:
    from nemodiff_core.bench.decode import measure

    return measure(ask.engine(), per_family=ask.prompts, rounds=ask.rounds, max_new_tokens=ask.tokens, listen=listen)


def _forward(ask: Ask, listen: Listen) -> list[Table]:
    from nemodiff_core.bench.forward import measure

    return measure(ask.geometries, ask.device, seconds=ask.seconds, compiles=ask.compiles, listen=listen)


def _scale(ask: Ask, listen: Listen) -> list[Table]:
    from nemodiff_core.bench.scale import measure

    return measure(ask.engine(), seconds=ask.seconds, listen=listen)


def _trace(ask: Ask, listen: Listen) -> list[Table]:
    from nemodiff_core.bench.recording import measure

    return measure(ask.engine(), per_family=ask.prompts, rounds=ask.rounds, max_new_tokens=ask.tokens, listen=listen)


def _kernels(ask: Ask, listen: Listen) -> list[Table]:
    import torch

    from kernels.bench import measure

    measured = measure(device="cuda" if torch.cuda.is_available() else "cpu")
    rows = [
        {k: v for k, v in asdict(row).items() if k != "baselines"} | {f"× {name}": row.speedup(name) for name in row.baselines}
        for row in measured
    ]
    return [Table(name="kernels", title="Kernels", keys=("kernel", "shape"), rows=rows, note="Times in ms; × is how many times faster.")]


def _player(ask: Ask, listen: Listen) -> list[Table]:
    from ui.bench import measure_player, measure_replay

    found = measure_player(_browser())
    rows: list[dict[str, Any]] = [
        {"what": f"map {found['positions']} × {found['steps']}, {name}", **found[name]} for name in ("playing", "panning", "panning_text")
    ]
    rows.append({"what": "a live step", "ms": found["live_step_ms"]})
    long = found["long"]
    rows += [{"what": f"map of {long['positions']} steps, {part}", "ms": long[f"{part}_ms"]} for part in ("build", "draw")]
    replay = measure_replay(_browser())
    words_for = {"open": "opening", "jump": "a jump", "step": "the next step"}
    rows += [{"what": f"replay of {long['positions']} steps, {words}", "ms": replay[f"{part}_ms"]} for part, words in words_for.items()]
    return [Table(name="player", title="Player", keys=("what",), rows=rows, note="busy_ms is the main thread's work for a frame.")]


def _page(ask: Ask, listen: Listen) -> list[Table]:
    from ui.app import ServeSettings, launch
    from ui.bench import free_port, measure_page

    page = launch(ServeSettings(host="127.0.0.1", port=free_port()), block=False)
    try:
        page.nemodiff.loader.wait(300)
        found = measure_page(_browser(), page.local_url)
    finally:
        page.close()
    return [Table(name="page", title="Page", keys=("visits",), rows=[found])]


def _crowd(ask: Ask, listen: Listen) -> list[Table]:
    from ui.crowd import measure_crowd

    return measure_crowd(ask.engine(), _browser(), visitors=ask.visitors, model=ask.model, listen=listen)


def _soak(ask: Ask, listen: Listen) -> list[Table]:
    from ui.crowd import measure_soak

    return measure_soak(ask.runs, model=ask.model, listen=listen)


TARGETS: dict[str, Callable[[Ask, Listen], list[Table]]] = {
    "player": _player,
    "page": _page,
    "trace": _trace,
    "kernels": _kernels,
    "forward": _forward,
    "decode": _decode,
    "scale": _scale,
    "crowd": _crowd,
    "soak": _soak,
}
SERVED = ("crowd", "soak")  # they take minutes and both processors: only by name
_open: list[Any] = []


def _browser() -> Any:
    """Chromium without a window. Raises NemodiffError where Playwright is missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise NemodiffError("this benchmark needs a browser; run make test once, which installs one.") from None
    from ui.bench import chromium_path

    if not _open:
        _open.append(sync_playwright().start().chromium.launch(executable_path=chromium_path(), args=["--no-sandbox"]))
    return _open[0]
