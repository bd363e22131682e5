"""The draft adapter: a low-rank update of every layer's o_proj, for the passes that draft (facts §2, "Draft LoRA").

Read and written in the layout of PEFT, without PEFT. An adapter is attached to a model as plain data
(`TriModeModel.draft_adapter`); a pass uses it only where it is called with `draft=True`, so verification and
the KV cache never see it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nemodiff_core.config import ModelConfig
from nemodiff_core.errors import CheckpointError
from nemodiff_core.files import damaged, replace_file, write_json
from nemodiff_core.sources import ADAPTER_CONFIG, ADAPTER_WEIGHTS, one_line, read_json

TARGET = "o_proj"
# PEFT puts the adapter's name into the key while training ("default") and leaves it out when saving.
_KEY = re.compile(
    rf"base_model\.model\.encoder\.layers\.(\d{{1,6}})\.self_attn\.{TARGET}\.lora_([AB])(?:\.default)?\.weight"
)
# Settings of PEFT that change the arithmetic, and the values under which they do not.
_PLAIN: Mapping[str, Any] = {
    "peft_type": "LORA", "bias": "none", "use_dora": False, "use_rslora": False, "lora_bias": False,
    "rank_pattern": None, "alpha_pattern": None, "modules_to_save": None, "layer_replication": None,
}  # fmt: skip
_FLOATS = {"F64", "F32", "F16", "BF16"}
_CURE = "download it again, or remove its folder to draft without an adapter"


class LowRank(NamedTuple):
    """One layer's update: x -> scale * B A x, added to what the base weight gives."""

    a: torch.Tensor  # [rank, in]
    b: torch.Tensor  # [out, rank]
    scale: float  # lora_alpha / rank

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The update [..., out] of x [..., in]."""
        return F.linear(F.linear(x, self.a), self.b) * self.scale


@dataclass(frozen=True)
class DraftAdapter:
    """One LowRank per decoder layer, in order, all of one rank and scale."""

    layers: tuple[LowRank, ...]

    @property
    def rank(self) -> int:
        return self.layers[0].a.shape[0]

    @property
    def alpha(self) -> float:
        return self.layers[0].scale * self.rank

    def parameter_count(self) -> int:
        """Number of weights."""
        return sum(layer.a.numel() + layer.b.numel() for layer in self.layers)

    def to(self, dtype: torch.dtype) -> DraftAdapter:
        """The same adapter in another dtype; gradients flow through the cast."""
        return DraftAdapter(tuple(LowRank(a.to(dtype), b.to(dtype), scale) for a, b, scale in self.layers))


def has_adapter(folder: Path) -> bool:
    """Whether `folder` holds an adapter, or a part of one."""
    return (folder / ADAPTER_CONFIG).is_file() or (folder / ADAPTER_WEIGHTS).is_file()


def load_adapter(
    folder: str | os.PathLike[str],
    config: ModelConfig,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | Sequence[torch.device] = "cpu",
) -> DraftAdapter:
    """Read adapter_config.json and adapter_model.safetensors of `folder` for a model of geometry `config`.

    `device` is one for all layers, or one per layer where the model is spread. Raises CheckpointError.
    """
    folder = Path(folder)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(f"the draft adapter {folder.name} has no {name}; {_CURE}.")
    rank, alpha = _settings(read_json(folder / ADAPTER_CONFIG))
    places = [device] * config.num_hidden_layers if isinstance(device, (torch.device, str)) else device
    file = folder / ADAPTER_WEIGHTS
    try:
        with safe_open(file, framework="pt") as reader:
            keys = _keys(reader.keys(), config.num_hidden_layers)
            for (_, half), key in keys.items():
                entry = reader.get_slice(key)
                _check(key, half, tuple(entry.get_shape()), str(entry.get_dtype()), rank, config)
            layers = (
                (reader.get_tensor(keys[n, half]).to(device=place, dtype=dtype) for half in "AB")
                for n, place in enumerate(places)
            )
            return DraftAdapter(tuple(LowRank(a, b, alpha / rank) for a, b in layers))
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise CheckpointError("the draft adapter does not fit the device; use device 'auto'.") from error
    except (SafetensorError, OSError) as error:
        raise damaged(file, error) from error


def _settings(content: Mapping[str, Any]) -> tuple[int, float]:
    """Rank and lora_alpha of an adapter_config.json. Raises CheckpointError."""
    for name, plain in _PLAIN.items():
        value = content.get(name, plain)
        # Nothing, false and an empty list or table all mean that a setting is unused.
        if value != plain and (value or plain):
            raise CheckpointError(
                f"{ADAPTER_CONFIG} has {name} {value!r:.80}, which cannot be applied; give a plain LoRA adapter."
            )
    if (targets := content.get("target_modules")) not in ([TARGET], TARGET):
        raise CheckpointError(
            f"{ADAPTER_CONFIG} has target_modules {targets!r:.80}, but a draft adapter "
            f"changes {TARGET} alone; give one trained for that."
        )
    rank, alpha = content.get("r"), content.get("lora_alpha")
    if type(rank) is not int or not 0 < rank <= 65_536:
        raise CheckpointError(f"{ADAPTER_CONFIG} has r {rank!r:.80}, which is no rank; {_CURE}.")
    if type(alpha) not in (int, float) or not abs(alpha) <= 1e6:
        raise CheckpointError(f"{ADAPTER_CONFIG} has lora_alpha {alpha!r:.80}, which is no scale; {_CURE}.")
    return rank, float(alpha)


def _keys(stored: Sequence[str], layers: int) -> dict[tuple[int, str], str]:
    """The stored key of every layer's A and B. Raises CheckpointError for missing and unexpected tensors."""
    found: dict[tuple[int, str], str] = {}
    for key in stored:
        match = _KEY.fullmatch(key)
        slot = (int(match[1]), match[2]) if match else None
        if slot is None or slot in found or slot[0] >= layers:
            raise CheckpointError(
                f"the draft adapter has the unexpected tensor {key[:160]!r}, where the model has {layers} layers with "
                f"one {TARGET} each; it belongs to another model, so {_CURE}."
            )
        found[slot] = key
    missing = [(n, half) for n in range(layers) for half in "AB" if (n, half) not in found]
    if missing:
        raise CheckpointError(
            f"the draft adapter lacks {len(missing)} tensor(s), lora_{missing[0][1]} of layer {missing[0][0]} first; "
            f"it is incomplete or belongs to another model, so {_CURE}."
        )
    return found


