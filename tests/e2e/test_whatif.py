"""Going on from a step with something changed, explaining a run, and links, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.test_app import Screen, saved_trace
from ui import files


@pytest.fixture
def screen(served: Any, new_page: Callable[..., Page]) -> Screen:
    return Screen(new_page(), served.url)


def finished_run(screen: Screen, mode: str = "diffusion") -> None:
    screen.ask(mode, tokens=32)
    screen.begin()
    screen.finish()
    screen.wait("p => p.complete")


def steps(screen: Screen) -> list[list[dict[str, Any]]]:
    """The steps of every lane, as the browser has them."""
    return screen.page.evaluate("window.__nemodiff.handles['nd-player'].store.lanes.map((lane) => lane.steps)")


def choose_cell(screen: Screen, cell: int, step: int) -> None:
    screen.page.evaluate(f"window.__nemodiff.handles['nd-player'].select({{ step: {step}, cell: {cell}, panel: 'whatif' }})")
    screen.wait("(p, a) => p.selection.step === a[0] && p.panel === 'whatif'", [step])


def test_a_forced_token_begins_a_child_beside_its_parent_and_the_tree_leads_back(served: Any, screen: Screen):
    finished_run(screen)
    parent, before = screen.state("p => p.run"), screen.state("p => p.lanes[0].output")
    choose_cell(screen, 1, 2)
    panel = screen.page.locator(".ndp-whatif")
    panel.get_by_label("Force").check()
    other = panel.locator(".ndp-token-chip").nth(1)
    token = int(other.get_attribute("data-token"))
    other.click()
    panel.get_by_role("button", name="Continue from here").click()
    screen.wait("(p, run) => p.run !== run", parent)
    screen.finish()
    screen.wait("p => p.complete && p.lanes.length === 2 && p.lanes.every((l) => l.ended)")
    lanes = screen.state("p => p.lanes")
    child = screen.page.evaluate("window.__nemodiff.handles['nd-player'].store.lanes[1].tail.output.ids")
    assert child[1] == token != before[1]
    assert len(lanes) == 2 and screen.state("p => p.view") == "race"
    # It is the same run up to that step, and the cell stays in view, now in the child.
    parents, childs = steps(screen)
    assert childs[:3] == parents[:3] and [s["index"] for s in childs] == list(range(len(childs)))
    looked_at = screen.state("p => p.selection")
    assert looked_at["lane"] == 1 and looked_at["position"] is not None and looked_at["step"] >= 2
    expect(screen.page.locator(".ndp-differs").first).to_be_visible()
    # The tree names both, and the parent is still there, unchanged.
    screen.page.evaluate("window.__nemodiff.handles['nd-player'].select({ panel: 'whatif' })")
    nodes = screen.page.locator(".ndp-tree-node")
    expect(nodes).to_have_count(2)
    nodes.first.click()
    screen.wait("(p, run) => p.run === run && p.complete", parent)
    screen.page.keyboard.press("End")
    assert screen.page.evaluate("window.__nemodiff.handles['nd-player'].store.lanes[0].tail.output.ids") == before


def test_a_text_that_is_no_single_token_is_refused_and_nothing_is_lost(screen: Screen):
    finished_run(screen)
    choose_cell(screen, 1, 2)
    panel = screen.page.locator(".ndp-whatif")
    panel.get_by_label("Force").check()
    panel.get_by_label("Token to write").fill("unquestionable nonsense")
    before = screen.state("p => p.selection")
    panel.get_by_role("button", name="Continue from here").click()
    notice = screen.page.locator("#nd-notice")
    expect(notice).to_contain_text("a cell holds one")
    expect(notice.locator("p")).to_be_in_viewport()  # although the button is far below
    assert screen.state("p => p.selection") == before and screen.state("p => p.fault") is None


def test_a_child_is_gone_on_from_and_saved(screen: Screen, tmp_path: Path):
    finished_run(screen)
    for generation, step in enumerate((2, 3), 2):
        before = screen.state("p => p.run")
        screen.page.evaluate(f"window.__nemodiff.handles['nd-player'].select({{ lane: {generation - 2 and 1}, step: {step}, panel: 'whatif' }})")
        screen.page.locator(".ndp-whatif").get_by_role("button", name="Continue from here").click()
        screen.wait("(p, run) => p.run !== run && p.complete && p.lanes.length === 2", before)
        screen.finish()
        expect(screen.page.locator(".ndp-tree-node")).to_have_count(generation)
    traces = files.read(saved_trace(screen, tmp_path))
    assert traces[1].parent["trace"] == traces[0].id and traces[0].parent is not None


@pytest.mark.parametrize(("recorded", "step", "cell"), [("infill", 4, 5), ("draft", 3, 11)])
def test_edits_are_gone_on_from_as_well(recorded: str, step: int, cell: int, served: Any, new_page: Callable[..., Page]):
    assert served.engine
    screen = Screen(new_page(), served.url, f"?trace={recorded}&step={step}&cell={cell}&panel=whatif")
    screen.wait("(p, run) => p.run === run && p.selection.position !== null", f"recorded-{recorded}")
    panel = screen.page.locator(".ndp-whatif")
    panel.get_by_label("Ban").check()
    banned = int(panel.locator(".ndp-token-chip[aria-pressed=true]").get_attribute("data-token"))
    panel.get_by_role("button", name="Continue from here").click()
    screen.wait("p => !p.run.startsWith('recorded') && p.complete && p.lanes.length === 2")
    child = screen.page.evaluate("window.__nemodiff.handles['nd-player'].store.lanes[1].tail.output.ids")
    assert child[cell - 1] != banned


def test_a_lane_is_shown_by_itself_and_all_again(screen: Screen):
    screen.page.locator("#nd-view").get_by_label("Race").check()
    screen.wait("p => p.view === 'race' && p.complete")
    screen.page.get_by_role("button", name="cells", exact=True).nth(1).click()
    screen.wait("p => p.view === 'refine' && p.selection.lane === 1")
    expect(screen.page.locator(".ndp-cell").first).to_be_visible()
    screen.page.get_by_role("button", name="all lanes").click()
    screen.wait("p => p.view === 'race'")


def test_the_detector_marks_an_own_run(screen: Screen):
    finished_run(screen)
    screen.page.evaluate("window.__nemodiff.handles['nd-player'].select({ panel: 'map' })")
    screen.page.get_by_role("button", name="Look for wrong commits").click()
    expect(screen.page.locator("#nd-notice")).to_contain_text("come one at a time", timeout=60_000)
    notes = screen.page.evaluate("window.__nemodiff.handles['nd-player'].store.lanes[0].head.annotations.map((n) => n.kind)")
    assert "regret" in notes


def test_the_detector_looks_at_a_recorded_run_once_for_everybody(served: Any, new_page: Callable[..., Page]):
    assert served.engine
    screens = [Screen(new_page(), served.url, "?trace=story-careless&panel=map&step=2") for _ in range(2)]
    for screen in screens:
        screen.wait("p => p.run === 'recorded-story-careless' && p.panel === 'map'")
    for screen in screens:
        screen.page.get_by_role("button", name="Look for wrong commits").click()
        expect(screen.page.locator("#nd-notice")).to_contain_text("come one at a time", timeout=60_000)
        screen.wait("p => p.complete")
        expect(screen.page.get_by_role("button", name="Look for wrong commits")).to_be_hidden()
    log = served.app.store.get("recorded-story-careless").log
    assert sum(json.loads(message)["type"] == "notes" for message in log) == 1


def test_a_link_into_a_race_moves_all_lanes_to_that_moment(served: Any, new_page: Callable[..., Page]):
    screen = Screen(new_page(), served.url, "?trace=race&lane=2&step=4")
    screen.wait("p => p.run === 'recorded-race' && p.selection.lane === 1 && p.selection.step === 3")
    at = screen.page.evaluate("window.__nemodiff.handles['nd-player'].store.lanes[1].steps[3].elapsed_ns")
    for shown, lane in zip(screen.state("p => p.lanes.map((l) => l.step)"), steps(screen)):
        assert lane[shown]["elapsed_ns"] <= at and (shown + 1 == len(lane) or lane[shown + 1]["elapsed_ns"] > at)


def test_a_link_opens_the_recorded_run_at_its_step_and_cell(served: Any, new_page: Callable[..., Page]):
    screen = Screen(new_page(), served.url, "?trace=refine&step=3&cell=2&panel=whatif")
    screen.wait("p => p.run === 'recorded-refine' && p.selection.step === 2 && p.panel === 'whatif' && p.pinned !== null")


def test_a_copied_link_carries_the_settings_and_no_prompt_unless_asked(served: Any, screen: Screen, new_page: Callable[..., Page]):
    screen.fill("prompt", "a private prompt")
    screen.fill("threshold", 0.6)
    screen.page.locator("#nd-share").click()
    notice = screen.page.locator("#nd-notice")
    expect(notice).to_contain_text("threshold=0.6")
    address = notice.inner_text().split(": ", 1)[1].strip()
    assert "private" not in address
    screen.page.locator("#nd-with-prompt input").check()
    screen.page.locator("#nd-share").click()
    expect(notice).to_contain_text("prompt=a+private+prompt")
    address = notice.inner_text().split(": ", 1)[1].strip()
    other = Screen(new_page(), address)
    expect(other.page.locator("#nd-prompt textarea")).to_have_value("a private prompt")
    expect(other.page.locator("#nd-threshold input[type=number]")).to_have_value("0.6")


def test_a_link_that_cannot_be_is_refused_with_a_sentence(served: Any, new_page: Callable[..., Page]):
    screen = Screen(new_page(), served.url, "?threshold=seven")
    expect(screen.page.locator("#nd-notice")).to_contain_text("no number")
