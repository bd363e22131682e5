"""What `commit_stats` and `head_stats` share: statistics of one tile of logits, and merging the tiles of a row.

With m the tile's maximum, s0 = Σ exp(x - m) and s1 = Σ exp(x - m)(x - m). Tiles merge exactly:
M = max m, S0 = Σ exp(m - M) s0, S1 = Σ exp(m - M)(s1 + s0 (m - M)), and then

    p(x) = exp(x - M) / S0        entropy = ln S0 - S1 / S0

The best tokens of a row are among the best of its tiles. (Online softmax, Milakov & Gimelshein 2018.)
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# Below every chosen logit but above "already taken": a row of nothing but forbidden tokens still has distinct ids.
LOWEST = tl.constexpr(-3.4028234663852886e38)


@triton.jit
def tile_sums(x):
    """m, s0 and s1 along axis 0 of a float32 tile that is minus infinity outside the vocabulary."""
    m = tl.max(tl.where(x == x, x, -float("inf")), axis=0)  # a NaN shows up in s0
    centred = x - tl.where(m == -float("inf"), 0.0, m)
    e = tl.exp(centred)
    return m, tl.sum(e, axis=0), tl.sum(tl.where(e > 0, e * centred, 0.0), axis=0)


@triton.jit
def tile_keys(x, inside, forbidden):
    """What to rank tokens by: their logits, below them what may not be chosen, and last what does not exist."""
    key = tl.where(forbidden | (x != x), LOWEST, tl.maximum(x, LOWEST))
    return tl.where(inside, key, -float("inf"))


@triton.jit
def merge_tiles(
    sums,  # [rows, 3, tiles] float32
    keys,  # [rows, tiles, KEEP] float32
    ids,  # [rows, tiles, KEEP] int32
    out,  # [rows, 3 + 2 CANDIDATES + MARGIN] float32
    tiles,
    CANDIDATES: tl.constexpr,
    MARGIN: tl.constexpr,
    KEEP: tl.constexpr,
    TILES: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """One row: its normaliser and entropy, and the KEEP best of its tiles' best."""
    row = tl.program_id(0)
    tile = tl.arange(0, TILES)
    inside = tile < tiles
    sums += row * 3 * tiles + tile
    m = tl.load(sums, mask=inside, other=-float("inf"))
    s0 = tl.load(sums + tiles, mask=inside, other=0.0)
    s1 = tl.load(sums + 2 * tiles, mask=inside, other=0.0)
    top = tl.max(m, axis=0)
    weight = tl.exp(m - top)  # NaN throughout where no logit is finite, or one is plus infinity
    total = tl.sum(weight * s0, axis=0)
    log_total = tl.log(total)
    moment = tl.sum(tl.where(s0 > 0, weight * (s1 + s0 * (m - top)), 0.0), axis=0)
    out += row * (3 + 2 * CANDIDATES + MARGIN)
    tl.store(out + 2, log_total - moment / total)

    entry = tl.arange(0, ENTRIES)
    key = tl.load(keys + row * tiles * KEEP + entry, mask=entry < tiles * KEEP, other=-float("inf"))
    first = 0.0
    for i in tl.static_range(KEEP):
        # Entries ascend by tile and, where equal, by id: the leftmost maximum has the lowest id.
        best, at = tl.max(key, axis=0, return_indices=True)
        p = tl.exp((best - top) - log_total)
        token = tl.load(ids + row * tiles * KEEP + at).to(tl.float32)
        if i == 0:
            first = p
            tl.store(out, token)
            tl.store(out + 1, p)
        if i < CANDIDATES:
            tl.store(out + 3 + i, token)
            tl.store(out + 3 + CANDIDATES + i, p)
        if MARGIN:
            if i == 1:
                tl.store(out + 3 + 2 * CANDIDATES, first - p)
        key = tl.where(entry == at, -float("inf"), key)


class Tiles:
    """Room for the statistics of `tiles` tiles a row, and the merge of them."""

    def __init__(self, rows: int, tiles: int, vocab: int, candidates: int, margin: bool, device: torch.device) -> None:
        self.candidates, self.margin = min(candidates, vocab - 1), margin
        self.keep = max(self.candidates, 1 + margin)
        self.rows, self.count = rows, tiles
        self.sums = torch.empty((rows, 3, tiles), dtype=torch.float32, device=device)
        self.keys = torch.empty((rows, tiles, self.keep), dtype=torch.float32, device=device)
        self.ids = torch.empty((rows, tiles, self.keep), dtype=torch.int32, device=device)

    def merged(self) -> torch.Tensor:
        """The packed table, [rows, 3 + 2k (+ 1)] float32."""
        width = 3 + 2 * self.candidates + self.margin
        out = torch.empty((self.rows, width), dtype=torch.float32, device=self.sums.device)
        if self.rows:
            merge_tiles[(self.rows,)](
                self.sums,
                self.keys,
                self.ids,
                out,
                self.count,
                CANDIDATES=self.candidates,
                MARGIN=int(self.margin),
                KEEP=self.keep,
                TILES=triton.next_power_of_2(self.count),
                ENTRIES=triton.next_power_of_2(self.count * self.keep),
                num_warps=4,
            )
        return out


def bans_of(banned: torch.Tensor | None, rows: int, vocab: int) -> tuple[torch.Tensor | None, int]:
    """`banned` as bytes with its row stride; 0 where one row serves all. Raises ValueError for another shape."""
    if banned is None:
        return None, 0
    if banned.dtype != torch.bool or banned.shape not in ((vocab,), (1, vocab), (rows, vocab)):
        raise ValueError(f"banned must be bool, [{vocab}] or [{rows}, {vocab}]; it is {list(banned.shape)}")
    banned = banned.contiguous().view(torch.uint8)
    return banned, vocab if banned.dim() == 2 and banned.shape[0] > 1 else 0
