"""Compiles every kernel for compute capability 9.0, as the 8B model launches it, without a GPU; prints a line for each.

Run in a process of its own: the tests' process interprets. Nothing is launched: a launch is recorded, its
arguments become the signature that Triton would have derived from them.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction, mangle_type

from kernels.add_rmsnorm import add_rmsnorm
from kernels.block_attention import block_attention
from kernels.commit_stats import commit_stats
from kernels.head_stats import head_stats
from kernels.rope_qscale_kvstore import rope_qscale_kvstore
from kernels.verify_commit import verify_commit

HOPPER = GPUTarget("cuda", 90, 32)
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


def compile_only(kernel: JITFunction, *arguments, grid, warmup, **named) -> None:
    """Stands in for a launch."""
    options = {name: named.pop(name) for name in ("num_warps", "num_stages") if name in named}
    given = inspect.signature(kernel.fn).bind(*arguments, **named).arguments
    signature, constants, divisible = {}, {}, {}
    for i, (parameter, value) in enumerate(zip(kernel.params, given.values(), strict=True)):
        number = isinstance(value, int) and not isinstance(value, bool)
        if parameter.is_constexpr or number and value == 1:
            signature[parameter.name], constants[(i,)] = "constexpr", value
            continue
        signature[parameter.name] = mangle_type(value)
        if not number and not isinstance(value, float) or number and value % 16 == 0:
            divisible[(i,)] = [["tt.divisibility", 16]]
    made = triton.compile(ASTSource(kernel, signature, constants, divisible), target=HOPPER, options=options)
    file = Path(sys.argv[1]) / "kernel.cubin"
    file.write_bytes(made.asm["cubin"])
    usage = subprocess.run([CUOBJDUMP, "--dump-resource-usage", file], capture_output=True, text=True, check=True).stdout
    registers, stack = (re.search(rf"{name}:(\d+)", usage)[1] for name in ("REG", "STACK"))
    print(kernel.__name__, registers, stack, made.metadata.shared, int("wgmma" in made.asm["ptx"]))


def tensor(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


JITFunction.run = compile_only
length = tensor(1, dtype=torch.int32)
# A block, and the one token of AR: an argument that is 1 becomes a constant, which makes another kernel.
for n in (32, 1):
    pair, cached = (1, 8, n, 128), (1, 8, 4096, 128)
    commit_stats(tensor(n, 131072), 100, candidates=8, margin=True)
    head_stats(tensor(n, 4096), tensor(131072, 4096), 100)
    block_attention(tensor(1, 32, n, 128), *(tensor(*s) for s in (pair, pair, cached, cached)), length, causal=True)
    verify_commit(tensor(1, n, dtype=torch.int64), tensor(1, n, dtype=torch.float32), length, end=4096, stop_id=11)
    stored = dict(keys=tensor(*cached), values=tensor(*cached), keep=n)
    heads, tables = [tensor(1, n, h, 128) for h in (32, 8, 8)], [tensor(4096, 128)] * 2
    rope_qscale_kvstore(*heads, *tables, length, beta=0.1, window=16384, **stored)
    add_rmsnorm(tensor(n, 4096), tensor(n, 4096), tensor(4096), 1e-5)
# Everything that can be 1 at once.
commit_stats(tensor(1, 300), 1, banned=tensor(300, dtype=torch.bool))
block_attention(*[tensor(1, 1, 1, 16)] * 3, *[tensor(1, 1, 1, 16)] * 2, length, causal=False)
rope_qscale_kvstore(*[tensor(1, 1, 1, 16)] * 3, tensor(1, 16), tensor(1, 16), length)
verify_commit(*[tensor(1, 1, dtype=torch.int64)] * 2, length, end=1, stop_id=1, due=1, forced_id=1)
