"""A bare page with the player on it, served from this machine."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from nemodiff_core.trace import Trace
from tests.browser import tabs
from tests.ui.player.traces import tail

UI = Path(__file__).parents[3] / "ui"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>player</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/player/player.css">
<body style="margin:16px"><div id="root"></div></body></html>"""


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # a page imports some ninety modules: not a connection each

    def end_headers(self) -> None:
        self.send_header("cache-control", "max-age=3600")
        super().end_headers()

    def do_GET(self) -> None:
        if self.path != "/":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(PAGE.encode())))
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="session")
def player_url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=UI))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()


# A bare page as it was before a test, but for the scripts that it has read.
CLEAN = """() => {
  window.player?.destroy();
  document.activeElement?.blur();
  document.body.innerHTML = '<iframe></iframe><div id="root"></div>';
  document.body.className = '';
  const fresh = new Set(Object.getOwnPropertyNames(document.querySelector('iframe').contentWindow));
  document.querySelector('iframe').remove();
  for (const name of Object.keys(window)) if (!fresh.has(name)) delete window[name];
  window.localStorage.clear();
  window.scrollTo(0, 0);
}"""


class Stage:
    """A page on which one player is mounted under the id `p`; what `resync` is asked is kept in `window.asked`."""

    def __init__(self, page: Page, url: str, answer: Any = None) -> None:
        self.page = page
        if page.url != url:
            page.goto(url)
        page.evaluate(
            """async (answer) => {
              const { mount } = await import('/player/player.js');
              window.asked = [];
              window.answer = answer;
              const resync = async (query) => { window.asked.push(query); return window.answer; };
              window.player = mount(document.getElementById('root'), { id: 'p', resync });
            }""",
            answer,
        )

    def ask(self, script: str, given: Any = None) -> Any:
        """What the page's function `script` makes of `given`.

        As text there and back: of a structure Playwright looks at every value on its way, which takes longer than the page does.
        """
        text = self.page.evaluate(f"async (text) => JSON.stringify(await ({script})(JSON.parse(text))) ?? 'null'", json.dumps(given))
        return json.loads(text)

    def get(self, expression: str, *arguments: Any) -> Any:
        """An expression over `p`, what the player publishes about itself."""
        return self.ask(f"([...a]) => {{ const p = window.__nemodiff.players.p; return {expression}; }}", arguments)

    def wait(self, expression: str, *arguments: Any) -> None:
        self.page.wait_for_function(
            f"([...a]) => {{ const p = window.__nemodiff.players.p; return {expression}; }}", arg=arguments, timeout=60_000
        )

    def load(self, traces: Sequence[Trace], play: bool = False) -> None:
        data = [trace.to_dict() for trace in traces]
        tails = [tail(trace, traces[0], lane) for lane, trace in enumerate(traces)]
        self.ask(
            """([data, tails, play]) => {
              if (data.length === 1) window.player.load(data[0], { play, tail: tails[0] });
              else window.player.loadRace(data, tails, { play });
            }""",
            [data, tails, play],
        )
        self.settle()

    def receive(self, *sent: dict[str, Any]) -> None:
        self.page.evaluate("(list) => list.forEach((m) => window.player.receive(m))", [json.dumps(m) for m in sent])

    def seek(self, moment: int) -> None:
        self.page.locator(".ndp-range").fill(str(moment))
        self.settle()

    def settle(self) -> None:
        """Wait until what was asked for has been drawn."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def focus(self) -> None:
        self.page.locator(".ndp").focus()


@pytest.fixture
def open_stage(player_url: str) -> Iterator[Callable[..., Stage]]:
    """Opens stages; fails the test if a script failed or anything was asked of another machine."""
    with tabs(CLEAN) as open_tab:
        yield lambda width=1072, height=900, answer=None, **options: Stage(open_tab(width, height, **options), player_url, answer)


@pytest.fixture
def stage(open_stage: Callable[..., Stage]) -> Stage:
    return open_stage()
