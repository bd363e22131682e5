"""`nemodiff bench`: what must be fast, measured on this machine and reported with its name and the date."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nemodiff_core.engine import Engine, environment
from nemodiff_core.errors import NemodiffError
from nemodiff_core.request import parse_request

TARGETS = ("player", "page", "trace", "kernels")
_PROMPT = "What is 859 + 344?"
_REPEATS = 7


def run_bench(targets: list[str], engine: Callable[[], Engine], out: Path | None) -> None:
    """Measure the targets, print a table each and save the report. Raises NemodiffError."""
    unknown = [name for name in targets if name not in TARGETS]
    if unknown:
        raise NemodiffError(f"there is no benchmark {unknown[0]}; they are {', '.join(TARGETS)}.")
    console = Console()
    report: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), **environment()}
    for name in targets or TARGETS:
        with console.status(f"Measuring {name}…"):
            report[name] = _MEASURES[name](engine)
        console.print(_table(name, report[name]))
    hardware = report["hardware"]
    console.print(f"{hardware.get('gpu', hardware['processor'])}, torch {report['versions']['torch']}, {report['date']}", style="dim")
    if out is not None:
        out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def recording(engine: Engine) -> list[dict[str, Any]]:
    """Seconds of the same greedy run without and with candidates: medians of alternating runs, and their ratio.

    DESIGN §6.5: a decoder cannot run without recording, so what recording costs is measured as the time between
    forwards that the decoder spends on it: everything but the forwards' own.
    """
    rows = []
    for mode in ("ar", "diffusion", "linear_spec"):
        times: dict[int, list[float]] = {0: [], 8: []}
        for _ in range(_REPEATS):
            for candidates, taken in times.items():
                run = engine.run(parse_request({"prompt": _PROMPT, "mode": mode, "candidates": candidates, "max_new_tokens": 96}))
                for _ in run:
                    pass
                taken.append(run.steps[-1].elapsed_ns / 1e6)
        plain, full = statistics.median(times[0]), statistics.median(times[8])
        rows.append({"mode": mode, "ms": round(plain, 2), "ms with 8 candidates": round(full, 2), "ratio": round(full / plain, 3)})
    return rows


def _player(_: Callable[[], Engine]) -> list[dict[str, Any]]:
    from ui.bench import measure_player

    found = measure_player(_browser())
    rows = [{"what": f"map {found['positions']} × {found['steps']}, {name}", **found[name]} for name in ("playing", "panning", "panning_text")]
    return rows


def _page(_: Callable[[], Engine]) -> list[dict[str, Any]]:
    from ui.app import ServeSettings, launch
    from ui.bench import free_port, measure_page

    page = launch(ServeSettings(host="127.0.0.1", port=free_port()), block=False)
    try:
        page.nemodiff.loader.wait(300)
        return [measure_page(_browser(), page.local_url)]
    finally:
        page.close()


def _trace(engine: Callable[[], Engine]) -> list[dict[str, Any]]:
    return recording(engine())


def _kernels(_: Callable[[], Engine]) -> list[dict[str, Any]]:
    import torch

    from kernels.bench import measure

    rows = measure(device="cuda" if torch.cuda.is_available() else "cpu")
    return [
        {**{k: v for k, v in asdict(row).items() if k != "baselines"}, **{f"× {name}": row.speedup(name) for name in row.baselines}}
        for row in rows
    ]


_MEASURES = {"player": _player, "page": _page, "trace": _trace, "kernels": _kernels}
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


def _table(name: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=name, title_justify="left")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*("" if row.get(c) is None else f"{row[c]:.2f}" if isinstance(row[c], float) else str(row[c]) for c in columns))
    return table
