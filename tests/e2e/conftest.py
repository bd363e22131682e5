"""A served app and a real browser. Any request for another machine is blocked and fails the test."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from nemodiff_core.checkpoint import bundled_path
from tests.browser import tabs
from ui.app import ServeSettings, launch
from ui.loader import ModelChoice


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


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

    @contextmanager
    def held(self, after: int) -> Iterator[None]:
        """The model stands still after `after` forwards, so that a run cannot end while a test acts on it."""
        goes_on, left = threading.Event(), iter(range(after))

        def wait(*_: Any) -> None:
            if next(left, None) is None:
                goes_on.wait(120)

        hook = self.engine.checkpoint.model.register_forward_pre_hook(wait)
        try:
            yield
        finally:
            hook.remove()
            goes_on.set()


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
def new_page() -> Iterator[Callable[..., Page]]:
    """Opens pages that cannot reach beyond this machine; fails the test if one tried, or if a script failed."""
    with tabs() as open_tab:
        yield open_tab
