"""Races as a visitor runs them: lanes of their own making, a saved trace among them, and blind with a vote."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.test_app import PLAYER, PROMPT, Screen, saved_trace

RACE_ID = "p => p.run === 'recorded-race'"
HIDDEN = re.compile("Autoregressive|Block diffusion|Self-speculation|threshold|denoise|draft|linear_spec", re.IGNORECASE)


class RaceScreen(Screen):
    """The page in its Race view, with a short answer asked for."""

    def __init__(self, page: Page, url: str) -> None:
        super().__init__(page, url)
        self.player = page.locator(f"#{PLAYER}")
        self.choose("view", "Race")
        self.wait(RACE_ID)
        self.fill("prompt", PROMPT)
        self.fill("length", 16)

    def lane(self, number: int) -> Any:
        """The form of a lane, opened."""
        box = self.page.locator(f"#nd-lane{number}")
        mode = box.locator(f"#nd-lane{number}-mode, #nd-lane{number}-about").locator("visible=true")
        if mode.count() == 0:
            box.locator("button").first.click()
            expect(mode.first).to_be_visible()
        return box

    def race(self, lanes: int) -> None:
        self.begin()
        self.finish()
        self.wait("(p, n) => p.complete && p.lanes.length === n", lanes)

    def end(self) -> None:
        self.player.get_by_label("To the end (End)").click()
        self.wait("p => p.lanes.every(l => l.done)")


@pytest.fixture
def screen(served: Any, new_page: Callable[..., Page]) -> RaceScreen:
    return RaceScreen(new_page(), served.url)


def test_lanes_run_as_one_batch_and_the_replay_says_so(screen: RaceScreen):
    screen.page.locator("#nd-race-batch input").check()
    screen.race(3)
    screen.end()
    expect(screen.player.locator(".ndp-clock-note")).to_contain_text("as one batch")
    expect(screen.player.locator(".ndp-lane").nth(2).locator(".ndp-badge")).to_have_text(re.compile(r"identical to AR · (\d+)/\1 tokens"))


def test_lanes_are_added_changed_removed_and_raced(screen: RaceScreen):
    page = screen.page
    add = page.locator("#nd-race-add")
    expect(page.locator("#nd-lane4")).to_be_hidden()
    add.click()
    expect(add).to_be_disabled()
    screen.lane(4).get_by_label("Quadratic self-speculation", exact=True).check()
    expect(page.locator("#nd-lane4")).to_contain_text("Lane 4 · Quadratic self-speculation · block 16")
    expect(page.locator("#nd-lane4-threshold")).to_be_hidden()
    screen.race(4)
    assert screen.state("p => p.lanes.map(l => l.mode)") == ["ar", "diffusion", "linear_spec", "quadratic_spec"]
    screen.end()
    cards = screen.player.locator(".ndp-lane")
    assert sorted(cards.locator(".ndp-place-badge").all_text_contents()) == ["1st", "2nd", "3rd", "4th"]
    for number in (2, 3):
        expect(cards.nth(number).locator(".ndp-badge")).to_have_text(re.compile(r"identical to AR · (\d+)/\1 tokens"))
    expect(cards.nth(0).locator(".ndp-shares-words")).to_have_text(re.compile(r"prefill \d+ %.*ar \d+ %"))
    expect(cards.nth(2).locator(".ndp-shares-words")).to_have_text(re.compile(r"draft \d+ %.*verify \d+ %"))
    expect(cards.nth(1).locator(".ndp-shares-words")).to_contain_text("commit")
    screen.lane(2).get_by_role("button", name="Remove lane").click()
    expect(page.locator("#nd-lane2")).to_be_hidden()
    expect(page.locator("#nd-lane3")).to_contain_text("Lane 2 · Self-speculation")
    screen.lane(3).get_by_role("button", name="Remove lane").click()
    expect(page.locator("#nd-lane4")).to_contain_text("Lane 2 · Quadratic")
    expect(page.locator("#nd-lane4-remove")).to_be_disabled()
    screen.race(2)
    assert screen.state("p => p.lanes.map(l => l.mode)") == ["ar", "quadratic_spec"]


def test_a_saved_trace_takes_a_lane_and_leaves_it(screen: RaceScreen, tmp_path: Path):
    page = screen.page
    screen.choose("view", "Refine")
    screen.wait("p => p.run === 'recorded-refine'")
    path = saved_trace(screen, tmp_path)
    screen.choose("view", "Race")
    screen.wait(RACE_ID)
    with page.expect_file_chooser() as chooser:
        screen.lane(2).locator("#nd-lane2-open").click()
    chooser.value.set_files(path)
    expect(page.locator("#nd-lane2")).to_contain_text("Lane 2 · saved trace")
    expect(page.locator("#nd-lane2-about")).to_contain_text("Block diffusion")
    screen.lane(3).get_by_role("button", name="Remove lane").click()
    screen.race(2)
    expect(screen.player.locator(".ndp-clock-note")).to_contain_text("Block diffusion is a saved trace with the times of its own run")
    page.locator("#nd-lane2-back").click()
    expect(page.locator("#nd-lane2")).to_contain_text("Lane 2 · Block diffusion · threshold 0.9")
    expect(page.locator("#nd-lane2-mode")).to_be_visible()


def test_a_blind_race_hides_counts_and_exports(screen: RaceScreen, tmp_path: Path):
    page = screen.page
    page.locator("#nd-race-blind input").check()
    screen.fill("race-prompts", f"{PROMPT}\nWhat is 859 + 344?")
    screen.race(3)
    best = screen.player.get_by_role("button", name="B is best")
    expect(best).to_be_enabled()
    expect(screen.player).to_contain_text("Prompt 1 of 2")
    assert not HIDDEN.search(screen.player.locator(".ndp-stage").evaluate("e => e.outerHTML"))
    assert not HIDDEN.search(screen.player.locator(".ndp-header").inner_text())
    expect(screen.player.locator(".ndp-transport, .ndp-dock").locator("visible=true")).to_have_count(0)
    best.click()
    screen.player.get_by_role("button", name="Vote", exact=True).click()
    revealed = screen.player.locator(".ndp-revealed")
    expect(revealed).to_contain_text(re.compile("You preferred B, (Autoregressive|Block diffusion|Self-speculation)"))
    first = screen.state("p => p.run")
    modes = screen.state("p => p.lanes.map(l => l.mode)")
    assert sorted(modes) == ["ar", "diffusion", "linear_spec"]
    screen.player.get_by_role("button", name="Next prompt (2 of 2)").click()
    screen.wait("(p, first) => p.run !== first && p.complete", first)
    expect(screen.player).to_contain_text("Prompt 2 of 2")
    screen.player.get_by_role("button", name="All bad").click()
    screen.player.get_by_role("button", name="Vote", exact=True).click()
    expect(revealed).to_contain_text("You called all of them bad.")
    expect(screen.player.locator(".ndp-next")).to_be_hidden()
    screen.finish()
    page.locator("#nd-race-votes button").first.click()
    expect(page.locator("#nd-race-results tbody tr")).to_have_count(3)
    with page.expect_download() as download:
        page.locator("#nd-race-csv").click()
    download.value.save_as(tmp_path / "votes.csv")
    text = (tmp_path / "votes.csv").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [(row["lane"], row["verdict"]) for row in rows[:3]] == [("A", "not chosen"), ("B", "best"), ("C", "not chosen")]
    assert [row["verdict"] for row in rows[3:]] == ["all bad"] * 3
    assert PROMPT not in text


def test_a_second_vote_on_the_same_run_is_refused(served: Any, screen: RaceScreen):
    screen.page.locator("#nd-race-blind input").check()
    screen.race(3)
    run = screen.state("p => p.run")
    assert served.app.vote({"run": run, "best": [0]})["blind"]["best"] == [0]
    screen.player.get_by_role("button", name="A is best").click()
    screen.player.get_by_role("button", name="Vote", exact=True).click()
    expect(screen.player.locator(".ndp-blind .ndp-fault")).to_contain_text("nothing to vote on")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_votes_without_scrolling_sideways(theme: str, served: Any, new_page: Callable[..., Page]):
    screen = RaceScreen(new_page(390, 844, color_scheme=theme), served.url)
    screen.page.locator("#nd-race-add").click()
    screen.page.locator("#nd-race-blind input").check()
    screen.race(4)
    assert screen.page.evaluate("document.documentElement.scrollWidth") <= 390
    screen.player.get_by_role("button", name="D is best").click()
    screen.player.get_by_role("button", name="Vote", exact=True).click()
    screen.end()
    assert screen.page.evaluate("document.documentElement.scrollWidth") <= 390
