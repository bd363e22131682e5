"""Loads the model in the background, so that the page opens at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nemodiff_core.errors import NemodiffError
from nemodiff_core.request import parse_request


@dataclass(frozen=True)
class ModelChoice:
    """Which checkpoint to load and how; `source` None is the bundled model."""

    source: str | None = None
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None


@dataclass
class Loader:
    """One engine for the process: loading, ready, or failed with one sentence."""

    choice: ModelChoice
    limits: Any = None
    engine: Any = None
    problem: str | None = None
    progress: str = ""
    _done: threading.Event = field(default_factory=threading.Event)

    def start(self) -> Loader:
        """Begin to load in a background thread."""
        threading.Thread(target=self._load, name="nemodiff-load", daemon=True).start()
        return self

    @property
    def state(self) -> str:
        """`loading`, `ready` or `failed`."""
        if not self._done.is_set():
            return "loading"
        return "ready" if self.engine is not None else "failed"

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for the end of loading; whether it has ended."""
        return self._done.wait(seconds)

    def status(self) -> str:
        """What the status line says, as one sentence of plain text."""
        if self.state == "loading":
            return self.progress or f"Loading {self.choice.source or 'the bundled model'}…"
        if self.problem is not None:
            return self.problem
        about = self.engine.describe()
        return f"{about['id']} · {count(about['parameters'])} parameters · {about['dtype']} · {about['device']}"

    def _load(self) -> None:
        try:
            # torch and the model code take seconds to import: that belongs to loading, not to opening the page.
            from nemodiff_core.checkpoint import bundled_path, load
            from nemodiff_core.engine import Engine
            from nemodiff_core.placement import set_threads

            choice = self.choice
            source = choice.source or bundled_path()
            checkpoint = load(
                source, dtype=choice.dtype, device=choice.device, revision=choice.revision, progress=self._tell
            )
            engine = Engine(checkpoint, self.limits)
            warm_up(engine, self._tell)
            self.engine = engine
        except NemodiffError as error:
            self.problem = str(error)
        except Exception as error:  # whatever a driver or a library raises must reach the page, not a dead thread
            self.problem = f"The model could not be loaded ({type(error).__name__}: {error}); start again with another --model or --device."
        finally:
            self._done.set()

    def _tell(self, what: str, share: float) -> None:
        self.progress = f"{what[:1].upper()}{what[1:]}… {share:.0%}" if share else f"{what[:1].upper()}{what[1:]}…"


@dataclass
class Models:
    """The checkpoints that lanes of a race may use: the page's own, and others that the operator has named.

    Those are loaded when a lane first asks for them, one after another, and stay.
    """

    own: Loader
    others: tuple[ModelChoice, ...] = ()
    _loaded: dict[str, Loader] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def names(self) -> list[str]:
        """What lanes call them, the page's own first; no two alike."""
        names: list[str] = []
        for choice in (self.own.choice, *self.others):
            name = "/".join([part for part in (choice.source or "bundled model").replace("\\", "/").split("/") if part][-2:])
            names.append(name if name not in names else f"{name} ({len(names) + 1})")
        return names

    def engine(self, wanted: str, stop: threading.Event) -> Any:
        """The engine of a checkpoint, loaded now if need be. Raises NemodiffError: names come from browsers."""
        choice = dict(zip(self.names[1:], self.others)).get(wanted)
        if choice is None:
            raise NemodiffError("This host does not offer that model; choose another for the lane.")
        with self._lock:
            loader = self._loaded.get(wanted) or Loader(choice, self.own.limits).start()
            while not loader.wait(0.1):
                if stop.is_set():
                    raise NemodiffError("Stopped while a model was loading.")
            if loader.engine is None:
                raise NemodiffError(loader.problem or "The model could not be loaded.")
            self._loaded[wanted] = loader
        return loader.engine

    def holding(self, checkpoint: str) -> Any:
        """The engine that has loaded a checkpoint, by its id; the page's own where none has. Raises NemodiffError."""
        if self.own.engine is None:
            raise NemodiffError(self.own.problem or "This needs the model, which is still loading; try again when it is there.")
        engines = [self.own.engine, *(loader.engine for loader in list(self._loaded.values()))]
        return next((engine for engine in engines if engine.checkpoint.id == checkpoint), self.own.engine)


def warm_up(engine: Any, tell: Callable[[str, float], None] = lambda what, share: None) -> None:
    """A few tokens in every mode: first forwards are slow, and the first lane of a race must not pay for them.

    On a GPU they capture the graphs of a step, which takes seconds; `tell(what, share)` hears how far it is.
    """
    modes = ("ar", "diffusion", "linear_spec")
    for done, mode in enumerate(modes):
        tell("warming up", done / len(modes))
        run = engine.run(parse_request({"prompt": "Hello", "mode": mode, "max_new_tokens": 4}))
        for _ in run:
            pass
        run.close()


def count(parameters: int) -> str:
    """8123456 -> '8.1M'."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if parameters >= size:
            return f"{parameters / size:.1f}{unit}"
    return str(parameters)
