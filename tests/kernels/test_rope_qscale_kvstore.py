"""Rotation, query scale and the write behind the prefix: against the reference, and against the model's own layer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import reference
from tests.kernels.oracle import DTYPES, check

NAN = float("nan")


def inputs(device, dtype, *, batch=1, n=5, heads=4, kv_heads=2, size=16, positions=400):
    """q, k, v and the tables of angles."""
    generator = torch.Generator().manual_seed(n)
    q, k, v = (torch.randn(batch, n, h, size, generator=generator).to(device, dtype) for h in (heads, kv_heads, kv_heads))
    angles = torch.outer(torch.arange(positions).float(), 100.0 ** -torch.arange(0, 1, 2 / size))
    angles = torch.cat((angles, angles), dim=-1)
    return q, k, v, angles.cos().to(device, dtype), angles.sin().to(device, dtype)


def lengths(device, *numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32, device=device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [0, 1, 63, 64, 250])
def test_rotation_and_scale_are_as_exact_as_the_framework(ops, device, dtype, length):
    at = lengths(device, length)
    check(
        lambda *t: ops.rope_qscale_kvstore(*t, at, window=64, beta=0.1),
        lambda *t: reference.rope_qscale_kvstore(*t, at, window=64, beta=0.1),
        *inputs(device, dtype),
    )


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kv_heads=st.integers(1, 3),
    groups=st.integers(1, 5),
    n=st.integers(1, 7),
    size=st.sampled_from([2, 6, 16, 48]),
    keep=st.integers(0, 7),
)
def test_any_geometry(ops, device, kv_heads, groups, n, size, keep):
    tensors = inputs(device, torch.float32, batch=2, n=n, heads=kv_heads * groups, kv_heads=kv_heads, size=size)
    at, offsets = lengths(device, 3, 11), torch.arange(n, device=device).flip(0)

    def call(operation):
        keys = torch.full((2, kv_heads, 30, size), NAN, device=device)
        values = keys.clone()
        made = operation(*tensors, at, offsets=offsets, window=8, beta=0.3, keys=keys, values=values, keep=min(keep, n))
        return *made, keys, values

    check(lambda: call(ops.rope_qscale_kvstore), lambda: call(reference.rope_qscale_kvstore))
    assert at.tolist() == [3, 11]


def test_only_what_is_kept_is_written(ops, device):
    q, k, v, cos, sin = inputs(device, torch.float32)
    keys = torch.full((1, 2, 12, 16), NAN, device=device)
    values = keys.clone()
    _, rotated = ops.rope_qscale_kvstore(q, k, v, cos, sin, lengths(device, 4), keys=keys, values=values, keep=3)
    assert torch.equal(keys[:, :, 4:7], rotated[:, :, :3])
    assert torch.equal(values[:, :, 4:7], v.transpose(1, 2)[:, :, :3])
    for cache in (keys, values):
        assert cache[:, :, :4].isnan().all() and cache[:, :, 7:].isnan().all()


def test_pairs_past_the_capacity_are_dropped(ops, device):
    q, k, v, cos, sin = inputs(device, torch.float32)
    backing = torch.full((1, 2, 12, 16), NAN, device=device)
    keys, values = backing[:, :, :6], backing.clone()[:, :, :6]
    ops.rope_qscale_kvstore(q, k, v, cos, sin, lengths(device, 4), keys=keys, values=values, keep=5)
    assert backing[:, :, 6:].isnan().all() and not backing[:, :, 4:6].isnan().any()


def test_inputs_may_be_parts_of_one_projection(ops, device):
    q, k, v, cos, sin = inputs(device, torch.float32)
    fused = torch.cat((q.flatten(2), k.flatten(2), v.flatten(2)), dim=-1)
    parts = [part.unflatten(-1, (-1, 16)) for part in fused.split((64, 32, 32), dim=-1)]
    got = ops.rope_qscale_kvstore(*parts, cos, sin, lengths(device, 9))
    expected = ops.rope_qscale_kvstore(q, k, v, cos, sin, lengths(device, 9))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_inputs_that_do_not_fit_are_refused(ops, device):
    q, k, v, cos, sin = inputs(device, torch.float32)
    with pytest.raises(ValueError, match="keeping needs a cache"):
        ops.rope_qscale_kvstore(q, k, v, cos, sin, lengths(device, 0), keep=1)
    with pytest.raises(ValueError, match="do not fit"):
        ops.rope_qscale_kvstore(q[:, :, :3], k, v, cos, sin, lengths(device, 0))
