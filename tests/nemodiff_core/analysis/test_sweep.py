"""Sweeps: what a grid runs, rows that survive interruptions and damage, and fronts that nothing beats."""

from __future__ import annotations

import csv
import json
import sys
import threading
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemodiff_core.analysis.sweep import (
    COLUMNS,
    Grid,
    Prompt,
    Row,
    Source,
    Sweep,
    file_prompts,
    make_grid,
    pareto,
    read_rows,
    task_prompts,
)
from nemodiff_core.checkpoint import Checkpoint, save
from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError
from nemodiff_core.metrics import summary
from nemodiff_core.trace import Trace
from tests.conftest import random_model

TIMES = ("seconds", "tokens_per_second")
KNOBS = {"mode": ["ar", "diffusion", "linear_spec"], "block_length": [4], "threshold": [0.2, 0.9], "steps": [2], "max_new_tokens": [6]}
PROMPTS = [Prompt("a", "Hello."), Prompt("b", "What is 2 + 2?")]


@pytest.fixture
def grid() -> Grid:
    return make_grid(KNOBS, PROMPTS)


def content(rows: list[Row]) -> dict[tuple[int, str], Row]:
    """Rows by run, without what two runs of the same thing differ in."""
    return {(row["setting"], row["prompt_id"]): {k: v for k, v in row.items() if k not in TIMES} for row in rows}


def knobs_of(grid: Grid) -> list[tuple]:
    return [tuple(setting.get(name) for name in ("mode", "threshold", "steps")) for setting in grid.settings]


def test_refused_combinations_run_in_their_largest_accepted_parts(grid: Grid) -> None:
    assert knobs_of(grid) == [
        ("ar", None, None),
        ("diffusion", 0.2, None),
        ("diffusion", None, 2),
        ("diffusion", 0.9, None),
        ("linear_spec", 0.2, None),
        ("linear_spec", 0.9, None),
    ]
    assert grid.combinations == 6 and len(grid.refused) == 6, "each has steps beside a threshold"
    whole = make_grid({"mode": ["diffusion"], "revise_rounds": [0, 2], "block_length": [4, 8]}, PROMPTS)
    assert len(whole.settings) == 4 and not whole.refused
    alone = make_grid({"mode": ["ar"], "block_length": [4, 8, 16]}, PROMPTS)
    assert alone.settings == ({"mode": "ar"},), "blocks do nothing in this mode"
    policies = make_grid({"mode": ["diffusion"], "policy": ["leftmost", "entropy_budget"], "entropy_bound": [1.0]}, PROMPTS)
    assert [sorted(setting) for setting in policies.settings] == [["mode", "policy"], ["entropy_bound", "mode", "policy"]]


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"speed": [1]}, "speed is no setting"),
        ({"prompt": ["x"]}, "prompt is no setting"),
        ({"mode": []}, "mode needs a list"),
        ({"mode": "ar"}, "mode needs a list"),
        ({"mode": ["ar", "telepathy"]}, "telepathy"),
        ({"threshold": [0.5, 2.0]}, "threshold is 2.0"),
        ({"mode": ["refine"]}, "draft"),
        ({"seed": list(range(5000))}, "5000 combinations"),
    ],
)
def test_grids_that_cannot_run_are_refused(knobs: dict, says: str) -> None:
    with pytest.raises(NemodiffError, match=says):
        make_grid(knobs, PROMPTS)


@pytest.mark.parametrize("prompts", [[], [PROMPTS[0], Prompt("a", "Bye.")], [Prompt("../a", "Hello.")]])
def test_prompts_that_cannot_name_files_are_refused(prompts: list[Prompt]) -> None:
    with pytest.raises(NemodiffError, match="prompt"):
        make_grid({"mode": ["ar"]}, prompts)


def test_prompts_come_from_tasks_or_from_a_file(tmp_path: Path) -> None:
    tasks = task_prompts(2, families=["qa", "list", "qa"])
    assert [p.id for p in tasks] == ["qa-0000", "qa-0001", "list-0000", "list-0001"]
    assert all(p.example.prompt == p.text and p.family == p.id[:-5] for p in tasks)
    path = tmp_path / "prompts.txt"
    path.write_text("one\n\n  two \n", "utf-8")
    assert file_prompts(path) == [Prompt("line-0001", "one"), Prompt("line-0003", "two")]
    path.write_text("\n", "utf-8")
    with pytest.raises(NemodiffError, match="no prompts"):
        file_prompts(path)
    with pytest.raises(NemodiffError, match="cannot be read"):
        file_prompts(tmp_path / "absent.txt")
    with pytest.raises(NemodiffError, match="no task family 'chess'"):
        task_prompts(2, families=["chess"])


