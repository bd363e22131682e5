"""Replicas behind Ray Serve: one local cluster with two of them, and what visitors notice when one dies (nothing).

Everything that needs the cluster is one test with parts, since to start one takes longer than all the parts together
and the test workers share the tests out one by one.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from nemodiff_core.checkpoint import load, save
from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest
from nemodiff_core.serving.distant import Distant
from nemodiff_core.serving.ray_node import join
from nemodiff_core.serving.restart import restarting
from nemodiff_core.tokenizer import Tokenizer
from nemodiff_core.trace import Trace

from tests.conftest import random_model

pytestmark = [
    pytest.mark.own_thread,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `cluster` is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]

PATIENCE_S = 240.0
LONG = 400  # tokens


def request(prompt: str, **fields: Any) -> DecodeRequest:
    return DecodeRequest(**{"prompt": prompt, "mode": "ar", "max_new_tokens": 60, "stop_at_eos": False} | fields)


def long(prompt: str) -> DecodeRequest:
    """Seconds of work, so that it is certainly not over when its first steps are seen."""
    return request(prompt, max_new_tokens=LONG)


def told(trace: Trace) -> dict[str, Any]:
    """A trace without what two runs of one request may differ in."""
    plain = json.loads(trace.to_json())
    for step in plain["steps"]:
        step["elapsed_ns"] = 0
    plain["environment"].pop("restarts", None)
    return {**plain, "id": "", "created": ""}


@dataclass
class Begun:
    """A visitor's long run, some of whose steps have come."""

    asked: DecodeRequest
    seen: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)
    pids: list[int] = field(default_factory=list)  # of the replicas that have taken it
    run: Any = None  # the future of its trace


class Visitors:
    """The engine of a cluster, and which replica does whose work."""

    def __init__(self, cluster: Any) -> None:
        self.engine = cluster.start()
        self._threads = ThreadPoolExecutor(8)

    def go(self, act: Callable[..., Any], *given: Any) -> Any:
        return self._threads.submit(act, *given)

    def begin(self, *prompts: str) -> list[Begun]:
        """Long runs that all go on now, each on a replica of its own."""
        from ray import serve

        from nemodiff_core.serving.cluster import NAME, sender

        wait_until(lambda: serve.status().applications[NAME].deployments["Replica"].replica_states.get("RUNNING") == 2)
        for _ in range(5):  # a machine that stands still may hand over a whole run at once
            begun = [Begun(long(prompt)) for prompt in prompts]
            for one in begun:
                send = sender(serve.get_app_handle(NAME), lambda pid, host, one=one: one.pids.append(pid))
                far = Distant(restarting(send), self.engine.checkpoint, self.engine.limits)
                one.run = self.go(finished, far.run(one.asked, one.stop), one.seen)
            assert all(one.seen.wait(PATIENCE_S) for one in begun)
            if not any(one.run.done() for one in begun):
                return begun
        raise AssertionError("no long run was caught in its middle")


def finished(run: Any, seen: threading.Event | None = None) -> Trace:
    """The trace of a run; `seen` is set once its first steps are here."""
    for count, _ in enumerate(run, 1):
        if count == 3 and seen is not None:
            seen.set()
    return run.trace()


_alone: dict[DecodeRequest, dict[str, Any]] = {}


def alone(engine: Engine, asked: DecodeRequest) -> dict[str, Any]:
    """What the engine itself writes; decoded once."""
    if asked not in _alone:
        _alone[asked] = told(finished(engine.run(asked)))
    return _alone[asked]


def wait_until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not there():
        assert time.monotonic() < end
        time.sleep(0.2)


def slow_model() -> TriModeModel:
    """Small, but of so many layers that a long run takes seconds."""
    torch.manual_seed(0)
    model = TriModeModel(replace(random_model().config, num_hidden_layers=12)).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.25)
    return model


