"""The six operations put together: a whole forward, and a cycle of speculation, against the model and its decoders."""

from __future__ import annotations

import pytest
import torch

from kernels import Ops, reference
from nemodiff_core.cache import KVCache
from nemodiff_core.decode.calls import Forward
from nemodiff_core.decode.graphs import Graphs
from nemodiff_core.decode.sampling import Choice, Sampler
from nemodiff_core.model import TriModeModel, rope_inverse_frequencies
from tests.conftest import random_model

PREFIX, BLOCK = 517, 6  # behind the model's window of 512, so that queries are scaled


@torch.inference_mode()
def forward(
    ops: Ops, model: TriModeModel, tokens: torch.Tensor, cache: KVCache, length: torch.Tensor, *, causal: bool, keep: int = 0
) -> torch.Tensor:
    """The packed table of tokens [1, q] behind `length` cached positions: a forward that never asks for the length."""
    config = model.config
    angles = torch.outer(torch.arange(1024).float(), rope_inverse_frequencies(config.rope, config.head_dim))
    angles = torch.cat((angles, angles), dim=-1).to(tokens.device)
    scaling = dict(window=config.rope.original_max_position_embeddings, beta=config.rope.llama_4_scaling_beta)
    x, update = model.encoder.embed_tokens(tokens), None
    for n, layer in enumerate(model.encoder.layers):
        x, normed = ops.add_rmsnorm(x, update, layer.input_layernorm.weight, config.rms_norm_eps)
        attention, stored = layer.self_attn, dict(keys=cache.keys[n], values=cache.values[n])
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        q, k, v = (project(normed).unflatten(-1, (-1, config.head_dim)) for project in projections)
        q, k = ops.rope_qscale_kvstore(q, k, v, angles.cos(), angles.sin(), length, **scaling, **stored, keep=keep)
        seen = ops.block_attention(q, k, v.transpose(1, 2), *stored.values(), length, causal=causal)
        update = attention.o_proj(seen.transpose(1, 2).flatten(2))
        x, normed = ops.add_rmsnorm(x, update, layer.post_attention_layernorm.weight, config.rms_norm_eps)
        update = layer.mlp(normed)
    _, normed = ops.add_rmsnorm(x, update, model.encoder.norm.weight, config.rms_norm_eps)
    return ops.head_stats(normed[0], model.diffusion_head.weight, config.mask_token_id, candidates=4, margin=True)


@pytest.fixture(scope="module")
def model(device) -> TriModeModel:
    return random_model().to(device)


@pytest.fixture
def filled(model, device) -> tuple[KVCache, torch.Tensor]:
    """A cache with a prefix, and the block's tokens."""
    tokens = torch.randint(128, 384, (1, PREFIX + BLOCK), generator=torch.Generator().manual_seed(1)).to(device)
    cache = model.new_cache(PREFIX + 4 * BLOCK)
    with torch.inference_mode():
        model(tokens[:, :PREFIX], pattern="causal", cache=cache, write=True)
    return cache, tokens[:, PREFIX:]


@pytest.mark.parametrize("pattern", ["causal", "bidirectional"])
def test_a_forward_is_the_models(ops, device, model, filled, pattern):
    cache, tokens = filled
    length = torch.tensor([PREFIX], dtype=torch.int32, device=device)
    got = forward(ops, model, tokens, cache, length, causal=pattern == "causal")
    sampler = Sampler(model.config.mask_token_id, candidates=4, margins=True)
    with torch.inference_mode():
        expected = sampler.choose(model(tokens, pattern=pattern, cache=cache)[0])
    assert torch.equal(got[:, [0, 3, 4, 5, 6]], expected[:, [0, 3, 4, 5, 6]])
    assert torch.allclose(got, expected, atol=1e-4)


def test_a_cycle_of_speculation_needs_no_host(ops, device, model, filled):
    """Verify a block of which some drafts are right, then read on from the length that the device wrote."""
    cache, tokens = filled
    length = torch.tensor([PREFIX], dtype=torch.int32, device=device)
    pending, emitted = tokens[:, :1], []
    for _ in range(2):
        # Drafts that are right once: AR's own choice, and then something else.
        packed = forward(ops, model, pending, cache, length, causal=True)
        block = torch.cat((pending, packed[-1:, :1].long(), torch.full_like(pending, 300)), dim=1)
        packed = forward(ops, model, block, cache, length, causal=True, keep=block.shape[1])
        record = ops.verify_commit(block, packed[None, :, 0], length, end=10**6)[0].tolist()
        assert record[:2] == [1, 2] and record[2] == length.item()
        emitted += record[4 : 4 + record[1]]
        pending = torch.full_like(pending, record[3])

    other = model.new_cache(PREFIX + 4 * BLOCK)
    with torch.inference_mode():
        for kept, given in zip((other.keys, other.values), (cache.keys, cache.values), strict=True):
            kept[:, :, :, :PREFIX] = given[:, :, :, :PREFIX]
        other.length, token, expected = PREFIX, tokens[:, :1], []
        for _ in emitted:
            token = model(token, pattern="causal", cache=other, write=True)[:, -1].argmax(-1, keepdim=True)
            expected.append(token.item())
    assert emitted == expected


@pytest.mark.parametrize(("pattern", "width"), [("causal", 1), ("bidirectional", BLOCK), ("causal", BLOCK)])
def test_a_step_of_the_fast_loop_is_the_models(ops, device, model, pattern, width):
    graphs, sampler = Graphs(model, capture=False, ops=ops), Sampler(model.config.mask_token_id, candidates=4, margins=True)
    tokens = torch.randint(128, 384, (1, 40 + width), generator=torch.Generator().manual_seed(2)).to(device)
    with torch.inference_mode():
        cache = graphs.new_cache(100)
        Forward(tokens[:, :40], "causal", cache, write=True).run(model)
        call = Forward(tokens[:, 40:], pattern, cache, choice=Choice(sampler))
        got, expected = graphs.answer(call), call.run(model)
    assert torch.equal(got[:, [0, 3, 4, 5, 6]], expected[:, [0, 3, 4, 5, 6]])
    assert torch.allclose(got, expected, atol=1e-4)


def test_the_reference_packs_what_the_sampler_packs():
    logits = torch.randn(7, 384, generator=torch.Generator().manual_seed(3)) * 5
    banned = torch.arange(384) % 5 == 0
    for candidates, margins in ((0, False), (6, True)):
        expected = Sampler(100, candidates=candidates, margins=margins).choose(logits, banned=banned)
        got = reference.commit_stats(logits, 100, candidates=candidates, margin=margins, banned=banned)
        assert torch.equal(got, expected)
