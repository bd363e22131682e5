"""The geometries of NVIDIA's released checkpoints, so that a prediction needs no download (facts §1)."""

from __future__ import annotations

from nemodiff_core.config import ModelConfig


def _config(layers: int, hidden: int, intermediate: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=131072,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
    )


RELEASED: dict[str, ModelConfig] = {
    "Nemotron-Labs-Diffusion-3B": _config(26, 3072, 9216),
    "Nemotron-Labs-Diffusion-8B": _config(34, 4096, 14336),
    "Nemotron-Labs-Diffusion-14B": _config(40, 5120, 16384),
}