def test_a_cluster_of_two_replicas(
    tmp_path: Path, tiny_tokenizer: Tokenizer, subtests: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEMODIFF_KERNELS", "reference")  # here and on the replicas: compiled, no run would be long
    folder = save(slow_model(), tiny_tokenizer, tmp_path / "small")
    engine = Engine(load(folder))
    join(None, 2)
    import ray

    from nemodiff_core.serving.cluster import Cluster

    cluster = Cluster({"model": str(folder), "device": "cpu"}, "2")
    try:
        visitors = Visitors(cluster)
        for part in PARTS:
            with subtests.test(part.__name__):
                part(visitors, engine)
        with subtests.test("damaged folder"):
            cluster.delete()
            (folder / "model.safetensors").write_bytes(b"no weights")
            with pytest.raises(NemodiffError, match="model.safetensors"):
                cluster.start()
    finally:
        cluster.close()
    assert not ray.is_initialized()
    assert not [child for child in psutil.Process().children(recursive=True) if "ray" in child.name() and child.status() != psutil.STATUS_ZOMBIE]


def the_cluster_is_the_engine(visitors: Visitors, engine: Engine) -> None:
    far = visitors.engine
    assert far.capacity == 2 and far.describe() == engine.describe() and far.identity() == engine.identity()
    for asked in (request("Hello"), request("Hi", mode="linear_spec", temperature=1.0, seed=4), request("x", mode="infill", template="ab▢▢cd")):
        assert told(finished(far.run(asked))) == told(finished(engine.run(asked)))
    batch, reference = far.run_batch([request("one"), request("two", mode="diffusion")]), engine.run_batch([request("one"), request("two", mode="diffusion")])
    assert [row for row, _ in batch] == [row for row, _ in reference]
    trace = finished(engine.run(request("Hi", mode="diffusion", threshold=0.1)))
    assert far.regret(trace) == engine.regret(trace)


def nobody_else_can_reach_it(visitors: Visitors, engine: Engine) -> None:
    ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {connection.laddr.ip for process in ours for connection in process.net_connections("inet") if connection.status == psutil.CONN_LISTEN}
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, "Ray runs whatever it is sent"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0" and os.environ["RAY_AUTH_MODE"] == "token"


def two_visitors_run_at_once(visitors: Visitors, engine: Engine) -> None:
    begun = visitors.begin("the first", "the second")
    assert [told(one.run.result(PATIENCE_S)) for one in begun] == [alone(engine, one.asked) for one in begun], "each has its own text"
    assert len({pid for one in begun for pid in one.pids}) == 2


def a_replica_dies_in_mid_run(visitors: Visitors, engine: Engine) -> None:
    dies, lives = visitors.begin("the first", "the second")
    os.kill(dies.pids[0], signal.SIGKILL)
    traces = [one.run.result(PATIENCE_S) for one in (dies, lives)]
    assert [told(trace) for trace in traces] == [alone(engine, one.asked) for one in (dies, lives)]
    assert len(dies.pids) == 2 and traces[0].environment["restarts"] == 1, "it went on elsewhere"
    assert len(lives.pids) == 1 and "restarts" not in traces[1].environment, "the other noticed nothing"
    assert [step.elapsed_ns for step in traces[0].steps] == sorted(step.elapsed_ns for step in traces[0].steps)


def a_stopped_run_frees_its_replica(visitors: Visitors, engine: Engine) -> None:
    begun = visitors.begin("the first", "the second")
    stop = threading.Event()
    queued = visitors.go(finished, visitors.engine.run(long("the third"), stop))  # waits in front of the replicas
    for one in begun:
        one.stop.set()
    stop.set()
    traces = [run.result(PATIENCE_S) for run in (*(one.run for one in begun), queued)]
    assert [trace.stop_reason for trace in traces] == ["cancelled"] * 3 and all(len(trace.steps) < LONG for trace in traces)
    asked = [request("d"), request("e")]
    freed = [visitors.go(finished, visitors.engine.run(one)) for one in asked]
    assert [told(run.result(PATIENCE_S)) for run in freed] == [alone(engine, one) for one in asked]


def what_the_replica_refuses_is_a_sentence(visitors: Visitors, engine: Engine) -> None:
    trace = finished(engine.run(request("Hi", mode="quadratic_spec")))
    with pytest.raises(NemodiffError, match="cannot be put through the model again"):
        visitors.engine.regret(trace)


PARTS = (
    the_cluster_is_the_engine,
    nobody_else_can_reach_it,
    two_visitors_run_at_once,
    a_replica_dies_in_mid_run,
    a_stopped_run_frees_its_replica,
    what_the_replica_refuses_is_a_sentence,
)


# -- one replica, in this process ---------------------------------------------------------------------


def test_a_replica_whose_model_has_changed_is_not_healthy(model: Path) -> None:
    from nemodiff_core.serving.cluster import Replica

    replica = Replica({"model": str(model), "device": "cpu", "limits": {"max_block_length": 4, "max_new_tokens": 2}})
    asyncio.run(replica.check_health())
    replica.engine.checkpoint.model.diffusion_head.weight.neg_()
    with pytest.raises(RuntimeError, match="another token"):
        asyncio.run(replica.check_health())


def test_a_replica_that_hears_nothing_of_its_run_is_not_healthy(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nemodiff_core.serving import cluster

    now = [0.0]
    monkeypatch.setattr(cluster, "time", SimpleNamespace(monotonic=lambda: now[0]))
    replica = cluster.Replica({"model": str(model), "device": "cpu", "limits": {"max_seconds": 30}})

    async def hangs() -> None:
        packets = replica.perform({"do": "decode", "request": request("Hi").model_dump(mode="json")})
        await anext(packets)
        now[0] = 80
        await replica.check_health()
        now[0] = 91
        with pytest.raises(RuntimeError, match="has not come back for 90 s"):
            await replica.check_health()
        await packets.aclose()
        await replica.check_health()

    asyncio.run(hangs())


def test_leaving_a_replicas_stream_ends_its_run(model: Path) -> None:
    from nemodiff_core.serving.cluster import Replica

    replica = Replica({"model": str(model), "device": "cpu"})

    async def leaves() -> list[str]:
        packets = replica.perform({"do": "decode", "request": long("Hi").model_dump(mode="json")})
        seen = [(await anext(packets))[0]["type"] for _ in range(3)]
        await packets.aclose()
        with replica.engine.turn(lambda: False):  # only once the run has given it back
            return seen

    assert asyncio.run(leaves()) == ["replica", "open", "step"]
