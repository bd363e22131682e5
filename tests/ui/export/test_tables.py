"""Tables say what the trace and its metrics say, and no cell of them is a formula."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import pytest

from nemodiff_core import metrics
from nemodiff_core.trace import Trace
from tests.ui.player.traces import MODES, Maker, noise, race
from ui.export.tables import cycles_csv, metrics_csv, steps_csv, tokens_csv

TABLES = (steps_csv, tokens_csv, cycles_csv, metrics_csv)


def rows(text: str) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("mode", list(MODES))
def test_steps(mode: str):
    trace = MODES[mode](Maker(seed=2))
    table = rows(steps_csv([trace]))
    assert [(int(r["step"]), r["phase"]) for r in table] == [(s.index, s.phase) for s in trace.steps]
    assert sum(float(r["took_ms"]) for r in table) == pytest.approx(metrics.seconds(trace) * 1e3)
    counted = sum(int(r[kind]) for r in table for kind in ("seed", "commit", "draft", "accept", "reject", "bonus"))
    assert counted == sum(len(s.events) for s in trace.steps)


@pytest.mark.parametrize("mode", list(MODES))
def test_tokens(mode: str):
    trace = MODES[mode](Maker(seed=2))
    table = rows(tokens_csv([trace]))
    assert [int(r["id"]) for r in table] == trace.output.ids
    cells = trace.canvas_at(len(trace.steps) - 1).cells
    for row in table:
        cell = cells[int(row["position"])]
        assert (row["status"], int(row["step"])) == (cell.status, cell.step)
        assert trace.steps[cell.step].phase == row["phase"]
        assert float(row["confidence"]) == cell.confidence
    assert (sum(int(r["drafts_refused"]) for r in table) > 0) == (mode == "linear_spec")


def test_cycles_agree_with_the_acceptance_lengths():
    trace = Maker(seed=2).linear_spec()
    table = rows(cycles_csv(race()[:2] + [trace]))
    assert {r["lane"] for r in table} == {"2"}, "only self-speculation verifies"
    assert [int(r["acceptance_length"]) for r in table] == metrics.acceptance_lengths(trace)
    for row in table:
        assert int(row["accepted"]) + int(row["bonus"]) == int(row["acceptance_length"])
        assert int(row["drafted"]) == 15 and row["forwards"] == "2"
    said = "".join(r["emitted_text"].removeprefix("'") for r in table)
    assert len(said) == len("".join(trace.output.pieces[1:])) or said.endswith("<|im_end|>")


def test_figures_are_those_of_the_metrics():
    traces = race()
    for row, trace in zip(rows(metrics_csv(traces)), traces, strict=True):
        summary = metrics.summary(trace)
        assert row["mode"] == trace.request["mode"] and int(row["nfe"]) == summary["nfe"]
        assert float(row["tpf"]) == summary["tpf"]
        assert float(row["prefill_phase_seconds"]) == summary["time_by_phase"]["prefill"]
        assert row["request.block_length"] == str(trace.request.get("block_length") or "")


@pytest.mark.parametrize("table", TABLES)
def test_no_cell_is_a_formula(table: Any, hostile: Trace):
    spec = Maker(seed=1).linear_spec()
    told = replace(spec, vocabulary={key: "=cmd|' /C calc'!A0" for key in spec.vocabulary})
    text = table([hostile, told])
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert len({len(row) for row in read}) == 1
    for row in read[1:]:
        for cell in row:
            try:
                float(cell)
            except ValueError:
                assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")), cell
            assert "\0" not in cell


@pytest.mark.parametrize("table", TABLES)
def test_runs_without_shape_have_tables_too(table: Any):
    assert rows(table([noise(1), replace(noise(2), steps=[])])) is not None
