"""What the browser runs: all modules of ui/player as one script, which also plays a recorded run at once.

Gradio's page is empty until a hundred files have come, one after the other. So the page that the server sends names
one script more, which needs none of them. It holds the modules that our components mount (ui/mounted.py), and the first
picture: the player with its styles and the run (ui/player/prelude.js). Gradio puts `launch(head=…)` into the page when it
has started, which would be too late; a small ASGI layer does it on the server.
"""

from __future__ import annotations

import hashlib
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.export.bundle import bundle
from ui.messages import compact
from ui.mounted import PLAYER_FOLDER
from ui.player_component import stylesheet
from ui.routes import lasting_script
from ui.runs import RunRecord

ROUTE = "/nemodiff/page.js"
MODULES = ("player.js", "editor.js", "chart.js", "lessons.js")  # those that components mount
_HEAD = b"<head>"


def serving(record: RunRecord | None) -> dict[str, Any]:
    """What `launch(app_kwargs=…)` needs for the script: its route and its layer. `record` is the run to open on."""
    body = script(record).encode()
    version = hashlib.sha256(body).hexdigest()[:12]
    tag = f'<script defer src=".{ROUTE}?v={version}"></script>'
    return {"routes": [Route(ROUTE, lasting_script(lambda: body), methods=["GET", "HEAD"])], "middleware": [Middleware(InHead, tag=tag)]}


def script(record: RunRecord | None) -> str:
    """One script with the modules, by `window.__nemodiff.module(name)`, that shows the record's run whatever else the page does."""
    start = "window.__nemodiff = { players: {}, module: $use };\n"
    if record is None:
        return bundle(PLAYER_FOLDER, MODULES, start)
    told = compact({"run": record.id, "css": stylesheet()})
    start += f"$use('prelude.js').begin({{ ...{told}, messages: [{', '.join(record.log)}] }});"
    return bundle(PLAYER_FOLDER, [*MODULES, "prelude.js"], start)


class InHead:
    """Puts `tag` at the head of the HTML pages of an app."""

    def __init__(self, app: ASGIApp, tag: str) -> None:
        self.app, self.tag = app, tag.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        held: Message | None = None  # the start of a page, whose length is not known yet

        async def pass_on(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and Headers(raw=message["headers"]).get("content-type", "").startswith("text/html"):
                held = message
                return
            if held is not None:
                start, held = held, None
                body = message.get("body", b"")
                if _HEAD in body:
                    message = {**message, "body": body.replace(_HEAD, _HEAD + self.tag, 1)}
                    headers = MutableHeaders(raw=start["headers"])
                    if "content-length" in headers:
                        headers["content-length"] = str(int(headers["content-length"]) + len(self.tag))
                await send(start)
            await send(message)

        await self.app(scope, receive, pass_on)
