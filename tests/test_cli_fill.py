"""`nemodiff refine`, `nemodiff infill`, `nemodiff train-sampler`, and decode's knobs of revision, pins and budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nemodiff_core.checkpoint import SAMPLER
from nemodiff_core.trace import Trace
from tests.conftest import Command


def test_infill_keeps_what_is_given(nemodiff: Command, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    code, out, err = nemodiff("infill", '{"a": "▢▢", "b": ▢}', "-m", model, "--json", path)
    assert code == 0, err
    trace = Trace.load(path)
    assert trace.request["mode"] == "infill"
    data = json.loads(_text(trace))
    assert len(data["a"]) == 2 and "NFE" in out


def _text(trace: Trace) -> str:
    return bytes(_byte(piece) for piece in trace.output.pieces).decode()


def _byte(piece: str) -> int:
    return int(piece[1:-1], 16) if piece.startswith("⟨") else ord(piece)


def test_infill_takes_a_schema(nemodiff: Command, model: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}, "s": {"const": "x"}}}))
    code, _, err = nemodiff("infill", "--schema", schema, "-m", model, "--json", tmp_path / "t.json")
    assert code == 0, err
    data = json.loads(_text(Trace.load(tmp_path / "t.json")))
    assert set(data) == {"n", "s"} and 0 <= data["n"] <= 9 and data["s"] == "x"


def test_refine_says_how_much_changed_and_keeps_what_it_is_told_to(nemodiff: Command, model: Path, tmp_path: Path) -> None:
    draft = ("refine", "some words of mine", "-p", "hello", "-m", model)
    code, out, _ = nemodiff(*draft, "--revise-bound", 0)
    assert code == 0 and "nothing changed" in out
    path = tmp_path / "run.json"
    code, out, _ = nemodiff(*draft, "--revise-bound", 1, "--revise-rounds", 20, "--keep", "words", "--json", path)
    assert code == 0 and "of 18 tokens changed" in out
    assert "words" in _text_loosely(Trace.load(path))


def _text_loosely(trace: Trace) -> str:
    return "".join(piece if len(piece) == 1 else "?" for piece in trace.output.pieces)


def test_decode_takes_revision_budgets_and_pins(nemodiff: Command, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    code, _, err = nemodiff(
        "decode", "hello", "-m", model, "-n", 16, "-b", 8, "--ignore-eos", "--threshold", 0.2, "--revise-rounds", 2,
        "--revise-bound", 0.9, "--max-forwards-per-block", 20, "--pin", "3=200", "--pin", "9=201", "--json", path,
    )  # fmt: skip
    assert code == 0, err
    trace = Trace.load(path)
    assert trace.output.ids[3] == 200 and trace.output.ids[9] == 201
    assert any(step.phase == "revise" for step in trace.steps)


def test_a_trained_sampler_is_found_beside_its_checkpoint(nemodiff: Command, model: Path) -> None:
    code, _, err = nemodiff("decode", "hello", "-m", model, "--policy", "sampler", "-n", 8)
    assert code == 2 and "no learned sampler" in err
    code, _, err = nemodiff("train-sampler", "-m", model, "--out", model / SAMPLER, "--prompts", 3, "--minutes", 0.02)
    assert code == 0 and "told right" in err
    code, out, err = nemodiff("decode", "hello", "-m", model, "--policy", "sampler", "-n", 8)
    assert code == 0, err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["infill"], "one of them"),
        (["infill", "no gaps", "-m", "@"], "no gaps"),
        (["infill", "--schema", "/nowhere.json"], "cannot be read"),
        (["refine", "", "-p", "x"], "draft"),
        (["refine", "text", "-p", "x", "--keep", "absent", "-m", "@"], "does not contain"),
        (["decode", "x", "--pin", "here"], "OFFSET=ID"),
        (["decode", "x", "--policy", "abacus"], "policy"),
        (["decode", "x", "--max-forwards", "1"], "max_forwards"),
    ],
)
def test_mistakes_are_one_line(nemodiff: Command, model: Path, arguments: list[str], says: str) -> None:
    code, _, err = nemodiff(*(model if a == "@" else a for a in arguments))
    assert code == 2 and says in err
    assert len(err.strip().splitlines()) == 1
