"""One Chromium for all browser tests: Playwright's sync API allows a single instance per thread."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from ui.bench import chromium_path

PATIENCE_MS = 90_000  # for a busy machine: nothing here is about speed
expect.set_options(timeout=60_000)
LOCAL = ("127.0.0.1", "localhost")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--process-per-site",  # so that a page finds the process of the one before it, warm
    # Nothing but this machine has a name or an address: what is asked of others is told by `tabs` and never leaves.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE " + " , EXCLUDE ".join(LOCAL),
]
# What a page stored for later visits is gone when the next test opens one, but not when a page reloads.
_FORGET = "if (!window.sessionStorage.getItem('nd-test')) { window.localStorage.clear(); window.sessionStorage.setItem('nd-test', '1'); }"
_contexts: dict[str, BrowserContext] = {}
_cleaned: dict[tuple[str, str], Page] = {}  # by their key and the script that cleaned them


@functools.cache
def shared_browser() -> Browser:
    """Started on first use, closed when Python ends."""
    playwright = sync_playwright().start()
    atexit.register(playwright.stop)
    browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
    atexit.register(browser.close)
    return browser


def _new_context(**options: Any) -> BrowserContext:
    """A context with a window and a process that stay: to open them costs as much as to load a page.

    Its first tab is empty and belongs to this machine, as all pages do. No test sees it.
    """
    context = shared_browser().new_context(accept_downloads=True, **options)
    stays = context.new_page()
    stays.route("**", lambda route: route.fulfill(body="", content_type="text/html"))
    stays.goto(f"http://{LOCAL[0]}/")
    return context


@contextmanager
def tabs(clean: str | None = None) -> Iterator[Callable[..., Page]]:
    """Gives `open_tab(width, height, color_scheme, reduced_motion, **context options)`; closes its pages in the end.

    A first tab shares its context with the first tabs of other tests, and so their process and their compiled scripts,
    which are most of a page's loading time; so do second tabs, who are other visitors. With `clean`, a script after
    which a page is as good as new, a page is not closed but cleaned, and opened again by whoever gives the same script.
    Raises AssertionError if a script failed, broke the page's policy, or asked anything of another machine.
    """
    trouble: list[str] = []
    pages: list[tuple[str, Page]] = []
    crashed: set[Page] = set()

    def local(url: str) -> bool:
        parts = urlsplit(url)
        return parts.scheme in ("data", "blob", "about") or parts.hostname in LOCAL

    watched: dict[str, Callable[[Any], Any]] = {
        "console": lambda said: "Content Security Policy" in said.text and trouble.append(f"policy: {said.text}"),
        "pageerror": lambda error: trouble.append(f"script error: {error}"),
        "request": lambda request: local(request.url) or trouble.append(f"request to {request.url}"),
        "websocket": lambda socket: local(socket.url) or trouble.append(f"socket to {socket.url}"),
        "crash": lambda page: (trouble.append("the page crashed"), crashed.add(page)),
    }

    def new(key: str, options: dict[str, Any]) -> Page:
        if key not in _contexts:
            _contexts[key] = _new_context(**options)
        page = _contexts[key].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.add_init_script(_FORGET)
        return page

    def open_tab(width: int = 1440, height: int = 900, color_scheme: str = "light", reduced_motion: str = "no-preference", **options: Any) -> Page:
        key = repr(sorted(options.items()))
        key += f" visitor {sum(known.startswith(key) for known, _ in pages)}"
        page = clean and _cleaned.pop((key, clean), None) or new(key, options)
        pages.append((key, page))
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=color_scheme, reduced_motion=reduced_motion)
        page.bring_to_front()
        for event, heard in watched.items():
            page.on(event, heard)
        return page

    def keep(key: str, page: Page) -> None:
        page.unroute_all()
        page.mouse.move(0, 0)
        page.evaluate(clean)
        for event, heard in watched.items():
            page.remove_listener(event, heard)
        _cleaned[key, clean] = page

    yield open_tab
    for key, page in pages:
        if clean and page not in crashed and not page.is_closed():
            keep(key, page)
            continue
        page.close()
        if page in crashed:
            _contexts.pop(key, None)
    assert not trouble, trouble
