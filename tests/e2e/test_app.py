"""What a visitor does, in a real browser, against the bundled model."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Download, Page, expect

from nemodiff_core.request import parse_request
from tests.browser import tabs
from ui import files
from ui.examples import examples

PLAYER = "nd-player"
PROMPT = "Sort the list 2, 79, 87, 56"
LABELS = {"ar": "Autoregressive", "diffusion": "Block diffusion", "linear_spec": "Self-speculation"}
# What is on the page once a view is.
SHOWS = {
    "Refine": "#nd-run", "Race": "#nd-race-add", "Speculate": "#nd-beside", "Budget": "#nd-plane .js-plotly-plot",
    "Edit": "#nd-editor textarea, #nd-editor [contenteditable]", "Learn": "#nd-course button",
}  # fmt: skip


class Screen:
    """The page as a visitor uses it."""

    def __init__(self, page: Page, url: str, query: str = "") -> None:
        self.page = page
        page.goto(url + query)
        self.wait("p => p.run")

    def state(self, expression: str = "p => p") -> Any:
        """Something about the player, as it tells tests."""
        return self.page.evaluate(f"(({expression}))(window.__nemodiff.players['{PLAYER}'])")

    def wait(self, condition: str, argument: Any = None, timeout: float = 60_000) -> None:
        self.page.wait_for_function(
            f"(a) => {{ const p = window.__nemodiff && window.__nemodiff.players['{PLAYER}']; return p && ({condition})(p, a); }}",
            arg=argument, timeout=timeout,
        )  # fmt: skip

    def fill(self, name: str, value: Any) -> None:
        box = self.page.locator(f"#nd-{name} textarea, #nd-{name} input[type=number]").first
        box.fill(str(value))
        box.blur()

    def choose(self, name: str, label: str) -> None:
        self.page.locator(f"#nd-{name}").get_by_label(label, exact=True).check()

    def turn(self, view: str) -> None:
        """Choose a view; wait until what it shows is there."""
        self.choose("view", view)
        expect(self.page.locator(SHOWS[view]).first).to_be_visible(timeout=90_000)

    def begin(self) -> str:
        """Press Run or Race; returns the new run's id once the player has it."""
        before = self.state("p => p.run")
        self.page.locator("#nd-run").click()
        self.wait("(p, before) => p.run !== before", before)
        return self.state("p => p.run")

    def finish(self) -> None:
        """Wait until the buttons say that the run is over."""
        expect(self.page.locator("#nd-run")).to_be_enabled(timeout=120_000)

    def ask(self, mode: str, tokens: int = 24, prompt: str = PROMPT) -> None:
        self.fill("prompt", prompt)
        self.fill("length", tokens)
        self.choose("mode", LABELS[mode])

    def save(self) -> Download:
        with self.page.expect_download() as download:
            self.page.locator("#nd-save").click()
        return download.value

    def open(self, path: Path) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.page.locator("#nd-open").click()
        chooser.value.set_files(path)


@pytest.fixture
def screen(served: Any, new_page: Callable[..., Page]) -> Screen:
    return Screen(new_page(), served.url)


@pytest.fixture(scope="module")
def opened(served: Any) -> Iterator[Screen]:
    with tabs() as open_tab:
        yield Screen(open_tab(), served.url)


@pytest.fixture
def same_screen(opened: Screen) -> Screen:
    """One page for all tests that begin no run and keep to the view: to load it takes longer than they do."""
    opened.page.bring_to_front()
    return opened


def engines_answer(served: Any, **fields: Any) -> tuple[list[int], str]:
    """What the engine behind the page answers to the same request: ids and readable text."""
    run = served.engine.run(parse_request(fields))
    for _ in run:
        pass
    ids = list(run.trace().output.ids)
    run.close()
    return ids, served.engine.text(ids)


def saved_trace(screen: Screen, folder: Path) -> Path:
    download = screen.save()
    path = folder / download.suggested_filename
    download.save_as(path)
    return path


def test_the_page_opens_on_a_recorded_run_that_plays(served: Any, new_page: Callable[..., Page]):
    page = new_page()
    page.goto(served.url, wait_until="commit")
    # On a slow machine the run may be over before the page's own player takes it from the first picture.
    playing = "p.run === 'recorded-refine' && p.playing && p.step >= 2"
    page.wait_for_function(f"Object.values(window.__nemodiff?.players ?? {{}}).some((p) => {playing})")
    page.wait_for_function(f"window.__nemodiff.players['{PLAYER}']?.run === 'recorded-refine'")


