"""ZeroGPU: the same path without it, in a forked worker of the real package, and with weights that `spaces` holds."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nemodiff_core.checkpoint import load
from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError
from nemodiff_core.fork import Intervention
from nemodiff_core.request import DecodeRequest, Limits, parse_request
from nemodiff_core.serving import zero
from nemodiff_core.serving.distant import Distant
from nemodiff_core.serving.manifest import Preset

PRESET = Preset(hardware="zero-a10g", limits=Limits(max_seconds=40), runs_at_once=3)


def asked(mode: str = "diffusion", **more: Any) -> DecodeRequest:
    return parse_request({"prompt": "Sort: 3 1 2", "mode": mode, "max_new_tokens": 24, "block_length": 8, "candidates": 2, **more})


def outcome(run: Any) -> tuple[Any, ...]:
    """What two runs of the same request have in common: all but times, and digits that a trace does not keep."""
    steps = [(step.phase, tuple(step.span), [(e.position, e.token, e.kind) for e in step.events]) for step in run]
    trace = run.trace()
    return steps, trace.output, trace.stop_reason, trace.request, trace.prompt


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero, "_engines", {})
    monkeypatch.delenv("NEMODIFF_GRAPHS", raising=False)
    monkeypatch.setenv("NEMODIFF_GRAPHS", "")  # so that it is put back whatever a test sets
    monkeypatch.delenv("NEMODIFF_GRAPHS")


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """`zero` over the real package's forked workers; only Hugging Face's scheduler and the GPU itself are not there."""
    import spaces.config

    # A build of torch without CUDA lacks what the package looks up when it is imported.
    monkeypatch.setattr(torch.version, "cuda", torch.version.cuda or "13.0")
    monkeypatch.setattr(torch._C, "_cuda_init", getattr(torch._C, "_cuda_init", None), raising=False)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that there is no driver
        from spaces.zero import client, decorator, torch as devices, wrappers
    from spaces.zero.api import ScheduleResponse
    from spaces.zero.torch import patching

    said = SimpleNamespace(durations=[], released=[], patching=patching, scheduler=lambda: None)

    def schedule(duration: Any, **_: Any) -> ScheduleResponse:
        said.scheduler()
        said.durations.append(duration.total_seconds())
        return ScheduleResponse(idle=True, nvidiaIndex=0, nvidiaUUID="none", allowToken="token")

    def move(callback: Any = None) -> None:  # from the disk to a GPU; here, from what stands for a GPU to itself
        for fake, original in patching.cuda_aliases.items():
            fake.data = torch.Tensor(original)

    monkeypatch.setattr(client, "schedule", schedule)
    monkeypatch.setattr(client, "allow", lambda token: None)
    monkeypatch.setattr(client, "release", lambda token, fail=False, **_: said.released.append(fail))
    monkeypatch.setattr(devices, "init", lambda uuid: None)
    monkeypatch.setattr(devices, "size", lambda: 0)
    monkeypatch.setattr(devices, "move", move)
    monkeypatch.setattr(devices, "unpatch", lambda: None if torch.device is patching._device else patching.unpatch())
    monkeypatch.setattr(spaces.config.Config, "zero_gpu", True)
    monkeypatch.setattr(decorator, "decorated_cache", {})
    assert wrappers.multiprocessing_ctx.get_start_method() == "fork"
    zero._decorated.cache_clear()
    before = set(multiprocessing.active_children())
    yield said
    zero._decorated.cache_clear()
    for child in set(multiprocessing.active_children()) - before:
        child.kill()
        child.join()


# -- without ZeroGPU ------------------------------------------------------------------------------


def test_elsewhere_an_engine_stays_what_it_is(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch):
    zero.prepare(Preset(hardware="a10g-small"))
    assert zero.wrap(tiny_engine, Preset(hardware="a10g-small")) is tiny_engine
    assert zero.wrap(tiny_engine) is tiny_engine
    monkeypatch.setattr(zero.importlib.util, "find_spec", lambda name: None)
    assert zero.wrap(tiny_engine, PRESET) is tiny_engine


@pytest.mark.parametrize("mode", ["ar", "diffusion", "linear_spec", "quadratic_spec"])
def test_off_zero_gpu_the_same_path_writes_the_same(mode: str, tiny_engine: Engine):
    zero.prepare(PRESET)
    distant = zero.wrap(tiny_engine, PRESET)
    assert isinstance(distant, Distant) and distant.capacity == 3 and distant.identity() == tiny_engine.identity()
    assert outcome(distant.run(asked(mode))) == outcome(tiny_engine.run(asked(mode)))


def test_graphs_are_off_by_themselves_unless_the_operator_has_a_say(monkeypatch: pytest.MonkeyPatch):
    zero.prepare(PRESET)
    assert zero.os.environ["NEMODIFF_GRAPHS"] == "0"
    monkeypatch.setenv("NEMODIFF_GRAPHS", "1")
    zero.prepare(PRESET)
    assert zero.os.environ["NEMODIFF_GRAPHS"] == "1"


@pytest.mark.parametrize(
    "request_",
    [
        asked("ar", stop_at_eos=False),
        asked("linear_spec", stop_at_eos=False),
        asked("quadratic_spec", stop_at_eos=False),
        asked("diffusion", threshold=1.0, stop_at_eos=False),
        asked("diffusion", steps=3, stop_at_eos=False),
        asked("diffusion", threshold=1.0, remask_bound=0.9, stop_at_eos=False),
        asked("diffusion", threshold=1.0, revise_rounds=2, revise_bound=0.9, stop_at_eos=False),
        asked("diffusion", threshold=1.0, max_forwards=9, stop_at_eos=False),
    ],
    ids=lambda request: f"{request.mode}-{request.model_dump_json(exclude_defaults=True)[-60:-20]}",
)  # fmt: skip
def test_no_run_needs_more_forwards_than_are_asked_for(request_: DecodeRequest, tiny_engine: Engine):
    most = zero.most_forwards({"do": "decode", "request": request_.model_dump(mode="json")})
    assert sum(1 for _ in tiny_engine.run(request_)) <= most


def test_a_gpu_is_asked_for_as_long_as_the_request_may_take(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch):
    leases: list[tuple[float, int]] = []

    def decorated(name: str, work: dict[str, Any], seconds: float, start: float) -> Iterator[Any]:
        leases.append((seconds, zero._duration(name, work, seconds, start)))
        yield from zero._work(name, work, seconds, start)

    monkeypatch.setattr(zero, "_decorated", lambda: decorated)
    distant = zero.wrap(tiny_engine, PRESET)
    for tokens, pace in ((4, 0.1), (100, 0.1), (4, 100.0)):
        distant.send.pace = pace
        list(distant.run(asked("ar", max_new_tokens=tokens)))
        assert distant.send.pace < pace  # it has been measured
    few, many, all_there_is = (seconds for seconds, _ in leases)
    assert zero.LEAST_S == few < many < all_there_is == tiny_engine.limits.max_seconds
    assert all(duration >= zero.START_S + seconds for seconds, duration in leases)


def test_a_run_ends_by_its_deadline_before_its_gpu_is_taken_away(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(zero, "LEAST_S", 0.0)
    distant = zero.wrap(tiny_engine, PRESET)
    distant.send.pace = 1e-9
    run = distant.run(asked("ar", max_new_tokens=500, stop_at_eos=False))
    list(run)
    assert run.trace().stop_reason == "deadline" and run.trace().request["deadline_s"] is None


def test_other_work_is_stopped_in_time(tiny_engine: Engine):
    distant = zero.wrap(tiny_engine, PRESET)
    run = distant.run(asked())
    list(run)
    distant.send.limit = 1e-9
    with pytest.raises(NemodiffError):
        distant.oracle(run.trace(), 5000)


# -- in a worker ----------------------------------------------------------------------------------


def test_a_worker_gets_and_gives_plain_data_and_keeps_its_changes(worker: SimpleNamespace, tiny_engine: Engine):
    expected = {mode: outcome(tiny_engine.run(asked(mode))) for mode in ("ar", "diffusion")}
    zero.prepare(PRESET)
    distant = zero.wrap(tiny_engine, PRESET)
    for mode, its in expected.items():
        assert outcome(distant.run(asked(mode))) == its
    rows = distant.run_batch([asked("ar"), asked("diffusion")])
    steps = list(rows)
    assert {row for row, _ in steps} == {0, 1} and [row.trace().output for row in rows.rows] == [its[1] for its in expected.values()]
    parent = distant.run(asked("ar"))
    list(parent)
    child = distant.fork(parent.trace(), Intervention(2))
    assert list(child) and child.trace().output == expected["ar"][1]
    assert worker.released == [False] * 5 and len(worker.durations) == 5
    # It computed elsewhere: nothing has happened to the engine of this process.
    assert not tiny_engine._device.locked()
    assert pickle.loads(pickle.dumps(run_work(asked()))) == run_work(asked())


def run_work(request: DecodeRequest) -> dict[str, Any]:
    return {"do": "decode", "request": request.model_dump(mode="json")}


@pytest.mark.parametrize("leave", ["stop", "close"])
def test_a_stopped_run_gives_its_gpu_back(leave: str, worker: SimpleNamespace, tiny_engine: Engine):
    distant = zero.wrap(tiny_engine, PRESET)
    stop = threading.Event()
    run = distant.run(asked("ar", max_new_tokens=900, stop_at_eos=False), stop)
    steps = iter(run)
    for _ in range(5):
        next(steps)
    if leave == "stop":
        stop.set()
        list(steps)
    else:
        run.close()
    assert run.trace().stop_reason == "cancelled" and len(run.steps) < 900
    assert worker.released == [False]
    assert outcome(distant.run(asked())) == outcome(tiny_engine.run(asked()))  # the next one is served


def test_what_the_scheduler_refuses_is_one_sentence(worker: SimpleNamespace, tiny_engine: Engine):
    import gradio

    def refuse() -> None:
        raise gradio.Error("You have exceeded your GPU quota.\nSign in.")

    distant = zero.wrap(tiny_engine, PRESET)
    worker.scheduler = refuse
    with pytest.raises(NemodiffError) as refused:
        list(distant.run(asked()))
    assert str(refused.value) == "there was no GPU for this run (You have exceeded your GPU quota. Sign in); try again later."


def test_a_worker_that_dies_is_told(worker: SimpleNamespace, tiny_engine: Engine):
    distant = zero.wrap(tiny_engine, PRESET)
    steps = iter(distant.run(asked("ar", max_new_tokens=900, stop_at_eos=False)))
    next(steps)
    child = next(child for child in multiprocessing.active_children() if child.name.startswith("ForkProcess"))
    child.kill()
    with pytest.raises(NemodiffError, match="there was no GPU for this run .*; try again later"):
        list(steps)
    assert True in worker.released


def test_weights_that_the_package_holds_for_a_gpu_are_loaded_and_run(worker: SimpleNamespace, model: Any, tiny_engine: Engine):
    worker.patching.patch()  # what `import spaces` does on ZeroGPU: "cuda" is there, and keeps nothing
    try:
        loaded = load(model, dtype="float32")
        assert str(loaded.device) == "cuda:0"
        distant = zero.wrap(Engine(loaded, tiny_engine.limits), PRESET)
        assert distant.identity()["weights"] == tiny_engine.identity()["weights"]
        assert in_thread(lambda: outcome(distant.run(asked()))) == in_thread(lambda: outcome(tiny_engine.run(asked())))
    finally:
        worker.patching.unpatch()
        worker.patching.cuda_aliases.clear()


def in_thread(do: Callable[[], Any]) -> Any:
    """As the server does it: the package's emulation is there in the main thread alone."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(do()))
    thread.start()
    thread.join(60)
    return answers[0]
