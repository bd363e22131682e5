"""Attention over prefix and block: every length through the same launch, and nothing read from behind it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import reference
from tests.kernels.oracle import DTYPES, check

NAN = float("nan")


def block(device, dtype, *, batch=1, heads=4, kv_heads=2, n=5, size=16, capacity=300, length=0, seed=0):
    """q, k, v, keys, values with a cache that holds NaN from `length` on."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, heads, n, size), *[(batch, kv_heads, n, size)] * 2, *[(batch, kv_heads, capacity, size)] * 2]
    q, k, v, keys, values = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    keys[:, :, length:] = values[:, :, length:] = NAN
    return q, k, v, keys, values


def lengths(device, *numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32, device=device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length, n", [(0, 1), (0, 5), (1, 1), (64, 7), (255, 5), (257, 32), (1000, 3)])
def test_any_length_is_as_exact_as_the_framework(ops, device, dtype, causal, length, n):
    tensors = block(device, dtype, n=n, length=length, capacity=1024, seed=length + n)
    at = lengths(device, length)
    check(
        lambda *t, **named: ops.block_attention(*t, at, **named),
        lambda *t, **named: reference.block_attention(*t, at, **named),
        *tensors,
        causal=causal,
    )


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kv_heads=st.integers(1, 3),
    groups=st.integers(1, 5),
    n=st.integers(1, 20),
    size=st.sampled_from([8, 16, 24, 48]),
    length=st.integers(0, 90),
    causal=st.booleans(),
)
def test_any_geometry(ops, device, kv_heads, groups, n, size, length, causal):
    named = dict(heads=kv_heads * groups, kv_heads=kv_heads, n=n, size=size, capacity=length + 1, length=length)
    tensors, at = block(device, torch.float32, **named), lengths(device, length)
    check(
        lambda *t: ops.block_attention(*t, at, causal=causal),
        lambda *t: reference.block_attention(*t, at, causal=causal),
        *tensors,
    )


def test_rows_of_a_batch_have_their_own_lengths(ops, device):
    q, k, v, keys, values = block(device, torch.float32, batch=3, length=300)
    at = lengths(device, 0, 290, 17)
    for row, length in enumerate(at.tolist()):
        keys[row, :, length:] = values[row, :, length:] = NAN
    check(
        lambda *t: ops.block_attention(*t, at, causal=True),
        lambda *t: reference.block_attention(*t, at, causal=True),
        *(q, k, v, keys, values),
    )


def test_projections_may_be_views(ops, device):
    """As the model has them: heads and positions swapped, and a cache of many layers."""
    q, k, v, keys, values = block(device, torch.float32, n=6, length=40)
    swapped = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)]
    layers = torch.full((3, *keys.shape), NAN, device=device)
    layers[1] = keys
    got = ops.block_attention(*swapped, layers[1], values, lengths(device, 40), causal=False)
    assert torch.equal(got, ops.block_attention(q, k, v, keys, values, lengths(device, 40), causal=False))


def test_large_scores_do_not_overflow(ops, device):
    q, k, v, keys, values = block(device, torch.float32, n=4, length=100)
    check(
        lambda *t: ops.block_attention(*t, lengths(device, 100), causal=True),
        lambda *t: reference.block_attention(*t, lengths(device, 100), causal=True),
        *(q * 60, k, v, keys, values),
    )


def test_a_nan_reaches_only_the_queries_that_see_it(ops, device):
    q, k, v, keys, values = block(device, torch.float32, n=4, length=10)
    k[0, 1, 2, 0] = NAN
    got = ops.block_attention(q, k, v, keys, values, lengths(device, 10), causal=True)
    assert got[0, :2].isnan().any() == False  # noqa: E712: heads of the other pair
    assert got[0, 2:, :, 0].isnan().tolist() == [[False, False, True, True]] * 2


def test_one_launch_serves_all_lengths(ops, device):
    """A crop or an accepted draft writes one integer; what follows reads the new prefix."""
    q, k, v, keys, values = block(device, torch.float32, length=300)
    at = lengths(device, 300)
    for length in (300, 64, 0):
        at.fill_(length)
        got = ops.block_attention(q, k, v, keys, values, at, causal=False)
        expected = reference.block_attention(q, k, v, keys, values, lengths(device, length), causal=False)
        assert torch.allclose(got, expected, atol=1e-5)


def test_inputs_that_do_not_fit_are_refused(ops, device):
    q, k, v, keys, values = block(device, torch.float32)
    with pytest.raises(ValueError, match="do not fit"):
        ops.block_attention(q[:, :3], k, v, keys, values, lengths(device, 0), causal=True)
    with pytest.raises(ValueError, match="contiguous"):
        ops.block_attention(q.mT.contiguous().mT, k, v, keys, values, lengths(device, 0), causal=True)
