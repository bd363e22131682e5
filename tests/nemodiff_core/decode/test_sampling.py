"""Choosing tokens: ties, masks, nuclei, confidence and entropy."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from nemodiff_core.decode.sampling import Look, Sampler, looks_of
from nemodiff_core.errors import NemodiffError

MASK = 2


def read(packed: torch.Tensor) -> list[Look]:
    return looks_of(packed.tolist())


def look(logits: list[float], **knobs):
    return read(Sampler(MASK, **knobs).choose(torch.tensor([logits])))[0]


def test_ties_go_to_the_lowest_index_and_the_mask_is_passed_over() -> None:
    assert look([1.0, 3.0, 9.0, 3.0]).token == 1


def test_confidence_and_entropy_are_of_the_whole_distribution() -> None:
    logits = [0.0, 1.0, 2.0, 0.5]
    p = torch.tensor(logits).softmax(0)
    seen = look(logits)
    assert seen.confidence == pytest.approx(float(p[1]), abs=1e-6)
    assert seen.entropy == pytest.approx(float(-(p * p.log()).sum()), abs=1e-5)


def test_candidates_are_the_best_without_the_mask() -> None:
    seen = look([0.0, 1.0, 5.0, 3.0, 2.0], candidates=3)
    assert seen.ids == (3, 4, 1)
    p = torch.tensor([0.0, 1.0, 5.0, 3.0, 2.0]).softmax(0)
    assert seen.probabilities == pytest.approx([float(p[i]) for i in (3, 4, 1)], abs=1e-6)


def test_tempered_confidence_is_that_of_the_softmax_drawn_from() -> None:
    g = torch.Generator().manual_seed(0)
    cold = look([0.0, 9.0, 0.0, 0.0], temperature=0.5, tempered=True, generator=g)
    allowed = torch.tensor([0.0, 9.0, 0.0]) / 0.5
    assert cold.confidence == pytest.approx(float(allowed.softmax(0)[1]), abs=1e-5)


def test_top_p_never_leaves_the_nucleus() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 1e-9, 0.15, 0.05])).repeat(400, 1)
    sampler = Sampler(MASK, 1.0, 0.7, generator=torch.Generator().manual_seed(1))
    assert {seen.token for seen in read(sampler.choose(logits))} == {0, 1}
    narrow = Sampler(MASK, 1.0, 1e-6, generator=torch.Generator().manual_seed(1))
    assert {seen.token for seen in read(narrow.choose(logits))} == {0}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_reported(temperature: float, bad: float) -> None:
    with pytest.raises(NemodiffError, match="not numbers"):
        look([0.0, bad, 0.0, 1.0], temperature=temperature)


def test_impossible_tokens_do_not_spoil_the_entropy() -> None:
    seen = look([0.0, -math.inf, -math.inf, 0.0])
    assert seen.entropy == pytest.approx(math.log(2), abs=1e-6) and seen.confidence == pytest.approx(0.5)


@pytest.mark.parametrize("temperature", [1e-3, 1e-8, 1e-42, 1e-300])
def test_the_coldest_temperatures_are_greedy(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    assert {look([0.0, 1.0, 9.0, 1.5], temperature=temperature, generator=generator).token for _ in range(20)} == {3}


@pytest.mark.parametrize("tempered", [False, True])
def test_rows_that_are_only_looked_at_use_no_randomness(tempered: bool) -> None:
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(3))

    def two_steps(rows: int) -> list:
        sampler = Sampler(MASK, 1.0, 0.9, tempered=tempered, generator=torch.Generator().manual_seed(4))
        return [seen for _ in range(2) for seen in read(sampler.choose(logits[:rows], drawn=3))[:3]]

    assert two_steps(6) == two_steps(3)


def test_tokens_of_probability_zero_are_never_drawn() -> None:
    logits = torch.full((20_000, 40), -math.inf)
    logits[:, [7, 21]] = 0.0
    sampler = Sampler(MASK, 1.0, generator=torch.Generator().manual_seed(5))
    assert {seen.token for seen in read(sampler.choose(logits))} == {7, 21}


def test_sampled_frequencies_follow_the_tempered_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, -50.0, 2.0])
    sampler = Sampler(MASK, 2.0, generator=torch.Generator().manual_seed(2))
    tokens = torch.tensor([seen.token for seen in read(sampler.choose(logits.repeat(20_000, 1)))])
    shares = torch.bincount(tokens, minlength=4) / len(tokens)
    torch.testing.assert_close(shares, (logits / 2).softmax(0), atol=0.015, rtol=0)
