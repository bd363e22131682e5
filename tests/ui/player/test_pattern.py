"""The pattern panel: what it says of every forward against what the model is really asked, and the panel itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from playwright.sync_api import expect

from nemodiff_core.cache import KVCache
from nemodiff_core.checkpoint import load
from nemodiff_core.engine import Engine
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Trace
from tests.ui.player.traces import Maker, noise

SAID = """async ([head, steps]) => {
  const { Lane } = await import('/player/lane.js');
  const { Forwards, positionOf, sees, contentOf, ledger } = await import('/player/forwards.js');
  const lane = new Lane(head, new Map());
  lane.push(steps);
  const forwards = new Forwards(lane);
  return steps.map((step, index) => {
    const forward = forwards.at(index);
    if (forward.shadows === null) return { prefix: forward.prefix, before: forward.before, after: forward.after, unknown: true };
    const inputs = [...Array(forward.count).keys()];
    const around = { step, before: lane.fold.at(index - 1), prompt: head.prompt.ids };
    return {
      prefix: forward.prefix, before: forward.before, after: forward.after, count: forward.count, computed: forward.computedSoFar,
      positions: inputs.map((i) => positionOf(forward, i)),
      contents: inputs.map((i) => contentOf(forward, i, around)),
      sees: inputs.map((i) => sees(forward, i)),
      kept: ledger(forward).filter((entry) => entry.kept).map((entry) => entry.position),
    };
  });
}"""


@dataclass
class Asked:
    """One forward as the model ran it."""

    tokens: list[int]
    positions: list[int]
    prefix: int  # cached positions that it read
    visible: torch.Tensor  # [q, prefix + q] bool, as the attention kernel got it
    before: int = 0  # cache length when the step began
    after: int = -1  # and when it was over


@dataclass
class Witness:
    """Sees every forward at the model's boundary and every attention call, whoever asks for them."""

    forwards: list[Asked] = field(default_factory=list)
    length: int = 0

    def step(self, before: int) -> None:
        """The step of the last forward has been recorded."""
        self.forwards[-1].before, self.forwards[-1].after = before, self.length


