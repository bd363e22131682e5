"""`rope_qscale_kvstore`: rotate queries and keys, scale the queries, store keys and values behind the cached prefix.

For a head x = (x₁, x₂) of input i at position t = length + offset_i, with angles from the model's tables:

    rot(x) = (x₁ cos t - x₂ sin t,  x₂ cos t + x₁ sin t)          (Su et al. 2021, half-rotation layout)
    q' = rot(q) · (1 + β ln(1 + ⌊t / window⌋))      k' = rot(k)      cache[length + i] = (k', v)

One program takes one input and one KV head with its query heads. Everything is computed in float32 and rounded
once. The length is read on the device, so a crop needs to write one integer and a graph can be replayed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def rope_qscale_kvstore_head(
    q,  # [batch, n, heads, size]
    k,  # [batch, n, kv_heads, size]
    v,
    cos,  # [positions, size]
    sin,
    length,  # [1] or [batch]
    offsets,  # [n], or nothing
    q_out,  # [batch, heads, n, size]
    k_out,  # [batch, kv_heads, n, size]
    keys,  # [batch, kv_heads, capacity, size], or nothing
    values,
    n,
    groups,
    kv_heads,
    positions,
    capacity,
    keep,
    window,
    beta,
    q_batch,
    q_row,
    q_head,
    k_batch,
    k_row,
    k_head,
    v_batch,
    v_row,
    v_head,
    table_stride,
    length_stride,
    keys_batch,
    keys_head,
    keys_row,
    values_batch,
    values_head,
    values_row,
    HALF: tl.constexpr,
    OFFSETS: tl.constexpr,
    STORE: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One input of one batch row, one KV head and its `groups` query heads."""
    i, head = tl.program_id(0) % n, tl.program_id(1)
    batch = (tl.program_id(0) // n).to(tl.int64)
    start = tl.load(length + batch * length_stride).to(tl.int32)
    at = start + i
    if OFFSETS:
        at = start + tl.load(offsets + i).to(tl.int32)
    d = tl.arange(0, BLOCK_D)
    real = d < HALF
    # An index past the tables would be the caller's mistake; it must not become a read of foreign memory.
    angle = tl.minimum(at, positions - 1).to(tl.int64) * table_stride + d
    c = tl.load(cos + angle, mask=real, other=0.0).to(tl.float32)
    s = tl.load(sin + angle, mask=real, other=0.0).to(tl.float32)
    scale = 1.0 + beta * tl.log(1.0 + (at // window).to(tl.float32))

    g = tl.arange(0, BLOCK_G)
    within = (g < groups)[:, None] & real[None, :]
    place = q + batch * q_batch + i.to(tl.int64) * q_row + (head * groups + g)[:, None] * q_head + d[None, :]
    first = tl.load(place, mask=within, other=0.0).to(tl.float32)
    second = tl.load(place + HALF, mask=within, other=0.0).to(tl.float32)
    out = q_out + (((batch * kv_heads + head) * groups + g) * n + i)[:, None] * (2 * HALF) + d[None, :]
    kind = q_out.dtype.element_ty
    tl.store(out, ((first * c - second * s) * scale).to(kind), mask=within)
    tl.store(out + HALF, ((second * c + first * s) * scale).to(kind), mask=within)

    place = k + batch * k_batch + i.to(tl.int64) * k_row + head * k_head + d
    first = tl.load(place, mask=real, other=0.0).to(tl.float32)
    second = tl.load(place + HALF, mask=real, other=0.0).to(tl.float32)
    low, high = (first * c - second * s).to(kind), (second * c + first * s).to(kind)
    out = k_out + ((batch * kv_heads + head) * n + i) * (2 * HALF) + d
    tl.store(out, low, mask=real)
    tl.store(out + HALF, high, mask=real)
    if STORE:
        kept = real & (i < keep) & (start + i < capacity)
        behind = (start + i).to(tl.int64)
        out = keys + batch * keys_batch + head * keys_head + behind * keys_row + d
        tl.store(out, low, mask=kept)
        tl.store(out + HALF, high, mask=kept)
        place = v + batch * v_batch + i.to(tl.int64) * v_row + head * v_head + d
        out = values + batch * values_batch + head * values_head + behind * values_row + d
        tl.store(out, tl.load(place, mask=kept, other=0.0), mask=kept)
        tl.store(out + HALF, tl.load(place + HALF, mask=kept, other=0.0), mask=kept)


def rope_qscale_kvstore(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    length: torch.Tensor,
    *,
    offsets: torch.Tensor | None = None,
    window: int = 1,
    beta: float = 0.0,
    keys: torch.Tensor | None = None,
    values: torch.Tensor | None = None,
    keep: int = 0,
    known: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `reference.rope_qscale_kvstore`. Pairs that do not fit the cache are dropped. Raises ValueError."""
    batch, n, heads, size = q.shape
    kv_heads = k.shape[2]
    store = keep > 0
    cached = (keys, values) if store else (k.transpose(1, 2), v.transpose(1, 2))
    if any(t is None or t.stride(-1) != 1 for t in (q, k, v, cos, sin, *cached)):
        raise ValueError("keeping needs a cache, and the last dimension of every input must be contiguous")
    if heads % kv_heads or size % 2 or length.numel() not in (1, batch) or cos.stride() != sin.stride():
        raise ValueError(f"queries {list(q.shape)}, keys {list(k.shape)}, lengths {list(length.shape)} do not fit")
    groups = heads // kv_heads
    q_out = torch.empty((batch, heads, n, size), dtype=q.dtype, device=q.device)
    k_out = torch.empty((batch, kv_heads, n, size), dtype=q.dtype, device=q.device)
    if n:
        rope_qscale_kvstore_head[(batch * n, kv_heads)](
            q,
            k,
            v,
            cos,
            sin,
            length,
            length if offsets is None else offsets,
            q_out,
            k_out,
            *cached,
            n,
            groups,
            kv_heads,
            cos.shape[0],
            cached[0].shape[2],
            keep,
            window,
            float(beta),
            *q.stride()[:3],
            *k.stride()[:3],
            *v.stride()[:3],
            cos.stride(0),
            length.stride(0) if length.numel() > 1 else 0,
            *cached[0].stride()[:3],
            *cached[1].stride()[:3],
            HALF=size // 2,
            OFFSETS=offsets is not None,
            STORE=store,
            BLOCK_G=triton.next_power_of_2(groups),
            BLOCK_D=triton.next_power_of_2(size // 2),
            num_warps=1,
        )
    return q_out, k_out
