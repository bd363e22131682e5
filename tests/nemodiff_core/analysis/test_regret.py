"""Wrong commits are found with what should have stood there; the causal pass regrets nothing of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from nemodiff_core.analysis.regret import regret
from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError, TraceError
from nemodiff_core.trace import Trace
from nemodiff_core.training.vocabulary import MASK
from tests.conftest import random_model
from tests.nemodiff_core.analysis.scripted import scripted_engine
from tests.nemodiff_core.analysis.test_oracle import record

quick = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def of_kind(trace: Trace, kind: str) -> list[dict]:
    return [note for note in trace.annotations if note["kind"] == kind]


def test_nothing_to_regret_in_the_causal_pass_own_words(tiny_engine: Engine) -> None:
    trace = record(tiny_engine, mode="ar")
    found = regret(tiny_engine.checkpoint, trace)
    assert [note["nats"] for note in of_kind(found, "regret")] == [0.0] * len(trace.output.ids)
    assert not of_kind(found, "wrong_commit")
    for note, token in zip(of_kind(found, "regret"), trace.output.ids):
        assert note["best"] == token and note["probability"] == note["best_probability"]


@given(mode=st.sampled_from(["ar", "diffusion", "linear_spec"]), threshold=st.sampled_from([None, 0.0, 0.05]), block=st.integers(2, 8))
@quick
def test_findings_are_sound_and_leave_the_run_as_it_was(tiny_engine: Engine, mode, threshold, block) -> None:
    trace = record(tiny_engine, mode=mode, block_length=block, threshold=None if mode == "ar" else threshold)
    found = regret(tiny_engine.checkpoint, trace)
    again = Trace.from_json(found.to_json())
    assert again.annotations == found.annotations
    assert replace(found, annotations=[], vocabulary=trace.vocabulary) == trace
    positions = [note["position"] for note in of_kind(again, "regret")]
    assert positions == list(range(len(trace.prompt.ids), len(trace.prompt.ids) + len(trace.output.ids)))
    for note in again.annotations:
        mentioned = [note[key] for key in ("token", "alternative", "best") if key in note]
        assert all(str(token) in again.vocabulary for token in mentioned)
        assert all(0 <= note[key] <= 1 for key in note if key.endswith("probability"))
        assert note.get("nats", 0) >= 0
    for note in of_kind(again, "wrong_commit"):
        assert note["token"] != note["alternative"] and note["probability"] <= note["alternative_probability"]
        events = trace.steps[note["step"]].events
        assert any(event.position == note["position"] and event.token == note["token"] for event in events)
        assert len(events) > 1
    assert regret(tiny_engine.checkpoint, found).annotations == found.annotations, "a second look replaces the first"


RUNS = [
    {"mode": "diffusion", "threshold": 0.05},
    {"mode": "diffusion", "threshold": 0.0, "revise_rounds": 2, "revise_bound": 0.5},
    {"mode": "diffusion", "threshold": 0.03, "remask_bound": 0.05},
    {"mode": "diffusion", "threshold": 0.0, "pins": ((3, 210), (9, 220)), "stop_at_eos": True},
    {"mode": "refine", "threshold": 0.0, "draft": "not quite right", "revise_bound": 0.9},
    {"mode": "refine", "threshold": 0.05, "draft": "not quite right", "revise_bound": 0.9, "revise_rounds": 3},
    {"mode": "linear_spec"},
    {"mode": "linear_spec", "threshold": 0.05},
]


@pytest.mark.parametrize("knobs", RUNS, ids=str)
def test_the_surest_of_a_steps_commits_stands(tiny_engine: Engine, knobs: dict) -> None:
    # Its forward saw exactly the state of the step: it can only change where that state was put together wrongly.
    trace = record(tiny_engine, **knobs)
    found = regret(tiny_engine.checkpoint, trace)
    wrong = {(note["step"], note["position"]) for note in of_kind(found, "wrong_commit")}
    several = 0
    for step in trace.steps:
        kind = "draft" if step.phase == "draft" else "commit"
        chosen = [event for event in step.events if event.kind == kind]
        if step.phase in ("denoise", "revise", "draft") and len(chosen) > 1:
            several += 1
            surest = max(chosen, key=lambda event: event.confidence)
            assert (step.index, surest.position) not in wrong
    assert several


def test_an_adapter_that_drafted_is_needed_again(tiny_engine: Engine) -> None:
    trace = record(tiny_engine, mode="linear_spec")
    adapted = replace(trace, model=trace.model | {"adapter": True})
    with pytest.raises(TraceError, match="adapter"):
        regret(tiny_engine.checkpoint, adapted)


def test_one_commit_a_forward_is_never_wrong(tiny_engine: Engine) -> None:
    found = regret(tiny_engine.checkpoint, record(tiny_engine, steps=5))
    assert not of_kind(found, "wrong_commit")


def test_a_constructed_wrong_commit_is_found_with_its_alternative(tiny_tokenizer) -> None:
    # "New York" or "Los Angeles": each cell alone prefers a half that does not go with the other's.
    new, york, angeles, dot = 201, 202, 203, 204

    def fill(cells) -> dict:
        return {
            1: (new, 9.0),
            2: (york, 9.0) if cells[1] == new else (angeles, 6.0),
            3: (dot, 12.0),
        }

    engine = scripted_engine(tiny_tokenizer, fill, lambda ids: {new: york, york: dot, angeles: dot}.get(ids[-1], new))
    trace = record(engine, block_length=4, max_new_tokens=4, threshold=0.0)
    assert trace.output.ids == [new, new, angeles, dot]
    found = regret(engine.checkpoint, trace)
    (note,) = of_kind(found, "wrong_commit")
    assert (note["position"], note["token"], note["alternative"]) == (len(trace.prompt.ids) + 2, angeles, york)
    assert note["step"] == 1 and note["probability"] < 0.01 < 0.9 < note["alternative_probability"]
    first, second, third, fourth = of_kind(found, "regret")
    assert first["nats"] == fourth["nats"] == 0 and third["best"] == york and third["nats"] == pytest.approx(12, abs=0.01)
    assert second["best"] == york, "behind the seed the causal pass would have gone on at once"


def test_regret_is_the_gap_of_one_causal_pass(tiny_engine: Engine) -> None:
    trace = record(tiny_engine, threshold=0.0)
    model = tiny_engine.checkpoint.model
    ids = torch.tensor([trace.prompt.ids + trace.output.ids])
    log_p = model(ids, pattern="causal")[0, len(trace.prompt.ids) - 1 : -1].log_softmax(-1)
    log_p[:, MASK] = -torch.inf
    gaps = log_p.max(-1).values - log_p.gather(-1, ids[0, len(trace.prompt.ids) :, None])[:, 0]
    found = of_kind(regret(tiny_engine.checkpoint, trace), "regret")
    assert [note["nats"] for note in found] == pytest.approx(gaps.tolist(), abs=1e-4)
    assert max(gaps) > 0


def test_what_cannot_be_looked_at_is_refused(tiny_engine: Engine) -> None:
    trace = record(tiny_engine, threshold=0.0)
    check = tiny_engine.checkpoint
    refused = {
        "temperature 0": record(tiny_engine, threshold=0.0, temperature=0.9),
        "cannot be put through": replace(trace, request={"prompt": "x", "mode": "quadratic_spec"}),
        "no setting": replace(trace, request=trace.request | {"magic": 1}),
        "somebody/else": replace(trace, model=trace.model | {"id": "somebody/else"}),
        "parameters": replace(trace, model=trace.model | {"parameters": 7}),
        "other weights": trace,
        "no answer": replace(trace, output=replace(trace.output, ids=[], pieces=[])),
        "does not have": replace(trace, prompt=replace(trace.prompt, ids=[9999], pieces=["?"])),
    }
    for says, bad in refused.items():
        other = replace(check, model=random_model(5)) if says == "other weights" else check
        with pytest.raises(NemodiffError, match=says) as error:
            regret(other, bad)
        assert str(error.value).count(". ") == 0 and "\n" not in str(error.value)


def test_a_moved_checkpoint_is_the_same_and_another_revision_is_not(tiny_engine: Engine) -> None:
    trace = record(tiny_engine, threshold=0.0, max_new_tokens=6)
    moved = replace(trace, model=trace.model | {"id": "nvidia/random", "revision": "a" * 40})
    assert regret(tiny_engine.checkpoint, moved).annotations
    with pytest.raises(TraceError, match="revision aaaaaaaaaaaa"):
        regret(replace(tiny_engine.checkpoint, revision="b" * 40), moved)
