"""Benchmark reports on the page: what is drawn is what is in the file, and what is no report is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nemodiff_core.bench.report import Report, Spread, Table
from ui import bench_charts
from ui.benchmarks import Benchmarks, drawn, shipped


def spread(value: float) -> Spread:
    return Spread.of([value - 1, value, value + 2])


def report(date: str = "2026-11-21", **more: Any) -> Report:
    tables = [
        Table(name="decode", title="Decoding", keys=("mode",), rows=[
            {"mode": "ar", "tokens/s": spread(200.0), "loop tokens/s": spread(100.0), "× loop": spread(2.0), "NFE": 12},
            {"mode": "quadratic_spec", "tokens/s": spread(90.0), "note": "no plain loop of it"},
        ]),
        Table(name="split", title="Where the time goes", keys=("mode",), rows=[{"mode": "ar", "prefill %": 10.0, "ar %": 80.0, "host %": 10.0}]),
        Table(name="scale_length", title="Answer length", keys=("mode", "length"), rows=[
            {"mode": "ar", "length": 256, "ms/forward": 4.0, "host ms/forward": 0.5},
            {"mode": "ar", "length": 1024, "note": "unmeasured: not within 60 s"},
        ]),
    ]  # fmt: skip
    about = {"date": date, "command": "nemodiff bench", "versions": {"torch": "2"}, "hardware": {"processor": "EPYC", "threads": 1}}
    return Report(**{**about, "tables": tables, **more})


def test_bars_carry_their_spread_and_leave_out_what_was_not_measured():
    ours, loop = bench_charts.speed(report())["figures"][0]["data"]
    assert (ours["x"], ours["y"]) == (["AR", "Quadratic"], [200.0, 90.0]) and (loop["x"], loop["y"]) == (["AR"], [100.0])
    assert ours["error_y"]["array"][0] == 2.0 and ours["error_y"]["arrayminus"][0] == 1.0
    assert "AR 2 times the loop" in bench_charts.speed(report())["summary"]


def test_the_split_adds_up_and_the_unmeasured_is_not_drawn():
    data = bench_charts.split(report())["figures"][0]["data"]
    assert [(trace["name"], trace["x"]) for trace in data] == [("Prefill", [10.0]), ("AR step", [80.0]), ("Host", [10.0])]
    (figure,) = bench_charts.growth(report())["figures"]
    assert figure["name"] == "Answer length" and [trace["x"] for trace in figure["data"]] == [[256.0], [256.0]]


def test_tables_show_and_sort_by_the_medians():
    table = bench_charts.table(report(), "decode")["table"]
    assert table["columns"][:2] == ["mode", "tokens/s"] and table["rows"][0]["cells"][:2] == ["AR", "200 (199–202)"]
    assert all(len(row["cells"]) == len(row["order"]) == len(table["columns"]) for row in table["rows"])
    assert [row["order"][1] for row in table["rows"]] == [200.0, 90.0]
    assert "note" in bench_charts.table(report(), "nothing")


def test_a_report_without_a_part_says_how_to_measure_it():
    for message in drawn(report(tables=[])):
        assert "nemodiff bench" in json.loads(message)["note"]


def test_strange_rows_of_a_sound_file_are_drawn_or_left_out():
    strange = [Table(name=name, title="<b>", keys=("x",), rows=[{"x": 1, "tokens/s": "fast", "mode": None}]) for name in ("decode", "split", "scale_batch")]
    drawn(report(tables=strange))
    assert bench_charts.table(report(tables=strange), "split")["table"]["rows"][0]["cells"]


def test_the_reports_that_come_with_nemodiff_are_sound(tmp_path: Path):
    for name, each in shipped().items():
        assert each.table("decode") is not None and name.endswith(".json")
        drawn(each)
    report("2026-01-01").save(tmp_path / "old.json")
    report("2026-02-01").save(tmp_path / "new.json")
    assert list(shipped(tmp_path)) == ["new.json", "old.json"]


@pytest.mark.parametrize(("text", "said"), [("{}", "does not say"), ("<svg>", "not JSON")])
def test_opening_another_file_changes_nothing_but_the_notice(tmp_path: Path, text: str, said: str):
    path = tmp_path / "mine.json"
    path.write_text(text)
    *rest, notice = Benchmarks().open(str(path))
    assert said in notice and not path.exists()
    assert all("update" in str(part) for part in rest)


def test_a_visitors_report_is_shown_with_its_tables(tmp_path: Path):
    report().save(tmp_path / "mine.json")
    content, about, *_, which, table, notice = Benchmarks().open(str(tmp_path / "mine.json"))
    assert "EPYC" in about and notice == "" and [name for _, name in which["choices"]] == ["decode", "split", "scale_length"]
    assert json.loads(Benchmarks().turn(content, "split"))["table"]["caption"] == "Where the time goes"
