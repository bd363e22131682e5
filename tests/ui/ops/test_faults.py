"""What goes wrong on rented machines, through the served app: the visitor reads a sentence, and the next one is served."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tests.ui.ops.conftest import Live

LONG = {"length": 40, "eos": False, "mode": "ar"}
ENDED = re.compile(r'stop_reason[\\":]+length')


@contextmanager
def forwards(live: Live, meet: Callable[[int], None]) -> Iterator[None]:
    """`meet(n)` comes before the n-th forward."""
    count = iter(range(10**9))
    hook = live.app.loader.engine.checkpoint.model.register_forward_pre_hook(lambda *_: meet(next(count)))
    try:
        yield
    finally:
        hook.remove()


def test_out_of_memory_in_mid_run_asks_for_less_and_ends_nothing_else(live: Live):
    def full(n: int) -> None:
        if n == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    with forwards(live, full):
        said = live.run(prompt="Hello", **LONG)
    assert "ran out of memory; lower max_new_tokens or the block length" in said and "20.00 GiB" not in said
    assert live.client.get("readyz").status_code == 200
    assert ENDED.search(live.run(prompt="Hello", **LONG))


@pytest.mark.parametrize("jump", [86_400.0 * 365, -86_400.0 * 365])
def test_a_clock_that_jumps_ends_no_run_and_loses_none(live: Live, jump: float, monkeypatch: pytest.MonkeyPatch):
    real, ahead = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])

    def leap(n: int) -> None:
        if n == 5:
            ahead[0] = jump

    with forwards(live, leap):
        said = live.run(session="timeless", prompt="Hello", **LONG)
    assert ENDED.search(said)
    assert any(record.owner == "timeless" for record in live.app.store._runs.values()), "its age is no matter of the calendar"
    assert ENDED.search(live.run(session="timeless", prompt="Hello", **LONG)), "nor is its turn"


def test_a_browser_that_missed_messages_fetches_the_run_by_its_id(live: Live):
    goes_on, begun = threading.Event(), threading.Event()

    def hold(n: int) -> None:
        if n == 8:
            begun.set()
            goes_on.wait(60)

    def fetch(run: str) -> list[dict[str, Any]]:
        component = next(c["id"] for c in live.config["components"] if "resync" in (c["props"].get("server_fns") or []))
        body = {"data": {"run": run}, "component_id": component, "session_hash": "returned", "fn_name": "resync"}
        return live.client.post("gradio_api/component_server", json=body).json()["messages"]

    said: list[str] = []
    with forwards(live, hold):
        watched = threading.Thread(target=lambda: said.append(live.run(session="left", prompt="Hello", **LONG)))
        watched.start()
        assert begun.wait(60)
        run = next(record.id for record in live.app.store._runs.values() if record.owner == "left" and not record.ended)
        while len(before := fetch(run)) < 2:  # what is recorded reaches the record at display rate
            assert watched.is_alive()
        goes_on.set()
        watched.join()
    after = fetch(run)
    assert [message["type"] for message in before] == ["open", "steps"]
    assert [message["type"] for message in after] == ["open", "steps", "end"] and len(after[1]["steps"]) > len(before[1]["steps"]) >= 1
    last = after[-1]["tail"]["output"]["ids"]
    assert len(last) == LONG["length"] and json.dumps(last)[1:-1].replace(" ", "") in said[0].replace(" ", "")
