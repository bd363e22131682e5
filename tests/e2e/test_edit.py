"""The Edit view as a visitor uses it: gaps filled, a schema made into valid JSON, a draft revised change by change."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.test_app import Screen

DRAFT = '{"name": "Max", "day": "Sunday", "hour": 10, "place": "garden"}'
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}, "day": {"type": "string"}, "hour": {"type": "integer", "maximum": 12}}}


class Desk(Screen):
    """The Edit view in a browser."""

    def __init__(self, page: Page, url: str) -> None:
        super().__init__(page, url, "?view=edit")
        self.editor = page.locator("#nd-editor .nde")
        self.area = page.locator("#nd-editor-text")
        expect(self.area).not_to_have_value("")  # the first example is there

    def press(self, name: str) -> None:
        self.editor.get_by_role("button", name=name, exact=True).click()

    def example(self, name: str) -> None:
        self.editor.get_by_label("Start from an example").select_option(name)

    def select(self, words: str) -> None:
        self.area.evaluate("(a, w) => { const i = a.value.indexOf(w); a.focus(); a.setSelectionRange(i, i + w.length); }", words)

    def text(self) -> str:
        return self.area.input_value()

    def result(self, label: str) -> Any:
        box = self.editor.get_by_label(label, exact=True)
        expect(box).to_be_visible(timeout=120_000)
        return box


@pytest.fixture
def desk(served: Any, new_page: Callable[..., Page]) -> Desk:
    assert served.engine
    return Desk(new_page(), served.url)


def test_a_stretch_is_masked_and_filled_and_the_answer_is_used_and_undone(desk: Desk):
    desk.area.fill('{"name": "Max", "day": "Friday", "hour": 10, "place": "market"}')
    desk.select("Friday")
    desk.press("Mask selection")
    expect(desk.area).to_have_value('{"name": "Max", "day": "▢", "hour": 10, "place": "market"}')
    before = desk.state("p => p.run")
    desk.press("Fill")
    desk.wait("(p, before) => p.run !== before && p.complete", before)
    assert desk.state("p => p.lanes[0].mode") == "infill"
    filled = desk.result("Filled text").locator("p").inner_text()
    assert json.loads(filled)["place"] == "market" and "▢" not in filled
    desk.press("Use as text")
    expect(desk.area).to_have_value(filled)
    desk.press("Undo")
    assert "▢" in desk.text()


def test_a_schema_gives_valid_json_and_a_bad_one_a_sentence(desk: Desk):
    desk.press("Paste JSON Schema")
    box = desk.editor.get_by_label("JSON Schema", exact=True)
    kept = desk.text()
    box.fill("{")
    desk.press("Make a skeleton")
    expect(desk.editor.locator(".nde-bad")).to_contain_text("not JSON")
    assert desk.text() == kept
    box.fill(json.dumps(SCHEMA))
    desk.press("Make a skeleton")
    expect(desk.area).to_have_value('{"name": "▢{1,3}", "day": "▢{1,3}", "hour": ▢{1,2}}')
    desk.press("Fill")
    filled = json.loads(desk.result("Filled text").locator("p").inner_text())
    assert list(filled) == ["name", "day", "hour"] and isinstance(filled["hour"], int)


def test_one_change_is_accepted_another_rejected_and_the_rejected_stays(desk: Desk):
    desk.example("JSON with two mistakes")
    expect(desk.area).to_have_value(DRAFT)
    desk.press("Propose changes")
    hunks = desk.result("Changes").locator(".nde-hunk")
    expect(hunks).to_have_count(2)
    expect(hunks.first).to_contain_text("The causal pass gave “Sunday”")
    desk.press("Accept change 1")
    desk.press("Reject change 2")
    merged = DRAFT.replace("Sunday", "Friday")
    expect(desk.editor.get_by_label("Merged text", exact=True)).to_have_text(merged)
    desk.press("Revise again")
    expect(desk.area).to_have_value(merged)
    expect(desk.editor.locator(".nde-mirror .nde-pinned")).to_have_text(["garden"])
    expect(desk.editor.get_by_text("Nothing to change")).to_be_visible(timeout=120_000)
    assert desk.state("p => p.lanes[0].text") == merged


def test_the_run_that_the_player_shows_is_revised(desk: Desk):
    desk.wait("p => p.complete")
    desk.press("Revise a draft")
    desk.press("Revise this run")
    expect(desk.editor.locator(".nde-said")).to_contain_text("the answer that the player shows")
    assert desk.text() and desk.editor.locator("#nd-editor-prompt").input_value()


def test_what_cannot_be_done_is_refused_beside_the_editor_and_the_text_stays(desk: Desk):
    before = desk.state("p => p.run")
    for text, sentence in (("a ▢{40} b", "does not fit into a block"), ("no gap", "has no gaps"), ("", "is empty")):
        desk.area.fill(text)
        desk.press("Fill")
        expect(desk.editor.locator(".nde-bad")).to_contain_text(sentence)
        assert desk.text() == text
    assert desk.state("p => p.run") == before
