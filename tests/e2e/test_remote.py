"""A server's lane beside one of this host, as a visitor races them; the key stays where it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from nemodiff_core.checkpoint import bundled_path
from nemodiff_core.serving.manifest import Features, Offer, Preset, Remote
from nemodiff_core.trace_reader import read_text
from tests.e2e.test_race import RaceScreen
from tests.openai_server import CUT, DONE, Server, said, serving, used
from ui import files
from ui.app import ServeSettings, launch
from ui.loader import ModelChoice
from ui.race import CHOSEN

KEY = "sk-e2e-0815-do-not-tell"
NAME = "Remote · Big server"
WORDS = "The old boat lay in the harbour and nobody had rowed it for years until Mira came".split()


def blocks(*ending: Any) -> list[Any]:
    """An answer four words at a time, as a diffusion server sends it."""
    tokens = [(word if i == 0 else f" {word}", 0.3 + 0.04 * i) for i, word in enumerate(WORDS)]
    return [said("".join(text for text, _ in tokens[at : at + 4]), tokens=tokens[at : at + 4]) for at in range(0, len(tokens), 4)] + list(ending)


@pytest.fixture(scope="module")
def remote() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def host(remote: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEMODIFF_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setenv("BIG_KEY", KEY)
        offered = Remote(name="big", title="Big server", url=remote.url, model="nvidia/Nemotron-Labs-Diffusion-8B", kind="sglang", key_env="BIG_KEY")
        preset = Preset(models=(Offer(source="tiny", device="cpu"),), remotes=(offered,), features=Features(mcp=True))
        source = os.environ.get("NEMODIFF_TEST_MODEL") or str(bundled_path())
        page = launch(ServeSettings(ModelChoice(source, device="cpu"), host="127.0.0.1", preset=preset), block=False)
        yield page
        page.close()


@pytest.fixture
def screen(host: Any, new_page: Callable[..., Page]) -> RaceScreen:
    made = RaceScreen(new_page(), host.local_url)
    made.lane(3).get_by_role("button", name="Remove lane").click()
    lane = made.lane(2)
    lane.locator("#nd-lane2-model input").click()
    made.page.get_by_role("option", name=NAME).click()
    return made


def test_a_lane_of_a_server_runs_beside_one_of_this_host(screen: RaceScreen, remote: Server, tmp_path: Path, host: Any):
    page = screen.page
    remote.answer = lambda body: blocks(said(None, finish="stop"), used(9, len(WORDS)), DONE)
    expect(page.locator("#nd-lane2")).to_contain_text(f"Lane 2 · {NAME}")
    expect(page.locator("#nd-lane2-mode")).to_be_hidden()
    expect(page.locator("#nd-lane2-server")).to_contain_text("decides for itself how it decodes")
    screen.race(2)
    screen.end()
    there = screen.player.locator(".ndp-lane").nth(1)
    expect(there).to_contain_text(NAME)
    expect(there).to_contain_text("as the client saw it")
    assert "".join(screen.player.locator(".ndp-lane").nth(1).locator(".ndp-prose").inner_text().split()) == "".join(WORDS)
    figures = there.locator(".ndp-figures > div:visible").all_inner_texts()
    assert [figure.split()[0] for figure in figures] == ["tokens", "chunks", "first", "time", "tokens/s"] and figures[0].split()[1] == str(len(WORDS))
    expect(there.locator(".ndp-badge")).to_be_hidden()
    with page.expect_download() as download:
        page.locator("#nd-save").click()
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    assert [trace.request["mode"] for trace in files.read(saved)] == ["ar", "remote"]
    text = read_text(saved).decode()
    assert KEY not in text and remote.url not in text
    assert remote.asked[-1][0]["authorization"] == f"Bearer {KEY}"
    for place in (page.content(), json.dumps(page.evaluate("() => window.gradio_config")), *(m for r in host.nemodiff.store._runs.values() for m in r.log)):
        assert KEY not in place and remote.url not in place
    screen.player.get_by_role("button", name="cells").nth(1).click()
    expect(screen.player.locator(".ndp-title").first).to_have_text("As it came")
    expect(screen.player.get_by_role("tab", name="What if")).to_be_hidden()
    shots(page)


def test_a_server_that_breaks_off_says_so_in_its_lane(screen: RaceScreen, remote: Server):
    remote.answer = lambda body: blocks(CUT)
    screen.race(2)
    screen.end()
    there = screen.player.locator(".ndp-lane").nth(1)
    expect(there.get_by_role("alert")).to_have_text("Big server broke off the connection; run again.")
    expect(there).to_contain_text("failed")
    expect(screen.player.locator(".ndp-lane").nth(0)).not_to_contain_text("failed")
    screen.page.locator("#nd-lane2-model input").click()
    screen.page.get_by_role("option", name=CHOSEN).click()
    expect(screen.page.locator("#nd-lane2-mode")).to_be_visible()


def shots(page: Page) -> None:
    """Pictures for whoever wants to look, where NEMODIFF_SHOTS names a folder."""
    folder = os.environ.get("NEMODIFF_SHOTS")
    if not folder:
        return
    page.get_by_role("button", name="← all lanes").click()
    for scheme in ("light", "dark"):
        page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", scheme == "dark")
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_function("() => new Promise(d => requestAnimationFrame(() => requestAnimationFrame(() => d(true))))")
            page.screenshot(path=f"{folder}/race-{scheme}-{width}.png", full_page=True)
