"""How fast the page opens and the player draws, measured in a browser."""

from __future__ import annotations

import os
import shutil
import socket
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

PLAYER = Path(__file__).parent / "player"
POSITIONS, STEPS, BLOCK = 512, 128, 32
LONG = 32_768  # positions and steps of the long run
_ORIGIN = "http://nemodiff.invalid"
_TYPES = {".js": "text/javascript", ".css": "text/css"}
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>player</title><link rel="icon" href="data:,">
<body style="margin:0"><div id="root"></div></body></html>"""

# A made-up run: `positions` cells in blocks of `block`, as many forwards a block as make `steps` together.
_TRACE = """
(positions, steps, block) => {
  const start = 16;
  const forwards = Math.max(2, Math.round((steps * block) / positions));
  const made = [];
  const put = (phase, span, number, events, candidates) =>
    made.push({ index: made.length, phase, span, block: number, elapsed_ns: (made.length + 1) * 33.4e6, events, candidates });
  const sure = (p, s) => 0.2 + 0.8 * Math.abs(Math.sin(p * 12.9898 + s * 78.233));
  for (let at = 0, number = 0; at < positions; at += block, number += 1) {
    const span = [start + at, start + at + block];
    for (let f = 0; f < forwards; f += 1) {
      const events = [];
      const candidates = [];
      for (let p = span[0]; p < span[1]; p += 1) {
        const turn = (p * 7) % (forwards - 1);
        const confidence = sure(p, f);
        if (f === turn) events.push({ position: p, token: 100 + (p % 50), kind: 'commit', confidence, entropy: 3 - 3 * confidence });
        if (f <= turn) candidates.push({ position: p, ids: [100 + (p % 50), 7, 8, 9], probabilities: [confidence, 0.1, 0.05, 0.01], entropy: 3 - 3 * confidence });
      }
      put(f === forwards - 1 ? 'commit' : 'denoise', span, number, events, candidates);
    }
  }
  const ids = Array.from({ length: positions }, (_, p) => 100 + ((start + p) % 50));
  const pieces = ids.map((id) => ` word${id}`);
  const vocabulary = Object.fromEntries(ids.map((id, n) => [id, pieces[n]]));
  return {
    schema: 'nemodiff.trace/2', id: 'bench', model: { id: 'bench' }, request: { mode: 'diffusion', block_length: block, candidates: 4, prompt: '' },
    prompt: { ids: Array(start).fill(1), pieces: Array(start).fill('a') }, output: { ids, pieces }, vocabulary, steps: made,
    stop_reason: 'length', annotations: [], environment: {},
  };
}
"""

# Runs `each(n)` in every frame until it returns false; the times between frames, in ms.
_FRAMES = """
const frames = (each) => new Promise((done) => {
  const gaps = [];
  let before = 0;
  let n = 0;
  const turn = (now) => {
    if (before) gaps.push(now - before);
    before = now;
    if (each(n) === false) done(gaps);
    else { n += 1; requestAnimationFrame(turn); }
  };
  requestAnimationFrame(turn);
});
"""

_PLAY = f"""async () => {{ {_FRAMES}
  const p = window.__nemodiff.players.bench;
  document.querySelector('.ndp-speed').value = '1';
  document.querySelector('.ndp-speed').dispatchEvent(new Event('change', {{ bubbles: true }}));
  window.player.select({{ step: -1 }});
  window.player.play();
  return frames(() => p.playing);
}}"""

_PAN = f"""async (zooms) => {{ {_FRAMES}
  document.querySelector('[data-tool=fit]').click();
  for (let n = 0; n < zooms; n += 1) document.querySelector('[data-tool=in]').click();
  const canvas = document.querySelector('.ndp-map-canvas');
  const box = canvas.getBoundingClientRect();
  const send = (type, x, y) => canvas.dispatchEvent(new PointerEvent(type, {{ pointerId: 1, button: 0, isPrimary: true, pointerType: 'mouse', clientX: box.left + x, clientY: box.top + y, bubbles: true }}));
  canvas.setPointerCapture = () => {{}};
  send('pointerdown', 500, 200);
  const gaps = await frames((n) => {{
    send('pointermove', 500 + 300 * Math.sin(n / 20), 200 + 120 * Math.sin(n / 13));
    return n < 150;
  }});
  send('pointerup', 500, 200);
  return gaps;
}}"""

_LIVE = """async (trace) => {
  const { Lane } = await import('/player/lane.js');
  const { dataOf } = await import('/player/map_data.js');
  const lane = new Lane(trace, new Map());
  const took = [];
  for (const step of trace.steps) {
    lane.push([step]);
    const from = performance.now();
    dataOf(lane);
    took.push(performance.now() - from);
  }
  return took.reduce((a, b) => a + b, 0) / took.length;
}"""

_LONG = """async (length) => {
  const { Lane } = await import('/player/lane.js');
  const { dataOf } = await import('/player/map_data.js');
  const { mapPng } = await import('/player/map.js');
  const steps = Array.from({ length }, (_, n) => ({ index: n, phase: 'ar', span: [n, n + 1], block: 0, elapsed_ns: n, candidates: [],
    events: [{ position: n + 1, token: 5, kind: 'commit', confidence: 0.5 + (n % 50) / 100, entropy: 1 }] }));
  const lane = new Lane({ request: { mode: 'ar' }, prompt: { ids: [1] } }, new Map());
  for (const step of steps) lane.steps.push(step); // without the fold's keyframes: only the map is measured
  const begun = performance.now();
  dataOf(lane);
  const built = performance.now();
  await mapPng(lane, { scale: 1 });
  return { build_ms: built - begun, draw_ms: performance.now() - built };
}"""

# A whole autoregressive run of `length` tokens in the player: ms to open it, to jump to a far step, to go to the next,
# each until it is on the screen, which is two frames (33 ms) where nothing is slow.
_REPLAY = """async (length) => {
  const start = 16;
  const steps = Array.from({ length }, (_, n) => ({ index: n, phase: n ? 'ar' : 'prefill', span: n ? [start + n - 1, start + n] : [0, start], block: 0,
    elapsed_ns: (n + 1) * 4e6, candidates: [], events: [{ position: start + n, token: 100 + (n % 50), kind: 'commit', confidence: 0.5 + (n % 50) / 100, entropy: 1 }] }));
  const ids = steps.map((step) => step.events[0].token);
  const pieces = ids.map((id) => ` word${id}`);
  const trace = {
    schema: 'nemodiff.trace/2', id: 'replay', model: { id: 'bench' }, request: { mode: 'ar', block_length: 16, candidates: 0, prompt: '' },
    prompt: { ids: Array(start).fill(1), pieces: Array(start).fill('a') }, output: { ids, pieces },
    vocabulary: Object.fromEntries(ids.map((id, n) => [id, pieces[n]])), steps, stop_reason: 'length', annotations: [], environment: {},
  };
  const painted = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const timed = async (act) => { const from = performance.now(); act(); await painted(); return performance.now() - from; };
  const open = await timed(() => window.player.load(trace));
  const jumps = [];
  for (let n = 1; n <= 8; n += 1) jumps.push(await timed(() => window.player.select({ step: (n * 7919) % length })));
  const turns = [];
  for (let n = 0; n < 16; n += 1) turns.push(await timed(() => window.player.select({ step: length - 200 + n })));
  const middle = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
  return { open_ms: open, jump_ms: middle(jumps), step_ms: middle(turns) };
}"""


def measure_player(browser: Any) -> dict[str, Any]:
    """Frames a second of the map in a Playwright browser: playing 30 steps a second, panning, panning with text.

    `busy_ms` is the main thread's work for a frame (script, style, layout, painting); below 16.7 a screen of
    60 Hz gets every frame. Needs no server and no network.
    """
    with _player(browser) as page:
        page.evaluate(
            f"""async () => {{
              window.trace = ({_TRACE})({POSITIONS}, {STEPS}, {BLOCK});
              window.player.load(window.trace);
              window.player.select({{ panel: 'map' }});
            }}"""
        )
        page.wait_for_selector(".ndp-map-canvas")
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        return {
            "positions": POSITIONS,
            "steps": len(page.evaluate("window.trace.steps.map((s) => s.index)")),
            "playing": _measure(page, session, _PLAY),
            "panning": _measure(page, session, _PAN, 3),
            "panning_text": _measure(page, session, _PAN, 12),
            "live_step_ms": round(page.evaluate(f"({_LIVE})(window.trace)"), 3),
            "long": {"positions": LONG} | {k: round(v, 1) for k, v in page.evaluate(_LONG, LONG).items()},
        }


def measure_replay(browser: Any, length: int = LONG) -> dict[str, float]:
    """Milliseconds until the screen shows a run of `length` steps that was opened, a step far away, and the next step."""
    with _player(browser) as page:
        return {name: round(took, 1) for name, took in page.evaluate(_REPLAY, length).items()}


@contextmanager
def _player(browser: Any) -> Iterator[Any]:
    """A page with nothing but a player, `window.player`."""
    page = browser.new_page(viewport={"width": 1440, "height": 1100})
    try:
        page.route("**/*", _serve)
        page.goto(f"{_ORIGIN}/")
        page.evaluate(
            """async () => {
              const { mount } = await import('/player/player.js');
              window.player = mount(document.getElementById('root'), { id: 'bench' });
            }"""
        )
        yield page
    finally:
        page.close()


def _measure(page: Any, session: Any, script: str, *arguments: Any) -> dict[str, float]:
    before = _busy(session)
    gaps = sorted(page.evaluate(script, *arguments))
    busy = (_busy(session) - before) / max(1, len(gaps))
    return {
        "frames": len(gaps),
        "frames_per_second": round(1000 * len(gaps) / sum(gaps), 1),
        "p95_ms": round(gaps[int(len(gaps) * 0.95)], 1),
        "worst_ms": round(gaps[-1], 1),
        "busy_ms": round(1000 * busy, 2),
    }


def _busy(session: Any) -> float:
    """Seconds of processor time that the page's main thread has used so far."""
    values = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    return values["TaskDuration"]


