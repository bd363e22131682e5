"""One Chromium for all browser tests: Playwright's sync API allows a single instance per thread."""

from __future__ import annotations

import atexit
import functools
import os
import shutil

from playwright.sync_api import Browser, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]


def chromium_path() -> str | None:
    """The machine's own browser; None means Playwright's."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@functools.cache
def shared_browser() -> Browser:
    """Started on first use, closed when Python ends."""
    playwright = sync_playwright().start()
    atexit.register(playwright.stop)
    browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
    atexit.register(browser.close)
    return browser
