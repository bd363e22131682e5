"""The page's first picture: there without Gradio, and the page's player goes on from it without a jump."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

# What there is to see of the first cell in every frame: who draws it, where, and the step shown.
_WATCH = """
window.seen = [];
const look = () => {
  const early = document.querySelector('.nd-prelude .ndp-cell');
  const cell = early ?? document.querySelector('#nd-player .ndp-cell');
  const state = window.__nemodiff?.players?.[early ? 'prelude' : 'nd-player'];
  const box = cell?.getBoundingClientRect();
  if (box?.width && state) window.seen.push({ early: Boolean(early), x: box.x, y: box.y, width: box.width, step: state.step });
  requestAnimationFrame(look);
};
look();
"""


def test_the_recorded_run_plays_without_gradio(served: Any, new_page: Callable[..., Page]):
    page = new_page()
    page.route("**/assets/**", lambda route: route.abort())
    page.goto(served.url, wait_until="commit")
    page.wait_for_function("window.__nemodiff?.players.prelude?.playing && window.__nemodiff.players.prelude.step >= 1")
    expect(page.locator(".nd-prelude .ndp-cell").first).to_be_in_viewport()
    assert page.locator("#nd-player").count() == 0


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1100, 900), (390, 844)])
def test_the_pages_player_takes_its_place_and_its_step(width: int, height: int, served: Any, new_page: Callable[..., Page]):
    assert served.engine  # or the status line is still to grow
    page = new_page(width, height, reduced_motion="reduce")
    page.add_init_script(_WATCH)
    page.goto(served.url, wait_until="commit")
    page.wait_for_function("window.seen.some((s) => s.early)")
    page.evaluate("document.querySelector('.nd-prelude [aria-label^=\"One step back\"]').click()")
    page.wait_for_function("window.seen.some((s) => !s.early)")
    expect(page.locator(".nd-prelude")).to_have_count(0)
    seen = page.evaluate("window.seen")
    first, last = seen[0], seen[-1]
    assert max(abs(first[side] - last[side]) for side in ("x", "y", "width")) <= 2
    steps = [s["step"] for s in seen]
    assert not last["early"] and steps[-1] == max(steps) - 1, "the step that was chosen stays"
    assert page.evaluate("Object.keys(window.__nemodiff.players)") == ["nd-player"]


@pytest.mark.parametrize("query", ["?view=learn", "?trace=story&step=2"])
def test_a_link_to_something_else_is_not_covered(query: str, served: Any, new_page: Callable[..., Page]):
    page = new_page()
    page.goto(served.url + query)
    page.wait_for_function("window.__nemodiff?.players['nd-player']")
    assert page.evaluate("Object.keys(window.__nemodiff.players)") == ["nd-player"]
    expect(page.locator(".nd-prelude")).to_have_count(0)
