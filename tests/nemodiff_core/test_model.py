"""TriModeModel against transformers' own Ministral-3 with the same random weights, and against itself."""

from __future__ import annotations

import copy
from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemodiff_core.cache import KVCache
from nemodiff_core.config import ModelConfig
from nemodiff_core.model import TriModeModel

if TYPE_CHECKING:  # it takes seconds to import: only for the tests that need it
    from transformers import Ministral3ForCausalLM

VOCAB = 211
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def geometry(
    hidden=48, heads=4, pairs=2, head_dim=16, window=32, layers=3, rope_type="yarn", theta=1e4, factor=16.0, **rope
) -> ModelConfig:
    return ModelConfig.from_dict(
        {
            "model_type": "nemotron_labs_diffusion",
            "vocab_size": VOCAB,
            "hidden_size": hidden,
            "intermediate_size": 80,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": pairs,
            "head_dim": head_dim,
            "max_position_embeddings": 4096,
            "bos_token_id": 1,
            "eos_token_id": 11,
            "mask_token_id": 100,
            "rope_parameters": {
                "rope_type": rope_type,
                "rope_theta": theta,
                "factor": factor,
                "original_max_position_embeddings": window,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.1,
                **rope,
            },
        }
    )


GEOMETRIES = {
    "head_dim above hidden/heads, groups of 2": geometry(),
    "head_dim below hidden/heads, no groups": geometry(hidden=96, heads=3, pairs=3, head_dim=8),
    "one key-value head for 4": geometry(hidden=40, heads=4, pairs=1, head_dim=32),
    "inside a large window": geometry(window=16384, theta=1e6, head_dim=128, heads=2, pairs=1),
    "the 14B's theta": geometry(window=64, theta=1e9, head_dim=64),
    "strong query scale": geometry(window=8, llama_4_scaling_beta=2.0),
    "unequal mscales": geometry(mscale=0.7, mscale_all_dim=1.3),
    "no mscales, so YaRN's own factor": geometry(mscale=0.0, mscale_all_dim=0.0),
    "a window shorter than one rotation": geometry(window=1),
    "plain rope": geometry(rope_type="default", window=32),
}
every_geometry = pytest.mark.parametrize("name", GEOMETRIES)


