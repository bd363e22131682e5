"""`nemodiff train-sampler`: trajectories, training, and how well the result tells final candidates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from nemodiff_core.engine import Engine
    from nemodiff_core.training.sampler import SamplerSettings


def run_train_sampler(engine: Engine, out: Path, settings: SamplerSettings) -> None:
    """Train and report. Raises NemodiffError."""
    from nemodiff_core.training.sampler import train_sampler

    console = Console(stderr=True, highlight=False)
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("writing answers", total=settings.prompts)
        result = train_sampler(
            engine, settings, out, lambda what, done, of: bar.update(task, description=what, completed=done, total=of)
        )
    console.print(
        f"On {result.cells} cells of held-out prompts: {result.accuracy:.1%} told right, cross-entropy {result.loss:.4f} nats "
        f"({result.baseline_loss:.4f} for the candidate's own probability). Saved to {out}."
    )
