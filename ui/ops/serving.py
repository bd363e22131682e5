"""What `launch` adds around the pages for an operator, in one place."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from nemodiff_core import __version__

from ui.ops import health, meters
from ui.ops.doors import Doors
from ui.ops.headers import SafeHeaders
from ui.ops.logs import event
from ui.ops.settings import Operation


def layers(operation: Operation, head: str) -> list[Middleware]:
    """The layers around everything else, the outermost first. `head` is what Gradio puts into the page's head."""
    return [Middleware(SafeHeaders, head=head, frames=operation.frames), Middleware(Doors)]


def routes(app: Any, operation: Operation) -> Sequence[BaseRoute]:
    """Health, and figures where they are on."""
    figures = [meters.route(app.meters, operation.metrics_token)] if operation.metrics else []
    return [*health.routes(lambda: not_ready(app)), *figures]


def not_ready(app: Any) -> str | None:
    """Why nobody should be sent here now, as a sentence; None when everything is there."""
    if app.closing.begun.is_set():
        return "It is stopping; send visitors elsewhere."
    return app.models.missing()


def without_banner(server: Any) -> None:
    """Take the server's name off all answers."""
    for holder, name in ((server.config, "encoded_headers"), (server.server_state, "default_headers")):  # the second is made of the first every second
        setattr(holder, name, [header for header in getattr(holder, name) if header[0] != b"server"])


def undelivered(page: Any) -> bool:
    """Whether a handler of the page still works, or a browser has not fetched what was sent to it."""
    queue = page._queue
    return any(queue.active_jobs) or any(not held.empty() for held in queue.pending_messages_per_session.values())


def until_stopped(app: Any, page: Any) -> None:
    """Keep the process until SIGTERM has let the running answers finish, or somebody presses Ctrl-C. For the main thread."""
    app.closing.on_signals()
    event("serving", version=__version__)
    with contextlib.suppress(KeyboardInterrupt):
        app.closing.stay(lambda: app.line.running + app.line.waiting, app.store.stop_all, lambda: undelivered(page))
    page.close(verbose=False)
