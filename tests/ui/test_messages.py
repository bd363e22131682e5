"""The live protocol: numbered, compact, complete, and a faithful split of the trace."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from nemodiff_core.errors import RequestError
from nemodiff_core.metrics import summary
from nemodiff_core.trace import TokenText, Trace, fold
from ui.live import stream
from ui.messages import Writer, documents, identity, resync, write_traces
from ui.runs import RunStore

KEYS = ["run", "seq", "type", "lane", "lanes", "blind", "head", "steps", "vocabulary", "tail", "text"]


def piece(token: int) -> str:
    return f"<{token}>"


class FakeRun:
    """Replays the steps of a hand-made trace as a decoder would make them."""

    def __init__(self, trace: Trace, engine: FakeEngine, stop: threading.Event) -> None:
        self._whole, self._engine, self._stop, self._done, self.closed = trace, engine, stop, 0, False

    def __iter__(self):
        for step in self._whole.steps:
            if self._stop.is_set():
                return
            time.sleep(self._engine.pause)
            self._done += 1
            yield step
        if self._engine.stop_at_the_end:
            self._stop.set()

    def trace(self) -> Trace:
        whole, steps = self._whole, self._whole.steps[: self._done]
        if len(steps) == len(whole.steps):
            return whole
        ids = fold(len(whole.prompt.ids), steps).output()
        return replace(whole, steps=steps, output=TokenText(ids, [piece(i) for i in ids]), stop_reason="cancelled")

    def close(self) -> None:
        self.closed = True


class FakeEngine:
    """Requests are traces already; an exception instead of a trace is raised."""

    def __init__(self, pause: float = 0.0, stop_at_the_end: bool = False) -> None:
        self.pause, self.stop_at_the_end, self.runs = pause, stop_at_the_end, []
        self.checkpoint = self.tokenizer = self
        self.piece = piece

    def run(self, request: Any, stop: threading.Event) -> FakeRun:
        if isinstance(request, Exception):
            raise request
        self.runs.append(FakeRun(request, self, stop))
        return self.runs[-1]


def lanes(requests: list[Any]) -> list[Any]:
    return [lambda engine, stop, request=request: engine.run(request, stop=stop) for request in requests]


def parsed(messages: list[str]) -> list[dict[str, Any]]:
    return [json.loads(m) for m in messages]


def test_every_message_has_the_same_keys_and_the_next_number(traces):
    record = RunStore().create("me", lanes=2)
    messages = parsed(list(stream(FakeEngine(), lanes([traces["ar"], traces["linear_spec"]]), record)))
    assert [list(m) for m in messages] == [KEYS] * len(messages)
    assert [m["seq"] for m in messages] == list(range(len(messages)))
    assert {m["run"] for m in messages} == {record.id}
    kinds = [(m["lane"], m["type"]) for m in messages]
    assert kinds == [(lane, kind) for lane in (0, 1) for kind in ("open", "steps", "end")]
    assert record.ended


def test_messages_are_compact_and_refuse_what_browsers_refuse():
    record = RunStore().create("me")
    writer = Writer(record)
    head = {"id": "x", "prompt": {"ids": [1], "pieces": ["é"]}, "annotations": []}
    assert ": " not in writer.open(0, head, piece) and "é" in record.log[0]
    with pytest.raises(ValueError):
        writer.open(0, {**head, "model": {"confidence": float("nan")}}, piece)


def test_the_text_of_a_token_is_sent_once_a_lane_and_in_time(traces):
    record = RunStore().create("me", lanes=2)
    of_lane: dict[int, dict[str, str]] = {0: {}, 1: {}}
    for message in parsed(list(stream(FakeEngine(), lanes([traces["ar"], traces["linear_spec"]]), record))):
        known = of_lane[message["lane"]]
        assert not known.keys() & message["vocabulary"].keys()
        known |= message["vocabulary"]
        for step in message["steps"]:
            assert {str(e["token"]) for e in step["events"]} <= known.keys()
            assert {str(i) for c in step["candidates"] for i in c["ids"]} <= known.keys()
    assert known["70"] == "<70>"  # a candidate that was never chosen


def test_steps_that_come_faster_than_the_page_draws_travel_together(traces):
    record = RunStore().create("me")
    fast = parsed(list(stream(FakeEngine(), lanes([traces["ar"]]), record)))
    assert [len(m["steps"]) for m in fast if m["type"] == "steps"] == [3]
    record = RunStore().create("me")
    slow = parsed(list(stream(FakeEngine(pause=0.15), lanes([traces["ar"]]), record, rate_hz=25)))
    assert [len(m["steps"]) for m in slow if m["type"] == "steps"] == [1, 1, 1]


def test_joined_messages_are_the_trace_again(traces, hand_made):
    record = RunStore().create("me", lanes=2)
    list(stream(FakeEngine(), lanes([traces["ar"], traces["linear_spec"]]), record))
    joined = documents(record)
    for document, mode in zip(joined, ("ar", "linear_spec")):
        again = Trace.from_json(json.dumps(document))
        assert json.loads(again.to_json()) == json.loads(traces[mode].to_json())
        assert again.output.ids == hand_made[mode]["output"]["ids"]


def test_the_end_carries_the_figures_of_metrics(traces):
    record = RunStore().create(None)
    write_traces(record, [traces["linear_spec"]])
    assert json.loads(record.log[-1])["tail"]["metrics"] == json.loads(json.dumps(summary(traces["linear_spec"])))


def test_resync_says_everything_in_few_messages_and_the_count_goes_on(traces):
    record = RunStore().create("me", lanes=2)
    sent = parsed(list(stream(FakeEngine(pause=0.1), lanes([traces["ar"], traces["linear_spec"]]), record, rate_hz=50)))
    answer = resync(record)["messages"]
    assert len(answer) == 6 < len(sent)
    assert answer[-1]["seq"] == sent[-1]["seq"]
    for lane in (0, 1):
        live = [s for m in sent if m["lane"] == lane for s in m["steps"]]
        assert [s for m in answer if m["lane"] == lane for s in m["steps"]] == live
    assert len(record.log) == len(sent)  # asking changed nothing


def test_a_race_says_identical_only_where_it_is_so(traces, hand_made):
    assert identity([traces["ar"], traces["linear_spec"]], 1) == {"to_lane": 0, "same": True, "first_divergence": None}
    other = hand_made["ar"]
    other["steps"][2]["events"][0]["token"] = 70
    other["output"] = {"ids": [50, 51, 70], "pieces": ["<50>", "<51>", "<70>"]}
    other["vocabulary"]["70"] = "<70>"
    different = Trace.from_json(json.dumps(other))
    assert identity([different, traces["linear_spec"]], 1) == {"to_lane": 0, "same": False, "first_divergence": 2, "gap": None}


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {}])
def test_a_race_makes_no_claim_about_sampled_or_unfinished_runs(traces, hand_made, change):
    spec = hand_made["linear_spec"]
    spec["request"].update(change)
    if not change:
        spec["stop_reason"] = "cancelled"
    assert identity([traces["ar"], Trace.from_json(json.dumps(spec))], 1) is None
    assert identity([traces["ar"]], 0) is None


def test_stopping_ends_the_run_and_leaves_the_later_lanes_out(traces):
    engine, record = FakeEngine(pause=0.05), RunStore().create("me", lanes=2)
    messages = []
    for message in stream(engine, lanes([traces["ar"], traces["linear_spec"]]), record, rate_hz=1000):
        messages.append(json.loads(message))
        if messages[-1]["type"] == "steps":
            record.stop.set()
    assert messages[-1]["type"] == "end" and messages[-1]["tail"]["stop_reason"] == "cancelled"
    assert {m["lane"] for m in messages} == {0}
    assert engine.runs[0].closed and engine.runs[0]._done < 3


def test_a_race_stopped_between_two_lanes_says_so(traces):
    record = RunStore().create("me", lanes=2)
    messages = parsed(list(stream(FakeEngine(stop_at_the_end=True), lanes([traces["ar"], traces["linear_spec"]]), record)))
    assert [(m["lane"], m["type"]) for m in messages][-2:] == [(0, "end"), (1, "fault")]
    assert "stopped before every lane" in messages[-1]["text"]


def test_a_closed_tab_stops_the_decoder_and_frees_the_run(traces):
    engine, record = FakeEngine(pause=0.05), RunStore().create("me")
    messages = stream(engine, lanes([traces["ar"]]), record)
    next(messages)
    messages.close()
    assert record.stop.is_set() and record.ended
    assert engine.runs[0].closed and engine.runs[0]._done <= 2


def test_failures_become_one_sentence_in_the_page(traces):
    for error, says in ((RequestError("prompt is too long; shorten it."), "prompt is too long; shorten it."), (ValueError("odd"), "odd")):
        record = RunStore().create("me", lanes=2)
        messages = parsed(list(stream(FakeEngine(), lanes([traces["ar"], error]), record)))
        assert [m["type"] for m in messages] == ["open", "steps", "end", "fault"]
        assert says in messages[-1]["text"] and messages[-1]["lane"] == 1
        assert record.ended
