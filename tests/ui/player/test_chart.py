"""The chart on a bare page: plotly.js comes late, colours follow the theme, the table says the same and can be sorted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser import tabs
from ui.chart_component import plotly_bundle

PLOTLY = "/nemodiff/plotly.min.js"


def point(key: str, x: float, y: float, look: str = "--ndc-ar") -> dict[str, Any]:
    return {"type": "scatter", "mode": "markers", "name": key, "x": [x], "y": [y], "customdata": [key], "marker": {"color": look, "size": 14}}


def content(seq: int = 1, **more: Any) -> dict[str, Any]:
    rows = [
        {"key": key, "look": ["--ndc-ar", "diamond"], "cells": [key, str(value)], "order": [key, value]}
        for key, value in (("one", 9.0), ("two", 10.0), ("three", None))
    ]
    figures = [{"name": name, "data": [point("one", 1, 50), point("two", 3, 80)], "layout": {}} for name in ("Forwards", "Seconds")]
    table = {"caption": "Settings", "columns": ["Setting", "TPF"], "rows": rows, "action": "Runs", "downloads": [{"name": "CSV", "path": "/x.csv"}]}
    return {"seq": seq, "figures": figures, "table": table, "note": "a note", "summary": "two points", **more}


@pytest.fixture
def new_page() -> Iterator[Callable[..., Page]]:
    with tabs() as open_tab:
        yield open_tab


@pytest.fixture
def page(new_page: Callable[..., Page], player_url: str) -> Page:
    page = new_page(900, 700)
    page.route(f"**{PLOTLY}", lambda route: route.fulfill(path=plotly_bundle(), content_type="text/javascript"))
    page.goto(player_url)
    page.add_style_tag(url="/player/chart.css")
    page.evaluate(
        """async (plotly) => {
          const { mount } = await import('/player/chart.js');
          window.picked = [];
          window.chart = mount(document.getElementById('root'), { id: 'c', plotly, send: (key) => window.picked.push(key) });
        }""",
        PLOTLY,
    )
    return page


def show(page: Page, message: dict[str, Any]) -> None:
    page.evaluate("(text) => window.chart.receive(text)", json.dumps(message))


def drawn(page: Page, seq: int) -> None:
    page.wait_for_function("(seq) => window.__nemodiff.charts.c.drawn === seq", arg=seq)


def colour(page: Page) -> str:
    return page.evaluate("document.querySelector('.ndc-plot').data[0].marker.color")


def test_plotly_is_fetched_only_for_a_chart_that_is_in_sight(page: Page):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    show(page, {**content(), "figures": []})
    expect(page.locator(".ndc-table tbody tr")).to_have_count(3)
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert not asked
    show(page, content(2))
    drawn(page, 2)
    assert [url for url in asked if url.endswith(PLOTLY)]
    expect(page.locator(".ndc-plot")).to_have_attribute("aria-label", "two points")


def test_a_point_that_is_clicked_is_told_and_marked_in_the_table(page: Page):
    show(page, content())
    drawn(page, 1)
    box = page.locator(".ndc-plot .scatterlayer .point").nth(1).bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_function("window.picked.length === 1")
    assert page.evaluate("window.picked") == ["two"]
    expect(page.locator("tr[aria-current]")).to_contain_text("two")


def test_the_keyboard_does_the_same(page: Page):
    show(page, content())
    page.get_by_role("button", name="Runs: one").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("window.picked") == ["one"]


def test_the_table_sorts_and_keeps_the_focus(page: Page):
    show(page, content())
    names = page.locator("tbody .ndc-name")
    expect(names).to_have_text(["one", "two", "three"])
    page.get_by_role("button", name="TPF").click()
    expect(names).to_have_text(["two", "one", "three"])
    page.get_by_role("button", name="TPF").press("Enter")
    expect(names).to_have_text(["one", "two", "three"])
    expect(page.get_by_role("button", name="TPF")).to_be_focused()
    expect(page.locator("th[aria-sort=ascending]")).to_have_text("TPF")


def test_colours_follow_the_theme(page: Page):
    show(page, content())
    drawn(page, 1)
    light = colour(page)
    assert light.startswith("rgb")
    page.evaluate("document.body.classList.add('dark')")
    page.wait_for_function("(light) => document.querySelector('.ndc-plot').data[0].marker.color !== light", arg=light)


def test_figures_switch_in_the_browser_and_stay_switched(page: Page):
    show(page, content())
    page.get_by_role("button", name="Seconds").click()
    expect(page.get_by_role("button", name="Seconds")).to_have_attribute("aria-pressed", "true")
    show(page, content(2))
    drawn(page, 2)
    expect(page.get_by_role("button", name="Seconds")).to_have_attribute("aria-pressed", "true")


def test_old_messages_change_nothing_and_texts_are_data(page: Page):
    evil = "<img src=x onerror='window.hacked=1'>"
    show(page, content(5, note=evil))
    show(page, content(4, note="older"))
    expect(page.locator(".ndc-note")).to_have_text(evil)
    assert page.evaluate("window.hacked") is None


def test_without_plotly_the_table_still_serves(new_page: Callable[..., Page], player_url: str):
    page = new_page()
    page.goto(player_url)
    page.evaluate("async () => { window.chart = (await import('/player/chart.js')).mount(document.getElementById('root'), { id: 'c', plotly: '/none.js' }); }")
    show(page, content())
    expect(page.locator(".ndc-plot")).to_contain_text("the table holds the same numbers")
    expect(page.locator("tbody tr")).to_have_count(3)
