"""The fused head: no further from float32 than the framework's product in the same dtype."""

from __future__ import annotations

import pytest
import torch

from kernels import reference
from tests.kernels.oracle import DTYPES, check_stats

MASK = 5


def head(rows: int, size: int, vocab: int, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows * vocab)
    hidden, weight = torch.randn(rows, size, generator=generator), torch.randn(vocab, size, generator=generator) / size**0.5
    return hidden.to(device, dtype), weight.to(device, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, size, vocab", [(1, 16, 123), (17, 123, 255), (70, 32, 140)])
def test_as_exact_as_the_framework(ops, device, dtype, rows, size, vocab):
    hidden, weight = head(rows, size, vocab, dtype, device)
    logits = hidden.double() @ weight.double().T  # tokens are those of unrounded logits
    for candidates, margin in ((0, False), (3, True)):
        got = ops.head_stats(hidden, weight, MASK, candidates=candidates, margin=margin)
        own = reference.head_stats(hidden, weight, MASK, candidates=candidates, margin=margin)
        check_stats(got, logits, MASK, candidates, margin, own=own)


def test_ties_masks_and_bans(ops, device):
    hidden, weight = torch.ones(2, 32, device=device), torch.zeros(300, 32, device=device)
    weight[[MASK, 20, 130, 299]] = 0.25
    banned = torch.zeros(2, 300, dtype=torch.bool, device=device)
    banned[1, 20] = True
    got = ops.head_stats(hidden, weight, MASK, candidates=3, margin=True, banned=banned)
    assert got[:, 3:6].tolist() == [[20, 130, 299], [130, 299, 0]]
    check_stats(got, hidden @ weight.T, MASK, 3, True, banned)


def test_one_row_of_bans_for_all(ops, device):
    hidden, weight = head(3, 32, 300, torch.float32, device)
    banned = torch.arange(300, device=device) % 3 == 0
    check_stats(ops.head_stats(hidden, weight, MASK, banned=banned), hidden @ weight.T, MASK, banned=banned)


def test_a_nan_stays_in_its_row(ops, device):
    hidden, weight = head(3, 32, 300, torch.float32, device)
    hidden[1, 7] = float("nan")
    got = ops.head_stats(hidden, weight, MASK)
    assert got[:, 2].isnan().tolist() == [False, True, False]
    assert 0 <= got[1, 0] < 300


def test_a_head_of_another_width_is_refused(ops, device):
    hidden, weight = head(3, 32, 300, torch.float32, device)
    with pytest.raises(ValueError, match="does not fit"):
        ops.head_stats(hidden[:, :31], weight, MASK)
