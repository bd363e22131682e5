"""Which of the server's addresses strangers may call, with how much, and what they hear when something breaks.

Gradio serves more than this app uses: files of its cache, a proxy, saved states, an editor of the app's source. The list
here names what the page and `gradio_client` need; everything else does not exist, also what a later Gradio adds.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable

from starlette._utils import get_route_path
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nemodiff_core.trace_reader import MAX_FILE_BYTES

from ui.ops.logs import failed

UPLOAD = "/gradio_api/upload"
MAX_BODY_BYTES = 4 * 2**20  # of what is no upload: texts are bounded by characters, and everything else is smaller
MAX_UPLOAD_BYTES = MAX_FILE_BYTES + 2**16  # one file and what wraps it
UPLOADS_BYTES = 2**30  # of all visitors within UPLOADS_S, which is when Gradio's cache has forgotten them
UPLOADS_S = 3600.0
_OPEN = re.compile(
    r"/(|config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|healthz|readyz|metrics"
    r"|(assets|static|nemodiff)/.+"
    r"|gradio_api/(info|app_id|startup-events|theme\.css|login_check|queue/(join|data|status)|cancel|reset|component_server|upload|upload_progress"
    r"|heartbeat/[\w-]+|(run|api)/[\w-]+|call/(v2/)?[\w-]+(/[\w-]+)?|mcp(/.*)?))/?"
)
_BROKEN = "Something went wrong here; reload the page and try it again."
_log = logging.getLogger(__name__)
_FULL = "This host has taken many files within an hour; try again later."


class _Refused(Exception):
    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Doors:
    """Lets requests to open addresses through, within their size, and answers for what fails behind."""

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> None:
        self.app, self.clock = app, clock
        self.uploads: deque[tuple[float, int]] = deque()
        self.arriving = 0  # bytes of uploads that are not over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            else:  # there is no socket here
                await send({"type": "websocket.close", "code": 1008})
            return
        path = get_route_path(scope)
        if not _OPEN.fullmatch(path) or ".." in path.split("/") or "\\" in path or "\0" in path:
            await PlainTextResponse("There is nothing at this address.", 404)(scope, receive, send)
            return
        upload = path.rstrip("/") == UPLOAD
        limit = MAX_UPLOAD_BYTES if upload else MAX_BODY_BYTES
        too_large = f"This is more than the {limit // 2**20} MB that one request may bring here; send less."
        begun, received = False, 0

        async def take() -> Message:
            nonlocal received
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            if upload:
                self.arriving += size
            if received > limit:
                raise _Refused(413, too_large)
            if upload and self._uploaded() > UPLOADS_BYTES:
                raise _Refused(503, _FULL)
            return message

        async def give(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            if _announced(scope) > limit:
                raise _Refused(413, too_large)
            await self.app(scope, take, give)
        except _Refused as refusal:
            if not begun:
                await PlainTextResponse(str(refusal), refusal.status, {"connection": "close"})(scope, receive, send)
        except ClientDisconnect:
            pass  # nobody is there to be answered
        except Exception as error:  # whatever a request can provoke must neither end the server nor tell of its inside
            failed(_log, "request", error)
            if not begun:
                await PlainTextResponse(_BROKEN, 500)(scope, receive, send)
        finally:
            if upload and received:
                self.arriving -= received
                self.uploads.append((self.clock(), received))

    def _uploaded(self) -> int:
        while self.uploads and self.clock() - self.uploads[0][0] > UPLOADS_S:
            self.uploads.popleft()
        return self.arriving + sum(size for _, size in self.uploads)


def _announced(scope: Scope) -> int:
    """The length that a request says it has; 0 where it says nothing of use."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0