@cache
def pair(name: str) -> tuple[TriModeModel, Ministral3ForCausalLM]:
    """Our model and transformers' with the same weights, large enough for attention to matter."""
    from transformers import Ministral3Config, Ministral3ForCausalLM

    config = GEOMETRIES[name]
    torch.manual_seed(len(name))
    ours = TriModeModel(config).eval().requires_grad_(False)
    for key, weight in ours.named_parameters():
        weight.copy_(1 + 0.1 * torch.randn_like(weight) if "norm" in key else 0.15 * torch.randn_like(weight))
    raw = config.to_dict()
    theirs = Ministral3ForCausalLM(
        Ministral3Config(
            attn_implementation="eager",
            **{key: raw[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")},
            **{key: raw[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps")},
            **{key: raw[key] for key in ("max_position_embeddings", "rope_parameters", "sliding_window")},
        )
    ).eval()
    renamed = {
        key.replace("encoder.", "model.").replace("diffusion_head", "lm_head"): value
        for key, value in ours.state_dict().items()
    }
    theirs.load_state_dict(renamed, strict=True)
    return ours, theirs


def random_tokens(count: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCAB, (batch, count), generator=torch.Generator().manual_seed(seed))


def additive(visible: torch.Tensor) -> torch.Tensor:
    """transformers' 4-D mask: 0 where a query sees a key, the lowest number where not."""
    return torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)[None, None]


@torch.inference_mode()
def reference(theirs: Ministral3ForCausalLM, tokens: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
    return theirs(tokens, attention_mask=None if visible is None else additive(visible), use_cache=False).logits


@torch.inference_mode()
def written(model: TriModeModel, tokens: torch.Tensor, pieces: list[int], spare: int = 64):
    """Logits of a causal pass in pieces, and the cache it leaves."""
    cached = model.new_cache(tokens.shape[1] + spare, tokens.shape[0])
    parts = tokens.split(pieces, dim=1)
    return torch.cat([model(part, pattern="causal", cache=cached, write=True) for part in parts], dim=1), cached


@every_geometry
@torch.inference_mode()
def test_causal_logits_equal_transformers(name):
    ours, theirs = pair(name)
    tokens = random_tokens(97, batch=2)
    torch.testing.assert_close(ours(tokens, pattern="causal"), reference(theirs, tokens), **CLOSE)


@every_geometry
@torch.inference_mode()
def test_bidirectional_logits_equal_transformers_under_an_open_mask(name):
    ours, theirs = pair(name)
    tokens = random_tokens(70, batch=2, seed=1)
    got = ours(tokens, pattern="bidirectional")
    torch.testing.assert_close(got, reference(theirs, tokens, torch.ones(70, 70, dtype=torch.bool)), **CLOSE)
    assert not torch.allclose(got, ours(tokens, pattern="causal"), atol=1e-2)


@every_geometry
@torch.inference_mode()
def test_a_prefix_cached_in_pieces_then_a_causal_rest(name):
    from transformers import DynamicCache

    ours, theirs = pair(name)
    tokens = random_tokens(90, seed=2)
    expected = reference(theirs, tokens)
    got, cached = written(ours, tokens[:, :71], [1, 30, 7, 33])
    torch.testing.assert_close(got, expected[:, :71], **CLOSE)
    rest = ours(tokens[:, 71:], pattern="causal", cache=cached)
    torch.testing.assert_close(rest, expected[:, 71:], **CLOSE)
    # transformers' own cache, fed in the same pieces, agrees about positions and query scale.
    past, parts = DynamicCache(config=theirs.config), []
    for part in tokens.split([1, 30, 7, 33, 19], dim=1):
        parts.append(theirs(part, past_key_values=past, use_cache=True).logits)
    torch.testing.assert_close(torch.cat((got, rest), dim=1), torch.cat(parts, dim=1), **CLOSE)


@every_geometry
@torch.inference_mode()
def test_an_open_block_after_a_causal_prefix(name):
    ours, theirs = pair(name)
    tokens, prefix, block = random_tokens(81, seed=3), 65, 16
    visible = torch.ones(81, 81, dtype=torch.bool).tril()
    visible[prefix:, prefix:] = True
    _, cached = written(ours, tokens[:, :prefix], [40, 25])
    got = ours(tokens[:, prefix:], pattern="bidirectional", cache=cached)
    assert got.shape == (1, block, VOCAB)
    torch.testing.assert_close(got, reference(theirs, tokens, visible)[:, prefix:], **CLOSE)


def test_far_positions_need_the_query_scale_and_yarn():
    """The geometries above would not notice a missing query scale if the tokens stayed in the window."""
    ours, theirs = pair("strong query scale")
    tokens = random_tokens(97)
    plain = TriModeModel(geometry(window=8, llama_4_scaling_beta=0.0)).eval()
    plain.load_state_dict(ours.state_dict())
    without_yarn = TriModeModel(geometry(window=8, llama_4_scaling_beta=2.0, rope_type="default")).eval()
    without_yarn.load_state_dict(ours.state_dict())
    expected = reference(theirs, tokens)
    with torch.inference_mode():
        got = plain(tokens, pattern="causal")
        torch.testing.assert_close(got[:, :8], expected[:, :8], **CLOSE)
        assert (got - expected)[:, 40:].abs().max() > 0.1
        assert (without_yarn(tokens, pattern="causal") - expected).abs().max() > 0.1


@torch.inference_mode()
def test_one_token_at_a_time_equals_one_forward():
    ours, _ = pair("strong query scale")
    tokens = random_tokens(60, batch=2, seed=4)
    got, cached = written(ours, tokens, [1] * 60)
    assert cached.length == 60
    torch.testing.assert_close(got, ours(tokens, pattern="causal"), **CLOSE)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(GEOMETRIES)),
    pieces=st.lists(st.integers(1, 17), min_size=1, max_size=5),
    block=st.integers(1, 20),
    crop=st.floats(0, 1),
    seed=st.integers(0, 99),
)
@torch.inference_mode()
def test_any_cut_crop_and_rewrite_gives_the_same_logits(name, pieces, block, crop, seed):
    ours, _ = pair(name)
    total = sum(pieces)
    tokens = random_tokens(total + block, seed=seed)
    whole = ours(tokens, pattern="causal")
    got, cached = written(ours, tokens[:, :total], pieces)
    torch.testing.assert_close(got, whole[:, :total], **CLOSE)
    keep = int(crop * total)
    # A wrong draft goes in, is refused, and leaves no trace behind.
    ours((tokens[:, total:] + 1) % VOCAB, pattern="causal", cache=cached, write=True)
    cached.crop(keep)
    again = ours(tokens[:, keep:], pattern="causal", cache=cached, write=True)
    torch.testing.assert_close(again, whole[:, keep:], **CLOSE)
    assert cached.length == total + block


@torch.inference_mode()
@pytest.mark.parametrize("spare", [0, 16, 40])  # whether the pass may borrow the room behind the prefix
def test_reading_passes_leave_the_cached_prefix_untouched(spare):
    ours, _ = pair("one key-value head for 4")
    tokens = random_tokens(50, seed=5)
    _, cached = written(ours, tokens[:, :34], [34], spare=spare)
    before = [part.clone() for layer in range(3) for part in cached.read(layer, 34)]
    answers = []
    for pattern in ("bidirectional", "causal"):
        answers.append(ours(tokens[:, 34:], pattern=pattern, cache=cached))
        assert cached.length == 34
        assert all(map(torch.equal, before, [part for layer in range(3) for part in cached.read(layer, 34)]))
    torch.testing.assert_close(answers[1], ours(tokens, pattern="causal")[:, 34:], **CLOSE)


@every_geometry
def test_joined_weights_give_the_same_logits_under_the_same_names(name):
    ours, _ = pair(name)
    tokens = random_tokens(24, seed=8)
    joined = copy.deepcopy(ours)
    joined.join()
    assert list(joined.state_dict()) == list(ours.state_dict())
    assert all(torch.equal(joined.state_dict()[key], weight) for key, weight in ours.state_dict().items())
    with torch.no_grad():
        for model in (joined, copy.deepcopy(joined)):
            for pattern in ("causal", "bidirectional"):
                torch.testing.assert_close(model(tokens, pattern=pattern), ours(tokens, pattern=pattern), rtol=1e-5, atol=1e-5)
        wide = copy.deepcopy(joined).double()
        torch.testing.assert_close(wide(tokens, pattern="causal").float(), ours(tokens, pattern="causal"), **CLOSE)


def test_joined_weights_follow_what_training_changes_in_place():
    plain = TriModeModel(GEOMETRIES["plain rope"])
    joined = copy.deepcopy(plain)
    joined.join()
    tokens = random_tokens(12)
    for model in (plain, joined):
        model(tokens, pattern="causal").logsumexp(-1).mean().backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight -= 10 * weight.grad
    with torch.no_grad():
        torch.testing.assert_close(joined(tokens, pattern="causal"), plain(tokens, pattern="causal"), **CLOSE)
        assert not torch.equal(joined(tokens, pattern="causal"), pair("plain rope")[0](tokens, pattern="causal"))


@torch.inference_mode()
def test_writing_stays_inside_the_new_positions():
    ours, _ = pair("one key-value head for 4")
    tokens = random_tokens(40, seed=6)
    _, cached = written(ours, tokens[:, :20], [20], spare=30)
    before = cached.keys.clone()
    storage = cached.keys.data_ptr()
    ours(tokens[:, 20:], pattern="causal", cache=cached, write=True)
    cached.crop(25)
    assert cached.keys.data_ptr() == storage
    assert torch.equal(cached.keys[..., :20, :], before[..., :20, :])
    assert not torch.equal(cached.keys[..., 20:40, :], before[..., 20:40, :])
    assert torch.equal(cached.keys[..., 40:, :], before[..., 40:, :])


@torch.inference_mode()
def test_rows_select_what_the_head_computes():
    ours, _ = pair("plain rope")
    tokens = random_tokens(23, batch=2, seed=7)
    for pattern in ("causal", "bidirectional"):
        full = ours(tokens, pattern=pattern)
        for rows in (slice(-1, None), slice(4, 9), torch.tensor([0, 7, 22])):
            torch.testing.assert_close(ours(tokens, pattern=pattern, rows=rows), full[:, rows], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_what_is_refused():
    ours, _ = pair("plain rope")
    cached, tokens = ours.new_cache(8), random_tokens(6)
    with pytest.raises(ValueError, match="only a causal pass"):
        ours(tokens, pattern="bidirectional", cache=cached, write=True)
    with pytest.raises(ValueError, match="only into a cache|into a cache"):
        ours(tokens, pattern="causal", write=True)
    with pytest.raises(ValueError, match="pattern"):
        ours(tokens, pattern="sideways")
    with pytest.raises(ValueError, match="rows"):
        ours(tokens.repeat(2, 1), pattern="causal", cache=cached, write=True)
    ours(tokens, pattern="causal", cache=cached, write=True)
    with pytest.raises(ValueError, match="do not fit"):
        ours(tokens, pattern="causal", cache=cached, write=True)
    assert cached.length == 6 and cached.room_for(2) and not cached.room_for(3)
    for length in (-1, 7):
        with pytest.raises(ValueError, match="crop"):
            cached.crop(length)


@torch.inference_mode()
def test_bfloat16_follows_transformers_casts():
    ours, theirs = pair("head_dim above hidden/heads, groups of 2")
    low = TriModeModel(ours.config).eval()
    low.load_state_dict(ours.state_dict())
    low = low.to(torch.bfloat16)
    tokens = random_tokens(60, seed=8)
    expected = reference(theirs, tokens)
    drift = (low(tokens, pattern="causal").float() - expected).abs().mean() / expected.abs().mean()
    assert 0 < drift < 0.03


def test_a_first_pass_in_inference_mode_does_not_spoil_training():
    model = TriModeModel(GEOMETRIES["plain rope"])
    tokens = random_tokens(12)
    with torch.inference_mode():
        model(tokens, pattern="causal")
    model(tokens, pattern="bidirectional").square().mean().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


def test_one_device_per_layer_gives_a_cache_of_separate_tensors():
    config = GEOMETRIES["plain rope"]
    spread = KVCache(config, 2, 10, [torch.device("cpu")] * config.num_hidden_layers)
    joint = KVCache(config, 2, 10)
    for cached in (spread, joint):
        for layer in range(config.num_hidden_layers):
            cached.put(layer, torch.full((2, 2, 3, 16), layer + 1.0), torch.full((2, 2, 3, 16), -1.0))
    assert torch.equal(torch.stack(spread.keys), joint.keys) and torch.equal(torch.stack(spread.values), joint.values)
    assert all(torch.equal(a, b) for a, b in zip(spread.read(1, 5), joint.read(1, 5), strict=True))