def _check(key: str, half: str, shape: tuple[int, ...], kind: str, rank: int, config: ModelConfig) -> None:
    queries = config.num_attention_heads * config.head_dim
    expected = (rank, queries) if half == "A" else (config.hidden_size, rank)
    if shape != expected:
        raise CheckpointError(
            f"{key} has shape {list(shape)}, but rank {rank} and the model ask for {list(expected)}; the draft "
            f"adapter belongs to another model, so {_CURE}."
        )
    if kind not in _FLOATS:
        raise CheckpointError(f"{key} is stored as {kind}, which cannot be read; give an adapter in floating point.")


def save_adapter(adapter: DraftAdapter, folder: str | os.PathLike[str], dtype: torch.dtype | None = None) -> Path:
    """Write `adapter` as PEFT would, in `dtype` or its own; returns the folder. Raises CheckpointError."""
    folder = Path(folder)
    tensors = {key: tensor.detach().to("cpu", dtype).contiguous() for key, tensor in _named(adapter)}
    alpha = adapter.alpha
    content = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "target_modules": [TARGET],
        "bias": "none",
        "fan_in_fan_out": False,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / ADAPTER_WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
        write_json(folder / ADAPTER_CONFIG, content)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the draft adapter could not be saved to {folder} ({one_line(error)}).") from error
    return folder


def _named(adapter: DraftAdapter) -> Iterator[tuple[str, torch.Tensor]]:
    for n, layer in enumerate(adapter.layers):
        for half, tensor in (("A", layer.a), ("B", layer.b)):
            yield f"base_model.model.encoder.layers.{n}.self_attn.{TARGET}.lora_{half}.weight", tensor
