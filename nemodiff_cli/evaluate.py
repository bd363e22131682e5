"""`nemodiff eval`: the table of accuracy against budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def run_evaluate(
    engine: Any, prompts: int, seed: int, only: list[str], json_path: Path | None, markdown_path: Path | None
) -> None:
    """Evaluate and print the table; save it where asked."""
    from nemodiff_core.analysis.evaluate import evaluate, markdown, settings_for

    settings = settings_for(engine, only)
    columns = (TextColumn("{task.description:<46}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def listen(setting: str, done: int, total: int) -> None:
            if setting not in tasks:
                tasks[setting] = bar.add_task(setting, total=total)
            bar.update(tasks[setting], completed=done)

        report = evaluate(engine, per_family=prompts, seed=seed, settings=settings, listen=listen)
    table = markdown(report)
    print(table)
    if json_path is not None:
        json_path.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    if markdown_path is not None:
        markdown_path.write_text(table, "utf-8")