def test_the_status_line_says_what_runs_where(served: Any, same_screen: Screen):
    about = served.engine.describe()
    expect(same_screen.page.locator("#nd-status")).to_contain_text(about["id"])
    expect(same_screen.page.locator("#nd-status")).to_contain_text(f"{about['dtype']} · {about['device']}")


@pytest.mark.parametrize("mode", list(LABELS))
def test_a_run_ends_with_the_engines_own_text(mode: str, served: Any, screen: Screen):
    screen.ask(mode)
    screen.begin()
    screen.finish()
    fields = {"prompt": PROMPT, "mode": mode, "max_new_tokens": 24, "candidates": 5}
    ids, text = engines_answer(served, **fields)
    screen.wait("(p, ids) => p.complete && JSON.stringify(p.output) === JSON.stringify(ids)", ids)
    assert screen.state("p => p.text") == text
    assert text in screen.page.locator(f"#{PLAYER} .ndp-prose").first.text_content()


def test_stop_ends_a_run_midway_and_keeps_what_was_written(served: Any, screen: Screen):
    screen.ask("ar", tokens=1000)
    screen.page.locator("#nd-eos input").uncheck()
    with served.held(after=8):
        screen.begin()
        screen.wait("p => p.steps >= 1")
        screen.page.locator("#nd-stop").dispatch_event("click")
    screen.finish()
    screen.wait("p => p.complete")
    written = screen.state("p => p.output")
    assert 1 <= len(written) < 1000
    expect(screen.page.locator("#nd-prompt textarea")).to_have_value(PROMPT)
    ids, _ = engines_answer(served, prompt=PROMPT, mode="ar", max_new_tokens=len(written), stop_at_eos=False)
    assert written == ids
    screen.page.locator("#nd-eos input").check()
    screen.ask("ar", tokens=4)  # the device is free again
    screen.begin()
    screen.finish()


def test_scrubbing_back_shows_the_beginning_again(same_screen: Screen):
    player = same_screen.page.locator(f"#{PLAYER}")
    player.get_by_label("To the end (End)").click()
    same_screen.wait("p => !p.playing && p.step === p.steps - 1")
    whole = same_screen.state("p => p.output")
    player.get_by_role("slider", name="Step").fill("1")
    same_screen.wait("p => p.step === 0")
    same_screen.wait("(p, n) => p.output.length < n", len(whole))
    player.get_by_label("To the start (Home)").click()
    same_screen.wait("p => p.step === -1")
    assert same_screen.state("p => p.output") == []
    player.get_by_label("To the end (End)").click()
    same_screen.wait("(p, ids) => JSON.stringify(p.output) === JSON.stringify(ids)", whole)


def test_a_second_visitor_waits_and_then_runs(served: Any, screen: Screen, new_page: Callable[..., Page]):
    screen.ask("ar", tokens=1000)
    screen.page.locator("#nd-eos input").uncheck()
    with served.held(after=8):
        screen.begin()
        other = Screen(new_page(), served.url)
        other.ask("ar", tokens=4)
        other.page.locator("#nd-run").click()
        expect(other.page.locator("#nd-notice")).to_contain_text("1 run is ahead")
        assert other.state("p => p.run") == "recorded-refine"
        screen.page.locator("#nd-stop").dispatch_event("click")
    screen.finish()
    other.finish()
    other.wait("p => p.complete && p.run !== 'recorded-refine'")
    expect(other.page.locator("#nd-notice")).to_have_text("")
    assert len(other.state("p => p.output")) == 4


