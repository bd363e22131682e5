"""`nemodiff train`: the training run with a progress line."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


def run_train(
    out: Path,
    *,
    preset: str,
    minutes: float | None,
    resume: bool,
    start: str | None,
    new_vocabulary: bool,
    seed: int | None,
    threads: int | None,
) -> None:
    """Train and show losses as they fall. Raises NemodiffError."""
    import torch

    from nemodiff_core.errors import NemodiffError
    from nemodiff_core.training.train import TrainSettings, train

    if threads is not None:
        if threads < 1:
            raise NemodiffError("--threads must be at least 1.")
        torch.set_num_threads(threads)
    settings = TrainSettings.preset(preset, minutes=minutes, seed=seed)
    console = Console(stderr=True)
    columns = (
        TextColumn("step {task.fields[step]:>6}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[tokens]:.2f}M tokens  AR {task.fields[ar]:.3f}  masked {task.fields[masked]:.3f}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training", total=settings.minutes * 60, step=0, tokens=0.0, ar=0.0, masked=0.0)

        def listen(now) -> None:  # now: training.train.Progress
            bar.update(
                task, completed=now.elapsed, step=now.step, tokens=now.tokens / 1e6, ar=now.ar_loss, masked=now.masked_loss
            )

        train(settings, out, resume=resume, start=start, new_vocabulary=new_vocabulary, listen=listen)
    console.print(f"Saved to {out}. Try: nemodiff serve --model {out}", highlight=False)
