"""Choosing a model, in a real browser: one that the host offers, one of the hub, and what happens to everybody else."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from nemodiff_core.checkpoint import bundled_path
from nemodiff_core.serving.manifest import Features, Offer, Preset
from tests.e2e.test_app import Screen
from tests.hub import Hub, hub
from ui.app import ServeSettings, launch
from ui.picker import OTHER

ID = "someone/a-model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(bundled_path(), tmp_path_factory.mktemp("models") / "second"))


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[Any]:
    models = (Offer(device="cpu"), Offer(source=str(folder), device="cpu", title="The second", licence="a licence", about="Like the first."))
    preset = Preset(models=models, features=Features(any_model=True))
    page = launch(ServeSettings(preset=preset, host="127.0.0.1"), block=False)
    yield page
    page.close()


@pytest.fixture
def online(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub(monkeypatch, tmp_path / "cache") as server:
        server.models[ID] = folder
        yield server


class Models(Screen):
    """The page with the panel of the models open."""

    def __init__(self, page: Page, url: str) -> None:
        super().__init__(page, url)
        self.change = page.locator("#nd-model-change")
        self.change.click()
        expect(self.change).to_have_attribute("aria-expanded", "true")
        self.said, self.status = page.locator("#nd-model-said"), page.locator("#nd-status")

    def pick(self, name: str) -> None:
        self.page.locator("#nd-model input").click()
        self.page.get_by_role("option", name=name, exact=True).click()

    def use(self) -> None:
        self.page.locator("#nd-model-use").click()


def test_a_visitor_changes_the_model_and_nobody_elses(host: Any, new_page: Callable[..., Page]):
    screen, other = Models(new_page(), host.local_url), Screen(new_page(), host.local_url)
    expect(screen.page.locator("#nd-model-use")).to_be_disabled()
    screen.pick("The second")
    expect(screen.page.locator("#nd-model-about")).to_contain_text("Like the first.Licence: a licence · Source: a folder of this host")
    screen.use()
    expect(screen.said).to_contain_text("The second answers your runs from now on.")
    expect(screen.status).to_contain_text("second · 5.5M parameters")
    for each, model in ((screen, "second"), (other, "tiny")):
        each.ask("ar", 4)
        each.begin()
        each.finish()
        expect(each.page.locator("#nd-player .ndp-header")).to_contain_text(model)
        expect(each.page.locator("#nd-status")).to_contain_text(model)
    screen.change.click()
    expect(screen.page.locator("#nd-model")).to_be_hidden()


def test_a_model_of_the_hub_shows_its_progress_and_can_be_cancelled(host: Any, online: Hub, new_page: Callable[..., Page]):
    screen = Models(new_page(390, 844), host.local_url)
    screen.pick(OTHER)
    box = screen.page.locator("#nd-model-id input")
    box.fill("../etc")
    screen.use()
    expect(screen.said.get_by_role("alert")).to_contain_text("'../etc' is no Hugging Face id; give one such as")
    box.fill("someone/else")
    box.press("Enter")
    expect(screen.said.get_by_role("alert")).to_contain_text("someone/else: the hub has no public model someone/else; check the spelling")
    box.fill(ID)
    with online.held():
        screen.use()
        expect(screen.said).to_contain_text(f"Downloading {ID}, ")
        expect(screen.said).to_contain_text("The bundled model goes on answering.")
        expect(screen.said.locator("progress")).to_have_attribute("value", re.compile(r"0\.\d*[1-9]"))  # begun, and not done
        assert screen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        screen.page.locator("#nd-model-cancel").click()
        expect(screen.said).to_contain_text(f"{ID} is not loaded: it was cancelled.".capitalize())
    expect(screen.status).to_contain_text("tiny")
    screen.use()
    expect(screen.said).to_contain_text("answers your runs from now on.")
    expect(screen.status).to_contain_text(f"{ID} · 5.5M parameters")
