"""Batches through an engine: traces, ends, deadlines, limits, the label, and a device that comes free."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
import torch

from nemodiff_core import metrics
from nemodiff_core.cache import KVCache
from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError, RequestError
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest, Limits
from nemodiff_core.trace import Trace


def request(mode: str, **fields) -> DecodeRequest:
    return DecodeRequest(**{"prompt": "Hi", "mode": mode, "max_new_tokens": 20, "block_length": 8, "stop_at_eos": False} | fields)


LANES = [
    request("ar", prompt="one"),
    request("diffusion", prompt="two words", max_new_tokens=12, threshold=0.3),
    request("linear_spec", temperature=1.0, seed=3),
    request("quadratic_spec", prompt="a longer prompt", block_length=4),
    request("refine", draft="abcdef", revise_bound=0.5),
    request("infill", template="ab▢▢cd"),
]


def test_a_race_can_run_its_lanes_as_one_batch(tiny_engine: Engine) -> None:
    run, seen = tiny_engine.run_batch(LANES), [[] for _ in LANES]
    for row, step in run:
        seen[row].append(step)
    assert not tiny_engine._device.locked()
    ends = []
    for row, lane, steps in zip(run.rows, LANES, seen):
        alone = tiny_engine.run(lane)
        list(alone)
        trace, reference = row.trace(), alone.trace()
        assert trace.steps == steps and trace.stop_reason == reference.stop_reason
        assert trace.output == reference.output and trace.request == reference.request
        assert [(s.phase, s.span) for s in trace.steps] == [(s.phase, s.span) for s in reference.steps]
        assert metrics.nfe(trace) == metrics.nfe(reference)
        assert Trace.from_json(trace.to_json()).environment["batch"] == metrics.batch(trace) == len(LANES)
        assert "batch" not in reference.environment and metrics.batch(reference) == 1
        ends.append(steps[-1].elapsed_ns)
    assert len({row.id for row in run.rows}) == len(LANES)
    in_order = [step.elapsed_ns for row in seen for step in row]
    assert max(in_order) == max(ends), "one clock for all rows"


def test_the_steps_of_a_batch_come_in_the_order_of_their_clock(tiny_engine: Engine) -> None:
    times = [step.elapsed_ns for _, step in tiny_engine.run_batch(LANES)]
    assert times == sorted(times)


@pytest.mark.parametrize("how", ["flag", "close"])
def test_a_batch_stops_between_any_two_steps(tiny_engine: Engine, how: str) -> None:
    stop = threading.Event()
    run = tiny_engine.run_batch(LANES[:3], stop=stop)
    for count, _ in enumerate(run, start=1):
        if count == 7:
            run.close() if how == "close" else stop.set()
    assert sum(len(row.steps) for row in run.rows) == 7
    assert [row.stop_reason for row in run.rows] == ["cancelled"] * 3
    for row in run.rows:
        Trace.from_json(row.trace().to_json())
    assert not tiny_engine._device.locked()


def test_a_deadline_ends_its_row_alone(tiny_engine: Engine) -> None:
    run = tiny_engine.run_batch([request("ar", deadline_s=1e-9), request("ar"), request("linear_spec")])
    assert {row for row, _ in run} == {1, 2}
    assert [row.stop_reason for row in run.rows] == ["deadline", "length", "length"]


def test_a_batch_has_a_bounded_size(tiny_engine: Engine) -> None:
    engine = Engine(tiny_engine.checkpoint, Limits(max_batch=2, max_new_tokens=50))
    for count in (0, 3):
        with pytest.raises(RequestError, match="1 to 2 together"):
            engine.run_batch([request("ar")] * count)
    with pytest.raises(RequestError, match="max_new_tokens"):
        engine.run_batch([request("ar"), request("ar", max_new_tokens=51)])


def test_a_failing_batch_frees_the_device_and_its_cache(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    caches: list[weakref.ref[KVCache]] = []
    plain = TriModeModel.new_cache
    monkeypatch.setattr(
        TriModeModel, "new_cache", lambda self, *a, **k: (c := plain(self, *a, **k), caches.append(weakref.ref(c)))[0]
    )
    run = tiny_engine.run_batch([request("ar", max_new_tokens=2), *LANES[1:3]])
    steps = iter(run)
    while run.rows[0].stop_reason != "length":
        next(steps)
    full = iter((False,) * 3)
    cat = torch.cat
    monkeypatch.setattr(torch, "cat", lambda *a, **k: cat(*a, **k) if next(full, None) is False else (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(NemodiffError, match="memory") as kept:
        list(steps)
    monkeypatch.undo()
    gc.collect()
    assert kept.value.__cause__ is not None and caches[0]() is None
    assert [row.stop_reason for row in run.rows] == ["length", "error", "error"]
    assert not tiny_engine._device.locked()
