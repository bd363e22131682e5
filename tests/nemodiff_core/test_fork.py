"""What-ifs: children go on from any step of their parent, and differ from it by what was changed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from nemodiff_core.checkpoint import bundled_path, load
from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError
from nemodiff_core.fork import Intervention, fork
from nemodiff_core.metrics import summary
from nemodiff_core.request import parse_request
from nemodiff_core.trace import EMITTED, Trace

PROMPT = "What is 12 + 30?"
MODES = ("ar", "diffusion", "linear_spec", "quadratic_spec")
_runs: dict[tuple, Trace] = {}


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(load(bundled_path()))


def run(engine: Any, **fields: Any) -> Trace:
    """A run of the engine; equal requests are decoded once."""
    key = tuple(sorted(fields.items()))
    if key not in _runs:
        made = engine.run(parse_request({"prompt": PROMPT, "max_new_tokens": 24, "candidates": 3, **({} if fields["mode"] == "ar" else {"block_length": 8}), **fields}))
        for _ in made:
            pass
        _runs[key] = made.trace()
    return _runs[key]


def child(engine: Any, parent: Trace, what: Intervention) -> Trace:
    made = fork(engine, parent, what)
    seen = list(made)
    trace = made.trace()
    assert seen == trace.steps, "whoever follows the child sees its parent's steps first"
    assert trace.parent["trace"] == parent.id and trace.parent["step"] == what.step
    assert trace.steps[: what.step + 1] == parent.steps[: what.step + 1]
    assert trace.canvas_at(len(trace.steps) - 1).output() == trace.output.ids
    assert Trace.from_json(trace.to_json()).to_json() == trace.to_json()
    assert summary(trace)["tokens"] == len(trace.output.ids)
    return trace


@given(mode=st.sampled_from(MODES), share=st.floats(0, 1), rounds=st.sampled_from([0, 2]))
@settings(max_examples=30, deadline=None)
def test_a_child_with_nothing_changed_writes_its_parents_text(engine: Any, mode: str, share: float, rounds: int):
    revision = {"revise_rounds": rounds, "revise_bound": 0.3} if mode == "diffusion" and rounds else {}
    parent = run(engine, mode=mode, **revision)
    step = round(share * (len(parent.steps) - 2))
    # Inside a revision the decoder's own memory of what it doubted is not part of the canvas.
    if any(s.phase == "revise" for s in parent.steps[: step + 1]) and parent.steps[step].phase != "commit":
        return
    try:
        again = child(engine, parent, Intervention(step))
    except NemodiffError as error:
        assert "over at this step" in str(error) and parent.canvas_at(step).output() == parent.output.ids
        return
    assert again.output.ids == parent.output.ids


def cells(parent: Trace, step: int) -> list[int]:
    canvas, origin = parent.canvas_at(step), len(parent.prompt.ids)
    return [origin + i for i in range(len(canvas.output()))]


@given(mode=st.sampled_from(MODES), onto=st.sampled_from([None, *MODES]), share=st.floats(0, 1), where=st.floats(0, 1), token=st.integers(200, 400))
@settings(max_examples=30, deadline=None)
def test_a_forced_token_stands_and_what_is_before_it_stays(engine: Any, mode: str, onto: str | None, share: float, where: float, token: int):
    parent = run(engine, mode=mode)
    step = round(share * (len(parent.steps) - 1))
    reached = cells(parent, step)
    if not reached:
        return
    position = reached[round(where * (len(reached) - 1))]
    made = child(engine, parent, Intervention(step, "force", position, token, {"mode": onto} if onto else {}))
    origin = len(parent.prompt.ids)
    assert made.output.ids[position - origin] == token
    assert made.request["mode"] == (onto or mode)
    if (onto or mode) != "diffusion":
        assert made.output.ids[: position - origin] == parent.output.ids[: position - origin]


@given(mode=st.sampled_from(MODES), where=st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_a_banned_token_does_not_come_back_and_a_remasked_one_may(engine: Any, mode: str, where: float):
    parent = run(engine, mode=mode)
    last, origin = len(parent.steps) - 1, len(parent.prompt.ids)
    reached = cells(parent, last)
    position = reached[round(where * (len(reached) - 1))]
    token = parent.output.ids[position - origin]
    banned = child(engine, parent, Intervention(last, "ban", position, token))
    assert banned.output.ids[position - origin : position - origin + 1] != [token]
    again = child(engine, parent, Intervention(last, "remask", position))
    first = again.steps[last + 1].events[0]
    assert (first.position, first.kind) == (position, "remask")
    # Greedy and from the same state: in the left-to-right modes the same choice is made again.
    if mode != "diffusion":
        assert again.output.ids == parent.output.ids


def test_a_pinned_cell_is_never_revised(engine: Any):
    parent = run(engine, mode="diffusion", steps=1)
    step = next(s.index for s in parent.steps if s.phase == "denoise")
    position = cells(parent, step)[3]
    token = parent.canvas_at(step).cells[position].token
    made = child(engine, parent, Intervention(step, "pin", position, changes={"revise_rounds": 4, "revise_bound": 1.0}))
    assert made.output.ids[position - len(parent.prompt.ids)] == token
    kinds = {e.kind for s in made.steps[step + 1 :] for e in s.events if e.position == position}
    assert kinds <= {"pin"}


def test_settings_change_from_a_step_on(engine: Any):
    parent = run(engine, mode="diffusion", threshold=0.9)
    made = child(engine, parent, Intervention(1, changes={"steps": 1}))
    assert made.request["steps"] == 1 and made.request["threshold"] is None
    assert len(made.steps) <= len(parent.steps) + 1
    assert "steps 1" in made.parent["label"]


@pytest.mark.parametrize("mode", MODES)
def test_a_forced_end_is_the_last_token_and_every_step_is_a_forward(engine: Any, mode: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "fast", None)  # so that every forward goes through the model's modules
    parent, forwards = run(engine, mode=mode), []
    position = cells(parent, len(parent.steps) - 1)[2]
    hook = engine.checkpoint.model.encoder.embed_tokens.register_forward_hook(lambda *_: forwards.append(1))
    try:
        made = child(engine, parent, Intervention(len(parent.steps) - 1, "force", position, engine.checkpoint.tokenizer.eos_id))
    finally:
        hook.remove()
    assert len(made.output.ids) == 3 and made.stop_reason == "eos"
    assert len(forwards) == len(made.steps) - len(parent.steps) >= 1


def test_a_child_can_be_a_parent(engine: Any):
    parent = run(engine, mode="diffusion")
    first = child(engine, parent, Intervention(2, changes={"block_length": 4}))
    second = child(engine, first, Intervention(len(first.steps) // 2, changes={"mode": "ar"}))
    assert second.parent["trace"] == first.id and second.request["mode"] == "ar"


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (Intervention(99), "no step 100"),
        (Intervention(1, "force", 0, 200), "only the answer"),
        (Intervention(1, "force", None, 200), "choose a cell"),
        (Intervention(1, "ban", 30), "token to ban"),
        (Intervention(0, "pin", 60), "no token to pin"),
        (Intervention(1, "force", 5000, 200), "behind the longest answer|not been reached"),
        (Intervention(1, changes={"mode": "refine"}), "draft"),
        (Intervention(1, changes={"threshold": 7}), "threshold"),
        (Intervention(1, "force", 30, 10**6), "does not have"),
        (Intervention(1, "force", 30, 100), "mask cannot be written"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_sentence(engine: Any, what: Intervention, says: str):
    parent = run(engine, mode="diffusion")
    with pytest.raises(NemodiffError, match=says) as refused:
        fork(engine, parent, what)
    assert str(refused.value).endswith(".")


def test_another_models_run_is_not_continued(engine: Any):
    from dataclasses import replace

    parent = run(engine, mode="ar")
    with pytest.raises(NemodiffError, match="is loaded"):
        fork(engine, replace(parent, model={**parent.model, "id": "other"}), Intervention(1))


def test_standing_cells_of_the_open_block_survive(engine: Any):
    parent = run(engine, mode="diffusion", steps=8)
    step = next(s.index for s in parent.steps if s.phase == "denoise") + 2
    stood = {p: c.token for p, c in parent.canvas_at(step).cells.items() if c.status in EMITTED}
    made = child(engine, parent, Intervention(step, changes={"threshold": 0.0}))
    origin = len(parent.prompt.ids)
    assert {p: made.output.ids[p - origin] for p in stood if p - origin < len(made.output.ids)} == {
        p: t for p, t in stood.items() if p - origin < len(made.output.ids)
    }


JSON = "Turn this into JSON: Hugo is from Delhi and 80 years old."
GIVEN = {
    "refine": {"draft": '{"name": "Hugo", "city": "Rome", "age": 81}', "revise_bound": 0.3},
    "infill": {"template": '{"name": "▢", "city": "▢{1,3}", "age": ▢{1,2}}', "block_length": 16},
}


def edited(engine: Any, mode: str) -> Trace:
    """A run of a mode that is given text; it takes forwards of every kind to come to its answer."""
    return run(engine, mode=mode, prompt=JSON, max_new_tokens=40, **GIVEN[mode])


@pytest.mark.parametrize("mode", GIVEN)
def test_given_text_goes_on_from_every_step(engine: Any, mode: str):
    parent = edited(engine, mode)
    assert {"refine": "revise", "infill": "verify"}[mode] in {step.phase for step in parent.steps}
    for step in range(-1, len(parent.steps) - 1):
        assert child(engine, parent, Intervention(step)).output.ids == parent.output.ids, step
    with pytest.raises(NemodiffError, match="over at this step"):
        fork(engine, parent, Intervention(len(parent.steps) - 1))


@given(mode=st.sampled_from(list(GIVEN)), action=st.sampled_from(["pin", "remask", "ban", "force"]), where=st.floats(0, 1), share=st.floats(0, 1), twice=st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_cell_of_given_text_is_changed_and_the_rest_is_written_around_it(
    engine: Any, mode: str, action: str, where: float, share: float, twice: bool
):
    parent = edited(engine, mode)
    if twice:
        parent = child(engine, parent, Intervention(len(parent.steps) - 1, "pin", len(parent.prompt.ids) + 4))
    step = round(share * (len(parent.steps) - 1))
    reached = cells(parent, step)
    if not reached:
        return
    position = reached[round(where * (len(reached) - 1))]
    offset, stood = position - len(parent.prompt.ids), parent.canvas_at(step).cells[position].token
    token = {"ban": stood, "force": engine.checkpoint.tokenizer.encode_plain("9")[0]}.get(action)
    try:
        made = child(engine, parent, Intervention(step, action, position, token))
    except NemodiffError as refused:
        assert mode == "infill" and ("given text" in str(refused) or "may not hold" in str(refused))
        return
    assert made.request["mode"] == mode
    if mode == "refine":
        assert len(made.output.ids) == len(parent.output.ids)
    if action == "ban":
        assert made.output.ids[offset] != token
    elif action != "remask":
        assert made.output.ids[offset] == (stood if action == "pin" else token)


@pytest.mark.parametrize("mode", GIVEN)
@pytest.mark.parametrize("onto", MODES)
def test_given_text_goes_on_in_another_mode(engine: Any, mode: str, onto: str):
    parent = edited(engine, mode)
    step = next(s.index for s in parent.steps if s.phase == "commit" and s.index > 1)
    made = child(engine, parent, Intervention(step, changes={"mode": onto}))
    stood = parent.canvas_at(step).output()
    assert made.output.ids[: len(stood)] == stood and len(made.output.ids) > len(stood)


def test_what_a_gap_and_the_text_around_it_refuse(engine: Any):
    parent = edited(engine, "infill")
    last, origin = len(parent.steps) - 1, len(parent.prompt.ids)
    pinned = {e.position for s in parent.steps for e in s.events if e.kind == "pin"}
    gap = next(origin + i for i in range(len(parent.output.ids)) if origin + i not in pinned)
    quote = engine.checkpoint.tokenizer.encode_plain('"')[0]
    with pytest.raises(NemodiffError, match="would not parse"):
        fork(engine, parent, Intervention(last, "force", gap, quote))
    with pytest.raises(NemodiffError, match="change the text in Edit"):
        fork(engine, parent, Intervention(last, "remask", origin))
    with pytest.raises(NemodiffError, match="not been reached"):
        fork(engine, parent, Intervention(0, "force", gap, parent.output.ids[gap - origin]))


def test_a_commit_pass_that_reopens_its_block_can_be_gone_on_from(engine: Any):
    parent = run(engine, mode="diffusion", prompt="Tell me a story about Leo and a small cup.", threshold=0.5, max_new_tokens=40, revise_rounds=4, revise_bound=0.3, block_length=16)
    reopening = [s.index for s in parent.steps if s.phase == "commit" and any(e.kind == "remask" for e in s.events)]
    assert reopening
    for step in reopening:
        assert child(engine, parent, Intervention(step)).steps[step + 1].phase == "prefill"


@pytest.mark.parametrize("mode", ["diffusion", *GIVEN])
def test_a_child_that_began_further_left_is_gone_on_from_at_its_first_step(engine: Any, mode: str):
    parent = run(engine, mode=mode) if mode == "diffusion" else edited(engine, mode)
    position = len(parent.prompt.ids) + 4  # of the first block, or of the first gap
    first = child(engine, parent, Intervention(len(parent.steps) - 1, "remask", position))
    assert first.steps[len(parent.steps)].phase == "prefill"
    again = child(engine, first, Intervention(len(parent.steps)))
    assert again.output.ids == first.output.ids


def test_a_pinned_cell_that_is_remasked_is_pinned_no_longer(engine: Any):
    parent = run(engine, mode="diffusion")
    position, last = cells(parent, len(parent.steps) - 1)[1], len(parent.steps) - 1
    forced = child(engine, parent, Intervention(last, "force", position, 300))
    again = child(engine, forced, Intervention(len(forced.steps) - 1, "remask", position))
    assert again.request["pins"] == () and again.output.ids == parent.output.ids
