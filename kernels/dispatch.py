"""The one place that decides whether an operation runs as a kernel or as its PyTorch reference.

    ops = kernels.use(device)
    packed = ops.commit_stats(logits, mask_id)

Without a wish, a CPU gets references, and a GPU gets the kernels of `PROVEN` and references for the rest. A wish is
the argument `mode` or the environment variable NEMODIFF_KERNELS:

    reference            references only
    triton               every kernel
    commit_stats,...     these kernels, references for the rest
    interpret            every kernel in Triton's interpreter, on any device: slow, for tests

References may ask the host for the length of a cache. With `waits=False` none does (unwaiting.py), for CUDA graphs.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch

from kernels import reference, unwaiting

NAMES = ("commit_stats", "head_stats", "block_attention", "verify_commit", "rope_qscale_kvstore", "add_rmsnorm")

# Kernels that were measured to beat their baselines (README.md); nothing else runs without being asked for.
PROVEN: frozenset[str] = frozenset()

OLDEST = (8, 0)  # compute capability from which Triton has bfloat16 products
WISH = "NEMODIFF_KERNELS"


@dataclass(frozen=True)
class Ops:
    """The six operations as they run on one device; signatures and meaning are those of `reference`."""

    commit_stats: Callable[..., torch.Tensor]
    head_stats: Callable[..., torch.Tensor]
    block_attention: Callable[..., torch.Tensor]
    verify_commit: Callable[..., torch.Tensor]
    rope_qscale_kvstore: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    add_rmsnorm: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    kernels: frozenset[str]  # which of them are kernels
    interpreted: bool = False


def use(device: torch.device | str, mode: str | None = None, *, waits: bool = True) -> Ops:
    """The operations for `device`; without `waits` none but `verify_commit` asks the host for anything.

    Raises ValueError for an unknown wish, RuntimeError for one that cannot be met.
    """
    device = torch.device(device)
    wish = mode or os.environ.get(WISH) or "auto"
    chosen = _chosen(wish)
    if wish == "interpret":
        _interpret()
    elif chosen and (obstacle := _obstacle(device)):
        if wish != "auto":
            raise RuntimeError(f"{WISH}={wish} cannot be met: {obstacle}; leave it unset to run the references.")
        chosen = frozenset()
    return Ops(**{name: _load(name, name in chosen, waits) for name in NAMES}, kernels=chosen, interpreted=wish == "interpret")


def compiles_cpu() -> bool:
    """Whether whole forwards of small models are compiled for the CPU (cpu_forward.py): Numba is there, no reference was wished for."""
    return os.environ.get(WISH) != "reference" and importlib.util.find_spec("numba") is not None


def _chosen(wish: str) -> frozenset[str]:
    if wish == "auto":
        return PROVEN
    if wish == "reference":
        return frozenset()
    if wish in ("triton", "interpret"):
        return frozenset(NAMES)
    names = frozenset(name.strip() for name in wish.split(","))
    if unknown := names - set(NAMES):
        raise ValueError(
            f"{WISH} has {', '.join(sorted(unknown))!r}; give reference, triton, interpret, or some of {', '.join(NAMES)}."
        )
    return names


def _obstacle(device: torch.device) -> str | None:
    """Why compiled kernels cannot run on `device`; None if they can."""
    if device.type != "cuda":
        return f"kernels are compiled for GPUs, not for {device.type}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if _is_interpreted():
        return "this process runs Triton's interpreter"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < OLDEST:
        return "the GPU is older than compute capability 8.0"
    return None


def _interpret() -> None:
    """Turn this process to Triton's interpreter, for good. Raises RuntimeError where kernels were compiled already."""
    if importlib.util.find_spec("triton") is None:
        raise RuntimeError("the interpreter is a part of Triton, which is not installed; pip install triton.")
    if not _is_interpreted() and any(f"kernels.{name}" in sys.modules for name in NAMES):
        raise RuntimeError("this process compiles its kernels; set TRITON_INTERPRET=1 before it starts.")
    os.environ["TRITON_INTERPRET"] = "1"
    import triton
    from triton.language import standard
    from triton.runtime.interpreter import InterpretedFunction

    # Triton chooses at its first import, which torch.compile and optimisers cause too: its own functions follow late.
    for name, function in list(vars(standard).items()):
        if isinstance(function, triton.JITFunction):
            interpreted = InterpretedFunction(function.fn)
            for module in (standard, triton.language):
                if getattr(module, name, None) is function:
                    setattr(module, name, interpreted)


def _is_interpreted() -> bool:
    if "triton" not in sys.modules:
        return os.environ.get("TRITON_INTERPRET") == "1"
    import triton.language as tl

    return not isinstance(tl.sum, sys.modules["triton"].JITFunction)


def _load(name: str, kernel: bool, waits: bool) -> Callable:
    if kernel:  # imported only when wanted: a CPU never waits for Triton, and need not have it
        return getattr(importlib.import_module(f"kernels.{name}"), name)
    return getattr(unwaiting if not waits and hasattr(unwaiting, name) else reference, name)
