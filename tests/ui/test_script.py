"""The page's script: all modules and the first picture in one file, named in the page that the server sends."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ui import opening, script
from ui.runs import RunStore


@pytest.fixture(scope="module")
def client() -> TestClient:
    record = opening.load(RunStore())["Refine"]

    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse("<!doctype html><html><head><title>ü</title></head><body></body></html>")

    async def data(request: Request) -> JSONResponse:
        return JSONResponse("<head>")

    served = script.serving(record)
    return TestClient(Starlette(routes=[Route("/", page), Route("/data", data), *served["routes"]], middleware=served["middleware"]))


def test_pages_name_the_script_and_nothing_else_is_touched(client: TestClient):
    page = client.get("/")
    assert page.text.startswith("<!doctype html><html><head><script defer src=")
    assert int(page.headers["content-length"]) == len(page.content)
    assert client.get("/data").json() == "<head>"


def test_the_script_holds_player_styles_and_run_and_may_be_kept(client: TestClient):
    address = client.get("/").text.split('src=".')[1].split('"')[0]
    answer = client.get(address)
    assert answer.headers["content-type"].startswith("text/javascript") and "immutable" in answer.headers["cache-control"]
    assert all(part in answer.text for part in ("written.set('player.js'", ".ndp-cell", "recorded-refine", '"type":"end"'))
    assert answer.headers["content-encoding"] == "gzip"
    plain = client.get(address, headers={"accept-encoding": "identity"})
    assert plain.text == answer.text and "content-encoding" not in plain.headers


def test_without_a_recorded_run_the_modules_are_still_there():
    text = script.script(None)
    assert all(f"written.set('{name}'" in text for name in script.MODULES) and "prelude.js" not in text
