"""`verify_commit`: what a causal pass over a pending token and its drafts settles, without asking the host.

With the block b (b_0 pending, the rest drafts), picks a and the pending token at position s = length:

    matched = max r such that a_i = b_{i+1} for all i < r
    emitted = min(matched + 1, end - s - 1, index of the first stop token + 1)
    tokens = a_0 .. a_{emitted-1},   kept drafts = min(matched, emitted),   length ← s + emitted

(Greedy self-speculation, facts §4.3; Leviathan et al. 2023.) One program a row, a few hundred bytes: all it
saves is launches and the wait for the host.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def verify_commit_row(
    block,  # [batch, n]
    picks,  # [batch, n], any dtype
    length,  # [batch], changed
    settled,  # [batch, 4 + n] int32
    n,
    block_batch,
    block_row,
    picks_batch,
    picks_row,
    length_stride,
    end,
    stop_id,
    due,
    forced_id,
    BLOCK: tl.constexpr,
):
    """One row of the batch."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    start = tl.load(length + row * length_stride).to(tl.int32)
    drafts = tl.load(block + row * block_batch + (i + 1) * block_row, mask=i + 1 < n, other=-1).to(tl.int32)
    chosen = tl.load(picks + row * picks_batch + i * picks_row, mask=i < n, other=-1).to(tl.int32)
    pending = tl.load(block + row * block_batch).to(tl.int32)
    # Where a token is due that has not been emitted by then, it replaces the pick and no draft is kept.
    ended = tl.min(tl.where(chosen == forced_id, i, BLOCK), axis=0)
    forced = (start + 1 + i == due) & (ended >= i)
    token = tl.where(forced, forced_id, chosen)
    broken = (i + 1 >= n) | (drafts != chosen) | forced
    matched = tl.min(tl.where(broken, i, BLOCK), axis=0)
    stopped = tl.min(tl.where(token == stop_id, i, BLOCK), axis=0)
    emitted = tl.minimum(tl.minimum(matched, stopped) + 1, end - start - 1)
    emitted = tl.where(pending == stop_id, 0, tl.maximum(emitted, 0))
    last = tl.sum(tl.where(i == emitted - 1, token, 0), axis=0)

    out = settled + row * (4 + n)
    tl.store(out, tl.minimum(matched, emitted))
    tl.store(out + 1, emitted)
    tl.store(out + 2, start + emitted)
    tl.store(out + 3, tl.where(emitted > 0, last, pending))
    tl.store(out + 4 + i, tl.where(i < emitted, token, -1), mask=i < n)
    tl.store(length + row * length_stride, (start + emitted).to(length.dtype.element_ty))


def verify_commit(
    block: torch.Tensor,
    picks: torch.Tensor,
    length: torch.Tensor,
    *,
    end: int,
    stop_id: int = -1,
    due: int = -1,
    forced_id: int = -1,
) -> torch.Tensor:
    """See `reference.verify_commit`. Raises ValueError for shapes that do not belong together."""
    batch, n = block.shape
    if picks.shape != block.shape or length.shape != (batch,):
        raise ValueError(f"block {list(block.shape)}, picks {list(picks.shape)} and length {list(length.shape)} do not fit")
    settled = torch.empty((batch, 4 + n), dtype=torch.int32, device=block.device)
    if batch:
        verify_commit_row[(batch,)](
            block,
            picks,
            length,
            settled,
            n,
            *block.stride(),
            *picks.stride(),
            length.stride(0),
            end,
            stop_id,
            due,
            forced_id,
            BLOCK=triton.next_power_of_2(n),
            num_warps=1,
        )
    return settled
