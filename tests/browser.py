"""One Chromium for all browser tests: Playwright's sync API allows a single instance per thread."""

from __future__ import annotations

import atexit
import functools

from playwright.sync_api import Browser, expect, sync_playwright

from ui.bench import chromium_path

expect.set_options(timeout=30_000)  # patience for a busy machine: nothing here is about speed
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]


@functools.cache
def shared_browser() -> Browser:
    """Started on first use, closed when Python ends."""
    playwright = sync_playwright().start()
    atexit.register(playwright.stop)
    browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
    atexit.register(browser.close)
    return browser
