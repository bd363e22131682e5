"""Who runs what: the default, a wish, and wishes that cannot be met."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kernels
from kernels import dispatch, reference
from kernels.dispatch import NAMES, PROVEN, WISH

ROOT = Path(__file__).parents[2]


def test_a_cpu_runs_the_references():
    ops = kernels.use("cpu")
    assert all(getattr(ops, name) is getattr(reference, name) for name in NAMES)
    assert not ops.kernels and not ops.interpreted


def test_an_interpreter_or_a_gpu_runs_every_kernel(ops):
    assert ops.kernels == frozenset(NAMES)
    assert all(getattr(ops, name).__module__ == f"kernels.{name}" for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_is_called_as_its_reference_is(ops, name):
    def shape(operation):
        return [(p.name, p.kind, p.default, p.annotation) for p in inspect.signature(operation).parameters.values()]

    assert shape(getattr(ops, name)) == shape(getattr(reference, name))


def test_what_is_proven_has_a_name():
    assert PROVEN <= set(NAMES)


def test_the_argument_comes_before_the_environment(monkeypatch):
    monkeypatch.setenv(WISH, "triton")
    assert not kernels.use("cpu", "reference").kernels
    with pytest.raises(RuntimeError, match="cannot be met: kernels are compiled for GPUs, not for cpu"):
        kernels.use("cpu")


def test_some_kernels_alone(monkeypatch):
    monkeypatch.setattr(dispatch, "_obstacle", lambda device: None)
    ops = kernels.use("cuda", "add_rmsnorm, verify_commit")
    assert ops.kernels == {"add_rmsnorm", "verify_commit"}
    assert ops.commit_stats is reference.commit_stats
    assert ops.add_rmsnorm is not reference.add_rmsnorm


def test_an_unknown_wish_is_refused(monkeypatch):
    monkeypatch.setenv(WISH, "fast")
    with pytest.raises(ValueError, match="NEMODIFF_KERNELS has 'fast'; give reference, triton"):
        kernels.use("cpu")


def test_proven_kernels_fall_back_where_they_cannot_run(monkeypatch):
    monkeypatch.setattr(dispatch, "PROVEN", frozenset({"commit_stats"}))
    assert not kernels.use("cpu").kernels


@pytest.mark.skipif(torch.cuda.is_available(), reason="compiled here")
def test_one_process_cannot_both_interpret_and_compile(monkeypatch, ops):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RuntimeError, match="this process runs Triton's interpreter"):
        kernels.use("cuda", "triton")


def test_compiled_kernels_are_not_interpreted(monkeypatch, ops):
    monkeypatch.setattr(dispatch, "_is_interpreted", lambda: False)
    with pytest.raises(RuntimeError, match="this process compiles its kernels"):
        kernels.use("cpu", "interpret")


def test_a_laptop_needs_no_triton_and_may_interpret_after_triton_was_imported():
    program = """
import sys
sys.modules["triton"] = None  # importing it fails
import torch, kernels, kernels.bench
x = torch.randn(2, 9)
expected = kernels.use("cpu").commit_stats(x, 1, candidates=2)
kernels.bench.measure(device="cpu")
try:
    kernels.use("cpu", "interpret")
except RuntimeError as error:
    assert "not installed" in str(error)
del sys.modules["triton"]
import triton
made = kernels.use("cpu", "interpret").commit_stats(x, 1, candidates=2)
assert torch.allclose(made, expected)
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
