"""The benchmark: every case runs and agrees; what it derives from a time; and a CPU says that nothing was measured."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from kernels import bench
from kernels.dispatch import NAMES


@pytest.fixture
def small(monkeypatch):
    """The same cases at a size for the interpreter."""
    for name, size in dict(VOCAB=600, HIDDEN=64, SIZE=16, PREFIXES=(70,), HEADS=4, KV_HEADS=2).items():
        monkeypatch.setattr(bench, name, size)


def test_a_cpu_gives_the_rows_unmeasured():
    rows = bench.measure(device="cpu")
    assert {row.kernel for row in rows} == set(NAMES)
    assert all(row.ms is None and row.note == bench.UNMEASURED and row.bytes > 0 for row in rows)
    assert rows[0].gb_per_second is None and rows[0].share is None and rows[0].speedup("eager") is None


def test_bytes_are_the_fewest_the_operation_can_move():
    rows = {(row.kernel, row.shape): row.bytes for row in bench.measure(device="cpu")}
    assert rows["commit_stats", "32 x 131072, 0 candidates"] == pytest.approx(8.4e6, rel=0.01)
    assert rows["head_stats", "32 x 4096 x 131072"] == pytest.approx(1.07e9, rel=0.01)
    # 136 KiB a token over 34 layers, by facts/performance.md
    assert rows["block_attention", "prefix 32768, block 1, causal"] == pytest.approx(32768 * 136 * 1024 / 34, rel=0.01)


def test_an_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match="there is no kernel 'flash'; choose among commit_stats"):
        bench.measure(["flash"], "cpu")


@pytest.mark.parametrize("name", NAMES)
def test_every_case_agrees_and_fills_its_row(ops, device, small, monkeypatch, name):
    timed = []

    def once(calls, captured=True):
        calls[0]()
        timed.append(captured)
        return 2.0

    monkeypatch.setattr(bench, "_median", once)
    monkeypatch.setattr(torch, "compile", lambda call, dynamic: call)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(L2_cache_size=0))
    case = next(bench.cases([name]))
    with torch.inference_mode():
        row = bench._measured(case, getattr(ops, name), 1e9, device)
    assert row.note == "" and row.ms == 2.0
    assert row.baselines.keys() == {"eager", *case.others} | ({"compile"} if case.compiles else set())
    assert row.gb_per_second == pytest.approx(row.bytes / 2e6) and row.share == pytest.approx(row.bytes / 2e6)
    assert row.speedup("eager") == 1.0
    assert timed == [not case.waits, *[True] * (len(timed) - 1)]


def test_a_wrong_kernel_has_no_time(ops, device, small, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(L2_cache_size=0))
    row = bench._measured(next(bench.cases(["add_rmsnorm"])), lambda x, *rest: (x, x), 1e9, device)
    assert row.ms is None and row.note.startswith("wrong")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="times a GPU")
def test_a_gpu_measures(device):
    (*_, row) = bench.measure(["add_rmsnorm"], device)
    assert row.ms > 0 and 0 < row.share < 5 and row.speedup("eager") > 0
