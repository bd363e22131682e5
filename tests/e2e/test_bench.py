"""Benchmark reports in a browser: those that come with nemodiff, one's own, and a file that is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from ui.benchmarks import shipped

CHARTS = ("nd-bench-speed", "nd-bench-split", "nd-bench-growth")


def wait(page: Page, chart: str, condition: str, argument: Any = None) -> None:
    page.wait_for_function(
        f"([id, a]) => {{ const c = window.__nemodiff?.charts?.[id]; return c && c.message && ({condition})(c, a); }}", arg=[chart, argument], timeout=90_000
    )


@pytest.fixture
def page(served: Any, new_page: Callable[..., Page]) -> Page:
    page = new_page(390, 844)
    page.goto(served.url + "?view=budget")
    wait(page, "nd-bench-table", "c => c.message.table")
    return page


def test_a_report_is_drawn_turned_and_replaced_by_ones_own(page: Page, tmp_path: Path):
    for chart in CHARTS:
        page.locator(f"#{chart}").scroll_into_view_if_needed()
        wait(page, chart, "c => c.drawn === c.seq")
    expect(page.locator("#nd-bench-table tbody tr")).to_have_count(len(next(iter(shipped().values())).table("decode").rows))
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    page.locator("#nd-bench-which input").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    wait(page, "nd-bench-table", "c => c.message.table.caption === 'Where the time goes'")

    report = json.loads(next(iter(shipped().values())).to_json())
    report["tables"] = [table for table in report["tables"] if table["name"] == "decode"]
    report["tables"][0]["rows"] = report["tables"][0]["rows"][:1]
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps(report))
    page.locator("#nd-bench-card input[type=file]").set_input_files(mine)
    expect(page.locator("#nd-bench-table tbody tr")).to_have_count(1, timeout=60_000)
    assert "nemodiff bench scale" in page.evaluate("window.__nemodiff.charts['nd-bench-growth'].message.note")

    other = tmp_path / "other.json"
    other.write_text('{"schema": "nemodiff.trace/2"}')
    page.locator("#nd-bench-card input[type=file]").set_input_files(other)
    expect(page.locator("#nd-notice")).to_contain_text("choose one that nemodiff bench wrote", timeout=60_000)
    expect(page.locator("#nd-bench-table tbody tr")).to_have_count(1)
