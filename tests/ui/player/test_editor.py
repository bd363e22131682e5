"""The editor on a bare page: masking, lengths, putting text back, pins, decisions, and all of it by keyboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser import tabs

TEXT = "Mia had a red kite in May."
PARTS = [
    {"text": '{"day": "'},
    {"before": "Sunday", "after": "Friday", "cause": {"token": "Sunday", "probability": 0.0421, "rank": 3, "step": 1, "doubted": True}},
    {"text": '", "place": "'},
    {"before": "garden", "after": "market", "cause": None},
    {"text": '"}'},
]
DRAFT = '{"day": "Sunday", "place": "garden"}'


class Desk:
    """The editor, and what it asked for and sent."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(url)
        page.add_style_tag(url="/player/editor.css")
        page.evaluate(
            """async () => {
              const { mount } = await import('/player/editor.js');
              window.sent = [];
              const desk = async ({ ask, text }) => {
                if (ask === 'count') return { tokens: text.trim().split(' ').length };
                if (ask === 'schema') return text === 'good' ? { template: '{"a": "▢{1,3}"}' } : { error: 'this is not JSON; paste a JSON Schema.' };
                return { examples: [] };
              };
              window.editor = mount(document.getElementById('root'), { id: 'e', desk, send: (name, data) => window.sent.push([name, data]) });
            }"""
        )
        self.area = page.locator("#e-text")

    def button(self, name: str, exact: bool = True) -> Any:
        return self.page.get_by_role("button", name=name, exact=exact)

    def write(self, text: str = TEXT) -> None:
        self.area.fill(text)

    def select(self, words: str) -> None:
        self.page.evaluate("(w) => { const a = document.getElementById('e-text'); const i = a.value.indexOf(w); a.focus(); a.setSelectionRange(i, i + w.length); }", words)

    def reads(self, text: str) -> None:
        expect(self.area).to_have_value(text)

    def answer(self, **message: Any) -> None:
        self.page.evaluate("(m) => window.editor.receive(m)", json.dumps({"seq": 1, **message}))

    def sent(self) -> list[Any]:
        return self.page.evaluate("window.sent")

    def revise(self) -> None:
        self.button("Revise a draft").click()
        self.page.locator("#e-prompt").fill("When?")
        self.write(DRAFT)


@pytest.fixture
def desk(player_url: str) -> Iterator[Desk]:
    with tabs() as open_tab:
        yield Desk(open_tab(700, 900), player_url)


def test_a_selection_becomes_a_gap_and_a_click_gives_its_text_back(desk: Desk):
    desk.write()
    desk.select("red kite ")
    desk.button("Mask selection").click()
    desk.reads("Mia had a ▢{2} in May.")
    gap = desk.page.locator(".nde-mirror .nde-gap")
    expect(gap).to_have_attribute("title", "Put “red kite” back")
    gap.click()
    desk.reads(TEXT)
    desk.button("Undo").click()
    desk.reads("Mia had a ▢{2} in May.")
    desk.button("Redo").click()
    desk.reads(TEXT)


def test_the_painted_gap_lies_on_the_gap_that_is_written(desk: Desk):
    desk.write("word " * 60 + "the red kite")
    desk.select("red")
    desk.button("Mask selection").click()
    desk.reads("word " * 60 + "the ▢ kite")
    sizes = desk.page.evaluate(
        "() => ['.nde-text', '.nde-mirror'].map((s) => { const n = document.querySelector(s); const c = getComputedStyle(n);"
        " return [n.clientWidth, n.scrollHeight, c.font, c.padding, c.whiteSpace]; })"
    )
    assert sizes[0] == sizes[1]


def test_lengths_by_buttons_and_fewer(desk: Desk):
    desk.write()
    desk.select("red kite")
    desk.button("Mask selection").click()
    desk.button("Lengthen gap 1").click()
    desk.reads("Mia had a ▢{3} in May.")
    desk.page.get_by_label("or fewer").check()
    desk.reads("Mia had a ▢{1,3} in May.")
    desk.button("Shorten gap 1").click()
    desk.reads("Mia had a ▢{1,2} in May.")
    desk.button("Put the text of gap 1 back").click()
    desk.reads(TEXT)


def test_everything_works_from_the_keyboard(desk: Desk):
    desk.write()
    desk.select("kite")
    desk.page.keyboard.press("Alt+m")
    desk.reads("Mia had a red ▢ in May.")
    desk.page.keyboard.type(" flying")
    desk.reads("Mia had a red ▢ flying in May.")
    desk.select("May")
    desk.page.keyboard.press("Control+m")
    desk.reads("Mia had a red ▢ flying in ▢.")
    desk.page.keyboard.press("Control+z")
    desk.reads("Mia had a red ▢ flying in May.")
    # With the caret in a gap the same key gives the text back.
    desk.page.evaluate("document.getElementById('e-text').setSelectionRange(15, 15)")
    desk.page.keyboard.press("Alt+m")
    desk.reads("Mia had a red kite flying in May.")


def test_a_gap_whose_length_is_written_by_hand_still_knows_its_text(desk: Desk):
    desk.write()
    desk.select("red kite")
    desk.button("Mask selection").click()
    desk.page.evaluate("document.getElementById('e-text').setSelectionRange(12, 13)")
    desk.page.keyboard.type("1,5")
    desk.reads("Mia had a ▢{1,5} in May.")
    desk.button("Put the text of gap 1 back").click()
    desk.reads(TEXT)


