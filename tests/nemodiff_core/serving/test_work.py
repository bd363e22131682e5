"""Work as plain data: whatever it is, an engine at a distance gives what the engine itself gives."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from nemodiff_core.analysis.oracle import one_at_a_time
from nemodiff_core.checkpoint import Checkpoint
from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError, RequestError
from nemodiff_core.fork import Intervention
from nemodiff_core.request import DecodeRequest, Limits
from nemodiff_core.serving.distant import Distant
from nemodiff_core.serving.outline import Outline
from nemodiff_core.serving.work import perform
from nemodiff_core.tokenizer import Tokenizer
from nemodiff_core.trace import Trace

from tests.conftest import random_model


@pytest.fixture(scope="module")
def near(tiny_tokenizer: Tokenizer) -> Engine:
    model = random_model()
    return Engine(Checkpoint(model, tiny_tokenizer, model.config, "random", None, Path("random")))


@pytest.fixture(scope="module")
def far(near: Engine) -> Distant:
    return distant(near)


def over(engine: Engine, rate_hz: float = 25.0) -> Any:
    """A transport that makes JSON of everything."""

    def send(work: dict, stop: threading.Event) -> Iterator[list[dict]]:
        with closing(perform(engine, json.loads(json.dumps(work)), stop, rate_hz)) as batches:
            for batch in batches:
                yield json.loads(json.dumps(batch))

    return send


def distant(engine: Engine, rate_hz: float = 25.0) -> Distant:
    return Distant.meet(over(engine, rate_hz), engine.limits)


def saying(engine: Engine, *packets: Any) -> Distant:
    """An engine at whose other end these packets come, whatever is asked."""
    return Distant(lambda work, stop: (batch for batch in [list(packets)]), Outline.of(engine))


def request(mode: str, **fields: Any) -> DecodeRequest:
    return DecodeRequest(**{"prompt": "Hi", "mode": mode, "max_new_tokens": 20, "block_length": 8, "stop_at_eos": False} | fields)


LANES = [
    request("ar", prompt="one", candidates=3),
    request("diffusion", prompt="two words", max_new_tokens=12, threshold=0.3, candidates=2),
    request("diffusion", revise_rounds=2, revise_bound=0.5, pins=((3, 200),)),
    request("linear_spec", temperature=1.0, seed=3),
    request("quadratic_spec", prompt="a longer prompt", block_length=4),
    request("refine", draft="abcdef", revise_bound=0.5),
    request("infill", template="ab▢▢cd"),
]


def told(trace: Trace) -> dict[str, Any]:
    """A trace without what two runs of one request may differ in."""
    plain = json.loads(trace.to_json())
    for step in plain["steps"]:
        step["elapsed_ns"] = 0
    return {**plain, "id": "", "created": ""}


def finished(run: Any) -> Trace:
    steps = list(run)
    trace = run.trace()
    assert trace.steps == steps
    return trace


@pytest.mark.parametrize("asked", LANES, ids=lambda asked: asked.mode)
def test_a_run_at_a_distance_is_the_run(near: Engine, far: Distant, asked: DecodeRequest) -> None:
    here, there = finished(near.run(asked)), finished(far.run(asked))
    assert told(there) == told(here) and here.id != there.id
    assert Trace.from_json(there.to_json()).to_json() == there.to_json()


def test_a_batch_at_a_distance_is_the_batch(near: Engine, far: Distant) -> None:
    here, there = near.run_batch(LANES), far.run_batch(LANES)
    assert [row for row, _ in here] == [row for row, _ in there], "rows come in the order in which they wrote"
    assert [told(row.trace()) for row in there.rows] == [told(row.trace()) for row in here.rows]


@pytest.mark.parametrize("action", ["none", "force", "remask"])
def test_a_what_if_at_a_distance_is_the_what_if(near: Engine, far: Distant, action: str) -> None:
    parent = finished(near.run(request("diffusion", candidates=2)))
    parent = Trace.from_json(parent.to_json())
    place = None if action == "none" else len(parent.prompt.ids) + 2
    what = Intervention(4, action, place, 201 if action == "force" else None, {"threshold": 0.5})
    here, there = finished(near.fork(parent, what)), finished(far.fork(parent, what))
    assert told(here) == told(there) and there.parent["trace"] == parent.id
    assert there.steps[:5] == parent.steps[:5] and len(there.steps) > 5


def test_analyses_at_a_distance_find_the_same(near: Engine, far: Distant) -> None:
    trace = finished(near.run(request("diffusion", threshold=0.1)))
    here, there = near.regret(trace), far.regret(trace)
    assert here == there and there.annotations
    reference = finished(near.run(one_at_a_time(request("diffusion", max_new_tokens=8))))
    assert told(near.oracle(reference, 20)) == told(far.oracle(reference, 20))
    with pytest.raises(NemodiffError, match="no answer"):
        far.regret(replace(trace, steps=[], output=replace(trace.output, ids=[], pieces=[])))


def test_the_other_end_is_known_without_its_weights(near: Engine, far: Distant) -> None:
    assert far.describe() == near.describe() and far.identity() == near.identity()
    assert far.environment() == near.environment() and far.capacity == 1
    checkpoint = far.checkpoint
    assert not hasattr(checkpoint, "model") and checkpoint.id == near.checkpoint.id and checkpoint.config == near.checkpoint.config
    text = "Ünïcode <|im_end|> 漢字"
    ids = near.checkpoint.tokenizer.encode_plain(text)
    assert checkpoint.tokenizer.encode_plain(text) == ids and far.text(ids) == near.text(ids)
    assert [checkpoint.tokenizer.piece(i) for i in range(384)] == [near.checkpoint.tokenizer.piece(i) for i in range(384)]


def test_the_device_at_the_other_end_is_measured(near: Engine, far: Distant, monkeypatch: pytest.MonkeyPatch) -> None:
    from nemodiff_core.analysis import probe
    from nemodiff_core.analysis.devices import MEASURED, Device

    asked = []
    monkeypatch.setattr(probe, "measure_device", lambda *given: (asked.append(given), Device("this one", MEASURED, 1e9, {"float32": 2e9}))[1])
    assert far.probe(123, 1.0) == Device("this one", MEASURED, 1e9, {"float32": 2e9})
    assert asked == [("float32", "cpu", 123)]


# -- what is refused here -----------------------------------------------------------------------------


def test_what_does_not_fit_is_never_sent(near: Engine) -> None:
    def send(work: Any, stop: Any) -> Any:
        raise AssertionError("sent")

    engine = Distant(send, Outline.of(near), Limits(max_new_tokens=30, max_batch=2))
    parent = finished(near.run(request("ar")))
    for ask, said in (
        (lambda: engine.run(request("ar", max_new_tokens=31)), "max_new_tokens"),
        (lambda: engine.run(request("diffusion", policy="sampler")), "no learned sampler"),
        (lambda: engine.run(request("infill", template="a▢{9}")), "does not fit into a block"),
        (lambda: engine.run_batch([request("ar")] * 3), "1 to 2 together"),
        (lambda: engine.fork(parent, Intervention(99)), "no step 100"),
    ):
        with pytest.raises(RequestError, match=said) as there:
            ask()
    host = Engine(near.checkpoint, engine.limits)
    with pytest.raises(RequestError) as here:
        host.fork(parent, Intervention(99))
    assert str(here.value) == str(there.value)


@pytest.mark.parametrize("work", [
    None, [], {}, {"do": "format"}, {"do": "decode"}, {"do": "decode", "request": "x"}, {"do": "decode", "request": {"prompt": ""}},
    {"do": "decode", "request": {"prompt": "x", "mode": "ar", "max_new_tokens": 10**9}}, {"do": "batch", "requests": []},
    {"do": "fork", "parent": {}, "step": 0, "action": "none", "position": None, "token": None, "changes": {}},
    {"do": "regret", "trace": {"schema": "nemodiff.trace/2"}}, {"do": "about", "more": 1},
])  # fmt: skip
def test_work_that_is_none_is_answered_by_one_sentence(near: Engine, work: Any) -> None:
    (batch,) = perform(near, work)
    (packet,) = batch
    assert packet["type"] == "fault" and packet["text"].strip().endswith(".")
    assert not near._device.locked()


def test_a_failing_run_says_why_at_the_other_end(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_engine, "fast", None)
    far, seen = distant(tiny_engine), []
    run = far.run(request("ar"))
    forward = type(tiny_engine.checkpoint.model).forward
    left = iter(range(4))
    monkeypatch.setattr(
        type(tiny_engine.checkpoint.model), "forward",
        lambda self, *a, **k: forward(self, *a, **k) if next(left, None) is not None else (_ for _ in ()).throw(ValueError("broken")),
    )  # fmt: skip
    with pytest.raises(NemodiffError, match="the run failed .ValueError: broken"):
        for step in run:
            seen.append(step)
    assert run.trace().stop_reason == "error" and run.trace().steps == seen and len(seen) == 4


# -- stopping -----------------------------------------------------------------------------------------


@given(mode=st.sampled_from(["ar", "diffusion", "linear_spec"]), after=st.integers(0, 20), how=st.sampled_from(["flag", "close"]))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_run_at_a_distance_stops_between_any_two_steps(near: Engine, mode: str, after: int, how: str) -> None:
    stop, seen = threading.Event(), []
    forwards = Counted(near)
    run = distant(forwards, rate_hz=1e9).run(request(mode, max_new_tokens=40), stop=stop)
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
    assert trace.steps == seen and trace.stop_reason in ("cancelled", "length")
    if trace.stop_reason == "cancelled":
        assert len(seen) <= after and forwards.steps <= len(seen) + 1, "the other end went on"
    assert not near._device.locked()


class Counted(Engine):
    """An engine that counts the steps that its runs have done."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.checkpoint)
        self._device, self.last = engine._device, None

    @property
    def steps(self) -> int:
        return 0 if self.last is None else len(self.last.steps)

    def run(self, *given: Any) -> Any:
        self.last = super().run(*given)
        return self.last


