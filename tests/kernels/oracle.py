"""How exact a kernel has to be: no further from the truth than the framework in the same dtype, and a hair."""

from __future__ import annotations

from collections.abc import Callable

import torch

from kernels import reference

HAIR = 1e-5
DTYPES = (torch.float32, torch.bfloat16)


def error(got: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Largest and root-mean-square difference, [2]; equal infinities do not differ, and a NaN must meet a NaN."""
    assert got.shape == exact.shape
    got, exact = got.double(), exact.double()
    assert torch.equal(got.isnan(), exact.isnan())
    difference = torch.where(got.isnan() | (got == exact), 0.0, (got - exact).abs())
    if not difference.numel():
        return torch.zeros(2)
    return torch.stack((difference.max(), difference.square().mean().sqrt())).cpu()


def assert_as_exact(got: torch.Tensor, own: torch.Tensor, exact: torch.Tensor) -> None:
    """`got` is no further from `exact` than the framework's `own` result.

    As a mean: which single element two ways of rounding hit worst is luck, and may differ by a factor.
    """
    (worst, mean), (own_worst, own_mean) = error(got, exact), error(own, exact)
    assert mean <= own_mean + HAIR, f"error {mean:.2e}, the framework's is {own_mean:.2e}"
    assert worst <= 2 * own_worst + HAIR, f"largest error {worst:.2e}, the framework's is {own_worst:.2e}"


def check(kernel: Callable, reference: Callable, *tensors: torch.Tensor | None, **named) -> None:
    """Hold one call against the reference, its tensors as they are and in float32. Either may return several tensors."""

    def call(operation: Callable, wide: bool) -> tuple[torch.Tensor, ...]:
        taken = [t.float() if wide and t is not None and t.is_floating_point() else t for t in tensors]
        result = operation(*taken, **named)
        return result if isinstance(result, tuple) else (result,)

    for got, own, exact in zip(call(kernel, False), call(reference, False), call(reference, True), strict=True):
        assert got.dtype == own.dtype
        assert_as_exact(got, own, exact)


def check_stats(
    got: torch.Tensor,
    logits: torch.Tensor,
    mask_id: int,
    candidates: int = 0,
    margin: bool = False,
    banned: torch.Tensor | None = None,
    own: torch.Tensor | None = None,
) -> None:
    """Hold a packed table against float64, and against the framework's `own` table where that was made otherwise.

    Equal candidates have to come by id, where the reference lets them come as they like; of rows without a
    distribution nothing is asked but a NaN entropy and valid ids.
    """
    if own is None:
        own = reference.commit_stats(logits, mask_id, candidates=candidates, margin=margin, banned=banned)
    assert got.shape == own.shape and got.dtype == torch.float32
    k, log_p = min(candidates, logits.shape[1] - 1), logits.double().log_softmax(-1)
    ids, own_ids = (table[:, [0, *range(3, 3 + k)]].long() for table in (got, own))
    assert ((ids >= 0) & (ids < logits.shape[1])).all()
    sane = ~log_p.isnan().any(-1)
    assert torch.equal(got[:, 2].isnan(), ~sane)

    allowed = logits.double().clone()
    allowed[:, mask_id] = -torch.inf
    if banned is not None:
        allowed.masked_fill_(banned, -torch.inf)
    best = allowed.sort(dim=-1, descending=True, stable=True).indices
    assert torch.equal(ids[sane], torch.cat((best[:, :1], best[:, :k]), -1)[sane])

    def numbers(chosen: torch.Tensor) -> torch.Tensor:
        """What the table would hold for these tokens, but for the ids."""
        possible = log_p.masked_fill(allowed == -torch.inf, -torch.inf)
        p = possible.gather(-1, chosen).exp()
        columns = [p[:, :1], torch.special.entr(log_p.exp()).sum(-1, keepdim=True), p[:, 1:]]
        if margin:
            first, second = possible.topk(2).values.exp().unbind(-1)
            columns.append((first - second)[:, None])
        return torch.cat(columns, -1)[sane]

    places = [1, 2, *range(3 + k, got.shape[1])]
    worst, allowed_worst = error(got[sane][:, places], numbers(ids)), error(own[sane][:, places], numbers(own_ids))
    assert (worst <= allowed_worst + HAIR).all()
