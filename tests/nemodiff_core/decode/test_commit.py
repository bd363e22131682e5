"""What every commit policy promises about its choice and its number of steps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from nemodiff_core.decode.commit import Budget, EntropyBudget, EvenSchedule, Leftmost, Margin, Threshold, policy_for, surest
from nemodiff_core.decode.sampling import Look
from nemodiff_core.request import DecodeRequest

probability = st.floats(0, 1)
looks = st.lists(
    st.builds(lambda c, e, m: Look(5, c, e, margin=m), probability, st.floats(0, 5), probability), min_size=1, max_size=20
)
policies = st.one_of(
    st.builds(Threshold, probability),
    st.builds(Margin, probability),
    st.builds(EntropyBudget, st.floats(0, 10)),
    st.builds(EvenSchedule, st.integers(1, 30), st.just(20)),
    st.builds(Leftmost, st.none() | st.integers(1, 30), st.just(20)),
)


@given(policies, looks, st.integers(0, 30))
def test_every_policy_commits_at_least_one_cell_in_order(policy, seen, step) -> None:
    chosen = policy.choose(seen, step)
    assert chosen and chosen == sorted(set(chosen))
    assert 0 <= chosen[0] and chosen[-1] < len(seen)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([EvenSchedule, Leftmost]))
def test_schedules_need_exactly_as_many_steps_as_they_say(steps, masks, kind) -> None:
    policy, left, taken = kind(steps, masks), masks, 0
    while left:
        left -= len(policy.choose([Look(5, 0.5, 1.0)] * left, taken))
        taken += 1
    assert taken == min(steps, masks)


@given(looks, st.floats(0, 10))
def test_an_entropy_budget_is_kept_and_used_up(seen, bound) -> None:
    chosen = EntropyBudget(bound).choose(seen, 0)
    spent = sum(seen[i].entropy for i in chosen)
    assert len(chosen) == 1 or spent <= bound + 1e-9
    rest = [look.entropy for i, look in enumerate(seen) if i not in chosen]
    assert not rest or spent + min(rest) > bound - 1e-9
    assert all(seen[i].entropy <= min(rest, default=9.0) for i in chosen)


def test_each_policy_looks_at_its_own_measure() -> None:
    seen = [Look(1, 0.6, 0.1, margin=0.2), Look(1, 0.5, 0.9, margin=0.45), Look(1, 0.9, 0.5, margin=0.3)]
    assert Threshold(0.6).choose(seen, 0) == [0, 2]
    assert Margin(0.3).choose(seen, 0) == [1, 2]
    assert EntropyBudget(0.7).choose(seen, 0) == [0, 2]
    assert Leftmost(None, 3).choose(seen, 0) == [0]
    assert surest(seen, 2) == [0, 2]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, Threshold),
        ({"steps": 3}, EvenSchedule),
        ({"policy": "leftmost"}, Leftmost),
        ({"policy": "leftmost", "steps": 2}, Leftmost),
        ({"policy": "entropy_budget", "entropy_bound": 1.0}, EntropyBudget),
        ({"policy": "margin"}, Margin),
    ],
)
def test_a_request_names_its_policy(fields, kind) -> None:
    assert isinstance(policy_for(DecodeRequest(prompt="x", **fields), 15), kind)


@given(st.integers(2, 200), st.integers(1, 12), st.data())
def test_a_budget_for_the_answer_is_never_overrun(total, blocks, data) -> None:
    total = max(total, 2 * blocks)
    budget, spent = Budget(DecodeRequest(prompt="x", max_forwards=total)), 0
    for left in range(blocks, 0, -1):
        limit = budget.for_block(left)
        assert limit >= 1
        used = data.draw(st.integers(1, limit)) + 1  # and its commit pass
        budget.spend(used)
        spent += used
    assert spent <= total


def test_without_a_budget_a_block_takes_what_it_needs() -> None:
    assert Budget(DecodeRequest(prompt="x")).for_block(3) is None
    assert Budget(DecodeRequest(prompt="x", max_forwards_per_block=4)).for_block(3) == 4
    assert Budget(DecodeRequest(prompt="x", max_forwards_per_block=4, max_forwards=9)).for_block(3) == 2


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0, 1))
def test_threshold_commits_the_sure_and_the_surest(confidences: list[float], bound: float) -> None:
    chosen = Threshold(bound).choose([Look(5, c, 1.0) for c in confidences], 0)
    assert max(confidences) in [confidences[i] for i in chosen]
    assert all(confidences[i] < bound for i in range(len(confidences)) if i not in chosen)
    assert len(chosen) == max(1, sum(c >= bound for c in confidences))


@given(st.integers(1, 63), st.integers(1, 70))
def test_even_schedule_spreads_the_masks(masks: int, steps: int) -> None:
    policy, left, sizes = EvenSchedule(steps, masks), masks, []
    while left:
        chosen = policy.choose([Look(5, math.sin(i), 1.0) for i in range(left)], len(sizes))
        assert len(set(chosen)) == len(chosen)
        left -= len(chosen)
        sizes.append(len(chosen))
    assert len(sizes) == min(masks, steps)
    assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)
