"""What is served for an operator, as the environment says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from ui.ops import serving
from ui.ops.closing import Closing
from ui.ops.meters import Meters
from ui.ops.settings import Operation


def app(missing: str | None = None) -> Any:
    return SimpleNamespace(meters=Meters(), closing=Closing(1.0), models=SimpleNamespace(missing=lambda: missing))


def client(served: Any, environment: dict[str, str] | None = None) -> TestClient:
    operation = Operation.read(environment or {})
    return TestClient(Starlette(routes=serving.routes(served, operation), middleware=serving.layers(operation, "")))


@pytest.mark.parametrize("missing", ["The model is still loading; ask again in a moment.", "There is no such checkpoint; check its name."])
def test_it_is_not_ready_without_a_model_and_says_why(missing: str):
    answer = client(app(missing)).get("/readyz")
    assert (answer.status_code, answer.text) == (503, missing)
    assert client(app(missing)).get("/healthz").status_code == 200


def test_it_is_ready_until_it_closes():
    served = app()
    assert client(served).get("/readyz").status_code == 200
    served.closing.begun.set()
    answer = client(served).get("/readyz")
    assert answer.status_code == 503 and "stopping" in answer.text and answer.headers["cache-control"] == "no-store"
    assert client(served).get("/healthz").status_code == 200


def test_figures_are_there_as_the_environment_says():
    assert client(app()).get("/metrics").status_code == 200
    assert client(app(), {"NEMODIFF_METRICS": "off"}).get("/metrics").status_code == 404
    space = {"SPACE_ID": "me/nemodiff"}
    assert client(app(), space).get("/metrics").status_code == 404
    guarded = client(app(), {**space, "NEMODIFF_METRICS_TOKEN": "secret"})
    assert guarded.get("/metrics").status_code == 401
    assert guarded.get("/metrics", headers={"authorization": "Bearer secret"}).status_code == 200


def test_a_space_may_be_framed_by_the_hub_and_others_by_nobody():
    def frames(environment: dict[str, str]) -> str:
        return client(app(), environment).get("/healthz").headers["content-security-policy"].rpartition("frame-ancestors ")[2]

    assert frames({}) == "'self'"
    assert frames({"SPACE_ID": "me/nemodiff"}) == "'self' https://huggingface.co https://*.hf.space"
    assert frames({"NEMODIFF_FRAMES": "https://school.example"}) == "'self' https://school.example"
