"""The Learn view in a browser: a whole lesson, a link to a moment, presenter mode, a card of the gallery."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from ui import lessons
from ui.lessons import Library

COURSE = lessons.course()
LIBRARY = Library()
LESSON = "03-cells-that-never-met"
HANDLE = "window.__nemodiff.handles['nd-player']"
LOADING_MS = 60_000  # a whole page, on a busy machine


class Class:
    """The page as a learner uses it."""

    def __init__(self, page: Page, url: str, query: str = "") -> None:
        self.page = page
        page.goto(f"{url}?view=learn{query}")
        self.lessons = page.locator("#nd-course .ndl")
        self.ready()

    def ready(self) -> None:
        """Wait until player and lessons are there."""
        there = f"() => window.__nemodiff && window.__nemodiff.handles && {HANDLE} && window.__nemodiff.lessons"
        self.page.wait_for_function(there, timeout=LOADING_MS)
        expect(self.lessons.locator(".ndl-entry, .ndl-heading").first).to_be_visible(timeout=LOADING_MS)

    def reload(self) -> None:
        self.page.reload()
        self.ready()

    @property
    def seen(self) -> dict[str, Any]:
        return self.page.evaluate(f"() => {HANDLE}.selection")

    @property
    def place(self) -> dict[str, Any]:
        return self.page.evaluate("() => window.__nemodiff.lessons.place")

    def sees(self, run: str, step: int, position: int | None = None) -> None:
        self.page.wait_for_function(
            f"(w) => {{ const s = {HANDLE}.selection; return s.run === w.run && s.step === w.step && s.position === w.position; }}",
            arg={"run": f"recorded-{run}", "step": step, "position": position},
        )


@pytest.fixture
def open_class(served: Any, new_page: Callable[..., Page]) -> Callable[..., Class]:
    return lambda query="", **options: Class(new_page(**options), served.url, query)


def parts(lesson: str) -> list[dict[str, Any]]:
    return next(found for found in COURSE["lessons"] if found["id"] == lesson)["parts"]


def position(show: dict[str, Any]) -> int | None:
    first = len(LIBRARY.run(show["run"].removeprefix("recorded-")).trace.prompt.ids)
    return None if show["cell"] is None else first + show["cell"]


def answer(room: Class, asked: dict[str, Any]) -> None:
    """Answer as the trace does; choices wrong first."""
    box = room.lessons.locator(".ndl-question")
    if asked["kind"] == "choice":
        wrong = next(i for i, choice in enumerate(asked["choices"]) if not choice["right"])
        right = next(i for i, choice in enumerate(asked["choices"]) if choice["right"])
        box.locator(".ndl-choice").nth(wrong).click()
        expect(box.locator(".ndl-said")).to_contain_text("The trace says otherwise.")
        box.locator(".ndl-choice").nth(right).click()
    elif asked["kind"] == "number":
        box.locator("input").fill(asked["answer"])
        box.get_by_role("button", name="Check").click()
    else:
        what = {"step": asked["step"], **({"position": asked["position"]} if asked["kind"] == "cell" else {})}
        room.page.evaluate(f"(what) => {HANDLE}.select(what)", what)
        if asked["kind"] == "step":
            box.get_by_role("button", name="Check this step").click()
    expect(box).to_have_attribute("data-solved", "found")
    expect(box.locator(".ndl-said")).to_contain_text("Yes.")


def test_a_learner_walks_through_a_whole_lesson(open_class: Callable[..., Class]):
    room = open_class()
    expect(room.lessons.locator(".ndl-entry")).to_have_count(len(COURSE["lessons"]))
    room.lessons.locator(f"[data-lesson='{LESSON}']").click()
    told = parts(LESSON)
    for number, part in enumerate(told, 1):
        expect(room.lessons.locator(".ndl-where")).to_have_text(f"part {number} of {len(told)}")
        expect(room.lessons.locator(".ndl-heading")).to_have_text(part["heading"])
        if part["show"]:
            room.sees(part["show"]["run"].removeprefix("recorded-"), part["show"]["step"], position(part["show"]))
        if part["question"]:
            answer(room, part["question"])
        if number == 4:
            expect(room.lessons.locator("math")).to_have_count(1)
        room.lessons.locator(".ndl-next").click()
    expect(room.lessons.locator(f"[data-lesson='{LESSON}']")).to_have_attribute("data-state", "done")
    room.reload()
    expect(room.lessons.locator(f"[data-lesson='{LESSON}'] .ndl-entry-state")).to_contain_text("done")


def test_a_number_is_judged_by_the_trace_and_shown_on_request(open_class: Callable[..., Class]):
    lesson = "04-block-and-cache"
    number, part = next((i, p) for i, p in enumerate(parts(lesson), 1) if p["question"] and p["question"]["kind"] == "number")
    room = open_class(f"&lesson={lesson}&part={number}")
    box = room.lessons.locator(".ndl-question")
    box.locator("input").fill("77")
    box.locator("input").press("Enter")
    expect(box.locator(".ndl-said")).to_contain_text("The trace says otherwise.")
    box.get_by_role("button", name="Show the answer").click()
    expect(box.locator(".ndl-said")).to_contain_text(f"The answer is {part['question']['answer']}.")


def test_a_link_opens_a_recorded_run_at_its_step_and_cell(open_class: Callable[..., Class]):
    card = next(card for card in COURSE["gallery"] if card["name"] == "wrong-commit")
    room = open_class(f"&trace={card['trace']}&step={card['step']}&cell={card['cell']}")
    first = len(LIBRARY.run(card["trace"]).trace.prompt.ids)
    room.sees(card["trace"], card["step"] - 1, first + card["cell"] - 1)
    expect(room.lessons.locator("[data-card='wrong-commit']")).to_have_attribute("aria-pressed", "true")


def test_a_card_of_the_gallery_opens_its_moment_and_names_it_in_the_address(open_class: Callable[..., Class]):
    room = open_class()
    card = next(card for card in COURSE["gallery"] if card["name"] == "revision")
    button = room.lessons.locator("[data-card='revision']")
    expect(button).to_contain_text(card["sentence"])
    button.click()
    room.sees(card["trace"], card["step"] - 1, len(LIBRARY.run(card["trace"]).trace.prompt.ids) + card["cell"] - 1)
    assert room.seen["panel"] == card["panel"]
    assert f"trace={card['trace']}&step={card['step']}" in room.page.url
    room.reload()
    room.sees(card["trace"], card["step"] - 1, len(LIBRARY.run(card["trace"]).trace.prompt.ids) + card["cell"] - 1)


def test_the_end_of_a_lane_is_the_end_of_all(open_class: Callable[..., Class]):
    room = open_class()
    room.lessons.locator("[data-card='lossless']").click()
    room.sees("story", len(LIBRARY.run("story/2").trace.steps) - 1)
    assert room.seen["lane"] == 1
    assert room.page.evaluate("() => window.__nemodiff.players['nd-player'].lanes.every((lane) => lane.done)")


def test_presenter_mode_by_keyboard(open_class: Callable[..., Class]):
    room = open_class(f"&lesson={LESSON}&part=2")
    keys = room.page.keyboard
    room.lessons.locator(".ndl-next").focus()
    keys.press("f")
    expect(room.page.locator("#nd-head")).to_be_hidden()
    room.page.set_viewport_size({"width": 1280, "height": 720})  # a projector
    expect(room.page.locator("#nd-player .ndp-range")).to_be_in_viewport(ratio=1)
    expect(room.page.locator("#nd-player .ndp-cell").nth(15)).to_be_in_viewport(ratio=0.5)
    assert room.place == {"lesson": LESSON, "part": 1, "presenting": True}
    keys.press("n")
    shown = parts(LESSON)[2]["show"]
    room.sees("sum-careless", shown["step"], position(shown))
    keys.press("ArrowLeft")
    room.sees("sum-careless", shown["step"] - 1, position(shown))
    expect(room.lessons.locator(".ndl-notes")).to_be_hidden()
    keys.press("t")
    expect(room.lessons.locator(".ndl-notes")).to_contain_text("Aim:")
    keys.press("PageUp")
    assert room.place["part"] == 1
    keys.press("Escape")
    expect(room.page.locator("#nd-head")).to_be_visible()
    assert not room.place["presenting"]


def test_try_it_yourself_brings_prompt_and_settings_to_the_live_view(open_class: Callable[..., Class]):
    room = open_class(f"&lesson={LESSON}&part=3")
    room.lessons.get_by_text("Try it yourself").click()
    expect(room.page.locator("#nd-prompt textarea")).to_have_value(LIBRARY.run("sum-careless").trace.request["prompt"], timeout=LOADING_MS)
    expect(room.page.locator("#nd-threshold input[type=number]")).to_have_value("0.5")


def test_lessons_fit_a_phone(open_class: Callable[..., Class]):
    room = open_class(f"&lesson={LESSON}&part=4", width=390, height=844)
    expect(room.lessons.locator("math").first).to_be_visible()
    assert room.page.evaluate("() => document.documentElement.scrollWidth") <= 390
    text, player = room.lessons.bounding_box(), room.page.locator("#nd-player").bounding_box()
    assert text["y"] < player["y"], "the lesson comes before the player"
    room.page.locator("#nd-player").evaluate("e => e.scrollIntoView()")
    expect(room.page.locator("#nd-player .ndp-play")).to_be_in_viewport(ratio=1)  # the transport stays at hand
