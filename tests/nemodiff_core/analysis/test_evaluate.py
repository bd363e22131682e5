"""The evaluation: every setting over the same held-out prompts, graded exactly."""

from __future__ import annotations

import json

import pytest

from nemodiff_core.analysis import evaluate as evaluation
from nemodiff_core.analysis.evaluate import SETTINGS, Setting, evaluate, markdown
from nemodiff_core.analysis.tasks import examples_for


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


def test_all_settings_are_sound_requests_and_budgets_fall() -> None:
    names = [setting.name for setting in SETTINGS]
    assert names[:2] == ["ar", "linear_spec"] and len(names) == len(set(names)) == 12
    assert len(examples_for("test", 3)) == 24
