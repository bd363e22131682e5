"""The browser's fold against Python's: the same canvas after every step of every kind of trace."""

from __future__ import annotations

import random
from typing import Any

import pytest

from nemodiff_core.trace import Canvas, Trace
from tests.ui.player.traces import MODES, Maker, noise

FOLD = """async ([prompt, steps, order]) => {
  const { Fold } = await import('/player/fold.js');
  const fold = new Fold(prompt);
  steps.forEach((step) => fold.push(step));
  return order.map((index) => {
    const cells = fold.at(index);
    return [[...cells].sort((a, b) => a[0] - b[0]).map(([p, c]) => [p, c.status, c.token, c.confidence, c.entropy, c.step, c.replaced]), fold.output(cells)];
  });
}"""


def python_canvases(trace: Trace) -> dict[int, Any]:
    """Step -> cells and output. Values go through the trace's JSON first, as the browser's do."""
    steps = Trace.from_json(trace.to_json()).steps if trace.output.ids else trace.steps
    canvas, seen = Canvas(len(trace.prompt.ids)), {}
    for index in range(-1, len(steps)):
        if index >= 0:
            canvas.apply(steps[index])
        cells = [
            [p, c.status, c.token, _short(c.confidence), _short(c.entropy), c.step, c.replaced]
            for p, c in sorted(canvas.cells.items())
        ]
        seen[index] = [cells, canvas.output()]
    return seen


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def browser_canvases(stage: Any, trace: Trace, order: list[int]) -> list[Any]:
    steps = trace.to_dict()["steps"]
    return stage.ask(FOLD, [len(trace.prompt.ids), steps, order])


@pytest.mark.parametrize("mode", list(MODES))
def test_every_canvas_of_a_run_is_pythons(mode: str, stage: Any):
    for seed in range(3):
        trace = MODES[mode](Maker(seed=seed))
        expected = python_canvases(trace)
        order = list(expected)
        assert browser_canvases(stage, trace, order) == [expected[i] for i in order]
        assert expected[order[-1]][1] == trace.output.ids


def test_any_order_of_any_events_folds_as_in_python(stage: Any):
    for seed in range(6):
        trace = noise(seed)
        expected = python_canvases(trace)
        order = [-1, *random.Random(seed).choices(list(expected), k=150), -1, len(trace.steps) - 1, 31, 32, 33]
        assert browser_canvases(stage, trace, order) == [expected[i] for i in order], f"seed {seed}"


def test_jumps_in_a_long_run_fold_as_in_python(stage: Any):
    trace = noise(5, length=1200, reach=700)
    expected = python_canvases(trace)
    order = random.Random(5).choices(list(expected), k=60)
    assert browser_canvases(stage, trace, order) == [expected[i] for i in order]


# Of each step asked for: whether cells, length and output are those of a fold that never saw another step.
FAR = """async ([count, order, seed]) => {
  const { Canvas, Fold } = await import('/player/fold.js');
  let state = seed;
  const draw = (n) => { state = (state * 1103515245 + 12345) % 2147483648; return Math.floor((state / 2147483648) * n); };
  const kinds = ['commit', 'commit', 'commit', 'remask', 'draft', 'accept', 'reject', 'bonus'];
  const phases = ['ar', 'denoise', 'verify', 'draft'];
  const start = 7;
  const steps = Array.from({ length: count }, (_, n) => {
    const at = start + Math.max(0, (n >> 1) - draw(300));
    return { phase: phases[draw(4)], span: [at, at + draw(9)], events: [{ kind: kinds[draw(8)], position: at, token: draw(50), confidence: draw(100) / 100 }] };
  });
  const written = (cells) => JSON.stringify([...cells].sort((a, b) => a[0] - b[0]));
  const wanted = new Map();
  const canvas = new Canvas(start);
  steps.forEach((step, index) => {
    canvas.apply(step, index);
    if (order.includes(index)) wanted.set(index, written(canvas.cells));
  });
  const fold = new Fold(start);
  steps.forEach((step) => fold.push(step));
  const same = order.map((index) => {
    const cells = fold.at(index);
    return written(cells) === wanted.get(index) && fold.length(index) === fold.output(cells).length;
  });
  return { same, frames: fold.keyframes.length };
}"""


def test_a_run_of_very_many_steps_keeps_few_keyframes_and_all_its_canvases(stage: Any):
    count = 40_000
    draw = random.Random(3)
    far = [draw.randrange(count) for _ in range(12)]
    order = [*far, 0, count - 1, *(step for at in far[:6] for step in (at, max(0, at - 1), at, min(count - 1, at + 1)))]
    found = stage.ask(FAR, [count, order, 11])
    assert all(found["same"])
    assert found["frames"] <= 513


@pytest.mark.parametrize("mode", list(MODES))
def test_scrubbing_to_the_start_and_back_ends_in_the_same_output(mode: str, stage: Any):
    trace = MODES[mode](Maker(seed=7))
    stage.load([trace])
    assert stage.get("p.output") == trace.output.ids
    assert stage.get("p.steps") == len(trace.steps)
    stage.seek(0)
    assert stage.get("p.step") == -1 and stage.get("p.output") == []
    stage.seek(len(trace.steps) // 2)
    assert stage.get("p.output") == trace.canvas_at(len(trace.steps) // 2 - 1).output()
    stage.seek(len(trace.steps))
    assert stage.get("p.output") == trace.output.ids
    assert stage.get("p.text") == "".join(trace.output.pieces[:-1])  # without the end token
