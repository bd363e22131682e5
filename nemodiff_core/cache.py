"""The KV cache: allocated once, written in place, cropped by moving one integer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from nemodiff_core.config import ModelConfig

if TYPE_CHECKING:
    import numpy as np


class KVCache:
    """Causal keys and values of the tokens decided so far (facts §3.3): the first `length` positions.

    Bidirectional passes read them and add none; `TriModeModel.forward` enforces that.
    Storage is [layers, batch, kv_heads, capacity, head_dim] for keys and for values. A model whose layers
    live on several devices passes one device per layer and gets a list of [batch, kv_heads, capacity, head_dim].
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        capacity: int,
        device: torch.device | str | Sequence[torch.device] = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (batch, config.num_key_value_heads, capacity, config.head_dim)

        def storage() -> torch.Tensor | list[torch.Tensor]:
            if isinstance(device, (torch.device, str)):
                return torch.zeros((config.num_hidden_layers, *shape), device=device, dtype=dtype)
            return [torch.zeros(shape, device=place, dtype=dtype) for place in device]

        self.keys, self.values = storage(), storage()
        self._layers = list(zip(self.keys, self.values))  # views: no pass has to take the storage apart
        self.arrays: tuple[np.ndarray, np.ndarray] | None = None  # keys and values, for whoever computes outside of torch
        self.batch = batch
        self.capacity = capacity
        self.length = 0

    def row(self, number: int) -> KVCache:
        """Row `number` as a cache of one row, which shares this one's storage and has a length of its own."""
        row = copy.copy(self)
        row.keys, row.values = ([each[number : number + 1] for each in part] for part in (self.keys, self.values))
        row._layers = list(zip(row.keys, row.values))
        row.arrays = None
        row.batch = 1
        return row

    def put(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One layer's prefix and behind it these keys and values ([batch, kv_heads, q, head_dim]).

        As many as fit lie in the storage behind the prefix, which nobody reads until the length moves over it
        (`advance`): a pass that keeps nothing has only borrowed it, and one that fails half-way leaves the cache
        as it was.
        """
        count = keys.shape[2]
        known = self.read(layer, self.length + count)
        # A gradient cannot pass through the storage.
        room = 0 if keys.requires_grad else known[0].shape[2] - self.length
        both = []
        for stored, new in zip(known, (keys, values)):
            if room:
                stored[:, :, self.length :] = new[:, :, :room]
            both.append(stored if room == count else torch.cat((stored[:, :, : self.length + room], new[:, :, room:]), dim=2))
        return both[0], both[1]

    def read(self, layer: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of one layer's first `end` keys and values, [batch, kv_heads, end, head_dim] each."""
        keys, values = self._layers[layer]
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, count: int) -> None:
        """Make the `count` positions just written part of the prefix."""
        self.length += count

    def crop(self, length: int) -> None:
        """Forget everything from position `length` on; nothing is copied or freed."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot crop a cache of {self.length} positions to {length}")
        self.length = length

    def room_for(self, count: int) -> bool:
        """Whether `count` more positions fit."""
        return self.length + count <= self.capacity
