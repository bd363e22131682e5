"""The server's side of the Export menu."""

from __future__ import annotations

import csv
import io
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from nemodiff_core.trace_reader import parse, unpack
from tests.ui.player.traces import Maker, race
from ui import routes
from ui.export import formats
from ui.messages import write_traces
from ui.runs import RunRecord, RunStore
from ui.votes import Votes

STORE = RunStore()


def app() -> Starlette:
    # Nothing is written there before the first vote, and there is none.
    return Starlette(routes=routes.routes(STORE, Votes(Path("no votes"))))


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(app())


@pytest.fixture(scope="module")
def single() -> RunRecord:
    record = STORE.create("me")
    write_traces(record, [Maker("A short run.", seed=1).linear_spec()])
    return record


def get(client: TestClient, record: RunRecord, query: str = ""):
    return client.get(f"{routes.TRACE_ROUTE}/{record.id}{query}")


@pytest.mark.parametrize(
    ("name", "kind", "ending"),
    [
        ("json", "application/gzip", ".json.gz"),
        ("html", "text/html; charset=utf-8", ".html"),
        ("gif", "image/gif", ".gif"),
        ("mp4", "video/mp4", ".mp4"),
        ("csv-steps", "text/csv; charset=utf-8", "-steps.csv"),
        ("csv-tokens", "text/csv; charset=utf-8", "-tokens.csv"),
        ("csv-cycles", "text/csv; charset=utf-8", "-cycles.csv"),
        ("csv-metrics", "text/csv; charset=utf-8", "-metrics.csv"),
    ],
)
def test_every_format(name: str, kind: str, ending: str, client: TestClient, single: RunRecord):
    answer = get(client, single, f"?format={name}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == kind
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    said = answer.headers["content-disposition"]
    assert said.startswith('attachment; filename="nemodiff-trace-') and said.endswith(f'{ending}"') and single.id not in said
    if name == "json":
        assert parse(unpack(answer.content)).request["mode"] == "linear_spec"
        assert get(client, single).content == answer.content, "JSON is what comes unasked"
    elif kind.startswith("text/csv"):
        assert len(list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"))))) > 1


def test_a_race_has_all_its_lanes(client: TestClient):
    record = STORE.create("me", lanes=3)
    write_traces(record, race())
    answer = get(client, record, "?format=csv-metrics")
    assert "nemodiff-race-" in answer.headers["content-disposition"]
    table = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert [row["mode"] for row in table] == ["ar", "diffusion", "linear_spec"]


def test_the_theme_is_the_pages(client: TestClient, single: RunRecord):
    corners = []
    for query in ("", "&theme=dark", "&theme=<script>"):
        with Image.open(io.BytesIO(get(client, single, f"?format=gif{query}").content)) as image:
            corners.append(image.convert("RGB").getpixel((1, 1)))
    assert corners[0] == corners[2] != corners[1]


@pytest.mark.parametrize("query", ["?format=exe", "?format=", "?format=../../etc/passwd", "?format=%00"])
def test_an_unknown_format_is_refused_in_one_sentence(query: str, client: TestClient, single: RunRecord):
    answer = get(client, single, query)
    assert answer.status_code == 404 and answer.headers["content-type"].startswith("text/plain")
    assert answer.text.startswith("There is no such format; choose one of json, html, gif, mp4") and answer.text.count("\n") == 0


def test_there_must_be_a_run_and_something_in_it(client: TestClient):
    record = STORE.create("me")
    for name in ("json", "gif", "csv-steps"):
        assert "nothing to save yet" in get(client, record, f"?format={name}").text
    assert client.get(f"{routes.TRACE_ROUTE}/unknown?format=gif").status_code == 404


def test_no_more_than_two_exports_are_made_at_once(monkeypatch: pytest.MonkeyPatch, single: RunRecord):
    now, most, lock = 0, 0, threading.Lock()

    def make(traces: object, theme: str) -> bytes:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        time.sleep(0.1)
        with lock:
            now -= 1
        return b"x"

    monkeypatch.setitem(formats.FORMATS, "gif", replace(formats.FORMATS["gif"], make=make))
    with TestClient(app()) as client:
        workers = [threading.Thread(target=get, args=(client, single, "?format=gif")) for _ in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert most == routes.ENCODINGS == 2