def test_a_race_runs_all_modes_and_proves_the_identity(served: Any, screen: Screen):
    screen.choose("view", "Race")
    screen.wait("p => p.run === 'recorded-race'")
    expect(screen.page.locator("#nd-mode")).to_be_hidden()
    screen.fill("prompt", PROMPT)
    screen.fill("length", 24)
    screen.begin()
    screen.finish()
    screen.wait("p => p.complete && p.lanes.length === 3")
    assert screen.state("p => p.lanes.map(l => l.mode)") == ["ar", "diffusion", "linear_spec"]
    assert screen.state("p => p.identical") == {"to_lane": 0, "same": True, "first_divergence": None}
    screen.page.locator(f"#{PLAYER}").get_by_label("To the end (End)").click()
    expect(screen.page.locator(f"#{PLAYER}")).to_contain_text(re.compile(r"identical to AR · \d+/\d+ tokens"))
    ids, _ = engines_answer(served, prompt=PROMPT, mode="ar", max_new_tokens=24)
    screen.wait("p => p.lanes.every(l => l.done)")
    lanes = screen.state("p => p.lanes.map(l => l.output)")
    assert lanes[0] == lanes[2] == ids
    screen.choose("view", "Refine")
    screen.wait("p => p.run === 'recorded-refine'")


def test_a_saved_run_opens_again_for_another_visitor(served: Any, screen: Screen, new_page: Callable[..., Page], tmp_path: Path):
    screen.ask("diffusion")
    run = screen.begin()
    screen.finish()
    screen.wait("p => p.complete")
    path = saved_trace(screen, tmp_path)
    (trace,) = files.read(path)
    assert trace.request["prompt"] == PROMPT
    visitor = Screen(new_page(), served.url)
    visitor.open(path)
    visitor.wait("p => p.run !== 'recorded-refine' && p.complete")
    assert visitor.state("p => p.run") != run
    visitor.page.locator(f"#{PLAYER}").get_by_label("To the end (End)").click()
    visitor.wait("(p, ids) => JSON.stringify(p.output) === JSON.stringify(ids)", list(trace.output.ids))


def test_a_saved_race_opens_as_a_race(screen: Screen, tmp_path: Path):
    screen.choose("view", "Race")
    screen.wait("p => p.run === 'recorded-race'")
    path = saved_trace(screen, tmp_path)
    screen.choose("view", "Refine")
    screen.wait("p => p.run === 'recorded-refine'")
    screen.open(path)
    screen.wait("p => p.lanes.length === 3 && p.complete && p.run !== 'recorded-race'")
    expect(screen.page.locator("#nd-view").get_by_label("Race")).to_be_checked()


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"hello", "not JSON"), (b'{"schema":"nemodiff.trace/9"}', "nemodiff.trace/9"), (gzip.compress(b"{}", mtime=0)[:-6], "ends too early")],
)
def test_a_broken_file_is_refused_with_a_sentence(content: bytes, says: str, same_screen: Screen, tmp_path: Path):
    path = tmp_path / "broken.json.gz"
    path.write_bytes(content)
    same_screen.open(path)
    expect(same_screen.page.locator("#nd-notice [role=alert]")).to_contain_text(says)
    assert same_screen.state("p => p.run") == "recorded-refine"


def test_hostile_texts_are_shown_and_never_run(screen: Screen, tmp_path: Path):
    evil = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>{{value}}${window.hacked=1}"
    data = json.loads(gzip.decompress(saved_trace(screen, tmp_path).read_bytes()))
    data["vocabulary"] = dict.fromkeys(data["vocabulary"], evil)
    for part in ("prompt", "output"):
        data[part]["pieces"] = [evil] * len(data[part]["ids"])
    data["model"]["id"] = data["request"]["prompt"] = evil
    path = tmp_path / "evil.json"
    path.write_text(json.dumps(data), "utf-8")
    screen.open(path)
    screen.wait("p => p.run !== 'recorded-refine' && p.complete")
    player = screen.page.locator(f"#{PLAYER}")
    player.get_by_label("To the end (End)").click()
    expect(player.locator(".ndp-prose").first).to_contain_text("<img src=x")
    player.locator(".ndp-cell").first.click()
    assert player.locator("img, script").count() == 0
    assert screen.page.evaluate("window.hacked") is None


@pytest.mark.parametrize(("prompt", "says"), [("", "prompt is empty"), ("x" * 25_000, "shorten it")])
def test_a_refused_request_says_why_and_keeps_the_prompt(prompt: str, says: str, same_screen: Screen):
    same_screen.fill("prompt", prompt)
    same_screen.page.locator("#nd-run").click()
    expect(same_screen.page.locator(f"#nd-notice, #{PLAYER}").filter(has_text=says).first).to_be_visible()
    same_screen.finish()
    expect(same_screen.page.locator("#nd-prompt textarea")).to_have_value(prompt)


