"""The speculate panel: cycles as the verify steps tell them, charts that filter and seek, keys, long runs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import expect

from nemodiff_core.engine import Engine
from nemodiff_core.metrics import acceptance_lengths, summary, time_by_phase
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Trace
from tests.ui.player.traces import STORY, Maker, messages

CYCLES = """async (steps) => {
  const { cyclesOf } = await import('/player/speculation.js');
  return cyclesOf(steps);
}"""
CLASS = """async (pieces) => {
  const { tokenClass } = await import('/player/speculation.js');
  return pieces.map(tokenClass);
}"""
NAMES = """async (runs) => {
  const { laneNames } = await import('/player/speculation.js');
  return laneNames(runs.map(([request, adapter]) => ({ mode: request.mode, request, head: { model: { adapter } } })), (mode) => mode);
}"""


def spec(seed: int = 2, text: str = STORY, size: int = 16) -> Trace:
    return Maker(text, seed=seed).linear_spec(size)


def open_panel(stage: Any, traces: list[Trace], lane: int = 0) -> None:
    stage.load(traces)
    stage.page.evaluate("(lane) => window.player.select({ panel: 'cycles', lane })", lane)
    expect(stage.page.locator(".ndp-cyc")).to_be_visible()
    stage.settle()


def step_shown(stage: Any) -> int:
    return stage.get("p.selection.step")


def real(engine: Engine, mode: str, **fields: Any) -> Trace:
    running = engine.run(DecodeRequest(prompt="Mira sat", mode=mode, max_new_tokens=30, temperature=1.0, seed=4, **fields))
    for _ in running:
        pass
    return running.trace()


@pytest.mark.parametrize("mode", ["made", "linear_spec", "quadratic_spec"])
def test_cycles_are_those_of_the_metrics(mode: str, stage: Any, tiny_engine: Engine) -> None:
    trace = spec() if mode == "made" else real(tiny_engine, mode, block_length=6)
    cycles = stage.page.evaluate(CYCLES, trace.to_dict()["steps"])
    assert [cycle["length"] for cycle in cycles] == acceptance_lengths(trace)
    verified = [step for step in trace.steps if step.phase == "verify"]
    assert [cycle["step"] for cycle in cycles] == [step.index for step in verified]
    emitted = [cell["emitted"] for cycle in cycles for cell in cycle["cells"] if cell["emitted"] is not None]
    assert [cycles[0]["pending"], *emitted] == trace.output.ids
    for cycle, step in zip(cycles, verified):
        drafts = {e.position: e.token for e in step.events if e.kind in ("accept", "reject")}
        shown = {cycle["start"] + 1 + i: cell["draft"] for i, cell in enumerate(cycle["cells"]) if cell["draft"] is not None}
        assert shown == drafts
        verdicts = [cell["verdict"] for cell in cycle["cells"] if cell["draft"] is not None]
        accepted = verdicts.count("accepted")
        assert verdicts[:accepted] == ["accepted"] * accepted and set(verdicts[accepted + 1 :]) <= {"dropped"}
        refused = [cell for cell in cycle["cells"] if cell["verdict"] == "refused"]
        assert all(cell["emitted"] not in (None, cell["draft"]) for cell in refused)
        assert cycle["length"] == accepted + sum(cell["verdict"] in ("refused", "bonus") for cell in cycle["cells"])


def test_every_piece_has_one_class(stage: Any) -> None:
    pieces = {
        "words": [" lantern", "Mira", "naïve", "don't", "x2", "灯"], "digits": ["42", " 3.14", "7", "1,000"],
        "punctuation": [".", ',"', " —", "?!", '"', "…"], "code": ["{", "</p", " ==", '":', "_", "();", "```"],
        "whitespace": [" ", "\n\n", "\t", ""], "special": ["<|im_end|>", "<s>", "</think>"],
    }  # fmt: skip
    for name, members in pieces.items():
        assert stage.page.evaluate(CLASS, members) == [name] * len(members)


def test_lanes_are_named_by_what_differs(stage: Any) -> None:
    base = {"mode": "linear_spec", "block_length": 16, "adapter": True, "threshold": None}
    names = stage.page.evaluate(NAMES, [[base, True], [{**base, "adapter": False}, True], [{"mode": "quadratic_spec"}, True]])
    assert names == ["linear_spec, with adapter", "linear_spec, without adapter", "quadratic_spec"]
    names = stage.page.evaluate(NAMES, [[base, False], [{**base, "block_length": 8}, False]])
    assert names == ["linear_spec, B = 16", "linear_spec, B = 8"]
    two = "({ mode: 'ar', request: {}, head: { model: { id: '/m/' + id } } })"
    models = stage.page.evaluate(f"async () => (await import('/player/speculation.js')).laneNames(['a/x', 'a/y'].map((id) => {two}), (mode) => mode)")
    assert models == ["ar, x", "ar, y"]
    names = stage.page.evaluate(NAMES, [[base, False], [base, False]])
    assert names == ["linear_spec, lane 1", "linear_spec, lane 2"]


def test_figures_are_pythons(stage: Any) -> None:
    trace = spec()
    open_panel(stage, [trace])
    figures = summary(trace)
    shown = stage.page.locator(".ndp-cyc > .ndp-figures dd").all_text_contents()
    assert shown == [f"{figures['acceptance_length']:.2f}", f"{figures['tpf']:.2f}", str(len(figures["acceptance_lengths"]))]
    expect(stage.page.locator(".ndp-cyc > .ndp-figures div").first).to_have_attribute("title", re.compile("forwards"))
    spent = time_by_phase(trace)
    stack = stage.page.locator(".ndp-cyc-stack").get_attribute("aria-label")
    for phase, seconds in spent.items():
        assert f"{phase} {seconds / sum(spent.values()) * 100:.1f} %" in stack


def test_a_bar_filters_and_goes_to_the_first_such_cycle(stage: Any) -> None:
    trace = spec()
    open_panel(stage, [trace])
    lengths = acceptance_lengths(trace)
    verified = [step.index for step in trace.steps if step.phase == "verify"]
    counts = stage.page.eval_on_selector_all(".ndp-cyc-column[role=button]", "l => l.map(g => [Number(g.dataset.length), g.getAttribute('aria-label')])")
    assert counts == [[n, f"{lengths.count(n)} cycle{'s' * (lengths.count(n) != 1)} of length {n}"] for n in sorted(set(lengths))]
    wanted = max(set(lengths), key=lengths.count)
    bar = stage.page.locator(f'.ndp-cyc-column[data-length="{wanted}"]')
    bar.click()
    stage.settle()
    assert step_shown(stage) == verified[lengths.index(wanted)]
    expect(bar).to_have_attribute("aria-pressed", "true")
    expect(stage.page.locator(".ndp-cyc-item").first).to_have_attribute("aria-setsize", str(lengths.count(wanted)))
    stage.page.get_by_role("button", name="show all cycles").click()
    expect(stage.page.locator(".ndp-cyc-item").first).to_have_attribute("aria-setsize", str(len(lengths)))


def test_bars_and_cycles_work_by_keyboard(stage: Any) -> None:
    trace = spec()
    open_panel(stage, [trace])
    lengths = acceptance_lengths(trace)
    verified = [step.index for step in trace.steps if step.phase == "verify"]
    bars = stage.page.locator(".ndp-cyc-column[role=button]")
    assert bars.evaluate_all("l => l.filter(b => b.tabIndex === 0).length") == 1
    before = step_shown(stage)
    bars.first.focus()
    stage.page.keyboard.press("End")
    expect(bars.last).to_be_focused()
    assert step_shown(stage) == before, "arrows among the bars must not scrub"
    stage.page.keyboard.press("Enter")
    stage.settle()
    assert step_shown(stage) == verified[lengths.index(max(lengths))]
    expect(bars.last).to_be_focused()
    stage.page.keyboard.press("Space")
    stage.settle()
    cycles = stage.page.locator(".ndp-cyc-list")
    cycles.focus()
    stage.page.keyboard.press("Home")
    stage.page.keyboard.press("ArrowDown")
    stage.settle()
    assert step_shown(stage) == verified[1]
    marked = stage.page.locator('.ndp-cyc-item[aria-selected="true"]')
    expect(marked).to_have_count(1)
    expect(cycles).to_have_attribute("aria-activedescendant", marked.get_attribute("id"))
    stage.page.keyboard.press("End")
    stage.settle()
    assert step_shown(stage) == verified[-1]
    expect(stage.page.locator('.ndp-cyc-item[aria-selected="true"]')).to_be_in_viewport()


def test_the_rows_are_aligned_and_differ_in_shape(stage: Any) -> None:
    trace = spec()
    open_panel(stage, [trace])
    lengths = acceptance_lengths(trace)
    wanted = next(n for n in range(3, 16) if n in lengths)
    stage.page.locator(f'.ndp-cyc-column[data-length="{wanted}"]').click()
    item = stage.page.locator(".ndp-cyc-item").first
    draft, verify, emitted = (item.locator(".ndp-cyc-row").nth(i) for i in range(3))
    left = "l => l.map(c => Math.round(c.getBoundingClientRect().left))"
    columns = [row.locator(".ndp-cyc-cell").evaluate_all(left) for row in (draft, verify, emitted)]
    assert columns[0] == columns[1] == columns[2]
    assert verify.locator('[data-verdict="accepted"]').count() == wanted - 1
    token = verify.locator('[data-verdict="accepted"] .ndp-cyc-token').first
    assert token.evaluate("t => getComputedStyle(t, '::before').content") == '"✓"'
    refused = verify.locator('[data-verdict="refused"] .ndp-cyc-token')
    expect(refused).to_have_css("text-decoration-line", "line-through")
    bonus = emitted.locator('[data-verdict="bonus"] .ndp-cyc-token')
    assert bonus.evaluate("t => getComputedStyle(t, '::before').content") == '"+"'
    expect(draft.locator('[data-verdict="draft"] .ndp-cyc-token').first).to_have_css("border-top-style", "dashed")


def test_the_cycle_of_the_step_is_marked(stage: Any) -> None:
    trace = spec()
    open_panel(stage, [trace])
    verified = [step.index for step in trace.steps if step.phase == "verify"]
    for number in (0, 3, len(verified) - 1):
        for step in (verified[number] - 1, verified[number]):
            stage.seek(step + 1)
            expect(stage.page.locator('.ndp-cyc-item[aria-selected="true"] .ndp-cyc-title')).to_contain_text(f"cycle {number + 1} ")


def test_long_runs_keep_few_elements(stage: Any) -> None:
    trace = spec(text=STORY * 40, size=8)
    assert len(acceptance_lengths(trace)) > 800
    open_panel(stage, [trace])
    for moment in (5, len(trace.steps) // 2, len(trace.steps)):
        stage.seek(moment)
        assert 1 <= stage.page.locator(".ndp-cyc-item").count() <= 10
        expect(stage.page.locator('.ndp-cyc-item[aria-selected="true"]')).to_have_count(1)
    most = stage.page.evaluate("""() => { const list = document.querySelector('.ndp-cyc-list'); let most = 0;
      for (let i = 0; i < 40; i += 1) { list.scrollTop = i * 900; list.dispatchEvent(new Event('scroll')); most = Math.max(most, list.querySelectorAll('.ndp-cyc-item').length); }
      return most; }""")
    assert most <= 10, "only what is in sight is made"
    assert stage.page.locator(".ndp-cyc-dot").count() == 0, "so many cycles are drawn as one line"


def test_lanes_that_speculate_are_compared(stage: Any) -> None:
    traces = [Maker(seed=3).ar(), spec(4), spec(5, size=8)]
    open_panel(stage, traces, lane=1)
    rows = stage.page.locator(".ndp-cyc-table").first.locator("tbody tr")
    names = rows.locator("th").all_text_contents()
    assert names == ["Self-speculation, B = 16", "Self-speculation, B = 8"]
    for row, trace in zip(rows.all(), traces[1:]):
        figures = summary(trace)
        cells = row.locator("td").all_text_contents()
        assert cells[:2] == [f"{figures['acceptance_length']:.2f}", f"{figures['tpf']:.2f}"]
    assert stage.page.locator(".ndp-cyc-other").count() == 2, "one line in each chart"
    stage.page.locator(".ndp-cyc-item").nth(1).click()
    stage.settle()
    assert stage.get("p.selection.lane") == 1


def test_other_modes_have_no_such_panel(stage: Any) -> None:
    stage.load([Maker(seed=1).diffusion()])
    expect(stage.page.locator('.ndp-tab[data-panel="cycles"]')).to_be_hidden()


def test_a_live_run_grows(stage: Any) -> None:
    trace = spec()
    sent = messages([trace])
    stage.receive(*sent[:3])
    stage.page.evaluate("() => window.player.select({ panel: 'cycles' })")
    stage.settle()
    first = stage.page.locator(".ndp-cyc > .ndp-figures dd").all_text_contents()
    assert first[:2] == ["–", "–"] and 0 < int(first[2]) < len(acceptance_lengths(trace)), "rates come with the end of the run"
    stage.receive(*sent[3:])
    stage.settle()
    assert stage.page.locator(".ndp-cyc > .ndp-figures dd").last.text_content() == str(len(acceptance_lengths(trace)))


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_no_width_scrolls_the_page_sideways(width: int, open_stage: Any) -> None:
    stage = open_stage(width=width)
    open_panel(stage, [spec(), spec(5, size=32)])
    assert not stage.page.evaluate("document.documentElement.scrollWidth > innerWidth")


def test_hostile_pieces_are_text(stage: Any) -> None:
    trace = json.loads(spec().to_json())
    for key in list(trace["vocabulary"])[4:]:
        trace["vocabulary"][key] = "<img src=x onerror='window.hacked=1'>"
    stage.page.evaluate("(trace) => { window.player.load(trace); window.player.select({ panel: 'cycles' }); }", trace)
    stage.settle()
    assert stage.page.locator(".ndp-cyc-list img").count() == 0
    assert stage.page.evaluate("window.hacked") is None
