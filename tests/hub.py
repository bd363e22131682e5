"""A hub on this machine, which speaks as much of the Hugging Face hub's protocol as its own client asks of it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

COMMIT = "0d51902d" + "0" * 32
_DROP = 64  # bytes that the client takes at a time


class Hub(ThreadingHTTPServer):
    """Serves checkpoint folders by id, and notes what was asked for."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.models: dict[str, Path] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []  # files whose content was fetched
        self.tokens: set[str | None] = set()
        self.slow: threading.Event | None = None  # weights stop half-way until it is set
        self.halfway = threading.Event()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Weights come half and then no further."""
        self.slow = threading.Event()
        self.halfway.clear()
        try:
            yield
        finally:
            self.slow.set()
            self.slow = None


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def _answer(self, with_content: bool) -> None:
        self.server.tokens.add(self.headers.get("authorization"))
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[0] == "api":  # api/models/owner/name/...
            model = "/".join(parts[2:4])
            if self._refused(model):
                return
            if parts[4:5] == ["tree"]:
                files = [self._entry(path, model) for path in sorted(self.server.models[model].rglob("*")) if path.is_file()]
                self._json(files)
            else:
                self._json({"id": model, "modelId": model, "sha": COMMIT, "siblings": [], "tags": [], "private": False})
            return
        model, file = "/".join(parts[:2]), "/".join(parts[4:])  # owner/name/resolve/commit/file
        if self._refused(model):
            return
        content = (self.server.models[model] / file).read_bytes()
        self._head(200, len(content), {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT})
        if with_content:
            self.server.asked.append(file)
            self._send(content, file)

    def _send(self, content: bytes, file: str) -> None:
        slow = self.server.slow
        if slow is None or not file.endswith(".safetensors"):
            self.wfile.write(content)
            return
        half = len(content) // 2
        self.wfile.write(content[:half])
        self.wfile.flush()
        self.server.halfway.set()
        at = half  # drop by drop: a client learns that it was cancelled from what comes next
        while at < len(content) and not slow.wait(0.05):
            try:
                self.wfile.write(content[at : at + _DROP])
                self.wfile.flush()
            except OSError:
                return
            at += _DROP
        try:
            self.wfile.write(content[at:])
        except OSError:
            pass

    def _refused(self, model: str) -> bool:
        if model in self.server.gated:
            self._head(401, 0, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this model is restricted."})
            return True
        if model not in self.server.models:
            self._head(401, 0, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return True
        return False

    def _entry(self, path: Path, model: str) -> dict[str, Any]:
        content = path.read_bytes()
        name = path.relative_to(self.server.models[model]).as_posix()
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _json(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self._head(200, len(body), {"Content-Type": "application/json"})
        self.wfile.write(body)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """The hub, where huggingface_hub looks for it, with a cache of its own."""
    server = Hub()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", _DROP)
    yield server
    server.shutdown()
    server.server_close()
