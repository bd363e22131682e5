"""Row statistics: the packed table against the reference, for every kind of row that decoding can produce."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.oracle import DTYPES, check_stats

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, vocab", [(1, 2), (3, 123), (5, 507), (2, 4096), (3, 4097), (2, 9001)])
def test_odd_shapes(ops, device, dtype, rows, vocab):
    torch.manual_seed(vocab)
    logits = (torch.randn(rows, vocab, device=device) * 4).to(dtype)
    for candidates, margin in ((0, False), (1, True), (8, True)):
        got = ops.commit_stats(logits, vocab // 2, candidates=candidates, margin=margin)
        check_stats(got, logits, vocab // 2, candidates, margin)


def test_rows_of_a_wider_table_and_a_transposed_one(ops, device):
    wide = torch.randn(6, 700, device=device)
    check_stats(ops.commit_stats(wide[::2, 100:355], 7, candidates=2), wide[::2, 100:355], 7, 2, False)
    check_stats(ops.commit_stats(wide[:, :5].T, 3, candidates=2), wide[:, :5].T, 3, 2, False)


def test_no_rows(ops, device):
    assert ops.commit_stats(torch.empty(0, 40, device=device), 3, candidates=4, margin=True).shape == (0, 12)


def test_ties_go_to_the_lowest_id_that_may_be_chosen(ops, device):
    logits = torch.zeros(3, 8200, device=device)
    logits[1, [100, 4099, 8000]] = 5.0  # across tiles
    logits[2, 4096] = logits[2, 8199] = 5.0
    got = ops.commit_stats(logits, 0, candidates=4, margin=True)
    assert got[:, 0].tolist() == [1, 100, 4096]
    assert got[:, 3:7].tolist() == [[1, 2, 3, 4], [100, 4099, 8000, 1], [4096, 8199, 1, 2]]
    assert got[:, -1].tolist() == [0, 0, 0]
    check_stats(got, logits, 0, 4, True)


def test_the_mask_token_is_never_chosen_but_keeps_its_share(ops, device):
    logits = torch.zeros(1, 300, device=device)
    logits[0, 100] = 20.0
    logits[0, 200] = 19.0
    (row,) = ops.commit_stats(logits, 100).tolist()
    assert row[0] == 200
    assert row[1] == pytest.approx(0.268941, abs=1e-5)


def test_a_row_with_nothing_but_the_mask_left(ops, device):
    logits = torch.full((1, 5000), -INF, device=device)
    logits[0, 100] = 3.0
    (row,) = ops.commit_stats(logits, 100, candidates=3, margin=True).tolist()
    assert row[:3] == [0, 0, 0] and row[6:9] == [0, 0, 0] and row[9] == 0
    assert len({*row[3:6]}) == 3


def test_banned_tokens_for_one_row_or_for_all(ops, device):
    torch.manual_seed(0)
    logits = torch.randn(4, 5000, device=device)
    each = torch.rand(4, 5000, device=device) < 0.5
    for banned in (each, each[0], each[:1]):
        check_stats(ops.commit_stats(logits, 9, candidates=5, margin=True, banned=banned), logits, 9, 5, True, banned)
    everything = torch.ones(5000, dtype=torch.bool, device=device)
    check_stats(ops.commit_stats(logits, 9, banned=everything), logits, 9, 0, False, everything)
    with pytest.raises(ValueError, match="banned must be bool"):
        ops.commit_stats(logits, 9, banned=each[:2])


@pytest.mark.parametrize("poison", [NAN, INF, -INF])
def test_rows_without_a_distribution_say_so(ops, device, poison):
    logits = torch.randn(3, 4500, device=device)
    if poison == -INF:
        logits[1] = poison
    else:
        logits[1, 4400] = poison
    got = ops.commit_stats(logits, 3, candidates=2, margin=True)
    assert got[:, 2].isnan().tolist() == [False, True, False]
    assert 0 <= got[1, 0] < 4500
    check_stats(got, logits, 3, 2, True)


# Few distinct values make ties, and the extremes a softmax may meet.
values = st.sampled_from([-INF, -80.0, -3.5, -0.0, 0.0, 1.25, 1.25, 2.0, 30.0, 88.0])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(values, min_size=3, max_size=40), st.integers(0, 2), st.integers(0, 6), st.booleans())
def test_any_row(ops, device, row, mask_id, candidates, margin):
    logits = torch.tensor([row, row[::-1]], device=device)
    check_stats(ops.commit_stats(logits, mask_id, candidates=candidates, margin=margin), logits, mask_id, candidates, margin)
