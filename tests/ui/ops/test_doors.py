"""What strangers may call, and what they cannot reach however they write it."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ui.ops import doors
from ui.ops.doors import Doors

SECRET = Path(__file__).resolve()
CLOSED = [
    "gradio_api/file=/etc/passwd", f"gradio_api/file={SECRET}", "gradio_api/file=http://127.0.0.1:1/", "gradio_api/file/etc/passwd",
    "file=/etc/passwd", "gradio_api/proxy=http://127.0.0.1:1/", "gradio_api/deep_link?session_hash=visitor", "gradio_api/vibe-code/",
    "gradio_api/stream/x/0/0/playlist.m3u8", "monitoring", "monitoring/summary", "gradio_api/dev/reload", "gradio_api/user", "gradio_api/token",
    "gradio_api/runs", "gradio_api/run-history/buckets", "gradio_api/custom_component/x/client/y/z.js", "login", "logout", "docs", "redoc", "openapi.json",
    "svelte/x.js", "pwa_icon", "nemodiff", "ui/app.py", "app.py", ".env", ".git/config",
]  # fmt: skip
CLIMBS = ["../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%252f", "%252e%252e%252f", "..\\", "..%5c", "....//", "%c0%ae%c0%ae/", "..%00/", "/%2e%2e/"]


def raw(live: Any, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Send a path exactly as it is written."""
    address = urlsplit(live.page.local_url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    connection.putrequest(method, path, skip_accept_encoding=True)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize("path", CLOSED)
def test_what_the_page_does_not_need_does_not_exist(live: Any, path: str):
    for method in ("GET", "POST", "HEAD", "PUT"):
        status, body = raw(live, "/" + path, method)
        assert status == 404 and b"root:" not in body


@pytest.mark.parametrize("root", ["assets", "static", "nemodiff/traces", "gradio_api/mcp", "gradio_api/call"])
@pytest.mark.parametrize("climb", CLIMBS)
def test_no_path_climbs_out_of_a_folder(live: Any, root: str, climb: str):
    for target in ("etc/passwd", quote(str(SECRET))[1:], "app.py"):
        status, body = raw(live, f"/{root}/{climb * 8}{target}")
        assert status in (400, 403, 404, 405) and b"root:" not in body and b"def test_" not in body and b"launch(" not in body


def test_the_pages_own_addresses_are_open(live: Any):
    for path in ("", "config", "theme.css", "gradio_api/info", "gradio_api/queue/status", "healthz", "readyz", "metrics", "nemodiff/page.js", "robots.txt"):
        assert live.client.get(path).status_code == 200, path
    assert "server" not in live.client.get("").headers


@pytest.mark.parametrize("given", [
    {"path": "/etc/passwd"}, {"path": str(SECRET), "orig_name": "x.json"}, {"path": "http://127.0.0.1:1/x.json"}, {"path": "https://127.0.0.1/x.json.gz"},
    {"path": "x.json", "url": "http://127.0.0.1:1/x.json"}, {"path": None, "url": "http://127.0.0.1:1/x.json"}, {"path": "../../../../etc/passwd"},
    {"path": "file:///etc/passwd"}, "/etc/passwd", "http://127.0.0.1:1/", {"path": "\0"}, {"path": "/proc/self/environ.json"}, [], 7,
])  # fmt: skip
def test_only_files_that_were_uploaded_can_be_opened(live: Any, given: Any, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    monkeypatch.setattr("ui.files.read", lambda path: asked.append(path))
    if isinstance(given, dict):
        given = {**given, "meta": {"_type": "gradio.FileData"}}
    for handler in [*live.handlers("open"), *live.handlers("_open")]:
        data = live.usual(handler)
        data[0] = given
        answer = live.call(handler, data)
        assert answer.status_code != 200 or not asked
        assert "root:" not in answer.text and "def test_" not in answer.text
    assert not asked and SECRET.exists()


def test_a_file_of_another_kind_is_not_opened(live: Any):
    name = live.client.post("gradio_api/upload", files={"files": ("x.exe", b"{}")}).json()[0]
    answer = live.call(live.handlers("open")[0], [{"path": name, "meta": {"_type": "gradio.FileData"}}, None])
    assert answer.status_code == 500 and "Traceback" not in answer.text


def test_names_of_uploads_lead_nowhere(live: Any, tmp_path: Path):
    for name in ("../../../../../../tmp/nd_evil.json", "/tmp/nd_evil.json", "a" * 5000 + ".json", "\u202e.json", "nul\0.json"):
        answer = live.client.post("gradio_api/upload", files={"files": (name, b"{}")})
        if answer.status_code == 200:
            assert Path(answer.json()[0]).resolve().is_relative_to(Path(live.page.app.uploaded_file_dir).resolve())
    assert not Path("/tmp/nd_evil.json").exists()


def test_a_stream_that_nobody_has_begun_says_nothing(live: Any):
    for address in ("gradio_api/call/run/unknown", "gradio_api/queue/data?session_hash=unknown"):
        with live.client.stream("GET", address) as answer:
            said = next((line for line in answer.iter_lines() if line), "")
        assert "Not Found" in said or said == "event: error", said


def test_ids_of_runs_are_not_guessed(live: Any):
    mine = live.app.store.create("somebody").id
    assert len(mine) >= 24 and live.client.get(f"nemodiff/traces/{mine[:-1]}").status_code == 404


# -- sizes ---------------------------------------------------------------------------------------


async def _swallow(request):
    return PlainTextResponse(str(len(await request.body())))


async def _fail(request):
    raise ValueError("a secret")


def small(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> TestClient:
    monkeypatch.setattr(doors, "MAX_BODY_BYTES", 100)
    monkeypatch.setattr(doors, "MAX_UPLOAD_BYTES", 1000)
    monkeypatch.setattr(doors, "UPLOADS_BYTES", 1500)
    routes = [Route(path, _swallow, methods=["POST"]) for path in (doors.UPLOAD, "/gradio_api/queue/join")]
    routes.append(Route("/config", _fail))
    return TestClient(Starlette(routes=routes, middleware=[Middleware(Doors, clock=lambda: clock[0])]))


def test_a_body_beyond_its_limit_is_refused_announced_or_not(monkeypatch: pytest.MonkeyPatch):
    client = small(monkeypatch, [0.0])
    assert client.post("/gradio_api/queue/join", content=b"x" * 100).text == "100"
    for body in (b"x" * 101, iter([b"x" * 60] * 2)):
        answer = client.post("/gradio_api/queue/join", content=body)
        assert answer.status_code == 413 and answer.text.endswith("send less.")
    assert client.post(doors.UPLOAD, content=b"x" * 1000).status_code == 200


def test_uploads_of_an_hour_are_bounded_together(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    client = small(monkeypatch, clock)
    assert [client.post(doors.UPLOAD, content=b"x" * 700).status_code for _ in range(3)] == [200, 200, 503]
    clock[0] = doors.UPLOADS_S + 1
    assert client.post(doors.UPLOAD, content=b"x" * 900).status_code == 200


def test_a_failure_is_answered_without_its_words(monkeypatch: pytest.MonkeyPatch):
    answer = small(monkeypatch, [0.0]).get("/config")
    assert answer.status_code == 500 and "secret" not in answer.text and answer.text.endswith("try it again.")


def test_deep_json_is_survived(live: Any):
    for depth in (500, 100_000):
        body = json.dumps({"fn_index": 0, "session_hash": "visitor"})[:-1] + ', "data": ' + "[" * depth + "]" * depth + "}"
        answer = live.client.post("gradio_api/run/predict", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422, 500)
    assert live.client.get("healthz").status_code == 200
