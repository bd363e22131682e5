"""The page lives within its Content-Security-Policy, in every view, and the policy holds what it promises.

`new_page` fails every browser test in which something broke the policy; here the views are gone through on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser import FLAGS, shared_browser
from tests.e2e.test_app import PLAYER, SHOWS, Screen

_BROKEN = "window.broken = []; document.addEventListener('securitypolicyviolation', (e) => window.broken.push(e.effectiveDirective));"
ELSEWHERE = "http://nemodiff.invalid"


@pytest.fixture
def free_page(served: Any) -> Iterator[Page]:
    """A page that is allowed to try what it may not do."""
    assert any("host-resolver-rules" in flag for flag in FLAGS), "what is not blocked must not leave this machine either"
    context = shared_browser().new_context()
    context.add_init_script(_BROKEN)
    page = context.new_page()
    page.goto(served.url)
    page.wait_for_function(f"window.__nemodiff?.players['{PLAYER}']?.run")
    yield page
    context.close()


def test_every_view_works_within_the_policy(served: Any, new_page: Callable[..., Page]):
    page = new_page()
    page.add_init_script(_BROKEN)
    screen = Screen(page, served.url)
    assert "'unsafe-inline'" not in page.request.get(served.url).headers["content-security-policy"].partition("style-src")[0]
    screen.ask("diffusion", tokens=8)
    screen.begin()
    screen.finish()
    screen.wait("p => p.complete")
    for view in SHOWS:
        screen.turn(view)
    assert page.evaluate("window.broken") == []


ATTEMPTS = {
    "connect-src": f"fetch('{ELSEWHERE}/').catch(() => 0)",
    "img-src": f"new Image().src = '{ELSEWHERE}/x.png'",
    "script-src-elem": f"document.head.append(Object.assign(document.createElement('script'), {{ src: '{ELSEWHERE}/x.js' }}))",
    "style-src-elem": f"document.head.append(Object.assign(document.createElement('link'), {{ rel: 'stylesheet', href: '{ELSEWHERE}/x.css' }}))",
    "font-src": f"new FontFace('x', 'url({ELSEWHERE}/x.woff2)').load().catch(() => 0)",
    "frame-src": f"document.body.append(Object.assign(document.createElement('iframe'), {{ src: '{ELSEWHERE}/' }}))",
    "form-action": f"document.body.append(Object.assign(document.createElement('form'), {{ action: '{ELSEWHERE}/', method: 'post' }})); document.forms[document.forms.length - 1].submit()",
    "base-uri": f"document.head.prepend(Object.assign(document.createElement('base'), {{ href: '{ELSEWHERE}/' }}))",
    "object-src": f"document.body.append(Object.assign(document.createElement('object'), {{ data: '{ELSEWHERE}/x' }}))",
    "script-src-attr": "document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"window.hacked = 1\">')",
}


def test_nothing_reaches_another_host_and_smuggled_scripts_do_not_run(free_page: Page):
    asked: list[str] = []
    free_page.on("requestfinished", lambda request: asked.append(request.url))
    for directive, attempt in ATTEMPTS.items():
        free_page.evaluate(f"() => {{ {attempt} }}")
        free_page.wait_for_function("(name) => window.broken.includes(name)", arg=directive)
    inline = "document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.hacked = 1' }))"
    before = free_page.evaluate("window.broken.length")
    free_page.evaluate(f"() => {{ {inline} }}")
    free_page.wait_for_function("(n) => window.broken.length > n", arg=before)
    assert free_page.evaluate("window.hacked") is None
    assert not [url for url in asked if url.startswith(ELSEWHERE)]
