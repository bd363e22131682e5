"""The player in a real browser: drawing, keys, scrubbing, the inspector, hostile text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.ui.player.traces import MASK, MODES, STORY, Maker, race

EVIL = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
HIDDEN = "a\u202eb\u200bc\u0007"


def test_the_cells_show_the_block_of_the_step(stage: Any):
    trace = Maker(seed=5).diffusion()
    stage.load([trace])
    index = next(s.index for s in trace.steps if s.block == 2 and s.phase == "denoise")
    stage.seek(index + 1)
    cells = trace.canvas_at(index).cells
    start, end = trace.steps[index].span
    drawn = stage.page.eval_on_selector_all(".ndp-block .ndp-cell", "l => l.map(c => [Number(c.dataset.position), c.dataset.status])")
    assert drawn == [[p, cells[p].status] for p in range(start, end)]
    expect(stage.page.locator(".ndp-step")).to_have_text(re.compile(rf"^step {index + 1} of {len(trace.steps)} · denoise · block 3 · \d commits? · [\d.]+ ms$"))


def test_drafts_and_verdicts_differ_in_shape(stage: Any):
    trace = Maker(seed=2).linear_spec()
    stage.load([trace])
    verify = next(s for s in trace.steps if s.phase == "verify" and {e.kind for e in s.events} == {"accept", "reject", "bonus"})
    stage.seek(verify.index)
    draft = stage.page.locator('.ndp-block .ndp-cell[data-status="draft"]').first
    expect(draft).to_have_css("border-top-style", "dashed")
    stage.seek(verify.index + 1)
    marks = {"accepted": "✓", "rejected": "×", "bonus": "+"}
    for status, mark in marks.items():
        cell = stage.page.locator(f'.ndp-row .ndp-cell[data-status="{status}"]').first
        assert cell.evaluate("c => getComputedStyle(c, '::after').content") == f'"{mark}"'
    struck = stage.page.locator('.ndp-row .ndp-cell[data-status="rejected"] .ndp-cell-t').first
    expect(struck).to_have_css("text-decoration-line", "line-through")
    expect(struck).not_to_be_empty()


def test_a_bonus_keeps_the_draft_it_replaced_in_sight(stage: Any):
    trace = Maker(seed=2).linear_spec()
    stage.load([trace])
    index, cell = next(
        (s.index, c) for s in trace.steps for c in trace.canvas_at(s.index).cells.values() if c.replaced is not None and c.step == s.index
    )
    stage.seek(index + 1)
    shown = stage.page.locator('.ndp-row .ndp-cell[data-status="bonus"] .ndp-cell-old').filter(has_text=re.compile("."))
    expect(shown).to_have_text(trace.vocabulary[str(cell.replaced)].replace(" ", "·"))


def test_a_short_block_moves_nothing(stage: Any):
    trace = Maker("x" * 60, seed=5).diffusion()
    trace.steps[-1] = replace(trace.steps[-1], block=9, span=(trace.steps[-1].span[0] + 1, trace.steps[-1].span[0] + 4))
    stage.load([trace])
    box = "(() => { const f = document.querySelector('.ndp-block').getBoundingClientRect(); return [f.height, document.querySelector('.ndp-block .ndp-cell').offsetWidth, document.querySelector('.ndp-bar').offsetHeight]; })()"
    stage.seek(1)
    before = stage.get(box)
    stage.seek(len(trace.steps))
    assert stage.page.locator(".ndp-block .ndp-cell").count() == 3
    assert stage.get(box) == before


@pytest.mark.parametrize("mode", list(MODES))
def test_the_text_never_moves_while_it_resolves(mode: str, stage: Any):
    trace = MODES[mode](Maker(seed=4))
    stage.load([trace])
    places = "document.querySelector('.ndp-prose').getBoundingClientRect().height + ' ' + [...document.querySelectorAll('.ndp-slot')].map(s => s.offsetLeft + ',' + s.offsetTop)"
    end = stage.page.evaluate(places)
    for moment in (0, 1, len(trace.steps) // 3, len(trace.steps) // 2):
        stage.seek(moment)
        assert stage.page.evaluate(places) == end
    assert stage.page.locator(".ndp-prose").text_content().startswith(STORY)


def test_only_resolved_tokens_can_be_read(stage: Any):
    trace = Maker(seed=4).diffusion()
    stage.load([trace])
    stage.seek(len(trace.steps) // 2)
    slots = stage.page.eval_on_selector_all(".ndp-slot", "l => l.map(s => [s.dataset.state, getComputedStyle(s).color])")
    states = {state for state, _ in slots}
    assert {"shown", "masked", "hidden"} <= states
    for state, colour in slots:
        if state in ("masked", "hidden"):
            assert colour == "rgba(0, 0, 0, 0)", state


def test_keys(stage: Any):
    trace = Maker(seed=1).diffusion()
    stage.load([trace])
    stage.focus()
    press = stage.page.keyboard.press
    press("Home")
    stage.wait("p.step === -1")
    press("ArrowRight")
    press("ArrowRight")
    stage.wait("p.step === 1")
    press("ArrowLeft")
    stage.wait("p.step === 0")
    press("End")
    stage.wait("p.step === p.steps - 1 && !p.playing")
    speed = stage.get("p.speed")
    press("[")
    assert stage.get("p.speed") != speed
    press("]")
    assert stage.get("p.speed") == speed
    press("Space")
    stage.wait("p.playing && p.step < p.steps - 1")
    press("Space")
    stage.wait("!p.playing")
    press("?")
    expect(stage.page.get_by_role("dialog")).to_be_visible()
    press("Escape")
    expect(stage.page.get_by_role("dialog")).to_be_hidden()
    expect(stage.page.get_by_role("button", name="Keyboard shortcuts")).to_be_focused()


def test_arrows_move_between_cells_and_enter_pins(stage: Any):
    trace = Maker(seed=1, candidates=4).diffusion()
    stage.load([trace])
    stage.seek(6)
    cells = stage.page.locator(".ndp-row .ndp-cell")
    assert cells.evaluate_all("l => l.filter(c => c.tabIndex === 0).length") == 1
    cells.first.focus()
    stage.page.keyboard.press("ArrowRight")
    stage.page.keyboard.press("ArrowRight")
    expect(cells.nth(2)).to_be_focused()
    assert stage.get("p.step") == 5, "arrows inside the row must not scrub"
    stage.page.keyboard.press("End")
    expect(cells.last).to_be_focused()
    stage.page.keyboard.press("Home")
    expect(cells.first).to_be_focused()
    stage.page.keyboard.press("Enter")
    assert stage.get("p.pinned") == len(trace.prompt.ids)
    expect(cells.first).to_have_attribute("aria-selected", "true")
    stage.page.keyboard.press("Escape")
    assert stage.get("p.pinned") is None


def test_the_inspector_shows_the_candidates_of_the_step(stage: Any):
    trace = Maker(seed=1, candidates=4).diffusion()
    stage.load([trace])
    step = next(s for s in trace.steps if s.phase == "denoise")
    look = step.candidates[0]
    stage.seek(step.index + 1)
    stage.page.locator(f'.ndp-cell[data-position="{look.position}"]').click()
    rows = stage.page.locator(".ndp-look-list li")
    expect(rows).to_have_count(4)
    shown = [trace.vocabulary[str(i)].replace(" ", "·") for i in look.ids]
    assert stage.page.locator(".ndp-look-token").all_text_contents() == shown
    assert stage.page.locator(".ndp-look-p").first.text_content() == f"{look.probabilities[0]:.3f}"
    expect(stage.page.locator(".ndp-look-note")).to_contain_text("this step")
    height = stage.page.locator(".ndp-look").bounding_box()["height"]
    stage.seek(len(trace.steps))  # the pin survives, in another block
    expect(stage.page.locator(".ndp-look-note")).to_contain_text("Last looked at in step")
    stage.page.get_by_text("unpin").click()
    stage.page.mouse.move(0, 0)
    expect(stage.page.locator(".ndp-look-note")).to_contain_text("Hover, tap or focus")
    assert stage.page.locator(".ndp-look").bounding_box()["height"] == height


def test_without_candidates_the_inspector_says_how_to_record_them(stage: Any):
    stage.load([Maker(seed=1).ar()])
    stage.page.locator(".ndp-cell").first.hover()
    expect(stage.page.locator(".ndp-look-note")).to_contain_text("Candidates recorded per cell")


def test_token_text_is_never_markup(stage: Any):
    maker = Maker("safe words", seed=1, candidates=3, prompt=EVIL)
    ids = [maker.words.id(EVIL), maker.words.id(HIDDEN)]
    maker.answer = [*ids, *maker.answer]
    trace = maker.diffusion()
    trace.model["id"] = EVIL
    trace.vocabulary[str(MASK)] = EVIL
    stage.load([trace])
    expect(stage.page.locator(".ndp-prose")).to_contain_text("<img src=x")
    expect(stage.page.locator(".ndp-prose")).to_contain_text("a⟨U+202E⟩b⟨U+200B⟩c⟨U+0007⟩")
    for moment in range(len(trace.steps) + 1):
        stage.seek(moment)
        stage.page.locator(".ndp-cell").nth(1).hover()
    stage.page.locator("summary").click()
    assert stage.page.locator("#root img, #root script").count() == 0
    assert stage.page.evaluate("window.hacked") is None
    obeyed = "document.getElementById('root').textContent.match(/.{0,20}[\\u202a-\\u202e\\u200b\\u0007].{0,20}/gs)"
    assert stage.page.evaluate(obeyed) is None


def test_playing_moves_on_and_stops_at_the_end(stage: Any):
    trace = Maker("A few short words.", seed=1).diffusion()
    stage.load([trace], play=True)
    stage.wait("p.playing && p.step >= 1")
    stage.wait("!p.playing && p.step === p.steps - 1")
    assert stage.get("p.output") == trace.output.ids


def test_real_time_takes_the_measured_time(stage: Any):
    trace = Maker(seed=1).ar()  # about 1.8 s
    stage.load([trace])
    stage.page.locator(".ndp-speed").select_option("1")
    seconds = stage.page.evaluate(
        """async () => {
          const p = window.__nemodiff.players.p;
          const from = performance.now();
          document.querySelector('.ndp-play').click();
          while (p.playing || p.step < p.steps - 1) await new Promise((r) => setTimeout(r, 5));
          return (performance.now() - from) / 1000;
        }"""
    )
    expected = trace.steps[-1].elapsed_ns / 1e9
    assert expected - 0.05 <= seconds <= expected + 1.0


def test_reduced_motion_opens_still_and_animates_nothing(open_stage: Callable[..., Any]):
    stage = open_stage(reduced_motion="reduce")
    trace = Maker(seed=1).diffusion()
    stage.load([trace], play=True)
    assert not stage.get("p.playing") and stage.get("p.step") == len(trace.steps) - 1
    moving = "l => l.filter(e => { const s = getComputedStyle(e); return s.animationName !== 'none' || parseFloat(s.transitionDuration) > 0 && s.transitionProperty !== 'none'; }).length"
    assert stage.page.eval_on_selector_all("#root *", moving) == 0


def test_the_step_is_announced(stage: Any):
    trace = Maker(seed=1).diffusion()
    stage.load([trace])
    stage.focus()
    stage.page.keyboard.press("Home")
    stage.page.keyboard.press("ArrowRight")
    expect(stage.page.locator("[aria-live=polite]")).to_contain_text("step 1 of")


def test_a_race_replays_all_lanes_on_one_clock(stage: Any):
    traces = race()
    stage.load(traces)
    assert [lane["output"] for lane in stage.get("p.lanes")] == [t.output.ids for t in traces]
    assert stage.get("p.identical") == {"to_lane": 0, "same": True, "first_divergence": None}
    n = len(traces[2].output.ids)
    expect(stage.page.locator(".ndp-badge:visible")).to_have_text(f"identical to AR · {n}/{n} tokens")
    # By the clock, each lane stands where its own elapsed time says.
    time_us = traces[2].steps[-1].elapsed_ns // 1000 + 1
    stage.seek(time_us)
    steps = [sum(s.elapsed_ns // 1000 <= time_us for s in t.steps) - 1 for t in traces]
    assert [lane["step"] for lane in stage.get("p.lanes")] == steps
    assert [lane["done"] for lane in stage.get("p.lanes")] == [False, False, True]
    expect(stage.page.locator(".ndp-lane").nth(2)).to_contain_text("1st")
    expect(stage.page.locator(".ndp-clock-note")).to_contain_text("measured clock")
    # Per forward, all lanes have taken the same number of forwards.
    stage.page.locator(".ndp-speed").select_option("tick")
    stage.seek(20)
    assert [lane["step"] for lane in stage.get("p.lanes")] == [19, 19, 19]
    expect(stage.page.locator(".ndp-clock-note")).to_contain_text("one forward per tick, not by the clock")


def test_a_race_that_differs_says_where(stage: Any):
    traces = race()
    traces[2].output.ids[16] = traces[2].output.ids[3]
    stage.load(traces)
    expect(stage.page.locator(".ndp-badge:visible")).to_have_text("differs from AR at token 17")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_no_view_scrolls_sideways(width: int, scheme: str, open_stage: Callable[..., Any]):
    for traces in ([Maker(seed=1, candidates=8).diffusion()], [Maker(seed=1).linear_spec(32)], race()):
        stage = open_stage(width, color_scheme=scheme)
        stage.load(traces)
        stage.seek(stage.get("p.steps") // 2)
        assert stage.page.evaluate("document.documentElement.scrollWidth") <= width
        stage.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(scheme: str, open_stage: Callable[..., Any]):
    """WCAG AA, 4.5 to 1, for every pair of text and background colours that the stylesheet names."""
    stage = open_stage(color_scheme=scheme)
    pairs = [(f"--nd-t{i}", f"--nd-c{i}") for i in range(8)]
    pairs += [(f"--nd-{ink}", f"--nd-{paper}") for ink in ("ink", "muted", "accent", "good", "bad") for paper in ("surface", "sunken", "raised")]
    pairs += [("--nd-on-accent", "--nd-accent"), ("--nd-faint", "--nd-sunken"), ("--nd-surface", "--nd-ink")]
    pairs += [("--nd-surface", f"--nd-{mark}") for mark in ("good", "bad", "bonus")]
    measured = stage.page.evaluate(
        """(pairs) => {
          const probe = document.querySelector('.ndp').appendChild(document.createElement('i'));
          const luminance = (name) => {
            probe.style.color = `var(${name})`;
            const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255);
            const [r, g, b] = parts.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          return pairs.map(([a, b]) => { const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); });
        }""",
        pairs,
    )
    weak = {pair: round(ratio, 2) for pair, ratio in zip(pairs, measured) if ratio < 4.5}
    assert not weak
