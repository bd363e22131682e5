"""Saving, loading, folding, and refusing what is not a sound trace."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from nemodiff_core.engine import Engine
from nemodiff_core.errors import TraceError
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import EMITTED, Canvas, Step, TokenEvent, Trace


def decoded(engine: Engine, **fields) -> Trace:
    run = engine.run(DecodeRequest(prompt="Hello", max_new_tokens=24, block_length=8, stop_at_eos=False, **fields))
    list(run)
    return run.trace()


@pytest.fixture
def trace(tiny_engine: Engine) -> Trace:
    return decoded(tiny_engine, mode="linear_spec", candidates=2)


@pytest.mark.parametrize("mode", ["ar", "diffusion", "linear_spec"])
@pytest.mark.parametrize("name", ["run.json", "run.json.gz"])
def test_a_saved_trace_replays_the_same(tiny_engine: Engine, tmp_path: Path, mode: str, name: str) -> None:
    trace = decoded(tiny_engine, mode=mode, candidates=3)
    trace.save(tmp_path / name)
    loaded = Trace.load(tmp_path / name)
    assert loaded.to_json() == trace.to_json()
    assert (tmp_path / name).read_bytes()[:2] == (b"\x1f\x8b" if name.endswith("gz") else b'{"')
    for step in range(-1, len(trace.steps)):
        ours, theirs = trace.canvas_at(step), loaded.canvas_at(step)
        assert {p: (c.status, c.token) for p, c in ours.cells.items()} == {
            p: (c.status, c.token) for p, c in theirs.cells.items()
        }
    assert loaded.canvas_at(len(loaded.steps) - 1).output() == trace.output.ids
    assert loaded.canvas_at(-1).output() == []


def test_the_vocabulary_names_every_token(trace: Trace) -> None:
    named = {int(i) for i in trace.vocabulary}
    for step in trace.steps:
        assert {e.token for e in step.events} <= named
        assert all(set(c.ids) <= named for c in step.candidates)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_the_fold_on_any_events(data: st.DataObject) -> None:
    """Any sequence of steps folds without error, and its output is the unbroken emitted run."""
    canvas, prompt = Canvas(4), 4
    for index in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(prompt, 12))
        end = data.draw(st.integers(start + 1, 16))
        phase = data.draw(st.sampled_from(["denoise", "commit", "draft", "verify", "ar", "revise"]))
        events = [
            TokenEvent(data.draw(st.integers(start, end)), data.draw(st.integers(0, 9)), kind)
            for kind in data.draw(st.lists(st.sampled_from(["seed", "commit", "remask", "draft", "accept", "reject", "bonus"])))
        ]
        canvas.apply(Step(index, phase, (start, end), 0, index, tuple(events)))
        ids = canvas.output()
        for n, token in enumerate(ids):
            assert canvas.cells[prompt + n].status in EMITTED and canvas.cells[prompt + n].token == token
        after = canvas.cells.get(prompt + len(ids))
        assert after is None or after.status not in EMITTED
        assert all((cell.token is None) == (cell.status == "masked") for cell in canvas.cells.values())


def test_a_bonus_remembers_the_draft_it_replaced() -> None:
    canvas = Canvas(1)
    canvas.apply(Step(0, "draft", (1, 4), 0, 1, (TokenEvent(2, 7, "draft"), TokenEvent(3, 8, "draft"))))
    assert canvas.cells[1].status == "masked"
    verify = (TokenEvent(2, 7, "reject"), TokenEvent(3, 8, "reject"), TokenEvent(2, 9, "bonus"))
    canvas.apply(Step(1, "verify", (1, 4), 0, 2, verify))
    assert (canvas.cells[2].token, canvas.cells[2].replaced) == (9, 7)
    assert canvas.cells[3].status == "rejected" and canvas.cells[3].token == 8
    canvas.apply(Step(2, "draft", (2, 3), 1, 3))
    assert 3 not in canvas.cells, "a refused draft stays visible only until the next forward"
    assert canvas.cells[2].token == 9


def nest(depth: int) -> list:
    inner: list = []
    for _ in range(depth):
        inner = [inner]
    return inner


# Each damage and a word of the sentence that must name it.
DAMAGES = [
    (lambda d: d.update(schema="nemodiff.trace/9"), "schema"),
    (lambda d: d.pop("schema"), "schema"),
    (lambda d: d.pop("steps"), "steps"),
    (lambda d: d.update(steps={}), "steps"),
    (lambda d: d["steps"][0].update(index=5), "index"),
    (lambda d: d["steps"][1].update(index=True), "index"),
    (lambda d: d["steps"][1].update(phase="dream"), "phase"),
    (lambda d: d["steps"][1].update(span=[9, 3]), "span"),
    (lambda d: d["steps"][1].update(span=[0, 10**9]), "span"),
    (lambda d: d["steps"][1].update(span=[0, 8]), "prompt"),
    (lambda d: d["steps"][1].update(elapsed_ns=-1), "elapsed_ns"),
    (lambda d: d["steps"][1].update(elapsed_ns=0), "backwards"),
    (lambda d: d["steps"][1]["events"][0].update(position=10**6), "position"),
    (lambda d: d["steps"][1]["events"][0].update(position="3"), "position"),
    (lambda d: d["steps"][1]["events"][0].update(kind="<b>"), "kind"),
    (lambda d: d["steps"][1]["events"][0].update(confidence=7), "confidence"),
    (lambda d: d["steps"][1]["events"][0].update(token=1.5), "token"),
    (lambda d: d["steps"][1]["events"][0].update(token=383), "vocabulary"),
    (lambda d: d["steps"][1]["candidates"][0].update(ids=[1] * 17, probabilities=[0] * 17), "16"),
    (lambda d: d["steps"][1]["candidates"][0].update(probabilities=[0.5]), "probability"),
    (lambda d: d["output"]["ids"].append(5) or d["output"]["pieces"].append("x") or d["vocabulary"].update({"5": "x"}), "output"),
    (lambda d: d["output"].update(ids=d["output"]["ids"][:-1], pieces=d["output"]["pieces"][:-1]), "output"),
    (lambda d: d["prompt"]["pieces"].pop(), "pieces"),
    (lambda d: d.update(stop_reason="bored"), "stop_reason"),
    (lambda d: d.update(parent="me"), "parent"),
    (lambda d: d.update(model=[]), "model"),
    (lambda d: d["model"].pop("id"), "id"),
    (lambda d: d.update(vocabulary={"1": 2}), "vocabulary"),
    (lambda d: d["request"].update(mode="magic"), "request.mode"),
    (lambda d: d["request"].update(mode=["ar"]), "request.mode"),
    (lambda d: d.update(id="\ud800"), "id"),
    (lambda d: d["prompt"]["pieces"].__setitem__(0, "\udfff"), "prompt.pieces"),
    (lambda d: d["vocabulary"].update({"1": "\ud83d"}), "vocabulary"),
    (lambda d: d["environment"].update({"\ud800": 1}), "environment"),
    (lambda d: d["environment"].update(deep=nest(60)), "environment"),
    (lambda d: d["environment"].update(batch="<b>"), "environment.batch"),
    (lambda d: d["steps"][1].update(candidates=None), "candidates"),
]


@pytest.mark.parametrize(("damage", "word"), DAMAGES)
def test_damage_is_refused_in_one_sentence(trace: Trace, damage, word: str) -> None:
    data = copy.deepcopy(trace.to_dict())
    damage(data)
    with pytest.raises(TraceError, match=word) as caught:
        Trace.from_json(json.dumps(data))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_numbers_beyond_any_float_are_refused(trace: Trace) -> None:
    data = trace.to_dict()
    for part in ("environment", "model", "request"):
        text = json.dumps({**data, part: {**data[part], "x": "@"}}).replace('"@"', "1e999")
        with pytest.raises(TraceError, match=part):
            Trace.from_json(text)


def test_keys_beyond_the_schema_are_dropped(trace: Trace) -> None:
    data = {**trace.to_dict(), "extra": 1}
    data["steps"][0]["extra"] = data["steps"][1]["events"][0]["extra"] = {"x": 1}
    assert Trace.from_json(json.dumps(data)).to_json() == trace.to_json()


def test_steps_that_open_more_cells_than_any_decoder_are_refused(trace: Trace) -> None:
    data, start = trace.to_dict(), len(trace.prompt.ids)
    step = {"phase": "denoise", "span": [start, start + 4096], "block": 0, "elapsed_ns": 0, "events": []}
    data["steps"] = [{"index": n, **step} for n in range(20_000)]
    with pytest.raises(TraceError, match="cells"):
        Trace.from_json(json.dumps(data))


def test_a_trace_of_four_thousand_tokens_loads(trace: Trace) -> None:
    prompt, count = len(trace.prompt.ids), 4096
    data = trace.to_dict()
    data["request"]["mode"] = "ar"
    data["vocabulary"]["65"] = "A"
    data["output"] = {"ids": [65] * count, "pieces": ["A"] * count}
    event = {"token": 65, "kind": "commit", "confidence": 0.98765, "entropy": 0.12345}
    data["steps"] = [
        {
            "index": n,
            "phase": "ar" if n else "prefill",
            "span": [prompt + n - 1 if n else 0, prompt + n],
            "block": 0,
            "elapsed_ns": n,
            "events": [{"position": prompt + n, **event}],
            "candidates": [],
        }
        for n in range(count)
    ]
    assert len(Trace.from_json(json.dumps(data)).output.ids) == count


def test_confidence_is_written_with_five_decimals() -> None:
    written = TokenEvent(3, 7, "commit", 0.123456789, 1.987654321).to_dict()
    assert (written["confidence"], written["entropy"]) == (0.12346, 1.98765)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"schema": NaN}', "[" * 100_000, b"\xff\xfe\x00", b"\x00" * 50])
def test_what_is_no_json_object_is_refused(text) -> None:
    with pytest.raises(TraceError):
        Trace.from_json(text)


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "x.json.gz"
    path.write_bytes(raw)
    with pytest.raises(TraceError):
        Trace.load(path)


def test_files_that_lie_about_their_size_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trace: Trace) -> None:
    bomb = tmp_path / "bomb.json.gz"
    monkeypatch.setattr("nemodiff_core.trace_reader.MAX_TEXT_BYTES", 1 << 20)
    bomb.write_bytes(gzip.compress(b" " * (4 << 20)))
    with pytest.raises(TraceError, match="unpacks"):
        Trace.load(bomb)
    trace.save(tmp_path / "cut.json.gz")
    cut = (tmp_path / "cut.json.gz").read_bytes()[:-40]
    (tmp_path / "cut.json.gz").write_bytes(cut)
    with pytest.raises(TraceError, match="early|damaged"):
        Trace.load(tmp_path / "cut.json.gz")
    with pytest.raises(TraceError, match="cannot be read"):
        Trace.load(tmp_path / "absent.json")
    monkeypatch.setattr("nemodiff_core.trace_reader.MAX_FILE_BYTES", 10)
    with pytest.raises(TraceError, match="larger"):
        Trace.load(bomb)
