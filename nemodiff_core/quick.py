"""The short way for scripts and notebooks: load a model, run a prompt, look at every step.

    from nemodiff_core import load

    model = load()
    run = model.run("What is 859 + 344?", mode="diffusion")
    for step in run:
        print(step.phase, run.text)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemodiff_core.request import Limits, parse_request
from nemodiff_core.trace import Canvas, Step, Trace

if TYPE_CHECKING:
    from nemodiff_core.engine import Engine, Run


def load(
    model: str | Path = "tiny",
    *,
    device: str | None = None,
    dtype: str | None = None,
    revision: str | None = None,
    limits: Limits | None = None,
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> Model:
    """Load a model: "tiny" (the bundled one), a folder, or a Hugging Face id, which is downloaded once.

    `device` and `dtype` None choose what suits this machine. Raises CheckpointError.
    """
    from nemodiff_core.checkpoint import load as load_checkpoint
    from nemodiff_core.engine import Engine

    return Model(Engine(load_checkpoint(model, dtype=dtype, device=device, revision=revision, progress=progress), limits))


class Model:
    """A loaded model; `engine` is what the rest of nemodiff_core works with."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def run(self, prompt: str, **settings: Any) -> Answer:
        """Prepare a run; nothing is computed until it is iterated. `settings` are fields of DecodeRequest. Raises RequestError."""
        return Answer(self.engine.run(parse_request({**settings, "prompt": prompt})))

    def write(self, prompt: str, **settings: Any) -> str:
        """The whole answer at once. Raises RequestError."""
        return self.run(prompt, **settings).finish().text

    def __repr__(self) -> str:
        about = self.engine.describe()
        return f"Model({about['id']!r}, {about['dtype']}, {about['device']})"


class Answer:
    """One run. Iterate it for its Steps; `text`, `trace` and `metrics` are valid at any time."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._canvas = Canvas(len(run.prompt_ids))

    def __iter__(self) -> Iterator[Step]:
        for step in self._run:
            self._canvas.apply(step)
            yield step

    def finish(self) -> Answer:
        """Run to the end."""
        for _ in self:
            pass
        return self

    @property
    def text(self) -> str:
        """What is written so far, special tokens left out."""
        return self._run.engine.text(self._canvas.output())

    @property
    def trace(self) -> Trace:
        """Everything that happened so far; `trace.save("run.json.gz")` keeps it, and the app opens it."""
        return self._run.trace()

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures so far (metrics.py): tokens, NFE, TPF, tokens per second and more."""
        from nemodiff_core.metrics import summary

        return summary(self.trace)

    def close(self) -> None:
        """End the run now and free its cache."""
        self._run.close()
