"""The evaluation: every setting over the same held-out prompts, graded exactly."""

from __future__ import annotations

import json

import pytest

from nemodiff_core.analysis import evaluate as evaluation
from nemodiff_core.analysis.evaluate import ADAPTED, LEARNED, SETTINGS, Setting, evaluate, markdown, settings_for, skeleton
from nemodiff_core.analysis.tasks import examples_for
from nemodiff_core.errors import RequestError
from nemodiff_core.request import DecodeRequest
from nemodiff_core.skeleton import Hole, parse_template


@pytest.fixture
def report(tiny_engine, monkeypatch: pytest.MonkeyPatch) -> dict:
    # A random model answers nothing; grading by length makes some marks right and some wrong.
    answers = iter(range(1000))
    monkeypatch.setattr(evaluation, "grade", lambda example, text: type("G", (), {"correct": next(answers) % 2 == 0}))
    monkeypatch.setattr(evaluation, "MAX_NEW_TOKENS", 12)
    settings = [
        Setting("ar", {"mode": "ar"}),
        Setting("linear_spec", {"mode": "linear_spec"}),
        Setting("one step", {"mode": "diffusion", "steps": 1}),
    ]
    return evaluate(tiny_engine, per_family=2, families=["qa", "list"], settings=settings, block_length=4)


def test_rows_count_what_ran(report: dict) -> None:
    assert [row["setting"] for row in report["rows"]] == ["ar", "linear_spec", "one step"]
    for row in report["rows"]:
        assert row["prompts"] == 4
        assert row["accuracy"] == 0.5 and set(row["families"]) == {"qa", "list"}
    ar, spec, one = report["rows"]
    assert ar["tpf"] == 1.0 and ar["acceptance_length"] is None
    assert spec["identical_to_ar"] == 1.0 and 1 <= spec["acceptance_length"] <= 4
    assert one["tpf"] > 1.5, "one denoise step and one commit pass for each block of four"
    assert json.loads(json.dumps(report)) == report


def test_the_table_says_what_the_report_says(report: dict) -> None:
    lines = markdown(report).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(report["rows"])
    assert len({line.count("|") for line in rows}) == 1
    assert "50.0 %" in rows[2] and "100 %" in rows[3]


def test_all_settings_are_sound_requests(tiny_engine) -> None:
    names = [setting.name for setting in SETTINGS]
    assert names[:3] == ["ar", "linear_spec", "quadratic_spec"] and len(names) == len(set(names))
    for setting in (*SETTINGS, *LEARNED, ADAPTED):
        DecodeRequest(prompt="x", **setting.knobs)
    assert [s.name for s in settings_for(tiny_engine, ["ar", "diffusion, 1 step"])][:2] == ["ar", "diffusion, 1 step per block"]
    with pytest.raises(RequestError, match="no setting begins"):
        settings_for(tiny_engine, ["nonsense"])
    assert len(examples_for("test", 3)) == 24


def test_json_skeletons_are_measured_beside_the_modes(tiny_engine) -> None:
    report = evaluate(tiny_engine, per_family=8, families=["json"], settings=[Setting("one step", {"steps": 1})])
    plain, filled = report["rows"]
    assert filled["setting"] == "infill, JSON skeleton" and filled["valid_json"] == 1.0
    assert plain["valid_json"] == 0.0, "a random model writes no JSON of its own"
    example = next(e for e in examples_for("test", 8, families=["json"]) if e.kind == "to_json")
    holes = [part for part in parse_template(skeleton(example)) if isinstance(part, Hole)]
    assert len(holes) == len(example.facts["record"])
    assert [h.kind for h in holes] == ["number" if isinstance(v, int) else "string" for v in example.facts["record"].values()]
