"""Speed of light: the same output, never more forwards, and the optimum where it is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from nemodiff_core.analysis.oracle import one_at_a_time, speed_of_light
from nemodiff_core.engine import Engine
from nemodiff_core.errors import TraceError
from nemodiff_core.metrics import nfe
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Trace
from nemodiff_core.training.vocabulary import EOS, MASK
from tests.conftest import random_model
from tests.nemodiff_core.analysis.scripted import scripted_engine


def record(engine: Engine, **fields) -> Trace:
    request = DecodeRequest(**{"prompt": "Hi", "max_new_tokens": 20, "block_length": 6, "stop_at_eos": False} | fields)
    run = engine.run(request)
    list(run)
    return run.trace()


def reference(engine: Engine, **fields) -> Trace:
    block = fields.get("block_length", 6)
    return record(engine, steps=block - 1, **fields)


@given(
    block=st.integers(2, 9),
    length=st.integers(1, 20),
    temperature=st.sampled_from([0.0, 0.0, 0.8]),
    candidates=st.sampled_from([0, 2]),
    lean=st.sampled_from([0.0, 6.0]),
    budget=st.sampled_from([0, 12, 60]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_the_schedule_writes_the_same_output_in_no_more_forwards(
    tiny_engine: Engine, block, length, temperature, candidates, lean, budget
) -> None:
    # A model that leans towards the end token stops at every place in a block.
    if lean:
        head = tiny_engine.checkpoint.model.diffusion_head.weight
        head[EOS] = lean * head[EOS + 1]
    knobs = {"block_length": block, "max_new_tokens": length, "temperature": temperature, "candidates": candidates}
    trace = reference(tiny_engine, stop_at_eos=lean > 0, **knobs)
    found = speed_of_light(tiny_engine.checkpoint, trace, budget)
    assert Trace.from_json(found.to_json()).output == trace.output  # reading folds the steps
    assert nfe(found) <= nfe(trace)
    assert found.parent["trace"] == trace.id and found.id != trace.id
    assert sum(note["forwards"] for note in found.annotations) == sum(s.phase == "denoise" for s in found.steps)
    for note in found.annotations:
        assert note["forwards"] <= min(note["reference"], note["greedy"] or note["reference"])
        assert note["found"] == "exact" or note["searched"] >= budget
        assert temperature or not note["given"]
    for step in found.steps:
        assert step.phase != "denoise" or bool(step.candidates) == (candidates > 0)
        for event in step.events:
            assert event.kind == "reject" or 0 < event.confidence <= 1


def test_every_commit_is_what_the_model_predicts_from_the_state_before_it(tiny_engine: Engine) -> None:
    trace = reference(tiny_engine)
    found = speed_of_light(tiny_engine.checkpoint, trace, budget=40)
    model = tiny_engine.checkpoint.model
    for step in found.steps:
        if step.phase != "denoise":
            continue
        cells, (start, end) = found.canvas_at(step.index - 1).cells, step.span
        ids = trace.prompt.ids + [cells[p].token for p in range(len(trace.prompt.ids), start)]
        block = [MASK if p not in cells or cells[p].token is None else cells[p].token for p in range(start, end)]
        cache = model.new_cache(len(ids))
        model(torch.tensor([ids]), pattern="causal", cache=cache, write=True)
        logits = model(torch.tensor([block]), pattern="bidirectional", cache=cache)[0]
        probabilities = logits.softmax(-1)
        logits[:, MASK] = -torch.inf
        for event in step.events:
            assert logits[event.position - start].argmax() == event.token
            assert event.confidence == pytest.approx(probabilities[event.position - start, event.token].item(), abs=1e-5)


LETTERS = {offset: 200 + offset for offset in range(6)}


def misleading(cells) -> dict:
    """Cell 1 shows all others; cell 2, while 3 is masked, hides them again."""
    filled = {o for o in range(1, 6) if cells[o] != MASK}
    right = {frozenset(): {1, 2}, frozenset((1,)): {2, 3, 4, 5}, frozenset((1, 2)): {3}, frozenset((1, 2, 3)): {4},
             frozenset((1, 2, 3, 4)): {5}}.get(frozenset(filled), set())  # fmt: skip
    # The surest cell is the leftmost, so that the reference goes from left to right.
    return {o: (LETTERS[o], 20.0 - o) if o in right else (300, 1.0) for o in range(1, 6)}


def test_an_oracle_that_leaves_a_right_cell_out_beats_greed(tiny_tokenizer) -> None:
    engine = scripted_engine(tiny_tokenizer, misleading, lambda ids: LETTERS[0])
    trace = reference(engine, max_new_tokens=6)
    assert trace.output.ids == list(LETTERS.values())
    found = speed_of_light(engine.checkpoint, trace)
    (note,) = found.annotations
    assert (note["reference"], note["greedy"], note["forwards"], note["found"]) == (5, 4, 2, "exact")
    assert [[e.position - len(trace.prompt.ids) for e in s.events] for s in found.steps if s.phase == "denoise"] == [[1], [2, 3, 4, 5]]


def test_what_is_no_finished_one_at_a_time_run_is_refused(tiny_engine: Engine) -> None:
    trace = reference(tiny_engine)
    check = tiny_engine.checkpoint
    refused = {
        "several cells": record(tiny_engine, threshold=0.0),
        "mode diffusion": record(tiny_engine, mode="ar"),
        "not finished": replace(trace, stop_reason="cancelled"),
        "other weights": trace,
        "give the model": replace(trace, model=trace.model | {"parameters": 7}),
        "save it again": replace(trace, steps=trace.steps[:3] + trace.steps[4:]),
    }
    for says, bad in refused.items():
        other = replace(check, model=random_model(5)) if says == "other weights" else check
        with pytest.raises(TraceError, match=says) as error:
            speed_of_light(other, bad)
        assert str(error.value).count(". ") == 0 and "\n" not in str(error.value)


def test_the_reference_request_commits_one_cell_a_forward() -> None:
    request = one_at_a_time(DecodeRequest(prompt="x", mode="linear_spec", threshold=0.3, block_length=8, max_new_tokens=9))
    assert (request.mode, request.steps, request.threshold, request.max_new_tokens) == ("diffusion", 7, None, 9)
