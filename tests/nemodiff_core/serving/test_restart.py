"""A run whose process dies goes on in another; one that would go on differently says so."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from nemodiff_core.checkpoint import Checkpoint
from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError
from nemodiff_core.fork import Intervention
from nemodiff_core.request import DecodeRequest
from nemodiff_core.serving.distant import Distant
from nemodiff_core.serving.outline import Outline
from nemodiff_core.serving.restart import Lost, restarting
from nemodiff_core.serving.work import perform
from nemodiff_core.tokenizer import Tokenizer
from nemodiff_core.trace import Trace

from tests.conftest import random_model


def request(mode: str, **fields: Any) -> DecodeRequest:
    return DecodeRequest(**{"prompt": "Hi", "mode": mode, "max_new_tokens": 16, "block_length": 8, "stop_at_eos": False} | fields)


class Mortal:
    """A transport whose process dies after so many packets, the first time `lives[0]`, then `lives[1]` …; then never."""

    def __init__(self, engine: Engine, *lives: int, change: Any = None) -> None:
        self.engine, self.lives, self.change, self.sent = engine, list(lives), change, 0

    def __call__(self, work: dict, stop: threading.Event) -> Iterator[list[dict]]:
        left = self.lives.pop(0) if self.lives else None
        self.sent += 1
        for batch in perform(self.engine, work, stop, rate_hz=1e9):
            for packet in batch:
                if left is not None:
                    if left == 0:
                        raise Lost("killed")
                    left -= 1
                if self.change is not None and self.sent > 1:
                    packet = self.change(copy.deepcopy(packet))
                yield [packet]


def over(transport: Mortal) -> Distant:
    return Distant(restarting(transport), Outline.of(transport.engine))


@pytest.fixture(scope="module")
def engine(tiny_tokenizer: Tokenizer) -> Engine:
    model = random_model()
    return Engine(Checkpoint(model, tiny_tokenizer, model.config, "random", None, Path("random")))


def tokens(trace: Trace) -> list[Any]:
    return [[step.phase, step.span, [(event.position, event.token, event.kind) for event in step.events]] for step in trace.steps]


@given(
    asked=st.sampled_from([request("ar"), request("diffusion", threshold=0.3), request("linear_spec", temperature=1.0, seed=5)]),
    after=st.integers(0, 18),
)
@settings(max_examples=25, deadline=None)
def test_a_run_goes_on_from_wherever_its_process_died(engine: Engine, asked: DecodeRequest, after: int) -> None:
    reference = engine.run(asked)
    list(reference)
    transport = Mortal(engine, after)
    run = over(transport).run(asked)
    seen, trace = list(run), run.trace()
    assert trace.steps == seen and tokens(trace) == tokens(reference.trace()) and trace.output == reference.trace().output
    times = [step.elapsed_ns for step in seen]
    assert times == sorted(times), "the clock of a run never goes back"
    assert trace.environment.get("restarts") == (1 if transport.sent == 2 else None)
    assert Trace.from_json(trace.to_json()).output == trace.output


def test_a_batch_and_a_what_if_go_on_too(engine: Engine) -> None:
    asked = [request("ar"), request("diffusion")]
    reference = engine.run_batch(asked)
    list(reference)
    run = over(Mortal(engine, 9)).run_batch(asked)
    assert {row for row, _ in run} == {0, 1}
    assert [tokens(row.trace()) for row in run.rows] == [tokens(row.trace()) for row in reference.rows]
    parent = reference.rows[1].trace()
    child, again = engine.fork(parent, Intervention(3)), over(Mortal(engine, 3)).fork(parent, Intervention(3))
    assert [len(list(run)) for run in (child, again)] == [len(again.steps)] * 2
    assert tokens(child.trace()) == tokens(again.trace())


def test_an_analysis_is_done_again(engine: Engine) -> None:
    run = engine.run(request("diffusion", threshold=0.1))
    list(run)
    assert over(Mortal(engine, 0)).regret(run.trace()) == engine.regret(run.trace())


def test_a_second_death_ends_the_run_with_one_sentence(engine: Engine) -> None:
    run = over(Mortal(engine, 3, 8)).run(request("ar"))
    with pytest.raises(NemodiffError, match="two of the model's processes went away"):
        list(run)
    assert run.trace().stop_reason == "error" and len(run.trace().steps) == 7


def _other_token(packet: dict) -> dict:
    if packet["type"] == "step" and packet["step"]["index"] == 2:
        packet["step"]["events"][0]["token"] += 1
    return packet


def _other_figure(packet: dict) -> dict:
    for event in packet.get("step", {}).get("events", ()):
        event["confidence"] = 0.5
    return packet


def test_a_run_that_would_go_on_differently_says_so(engine: Engine) -> None:
    run = over(Mortal(engine, 6, change=_other_token)).run(request("ar"))
    with pytest.raises(NemodiffError, match="writes it differently"):
        list(run)
    assert len(run.trace().steps) == 5, "what was seen stays"
    run = over(Mortal(engine, 6, change=_other_figure)).run(request("ar"))
    assert len(list(run)) == 16, "another device may differ in the last digits"


def test_what_was_stopped_is_not_done_again(engine: Engine) -> None:
    stop, transport = threading.Event(), Mortal(engine, 5)
    run = over(transport).run(request("ar"), stop)
    for step in run:
        if step.index == 3:
            stop.set()
    assert transport.sent == 1 and run.trace().stop_reason == "cancelled" and len(run.trace().steps) == 4


def test_a_fault_is_an_answer_and_no_death(engine: Engine) -> None:
    transport = Mortal(engine)
    ((packet,),) = restarting(transport)({"do": "nothing"}, threading.Event())
    assert packet["type"] == "fault" and transport.sent == 1


@pytest.mark.parametrize("damaged", [{"elapsed_ns": None}, {"events": 3}, {"events": [None]}, {"index": -1}])
def test_a_damaged_step_is_refused_after_a_death_too(engine: Engine, damaged: dict[str, Any]) -> None:
    def change(packet: dict) -> dict:
        if packet["type"] == "step" and packet["step"]["index"] == 7:
            packet["step"] |= damaged
        return packet

    for lives in ([0], [6]):
        with pytest.raises(NemodiffError, match="damaged"):
            list(over(Mortal(engine, *lives, change=change)).run(request("ar")))
