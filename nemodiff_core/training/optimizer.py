"""Muon for the layers' matrices, AdamW for embeddings, head and norms, and the learning-rate schedule.

torch ships Muon, but orthogonalises in bfloat16, which is many times slower than float32 on a CPU without
bfloat16 instructions, and one matrix at a time. Ours stacks matrices of one shape and stays in float32 there.
"""

from __future__ import annotations

from collections import defaultdict

import torch

from nemodiff_core.model import TriModeModel

# Quintic Newton-Schulz coefficients (Jordan et al. 2024): singular values land near 1 within a few steps.
_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """Nearest semi-orthogonal matrices, roughly: [n, rows, columns] with all singular values near 1."""
    a, b, c = _QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    if x.device.type == "cuda":
        x = x.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.to(matrices.dtype)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised per matrix; update size matched to AdamW's (0.2 * lr RMS per weight)."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            for shape, params in by_shape.items():
                updates = []
                for p in params:
                    buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(buffer, group["momentum"]))  # Nesterov
                scale = group["lr"] * 0.2 * max(shape) ** 0.5
                for p, update in zip(params, orthogonalise(torch.stack(updates))):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)


def build_optimizers(model: TriModeModel, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices; AdamW for everything else."""
    matrices = [p for p in model.encoder.layers.parameters() if p.dim() == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        Muon(matrices, lr=lr, weight_decay=weight_decay),
        torch.optim.AdamW(others, lr=lr * 0.7, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def schedule(progress: float, step: int, warmup: int = 60, hold: float = 0.55) -> float:
    """Learning-rate factor: warm-up, constant to `hold` of the budget, then linear to 2 % (WSD)."""
    decay = 1.0 if progress <= hold else max(0.02, 1 - 0.98 * (progress - hold) / (1 - hold))
    return min(1.0, (step + 1) / warmup) * decay
