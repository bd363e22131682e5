"""config.json: the family's keys in and out, and nothing that changes the forward ignored in silence."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemodiff_core.config import ModelConfig, RopeConfig
from nemodiff_core.errors import ConfigError

# The 8B's config.json as facts §2 lists it.
RELEASED = {
    "ar_loss_weight": 1.0,
    "architectures": ["NemotronLabsDiffusionModel"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_implementation": "sdpa",
    "auto_map": {"AutoModel": "modeling_nemotron_labs_diffusion.NemotronLabsDiffusionModel"},
    "block_size": 32,
    "bos_token_id": 1,
    "dlm_loss_weight": None,
    "dlm_paradigm": "bidirectional",
    "dp_varying_mask_ratio": False,
    "eos_token_id": 11,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "mask_token_id": 100,
    "max_position_embeddings": 262144,
    "mlp_bias": False,
    "model_type": "nemotron_labs_diffusion",
    "num_attention_heads": 32,
    "num_hidden_layers": 34,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 16.0,
        "llama_4_scaling_beta": 0.1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 16384,
        "rope_theta": 1000000.0,
        "rope_type": "yarn",
    },
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "5.0.0",
    "use_cache": False,
    "vocab_size": 131072,
}


def changed(**changes) -> dict:
    """The released config with some keys changed, or removed by `...`; rope_x changes rope_parameters."""
    raw = json.loads(json.dumps(RELEASED))
    for key, value in changes.items():
        home = raw["rope_parameters"] if key.startswith("rope__") else raw
        key = key.removeprefix("rope__")
        if value is ...:
            home.pop(key, None)
        else:
            home[key] = value
    return raw


def test_the_released_config():
    config = ModelConfig.from_dict(RELEASED)
    assert (config.head_dim, config.num_hidden_layers, config.block_size) == (128, 34, 32)
    assert (config.bos_token_id, config.eos_token_id, config.mask_token_id) == (1, 11, 100)
    assert config.rope == RopeConfig() and config.rope.attention_factor == 1.0
    assert config.to_dict() == {key: value for key, value in RELEASED.items() if key != "auto_map"}


@given(
    heads=st.integers(1, 8),
    pairs=st.integers(1, 8),
    half=st.integers(1, 64),
    rope_type=st.sampled_from(["yarn", "default"]),
    theta=st.floats(1.5, 1e9),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
)
def test_what_is_written_is_read_back(heads, pairs, half, rope_type, theta, dtype):
    config = ModelConfig(
        500, 24, 32, 2, heads * pairs, pairs, 2 * half, torch_dtype=dtype, rope=RopeConfig(rope_type, theta, 4.0, 64)
    )
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_older_spellings_are_read():
    config = ModelConfig.from_dict(
        changed(rope_parameters=..., rope_scaling={**RELEASED["rope_parameters"], "rope_theta": 5e5}, torch_dtype=...)
        | {"dtype": "float16"}
    )
    assert config.rope.theta == 5e5 and config.torch_dtype == "float16"
    assert ModelConfig.from_dict(changed(rope__rope_theta=...) | {"rope_theta": 7e5}).rope.theta == 7e5


def test_attention_factor():
    assert ModelConfig.from_dict(changed(rope__mscale=..., rope__mscale_all_dim=...)).rope.attention_factor == (
        pytest.approx(1.2772589)
    )
    ratio = ModelConfig.from_dict(changed(rope__mscale=2.0)).rope.attention_factor
    assert ratio == pytest.approx(1.5545177 / 1.2772589)
    assert ModelConfig.from_dict(changed(rope__factor=0.25, rope__mscale=...)).rope.attention_factor == 1.0
    assert ModelConfig.from_dict(changed(rope__rope_type="default", rope__mscale=2.0)).rope.attention_factor == 1.0


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model_type": "ministral3"}, "model_type 'ministral3'"),
        ({"model_type": "nemotron_labs_diffusion_vlm"}, "vision-language"),
        ({"dlm_paradigm": "masked"}, "unknown dlm_paradigm 'masked'"),
        ({"dlm_paradigm": None}, "unknown dlm_paradigm None"),
        ({"dlm_paradigm": ["bidirectional"]}, "unknown dlm_paradigm"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_parameters": ...}, "no rope_parameters"),
        ({"rope_parameters": "yarn"}, "no rope_parameters"),
        ({"rope__rope_type": "llama3"}, "rope_type 'llama3'"),
        ({"rope__attention_factor": 1.2}, "attention_factor to 1.2"),
        ({"rope__truncate": False}, "truncate to False"),
        ({"rope__partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope__factor": 0}, "positive original window, factor"),
        ({"rope__beta_fast": 0}, "positive original window, factor"),
        ({"rope__original_max_position_embeddings": 0}, "positive original window"),
        ({"rope__rope_theta": 1}, "rope_theta above 1"),
        ({"rope__rope_theta": float("nan")}, "rope_theta is 'nan'"),
        ({"rope__factor": 10**400}, "finite number"),
        ({"rope__mscale": "1"}, "mscale is"),
        ({"hidden_size": 0}, "hidden_size is '0'"),
        ({"hidden_size": 2.5}, "hidden_size is"),
        ({"hidden_size": True}, "hidden_size is"),
        ({"vocab_size": 2**31}, "vocab_size is"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"head_dim": ...}, "head_dim is missing"),
        ({"head_dim": 127}, "must be even"),
        ({"num_key_value_heads": 5}, "do not divide"),
        ({"eos_token_id": ...}, "eos_token_id is missing"),
        ({"eos_token_id": [2, 11]}, "eos_token_id"),
        ({"mask_token_id": -1}, "mask_token_id"),
        ({"mask_token_id": 131072}, "mask_token_id 131072 outside the vocabulary"),
        ({"mask_token_id": 11}, "as mask and as end"),
        ({"torch_dtype": "float8_e4m3fn"}, "torch_dtype 'float8_e4m3fn'"),
        ({"torch_dtype": ["bfloat16"]}, "torch_dtype"),
    ],
)
def test_what_is_refused(changes, match):
    with pytest.raises(ConfigError, match=match) as caught:
        ModelConfig.from_dict(changed(**changes))
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".") and len(sentence) < 400


def test_a_config_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig.from_dict(RELEASED).head_dim = 64
