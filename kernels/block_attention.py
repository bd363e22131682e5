"""`block_attention`: attention of a block over [cached prefix ‖ block], causal or bidirectional, of any prefix length.

    o_i = Σ_{j ∈ V(i)} softmax_j(q_i · k_j / √d) v_j        V(i) = prefix ∪ {block j : j ≤ i, or all}

The query heads of one KV head are packed with the block's positions into one tile (4 x 32 rows for this
family), so that keys and values are read once a tile. The prefix is split over programs; the block itself is
one program more. The prefix length is read on the device, so one CUDA graph serves all lengths: splits that
have nothing to do return. Partial results are merged by their maxima and sums (Flash-Decoding, Dao et al. 2023).
Reads 2 · length · kv_heads · head_dim elements a layer.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK_N = 64
LEAST = 256  # keys a split: below this its partial result costs more than it saves
MERGE_ROWS = 16


@triton.jit
def split_size(prefix, SPLITS: tl.constexpr, BLOCK_N: tl.constexpr, LEAST: tl.constexpr):
    """Keys a split reads, in whole tiles."""
    return tl.maximum(tl.cdiv(tl.cdiv(prefix, SPLITS), BLOCK_N) * BLOCK_N, LEAST)


@triton.jit
def block_attention_split(
    q,  # [batch, heads, n, size]
    k,  # [batch, kv_heads, n, size]
    v,
    keys,  # [batch, kv_heads, capacity, size]
    values,
    length,  # [1] or [batch]
    acc,  # [pairs, SPLITS + 1, groups * n, size] float32
    peaks,  # [pairs, SPLITS + 1, groups * n] float32
    totals,
    n,
    groups,
    kv_heads,
    size,
    capacity,
    scale,  # includes log2 e
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    keys_batch,
    keys_head,
    keys_row,
    values_batch,
    values_head,
    values_row,
    length_stride,
    CAUSAL: tl.constexpr,
    PRECISION: tl.constexpr,
    SPLITS: tl.constexpr,
    LEAST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Unnormalised output of BLOCK_M rows of one pair (batch row, KV head) over one split of the prefix, or the block."""
    pair, split = tl.program_id(0), tl.program_id(2)
    batch, head = (pair // kv_heads).to(tl.int64), (pair % kv_heads).to(tl.int64)
    prefix = tl.minimum(tl.load(length + batch * length_stride).to(tl.int32), capacity)
    chunk = split_size(prefix, SPLITS, BLOCK_N, LEAST)
    begin = split * chunk
    if split == SPLITS or begin < prefix:
        row = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
        exists = row < groups * n
        at = row % n
        d = tl.arange(0, BLOCK_D)
        place = q + batch * q_batch + (head * groups + row // n)[:, None] * q_head + at[:, None] * q_row + d[None, :]
        queries = tl.load(place, mask=exists[:, None] & (d < size)[None, :], other=0.0)
        # One loop for both kinds of program, so that its buffers are there once.
        if split == SPLITS:
            begin, end = 0, n
            k_place, v_place = k + batch * k_batch + head * k_head, v + batch * v_batch + head * v_head
            k_step, v_step = k_row, v_row
        else:
            end = tl.minimum(begin + chunk, prefix)
            k_place, v_place = keys + batch * keys_batch + head * keys_head, values + batch * values_batch + head * values_head
            k_step, v_step = keys_row, values_row
        peak = tl.full((BLOCK_M,), -float("inf"), tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
        part = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        for first in range(begin, end, BLOCK_N):
            j = first + tl.arange(0, BLOCK_N)
            inside = j < end  # what lies behind the end is not read: it may hold anything
            far = j.to(tl.int64)
            known = tl.load(k_place + far[None, :] * k_step + d[:, None], mask=inside[None, :] & (d < size)[:, None], other=0.0)
            visible = inside[None, :]
            if CAUSAL:
                visible = visible & ((split < SPLITS) | (j[None, :] <= at[:, None]))
            scores = tl.where(visible, tl.dot(queries, known, input_precision=PRECISION) * scale, -float("inf"))
            highest = tl.maximum(peak, tl.max(scores, axis=1))
            base = tl.where(highest == -float("inf"), 0.0, highest)
            p = tl.exp2(scores - base[:, None])
            fade = tl.exp2(peak - base)
            known = tl.load(v_place + far[:, None] * v_step + d[None, :], mask=inside[:, None] & (d < size)[None, :], other=0.0)
            total = total * fade + tl.sum(p, axis=1)
            part = tl.dot(p.to(known.dtype), known, part * fade[:, None], input_precision=PRECISION)
            peak = highest
        out = (pair * (SPLITS + 1) + split).to(tl.int64) * groups * n + row
        tl.store(peaks + out, peak, mask=exists)
        tl.store(totals + out, total, mask=exists)
        tl.store(acc + out[:, None] * size + d[None, :], part, mask=exists[:, None] & (d < size)[None, :])


@triton.jit
def block_attention_merge(
    acc,
    peaks,
    totals,
    length,
    out,  # [batch, heads, n, size]
    n,
    groups,
    kv_heads,
    size,
    capacity,
    length_stride,
    SPLITS: tl.constexpr,
    LEAST: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Normalised output of BLOCK_M rows of one pair, from the block and the splits that had keys."""
    pair = tl.program_id(0)
    batch = (pair // kv_heads).to(tl.int64)
    prefix = tl.minimum(tl.load(length + batch * length_stride).to(tl.int32), capacity)
    filled = tl.cdiv(prefix, split_size(prefix, SPLITS, BLOCK_N, LEAST))
    row = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    exists = row < groups * n
    d = tl.arange(0, BLOCK_D)
    within = exists[:, None] & (d < size)[None, :]
    # The block comes first: every query sees itself there, so from here on the maximum is finite.
    place = (pair * (SPLITS + 1) + SPLITS).to(tl.int64) * groups * n + row
    peak = tl.load(peaks + place, mask=exists, other=0.0)
    total = tl.load(totals + place, mask=exists, other=1.0)
    result = tl.load(acc + place[:, None] * size + d[None, :], mask=within, other=0.0)
    for split in range(0, filled):
        place = (pair * (SPLITS + 1) + split).to(tl.int64) * groups * n + row
        other = tl.load(peaks + place, mask=exists, other=0.0)
        highest = tl.maximum(peak, other)
        fade, weight = tl.exp2(peak - highest), tl.exp2(other - highest)
        total = total * fade + tl.load(totals + place, mask=exists, other=0.0) * weight
        part = tl.load(acc + place[:, None] * size + d[None, :], mask=within, other=0.0)
        result = result * fade[:, None] + part * weight[:, None]
        peak = highest
    # Heads of one pair are neighbours, so its rows are contiguous in the output.
    place = pair.to(tl.int64) * groups * n + row
    tl.store(out + place[:, None] * size + d[None, :], (result / total[:, None]).to(out.dtype.element_ty), mask=within)


def splits_for(capacity: int, tiles: int, processors: int) -> int:
    """Into how many parts to split a prefix of up to `capacity`, so that about two programs a processor run."""
    return max(1, min(triton.cdiv(capacity, LEAST), 2 * processors // max(tiles, 1)))


def block_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    length: torch.Tensor,
    *,
    causal: bool,
    known: int | None = None,
) -> torch.Tensor:
    """See `reference.block_attention`. Last dimensions must be contiguous. Raises ValueError."""
    batch, heads, n, size = q.shape
    kv_heads, capacity = keys.shape[1:3]
    if any(t.stride(-1) != 1 for t in (q, k, v, keys, values)):
        raise ValueError("the last dimension of every input must be contiguous")
    if heads % kv_heads or length.numel() not in (1, batch):
        raise ValueError(f"{heads} heads over {kv_heads} KV heads, {length.numel()} lengths for {batch} rows do not fit")
    groups = heads // kv_heads
    rows, pairs = groups * n, batch * kv_heads
    exact = q.dtype == torch.float32  # products without tensor cores, whose operands fill the registers
    block_m = 16 if exact else min(max(triton.next_power_of_2(rows), 16), 64)
    row_tiles = triton.cdiv(rows, block_m)
    processors = torch.cuda.get_device_properties(q.device).multi_processor_count if q.is_cuda else 8
    splits = splits_for(capacity, pairs * row_tiles, processors)
    acc = torch.empty((pairs, splits + 1, rows, size), dtype=torch.float32, device=q.device)
    peaks = torch.empty((pairs, splits + 1, rows), dtype=torch.float32, device=q.device)
    totals = torch.empty_like(peaks)
    out = torch.empty((batch, heads, n, size), dtype=q.dtype, device=q.device)
    length_stride = length.stride(0) if length.numel() > 1 else 0
    block_d = max(triton.next_power_of_2(size), 16)
    shared = dict(SPLITS=splits, LEAST=LEAST, BLOCK_N=BLOCK_N, BLOCK_D=block_d, num_warps=4)
    block_attention_split[(pairs, row_tiles, splits + 1)](
        q,
        k,
        v,
        keys,
        values,
        length,
        acc,
        peaks,
        totals,
        n,
        groups,
        kv_heads,
        size,
        capacity,
        size**-0.5 * 1.4426950408889634,
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        *keys.stride()[:3],
        *values.stride()[:3],
        length_stride,
        CAUSAL=causal and n > 1,
        PRECISION="ieee" if exact else "tf32",
        BLOCK_M=block_m,
        num_stages=2,
        **shared,
    )
    block_attention_merge[(pairs, triton.cdiv(rows, MERGE_ROWS))](
        acc, peaks, totals, length, out, n, groups, kv_heads, size, capacity, length_stride, BLOCK_M=MERGE_ROWS, **shared
    )
    return out