def test_rows_are_folds_over_their_saved_traces(grid: Grid, tiny_engine: Engine, tmp_path: Path) -> None:
    sweep = Sweep(grid, tmp_path)
    rows = list(sweep.run(tiny_engine))
    assert len(rows) == sweep.total == 12 and sweep.rows == rows
    for row in rows:
        assert tuple(row) == COLUMNS
        trace = Trace.load(tmp_path / row["trace"])
        figures = summary(trace)
        assert {name: row[name] for name in figures.keys() & row.keys()} == {n: figures[n] for n in figures.keys() & row.keys()}
        assert row["verifications"] == len(figures["acceptance_lengths"])
        assert row["model"] == "random" and row["correct"] is None and row["family"] is None
        assert row["mode"] == trace.request["mode"] and row["threshold"] == trace.request["threshold"]
    assert read_rows(tmp_path / "runs.csv") == rows, "the table keeps every value and its type"


def test_answers_to_tasks_are_graded(tiny_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = iter([True, False])
    monkeypatch.setattr("nemodiff_core.analysis.sweep.grade", lambda example, text: SimpleNamespace(correct=next(marks)))
    grid = make_grid({"mode": ["ar"], "max_new_tokens": [3]}, task_prompts(2, families=["qa"]))
    rows = list(Sweep(grid, tmp_path).run(tiny_engine))
    assert [(row["family"], row["correct"]) for row in rows] == [("qa", True), ("qa", False)]
    assert [row["correct"] for row in Sweep(grid, tmp_path).rows] == [True, False]


def test_interrupted_and_damaged_sweeps_end_with_the_same_rows(grid: Grid, tiny_engine: Engine, tmp_path: Path) -> None:
    whole = list(Sweep(grid, tmp_path / "whole").run(tiny_engine))

    out = tmp_path / "parts"
    begun = Sweep(grid, out).run(tiny_engine)
    seen = list(islice(begun, 5))
    begun.close()
    assert len(Sweep(grid, out).rows) == 5, "a row is on disk before it is seen"

    stop = threading.Event()
    for row in Sweep(grid, out).run(tiny_engine, stop=stop):
        seen.append(row)
        if len(seen) == 8:
            stop.set()
    assert len(seen) == 8, "nothing runs after a stop"

    table = out / "runs.csv"
    text = table.read_text("utf-8")
    table.write_text(text[: len(text) - 20], "utf-8")  # torn while the last row was written
    (out / seen[0]["trace"]).write_bytes(b"\x1f\x8b nonsense")
    (out / seen[1]["trace"]).unlink()
    other = Trace.load(out / seen[3]["trace"])
    other.save(out / seen[2]["trace"])  # sound, but of another run
    resumed = Sweep(grid, out)
    assert content(resumed.rows).keys() == content(seen[3:7]).keys()
    again = list(resumed.run(tiny_engine))
    assert len(again) == 8
    assert content(resumed.rows) == content(whole) == content(read_rows(table))
    assert list(Sweep(grid, out).run(tiny_engine)) == []


def test_a_stop_drops_the_run_in_progress(grid: Grid, tiny_engine: Engine, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    sweep = Sweep(grid, tmp_path)
    assert list(sweep.run(tiny_engine, stop=stop)) == [] == sweep.rows
    run = tiny_engine.run

    def stopped(request, event):  # as a reader of another thread would, in mid-run
        stop.set()
        return run(request, event)

    stop.clear()
    tiny_engine.run = stopped
    assert list(sweep.run(tiny_engine, stop=stop)) == []
    assert not any((tmp_path / "traces").iterdir())


def test_a_folder_keeps_its_grid_and_its_model(grid: Grid, tiny_engine: Engine, tmp_path: Path) -> None:
    next(Sweep(grid, tmp_path).run(tiny_engine))
    with pytest.raises(NemodiffError, match="other settings or prompts"):
        Sweep(make_grid({**KNOBS, "steps": [3]}, PROMPTS), tmp_path)
    with pytest.raises(NemodiffError, match="other settings or prompts"):
        Sweep(make_grid(KNOBS, PROMPTS[:1]), tmp_path)
    model = random_model(seed=1)  # the same name, trained further
    other = Engine(Checkpoint(model, tiny_engine.checkpoint.tokenizer, model.config, "random", None, Path("random")))
    with pytest.raises(NemodiffError, match="another model"):
        next(Sweep(grid, tmp_path).run(other))
    assert len(Sweep(grid, tmp_path).rows) == 1
    (tmp_path / "grid.json").write_text("{", "utf-8")
    with pytest.raises(NemodiffError, match="cannot be read"):
        Sweep(grid, tmp_path)


def test_a_run_that_fails_names_its_prompt(tiny_engine: Engine, tmp_path: Path) -> None:
    grid = make_grid({"mode": ["ar"], "max_new_tokens": [3]}, [PROMPTS[0], Prompt("long", "word " * 900)])
    sweep = Sweep(grid, tmp_path)
    with pytest.raises(NemodiffError, match="^long: "):
        list(sweep.run(tiny_engine))
    assert len(Sweep(grid, tmp_path).rows) == 1


def test_workers_make_the_rows_of_a_serial_run(tiny_engine: Engine, tmp_path: Path) -> None:
    checkpoint = tiny_engine.checkpoint
    source = Source(str(save(checkpoint.model, checkpoint.tokenizer, tmp_path / "model")))
    grid = make_grid({"mode": ["ar", "linear_spec"], "block_length": [4], "max_new_tokens": [5]}, PROMPTS)
    serial, parallel = Sweep(grid, tmp_path / "serial"), Sweep(grid, tmp_path / "parallel")
    list(serial.run(source))
    list(parallel.run(source, workers=2))
    assert content(parallel.rows) == content(serial.rows) and len(serial.rows) == 4
    with pytest.raises(NemodiffError, match="several workers"):
        next(Sweep(grid, tmp_path / "none").run(tiny_engine, workers=2))


def test_parquet_is_written_where_pyarrow_is(grid: Grid, tiny_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_table(rows: list[dict], path: Path) -> None:
        path.write_text(json.dumps(rows), "utf-8")

    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace(Table=SimpleNamespace(from_pylist=lambda rows: rows)))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", SimpleNamespace(write_table=write_table))
    sweep = Sweep(grid, tmp_path)
    list(sweep.run(tiny_engine))
    stored = json.loads((tmp_path / "runs.parquet").read_text("utf-8"))
    assert [row["tpf"] for row in stored] == [row["tpf"] for row in sweep.rows]


def test_damaged_tables_lose_rows_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    assert read_rows(path) == []
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("setting", "prompt_id", "correct"), ("[1]", "a", "True"), ("2",), ("3", "b", "")])
    assert read_rows(path) == [
        {"setting": [1], "prompt_id": "a", "correct": True},
        {"setting": 3, "prompt_id": "b", "correct": None},
    ]
    path.write_bytes(b'setting,prompt_id\n\xff\x00,"' + b"x" * 200_000)
    assert read_rows(path) == []


