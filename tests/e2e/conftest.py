"""A served app and a real browser. Any request that would leave the machine is blocked and fails the test."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route

from nemodiff_core.checkpoint import bundled_path
from tests.browser import shared_browser
from ui.app import ServeSettings, launch
from ui.loader import ModelChoice

LOCAL = {"127.0.0.1", "localhost"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def browser() -> Browser:
    return shared_browser()


class Served:
    """The app under test: its address, and the very engine that answers, to compare the page with."""

    def __init__(self, port: int) -> None:
        # NEMODIFF_TEST_MODEL lets the same tests run against another checkpoint.
        source = os.environ.get("NEMODIFF_TEST_MODEL") or str(bundled_path())
        settings = ServeSettings(ModelChoice(source, device="cpu"), host="127.0.0.1", port=port)
        self.blocks = launch(settings, block=False)
        self.app = self.blocks.nemodiff
        self.url = f"http://127.0.0.1:{port}/"

    @property
    def engine(self) -> Any:
        assert self.app.loader.wait(120), "the model did not load in two minutes"
        assert self.app.loader.engine is not None, self.app.loader.problem
        return self.app.loader.engine


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    os.environ["NEMODIFF_DATA"] = str(tmp_path_factory.mktemp("data"))  # never the developer's own
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = Served(port)
    yield served
    served.blocks.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages that cannot reach beyond this machine; fails the test if one tried, or if a script failed."""
    trouble: list[str] = []
    contexts = []

    def guard(route: Route) -> None:
        parts = urlsplit(route.request.url)
        if parts.scheme in ("data", "blob") or parts.hostname in LOCAL:
            route.continue_()
        else:
            trouble.append(f"request to {route.request.url}")
            route.abort()

    def open_page(width: int = 1440, height: int = 900, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **options)
        contexts.append(context)
        context.route("**/*", guard)
        page = context.new_page()
        page.set_default_timeout(90_000)
        page.on("pageerror", lambda error: trouble.append(f"script error: {error}"))
        # Routing does not see WebSockets.
        page.on("websocket", lambda ws: urlsplit(ws.url).hostname in LOCAL or trouble.append(f"socket to {ws.url}"))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not trouble, trouble
