"""`add_rmsnorm`: the residual sum and its norm, one read of each input.

    s = x + r        y = w · round(s / √(mean(s²) + ε))        (Zhang & Sennrich 2019)

s is rounded to the dtype before it is squared, and the quotient before the weight, as in the family's reference:
the same inputs give the same bits but for the order of one sum. One program a row; four times the row in bytes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def add_rmsnorm_row(
    x,  # [rows, size]
    residual,
    weight,  # [size]
    total,
    normed,
    size,
    x_row,
    residual_row,
    eps,
    ADD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < size
    kind = total.dtype.element_ty
    s = tl.load(x + row * x_row + at, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        s += tl.load(residual + row * residual_row + at, mask=inside, other=0.0).to(tl.float32)
        s = s.to(kind)
        tl.store(total + row * size + at, s, mask=inside)
        s = s.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(s * s, axis=0) / size + eps)
    w = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + row * size + at, ((s * scale).to(kind).to(tl.float32) * w).to(kind), mask=inside)


def add_rmsnorm(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `reference.add_rmsnorm`. Raises ValueError for shapes or dtypes that do not belong together."""
    size = x.shape[-1]
    if weight.shape != (size,) or residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        raise ValueError(f"a weight {list(weight.shape)} and the residual do not fit {list(x.shape)} {x.dtype}")
    rows = x.reshape(-1, size).contiguous()
    others = rows if residual is None else residual.reshape(-1, size).contiguous()
    normed = torch.empty_like(rows)
    total = x if residual is None else torch.empty_like(rows)
    if len(rows):
        add_rmsnorm_row[(len(rows),)](
            rows,
            others,
            weight,
            normed if residual is None else total,
            normed,
            size,
            rows.stride(0),
            others.stride(0),
            eps,
            ADD=residual is not None,
            BLOCK=triton.next_power_of_2(size),
            num_warps=8 if size > 2048 else 4,
        )
    return total.view(x.shape), normed.view(x.shape)