def made(mode: str, correct: bool | None, tokens: int, nfe: int, seconds: float = 1.0, acceptance: float | None = None) -> Row:
    verifications = 0 if acceptance is None else nfe // 2
    return {
        "mode": mode, "correct": correct, "tokens": tokens, "nfe": nfe, "seconds": seconds,
        "acceptance_length": acceptance, "verifications": verifications,
    }  # fmt: skip


def test_fronts_of_rows_counted_by_hand() -> None:
    rows = [
        made("ar", True, 10, 10), made("ar", True, 30, 30, 3.0),
        made("diffusion", True, 20, 10), made("diffusion", False, 40, 10),
        made("linear_spec", True, 12, 4, 2.0, 6.0), made("linear_spec", False, 4, 4, 2.0, 2.0),
        made("infill", None, 90, 1),
    ]  # fmt: skip
    ar, diffusion, spec, ungraded = pareto(rows)
    assert (ar.accuracy, ar.tpf, ar.tokens_per_second, ar.runs, ar.front) == (1.0, 1.0, 10.0, 2, True)
    assert (diffusion.accuracy, diffusion.tpf, diffusion.front) == (0.5, 3.0, True), "60 tokens / 20 NFE, not the mean"
    assert (spec.tpf, spec.acceptance_length, spec.front) == (2.0, 4.0, False), "as exact as diffusion, but slower"
    assert (ungraded.graded, ungraded.accuracy, ungraded.front) == (0, None, False)
    assert [point.front for point in pareto(rows, by=("tpf",))] == [False, False, False, True]
    with pytest.raises(NemodiffError, match="'beauty' is no axis"):
        pareto(rows, by=("beauty",))
    assert pareto([]) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([True, False, None]), st.integers(0, 4), st.integers(0, 3)), max_size=8))
def test_no_front_point_is_dominated_and_every_other_is(results: list[tuple]) -> None:
    points = pareto(made(str(n), correct, tokens, nfe) for n, (correct, tokens, nfe) in enumerate(results))
    complete = [(point.tpf, point.accuracy) for point in points if None not in (point.tpf, point.accuracy)]
    for point in points:
        own = (point.tpf, point.accuracy)
        if None in own:
            assert not point.front
            continue
        better = [other for other in complete if other != own and other[0] >= own[0] and other[1] >= own[1]]
        assert point.front == (not better)
