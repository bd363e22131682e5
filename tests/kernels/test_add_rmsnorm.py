"""The residual sum and its norm."""

from __future__ import annotations

import pytest
import torch

from kernels import reference
from tests.kernels.oracle import DTYPES, check


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 48), (3, 123), (2, 5, 507), (1, 2, 4096), (0, 16)])
@pytest.mark.parametrize("add", [True, False])
def test_as_exact_as_the_framework(ops, device, dtype, shape, add):
    generator = torch.Generator().manual_seed(shape[-1])
    x, residual, weight = (torch.randn(s, generator=generator).to(device, dtype) for s in (shape, shape, shape[-1:]))
    for scale in (1.0, 1e-3, 300.0):
        check(
            lambda *t: ops.add_rmsnorm(*t, eps=1e-5),
            lambda *t: reference.add_rmsnorm(*t, eps=1e-5),
            *(x * scale, residual if add else None, weight),
        )


def test_rows_may_lie_apart(ops, device):
    wide = torch.randn(4, 3, 64, device=device)
    x, residual, weight = wide[:, 1], wide[:, 2], torch.ones(64, device=device)
    check(lambda *t: ops.add_rmsnorm(*t, 1e-5), lambda *t: reference.add_rmsnorm(*t, 1e-5), x, residual, weight)


def test_zeros_and_nan(ops, device):
    x = torch.zeros(3, 40, device=device)
    x[1, 3] = float("nan")
    total, normed = ops.add_rmsnorm(x, torch.zeros_like(x), torch.ones(40, device=device), 1e-5)
    assert total.isnan().sum() == 1 and normed.isnan().sum(-1).tolist() == [0, 40, 0]
    assert (normed[[0, 2]] == 0).all()


def test_shapes_that_do_not_fit_are_refused(ops, device):
    x = torch.zeros(3, 40, device=device)
    with pytest.raises(ValueError, match="do not fit"):
        ops.add_rmsnorm(x, x[:2], torch.ones(40, device=device), 1e-5)
