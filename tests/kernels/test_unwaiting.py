"""The operations that never ask the host equal their references, as long as what is behind the length is finite."""

from __future__ import annotations

import pytest
import torch

import kernels
from kernels import reference, unwaiting

HEADS, PAIRS, SIZE, CAPACITY = 6, 2, 16, 40


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("length", "count"), [(0, 1), (0, 5), (7, 1), (7, 5), (35, 5)])
def test_a_step_is_the_references(device, length, count, causal):
    generator = torch.Generator().manual_seed(length + count)
    q, k, v = (torch.randn(1, count, n, SIZE, generator=generator).to(device) for n in (HEADS, PAIRS, PAIRS))
    angles = torch.rand(CAPACITY, SIZE // 2, generator=generator).repeat(1, 2).to(device)
    filled = torch.randn(2, 1, PAIRS, CAPACITY, SIZE, generator=generator).to(device)
    at, answers = torch.tensor([length], device=device), []
    for module in (reference, unwaiting):
        keys, values = filled.clone()
        turned, own = module.rope_qscale_kvstore(
            q, k, v, angles.cos(), angles.sin(), at, window=8, beta=0.1, keys=keys, values=values, keep=count
        )
        seen = module.block_attention(turned, own, v.transpose(1, 2), keys, values, at, causal=causal)
        answers.append((turned, own, seen, keys, values))
    for ours, theirs in zip(*answers, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_they_stand_in_for_references_alone():
    plain, patient = kernels.use("cpu", "reference", waits=False), kernels.use("cpu", "reference")
    assert plain.block_attention is unwaiting.block_attention and plain.rope_qscale_kvstore is unwaiting.rope_qscale_kvstore
    assert plain.commit_stats is patient.commit_stats is reference.commit_stats
    assert patient.block_attention is reference.block_attention
