"""The Budget view as a visitor uses it: recorded points, a sweep of one's own, a point's trace, the roofline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser import tabs

CHARTS = ("nd-plane", "nd-roof", "nd-sweep-table", "nd-runs")


class Board:
    """The Budget view in a browser."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(url + "?view=budget")
        for chart in CHARTS:
            self.wait(chart, "c => c.message")
        self.wait("nd-plane", "c => c.drawn")

    def wait(self, chart: str, condition: str, argument: Any = None) -> None:
        self.page.wait_for_function(
            f"([id, a]) => {{ const c = window.__nemodiff?.charts?.[id]; return c && ({condition})(c, a); }}", arg=[chart, argument], timeout=90_000
        )

    def get(self, chart: str, expression: str) -> Any:
        return self.page.evaluate(f"(id) => (({expression}))(window.__nemodiff.charts[id])", chart)

    def tick(self, group: str, *wanted: str) -> None:
        """Leave exactly these boxes of a group checked."""
        for box in self.page.locator(f"#nd-sweep-{group} label").all():
            box.locator("input").set_checked(box.inner_text().strip() in wanted)

    def host(self) -> None:
        """The roofline of this machine for the checkpoint that is loaded."""
        self.page.locator("#nd-roof-model input").click()
        self.page.get_by_role("option").first.click()
        self.page.locator("#nd-roof-device input").click()
        self.page.get_by_role("option", name="This host").click()
        self.wait("nd-roof", "c => c.message.note.includes('(measured)')")

    def prompts(self, count: int) -> None:
        box = self.page.locator("#nd-sweep-prompts input[type=number]")
        box.fill(str(count))
        box.blur()


@pytest.fixture
def board(served: Any, new_page: Callable[..., Page]) -> Board:
    return Board(new_page(), served.url)


@pytest.fixture(scope="module")
def opened(served: Any) -> Iterator[Board]:
    with tabs() as open_tab:
        yield Board(open_tab(), served.url)


@pytest.fixture
def same_board(opened: Board) -> Board:
    """One board for all tests that begin no sweep."""
    opened.page.bring_to_front()
    return opened


def player(page: Page) -> dict[str, Any]:
    return page.evaluate("window.__nemodiff.players['nd-player']")


def test_recorded_points_are_there_before_any_run(same_board: Board):
    same_board.wait("nd-plane", "c => c.drawn === c.seq")
    assert same_board.get("nd-plane", "c => c.message.points") > 5
    assert "Recorded" in same_board.get("nd-plane", "c => c.message.note")
    rows = same_board.page.locator("#nd-sweep-table tbody tr")
    assert rows.count() >= same_board.get("nd-plane", "c => c.message.points")


def test_a_row_opens_its_runs_and_a_run_opens_in_the_player(same_board: Board):
    same_board.page.locator("#nd-sweep-table").get_by_role("button", name="Runs: Threshold").first.click()
    expect(same_board.page.locator("#nd-runs .ndc-caption")).to_contain_text("Threshold")
    before = player(same_board.page)["run"]
    same_board.page.locator("#nd-runs .ndc-open").first.press("Enter")
    same_board.page.wait_for_function("(before) => window.__nemodiff.players['nd-player'].run !== before", arg=before)
    same_board.page.wait_for_function("window.__nemodiff.players['nd-player'].complete")
    expect(same_board.page.locator("#nd-player")).to_be_in_viewport()


def test_a_sweep_fills_the_plane_and_its_points_open(served: Any, board: Board):
    expect(board.page.locator("#nd-status .nd-ready")).to_be_visible(timeout=120_000)
    board.tick("modes", "Autoregressive", "Self-speculation")
    board.tick("families", "Worked arithmetic")
    board.prompts(2)
    expect(board.page.locator("#nd-sweep-progress")).to_contain_text("2 settings on 2 prompts: 4 runs")
    board.host()
    board.page.locator("#nd-sweep-run").click()
    board.wait("nd-plane", "c => c.message.note.startsWith('Measured here') && c.message.points === 2")
    expect(board.page.locator("#nd-sweep-run")).to_be_enabled(timeout=90_000)
    expect(board.page.locator("#nd-sweep-progress")).to_contain_text("4 runs in")
    measured = "c => c.message.figures[0].data.filter((d) => d.name.endsWith(', measured')).flatMap((d) => d.x).length"
    board.wait("nd-roof", f"c => ({measured})(c) === 2")
    board.wait("nd-plane", "c => c.drawn === c.seq")
    marks = board.page.locator("#nd-plane .scatterlayer .point")
    box = marks.last.bounding_box()
    board.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(board.page.locator("#nd-runs tbody tr")).to_have_count(2)
    before = player(board.page)["run"]
    board.page.locator("#nd-runs .ndc-open").first.click()
    board.page.wait_for_function("(before) => window.__nemodiff.players['nd-player'].run !== before", arg=before)
    with board.page.expect_download() as download:
        board.page.locator("#nd-sweep-table").get_by_role("link", name="Runs as CSV").click()
    assert len(download.value.path().read_text().splitlines()) == 5


def test_stop_keeps_what_there_is(served: Any, board: Board):
    expect(board.page.locator("#nd-status .nd-ready")).to_be_visible(timeout=120_000)
    board.tick("modes", "Autoregressive", "Self-speculation")
    board.prompts(6)
    with served.held(after=150):  # enough for a first point, not for all of them
        board.page.locator("#nd-sweep-run").click()
        board.wait("nd-plane", "c => c.message.note.startsWith('Measured here') && c.message.points >= 1")
        board.page.locator("#nd-sweep-stop").click()
    expect(board.page.locator("#nd-sweep-progress")).to_contain_text("Stopped:", timeout=90_000)
    expect(board.page.locator("#nd-sweep-run")).to_be_enabled()
    expect(board.page.locator("#nd-sweep-table tbody tr")).not_to_have_count(0)
    assert not served.engine._device.locked()


def test_what_cannot_run_cannot_be_started(same_board: Board):
    same_board.tick("modes")
    expect(same_board.page.locator("#nd-sweep-progress")).to_contain_text("Choose at least one mode")
    expect(same_board.page.locator("#nd-sweep-run")).to_be_disabled()


def test_the_roofline_follows_its_controls(served: Any, same_board: Board):
    stop = same_board.get("nd-roof", "c => c.message.figures_at.stops.linear_spec")
    box = same_board.page.locator("#nd-roof-tpf input[type=number]")
    box.fill("8")
    box.blur()
    same_board.wait("nd-roof", "(c, stop) => c.message.figures_at && c.message.figures_at.stops.linear_spec > stop", stop)
    assert served.engine
    same_board.host()


@pytest.mark.parametrize("width", [390, 1440])
def test_the_board_never_scrolls_sideways(width: int, served: Any, new_page: Callable[..., Page]):
    board = Board(new_page(width, 844), served.url)
    board.wait("nd-plane", "c => c.drawn === c.seq")
    assert board.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_plotly_is_served_from_here_once_and_for_good(served: Any, same_board: Board):
    answer = same_board.page.request.get(served.url + "nemodiff/plotly.min.js")
    assert answer.ok and answer.headers["content-type"].startswith("text/javascript") and "immutable" in answer.headers["cache-control"]
    assert same_board.page.request.get(served.url + "nemodiff/sweeps/guess.csv").status == 404
