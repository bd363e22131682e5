"""`nemodiff train-adapter`: the training run with a progress line, and the acceptance before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


def run_train_adapter(engine: Any, out: Path, settings: Any) -> None:
    """Train, show the loss as it falls, and print what the adapter is worth. Raises NemodiffError."""
    from nemodiff_core.training.draft_adapter import RECORD, train_adapter

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[said]}"))
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, Any] = {}

        def show(name: str, done: float, total: float, said: str) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total, said=said)
            bar.update(tasks[name], completed=done, said=said)

        def listen(now: Any) -> None:  # now: training.draft_adapter.Progress
            said = f"step {now.step}  loss {now.loss:.3f}  {now.accepted:.2f} tokens accepted when sampling"
            show("training", now.elapsed, now.budget, said)

        def measured(which: str, done: int, total: int) -> None:
            show(f"acceptance {which}", done, total, f"{done} of {total} prompts")

        record = train_adapter(engine, settings, out, listen=listen, measured=measured)
    before, after = record["acceptance"]["before"], record["acceptance"]["after"]
    for name in before["families"]:
        print(f"{name:<12} {_length(before['families'][name]):>6} -> {_length(after['families'].get(name)):>6}")
    print(
        f"acceptance length {_length(before['acceptance_length'])} without the adapter, "
        f"{_length(after['acceptance_length'])} with it ({before['prompts']} held-out prompts, block {settings.block}, greedy)"
    )
    console.print(f"Saved to {out}, with {RECORD}. As the folder linear_spec_lora inside its checkpoint it is used for every draft.")


def _length(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
