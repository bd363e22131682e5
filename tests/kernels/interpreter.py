"""Triton's interpreter, made to compute bfloat16 as a GPU does, and quick enough to run many small cases."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter


def prepare() -> None:
    """Change the interpreter of this process, once and for good."""
    _round_bfloat16()
    _multiply_bfloat16()
    _patch_language_once()


def _widen(bits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(np.array(bits).view(np.int16)).view(torch.bfloat16).float().numpy()


def _round_bfloat16() -> None:
    """As it comes, the interpreter cuts digits off where a GPU rounds to the nearest."""
    original = interpreter._convert_float

    def convert(data, source, target, rounding):
        if (source, target) == (tl.float32, tl.bfloat16):
            rounded = torch.from_numpy(np.array(data, dtype=np.float32)).bfloat16()
            return rounded.view(torch.int16).numpy().view(np.uint16)
        if (source, target) == (tl.bfloat16, tl.float32):
            return _widen(data)
        return original(data, source, target, rounding)

    interpreter._convert_float = convert


def _multiply_bfloat16() -> None:
    """As it comes, it multiplies the bits of bfloat16 matrices as if they were integers."""
    original = interpreter.InterpreterBuilder.create_dot

    def create_dot(self, a, b, d, *settings):
        a, b = (
            interpreter.TensorHandle(_widen(side.data), tl.float32) if side.dtype.scalar == tl.bfloat16 else side
            for side in (a, b)
        )
        return original(self, a, b, d, *settings)

    interpreter.InterpreterBuilder.create_dot = create_dot


def _patch_language_once() -> None:
    """It puts its own functions into triton.language at every call of every function, which is most of its time."""
    interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
    interpreter._patch_lang = lambda fn: interpreter._LangPatchScope()
