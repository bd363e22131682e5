"""Reports: written, read back, refused where damaged, shown and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nemodiff_core.bench.report import MAX_FILE_BYTES, Report, Spread, Table, compare, read, shown
from nemodiff_core.errors import NemodiffError


def report(speed: float = 100.0, **more: Any) -> Report:
    rows = [
        {"mode": "ar", "tokens/s": Spread.of([speed, speed - 1, speed + 3]), "NFE": 12, "same tokens": "8 of 8"},
        {"mode": "diffusion", "tokens/s": None, "note": "unmeasured: no time"},
    ]
    tables = [Table(name="decode", title="Decoding", keys=("mode",), rows=rows, note="8 prompts.")]
    about = {"date": "2026-11-21", "command": "nemodiff bench decode", "versions": {"torch": "2"}, "hardware": {"processor": "EPYC", "threads": 1}}
    return Report(**{**about, "tables": tables, **more})


def test_what_is_written_is_read_back(tmp_path: Path):
    path = tmp_path / "new" / "report.json"
    beside = report().save(path)
    assert read(path) == report()
    text = beside.read_text("utf-8")
    assert "EPYC, 1 thread" in text and "nemodiff bench decode" in text and "2026-11-21" in text and "torch 2" in text
    assert "| ar | 100 (99–103) | 12 | 8 of 8 |  |" in text and "unmeasured: no time" in text


def test_a_spread_is_the_median_and_the_ends():
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(median=2.0, low=1.0, high=3.0)
    assert [shown(v) for v in (1234.5, 0.01234, True, None, "ar", 7)] == ["1,234", "0.0123", "yes", "", "ar", "7"]


def test_ratios_are_new_by_old_of_what_both_have():
    (table,) = compare(report(50.0), report(100.0))
    assert table.rows == [{"mode": "ar", "tokens/s, new / old": 2.0, "NFE, new / old": 1.0}]
    assert compare(report(tables=[]), report()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(schema="other/1"), "does not say"),
        (lambda c: c.pop("date"), "damaged at date"),
        (lambda c: c["tables"][0]["rows"][0].pop("mode"), "does not say its mode"),
        (lambda c: c["tables"][0]["rows"][0].update({"tokens/s": {"median": "fast"}}), "damaged at tables"),
        (lambda c: c["tables"][0].update(name="<b>"), "damaged at tables"),
        (lambda c: c.update(tables=c["tables"] * 40), "damaged at tables"),
        (lambda c: c["tables"][0]["rows"][0].update(NFE=float("nan")), "damaged at tables"),
        (lambda c: c.update(extra=1), "damaged at extra"),
    ],
)
def test_damaged_reports_are_refused_in_one_sentence(tmp_path: Path, change: Any, said: str):
    content = json.loads(report().to_json())
    change(content)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(content))
    with pytest.raises(NemodiffError, match=said) as refused:
        read(path)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_what_is_no_report_is_refused(tmp_path: Path):
    path = tmp_path / "report.json"
    with pytest.raises(NemodiffError, match="cannot be read"):
        read(path)
    for text, said in (("[" * 100_000, "not JSON"), ("[]", "does not say"), (" " * (MAX_FILE_BYTES + 1), "larger than")):
        path.write_text(text)
        with pytest.raises(NemodiffError, match=said):
            read(path)
