"""Several rows in one forward: each with a width, a cached prefix and an attention pattern of its own.

The rows stand one after another in an input of [1, total], so embeddings, projections, feed-forward and head
compute no padding and need not know of them. Only attention lays them out as [rows, width], padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch

from nemodiff_core.cache import KVCache
from nemodiff_core.model import Layout, Pattern


class Part(NamedTuple):
    """One row's share of a forward."""

    row: int  # of the cache
    prefix: int  # cached positions, all of which it sees
    width: int
    kept: int  # how many of its first inputs the cache keeps
    pattern: Pattern | Layout


class Packed:
    """Takes the rows apart for attention, with their cached keys and values, and puts them together again."""

    def __init__(self, cache: KVCache, parts: Sequence[Part], device: torch.device) -> None:
        """`cache` holds the rows of all parts; their lengths are the parts' `prefix`, not its own.

        Raises ValueError where a row has no room for what it keeps.
        """
        if any(part.prefix + part.kept > cache.capacity for part in parts):
            raise ValueError(f"the cache holds {cache.capacity} positions a row; not all of what is kept fits")
        self.cache = cache
        self.parts = parts
        self.width = max(part.width for part in parts)
        self.prefix = max(part.prefix for part in parts)
        self._all_rows = [part.row for part in parts] == list(range(cache.batch))
        starts = [0, *accumulate(part.width for part in parts)]
        # One transfer brings every index there is.
        indices = (
            [part.row for part in parts],
            # Padding repeats the row's own first input: nothing of one row reaches another, be it not a number.
            [start + (i if i < part.width else 0) for start, part in zip(starts, parts) for i in range(self.width)],
            [n * self.width + i for n, part in enumerate(parts) for i in range(part.width)],
            [start + i for start, part in zip(starts, parts) for i in range(part.kept)],
            [part.row for part in parts for _ in range(part.kept)],
            [part.prefix + i for part in parts for i in range(part.kept)],
        )
        joined = torch.tensor([i for index in indices for i in index], device=device)
        self._indices = joined.split([len(index) for index in indices])

    def positions(self) -> torch.Tensor:
        """Positions [total] of the inputs."""
        device = self._indices[0].device
        return torch.cat([
            torch.arange(part.prefix, part.prefix + part.width, device=device)
            if isinstance(part.pattern, str)
            else part.pattern.offsets + part.prefix
            for part in self.parts
        ])  # fmt: skip

    @property
    def limit(self) -> int:
        """Every position is below it."""
        return max(p.prefix + (p.width if isinstance(p.pattern, str) else p.pattern.reach) for p in self.parts)

    def mask(self) -> torch.Tensor:
        """What every query sees, [rows, 1, width, prefix + width] bool; the queries that pad a row are read by nobody."""
        device, shape = self._indices[0].device, (len(self.parts), 1, self.width, self.prefix + self.width)
        mask = torch.zeros(shape, dtype=torch.bool, device=device)
        for part, seen in zip(self.parts, mask[:, 0]):
            seen[:, : part.prefix] = True
            own = seen[: part.width, self.prefix : self.prefix + part.width]
            if isinstance(part.pattern, Layout):
                own.copy_(part.pattern.visible)
            else:
                own.fill_(True)
                if part.pattern == "causal":
                    own.tril_()
        return mask

    def spread(
        self,
        layer: int,
        q: torch.Tensor,  # [1, heads, total, head_dim]
        k: torch.Tensor,  # [1, kv_heads, total, head_dim]
        v: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries [rows, heads, width, head_dim], and keys and values [rows, kv_heads, prefix + width, head_dim] for them.

        The cache receives the keys and values that it is to keep.
        """
        source, target, slots = (index.to(q.device) for index in self._indices[3:])
        stored_k, stored_v = self.cache.keys[layer], self.cache.values[layer]
        if len(source):
            stored_k[target, :, slots] = k[0].index_select(1, source).transpose(0, 1)
            stored_v[target, :, slots] = v[0].index_select(1, source).transpose(0, 1)
        k = torch.cat((self._prefixes(stored_k), self._laid_out(k)), dim=2)
        v = torch.cat((self._prefixes(stored_v), self._laid_out(v)), dim=2)
        return self._laid_out(q), k, v

    def _prefixes(self, stored: torch.Tensor) -> torch.Tensor:
        prefixes = stored[:, :, : self.prefix]
        return prefixes if self._all_rows else prefixes.index_select(0, self._indices[0].to(stored.device))

    def _laid_out(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, heads, width, head_dim] of x [1, heads, total, head_dim]."""
        return x[0].index_select(1, self._indices[1].to(x.device)).unflatten(1, (-1, self.width)).transpose(0, 1)

    def collect(self, x: torch.Tensor) -> torch.Tensor:
        """[1, total, hidden] of x [rows, width, hidden], the padding left out."""
        return x.flatten(0, 1).index_select(0, self._indices[2].to(x.device))[None]