@contextmanager
def watched() -> Iterator[Witness]:
    witness, patch = Witness(), pytest.MonkeyPatch()
    hidden, attention = TriModeModel.hidden, F.scaled_dot_product_attention
    signature, layers = inspect.signature(hidden), []

    def see_hidden(self: TriModeModel, *args: Any, **kwargs: Any) -> torch.Tensor:
        bound = signature.bind(self, *args, **kwargs).arguments
        layers.clear()
        x = hidden(self, *args, **kwargs)
        visible, keys = layers[0]
        tokens, positions = bound["tokens"].reshape(-1).tolist(), bound["positions"]
        at = list(range(positions.start, positions.stop)) if isinstance(positions, slice) else positions.reshape(-1).tolist()
        # Heads that share keys are further rows of the same product.
        witness.forwards.append(Asked(tokens, at, keys - len(tokens), visible[: len(tokens)]))
        return x

    def see_attention(q: torch.Tensor, k: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not layers:
            mask, shape = kwargs.get("attn_mask"), (q.shape[-2], k.shape[-2])
            visible = torch.ones(shape, dtype=torch.bool) if mask is None else mask.reshape(shape) == 0  # added to the scores
            layers.append((visible.tril() if kwargs.get("is_causal") else visible, k.shape[-2]))
        return attention(q, k, *args, **kwargs)

    def follow(name: str) -> None:
        original = getattr(KVCache, name)

        def moved(self: KVCache, *args: Any) -> None:
            original(self, *args)
            witness.length = self.length

        patch.setattr(KVCache, name, moved)

    patch.setattr(TriModeModel, "hidden", see_hidden)
    patch.setattr("nemodiff_core.model.F.scaled_dot_product_attention", see_attention)
    follow("advance")
    follow("crop")
    try:
        yield witness
    finally:
        patch.undo()


def run(engine: Engine, **fields: Any) -> tuple[Trace, list[Asked]]:
    """A run's trace and what the model was asked in each of its steps."""
    fields = {"prompt": "Mira sat in the boat", "max_new_tokens": 24, "block_length": 8, "stop_at_eos": False, **fields}
    running = engine.run(DecodeRequest(**fields))
    with pytest.MonkeyPatch.context() as patch, watched() as witness:
        patch.setattr(engine, "fast", None)  # only the model's own modules can be watched
        before = 0
        for _ in running:
            witness.step(before)
            before = witness.length
    trace = running.trace()
    assert len(witness.forwards) == len(trace.steps), "a step is one forward"
    return trace, witness.forwards


def said(stage: Any, trace: Trace) -> list[dict[str, Any]]:
    data = trace.to_dict()
    return stage.ask(SAID, [{k: v for k, v in data.items() if k != "steps"}, data["steps"]])


def compare(stage: Any, trace: Trace, asked: list[Asked], mask_id: int) -> dict[str, int]:
    """Holds the browser's account against the model's; says how much of it was there to compare."""
    told, computed = {"shadows": 0, "contents": 0, "unknown": 0}, 0
    for step, mine, real in zip(trace.steps, said(stage, trace), asked, strict=True):
        where = f"step {step.index} ({step.phase})"
        assert (mine["prefix"], mine["before"], mine["after"]) == (real.prefix, real.before, real.after), where
        if mine.get("unknown"):
            told["unknown"] += 1
            continue
        assert mine["positions"] == real.positions, where
        visible = torch.zeros_like(real.visible)
        visible[:, : real.prefix] = True
        for query, ranges in enumerate(mine["sees"]):
            for low, high in ranges:
                visible[query, real.prefix + low : real.prefix + high] = True
        assert torch.equal(visible, real.visible), where
        for i, (content, token) in enumerate(zip(mine["contents"], real.tokens, strict=True)):
            if content is not None:
                assert (mask_id if content == "mask" else content) == token, f"{where}, input {i}"
                told["contents"] += 1
        computed += len(real.tokens)
        assert told["unknown"] or mine["computed"] == computed, where
        kept = range(real.prefix, real.after)
        assert mine["kept"] == list(kept), where
        told["shadows"] += len(real.tokens) - len(set(real.positions))
    return told


DRAFT = "the lantern went out and the boat was gone"
RUNS: dict[str, dict[str, Any]] = {
    "ar": {"mode": "ar"},
    "diffusion": {"mode": "diffusion", "threshold": 0.3},
    "diffusion that ends early": {"mode": "diffusion", "threshold": 0.3, "stop_at_eos": True, "max_new_tokens": 21},
    "diffusion with pins": {"mode": "diffusion", "threshold": 0.5, "pins": ((0, 200), (5, 201), (8, 202), (17, 203))},
    "diffusion that revises": {"mode": "diffusion", "threshold": 0.05, "revise_rounds": 3, "revise_bound": 0.9},
    "diffusion that reopens": {"mode": "diffusion", "threshold": 0.1, "remask_bound": 0.6, "candidates": 2},
    "diffusion that does it all": {
        "mode": "diffusion", "threshold": 0.05, "remask_bound": 0.6, "revise_rounds": 2, "revise_bound": 0.9, "max_forwards": 26,
        "max_forwards_per_block": 7, "pins": ((3, 200), (10, 201)),
    },
    "linear": {"mode": "linear_spec"},
    "linear, drafts in steps": {"mode": "linear_spec", "threshold": 0.3, "adaptive_block": True},
    "linear, sampled": {"mode": "linear_spec", "temperature": 1.0, "verification": "ratio", "seed": 3},
    "quadratic": {"mode": "quadratic_spec"},
    "quadratic, sampled": {"mode": "quadratic_spec", "temperature": 1.2, "seed": 1, "block_length": 5},
    "infill": {"mode": "infill", "template": "the ▢▢▢ went ▢{2} home", "threshold": 0.3, "max_new_tokens": 64},
    "infill at the start": {"mode": "infill", "template": "▢▢▢▢", "steps": 2, "max_new_tokens": 64, "remask_bound": 0.7},
    "infill of unknown length": {"mode": "infill", "template": "a▢{1,3} b ▢{2,4}.", "threshold": 0.3, "max_new_tokens": 64},
    "infill that reopens": {
        "mode": "infill", "template": "a ▢{1,3} b ▢{4}", "threshold": 0.1, "remask_bound": 0.7, "max_new_tokens": 64,
        "max_forwards_per_block": 3,
    },
    "refine": {"mode": "refine", "draft": DRAFT, "max_new_tokens": 128, "revise_bound": 0.9, "revise_rounds": 2},
    "refine that reopens": {
        "mode": "refine", "draft": DRAFT, "max_new_tokens": 128, "revise_bound": 0.9, "remask_bound": 0.5, "pins": ((2, 200), (9, 201)),
    },
    "refine what is believed": {"mode": "refine", "draft": DRAFT, "max_new_tokens": 128, "revise_bound": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("name", list(RUNS))
def test_every_forward_is_described_as_the_model_ran_it(name: str, stage: Any, tiny_engine: Engine) -> None:
    trace, asked = run(tiny_engine, **RUNS[name])
    told = compare(stage, trace, asked, tiny_engine.checkpoint.tokenizer.mask_id)
    assert told["contents"] > len(trace.steps)
    assert told["unknown"] == 0 or ("infill" in name and "reopens" in name)
    if "reopens" in name:
        assert told["shadows"] > 0, "no shadow ran, so nothing was compared"


@pytest.mark.parametrize("mode", ["ar", "diffusion", "linear_spec", "quadratic_spec"])
def test_a_thinking_budget_changes_nothing_of_it(mode: str, stage: Any, tiny_engine: Engine) -> None:
    tiny_engine.end_think_id = 205
    for budget in (0, 3, 9):
        trace, asked = run(tiny_engine, mode=mode, max_thinking_tokens=budget, threshold=0.3 if mode == "diffusion" else None)
        assert any(event.kind == "pin" for step in trace.steps for event in step.events)
        compare(stage, trace, asked, tiny_engine.checkpoint.tokenizer.mask_id)


@pytest.mark.parametrize("mode", ["linear_spec", "quadratic_spec", "diffusion"])
def test_the_bundled_model_is_described_as_well(mode: str, stage: Any, bundled: Engine) -> None:
    """Its drafts are accepted, which a random model's hardly are."""
    trace, asked = run(bundled, mode=mode, prompt="Write a story about a boat.", max_new_tokens=40, block_length=16, stop_at_eos=True)
    compare(stage, trace, asked, bundled.checkpoint.tokenizer.mask_id)
    if mode != "diffusion":
        assert sum(event.kind == "accept" for step in trace.steps for event in step.events) > 5


@pytest.fixture(scope="module")
def bundled() -> Engine:
    return Engine(load(Path(__file__).parents[3] / "nemodiff_core" / "models" / "tiny"))


def test_steps_that_follow_no_decoder_do_no_harm(stage: Any) -> None:
    for seed in range(6):
        stage.load([noise(seed)])
        stage.page.evaluate("() => window.player.select({ panel: 'pattern' })")
        for moment in (0, 1, 20, 60, 90):
            stage.seek(moment)


# -- the panel ---------------------------------------------------------------------------------------


def open_panel(stage: Any, trace: Trace, step: int) -> None:
    stage.load([trace])
    stage.page.evaluate("(step) => window.player.select({ panel: 'pattern', step })", step)
    stage.settle()
    expect(stage.page.locator(".ndp-pat")).to_be_visible()


def phase(trace: Trace, name: str, nth: int = 0) -> int:
    return [step.index for step in trace.steps if step.phase == name][nth]


def test_a_step_is_told_in_one_sentence(stage: Any) -> None:
    trace = Maker(seed=5).diffusion()
    prompt = len(trace.prompt.ids)
    open_panel(stage, trace, phase(trace, "denoise"))
    sentence = stage.page.locator(".ndp-pat-sentence")
    expect(sentence).to_have_text(
        f"This denoise forward reads {prompt} cached positions and looks at all 16 cells of the block in both directions; nothing it computes is kept."
    )
    figures = stage.page.locator(".ndp-pat dd")
    assert figures.all_text_contents()[:3] == [f"{prompt} → {prompt}", "16", "0"]
    stage.seek(phase(trace, "commit") + 1)
    assert figures.all_text_contents()[:3] == [f"{prompt} → {prompt + 16}", "16", "16"]
    expect(sentence).to_contain_text("all 16 are written to the cache and stay")
    stage.seek(0)
    expect(sentence).to_contain_text("No forward has run yet")


def test_what_verification_refuses_is_cropped(stage: Any) -> None:
    trace = Maker(seed=2).linear_spec()
    index = next(s.index for s in trace.steps if s.phase == "verify" and {e.kind for e in s.events} == {"accept", "reject", "bonus"})
    kept = sum(event.kind in ("accept", "bonus") for event in trace.steps[index].events)
    open_panel(stage, trace, index)
    strip = stage.page.locator(".ndp-kv-plot")
    assert strip.locator('.ndp-kv-cell[data-fate="kept"]').count() == kept
    assert strip.locator('.ndp-kv-cell[data-fate="cropped"]').count() == 16 - kept
    expect(strip).to_have_attribute("aria-label", re.compile(f"{kept} written now, kept, {16 - kept} written, then cropped"))
    stage.seek(index)
    assert strip.locator('.ndp-kv-cell[data-fate="gone"]').count() == 16


def test_query_rows_can_be_pointed_at_and_reached_by_key(stage: Any) -> None:
    trace = Maker(seed=2).linear_spec()
    index = phase(trace, "verify", 1)
    start = trace.steps[index].span[0]
    open_panel(stage, trace, index)
    pad, said = stage.page.get_by_role("slider", name="Query row"), stage.page.locator(".ndp-pat-row")
    pad.focus()
    stage.page.keyboard.press("Home")
    expect(said).to_have_text(re.compile(rf"^Position {start}, “.+”, sees {start} cached positions and itself\.$"))
    for _ in range(3):
        stage.page.keyboard.press("ArrowDown")
    expect(said).to_contain_text(f"Position {start + 3}")
    expect(said).to_contain_text("4 of the 16 inputs")
    expect(pad).to_have_attribute("aria-valuenow", "4")
    expect(pad).to_have_attribute("aria-valuetext", said.text_content())
    expect(stage.page.locator(".ndp-look-facts dd").first).to_have_text(str(start + 3))
    assert stage.get("p.step") == index, "up and down choose a row, not a step"
    stage.page.keyboard.press("ArrowLeft")
    stage.wait(f"p.step === {index - 1}")
    expect(said).to_contain_text("all 16 cells of the block")
    stage.focus()
    box = stage.page.locator(".ndp-pat-field").bounding_box()
    stage.page.mouse.move(box["x"] + 5, box["y"] + box["height"] * 15.5 / 16)
    expect(said).to_contain_text(f"Position {start + 15}")


def test_a_cell_hovered_above_is_a_row_below(stage: Any) -> None:
    trace = Maker(seed=2).linear_spec()
    index = phase(trace, "verify", 1)
    open_panel(stage, trace, index)
    cell = stage.page.locator(".ndp-row .ndp-cell").nth(2)
    cell.hover()
    expect(stage.page.locator(".ndp-pat-row")).to_contain_text(f"Position {cell.get_attribute('data-position')}")
    assert stage.page.locator(".ndp-kv-mark").count() == 1


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_no_width_scrolls_the_page_sideways(width: int, open_stage: Any, tiny_engine: Engine) -> None:
    stage = open_stage(width=width)
    trace, _ = run(tiny_engine, mode="quadratic_spec", block_length=16)
    for step in (0, 1):
        open_panel(stage, trace, step)
        assert not stage.page.evaluate("document.documentElement.scrollWidth > innerWidth")
        inside = "e => e.getBoundingClientRect().right <= document.querySelector('.ndp').getBoundingClientRect().right"
        assert stage.page.locator(".ndp-pat-plot").evaluate(inside) and stage.page.locator(".ndp-kv-plot").evaluate(inside)


def test_the_widest_forward_takes_few_elements(stage: Any, tiny_engine: Engine) -> None:
    trace, asked = run(tiny_engine, mode="quadratic_spec", block_length=32, prompt="x" * 300, max_new_tokens=40)
    assert max(len(forward.tokens) for forward in asked) > 1000
    for step in (0, 1):
        open_panel(stage, trace, step)
        assert stage.page.locator(".ndp-pat svg *").count() < 600
        assert stage.page.locator(".ndp-pat-seen").evaluate("p => p.getAttribute('d').length") < 20_000


def test_a_tap_chooses_a_row_that_stays(open_stage: Any) -> None:
    stage = open_stage(width=390, has_touch=True)
    trace = Maker(seed=2).linear_spec()
    open_panel(stage, trace, phase(trace, "verify", 1))
    field = stage.page.locator(".ndp-pat-field")
    stage.page.locator(".ndp-pat-plot").evaluate("p => p.scrollIntoView({ block: 'center' })")
    box = field.bounding_box()
    stage.page.touchscreen.tap(box["x"] + 9, box["y"] + box["height"] * 7.5 / 16)
    stage.settle()
    expect(stage.page.locator(".ndp-pat-row")).to_contain_text(f"Position {trace.steps[phase(trace, 'verify', 1)].span[0] + 7}")
