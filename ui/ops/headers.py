"""What every answer tells the browser it may do: nothing that leaves this host.

The policy is as tight as Gradio's page allows. Scripts are the app's own files, and those of the page's inline scripts
whose digests the answer names; markup that somebody smuggled in would run nothing. `unsafe-eval` stays because
`gr.HTML(js_on_load=…)` is made by `new Function`, and inline styles because Svelte and plotly.js write them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_INLINE = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)
_PERMISSIONS = ("accelerometer", "camera", "display-capture", "geolocation", "gyroscope", "magnetometer", "microphone", "midi", "payment", "usb")
_ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "permissions-policy": ", ".join(f"{name}=()" for name in _PERMISSIONS),
}


def digest(script: bytes) -> str:
    """An inline script as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"


def inline_scripts(markup: bytes) -> list[bytes]:
    """The inline scripts of a page, as a browser would run them."""
    return _INLINE.findall(markup)


def policy(digests: Iterable[str] = (), frames: Iterable[str] = ()) -> str:
    """The Content-Security-Policy of a page with these inline scripts, which `frames` may show."""
    rules = {
        "default-src": "'self'",
        "script-src": " ".join(["'self'", "'unsafe-eval'", *digests]),
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "media-src": "'self' blob:",
        "connect-src": "'self'",
        "worker-src": "'self' blob:",
        "manifest-src": "'self'",
        "object-src": "'none'",
        "frame-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-ancestors": " ".join(["'self'", *frames]),
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


class SafeHeaders:
    """Gives every answer of an app its headers. `head` is markup that Gradio puts into the page when it has started."""

    def __init__(self, app: ASGIApp, head: str = "", frames: Iterable[str] = ()) -> None:
        self.app, self.frames = app, tuple(frames)
        self.known = [digest(script) for script in inline_scripts(head.encode())]
        self.plain = policy(frames=self.frames)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        held: Message | None = None  # the start of a page, until its scripts are known
        markup = bytearray()

        async def pass_on(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                headers.update(_ALWAYS)
                if Headers(raw=message["headers"]).get("content-type", "").startswith("text/html"):
                    held = message
                    return
                headers["content-security-policy"] = self.plain
            elif held is not None:
                markup.extend(message.get("body", b""))
                if message.get("more_body"):
                    return
                found = [digest(script) for script in inline_scripts(bytes(markup))]
                MutableHeaders(raw=held["headers"])["content-security-policy"] = policy([*found, *self.known], self.frames)
                await send(held)
                message, held = {**message, "body": bytes(markup)}, None
            await send(message)

        await self.app(scope, receive, pass_on)
