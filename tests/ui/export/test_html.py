"""The exported page plays from a file, with no network at all, and obeys nothing that a trace says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Page

from nemodiff_core.errors import NemodiffError
from nemodiff_core.trace import Trace
from tests.browser import shared_browser
from tests.ui.player.traces import MODES, STORY, Maker, race
from ui.export import html
from ui.export.bundle import BundleError, bundle

AT_THE_END = """() => {
  const p = window.__nemodiff?.players.exported;
  return p && p.complete && p.steps > 0 && !p.playing && p.step === p.steps - 1;
}"""
PUBLISHED = "([...keys]) => { const p = window.__nemodiff.players.exported; return keys.map((key) => p[key]); }"


@pytest.fixture
def open_page(tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens exported runs; fails the test on any script error, refusal of the page's own policy, or request."""
    trouble: list[str] = []
    contexts = []

    def start(traces: Sequence[Trace], **options: object) -> Page:
        path = tmp_path / f"run-{len(contexts)}.html"
        path.write_text(html.player_html(traces), "utf-8")
        context = shared_browser().new_context(offline=True, **options)
        contexts.append(context)
        context.route(lambda url: not url.startswith("file:"), lambda route: route.abort())
        page = context.new_page()
        page.on("pageerror", lambda error: trouble.append(f"script error: {error}"))
        page.on("console", lambda said: said.type in ("error", "warning") and trouble.append(f"console: {said.text}"))
        page.on("request", lambda r: r.url in (path.as_uri(), "data:,") or trouble.append(f"request to {r.url[:100]}"))
        page.goto(path.as_uri())
        return page

    yield start
    for context in contexts:
        context.close()
    assert not trouble, trouble


@pytest.mark.parametrize("mode", list(MODES))
def test_a_run_plays_to_its_end(mode: str, open_page: Callable[..., Page]):
    text = STORY[:160]
    trace = MODES[mode](Maker(text, seed=3))
    page = open_page([trace])
    page.wait_for_function(f"() => window.__nemodiff.players.exported.step < {len(trace.steps) - 1}")
    page.wait_for_function(AT_THE_END, timeout=60_000)
    view, output, shown = page.evaluate(PUBLISHED, ["view", "output", "text"])
    assert (view, output, shown) == ("refine", trace.output.ids, text)
    (lane,) = page.evaluate(PUBLISHED, ["lanes"])[0]
    assert lane["metrics"]["nfe"] > 0


def test_a_race_plays_to_its_end_and_keeps_its_verdict(open_page: Callable[..., Page]):
    traces = race()
    page = open_page(traces, color_scheme="dark", viewport={"width": 390, "height": 800})
    page.wait_for_function(AT_THE_END, timeout=60_000)
    view, identical, lanes = page.evaluate(PUBLISHED, ["view", "identical", "lanes"])
    assert view == "race" and identical["same"]
    assert [lane["output"] for lane in lanes] == [trace.output.ids for trace in traces]
    assert page.evaluate("getComputedStyle(document.querySelector('.ndp')).colorScheme").endswith("dark")


def test_every_panel_opens_without_a_server(open_page: Callable[..., Page]):
    page = open_page([Maker(seed=3, candidates=4).linear_spec()], reduced_motion="reduce")
    page.wait_for_function(AT_THE_END)
    tabs = page.locator(".ndp-tab:visible")
    for index in range(tabs.count()):
        tabs.nth(index).click()
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_only_what_needs_no_server_is_offered(open_page: Callable[..., Page]):
    page = open_page([Maker(seed=3).diffusion()], reduced_motion="reduce")
    page.wait_for_function(AT_THE_END)
    button = page.get_by_role("button", name="Export")
    button.click()
    assert page.get_by_role("menuitem").evaluate_all("l => l.map((n) => n.dataset.format)") == ["map-png", "map-svg"]
    for name in ("nemodiff-map.png", "nemodiff-map.svg"):
        with page.expect_download() as download:
            page.locator(f"[data-format=map-{name[-3:]}]").click()
        assert download.value.suggested_filename == name
        assert Path(download.value.path()).stat().st_size > 1000
        button.click()


