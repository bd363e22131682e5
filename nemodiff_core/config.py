"""The geometry of a checkpoint, read from its config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nemodiff_core.errors import ConfigError

MODEL_TYPE = "nemotron_labs_diffusion"
# Training layouts and the released value. All of them describe the same weights and the same forward;
# any other word is a paradigm this implementation has never seen.
KNOWN_PARADIGMS = ("bidirectional", "block_diff", "autoregressive")
KNOWN_DTYPES = ("float32", "bfloat16", "float16")
# No size in a config.json is anywhere near this; larger ones would only overflow somewhere less clear.
LARGEST = 2**31


@dataclass(frozen=True)
class RopeConfig:
    """Rotary embedding parameters (`rope_parameters` in config.json)."""

    rope_type: str = "yarn"
    theta: float = 1e6
    factor: float = 16.0
    original_max_position_embeddings: int = 16384
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 1.0
    llama_4_scaling_beta: float = 0.1

    @property
    def attention_factor(self) -> float:
        """Factor on cos and sin: the YaRN ratio of the two mscales (1.0 for every released checkpoint).

        A config without both of them (read as 0) gets YaRN's own 0.1·ln(factor) + 1, as transformers has it.
        """

        def mscale(weight: float) -> float:
            return 1.0 if self.factor <= 1 else 0.1 * weight * math.log(self.factor) + 1.0

        if self.rope_type == "default":
            return 1.0
        if not self.mscale or not self.mscale_all_dim:
            return mscale(1.0)
        return mscale(self.mscale) / mscale(self.mscale_all_dim)


@dataclass(frozen=True)
class ModelConfig:
    """A dense Ministral-3-style decoder with the family's extra keys. `head_dim` is never derived."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-5
    max_position_embeddings: int = 262144
    bos_token_id: int = 1
    eos_token_id: int = 11
    mask_token_id: int = 100
    block_size: int = 32
    dlm_paradigm: str = "bidirectional"
    torch_dtype: str = "bfloat16"
    rope: RopeConfig = field(default_factory=RopeConfig)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ModelConfig:
        """Read config.json's content. Raises ConfigError naming the key that is wrong."""
        kind = raw.get("model_type")
        if kind == f"{MODEL_TYPE}_vlm":
            raise ConfigError(
                "this is the vision-language model of the family, which this version cannot read; "
                "load nvidia/Nemotron-Labs-Diffusion-8B for text."
            )
        if kind != MODEL_TYPE:
            raise ConfigError(
                f"config.json has model_type {kind!r}, but only {MODEL_TYPE!r} checkpoints can be loaded; "
                "choose another."
            )
        paradigm = raw.get("dlm_paradigm", "bidirectional")
        if paradigm not in KNOWN_PARADIGMS:
            known = ", ".join(KNOWN_PARADIGMS)
            raise ConfigError(f"config.json has the unknown dlm_paradigm {paradigm!r}; this version knows {known}.")
        # A setting that would change the forward must never be ignored in silence.
        for key, expected in (
            ("attention_bias", False),
            ("mlp_bias", False),
            ("tie_word_embeddings", False),
            ("sliding_window", None),
            ("hidden_act", "silu"),
        ):
            if raw.get(key, expected) != expected:
                raise ConfigError(f"config.json sets {key} to {raw[key]!r}, but this family always has {expected!r}.")
        rope = raw.get("rope_parameters") or raw.get("rope_scaling")
        if not isinstance(rope, Mapping):
            raise ConfigError("config.json has no rope_parameters block; copy the one of the original checkpoint.")
        rope_type = rope.get("rope_type", rope.get("type", "default"))
        if rope_type not in ("yarn", "default"):
            raise ConfigError(f"config.json has rope_type {rope_type!r}; this family uses 'yarn' or 'default'.")
        for key, expected in (("attention_factor", None), ("truncate", True), ("partial_rotary_factor", 1.0)):
            if rope.get(key, expected) != expected:
                raise ConfigError(f"config.json sets {key} to {rope[key]!r} for RoPE, which this family never does.")
        dtype = raw.get("torch_dtype") or raw.get("dtype") or "bfloat16"
        if dtype not in KNOWN_DTYPES:
            raise ConfigError(f"config.json has torch_dtype {dtype!r}; it must be one of {', '.join(KNOWN_DTYPES)}.")
        config = cls(
            **{key: _integer(raw, key) for key in _REQUIRED},
            rms_norm_eps=_number(raw, "rms_norm_eps", 1e-5),
            max_position_embeddings=_integer(raw, "max_position_embeddings", 262144),
            bos_token_id=_integer(raw, "bos_token_id", 1),
            eos_token_id=_integer(raw, "eos_token_id"),
            mask_token_id=_integer(raw, "mask_token_id"),
            block_size=_integer(raw, "block_size", 32),
            dlm_paradigm=paradigm,
            torch_dtype=dtype,
            rope=RopeConfig(
                rope_type=rope_type,
                theta=_number(rope, "rope_theta", _number(raw, "rope_theta", 1e6)),
                factor=_number(rope, "factor", 1.0),
                original_max_position_embeddings=_integer(
                    rope, "original_max_position_embeddings", _integer(raw, "max_position_embeddings", 262144)
                ),
                beta_fast=_number(rope, "beta_fast", 32.0),
                beta_slow=_number(rope, "beta_slow", 1.0),
                mscale=_number(rope, "mscale", 0.0),
                mscale_all_dim=_number(rope, "mscale_all_dim", 0.0),
                llama_4_scaling_beta=_number(rope, "llama_4_scaling_beta", 0.0),
            ),
        )
        config._check()
        return config

    def _check(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"config.json has {self.num_attention_heads} query heads, which {self.num_key_value_heads} "
                "key-value heads do not divide; correct num_key_value_heads."
            )
        if self.head_dim % 2:
            raise ConfigError(f"config.json has head_dim {self.head_dim}, which must be even for rotary embeddings.")
        rope = self.rope
        sound = rope.theta > 1 and rope.original_max_position_embeddings > 0
        if rope.rope_type == "yarn":
            sound = sound and min(rope.factor, rope.beta_fast, rope.beta_slow) > 0
        if not sound:
            raise ConfigError(
                "config.json: rope_parameters need rope_theta above 1 and a positive original window, factor and betas."
            )
        for key in ("bos_token_id", "eos_token_id", "mask_token_id"):
            if not 0 <= getattr(self, key) < self.vocab_size:
                raise ConfigError(
                    f"config.json has {key} {getattr(self, key)} outside the vocabulary of {self.vocab_size}."
                )
        if self.mask_token_id == self.eos_token_id:
            raise ConfigError(f"config.json uses token {self.mask_token_id} as mask and as end; they must differ.")

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json, with the keys of the released checkpoints."""
        rope = self.rope
        return {
            "ar_loss_weight": 1.0,
            "architectures": ["NemotronLabsDiffusionModel"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "attn_implementation": "sdpa",
            "block_size": self.block_size,
            "bos_token_id": self.bos_token_id,
            "dlm_loss_weight": None,
            "dlm_paradigm": self.dlm_paradigm,
            "dp_varying_mask_ratio": False,
            "eos_token_id": self.eos_token_id,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "mask_token_id": self.mask_token_id,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": False,
            "model_type": MODEL_TYPE,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": {
                "beta_fast": rope.beta_fast,
                "beta_slow": rope.beta_slow,
                "factor": rope.factor,
                "llama_4_scaling_beta": rope.llama_4_scaling_beta,
                "mscale": rope.mscale,
                "mscale_all_dim": rope.mscale_all_dim,
                "original_max_position_embeddings": rope.original_max_position_embeddings,
                "rope_theta": rope.theta,
                "rope_type": rope.rope_type,
            },
            "sliding_window": None,
            "tie_word_embeddings": False,
            "torch_dtype": self.torch_dtype,
            "transformers_version": "5.0.0",
            "use_cache": False,
            "vocab_size": self.vocab_size,
        }


_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)


def _integer(raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = raw.get(key, default)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not (1 if key in _REQUIRED else 0) <= value < LARGEST:
        problem = "is missing" if value is None else f"is {str(value)[:40]!r}"
        raise ConfigError(f"config.json: {key} {problem}; it must be a whole number that fits the checkpoint.")
    return value


def _number(raw: Mapping[str, Any], key: str, default: float) -> float:
    value = raw.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        raise ConfigError(f"config.json: {key} is {str(value)[:40]!r}; it must be a finite number.")
    return float(value)
