"""What the app serves beside Gradio: the player's files, and finished runs as downloads.

They are routes of the same server, given to `launch(app_kwargs=…)`: they work under a root path and on a
Space, and nothing outside `ui/player` can be reached through them.
"""

from __future__ import annotations

from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles

from nemodiff_core.errors import NemodiffError

from ui.files import file_name, pack
from ui.player_component import PLAYER_FOLDER, PLAYER_ROUTE
from ui.runs import RunStore

TRACE_ROUTE = "/nemodiff/traces"
_TYPES = {".js": "text/javascript", ".css": "text/css"}


def routes(store: RunStore) -> list[BaseRoute]:
    """The app's own routes over the runs in `store`."""
    folder = StaticFiles(directory=PLAYER_FOLDER)

    async def player_file(request: Request) -> Response:
        name = request.path_params["name"]  # one segment: the route matches no slash
        kind = _TYPES.get(Path(name).suffix)
        if kind is None:
            return PlainTextResponse("There is no such file.", 404)
        response = await folder.get_response(name, request.scope)
        if response.status_code == 200:
            # The machine's own table of types may call JavaScript plain text, which browsers refuse to run.
            response.headers["content-type"] = f"{kind}; charset=utf-8"
        # Always revalidated, so that an update is never half old, half new.
        response.headers["cache-control"] = "no-cache"
        response.headers["x-content-type-options"] = "nosniff"
        return response

    async def download(request: Request) -> Response:
        try:
            record = store.get(request.path_params["run"])
            body = await run_in_threadpool(pack, record)
        except NemodiffError as error:
            return PlainTextResponse(str(error), 404)
        headers = {
            "content-disposition": f'attachment; filename="{file_name(record)}"',
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
        }
        return Response(body, media_type="application/gzip", headers=headers)

    # Routes and no Mount: a mounted application loses its way where a proxy strips the root path.
    return [
        Route(PLAYER_ROUTE + "/{name}", player_file, methods=["GET", "HEAD"]),
        Route(TRACE_ROUTE + "/{run}", download, methods=["GET"]),
    ]
