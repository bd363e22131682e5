"""The models of this host: which are on offer, which are in memory, and who is using them."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from nemodiff_core.errors import CheckpointError, NemodiffError
from nemodiff_core.hub import check_id, gigabytes
from nemodiff_core.request import Limits
from nemodiff_core.serving.manifest import Preset

from ui.loader import Cancelled, Loader, ModelChoice, Room

TYPED = 32  # models that visitors have named and that are remembered
_POLL_S = 0.1


def offered(preset: Preset, own: ModelChoice = ModelChoice(), others: Sequence[ModelChoice] = ()) -> tuple[ModelChoice, ...]:
    """The models of a host: the manifest's, or the one named on the command line in their place, and `others` behind.

    What the command line says without naming a model, such as a device, is meant for the page's own.
    """
    if own.source is not None:
        return (own, *others)
    first, *rest = map(ModelChoice.of, preset.models)
    said = {name: value for name in ("revision", "dtype", "device") if (value := getattr(own, name)) is not None}
    return (replace(first, **said), *rest, *others)


class Models(Room):
    """Models by name, each loaded when somebody wants it, once however many do. Safe to share among threads.

    The first one is the page's own, loaded at the start. Models that nobody uses make room for new ones, least recently
    used first and the page's own after all others; no sooner than the new one is known to be sound, and should its
    loading fail even then, the page's own comes back. So the page goes on answering whatever is asked for.
    """

    def __init__(
        self,
        choices: Sequence[ModelChoice] = (ModelChoice(),),
        limits: Limits | None = None,
        *,
        any_model: bool = False,  # visitors may name a model of the hub
        budget_bytes: int | None = None,  # for all models together; None: what their devices have free
        maker: Callable[[Callable[[str, float], None]], Any] | None = None,  # of the page's own engine, where its model is elsewhere
        token: bool | None = None,  # False: models that visitors name are fetched without this machine's login
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.any_model, self._limits, self._budget, self._token, self._clock = any_model, limits, budget_bytes, token, clock
        self.told: Callable[[Loader], None] = lambda loader: None  # who hears that loading has ended
        self._gate, self._lock = threading.Lock(), threading.RLock()
        self._loaders: dict[str, Loader] = {}
        self._leases: dict[Loader, int] = {}
        self._used: dict[Loader, float] = {}
        for choice in choices:
            name = choice.name if choice.name not in self._loaders else f"{choice.name} ({len(self._loaders) + 1})"
            self._loaders[name] = self._loader(choice)
        self.names = list(self._loaders)  # what the operator offers, the page's own first; no two alike
        self.own = self._loaders[self.names[0]]
        self.own.maker = maker

    def start(self) -> Models:
        """Begin to load the page's own model."""
        self.want(None, self)
        return self

    def loader(self, name: str | None) -> Loader:
        """What is known of a model; the page's own where no name is given. Raises NemodiffError: names come from browsers."""
        with self._lock:
            found = self.own if name in (None, "") else self._loaders.get(name) if isinstance(name, str) else None
        if found is None:
            raise NemodiffError("This host does not offer that model; choose another one.")
        return found

    def add(self, hub_id: str) -> str:
        """The name of a model that a visitor asks for by its hub id. Raises NemodiffError for anything else."""
        if not self.any_model:
            raise NemodiffError("This host offers its own models only; choose one of them.")
        hub_id = check_id(hub_id.strip())
        with self._lock:
            for name, loader in self._loaders.items():
                if loader.choice.source == hub_id and loader.choice.revision is None:
                    return name
            unused = [name for name, loader in self._loaders.items() if loader.choice.typed and loader.engine is None and self._idle(loader)]
            for name in unused[: max(0, len(self._loaders) - len(self.names) - TYPED + 1)]:
                del self._loaders[name]
            self._loaders[hub_id] = self._loader(ModelChoice(hub_id, typed=True))
        return hub_id

    def want(self, name: str | None, who: Hashable) -> Loader:
        """Begin to load a model for `who`, unless it is there or on its way; one that has failed is tried again."""
        loader = self.loader(name)
        with self._lock:
            loader.waiting.add(who)
            loader.start()
        return loader

    def leave(self, who: Hashable) -> None:
        """`who` waits for no model any more; what nobody waits for is not loaded to its end."""
        with self._lock:
            for loader in self._loaders.values():
                if who in loader.waiting:
                    loader.waiting.discard(who)
                    if not loader.waiting and loader.state == "loading" and loader is not self.own:
                        loader.cancel()

    def ready(self, name: str | None) -> Any:
        """The engine of a model that is in memory, for a moment's look; None where it is not. Raises NemodiffError."""
        return self.loader(name).engine

    def present(self, name: str | None) -> Any:
        """As `ready`, where nothing can be done without the engine. Raises NemodiffError where it is not in memory."""
        loader = self.loader(name)
        if (engine := loader.engine) is not None:
            return engine
        if loader.state == "loading":
            raise NemodiffError("This needs the model, which is still loading; try again when it is there.")
        raise NemodiffError(loader.problem or f"This needs {loader.choice.name}, which has made room for other models; choose it for the page, then try again.")

    @contextmanager
    def lease(self, name: str | None, stop: threading.Event) -> Iterator[Any]:
        """The engine of a model, loaded now if need be; it stays in memory until the lease ends.

        Raises NemodiffError where there is no such model, it cannot be loaded, or `stop` is set before it is there.
        """
        loader, who = self.loader(name), object()
        try:
            while (engine := self._take(loader)) is None:
                if loader.problem is not None:
                    raise NemodiffError(loader.problem)
                self.want(name, who)
                while not loader.wait(_POLL_S):
                    if stop.is_set():
                        raise Cancelled("It was stopped while its model was loading; start it again.")
        finally:
            self.leave(who)
        try:
            yield engine
        finally:
            del engine
            with self._lock:
                self._leases[loader] -= 1
                self._used[loader] = self._clock()

    @property
    def loaded(self) -> int:
        """How many are in memory."""
        return sum(loader.engine is not None for loader in list(self._loaders.values()))

    def missing(self) -> str | None:
        """Why no model can answer now, as one sentence; None where one can."""
        if self.loaded:
            return None
        return self.own.problem or "The model is still loading; ask again in a moment."

    def named(self, model: Mapping[str, Any]) -> str | None:
        """The name of the model that a trace was made with, as far as it has been loaded here; None for a stranger's."""
        with self._lock:
            known = {name: loader.about for name, loader in self._loaders.items() if loader.about.get("id") == model.get("id") is not None}
        alike = {name: sum(about.get(key) == model.get(key) for key in ("revision", "dtype", "adapter")) for name, about in known.items()}
        return max(alike, key=alike.__getitem__, default=None)

    def _loader(self, choice: ModelChoice) -> Loader:
        return Loader(choice, self._limits, self, self._gate, self._token if choice.typed else None)

    def _take(self, loader: Loader) -> Any:
        with self._lock:
            if loader.engine is not None:
                self._leases[loader] = self._leases.get(loader, 0) + 1
                self._used[loader] = self._clock()
            return loader.engine

    # -- memory ---------------------------------------------------------------------------------------

    def check(self, loader: Loader) -> None:
        with self._lock:
            most = self._free_for(loader, [other for other in self._others(loader) if other.maker is None])
        if loader.need > most:
            raise CheckpointError(
                f"{loader.choice.name} needs {gigabytes(loader.need)} of memory, but this host can free {gigabytes(most)} for it at most; "
                "choose a smaller model, or have it offered in int8 or int4."
            )

    def make(self, loader: Loader) -> None:
        with self._lock:
            while loader.need > (free := self._free_for(loader)):
                idle = [other for other in self._others(loader) if self._idle(other) and self._free_for(loader, [other]) > free]
                if not idle:
                    raise CheckpointError(
                        f"{loader.choice.name} needs {gigabytes(loader.need)} of memory, and models that are answering now "
                        f"leave {gigabytes(free)}; try again in a moment."
                    )
                min(idle, key=lambda other: (other is self.own, self._used.get(other, 0.0))).drop()

    def ended(self, loader: Loader) -> None:
        self.told(loader)
        with self._lock:
            self._used[loader] = self._clock()
            if loader is not self.own and loader.engine is None and self.own.state == "absent":
                self.own.start()  # it had made room for nothing

    def _free_for(self, loader: Loader, without: Sequence[Loader] = ()) -> int:
        """Bytes that a model may take on its device, were those in `without` dropped."""
        from nemodiff_core import placement

        there = [other for other in self._others(loader) if other not in without]
        bounds = [] if self._budget is None else [self._budget - sum(other.need for other in there)]
        if (device := loader.choice.device) != "auto":  # which spreads over all there is
            place = placement.place_of(device)
            beside = [other for other in without if other.choice.device == "auto" or placement.place_of(other.choice.device) == place]
            bounds.append(placement.free_memory()[place] + sum(other.need for other in beside))
        return max(0, min(bounds, default=sys.maxsize))

    def _others(self, loader: Loader) -> list[Loader]:
        """Models in memory besides this one."""
        return [other for other in self._loaders.values() if other.engine is not None and other is not loader]

    def _idle(self, loader: Loader) -> bool:
        """Whether it can make room: nobody uses it, and it takes memory here."""
        return loader.state != "loading" and not self._leases.get(loader) and loader.maker is None