def test_hostile_text_is_shown_and_not_obeyed(hostile: Trace, open_page: Callable[..., Page]):
    page = open_page([hostile], reduced_motion="reduce")
    page.wait_for_function(AT_THE_END)
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.scripts.length") == 2
    assert page.evaluate(PUBLISHED, ["output"])[0] == hostile.output.ids
    assert "onerror" in page.locator(".ndp-prose").text_content()


def test_the_data_ends_neither_its_element_nor_a_line(hostile: Trace):
    page = html.player_html([hostile])
    data = re.search(r'id="nemodiff-run">(.*?)</script>', page, re.S)[1]
    assert not re.search("[<>&\u2028\u2029]", data)
    assert json.loads(data)["traces"] == [json.loads(hostile.to_json())]
    assert "onerror" not in page.replace(data, "").split("<style", 1)[0].replace("&lt;img src=x onerror", "")


def test_the_policy_allows_one_script_and_no_address():
    page = html.player_html([Maker("Hi.").ar()])
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert "default-src &#x27;none&#x27;" in policy
    assert re.search(r"script-src &#x27;sha256-[\w+/=]{44}&#x27;;", policy)
    assert "http" not in policy and "unsafe-eval" not in policy


def test_a_run_that_is_too_large_for_a_page_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(html, "MAX_BYTES", 1000)
    with pytest.raises(NemodiffError, match="as JSON"):
        html.player_html([Maker().ar()])


# -- joining modules --------------------------------------------------------------------------------


def write(folder: Path, **modules: str) -> Path:
    for name, source in modules.items():
        (folder / f"{name}.js").write_text(source, "utf-8")
    return folder


def test_modules_are_joined_with_all_the_player_uses_of_their_syntax(tmp_path: Path):
    folder = write(
        tmp_path,
        a="import { one, two as second } from './b.js';\nimport {\n  E0,\n  E1,\n} from './c.js';\nimport * as all from './b.js';\nexport { three } from './c.js';\n"
        "export const sum = () => [one, second(), all.Three.name, E0, E1].join();\nexport const soon = () => import('./d.js');\nexport const never = () => import('./e.js');",
        b="export const one = '</script><!--';\nexport async function* later() {}\nexport function two() { return 2; }\nexport class Three {}",
        c="export const [E0, E1] = [7, 8];\nconst x = 3;\nexport { x as three };",
        d="import { one } from './b.js';\nexport const late = one.length;",
    )
    start = "const { sum, soon, never, three } = $use('a.js'); window.result = Promise.all([sum(), three, soon().then((d) => d.late), never().catch(() => 'missing')]);"
    script = bundle(folder, ["a.js"], start)
    assert "</script" not in script and "<!--" not in script
    context = shared_browser().new_context()
    try:
        page = context.new_page()
        page.set_content(f"<script>{script}</script>")
        assert page.evaluate("window.result") == ["</script><!--,2,Three,7,8", 3, 13, "missing"]
    finally:
        context.close()


@pytest.mark.parametrize(
    ("modules", "says"),
    [
        ({"a": "export default 1;"}, "cannot hold “export default 1;”"),
        ({"a": "export let n = 0;"}, "cannot hold"),
        ({"a": "import b from './b.js';", "b": ""}, "cannot hold"),
        ({"a": "import { x } from 'https://example.org/b.js';"}, "cannot hold"),
        ({"a": "import { x } from './b.js';\nexport const y = x;", "b": "import { y } from './a.js';\nexport const x = y;"}, "circle: a.js → b.js → a.js"),
        ({"a": "import { gone } from './b.js';", "b": "export const here = 1;"}, "a.js wants gone of b.js"),
    ],
)
def test_what_cannot_be_joined_is_an_error_here_and_not_in_the_browser(modules: dict[str, str], says: str, tmp_path: Path):
    with pytest.raises(BundleError, match=re.escape(says)):
        bundle(write(tmp_path, **modules), ["a.js"], "")
