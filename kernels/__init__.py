"""Triton kernels for the steps of decoding, each equal to a plain PyTorch reference; `use` says which of the two runs."""

from kernels.dispatch import NAMES, Ops, compiles_cpu, use

__all__ = ["NAMES", "Ops", "compiles_cpu", "use"]
