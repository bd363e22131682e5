"""Two of the operations in PyTorch without a wait for the host: what a CUDA graph holds where no kernel is switched on.

They cannot know a length that lies on the device, so they go over the whole capacity of the cache, under a mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kernels import reference


def rope_qscale_kvstore(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    length: torch.Tensor,
    *,
    keys: torch.Tensor | None = None,
    values: torch.Tensor | None = None,
    keep: int = 0,
    **more,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `reference.rope_qscale_kvstore`; for one length, behind which the cache has room for what is kept."""
    q, k = reference.rope_qscale_kvstore(q, k, v, cos, sin, length, **more)
    if keep:
        at = length.long() + torch.arange(keep, device=length.device)
        keys.index_copy_(2, at, k[:, :, :keep])
        values.index_copy_(2, at, v[:, :keep].transpose(1, 2))
    return q, k


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
    """See `reference.block_attention`; for one length and a block that `rope_qscale_kvstore` has kept behind it.

    What the cache holds further on has no weight, but must be finite.
    """
    batch, heads, count, size = q.shape
    pairs, capacity = keys.shape[1], keys.shape[2]
    last = length.long() + (torch.arange(count, device=q.device) if causal else count - 1)
    visible = torch.arange(capacity, device=q.device) <= last.expand(count)[:, None]
    # Heads that share keys are more rows of one head: no device has to repeat the cache for them.
    rows = q.reshape(batch, pairs, -1, size)
    out = F.scaled_dot_product_attention(rows, keys, values, attn_mask=visible.repeat(heads // pairs, 1), scale=size**-0.5)
    return out.reshape(batch, heads, count, size)
