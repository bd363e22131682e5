"""A small OpenAI-compatible server on loopback, which says what a test tells it to, at the moment the test wants."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

DONE = "data: [DONE]\n\n"
CUT = "cut"  # the connection breaks here
Part = str | bytes | threading.Event  # text to send, or an event to wait for


def said(text: str | None = None, *, tokens: Sequence[Any] = (), finish: str | None = None, **more: Any) -> str:
    """A chunk; `tokens` are (text, probability) or whole entries as the protocol has them."""
    choice: dict[str, Any] = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": finish}
    if tokens:
        choice["logprobs"] = {"content": [t if isinstance(t, dict) else token(*t) for t in tokens]}
    return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], "usage": None, **more})


def token(text: str, probability: float) -> dict[str, Any]:
    return {"token": text, "logprob": math.log(probability), "bytes": list(text.encode()), "top_logprobs": []}


def used(prompt: int, completion: int) -> str:
    return event({"id": "chatcmpl-1", "choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}})


def event(data: Any) -> str:
    return f"data: {json.dumps(data)}\n\n"


FIRST = said("", role="assistant")


class Server:
    """`asked` are the (headers, body) of every request so far; `answer(body)` decides what is sent."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.left = threading.Event()  # a client went before its answer was complete
        self.answer: Callable[[dict[str, Any]], Response | Sequence[Part]] = lambda body: [FIRST, said("Hi", finish="stop"), DONE]

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append((dict(request.headers), body))
        answer = self.answer(body)
        return answer if isinstance(answer, Response) else StreamingResponse(self._send(answer, request), media_type="text/event-stream")

    async def _send(self, parts: Sequence[Part], request: Request) -> AsyncIterator[bytes]:
        try:
            for part in parts:
                if isinstance(part, threading.Event):
                    while not part.is_set():
                        await asyncio.sleep(0.005)
                elif part is CUT:
                    raise ConnectionAbortedError
                else:
                    yield part if isinstance(part, bytes) else part.encode()
        except (asyncio.CancelledError, GeneratorExit):
            self.left.set()
            raise


@contextmanager
def serving() -> Iterator[Server]:
    """A server until the end of the block."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        app = Starlette(routes=[Route("/v1/chat/completions", server.complete, methods=["POST"])])
        running = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
        ready = threading.Event()
        startup = running.startup

        async def started(sockets: Any = None) -> None:
            await startup(sockets)
            ready.set()

        running.startup = started
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        assert ready.wait(30)
        try:
            yield server
        finally:
            running.should_exit = True
            thread.join(30)