def test_examples_fill_the_prompt(same_screen: Screen):
    box = same_screen.page.locator("#nd-prompt textarea")
    before = box.input_value()
    same_screen.page.locator("#nd-another").click()
    expect(box).not_to_have_value(before)
    same_screen.page.locator("#nd-task input").click()
    same_screen.page.get_by_role("option").nth(1).click()
    expect(box).to_have_value(examples()[1][1][0])


@pytest.mark.parametrize("view", ["Refine", "Race"])
def test_a_phone_never_scrolls_sideways(view: str, served: Any, new_page: Callable[..., Page]):
    screen = Screen(new_page(390, 844), served.url)
    screen.choose("view", view)
    screen.wait("(p, view) => p.view === view && p.complete", view.lower())
    screen.page.locator(f"#{PLAYER}").get_by_label("To the end (End)").click()
    assert screen.page.evaluate("document.documentElement.scrollWidth") <= 390
    inside = "e => [...e.querySelectorAll('*')].filter(x => x.getBoundingClientRect().right > 391 && !x.closest('[data-scrolls]')).length"
    assert screen.page.locator("#nd-head").evaluate(inside) == 0


def test_everything_works_from_the_keyboard(screen: Screen):
    page = screen.page

    def tab_to(inside: str) -> None:
        for _ in range(80):
            if page.evaluate("s => Boolean(document.activeElement && document.activeElement.closest(s))", inside):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {inside}")

    tab_to("#nd-prompt")
    page.keyboard.press("Control+a")
    page.keyboard.type(PROMPT)
    tab_to("#nd-run")
    before = screen.state("p => p.run")
    page.keyboard.press("Enter")
    screen.wait("(p, before) => p.run !== before", before)
    screen.finish()
    screen.wait("p => p.complete")
    tab_to(f"#{PLAYER}")
    page.keyboard.press("Home")
    screen.wait("p => p.step === -1")
    page.keyboard.press("ArrowRight")
    screen.wait("p => p.step === 0")
    page.keyboard.press("End")
    screen.wait("p => p.step === p.steps - 1")


def test_reduced_motion_opens_still(served: Any, new_page: Callable[..., Page]):
    screen = Screen(new_page(reduced_motion="reduce"), served.url)
    screen.wait("p => p.complete && p.step === p.steps - 1")
    assert not screen.state("p => p.playing")


def test_only_the_pages_own_script_is_served(served: Any, same_screen: Screen):
    answer = same_screen.page.request.get(served.url + "nemodiff/page.js")
    assert answer.ok and answer.headers["content-type"].startswith("text/javascript")
    for path in ("nemodiff/%2e%2e/app.py", "nemodiff/player/player.js", "nemodiff/", "nemodiff/traces/guess"):
        assert same_screen.page.request.get(served.url + path).status == 404, path


def test_screenshot_for_the_readme(served: Any, new_page: Callable[..., Page], tmp_path: Path):
    """With NEMODIFF_SCREENSHOT set, docs/screenshot.png is made again; else the picture is thrown away."""
    screen = Screen(new_page(1440, 960), served.url, "?__theme=light")
    screen.wait("p => p.complete")
    middle = screen.state("p => Math.round(p.steps * 0.45)")
    screen.page.locator(f"#{PLAYER}").get_by_role("slider", name="Step").focus()
    screen.page.keyboard.press("Home")
    for _ in range(middle):
        screen.page.keyboard.press("ArrowRight")
    screen.wait("(p, middle) => p.step === middle - 1", middle)
    expect(screen.page.locator("#nd-status .nd-ready")).to_be_visible(timeout=120_000)
    asked = os.environ.get("NEMODIFF_SCREENSHOT")
    path = (Path(__file__).parents[2] / "docs" if asked else tmp_path) / "screenshot.png"
    path.parent.mkdir(exist_ok=True)
    screen.page.mouse.move(0, 0)
    # Text that has just appeared still fades in.
    screen.page.evaluate(
        "Promise.all(document.getAnimations().filter((a) => a.effect.getTiming().iterations !== Infinity).map((a) => a.finished))"
    )
    screen.page.screenshot(path=path)
    assert path.stat().st_size > 20_000