def test_packets_come_at_once_and_then_so_often(near: Engine) -> None:
    work = {"do": "decode", "request": request("ar").model_dump(mode="json")}
    batches = list(perform(near, work, rate_hz=1e-6))
    assert [packet["type"] for packet in batches[0]] == ["open"], "the reader hears at once that it has begun"
    assert len(batches) == 2 and [packet["type"] for packet in batches[1]] == ["step"] * (len(batches[1]) - 1) + ["end"]
    assert all(len(batch) == 1 for batch in perform(near, work, rate_hz=1e12))


# -- what comes from elsewhere ------------------------------------------------------------------------


def packets_of(engine: Engine, asked: DecodeRequest) -> list[dict[str, Any]]:
    return [packet for batch in over(engine)({"do": "decode", "request": asked.model_dump(mode="json")}, threading.Event()) for packet in batch]


def _changed(kind: str, **fields: Any) -> Any:
    def change(packets: list) -> None:
        packet = next(packet for packet in packets if packet["type"] == kind)
        packet.update(fields)

    return change


@pytest.mark.parametrize("damage, said", [
    (lambda packets: packets.pop(), "went away"),
    (lambda packets: packets.pop(3), "numbered"),
    (lambda packets: packets.insert(2, packets[2]), "numbered"),
    (lambda packets: packets.append(packets[-1]), "not open"),
    (lambda packets: packets.insert(1, None), "no type"),
    (lambda packets: packets.insert(1, {"type": "song", "row": 0}), "unknown kind"),
    (_changed("open", model={"id": "other"}), "another model"),
    (_changed("open", prompt=[1, 2]), "other tokens"),
    (_changed("step", row=7), "not open"),
    (_changed("step", row=True), "not open"),
    (_changed("step", step={"index": 0}), "phase"),
    (_changed("end", output=[1]), "do not add up"),
    (_changed("end", stop_reason="tired"), "why the run ended"),
    (_changed("end", environment=[]), "environment"),
    (lambda packets: packets.insert(4, {"type": "fault", "text": "The other end has a cold."}), "has a cold"),
])  # fmt: skip
def test_damaged_packets_end_the_run_with_one_sentence(near: Engine, damage: Any, said: str) -> None:
    packets = packets_of(near, request("ar"))
    damage(packets)
    run = saying(near, *packets).run(request("ar"))
    seen = []
    with pytest.raises(NemodiffError, match=said) as error:
        for step in run:
            seen.append(step)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
    trace = run.trace()
    assert trace.steps == seen and trace.stop_reason in ("error", "length")
    assert Trace.from_json(trace.to_json()).output == trace.output


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "row", "step", "output", "open", "end"]), inner, max_size=4),
))  # fmt: skip
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rubbish_is_refused_in_one_sentence(near: Engine, rubbish: Any) -> None:
    engine = Distant(lambda work, stop: (part for part in [rubbish]), Outline.of(near))
    trace = Trace.from_json((run := near.run(request("ar", max_new_tokens=2))).trace().to_json())
    for ask in (lambda: list(engine.run(request("ar"))), lambda: engine.regret(trace), lambda: engine.probe(1, 1.0), lambda: Distant.meet(engine.send)):
        with pytest.raises(NemodiffError):
            ask()
    run.close()
