"""Loads one model in the background, so that the page opens at once and goes on answering meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemodiff_core.errors import NemodiffError
from nemodiff_core.request import Limits, parse_request
from nemodiff_core.serving.manifest import Offer, this_host

BUNDLED = "tiny"  # what the manifest calls the bundled model


class Cancelled(NemodiffError):
    """Nobody waits for the model any more."""


@dataclass(frozen=True)
class ModelChoice:
    """Which checkpoint to load and how; `source` None is the bundled model."""

    source: str | None = None
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    adapter: bool = True  # draft with its adapter, where it has one
    title: str | None = None
    licence: str | None = None  # None: as its model card says
    about: str | None = None
    typed: bool = False  # by a visitor, so it is a hub id and never a folder of this machine

    @classmethod
    def of(cls, offer: Offer) -> ModelChoice:
        """What the manifest offers."""
        source = None if offer.source == BUNDLED else offer.source
        return cls(source, offer.revision, offer.dtype, offer.device, offer.adapter, offer.title, offer.licence, offer.about)

    @property
    def name(self) -> str:
        """What the page calls it."""
        if self.title or self.source is None:
            return self.title or "the bundled model"
        return "/".join([part for part in self.source.replace("\\", "/").split("/") if part][-2:]) or self.source

    @property
    def origin(self) -> str:
        """Where it comes from, for its readers."""
        if self.source is None:
            return "shipped with nemodiff"
        if not self.typed and Path(self.source).expanduser().is_dir():
            return "a folder of this host"
        return f"Hugging Face, {self.source}" + (f" at {self.revision}" if self.revision else "")


class Room:
    """The memory that a model needs. This one has enough for any; `ui/models.py` counts."""

    def check(self, loader: Loader) -> None:
        """Refuse what can never fit. Raises NemodiffError."""

    def make(self, loader: Loader) -> None:
        """Make room for the weights, which are about to be read. Raises NemodiffError."""

    def ended(self, loader: Loader) -> None:
        """Loading has ended, well or not."""


@dataclass(eq=False)
class Loader:
    """One checkpoint: absent, loading, ready, or failed with one sentence. It may be loaded, dropped and loaded again."""

    choice: ModelChoice
    limits: Limits | None = None
    room: Room = field(default_factory=Room)
    gate: threading.Lock = field(default_factory=threading.Lock)  # loaders that share it load one after another
    token: bool | None = None  # False: without this machine's login to the hub
    maker: Callable[[Callable[[str, float], None]], Any] | None = None  # of an engine whose model is elsewhere
    engine: Any = None
    problem: str | None = None
    progress: str = ""
    share: float = 0.0  # of what `progress` says
    need: int = 0  # bytes of memory, as far as its config has been read
    about: dict[str, Any] = field(default_factory=dict)  # what the engine says of itself, kept when it is dropped
    licence: str | None = None  # as the offer or the model card has it
    waiting: set[Hashable] = field(default_factory=set)  # who wants it loaded; kept by ui/models.py
    _ended: threading.Event = field(default_factory=threading.Event)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._ended.set()
        self.licence = self.choice.licence

    def start(self) -> Loader:
        """Begin to load in a background thread, unless it is loading or ready."""
        if self._ended.is_set() and self.engine is None:
            self._ended.clear()
            self._cancelled.clear()
            self.problem, self.progress, self.share = None, "", 0.0
            if this_host().zero_gpu:
                self._load()  # in the main thread and before the server starts, or its GPU is not there (serving/zero.py)
            else:
                threading.Thread(target=self._load, name="nemodiff-load", daemon=True).start()
        return self

    def cancel(self) -> None:
        """Stop loading; it is absent then, soon after."""
        self._cancelled.set()

    def drop(self) -> None:
        """Give the model's memory back; nothing may be using it."""
        from nemodiff_core.placement import release

        self.engine = None
        release()

    @property
    def state(self) -> str:
        """`absent`, `loading`, `ready` or `failed`."""
        if not self._ended.is_set():
            return "loading"
        if self.engine is not None:
            return "ready"
        return "absent" if self.problem is None else "failed"

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for the end of loading; whether it is not loading."""
        return self._ended.wait(seconds)

    def status(self) -> str:
        """What the status line says, as one sentence of plain text."""
        if self.engine is not None:
            about = self.about
            return f"{about['id']} · {count(about['parameters'])} parameters · {about['dtype']} · {about['device']}"
        if self.state == "absent":
            return f"Not loaded now: {self.choice.name}; your next run loads it."
        return self.problem or self.progress or f"Loading {self.choice.name}…"

    def _load(self) -> None:
        held = False
        try:
            while not (held := self.gate.acquire(timeout=0.1)):
                self._tell("waiting until another model is loaded", 0.0)
            self.engine = self._engine()
        except Cancelled:
            pass
        except NemodiffError as error:
            self.problem = str(error)
        except Exception as error:  # whatever a driver or a library raises must reach the page, not a dead thread
            self.problem = f"The model could not be loaded ({type(error).__name__}: {error}); choose another model or device."
        finally:
            if self.engine is None:
                self.drop()  # what was read before it ended
            if held:
                self.gate.release()
            self._ended.set()
            self.room.ended(self)

    def _engine(self) -> Any:
        if self.maker is not None:
            engine = self.maker(self._tell)
            self.about = engine.describe()
            return engine
        # torch and the model code take seconds to import: that belongs to loading, not to opening the page.
        from nemodiff_core import sources
        from nemodiff_core.checkpoint import bundled_path, load
        from nemodiff_core.engine import Engine
        from nemodiff_core.fit import need_of
        from nemodiff_core.placement import set_threads
        from nemodiff_core.serving import zero

        zero.prepare()
        choice = self.choice

        def find(weights: bool) -> Any:
            if choice.typed:
                return sources.find_on_hub(choice.source or "", choice.revision, self._tell, weights, self.token)
            return sources.find(choice.source or bundled_path(), choice.revision, self._tell, weights)

        found = find(weights=False)
        self.need = need_of(sources.read_config(found.path), choice.dtype, choice.device).total
        self.licence = choice.licence or sources.licence(found.path)
        self.room.check(self)
        found = find(weights=True)
        checkpoint = load(
            found, dtype=choice.dtype, device=choice.device, progress=self._tell, adapter=choice.adapter, make_room=lambda: self.room.make(self)
        )
        if checkpoint.model.device.type == "cpu":
            set_threads(checkpoint.model.parameter_count())
        engine = zero.wrap(Engine(checkpoint, self.limits))
        if isinstance(engine, Engine):  # what is warmed up elsewhere is gone with its process
            warm_up(engine, self._tell)
        self.about = engine.describe()
        return engine

    def _tell(self, what: str, share: float) -> None:
        if self._cancelled.is_set():
            raise Cancelled("Loading was cancelled.")
        self.progress = f"{what[:1].upper()}{what[1:]}… {share:.0%}" if share else f"{what[:1].upper()}{what[1:]}…"
        self.share = share


def warm_up(engine: Any, tell: Callable[[str, float], None] = lambda what, share: None) -> None:
    """A few tokens in every mode: first forwards are slow, and the first lane of a race must not pay for them.

    On a GPU they capture the graphs of a step, on a CPU the forward of a small model is compiled when it is first met,
    which takes seconds; `tell(what, share)` hears how far it is.
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
