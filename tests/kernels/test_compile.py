"""The interpreter accepts more than the compiler: every kernel is also compiled for an H200, which needs no GPU."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED_MEMORY = 227 * 1024  # bytes a program may use on compute capability 9.0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="Triton's own compiler tools are there for x86-64")
def test_kernels_compile_for_hopper_without_spilling(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"PYTHONPATH": str(ROOT)}
    script = ROOT / "tests/kernels/compile_for_hopper.py"
    made = subprocess.run([sys.executable, script, tmp_path], env=environment, capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr[-2000:]
    lines = [(name, *map(int, numbers)) for name, *numbers in map(str.split, made.stdout.splitlines())]
    assert len({name for name, *_ in lines}) == 8
    for name, registers, stack, shared, _ in lines:
        assert stack == 0, f"{name} spills {stack} bytes"
        assert registers <= 255 and shared <= SHARED_MEMORY
    assert {name for name, *_, warpgroups in lines if warpgroups} == {"head_stats_tile", "block_attention_split"}
