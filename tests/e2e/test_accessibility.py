"""Every view passes axe-core in both themes, keeps its cells in place, and fits every screen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.e2e.test_app import Screen
from ui.app import VIEWS

PANELS = ("map", "history", "pattern", "cycles", "whatif")
# Ends when nothing on the page has changed for half a second, or after one and a half: something may move for good.
STILL = """() => new Promise((done) => {
  let quiet;
  const end = () => { changes.disconnect(); clearTimeout(quiet); clearTimeout(enough); done(); };
  const again = () => { clearTimeout(quiet); quiet = setTimeout(end, 500); };
  const changes = new MutationObserver(again);
  const enough = setTimeout(end, 1500);
  changes.observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
  again();
})"""


def settled(screen: Screen) -> None:
    """Wait until the model is there and what the view fetches has come."""
    screen.page.locator("#nd-status .nd-ready").wait_for(timeout=120_000)
    screen.page.evaluate(STILL)


def violations(page: Page, *rules: str) -> list[str]:
    """What axe-core, or some of its rules, finds on the page as it stands, one line a place."""
    # Without the details of all that is well, which take most of the time.
    options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
    found = Axe().run(page, options=options).response["violations"]
    return [f"{v['id']}: {v['help']} at {n['target']} ({n['failureSummary'][:200]})" for v in found for n in v["nodes"]]


def test_every_view_is_for_everybody(served: Any, new_page: Callable[..., Page]):
    screen = Screen(new_page(reduced_motion="reduce"), served.url)
    settled(screen)
    for view in sorted(VIEWS, key=lambda view: view.name == "Budget"):  # last: axe also walks through what is hidden, and it has most
        screen.turn(view.name)
        screen.page.evaluate(STILL)
        for theme in ("light", "dark"):
            screen.page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", theme == "dark")
            # The themes differ in their colours alone.
            found = violations(screen.page, *(["color-contrast"] if theme == "dark" else []))
            assert not found, f"{view.name}, {theme}\n" + "\n".join(found)
        screen.page.evaluate("document.body.classList.remove('dark')")
        screen.page.set_viewport_size({"width": 390, "height": 844})
        screen.page.evaluate(STILL)
        assert screen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{view.name} on a phone scrolls sideways"
        screen.page.set_viewport_size({"width": 1440, "height": 900})


def test_axe_finds_nothing_in_the_panels(served: Any, new_page: Callable[..., Page]):
    screen = Screen(new_page(reduced_motion="reduce"), served.url, "?trace=speculate&step=4&cell=3")
    screen.wait("p => p.complete")
    for panel in PANELS:
        screen.page.evaluate(f"window.__nemodiff.handles['nd-player'].select({{ panel: '{panel}' }})")
        screen.wait("(p, panel) => p.panel === panel", panel)
        found = violations(screen.page)
        assert not found, panel + "\n" + "\n".join(found)


@pytest.mark.parametrize("width", [390, 1440])
def test_cells_do_not_move_between_steps(width: int, served: Any, new_page: Callable[..., Page]):
    screen = Screen(new_page(width=width, reduced_motion="reduce"), served.url, "?trace=story&step=1")
    screen.wait("p => p.complete")
    moved = screen.page.evaluate(
        """async () => {
          const player = window.__nemodiff.handles['nd-player'];
          const state = window.__nemodiff.players['nd-player'];
          const boxes = () => [...document.querySelectorAll('.ndp-cell')].map((cell) => {
            const { left, top, width, height } = cell.getBoundingClientRect();
            return [left + window.scrollX, top + window.scrollY, width, height].map(Math.round).join();
          });
          const seen = new Map(); // by the number of cells in view: a shorter last block has fewer
          const moved = [];
          for (let step = 0; step < Math.min(state.steps, 40); step += 1) {
            player.select({ step });
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            const now = boxes();
            const before = seen.get(now.length);
            if (before && before.join(' ') !== now.join(' ')) moved.push(step);
            seen.set(now.length, now);
          }
          return moved;
        }"""
    )
    assert moved == []
