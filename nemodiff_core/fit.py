"""What a checkpoint needs in memory, for every way to hold its weights; its config.json alone is enough to say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nemodiff_core import placement, quantized
from nemodiff_core.config import KNOWN_DTYPES, ModelConfig
from nemodiff_core.model import TriModeModel
from nemodiff_core.placement import WEIGHTS_SHARE

FORMATS = ("float32", "bfloat16", *quantized.FORMATS)
CARDS = (8, 12, 16, 24, 40, 48, 80, 141)  # GiB of memory that GPUs come with
POSITIONS = 4096
_GIB = 2**30


@dataclass(frozen=True)
class Need:
    """Bytes of the weights in `form`, and of one row's KV cache of POSITIONS positions."""

    form: str
    weights: int
    cache: int

    @property
    def total(self) -> int:
        return self.weights + self.cache

    @property
    def card(self) -> int | None:
        """The smallest of CARDS, in GiB, on which activations and the driver have room beside it."""
        return next((size for size in CARDS if self.total <= WEIGHTS_SHARE * size * _GIB), None)

    def fits(self, room: Mapping[int | str, int]) -> list[int | str]:
        """Of the places in `room` (as `placement.free_memory` gives them) those that hold it as a whole."""
        return [place for place, free in room.items() if self.total <= free]


def need(config: ModelConfig, form: str, device: torch.device | str = "cuda") -> Need:
    """What a model of this geometry needs in one of FORMATS; `device` decides what a quantised one computes in."""
    with torch.device("meta"):
        model = TriModeModel(config)
    if form in quantized.FORMATS:
        dtype = quantized.compute_dtype(torch.device(device))
        quantized.prepare(model, form, dtype)
    else:
        model.to(dtype := getattr(torch, form))
    cached = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * POSITIONS
    return Need(form, sum(weight.nbytes for weight in model.parameters()), cached * dtype.itemsize)


def need_of(config: ModelConfig, dtype: str | None, device: str | None) -> Need:
    """What `checkpoint.load` will need with these arguments. Raises CheckpointError for those that it refuses."""
    main = placement.parse_device(None if device == "auto" else device)
    if dtype in quantized.FORMATS:
        return need(config, dtype, main)
    chosen = placement.usual_dtype(config, main) if dtype is None else placement.parse_dtype(dtype, (*KNOWN_DTYPES, *quantized.FORMATS))
    return need(config, str(chosen).removeprefix("torch."), main)
