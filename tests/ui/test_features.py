"""What a host has switched off is neither offered nor done."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from nemodiff_core.errors import NemodiffError
from nemodiff_core.request import Limits
from nemodiff_core.serving.manifest import Features
from ui.app import App, build
from ui.budget import Budget
from ui.loader import ModelChoice
from ui.models import Models
from ui.race import Race
from ui.routes import TRACE_ROUTE, routes

NOTHING = Features(any_model=False, sweeps=False, exports=False, votes=False, api=False, mcp=False)


@pytest.fixture
def app(model: Path) -> App:
    return App(Models((ModelChoice(str(model), device="cpu"),)), Limits(max_lanes=2), features=NOTHING)


def shown(page: gr.Blocks, elem_id: str) -> bool:
    (found,) = [block for block in page.blocks.values() if getattr(block, "elem_id", None) == elem_id]
    return found.visible is True


def test_the_page_offers_what_there_is(app: App):
    page = build(app)
    for elem_id in ("nd-sweep-row", "nd-sweep-what", "nd-race-blind"):
        assert not shown(page, elem_id)
    assert shown(page, "nd-no-sweeps")
    assert not [block for block in page.blocks.values() if getattr(block, "elem_id", None) == "nd-lane3"]
    assert not [fn for fn in page.fns.values() if fn.api_visibility == "public"]


def test_a_full_host_offers_everything(model: Path):
    page = build(App(Models((ModelChoice(str(model), device="cpu"),)), Limits()))
    assert all(shown(page, elem_id) for elem_id in ("nd-sweep-row", "nd-sweep-what", "nd-race-blind", "nd-lane3"))
    assert {fn.api_name for fn in page.fns.values() if fn.api_visibility == "public"} >= {"decode", "race", "refine", "infill", "trace_metrics"}


def test_a_sweep_is_refused_whoever_asks_for_it(app: App):
    view = Budget()
    view.app = app
    with pytest.raises(gr.Error, match="runs no sweeps"):
        view.prepare("", SimpleNamespace(session_hash="a"), [], 1, [], [], [], [], [], False)


def test_an_export_is_refused_and_the_trace_is_not(app: App):
    client = TestClient(Starlette(routes=routes(app.store, app.votes, exports=False)))
    run = app.recorded["Refine"].id
    refused = client.get(f"{TRACE_ROUTE}/{run}?format=html")
    assert refused.status_code == 404 and "saves traces only" in refused.text
    assert client.get(f"{TRACE_ROUTE}/{run}").status_code == 200


def test_a_race_keeps_to_the_hosts_lanes_and_has_no_blind_ones(app: App):
    view = Race(app.models, votes=False)
    lane = ["", "", "ar"]
    with pytest.raises(NemodiffError, match="2 to 2 lanes"):
        view.job({"prompt": "hi"}, [[True] * 3, False, False, "", *lane * 3], app.limits)
    with pytest.raises(NemodiffError, match="no blind races"):
        view.job({"prompt": "hi"}, [[True] * 2, False, True, "", *(["", "", *["ar"] * 17] * 2)], app.limits)
