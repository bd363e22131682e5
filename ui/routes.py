"""What the app serves beside Gradio and the page's script: plotly.js, and finished runs as downloads in every format.

They are routes of the same server, given to `launch(app_kwargs=…)`: they work under a root path and on a
Space, and no file can be named through them.
"""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable
from functools import lru_cache

from anyio import CapacityLimiter, to_thread
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from nemodiff_core.errors import NemodiffError

from ui.chart_component import PLOTLY_ROUTE, plotly_bundle
from ui.export import formats
from ui.files import file_name, pack, unpack
from ui.runs import RunStore
from ui.votes import CSV_ROUTE, Votes

TRACE_ROUTE = "/nemodiff/traces"
SWEEP_ROUTE = "/nemodiff/sweeps"
ENCODINGS = 2  # exports made at once; more would only slow one another and the model down


def routes(store: RunStore, votes: Votes, exports: bool = True) -> list[BaseRoute]:
    """The app's own routes over the runs in `store` and the votes on them; without `exports` a run is its trace alone."""
    encoders = CapacityLimiter(ENCODINGS)

    async def download(request: Request) -> Response:
        kind = request.query_params.get("format", "json")
        try:
            record = store.get(request.path_params["run"])
            if record.blind is not None and record.blind.best is None:
                raise NemodiffError("The lanes of a blind race are named after the vote; vote first, then save it.")
            name = file_name(record)
            if kind == "json":
                body, media_type = await run_in_threadpool(pack, record), "application/gzip"
            elif not exports:
                raise NemodiffError("This host saves traces only; export one with nemodiff on your own machine.")
            else:
                chosen = formats.find(kind)
                theme = "dark" if request.query_params.get("theme") == "dark" else "light"
                body = await to_thread.run_sync(lambda: chosen.make(unpack(record), theme), limiter=encoders)
                name, media_type = name.removesuffix(".json.gz") + chosen.suffix, chosen.media_type
        except NemodiffError as error:
            return PlainTextResponse(str(error), 404)
        headers = {
            "content-disposition": f'attachment; filename="{name}"',
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
        }
        return Response(body, media_type=media_type, headers=headers)

    async def votes_file(request: Request) -> Response:
        headers = {"content-disposition": 'attachment; filename="nemodiff-votes.csv"', "cache-control": "no-store", "x-content-type-options": "nosniff"}
        return Response(await run_in_threadpool(votes.csv), media_type="text/csv", headers=headers)

    async def sweep_table(request: Request) -> Response:
        try:
            sweep = store.get(request.path_params["run"]).sweep
        except NemodiffError as error:
            return PlainTextResponse(str(error), 404)
        if sweep is None:
            return PlainTextResponse("This run is no sweep.", 404)
        headers = {"content-disposition": 'attachment; filename="nemodiff-sweep.csv"', "cache-control": "no-store", "x-content-type-options": "nosniff"}
        return Response(await run_in_threadpool(sweep.table), media_type="text/csv", headers=headers)

    # Routes and no Mount: a mounted application loses its way where a proxy strips the root path.
    return [
        Route(TRACE_ROUTE + "/{run}", download, methods=["GET"]),
        Route(SWEEP_ROUTE + "/{run}.csv", sweep_table, methods=["GET"]),
        Route(PLOTLY_ROUTE, lasting_script(lambda: plotly_bundle().read_bytes()), methods=["GET", "HEAD"]),
        Route(CSV_ROUTE, votes_file, methods=["GET"]),
    ]


def lasting_script(read: Callable[[], bytes]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for a script whose address carries its version, so that a copy once fetched is good for ever."""

    @lru_cache(maxsize=2)
    def body(zipped: bool) -> bytes:
        return gzip.compress(read(), 6, mtime=0) if zipped else read()

    async def answer(request: Request) -> Response:
        zipped = "gzip" in request.headers.get("accept-encoding", "")
        headers = {"cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding", "x-content-type-options": "nosniff"}
        if zipped:
            headers["content-encoding"] = "gzip"
        return Response(await run_in_threadpool(body, zipped), media_type="text/javascript", headers=headers)

    return answer