def _serve(route: Any) -> None:
    path = urlparse(route.request.url).path
    file = PLAYER / Path(path).name
    if path == "/":
        route.fulfill(body=_PAGE, content_type="text/html")
    elif path.startswith("/player/") and file.is_file():
        route.fulfill(path=file, content_type=_TYPES.get(file.suffix, "text/plain"))
    else:
        route.fulfill(status=404, body="")


def measure_page(browser: Any, url: str, visits: int = 5) -> dict[str, Any]:
    """Milliseconds from the request to the first paint, to the recorded run's first cells, and until the page's own
    player has that run, so that its forms answer as well: medians of fresh visits."""
    seen: dict[str, list[float]] = {"first_paint_ms": [], "first_cells_ms": [], "whole_page_ms": []}
    for _ in range(visits):
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        page.goto(url, wait_until="commit")
        page.wait_for_function("document.querySelector('.ndp-cell')?.getClientRects().length", polling="raf")
        there = page.evaluate("performance.now()")
        page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
        painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        seen["first_paint_ms"].append(painted)
        seen["first_cells_ms"].append(max(there, painted))
        page.wait_for_function("window.__nemodiff?.players['nd-player']?.complete", polling="raf")
        seen["whole_page_ms"].append(page.evaluate("performance.now()"))
        context.close()
    return {"visits": visits, **{name: round(statistics.median(times)) for name, times in seen.items()}}


def chromium_path() -> str | None:
    """The machine's own browser; None means Playwright's."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
