"""`commit_stats`: token, confidence, entropy, candidates and margin of rows of logits, in one pass over them.

For a row x over the vocabulary, with the mask id m and banned tokens F:

    token = argmax_{i ∉ {m} ∪ F} x_i (lowest i of equals)     p_i = exp(x_i) / Σ_j exp(x_j), all j
    confidence = p_token        entropy = -Σ_j p_j ln p_j      margin = p_(1) - p_(2) over i ∉ {m} ∪ F

One program reads one tile of one row, so 32 rows fill a GPU; a second launch merges. Each logit is read once:
rows · vocab · itemsize bytes, 8 MB for 32 rows of 131072 in bfloat16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.row_stats import Tiles, bans_of, tile_keys, tile_sums

BLOCK = 4096  # 1024 programs for 32 rows of 131072: one wave of four-warp programs on an H200


@triton.jit
def commit_stats_tile(
    logits,  # [rows, vocab]
    banned,  # [rows or 1, vocab] uint8, or nothing
    sums,  # [rows, 3, tiles]
    keys,  # [rows, tiles, KEEP]
    ids,  # [rows, tiles, KEEP]
    vocab,
    mask_id,
    row_stride,
    ban_stride,
    BANS: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums and the KEEP best tokens of one tile."""
    row = tl.program_id(0).to(tl.int64)
    tile, tiles = tl.program_id(1), tl.num_programs(1)
    local = tl.arange(0, BLOCK)
    at = tile * BLOCK + local
    inside = at < vocab
    x = tl.load(logits + row * row_stride + at, mask=inside, other=-float("inf")).to(tl.float32)
    m, s0, s1 = tile_sums(x)
    place = sums + row * 3 * tiles + tile
    tl.store(place, m)
    tl.store(place + tiles, s0)
    tl.store(place + 2 * tiles, s1)

    forbidden = at == mask_id
    if BANS:
        forbidden |= tl.load(banned + row * ban_stride + at, mask=inside, other=0) != 0
    key = tile_keys(x, inside, forbidden)
    place = (row * tiles + tile) * KEEP
    for i in tl.static_range(KEEP):
        best, chosen = tl.max(key, axis=0, return_indices=True)
        tl.store(keys + place + i, best)
        tl.store(ids + place + i, tile * BLOCK + chosen)
        key = tl.where(local == chosen, -float("inf"), key)


def commit_stats(
    logits: torch.Tensor,
    mask_id: int,
    *,
    candidates: int = 0,
    margin: bool = False,
    banned: torch.Tensor | None = None,
) -> torch.Tensor:
    """See `reference.commit_stats`. Logits [rows, vocab], any floating dtype, rows anywhere. Raises ValueError."""
    rows, vocab = logits.shape
    if vocab > 1 and logits.stride(1) != 1:
        logits = logits.contiguous()
    bans, ban_stride = bans_of(banned, rows, vocab)
    tiles = Tiles(rows, triton.cdiv(vocab, BLOCK), vocab, candidates, margin, logits.device)
    if rows:
        commit_stats_tile[(rows, tiles.count)](
            logits,
            logits if bans is None else bans,
            tiles.sums,
            tiles.keys,
            tiles.ids,
            vocab,
            mask_id,
            logits.stride(0),
            ban_stride,
            BANS=bans is not None,
            KEEP=tiles.keep,
            BLOCK=BLOCK,
            num_warps=4,
        )
    return tiles.merged()
