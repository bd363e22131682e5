"""Weights on a diet: int8 with one scale for each output, or int4 with one scale for every 32 inputs of an output.

Weights alone: activations, norms, the KV cache and a draft adapter stay in floating point. Embeddings and the head
are int8 in both formats, as they suffer most from int4. A product brings the weights back to floating point slice
by slice, on every device: no matrix is ever there as a whole.

Integer products were measured and left out. They round the activations too: with one scale a tensor, as PyTorch's
have it, that moved the bundled model's distributions 200 times as far as int8 weights do, and a row's result depends
on what else is in the forward, so that a verification would no longer say what AR says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nemodiff_core.model import TriModeModel

FORMATS = ("int8", "int4")
GROUP = 32  # inputs that share a scale in int4: 4.5 bits a weight in all
# Weights that are in floating point at once. A CPU should still have them in its cache when the product reads them:
# then int8 takes no longer than float32 (measured with AVX2 on matrices of 4096 x 4096, 1 to 32 rows).
_SLICE, _SLICE_CPU = 2**26, 2**19
# Bytes of weights that are made at once. Small on a CPU, where what is freed between tensors that stay is memory lost.
_ENCODED, _ENCODED_CPU = 2**22, 2**16


def compute_dtype(device: torch.device) -> torch.dtype:
    """What a quantised model computes in: float32 on the CPU, elsewhere bfloat16, whose range unscaled sums fit."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def to_int8(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 [n, inputs] and scales [n] of float32 rows [n, inputs]; no weight moves by more than half its row's scale."""
    scale = _not_zero(rows.abs().amax(-1) / 127)
    return (rows / scale[:, None]).round_().clamp_(-127, 127).to(torch.int8), scale


def to_int4(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two weights in a byte [n, groups * GROUP / 2] and bfloat16 scales [n, groups] of float32 rows [n, inputs].

    The weight of a group that is largest in magnitude becomes -8, whatever its sign; most move by at most half the
    scale, those near the largest one's opposite by up to 1.02 scales. Inputs are padded with zeros to whole groups.
    """
    groups = F.pad(rows, (0, -rows.shape[1] % GROUP)).unflatten(1, (-1, GROUP))
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scale = _not_zero((largest / -8).to(torch.bfloat16))
    levels = (groups / scale.float()).round_().clamp_(-8, 7).add_(8).to(torch.uint8).flatten(1)
    low, high = levels.chunk(2, dim=-1)  # halves, not neighbours: unpacking is then one concatenation
    return low | (high << 4), scale[..., 0]


def from_int4(packed: torch.Tensor, scale: torch.Tensor, inputs: int, dtype: torch.dtype) -> torch.Tensor:
    """The rows [n, inputs] that `to_int4` stored."""
    levels = torch.cat((packed & 15, packed >> 4), dim=-1).to(dtype).unflatten(1, (-1, GROUP))
    return levels.sub_(8).mul_(scale[..., None].to(dtype)).flatten(1)[:, :inputs]


class Int8Linear(nn.Module):
    """x Wᵀ with W in int8. Its integers are exact in x's dtype and sums are float32; the scales come after."""

    encode = staticmethod(to_int8)

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = _stored(outputs, inputs, dtype=torch.int8)
        self.scale = _stored(outputs, dtype=torch.float32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sums = _product(x, self.weight, lambda rows: self.weight[rows].to(x.dtype))
        return (sums * self.scale).to(x.dtype)


class Int4Linear(nn.Module):
    """x Wᵀ with W in int4. The weights return to x's dtype, scaled; sums are float32."""

    encode = staticmethod(to_int4)

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.inputs = inputs
        groups = -(-inputs // GROUP)
        self.weight = _stored(outputs, groups * GROUP // 2, dtype=torch.uint8)
        self.scale = _stored(outputs, groups, dtype=torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _product(x, self.weight, lambda rows: from_int4(self.weight[rows], self.scale[rows], self.inputs, x.dtype))


class Int8Embedding(nn.Module):
    """A token's int8 row, times its scale, in `dtype`."""

    encode = staticmethod(to_int8)

    def __init__(self, tokens: int, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = _stored(tokens, size, dtype=torch.int8)
        self.scale = _stored(tokens, dtype=torch.float32)
        self.dtype = dtype

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return (F.embedding(tokens, self.weight) * self.scale[tokens][..., None]).to(self.dtype)


Quantized = Int8Linear | Int4Linear | Int8Embedding


def prepare(model: TriModeModel, form: str, dtype: torch.dtype) -> None:
    """Give `model`, which is on the meta device, modules of one of FORMATS that compute in `dtype` and wait for weights."""
    made: dict[nn.Module, nn.Module] = {}
    with torch.device("meta"):
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Embedding):
                    made[child] = Int8Embedding(*child.weight.shape, dtype)
                elif isinstance(child, nn.Linear):
                    small = form == "int4" and child is not model.diffusion_head
                    made[child] = (Int4Linear if small else Int8Linear)(*child.weight.shape)
                else:
                    continue
                setattr(parent, name, made[child])
    for joined in model.joined():
        joined.maps = tuple(made[linear] for linear in joined.maps)
    model.quantized = form


def read(module: Quantized, rows: Any, device: torch.device | str) -> dict[str, torch.Tensor]:
    """`weight` and `scale` of `module` on `device`, from a floating-point matrix or safetensors' slice of one.

    Rounded some rows at a time: beside the result, only those are in memory.
    """
    kept = {name: torch.empty_like(stored, device=device) for name, stored in module.named_parameters()}
    step = max(1, (_ENCODED_CPU if torch.device(device).type == "cpu" else _ENCODED) // module.weight.shape[1])
    for start in range(0, len(module.weight), step):
        some = slice(start, start + step)
        for name, part in zip(("weight", "scale"), module.encode(rows[some].to(device, torch.float32)), strict=True):
            kept[name][some] = part
    return kept


def _product(x: torch.Tensor, stored: torch.Tensor, weights: Callable[[slice], torch.Tensor]) -> torch.Tensor:
    """x [..., inputs] times the `weights` of every slice of outputs, transposed: [..., outputs]."""
    step = max(1, (_SLICE_CPU if x.device.type == "cpu" else _SLICE) // x.shape[-1])
    parts = [F.linear(x, weights(slice(start, start + step))) for start in range(0, len(stored), step)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _stored(*shape: int, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False)  # a parameter, so that accelerate moves it


def _not_zero(scale: torch.Tensor) -> torch.Tensor:
    return scale.masked_fill_(scale == 0, 1)
