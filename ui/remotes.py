"""The servers whose answers may be lanes of a race: those of the manifest, and no others."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nemodiff_core.errors import RequestError
from nemodiff_core.request import DecodeRequest, Limits

from ui.jobs import Lane

if TYPE_CHECKING:
    from nemodiff_core.serving.manifest import Remote
    from nemodiff_core.serving.remote import RemoteEngine

_PREFIX = "Remote · "
ABOUT = (
    "<p>This server decides for itself how it decodes. It is sent the prompt, the longest answer, the temperature and, where that is "
    "above 0, top-p and the seed.</p><p>Its answer is timed here, chunk by chunk, as a client sees it; its forwards are not known.</p>"
)


class Remotes:
    """The remote lanes that this host offers, by the names that the form shows."""

    def __init__(self, remotes: Sequence[Remote] = (), limits: Limits | None = None, environment: Mapping[str, str] = os.environ) -> None:
        self._engines: dict[str, RemoteEngine] = {}
        if remotes:
            from nemodiff_core.serving.remote import RemoteEngine  # the client's libraries come with it

            for remote in remotes:
                name = _PREFIX + (remote.title or remote.name)
                if name in self._engines:
                    name = f"{name} ({remote.name})"
                self._engines[name] = RemoteEngine(remote, limits, environment)

    @property
    def names(self) -> list[str]:
        """What the form calls them."""
        return list(self._engines)

    def lane(self, name: str, request: DecodeRequest) -> Lane:
        """A lane that asks the server. Raises RequestError for a server that is not offered, or that would not be asked this."""
        engine = self._engines.get(name)
        if engine is None:
            raise RequestError("This host does not offer that server; choose another model for the lane.")
        engine.check(request)

        def start(_: Any, stop: Any) -> Any:
            return engine.run(request, stop)

        return start


def is_remote(name: Any) -> bool:
    """Whether a lane's choice of a model is a server's name."""
    return isinstance(name, str) and name.startswith(_PREFIX)
