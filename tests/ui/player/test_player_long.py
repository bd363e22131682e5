"""Runs of thousands of tokens: only a part of the text stands in the page, and it is the part that the whole would show."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from nemodiff_core.trace import Trace
from tests.ui.player.traces import STORY, Maker, messages

WIDE = "Ωμέγα 漢字かな交じり文 naïve 🙂🙂 extraordinarily-long-hyphenated-words\tand\ttabs\n\n\n  indented   spaces\n"
MOST_SLOTS = 1500
MOST_NODES = 2600

# Every slot in the page: [index, state, text, fresh, pinned].
SLOTS = """() => {
  const sheet = document.querySelector('.ndp-prose-sheet');
  const first = Number(sheet.dataset.first);
  return [...sheet.children].map((slot, n) => [first + n, slot.dataset.state, slot.textContent, slot.dataset.fresh === 'true', slot.dataset.pinned === 'true']);
}"""

# Slots in view whose place in the text is not where the whole text, laid out at once, has them.
MISPLACED = """(texts) => {
  const box = document.querySelector('.ndp-prose');
  const sheet = box.querySelector('.ndp-prose-sheet');
  let whole = window.whole;
  if (!whole) {
    whole = window.whole = box.cloneNode(false);
    for (const name of ['data-long', 'tabindex', 'role']) whole.removeAttribute(name);
    whole.style.width = `${sheet.getBoundingClientRect().width}px`;
    whole.style.position = 'relative';
    whole.style.maxWidth = 'none';
    whole.append(...texts.map(([text, special]) => Object.assign(document.createElement('span'), { className: special ? 'ndp-slot ndp-special' : 'ndp-slot', textContent: text })));
    box.closest('.ndp').append(whole);
  }
  const first = Number(sheet.dataset.first);
  const from = sheet.getBoundingClientRect();
  const there = whole.getBoundingClientRect();
  const wrong = [];
  for (const [n, slot] of [...sheet.children].entries()) {
    const [ours, theirs] = [[...slot.getClientRects()], [...whole.children[first + n].getClientRects()]];
    const last = (list, { left, top }) => (list.length ? [Math.round(list.at(-1).right - left), Math.round(list.at(-1).bottom - top)] : []);
    if (String(last(ours, from)) !== String(last(theirs, there)) && !(n === sheet.children.length - 1)) wrong.push([first + n, slot.textContent, last(ours, from), last(theirs, there)]);
  }
  return { wrong, seen: sheet.children.length, tall: [Math.round(from.height), Math.round(there.height)] };
}"""

# The slots of positions that the box shows from top to bottom.
IN_VIEW = """() => {
  const box = document.querySelector('.ndp-prose').getBoundingClientRect();
  const sheet = document.querySelector('.ndp-prose-sheet');
  const first = Number(sheet.dataset.first);
  return [...sheet.children].flatMap((slot, n) => { const r = slot.getBoundingClientRect(); return r.top >= box.top - 1 && r.bottom <= box.bottom + 1 ? [first + n] : []; });
}"""


def long_text(seed: int = 2, times: int = 24) -> str:
    draw = random.Random(seed)
    words = STORY.split(" ")
    parts = []
    for _ in range(times):
        draw.shuffle(words)
        parts.append(" ".join(words) + draw.choice(["\n\n", " ", "\n", WIDE]))
    return "".join(parts)


def long_run(mode: str = "ar", **options: Any) -> Trace:
    maker = Maker(long_text(), seed=3, **options)
    return {"ar": maker.ar, "diffusion": maker.diffusion, "linear_spec": maker.linear_spec}[mode]()


def expected_slots(trace: Trace, step: int, indices: list[int]) -> list[str]:
    """The state of each slot after a step, by a fold that begins at the beginning."""
    cells = trace.canvas_at(step).cells
    states = []
    for index in indices:
        cell = cells.get(len(trace.prompt.ids) + index)
        same = cell is not None and cell.token == trace.output.ids[index]
        if cell is None:
            states.append("hidden")
        elif cell.status in ("seed", "committed", "accepted", "bonus", "pinned"):
            states.append("shown" if same else "other")
        elif cell.status == "draft":
            states.append("draft" if same else "masked")
        else:
            states.append("rejected" if cell.status == "rejected" else "masked")
    return states


def heard(trace: Trace, step: int) -> str:
    ids = trace.canvas_at(step).output()
    pieces = [trace.vocabulary[str(i)] for i in ids]
    return "".join(pieces[:-1] if ids and ids == trace.output.ids and trace.stop_reason == "eos" else pieces)


@pytest.mark.parametrize("mode", ["ar", "diffusion", "linear_spec"])
def test_jumps_show_what_a_fresh_fold_shows_and_the_page_stays_small(mode: str, stage: Any):
    trace = long_run(mode)
    stage.load([trace])
    draw = random.Random(mode)
    count = len(trace.steps)
    for step in [*(draw.randrange(count) for _ in range(10)), count - 1, 0, count - 1, count // 2, count // 2 + 1, count // 2 - 1]:
        stage.seek(step + 1)
        slots = stage.ask(SLOTS)
        indices = [slot[0] for slot in slots]
        assert indices == list(range(indices[0], indices[0] + len(indices)))
        assert [slot[1] for slot in slots] == expected_slots(trace, step, indices)
        texts = [trace.vocabulary[str(trace.output.ids[i])] for i in indices]
        assert [slot[2] for slot in slots[1:]] == texts[1:] and texts[0].endswith(slots[0][2])
        cells = trace.canvas_at(step).cells
        fresh = [i for i in indices if (cell := cells.get(len(trace.prompt.ids) + i)) is not None and cell.step == step]
        assert [slot[0] for slot in slots if slot[3]] == fresh
        assert len(slots) < MOST_SLOTS and stage.page.evaluate("document.querySelectorAll('*').length") < MOST_NODES
        assert stage.page.locator(".ndp-heard").first.text_content() == heard(trace, step)
        span = trace.steps[step].span if mode != "ar" else (trace.steps[step].events[0].position, trace.steps[step].events[0].position + 1)
        settled = [p - len(trace.prompt.ids) for p in range(*span) if p - len(trace.prompt.ids) in range(len(trace.output.ids))]
        assert set(settled) <= set(stage.page.evaluate(IN_VIEW)), "what the step worked on is in view"


@pytest.mark.parametrize("width", [1072, 480])
def test_any_part_of_a_long_text_lies_where_the_whole_has_it(width: int, open_stage: Callable[..., Any]):
    stage = open_stage(width)
    trace = long_run()
    stage.load([trace])
    special = {"<|im_end|>"}
    texts = [[trace.vocabulary[str(i)], trace.vocabulary[str(i)] in special] for i in trace.output.ids]
    for step in (0, 700, len(trace.steps) // 2, len(trace.steps) - 300, len(trace.steps) - 1):
        stage.seek(step + 1)
        found = stage.ask(MISPLACED, texts)
        assert found["wrong"] == [] and found["seen"] > 50 and found["tall"][0] == found["tall"][1]


def test_a_long_text_can_be_scrolled_read_and_selected_while_the_run_is_stepped(stage: Any):
    trace = long_run()
    stage.load([trace])
    stage.seek(len(trace.steps))
    box = stage.page.locator(".ndp-prose")
    expect(box).to_have_attribute("tabindex", "0")
    expect(box).to_have_attribute("role", "group")
    expect(stage.page.locator(".ndp-prose-sheet")).to_have_attribute("aria-hidden", "true")
    box.evaluate("b => { b.scrollTop = 900; }")
    stage.settle()
    assert box.evaluate("b => b.scrollTop") == 900
    before = stage.page.evaluate(IN_VIEW)
    stage.page.locator(".ndp-range").focus()
    stage.page.keyboard.press("ArrowLeft")
    stage.settle()
    assert box.evaluate("b => b.scrollTop") == 900 and stage.page.evaluate(IN_VIEW) == before, "one step does not take the text away from its reader"
    # Selected text stays, however far the box is scrolled.
    chosen = stage.page.evaluate(
        """(index) => {
          const sheet = document.querySelector('.ndp-prose-sheet');
          const slot = sheet.children[index - Number(sheet.dataset.first)];
          slot.dispatchEvent(new Event('selectstart', { bubbles: true }));
          window.getSelection().setBaseAndExtent(slot.firstChild, 0, slot.nextSibling.firstChild, 1);
          return String(window.getSelection());
        }""",
        before[0],
    )
    box.evaluate("b => { b.scrollTop = b.scrollHeight / 2; }")
    stage.settle()
    assert chosen and stage.page.evaluate("String(window.getSelection())") == chosen
    stage.page.evaluate("window.getSelection().removeAllRanges()")
    stage.seek(3)  # a jump shows the place it goes to
    assert 0 in stage.page.evaluate(IN_VIEW)


def test_keys_scroll_the_box_and_still_step(stage: Any):
    trace = long_run()
    stage.load([trace])
    stage.seek(0)
    box = stage.page.locator(".ndp-prose")
    box.focus()
    stage.page.keyboard.press("PageDown")
    stage.page.wait_for_function("document.querySelector('.ndp-prose').scrollTop > 100")
    stage.page.keyboard.press("ArrowRight")
    stage.wait("p.step === 0")


def test_a_link_to_a_step_and_a_cell_of_a_long_run_shows_both(stage: Any):
    trace = long_run("diffusion")
    stage.load([trace])
    cell = len(trace.output.ids) * 2 // 3
    step = len(trace.steps) - 5
    stage.page.evaluate("(what) => window.player.select(what)", {"step": step, "cell": cell})
    stage.settle()
    assert stage.get("p.selection.position") == len(trace.prompt.ids) + cell and stage.get("p.step") == step
    assert cell in stage.page.evaluate(IN_VIEW)
    assert [slot[0] for slot in stage.ask(SLOTS) if slot[4]] == [cell]
    other = stage.page.evaluate(IN_VIEW)[3]
    stage.page.evaluate(
        "(index) => { const s = document.querySelector('.ndp-prose-sheet'); s.children[index - Number(s.dataset.first)].click(); }", other
    )
    stage.settle()
    assert stage.get("p.pinned") == len(trace.prompt.ids) + other


def test_another_width_lays_the_text_out_again(stage: Any):
    trace = long_run()
    stage.load([trace])
    stage.seek(len(trace.steps) // 2)
    stage.page.set_viewport_size({"width": 560, "height": 800})
    stage.page.wait_for_function("document.querySelector('.ndp').dataset.size === 'narrow'")
    stage.settle()
    stage.settle()
    texts = [[trace.vocabulary[str(i)], trace.vocabulary[str(i)] == "<|im_end|>"] for i in trace.output.ids]
    found = stage.ask(MISPLACED, texts)
    assert found["wrong"] == [] and found["tall"][0] == found["tall"][1]
    assert len(trace.steps) // 2 - 1 in stage.page.evaluate(IN_VIEW)


@pytest.mark.parametrize("mode", ["ar", "diffusion"])
def test_a_run_that_grows_long_is_followed(mode: str, stage: Any):
    trace = long_run(mode)
    sent = messages([trace], chunk=97)
    for message in sent[:-1]:
        stage.receive(message)
        stage.settle()
    assert stage.get("p.following") and stage.page.locator(".ndp-slot").count() < MOST_SLOTS
    slots = stage.ask(SLOTS)
    assert [slot[2] for slot in slots[1:-40]] == [trace.vocabulary[str(trace.output.ids[slot[0]])] for slot in slots[1:-40]]
    stage.receive(sent[-1])
    stage.settle()
    texts = [[trace.vocabulary[str(i)], trace.vocabulary[str(i)] == "<|im_end|>"] for i in trace.output.ids]
    found = stage.ask(MISPLACED, texts)
    assert found["wrong"] == [] and found["tall"][0] == found["tall"][1]
    assert stage.page.locator(".ndp-heard").first.text_content() == heard(trace, len(trace.steps) - 1)


def test_a_short_run_after_a_long_one_stands_in_the_page_as_before(stage: Any):
    stage.load([long_run()])
    trace = Maker(seed=1).ar()
    stage.load([trace])
    box = stage.page.locator(".ndp-prose")
    assert box.evaluate("b => [b.getAttribute('aria-hidden'), b.getAttribute('dir'), b.hasAttribute('tabindex'), b.hasAttribute('data-long'), b.style.length]") == ["true", "auto", False, False, 0]
    assert stage.page.locator(".ndp-slot").count() == len(trace.output.ids)
    assert stage.page.locator(".ndp-prose-sheet").count() == 0
