"""The joint objective: L = L_AR + alpha * L_diffusion over one doubled forward (facts §5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from nemodiff_core.model import TriModeModel
from nemodiff_core.training.batches import JointBatch


@dataclass(frozen=True)
class JointLoss:
    """Differentiable total and the two plain means in nats per token."""

    total: torch.Tensor  # [] with gradient
    ar: torch.Tensor  # [] detached
    masked: torch.Tensor | None  # [] detached, unweighted; None for a batch without a noisy half


def joint_loss(model: TriModeModel, batch: JointBatch, alpha: float) -> JointLoss:
    """One forward over noisy ‖ clean; the head runs only on rows that have a target.

    AR: shifted cross-entropy averaged over answer tokens. Diffusion: unshifted cross-entropy on masked
    cells with 1/p weights, averaged globally by the sum of weights.
    """
    limit = int(batch.positions.max()) + 1
    x = model.hidden(batch.tokens, batch.positions, limit, mask=batch.mask)
    rows = torch.cat((batch.ar_rows, batch.noisy_rows))
    logits = model.head(x.flatten(0, 1).index_select(0, rows)).float()
    losses = F.cross_entropy(logits, torch.cat((batch.ar_targets, batch.noisy_targets)), reduction="none")
    ar, masked = losses.split((len(batch.ar_rows), len(batch.noisy_rows)))
    ar_mean = ar.mean()
    if not len(masked):
        return JointLoss(ar_mean, ar_mean.detach(), None)
    diffusion = (masked * batch.noisy_weights).sum() / batch.noisy_weights.sum()
    return JointLoss(ar_mean + alpha * diffusion, ar_mean.detach(), masked.detach().mean())
