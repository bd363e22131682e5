"""Runs: streaming, stopping, isolation, limits, deadline, and figures that match what ran."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from nemodiff_core import metrics
from nemodiff_core.cache import KVCache
from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError, RequestError
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest, Limits, parse_request
from nemodiff_core.trace import Trace

MODES = ("ar", "diffusion", "linear_spec")


def request(mode: str, **fields) -> DecodeRequest:
    return DecodeRequest(**{"prompt": "Hi", "mode": mode, "max_new_tokens": 30, "block_length": 8, "stop_at_eos": False} | fields)


@given(mode=st.sampled_from(MODES), after=st.integers(0, 20), how=st.sampled_from(["flag", "close"]))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_run_stops_between_any_two_steps(tiny_engine: Engine, mode: str, after: int, how: str) -> None:
    stop = threading.Event()
    run = tiny_engine.run(request(mode), stop=stop)
    seen = []
    if after == 0:
        stop.set()
    for step in run:
        seen.append(step)
        if len(seen) >= after:
            if how == "close":
                run.close()
                break
            stop.set()
    trace = run.trace()
    assert trace.steps == seen
    assert trace.stop_reason in ("cancelled", "length")
    if trace.stop_reason == "cancelled":
        assert len(seen) <= max(after, 0)
    assert trace.canvas_at(len(seen) - 1).output() == trace.output.ids
    assert Trace.from_json(trace.to_json()).output.ids == trace.output.ids
    assert not tiny_engine._device.locked()


@pytest.mark.parametrize("mode", MODES)
def test_a_stopped_run_frees_its_cache(tiny_engine: Engine, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    caches: list[weakref.ref[KVCache]] = []
    plain = TriModeModel.new_cache
    monkeypatch.setattr(
        TriModeModel, "new_cache", lambda self, *a, **k: (c := plain(self, *a, **k), caches.append(weakref.ref(c)))[0]
    )
    run = tiny_engine.run(request(mode))
    next(iter(run))
    assert caches[0]() is not None
    run.close()
    gc.collect()
    assert caches[0]() is None


@pytest.mark.parametrize("mode", MODES)
def test_the_same_request_gives_the_same_text(tiny_engine: Engine, mode: str) -> None:
    outputs = []
    for seed in (1, 1, 2):
        run = tiny_engine.run(request(mode, temperature=1.0, seed=seed))
        list(run)
        outputs.append(run.trace().output.ids)
    assert outputs[0] == outputs[1] != outputs[2]


def test_runs_in_many_threads_do_not_mix(tiny_engine: Engine) -> None:
    requests = [request(mode, prompt=text) for mode in MODES for text in ("one", "two words", "3")]
    alone = []
    for r in requests:
        run = tiny_engine.run(r)
        list(run)
        alone.append(run.trace().output.ids)
    together: list[list[int] | None] = [None] * len(requests)

    def work(n: int) -> None:
        run = tiny_engine.run(requests[n])
        list(run)
        together[n] = run.trace().output.ids

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == alone


def test_a_waiting_run_can_be_stopped(tiny_engine: Engine) -> None:
    holder = tiny_engine.run(request("ar"))
    next(iter(holder))  # holds the device
    stop = threading.Event()
    waiting = tiny_engine.run(request("ar"), stop=stop)
    threading.Timer(0.1, stop.set).start()
    assert list(waiting) == []
    assert waiting.trace().stop_reason == "cancelled"
    holder.close()


def test_turns_come_in_the_order_of_asking(tiny_engine: Engine) -> None:
    holder = tiny_engine.run(request("ar"))
    next(iter(holder))  # holds the device
    order: list[int] = []

    def work(n: int) -> None:
        for step in tiny_engine.run(request("ar", max_new_tokens=3)):
            if step.index == 0:
                order.append(n)

    threads = []
    for n in range(6):
        threads.append(threading.Thread(target=work, args=(n,)))
        threads[-1].start()
        while len(tiny_engine._device._tickets) < n + 2:  # the holder and everybody so far
            time.sleep(0.001)
    holder.close()
    for thread in threads:
        thread.join(60)
    assert order == list(range(6))
    assert not tiny_engine._device.locked()


def test_the_deadline_also_ends_the_wait(tiny_engine: Engine) -> None:
    holder = tiny_engine.run(request("ar"))
    next(iter(holder))
    waiting = tiny_engine.run(request("ar", deadline_s=0.05))
    assert list(waiting) == []
    trace = waiting.trace()
    assert trace.stop_reason == "deadline" and trace.output.ids == []
    assert Trace.from_json(trace.to_json()).steps == []
    holder.close()
    assert len(list(tiny_engine.run(request("ar")))) == 30


def test_a_run_can_be_closed_from_another_thread(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, go_on = threading.Event(), threading.Event()
    plain = TriModeModel.forward

    def slow(*args, **fields):
        inside.set()
        assert go_on.wait(30)
        return plain(*args, **fields)

    monkeypatch.setattr(tiny_engine, "fast", None)
    monkeypatch.setattr(TriModeModel, "forward", slow)
    run = tiny_engine.run(request("ar"))
    worker = threading.Thread(target=lambda: list(run))
    worker.start()
    assert inside.wait(30)
    run.close()  # the worker is inside its first forward
    go_on.set()
    worker.join(60)
    assert len(run.steps) == 1 and run.trace().stop_reason == "cancelled"
    assert not tiny_engine._device.locked()


@pytest.mark.parametrize("mode", MODES)
def test_a_trace_taken_while_another_thread_decodes_is_sound(tiny_engine: Engine, mode: str) -> None:
    run = tiny_engine.run(request(mode, max_new_tokens=60))
    worker = threading.Thread(target=lambda: list(run))
    worker.start()
    seen = 0
    while worker.is_alive():
        assert Trace.from_json(run.trace().to_json()).id == run.id  # reading checks fold(steps) == output
        seen += 1
    worker.join()
    assert seen and len(run.trace().output.ids) == 60


def test_deadline(tiny_engine: Engine) -> None:
    run = tiny_engine.run(request("ar", max_new_tokens=500, deadline_s=0.05))
    for _ in run:
        time.sleep(0.01)
    assert run.trace().stop_reason == "deadline"
    assert 0 < len(run.trace().output.ids) < 500


def test_a_failing_run_releases_the_device(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_engine, "fast", None)
    run = tiny_engine.run(request("ar"))
    steps = iter(run)
    next(steps)
    monkeypatch.setattr(TriModeModel, "forward", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("boom")))
    with pytest.raises(NemodiffError, match="RuntimeError: boom") as caught:
        next(steps)
    assert isinstance(caught.value.__cause__, RuntimeError) and "\n" not in str(caught.value)
    assert run.trace().stop_reason == "error" and len(run.trace().steps) == 1
    monkeypatch.undo()
    assert len(list(tiny_engine.run(request("ar")))) == 30


def test_a_kept_error_does_not_keep_the_cache(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    caches: list[weakref.ref[KVCache]] = []
    plain = TriModeModel.new_cache
    monkeypatch.setattr(
        TriModeModel, "new_cache", lambda self, *a, **k: (c := plain(self, *a, **k), caches.append(weakref.ref(c)))[0]
    )
    monkeypatch.setattr(tiny_engine, "fast", None)
    steps = iter(tiny_engine.run(request("diffusion")))
    next(steps)
    monkeypatch.setattr(TriModeModel, "forward", lambda *a, **k: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(NemodiffError, match="memory") as kept:
        next(steps)
    gc.collect()
    assert isinstance(kept.value.__cause__, torch.OutOfMemoryError)
    assert caches[0]() is None


def test_a_run_that_cannot_even_begin_gives_its_turn_back(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch, "Generator", lambda **k: (_ for _ in ()).throw(RuntimeError("no such device")))
        run = tiny_engine.run(request("ar"))
        with pytest.raises(NemodiffError, match="no such device"):
            list(run)
    assert run.trace().stop_reason == "error"
    assert len(list(tiny_engine.run(request("ar")))) == 30


def test_limits_are_enforced_before_anything_runs(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TriModeModel, "forward", lambda *a, **k: pytest.fail("the model ran"))
    engine = Engine(tiny_engine.checkpoint, Limits(max_prompt_tokens=40, max_new_tokens=50, max_block_length=16, max_candidates=2))
    for fields, word in (
        ({"max_new_tokens": 51}, "max_new_tokens"),
        ({"block_length": 17}, "block_length"),
        ({"candidates": 3}, "candidates"),
        ({"prompt": "x" * 100}, "tokens"),
        ({"prompt": "x" * 30_000}, "characters"),
    ):
        with pytest.raises(RequestError, match=word):
            engine.run(request("ar", **fields))
    roomy = Engine(tiny_engine.checkpoint, Limits(max_prompt_tokens=5000, max_new_tokens=4096))
    with pytest.raises(RequestError, match="positions"):
        roomy.run(request("ar", max_new_tokens=1020))


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"prompt": ""}, "empty"),
        ({}, "prompt"),
        ({"prompt": "x", "mode": "magic"}, "mode"),
        ({"prompt": "x", "block_length": 1}, "block_length"),
        ({"prompt": "x", "block_length": 65}, "block_length"),
        ({"prompt": "x", "threshold": 1.5}, "threshold"),
        ({"prompt": "x", "threshold": float("nan")}, "threshold"),
        ({"prompt": "x", "temperature": -1}, "temperature"),
        ({"prompt": "x", "temperature": float("inf")}, "temperature"),
        ({"prompt": "x", "top_p": 0}, "top_p"),
        ({"prompt": "x", "max_new_tokens": 0}, "max_new_tokens"),
        ({"prompt": "x", "candidates": 17}, "candidates"),
        ({"prompt": "x", "steps": 4, "threshold": 0.5}, "steps"),
        ({"prompt": "x", "steps": 4, "mode": "ar"}, "steps"),
        ({"prompt": "x", "threshold": 0.4, "mode": "ar"}, "threshold"),
        ({"prompt": "x", "wings": 2}, "wings"),
        ({"prompt": "x", "deadline_s": 0}, "deadline_s"),
    ],
)
def test_bad_knobs_are_one_sentence(fields: dict, word: str) -> None:
    with pytest.raises(RequestError, match=word) as caught:
        parse_request(fields)
    assert "\n" not in str(caught.value) and isinstance(caught.value, NemodiffError)


@pytest.mark.parametrize("mode", MODES)
def test_figures_are_folds_over_the_trace(tiny_engine: Engine, mode: str) -> None:
    run = tiny_engine.run(request(mode))
    steps = list(run)
    trace = run.trace()
    figures = metrics.summary(trace)
    assert figures["tokens"] == 30 == len(trace.output.ids)
    assert figures["forwards"] == len(steps)
    assert figures["tpf"] == pytest.approx(30 / figures["nfe"])
    assert figures["seconds"] == pytest.approx(steps[-1].elapsed_ns / 1e9)
    assert figures["seconds"] == pytest.approx(sum(figures["time_by_phase"].values()))
    assert figures["prefill_seconds"] + figures["decode_seconds"] == pytest.approx(figures["seconds"])
    assert figures["tokens_per_second"] == pytest.approx(30 / figures["seconds"])
    if mode == "linear_spec":
        # Every token but the seed came from a verification.
        assert sum(figures["acceptance_lengths"]) == 29
        assert all(1 <= n <= 8 for n in figures["acceptance_lengths"])
        assert figures["acceptance_length"] == pytest.approx(29 / len(figures["acceptance_lengths"]))
    else:
        assert figures["acceptance_lengths"] == [] and figures["acceptance_length"] is None
    assert metrics.first_divergence([1, 2, 3], [1, 2, 3]) is None
    assert metrics.first_divergence([1, 2, 3], [1, 5, 3]) == 1
    assert metrics.first_divergence([1, 2], [1, 2, 3]) == 2
