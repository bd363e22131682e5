"""Figures are those of the traces, their labels are few, and whoever has no token sees none."""

from __future__ import annotations

import gc
import io
import json
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.testclient import TestClient

from nemodiff_core import metrics
from nemodiff_core.errors import NemodiffError, RequestError
from nemodiff_core.trace import REMOTE, Trace
from ui.ops import logs
from ui.ops.account import Account, model_ended
from ui.ops.meters import ROUTE, Meters, route


def read(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    return {(s.name, tuple(s.labels.values())): s.value for family in text_string_to_metric_families(text) for s in family.samples}


def figures(meters: Meters) -> dict[tuple[str, tuple[str, ...]], float]:
    return read(meters.text().decode())


def test_a_run_counts_with_the_figures_of_its_trace(tiny_engine: Any):
    from nemodiff_core.request import DecodeRequest

    meters = Meters()
    run = tiny_engine.run(DecodeRequest(prompt="Hello", mode="linear_spec", max_new_tokens=12, block_length=8, stop_at_eos=False))
    account = Account(meters, "abcdefghijkl")
    account.begin(0, run.trace())
    for _ in run:
        pass
    trace = run.trace()
    account.end(0, trace)
    account.lost("cancelled")
    found = figures(meters)
    mode = ("linear_spec",)
    assert found["nemodiff_runs_started_total", mode] == 1
    assert found["nemodiff_runs_ended_total", ("linear_spec", "length")] == 1
    assert ("nemodiff_runs_ended_total", ("linear_spec", "cancelled")) not in found
    assert found["nemodiff_tokens_total", mode] == metrics.tokens(trace) == 12
    assert found["nemodiff_forwards_total", mode] == metrics.forwards(trace)
    assert found["nemodiff_tokens_per_forward_sum", mode] == metrics.tpf(trace)
    assert found["nemodiff_tokens_per_second_sum", mode] == metrics.tokens_per_second(trace)
    assert found["nemodiff_first_token_seconds_sum", mode] == metrics.first_token_seconds(trace) == trace.steps[0].elapsed_ns / 1e9


def test_lanes_that_were_recorded_before_do_not_count_and_lost_ones_do(traces: dict[str, Trace]):
    meters = Meters()
    account = Account(meters, "abcdefghijkl")
    account.end(0, traces["ar"])
    account.begin(1, traces["linear_spec"])
    account.lost("error")
    found = figures(meters)
    assert found["nemodiff_runs_ended_total", ("linear_spec", "error")] == 1
    assert not any(name == "nemodiff_runs_ended_total" and "ar" in labels for name, labels in found)


def test_what_a_remote_server_does_not_tell_is_not_counted(hand_made: dict[str, Any]):
    trace = Trace.from_json(json.dumps(hand_made["ar"]))
    trace.request["mode"], trace.environment[REMOTE] = REMOTE, {"tokens": None, "cells": "text"}
    assert metrics.tokens(trace) is None and metrics.forwards(trace) is None
    meters = Meters()
    meters.run_ended(trace)
    found = figures(meters)
    assert found["nemodiff_runs_ended_total", (REMOTE, "length")] == 1 and found["nemodiff_tokens_total", (REMOTE,)] == 0


def test_nothing_a_browser_sends_makes_a_new_series():
    meters = Meters()
    for n in range(50):
        meters.run_started(f"mode {n}")
        meters.run_lost([n], {"reason": n})
        meters.refused(type(f"Odd{n}", (NemodiffError,), {})("no"))
    meters.refused(RequestError("no"))
    found = figures(meters)
    assert found["nemodiff_runs_started_total", ("other",)] == 50
    assert found["nemodiff_refusals_total", ("other",)] == 50 and found["nemodiff_refusals_total", ("request",)] == 1
    assert len(found) == len(figures(meters))


def test_gauges_are_read_when_they_are_asked_for():
    meters, line = Meters(), [3]
    meters.watch(waiting=lambda: line[0], running=lambda: 1, models=lambda: 2)
    assert figures(meters)["nemodiff_queue_length", ()] == 3
    line[0] = 0
    found = figures(meters)
    assert (found["nemodiff_queue_length", ()], found["nemodiff_runs_in_progress", ()], found["nemodiff_models_loaded", ()]) == (0, 1, 2)
    assert found["nemodiff_resident_bytes", ()] > 10**6 and found["nemodiff_cuda_bytes", ()] >= 0


def test_two_apps_do_not_share_their_counts():
    one, other = Meters(), Meters()
    one.load_failed()
    assert figures(one)["nemodiff_load_failures_total", ()] == 1 and figures(other)["nemodiff_load_failures_total", ()] == 0
    del one
    gc.collect()


@pytest.mark.parametrize(("given", "status"), [(None, 401), ("Bearer wrong", 401), ("secret", 401), ("Bearer ünï", 401), ("Bearer secret", 200)])
def test_a_token_keeps_the_figures_from_strangers(given: str | None, status: int):
    client = TestClient(Starlette(routes=[route(Meters(), "secret")]))
    headers = {} if given is None else {"authorization": given.encode("utf-8")}
    answer = client.get(ROUTE, headers=headers)
    assert answer.status_code == status
    assert ("nemodiff_build" in answer.text) == (status == 200)


def test_a_served_app_counts_its_runs(live: Any):
    before = read(live.client.get("metrics").text)
    live.run(prompt="How many lights are there?", length=5)
    after = read(live.client.get("metrics").text)
    mode = ("diffusion",)
    assert after["nemodiff_runs_started_total", mode] == before["nemodiff_runs_started_total", mode] + 1
    assert 1 <= after["nemodiff_tokens_total", mode] - before["nemodiff_tokens_total", mode] <= 5
    assert after["nemodiff_runs_in_progress", ()] == after["nemodiff_queue_length", ()] == 0
    assert after["nemodiff_wait_seconds_count", ()] == before["nemodiff_wait_seconds_count", ()] + 1


def test_models_that_load_and_fail_are_told_of_without_what_visitors_typed():
    written, meters = io.StringIO(), Meters()
    logs.configure("json", written)
    try:
        for typed, engine, problem in ((False, object(), None), (True, None, "there is no some/secret"), (True, None, None)):
            model_ended(meters, SimpleNamespace(choice=SimpleNamespace(typed=typed, name="some/secret" if typed else "tiny"), engine=engine, problem=problem))
    finally:
        logs.configure()
    assert [json.loads(line)["event"] for line in written.getvalue().splitlines()] == ["model loaded", "model failed"]
    assert "secret" not in written.getvalue() and figures(meters)["nemodiff_load_failures_total", ()] == 1