def test_a_gap_swallows_the_gaps_it_reaches_and_gives_all_of_it_back(desk: Desk):
    desk.write()
    desk.select("kite")
    desk.button("Mask selection").click()
    desk.reads("Mia had a red ▢ in May.")
    desk.select("a red ▢ in")
    desk.button("Mask selection").click()
    desk.reads("Mia had ▢{4} May.")
    desk.button("Put the text of gap 1 back").click()
    desk.reads(TEXT)


def test_fill_sends_the_template_and_its_answer_can_be_used_and_undone(desk: Desk):
    desk.write("a ▢ b")
    desk.button("Fill").click()
    assert desk.sent() == [["infill", {"prompt": "", "text": "a ▢ b", "pins": []}]]
    expect(desk.button("Fill")).to_be_disabled()
    desk.answer(kind="filled", text="a red b")
    desk.button("Use as text").click()
    desk.reads("a red b")
    desk.button("Undo").click()
    desk.reads("a ▢ b")


def test_a_refusal_is_said_and_nothing_is_lost(desk: Desk):
    desk.write("no gap")
    desk.button("Fill").click()
    desk.answer(kind="over", problem="the template has no gaps; write one.")
    expect(desk.page.locator(".nde-bad")).to_have_text("the template has no gaps; write one.")
    expect(desk.button("Fill")).to_be_enabled()
    desk.reads("no gap")


def test_a_schema_becomes_the_text_and_a_bad_one_is_refused(desk: Desk):
    desk.write("kept")
    desk.button("Paste JSON Schema").click()
    desk.page.get_by_label("JSON Schema", exact=True).fill("bad")
    desk.button("Make a skeleton").click()
    expect(desk.page.locator(".nde-bad")).to_contain_text("not JSON")
    desk.reads("kept")
    desk.page.get_by_label("JSON Schema", exact=True).fill("good")
    desk.button("Make a skeleton").click()
    desk.reads('{"a": "▢{1,3}"}')
    desk.button("Undo").click()
    desk.reads("kept")


def test_words_are_pinned_by_click_by_key_and_keep_their_place_when_text_is_written(desk: Desk):
    desk.revise()
    desk.button("Pin by click").click()
    desk.page.locator(".nde-word", has_text="Sunday").click()
    desk.select("garden")
    desk.page.keyboard.press("Alt+p")
    expect(desk.page.locator(".nde-mirror .nde-pinned")).to_have_text(["Sunday", "garden"])
    desk.page.evaluate("document.getElementById('e-text').setSelectionRange(0, 0)")
    desk.page.keyboard.type("😀 ")
    expect(desk.page.locator(".nde-mirror .nde-pinned")).to_have_text(["Sunday", "garden"])
    desk.page.locator(".nde-word", has_text="garden").click()
    desk.button("Propose changes").click()
    [[name, data]] = desk.sent()
    low, high = data["pins"][0]
    # As Python counts.
    assert name == "revise" and len(data["pins"]) == 1 and data["text"][low:high] == "Sunday"


def propose(desk: Desk) -> None:
    desk.revise()
    desk.button("Propose changes").click()
    desk.answer(kind="proposal", whole=True, draft=DRAFT, parts=PARTS)


def test_changes_are_taken_and_refused_one_by_one_and_the_refused_are_pinned(desk: Desk):
    propose(desk)
    expect(desk.page.locator(".nde-cause")).to_have_text(
        ["The causal pass gave “Sunday” 4.2 %, its choice no. 4 (step 2), and doubted it.", "No causal probability was recorded here."]
    )
    merged = desk.page.get_by_label("Merged text")
    expect(merged).to_have_text(DRAFT)
    desk.button("Accept change 1").click()
    desk.button("Reject change 2").click()
    expect(merged).to_have_text('{"day": "Friday", "place": "garden"}')
    desk.button("Revise again").click()
    desk.reads('{"day": "Friday", "place": "garden"}')
    name, data = desk.sent()[-1]
    [[low, high]] = data["pins"]
    assert name == "revise" and data["text"][low:high] == "garden"


def test_changes_are_decided_from_the_keyboard(desk: Desk):
    propose(desk)
    desk.page.locator(".nde-hunk").first.focus()
    for key in ("a", "ArrowDown", "r"):
        desk.page.keyboard.press(key)
    states = desk.page.locator(".nde-hunk").evaluate_all("rows => rows.map((r) => r.dataset.state)")
    assert states == ["accepted", "rejected"]
    assert [desk.button(f"{name} change {n}").get_attribute("aria-pressed") for n in (1, 2) for name in ("Accept", "Reject")] == ["true", "false", "false", "true"]
    expect(desk.page.locator(".nde-said")).to_have_text("Change 2 rejected; 0 undecided.")
    desk.button("Reject all").click()
    desk.button("Accept all").click()
    expect(desk.page.get_by_label("Merged text")).to_have_text('{"day": "Friday", "place": "market"}')


def test_without_a_run_to_revise_it_says_so(desk: Desk):
    desk.button("Revise a draft").click()
    desk.button("Revise this run").click()
    expect(desk.page.locator(".nde-bad")).to_contain_text("no run")


@pytest.mark.parametrize("width", [360, 1000])
def test_nothing_is_wider_than_the_page(desk: Desk, width: int):
    desk.page.set_viewport_size({"width": width, "height": 800})
    desk.write("x" * 300 + " ▢{1,3}")
    assert desk.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


