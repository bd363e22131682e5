"""The CPU's fast loop decodes what the eager one does; what rows write together are the very bits that they write alone."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, strategies as st

from nemodiff_core.decode.batch import alone, fast_for, together
from nemodiff_core.decode.calls import Forward
from nemodiff_core.decode.compiled import Compiled
from nemodiff_core.lora import DraftAdapter
from nemodiff_core.model import TriModeModel
from nemodiff_core.trace import Step
from tests.nemodiff_core.decode.test_batch import SINGLE, decoder, rows, same, some
from tests.nemodiff_core.decode.test_decoders import MASK, MODELS, VOCABULARY, output, prompts

FAST = [Compiled(model) for model in MODELS]

CASES = [
    {"mode": "ar"}, {"mode": "ar", "temperature": 0.8, "top_p": 0.9, "candidates": 3},
    {"mode": "diffusion", "threshold": 0.05}, {"mode": "diffusion", "policy": "margin", "margin_bound": 0.1, "candidates": 2},
    {"mode": "diffusion", "revise_rounds": 2, "revise_bound": 0.5}, {"mode": "linear_spec"}, {"mode": "linear_spec", "temperature": 0.7},
    {"mode": "quadratic_spec", "block_length": 5},
]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fields", CASES, ids=lambda fields: "-".join(map(str, fields.values())))
def test_every_mode_takes_the_steps_of_the_eager_loop(seed: int, fields: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"prompt": [5, 6, 7, 8], "given": None, "fields": {"max_new_tokens": 24, "block_length": 6, "stop_at_eos": False} | fields}
    model = MODELS[seed]
    eager = list(alone(model, decoder(model, row)))
    monkeypatch.setattr(Forward, "run", lambda call, model: pytest.fail(f"a forward was not served: {call}"))
    compiled = list(alone(model, decoder(model, row), FAST[seed]))
    assert len(eager) > 4
    same(compiled, eager, 1e-4)


@some
@given(seed=st.integers(0, 2), wanted=st.lists(rows(), min_size=2, max_size=4))
def test_rows_together_write_to_the_bit_what_they_write_alone(seed: int, wanted: list[dict]) -> None:
    model, steps = MODELS[seed], [[] for _ in wanted]
    for row, step in together(model, [decoder(model, row) for row in wanted], fast=FAST[seed]):
        if step is not None:
            steps[row].append(step)
    for row, own in zip(wanted, steps):
        assert _untimed(own) == _untimed(list(alone(model, decoder(model, row), FAST[seed])))


@some
@given(seed=st.integers(0, 2), prompt=prompts, block=st.integers(2, 20), candidates=st.sampled_from([0, 3]))
def test_self_speculation_writes_ars_tokens_with_ars_very_confidences(seed, prompt, block, candidates) -> None:
    fields = {"max_new_tokens": 30, "candidates": candidates}
    found = []
    for more in ({"mode": "ar"}, {"mode": "linear_spec", "block_length": block}):
        row = {"prompt": prompt, "given": None, "fields": fields | more}
        steps = list(alone(MODELS[seed], decoder(MODELS[seed], row), FAST[seed]))
        events = [e for step in steps if step.phase != "draft" for e in step.events if e.kind in ("seed", "commit", "accept", "bonus")]
        found.append({e.position: (e.token, e.confidence) for e in events})
    assert found[0] == found[1] and found[0]


def test_changed_weights_are_packed_again() -> None:
    model = copy.deepcopy(MODELS[0])
    fast, row = Compiled(model), {"prompt": [1, 2], "given": None, "fields": {"mode": "ar", "max_new_tokens": 6, "stop_at_eos": False}}
    before = list(alone(model, decoder(model, row), fast))
    program = fast._program
    assert list(alone(model, decoder(model, row), fast)) == before and fast._program is program
    with torch.no_grad():
        model.diffusion_head.weight.mul_(-1)
    after = list(alone(model, decoder(model, row), fast))
    assert output([1, 2], after) != output([1, 2], before)
    same(after, list(alone(model, decoder(model, row))), 1e-4)


def test_drafts_with_an_adapter_are_left_to_the_model() -> None:
    model, tokens = MODELS[0], torch.tensor([[3, MASK, MASK]])
    adapted = copy.deepcopy(model)
    adapted.draft_adapter = copy.deepcopy(SINGLE[0].draft_adapter)
    assert isinstance(adapted.draft_adapter, DraftAdapter)
    fast = Compiled(adapted)
    cache = fast.new_cache(20)
    with torch.inference_mode():
        assert fast.answer(Forward(tokens, "bidirectional", cache, draft=True)) is None
        assert fast.answer(Forward(tokens, "bidirectional", cache)) is not None
        plain = FAST[0].new_cache(20)
        assert FAST[0].answer(Forward(tokens, "bidirectional", plain, draft=True)) is not None  # there is none to add


def test_whatever_stands_in_for_the_head_is_asked() -> None:
    model = copy.deepcopy(MODELS[0])
    model.head = lambda x: torch.eye(VOCABULARY)[42].expand(*x.shape[:-1], -1)
    fast, row = Compiled(model), {"prompt": [1, 2], "given": None, "fields": {"mode": "ar", "max_new_tokens": 3}}
    assert output([1, 2], list(alone(model, decoder(model, row), fast))) == [42, 42, 42]


def test_a_full_cache_is_refused_as_by_the_model() -> None:
    cache = FAST[0].new_cache(3)
    with torch.inference_mode():
        assert FAST[0].answer(Forward(torch.tensor([[1, 2, 3]]), "causal", cache, write=True)) is not None
        assert cache.length == 3
        full = Forward(torch.tensor([[1]]), "causal", cache, write=True)
        assert FAST[0].answer(full) is None
        with pytest.raises(ValueError, match="do not fit"):
            full.run(MODELS[0])


def test_it_serves_small_float32_models_unless_references_are_wished_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[0]
    assert isinstance(fast_for(model), Compiled)
    assert not Compiled.serve(copy.deepcopy(model).bfloat16())
    odd = TriModeModel(dataclasses.replace(model.config, head_dim=24))
    assert not Compiled.serve(odd)
    quantized = copy.deepcopy(model)
    quantized.quantized = "int8"
    assert not Compiled.serve(quantized)
    monkeypatch.setenv("NEMODIFF_KERNELS", "reference")
    assert fast_for(model) is None


def test_a_compiler_that_does_not_work_costs_nobody_the_run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr("kernels.cpu_forward.Program", fail)
    model, row = MODELS[0], {"prompt": [1, 2], "given": None, "fields": {"mode": "ar", "max_new_tokens": 6, "stop_at_eos": False}}
    fast = Compiled(model)
    for _ in range(2):
        same(list(alone(model, decoder(model, row), fast)), list(alone(model, decoder(model, row))), 0)
    assert sum("NUMBA_CACHE_DIR" in record.message for record in caplog.records) == 1


def _untimed(steps: list[Step]) -> list[Step]:
    return [dataclasses.replace(step, elapsed_ns=0) for step in steps]
