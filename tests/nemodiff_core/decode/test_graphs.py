"""The fast loop decodes what the eager one does: the same steps, whatever was decoded before on the same cache."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from nemodiff_core.decode.batch import alone
from nemodiff_core.decode.calls import Forward
from nemodiff_core.decode.graphs import WIDEST, Graphs
from nemodiff_core.decode.sampling import Choice, Sampler
from tests.nemodiff_core.decode.test_batch import DOUBLE, decoder, rows, same, some
from tests.nemodiff_core.decode.test_decoders import MASK

GRAPHS = [Graphs(model, capture=False) for model in DOUBLE]  # kept for all tests: runs must not see one another


@some
@given(seed=st.integers(0, 2), row=rows())
def test_every_mode_takes_the_same_steps(seed: int, row: dict) -> None:
    model = DOUBLE[seed]
    same(list(alone(model, decoder(model, row), GRAPHS[seed])), list(alone(model, decoder(model, row))), 1e-6)


@pytest.mark.parametrize("mode", ["ar", "diffusion", "linear_spec"])
def test_greedy_steps_behind_the_prompt_are_all_served(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, graphs, eager = DOUBLE[0], GRAPHS[0], []
    plain = Forward.run
    monkeypatch.setattr(Forward, "run", lambda call, model: (eager.append(call), plain(call, model))[1])
    fields = {"mode": mode, "max_new_tokens": 12, "stop_at_eos": False} | ({} if mode == "ar" else {"block_length": 6})
    steps = list(alone(model, decoder(model, {"prompt": [5, 6, 7], "given": None, "fields": fields}), graphs))
    assert len(steps) > 3 and [call.tokens.shape[1] for call in eager] == [3]


def test_what_a_run_left_behind_cannot_reach_the_next() -> None:
    model = DOUBLE[1]
    graphs, row = Graphs(model, capture=False), {"prompt": [1, 2], "given": None, "fields": {"mode": "ar", "max_new_tokens": 6}}
    first = list(alone(model, decoder(model, row), graphs))
    with torch.inference_mode():
        graphs._storage.keys.fill_(torch.nan)
        graphs._storage.values.fill_(torch.nan)
    same(list(alone(model, decoder(model, row), graphs)), first, 1e-9)


def test_a_larger_run_grows_the_cache_and_smaller_ones_keep_it() -> None:
    graphs = Graphs(DOUBLE[2], capture=False)
    small = graphs.new_cache(10)
    assert (small.length, small.capacity) == (0, 10)
    storage = graphs._storage
    assert graphs.new_cache(100).capacity == 100 and graphs._storage is storage
    assert graphs.new_cache(2000).capacity == 2000 and graphs._storage.capacity >= 2000 + WIDEST


def test_drafts_read_the_adapter_and_verifications_do_not() -> None:
    model, graphs = DOUBLE[0], GRAPHS[0]
    cache, tokens = graphs.new_cache(40), torch.tensor([[3, MASK, MASK, MASK]])
    with torch.inference_mode():
        Forward(torch.tensor([[9, 8, 7]]), "causal", cache, write=True).run(model)
        answers = {}
        for draft in (False, True):
            call = Forward(tokens, "bidirectional", cache, draft=draft, choice=Choice(Sampler(MASK, candidates=2)))
            answers[draft] = graphs.answer(call).clone()
            torch.testing.assert_close(answers[draft], call.run(model), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(answers[False], answers[True])


def test_what_it_cannot_hold_is_left_to_others() -> None:
    model, graphs = DOUBLE[0], GRAPHS[0]
    cache = graphs.new_cache(100)
    sampled = Choice(Sampler(MASK, temperature=1.0, generator=torch.Generator().manual_seed(0)))
    token = torch.tensor([[3]])
    with torch.inference_mode():
        assert graphs.answer(Forward(token, "causal", cache, write=True)) is None  # a prompt
        Forward(torch.tensor([[9, 8, 7]]), "causal", cache, write=True).run(model)
        assert graphs.answer(Forward(token, "causal", cache, write=True, choice=sampled)) is None
        assert graphs.answer(Forward(torch.zeros(1, WIDEST + 1, dtype=torch.long), "causal", cache)) is None
        assert graphs.answer(Forward(token, "causal", model.new_cache(10), write=True)) is None
        assert cache.length == 3
        assert graphs.answer(Forward(token, "causal", cache, write=True)) is not None
        assert cache.length == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures need a GPU")
def test_captured_steps_are_the_eager_ones() -> None:
    model = DOUBLE[0].to("cuda")
    try:
        graphs = Graphs(model)
        for mode in ("ar", "diffusion", "linear_spec"):
            fields = {"mode": mode, "max_new_tokens": 40, "candidates": 3} | ({} if mode == "ar" else {"block_length": 8})
            row = {"prompt": [5, 6, 7], "given": None, "fields": fields}
            for _ in range(2):
                same(list(alone(model, decoder(model, row), graphs)), list(alone(model, decoder(model, row))), 1e-5)
        assert graphs._steps and not graphs._broken
    finally:
        model.to("cpu")
