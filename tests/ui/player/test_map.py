"""The map panel and a cell over time, in a real browser: what they draw, and mouse, keys and words."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import expect

from nemodiff_core.trace import TokenEvent, Trace
from tests.browser import shared_browser
from tests.ui.player.traces import MODES, Maker, messages, noise
from ui.bench import measure_player

LEFT, TOP = 46, 20  # CSS px of the map's rulers
EVIL = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
TILES = """async ([prompt, request, steps, pieces]) => {
  const { Lane } = await import('/player/lane.js');
  const { dataOf } = await import('/player/map_data.js');
  const whole = new Lane({ prompt: { ids: prompt }, request }, new Map());
  const growing = new Lane({ prompt: { ids: prompt }, request }, new Map());
  whole.push(steps);
  for (let at = 0; at < steps.length; at += pieces) {
    growing.push(steps.slice(at, at + pieces));
    dataOf(growing);
  }
  const wrong = [];
  for (const lane of [whole, growing]) {
    const data = dataOf(lane);
    for (let row = -1; row < steps.length; row += 1) {
      const cells = lane.fold.at(row);
      for (let column = 0; column < data.columns + 2; column += 1) {
        const cell = cells.get(prompt.length + column);
        const tile = data.tile(column, row);
        const same = tile.status === (cell?.status ?? 'empty') && tile.token === (cell?.token ?? null) && tile.since === (cell?.step ?? tile.since)
          && Math.abs((Number.isFinite(tile.confidence) ? tile.confidence : -1) - (cell?.confidence ?? -1)) < 1e-6;
        if (!same) wrong.push([row, column, tile, cell ?? null]);
      }
    }
  }
  return wrong.slice(0, 3);
}"""
SETTLE = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
PICTURE = "document.querySelector('.ndp-map-canvas').toDataURL()"


def revising(tokens: int = 8) -> Trace:
    """One block whose second cell is masked again and becomes another token, with candidates at every step."""
    maker = Maker(seed=3, candidates=3)
    start, light = maker.start, maker.words.id(" light")
    maker.step("prefill", (0, start), 0, [maker.event(start, "seed")], 20)
    span = (start, start + tokens)
    inside = range(start + 1, start + tokens)
    maker.step("denoise", span, 0, [maker.event(p, "commit", light if p == start + 1 else None, 0.6) for p in inside], 20)
    maker.step("denoise", span, 0, [TokenEvent(start + 1, light, "remask", 0.1)], 20)
    maker.step("revise", span, 0, [maker.event(start + 1, "commit", None, 0.9)], 20)
    output = [maker.token(offset) for offset in range(tokens)]
    return maker.trace("diffusion", output, "length", "made-revising", block_length=tokens)


def explained(trace: Trace) -> tuple[Trace, list[dict[str, Any]]]:
    """The trace with three wrong commits and the regret of every token."""
    commits = [(step.index, event) for step in trace.steps for event in step.events if event.kind == "commit"]
    wrong = [
        {"kind": "wrong_commit", "step": index, "position": event.position, "token": event.token, "probability": 0.1,
         "alternative": trace.output.ids[0], "alternative_probability": 0.7}
        for index, event in (commits[2], commits[9], commits[20])
    ]  # fmt: skip
    first = len(trace.prompt.ids)
    regret = [
        {"kind": "regret", "position": first + i, "nats": i / 20, "probability": 0.5, "best": token, "best_probability": 0.6}
        for i, token in enumerate(trace.output.ids)
    ]
    wrong.sort(key=lambda note: (note["step"], note["position"]))
    return replace(trace, annotations=[*regret, *wrong]), wrong


class Map:
    """The map panel of a stage, opened."""

    def __init__(self, stage: Any, trace: Trace | None = None, step: int | None = None) -> None:
        self.stage, self.page = stage, stage.page
        if trace is not None:
            stage.load([trace])
        stage.page.evaluate("(step) => window.player.select({ panel: 'map', ...(step === null ? {} : { step }) })", step)
        stage.settle()
        self.canvas = stage.page.locator(".ndp-map-canvas")
        self.say = stage.page.locator(".ndp-map-say")

    def place(self, column: int, row: int) -> dict[str, float]:
        """Where a tile lies on the canvas while the whole map is in view."""
        columns, rows = self.size()
        box = self.canvas.bounding_box()
        wide, high = min(76, (box["width"] - LEFT) / columns), min(24, (box["height"] - TOP) / rows)
        return {"x": LEFT + (column + 0.5) * wide, "y": TOP + (row + 0.5) * high}

    def size(self) -> tuple[int, int]:
        """Columns and rows, as the canvas describes them."""
        label = self.canvas.get_attribute("aria-label")
        columns, rows = re.match(r"Map of (\d+) positions? by (\d+) steps?", label).groups()
        return int(columns), int(rows)

    def picture(self) -> str:
        self.page.evaluate(SETTLE)
        return self.page.evaluate(PICTURE)


@pytest.mark.parametrize("mode", list(MODES))
def test_every_tile_is_the_folds(mode: str, stage: Any):
    trace = MODES[mode](Maker(seed=2, candidates=2))
    data = trace.to_dict()
    assert stage.page.evaluate(TILES, [trace.prompt.ids, trace.request, data["steps"], 7]) == []


def test_every_tile_of_any_events_is_the_folds(stage: Any):
    for seed in range(6):
        trace = noise(seed)
        steps = trace.to_dict()["steps"]
        assert stage.page.evaluate(TILES, [trace.prompt.ids, trace.request, steps, 11]) == [], f"seed {seed}"


def test_a_click_goes_to_the_step_and_pins_the_cell(stage: Any):
    trace = Maker(seed=5, candidates=3).diffusion()
    panel = Map(stage, trace)
    panel.canvas.click(position=panel.place(20, 12))
    assert stage.get("p.selection.step") == 12
    assert stage.get("p.pinned") == len(trace.prompt.ids) + 20
    expect(panel.say).to_contain_text(f"step 13, {trace.steps[12].phase} · answer 21 (position {len(trace.prompt.ids) + 20})")


def test_pointing_reads_a_tile_out_and_looks_at_its_cell(stage: Any):
    trace = Maker(seed=5).diffusion()
    panel = Map(stage, trace)
    commit = next(s for s in trace.steps if s.phase == "denoise" and s.block == 1)
    event = commit.events[0]
    panel.canvas.hover(position=panel.place(event.position - len(trace.prompt.ids), commit.index))
    piece = trace.vocabulary[str(event.token)].replace(" ", "·")
    expect(panel.say).to_contain_text(f"“{piece}” · committed · confidence {event.confidence:.2f}")
    expect(panel.say).to_have_attribute("aria-live", "off")  # a moving mouse must not talk
    expect(stage.page.locator(".ndp-look-piece")).to_have_text(re.compile("."))
    stage.page.mouse.move(1, 1)
    expect(panel.say).to_contain_text("Point at a tile")


def test_keys_move_a_cursor_and_leave_the_player_where_it_is(stage: Any):
    trace = Maker(seed=5).diffusion()
    panel = Map(stage, trace, step=0)
    panel.canvas.focus()
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp"):
        stage.page.keyboard.press(key)
    assert stage.get("p.selection.step") == 0
    expect(panel.say).to_contain_text("step 3, denoise · answer 3 (")
    expect(panel.say).to_have_attribute("aria-live", "polite")
    stage.page.keyboard.press("Enter")
    assert stage.get("[p.selection.step, p.pinned]") == [2, len(trace.prompt.ids) + 2]
    stage.page.keyboard.press("PageDown")
    expect(panel.say).to_contain_text("step 13,")
    stage.page.keyboard.press("Escape")
    assert stage.get("p.pinned") is None
    stage.page.keyboard.press("Space")
    stage.wait("p.playing")


def test_zoom_by_buttons_keys_and_wheel_and_back(stage: Any):
    panel = Map(stage, Maker(seed=5).diffusion())
    tool = lambda name: stage.page.locator(f"[data-tool={name}]")  # noqa: E731
    whole = panel.picture()
    expect(tool("out")).to_be_disabled()
    tool("in").click()
    assert panel.picture() != whole
    tool("fit").click()
    stage.page.mouse.move(1, 1)
    assert panel.picture() == whole
    panel.canvas.focus()
    stage.page.keyboard.press("+")
    expect(tool("fit")).to_be_enabled()
    stage.page.keyboard.press("0")
    expect(tool("fit")).to_be_disabled()
    panel.canvas.hover(position={"x": 300, "y": 200})
    before = stage.page.evaluate("window.scrollY")
    stage.page.keyboard.down("Control")
    stage.page.mouse.wheel(0, -400)
    stage.page.keyboard.up("Control")
    expect(tool("fit")).to_be_enabled()
    assert stage.page.evaluate("window.scrollY") == before
    tool("out").click()
    tool("out").click()
    expect(tool("out")).to_be_disabled()


def test_dragging_pans_and_is_no_click(stage: Any):
    panel = Map(stage, Maker(seed=5).diffusion(), step=3)
    for _ in range(3):
        stage.page.locator("[data-tool=in]").click()
    panel.canvas.scroll_into_view_if_needed()
    box = panel.canvas.bounding_box()
    before = panel.picture()
    stage.page.mouse.move(box["x"] + 500, box["y"] + 200)
    stage.page.mouse.down()
    stage.page.mouse.move(box["x"] + 380, box["y"] + 150, steps=4)
    stage.page.mouse.up()
    stage.page.mouse.move(1, 1)
    assert panel.picture() != before
    assert stage.get("[p.selection.step, p.pinned]") == [3, None]


def test_colours_that_a_run_cannot_show_are_not_offered(stage: Any):
    trace, _ = explained(Maker(seed=5).diffusion())
    panel = Map(stage, trace)
    names = stage.page.locator(".ndp-map-mode:visible")
    assert names.all_text_contents() == ["Confidence", "Order", "Entropy", "Regret"]
    seen = set()
    for button in names.all():
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        stage.page.mouse.move(1, 1)
        seen.add(panel.picture())
    assert len(seen) == 4
    bare = [replace(s, events=tuple(replace(e, entropy=None) for e in s.events)) for s in trace.steps]
    stage.load([replace(trace, steps=bare, annotations=[])])
    assert names.all_text_contents() == ["Confidence", "Order"]
    expect(stage.page.locator("[data-scale=confidence]")).to_have_attribute("aria-pressed", "true")


def test_wrong_commits_are_counted_named_and_visited_in_turn(stage: Any):
    trace, wrong = explained(Maker(seed=5).diffusion())
    panel = Map(stage, trace, step=0)
    expect(stage.page.locator(".ndp-map-found")).to_contain_text("3 wrong commits")
    expect(stage.page.locator("[data-mark=wrong]")).to_be_visible()
    button = stage.page.get_by_role("button", name="Next wrong commit")
    for note in [*wrong, wrong[0]]:
        button.click()
        assert stage.get("[p.selection.step, p.pinned]") == [note["step"], note["position"]]
        expect(panel.say).to_contain_text("wrong commit: one cell at a time it would have become")
        expect(panel.say).to_contain_text("(0.70 against 0.10)")
    assert stage.page.get_by_role("button", name="Look for wrong commits").count() == 0


def test_looking_for_wrong_commits_is_asked_of_the_page(stage: Any):
    trace = Maker(seed=5).diffusion()
    panel = Map(stage, trace)
    assert stage.page.get_by_role("button", name="Look for wrong commits").count() == 0, "there is nobody to ask"
    stage.page.evaluate(
        """async () => {
          const { mount } = await import('/player/player.js');
          window.sent = [];
          window.player.destroy();
          window.player = mount(document.getElementById('root'), { id: 'p', send: (name, data) => window.sent.push([name, data.run]) });
        }"""
    )
    panel = Map(stage, trace)
    stage.page.get_by_role("button", name="Look for wrong commits").click()
    assert stage.page.evaluate("window.sent") == [["explain", trace.id]]
    expect(stage.page.get_by_role("button", name="Looking for wrong commits…")).to_be_disabled()
    stage.load([replace(trace, annotations=[{"kind": "regret", "position": len(trace.prompt.ids), "nats": 0.0}])])
    expect(stage.page.locator(".ndp-map-found")).to_have_text(re.compile("^no wrong commits"))
    assert panel.canvas.is_visible()


@pytest.mark.parametrize("mode", list(MODES))
def test_a_live_run_draws_what_a_loaded_one_draws(mode: str, open_stage: Callable[..., Any]):
    trace = MODES[mode](Maker(seed=6, candidates=3))
    pictures = []
    for chunk in (3, 1000):
        stage = open_stage()
        sent = messages([trace], chunk=chunk)
        stage.receive(sent[0])
        stage.page.evaluate("window.player.select({ panel: 'map' })")
        for message in sent[1:-1]:
            stage.receive(message)
            stage.settle()
        panel = Map(stage, step=len(trace.steps) // 2)
        growing = panel.picture()
        stage.receive(sent[-1])
        stage.settle()
        pictures.append((growing, panel.picture()))
        stage.page.close()
    assert pictures[0] == pictures[1]


def test_the_map_says_what_it_shows(stage: Any):
    trace = revising()
    panel = Map(stage, trace, step=2)
    label = panel.canvas.get_attribute("aria-label")
    assert label.startswith("Map of 8 positions by 4 steps, Block diffusion; at step 3: 6 committed, 1 seed, 1 masked; 1 remask; 1 revision.")
    for mark in ("commit", "seed", "remasked", "revised"):
        expect(stage.page.locator(f"[data-mark={mark}]")).to_be_visible()
    assert stage.page.locator("[data-mark=wrong]").count() == 0
    panel.canvas.hover(position=panel.place(1, 3))
    expect(panel.say).to_contain_text("revised in step 4, before “·light”")


def test_a_revised_cell_keeps_its_corner(stage: Any):
    trace = revising()
    stage.load([trace])
    cell = stage.page.locator(f'.ndp-cell[data-position="{len(trace.prompt.ids) + 1}"]')
    stage.seek(3)
    assert cell.get_attribute("data-revised") is None and cell.get_attribute("data-status") == "masked"
    stage.seek(4)
    expect(cell).to_have_attribute("data-revised", "true")
    expect(cell).to_have_attribute("aria-label", re.compile("revised, before “·light”$"))
    expect(cell.locator(".ndp-cell-old")).to_have_text("·light")
    assert cell.evaluate("c => getComputedStyle(c, '::before').content") == '""'
    expect(stage.page.locator(".ndp-legend-mark", has_text="revised")).to_be_visible()
    assert stage.page.locator('.ndp-slot[data-revised="true"]').count() == 1
    stage.load([Maker(seed=1).diffusion()])
    assert stage.page.locator(".ndp-legend-mark", has_text="revised").count() == 0


def test_a_cell_over_time_draws_what_was_recorded(stage: Any):
    trace = revising()
    stage.load([trace])
    stage.page.evaluate("window.player.select({ panel: 'history', step: 3 })")
    note = stage.page.locator(".ndp-story .ndp-panel-note").first
    expect(note).to_contain_text("Pin a cell")
    position = len(trace.prompt.ids) + 1
    stage.page.evaluate("(position) => window.player.select({ position })", position)
    expect(note).to_be_hidden()
    written = trace.vocabulary[str(trace.output.ids[1])].replace(" ", "·")
    expect(stage.page.locator(".ndp-story-piece")).to_have_text(written)
    values = stage.page.locator(".ndp-story-values li")
    expect(values.first.locator(".ndp-look-token")).to_have_text(written)
    expect(values.first.locator(".ndp-look-p")).to_have_text("0.900")
    moments = stage.page.locator(".ndp-story-moment")
    assert [text.split(" · ")[0][2:] for text in moments.all_text_contents()] == ["step 2", "step 3", "step 4"]
    expect(moments.last).to_have_attribute("aria-current", "step")
    expect(moments.last).to_contain_text("revised: “·light” →")
    moments.first.click()
    assert stage.get("p.selection.step") == 1
    expect(values.first.locator(".ndp-look-p")).to_have_text("less")  # not among the candidates of that step
    chart = stage.page.locator(".ndp-story-body > div, .ndp-story-body > svg").first
    box = chart.bounding_box()
    chart.click(position={"x": 38 + (box["width"] - 52) * 0.75, "y": 80})
    assert stage.get("p.selection.step") == 3


def test_a_cell_without_candidates_still_tells_its_moments(stage: Any):
    trace = Maker(seed=1).linear_spec()
    stage.load([trace])
    stage.page.evaluate("(position) => window.player.select({ panel: 'history', position })", len(trace.prompt.ids) + 2)
    expect(stage.page.locator(".ndp-story .ndp-panel-note").first).to_contain_text("Candidates recorded per cell")
    assert stage.page.locator(".ndp-story-moment").count() > 1
    stage.page.evaluate("window.player.select({ position: 900000 })")
    expect(stage.page.locator(".ndp-story .ndp-panel-note").first).to_contain_text("has not reached")


def test_exported_pictures_hold_the_map_and_token_text_as_text(stage: Any):
    maker = Maker("safe words", seed=1, candidates=3)
    maker.answer = [maker.words.id(EVIL), *maker.answer]
    trace, _ = explained(Maker(seed=5).diffusion())
    hostile = maker.diffusion()
    stage.load([hostile])
    svg = stage.page.evaluate("import('/player/map.js').then((m) => m.mapSvg(window.player.store.lanes[0], { title: '<b>mine</b>' }))")
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    texts = ["".join(node.itertext()) for node in root.iter(f"{space}text")]
    assert "<b>mine</b>" in texts and any(text.startswith("<img") for text in texts)
    assert {node.tag.removeprefix(space) for node in root.iter()} <= {
        "svg", "title", "defs", "pattern", "path", "clipPath", "rect", "g", "text", "polygon", "polyline",
    }  # fmt: skip
    stage.load([trace])
    png = stage.page.evaluate(
        """async () => {
          const { mapPng } = await import('/player/map.js');
          const blob = await mapPng(window.player.store.lanes[0], { colour: 'regret', scheme: 'dark', scale: 1 });
          return [blob.type, blob.size, [...new Uint8Array(await blob.slice(0, 8).arrayBuffer())]];
        }"""
    )
    assert png[0] == "image/png" and png[1] > 5000 and png[2] == [137, 80, 78, 71, 13, 10, 26, 10]
    assert stage.page.evaluate("window.hacked") is None


def test_token_text_in_the_panels_is_never_markup(stage: Any):
    maker = Maker("safe words", seed=1, candidates=3)
    maker.answer = [maker.words.id(EVIL), maker.words.id("a\u202eb"), *maker.answer]
    trace = maker.diffusion()
    panel = Map(stage, trace)
    panel.canvas.hover(position=panel.place(0, 3))
    expect(panel.say).to_contain_text("<img")
    panel.canvas.click(position=panel.place(1, 3))
    stage.page.evaluate("window.player.select({ panel: 'history' })")
    expect(stage.page.locator(".ndp-story-piece")).to_have_text("a⟨U+202E⟩b")
    assert stage.page.locator("#root img, #root script").count() == 0
    assert stage.page.evaluate("window.hacked") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_panels_do_not_scroll_sideways(width: int, scheme: str, open_stage: Callable[..., Any]):
    stage = open_stage(width, color_scheme=scheme)
    trace, _ = explained(Maker(seed=1, candidates=8).diffusion())
    stage.load([trace])
    for name in ("map", "history"):
        stage.page.evaluate("([panel, position]) => window.player.select({ panel, position, step: 9 })", [name, len(trace.prompt.ids) + 3])
        stage.settle()
        assert stage.page.evaluate("document.documentElement.scrollWidth") <= width, name


def test_the_order_ramp_reads_in_both_themes(open_stage: Callable[..., Any]):
    for scheme in ("light", "dark"):
        stage = open_stage(color_scheme=scheme)
        stage.load([Maker(seed=1).ar()])
        ratios = stage.page.evaluate(
            """() => {
              const probe = document.querySelector('.ndp').appendChild(document.createElement('i'));
              const luminance = (name) => {
                probe.style.color = `var(${name})`;
                const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255);
                const [r, g, b] = parts.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
              };
              return [0, 1, 2, 3, 4, 5, 6, 7].map((n) => { const [x, y] = [luminance(`--nd-o${n}`), luminance(`--nd-u${n}`)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); });
            }"""
        )
        assert min(ratios) >= 4.5, (scheme, [round(r, 2) for r in ratios])


def test_a_very_long_run_opens(stage: Any):
    """20 000 positions by 20 000 steps: nothing is as large as their product."""
    size = stage.page.evaluate(
        """async (length) => {
          const { Lane } = await import('/player/lane.js');
          const { mapPng } = await import('/player/map.js');
          const lane = new Lane({ request: { mode: 'ar' }, prompt: { ids: [1] } }, new Map());
          lane.push(Array.from({ length }, (_, n) => ({ index: n, phase: 'ar', span: [n, n + 1], block: 0, elapsed_ns: n, candidates: [],
            events: [{ position: n + 1, token: 5, kind: 'commit', confidence: 0.5, entropy: 1 }] })));
          return (await mapPng(lane, { scale: 1 })).size;
        }""",
        20_000,
    )
    assert size > 1000


def test_the_benchmark_of_the_map_measures_every_way_of_moving():
    measured = measure_player(shared_browser())
    assert (measured["positions"], measured["steps"]) == (512, 128)
    assert all(measured[way]["busy_ms"] > 0 and measured[way]["frames"] > 0 for way in ("playing", "panning", "panning_text"))
    assert measured["live_step_ms"] > 0
