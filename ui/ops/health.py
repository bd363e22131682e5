"""`/healthz`: the process answers. `/readyz`: it may be sent visitors."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

ALIVE, READY = "/healthz", "/readyz"


def routes(problem: Callable[[], str | None]) -> list[BaseRoute]:
    """Both routes; `problem()` is the sentence that says why no visitor should come now, or None."""

    async def alive(request: Request) -> Response:
        return _answer("It is alive.", 200)

    async def ready(request: Request) -> Response:
        said = problem()
        return _answer(said or "It is ready.", 200 if said is None else 503)

    return [Route(path, answer, methods=["GET", "HEAD"]) for path, answer in ((ALIVE, alive), (READY, ready))]


def _answer(sentence: str, status: int) -> Response:
    return PlainTextResponse(sentence, status, {"cache-control": "no-store"})
