"""The Budget view without a browser: plans, results, the plane's figures and the roofline's."""

from __future__ import annotations

import csv
import io
import threading
from pathlib import Path
from typing import Any

import pytest

from nemodiff_core.analysis.devices import known_device
from nemodiff_core.analysis.grid import KNOBS
from nemodiff_core.analysis.pareto import wilson
from nemodiff_core.analysis.released import RELEASED
from nemodiff_core.analysis.roofline import Geometry
from nemodiff_core.analysis.tasks import FAMILIES
from nemodiff_core.errors import NemodiffError, RequestError
from nemodiff_core.request import DecodeRequest, Limits
from ui import plane, roofs, sweeps
from ui.budget import MOST_PROMPTS, plan_of
from ui.opening import FOLDER, SWEEP
from ui.runs import MAX_SWEEPS, RunStore
from ui.sweeps import Plan, Results

FAMILY = next(iter(FAMILIES))
PLAN = Plan((FAMILY,), 4, ("ar", "diffusion", "linear_spec"), thresholds=(0.9, 0.5))


def results(marks: dict[int, list[bool]], tokens: int = 40, plan: Plan = PLAN) -> Results:
    """Rows as core's sweep writes them: `marks` says by setting which prompts were answered exactly."""
    grid = plan.grid(Limits())
    rows = []
    for number, found in marks.items():
        knobs = grid.request(number, grid.prompts[0]).model_dump()
        for prompt, correct in zip(grid.prompts, found):
            nfe = tokens // (number + 1)
            rows.append({
                "setting": number, **{name: knobs[name] for name in KNOBS}, "family": prompt.family, "prompt_id": prompt.id,
                "correct": correct, "tokens": tokens, "nfe": nfe, "forwards": nfe, "tpf": tokens / nfe, "acceptance_length": None,
                "seconds": 1.0, "tokens_per_second": float(tokens), "verifications": 0, "stop_reason": "eos",
                "trace": f"traces/{number}-{prompt.id}", "model": "tiny",
            })  # fmt: skip
    return Results(grid, model={"id": "tiny", "dtype": "float32", "parameters": 1}, date="2026-01-01", rows=rows)


def test_a_plan_runs_every_setting_that_makes_a_difference_once():
    plan = Plan((FAMILY,), 2, ("ar", "linear_spec", "diffusion"), (0.9,), (2,), (0.0, 0.3), (8, 16))
    settings = plan.settings()
    assert len(settings) == 1 + 2 * (1 + 2 * 2)
    assert len({repr(setting) for setting in settings}) == len(settings)
    for setting in settings:
        DecodeRequest(prompt="-", **setting)
    assert plan.count() == 22


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (Plan((), 2, ("ar",)), "kind of task"),
        (Plan((FAMILY,), 2, ()), "at least one mode"),
        (Plan((FAMILY,), 2, ("diffusion",)), "at least one mode"),
        (Plan((FAMILY,), 11, ("ar",)), "11 runs, but this host allows 10"),
        (Plan((FAMILY,), 2, ("linear_spec",), block_lengths=(32,)), "at most 16"),
    ],
)
def test_what_cannot_run_is_refused_before_it_starts(plan: Plan, says: str):
    with pytest.raises(RequestError, match=says):
        plan.grid(Limits(max_sweep_runs=10, max_block_length=16))


@pytest.mark.parametrize("values", [(None,) * 8, ([FAMILY], "x", ["ar"], [], [], [0], [16], False), ([FAMILY], MOST_PROMPTS + 1, ["ar"], [], [], [0], [16], False), ()])
def test_values_that_no_form_sends_are_refused(values: tuple[Any, ...]):
    with pytest.raises(RequestError):
        plan_of(values)


def test_the_interval_holds_the_share_and_stays_a_share():
    assert wilson(0, 0) == (0.0, 1.0)
    for graded in (1, 7, 100):
        for correct in (0, graded // 2, graded):
            low, high = wilson(correct, graded)
            assert 0.0 <= low <= correct / graded <= high <= 1.0
    low, high = wilson(8, 10)  # the textbook's
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)


def test_a_setting_that_has_just_begun_is_never_on_the_front():
    found = results({0: [True, True, False, False], 2: [True]}).shown()
    assert [(s.key, s.whole, s.point.front) for s in found] == [("0", True, True), ("2", False, False)]


def test_both_measures_of_speed_have_a_figure_and_the_front_is_a_stair():
    swept = results({0: [True] * 4, 1: [True, True, True, False], 2: [True, True, False, False]})
    drawn = plane.plane(swept)
    assert [figure["name"] for figure in drawn["figures"]] == ["Tokens per forward", "Tokens per second"]
    figure = drawn["figures"][0]
    points = {key: (x, y) for t in figure["data"] for key, x, y in zip(t.get("customdata", ()), t["x"], t["y"])}
    assert points.keys() == {"0", "1", "2"} and points["1"] == (2.0, 75.0)
    front = next(t for t in figure["data"] if t["name"] == "Pareto front")
    assert front["x"] == [0.0, 1.0, 2.0, pytest.approx(40 / 13), pytest.approx(40 / 13)]
    assert any(note["text"] == "AR" for note in figure["layout"]["annotations"])
    assert "95" not in plane.plane(results({}))["summary"]  # nothing has run: nothing is claimed


def test_the_table_says_what_the_chart_says():
    swept = results({0: [True] * 4, 1: [True, True, True, False]})
    table = plane.settings_table(swept, "/x.csv")["table"]
    assert [row["key"] for row in table["rows"]] == ["0", "1"]
    assert table["rows"][1]["cells"][:4] == ["Self-speculation, block 16", "75 %", "30–95 %", "2.00"]
    assert all(len(row["cells"]) == len(row["order"]) == len(table["columns"]) for row in table["rows"])
    runs = plane.runs_table(swept, "1")["table"]["rows"]
    assert [row["cells"][1] for row in runs] == ["✓ yes"] * 3 + ["✗ no"]
    assert plane.runs_table(swept, "nope")["table"]["rows"] == []


def test_the_rows_go_out_as_csv():
    swept = results({0: [True, False, True, True]})
    rows = list(csv.DictReader(io.StringIO(swept.table())))
    assert [row["correct"] for row in rows] == ["True", "False", "True", "True"]
    assert rows[0]["mode"] == "ar" and rows[0]["prompt_id"] == swept.grid.prompts[0].id


def test_only_runs_of_the_sweep_can_be_opened():
    with pytest.raises(NemodiffError, match="no such run"):
        results({0: [True]}).trace("../../etc/passwd")


def test_opening_runs_does_not_push_out_the_sweep_and_stop_reaches_it():
    store = RunStore(max_per_owner=2)
    swept = store.create("me", sweep=results({}))
    for _ in range(4):
        store.create("me")
    assert store.get(swept.id) is swept and not swept.stop.is_set()
    store.stop("me")
    assert swept.stop.is_set()
    for _ in range(MAX_SWEEPS):
        store.create("me", sweep=results({}))
    with pytest.raises(NemodiffError):
        store.get(swept.id)


def test_the_recorded_sweep_is_whole_and_its_runs_open():
    swept = sweeps.read(FOLDER / SWEEP)
    assert len(swept.rows) == swept.total and (FOLDER / SWEEP).stat().st_size < 1_000_000
    assert swept.hardware and swept.date
    kept = [row["trace"] for row in (*swept.rows, *swept.limit) if row["trace"]]
    assert {row["setting"] for row in swept.rows if row["trace"]} == set(range(len(swept.grid.settings)))
    trace = swept.trace(kept[0])
    assert trace.stop_reason in ("eos", "length")
    assert sweeps.estimate(PLAN, [swept]) > 0


def test_a_sweep_runs_stops_and_keeps_what_it_has(tiny_engine: Any):
    stop = threading.Event()
    swept = Results(Plan((FAMILY,), 1, ("ar", "linear_spec"), block_lengths=(4,)).grid(Limits()), oracle=True)
    for _ in swept.run(tiny_engine, stop):
        stop.set()
    assert len(swept.rows) == 1 and not swept.limit
    assert swept.trace(swept.rows[0]["trace"]).request["mode"] == "ar"
    assert not tiny_engine._device.locked()


def test_the_oracle_gives_the_device_away_and_back(tiny_engine: Any):
    swept = Results(Plan((FAMILY,), 1, ("linear_spec",), block_lengths=(4,)).grid(Limits(max_new_tokens=12)), oracle=True)
    for _ in swept.run(tiny_engine, threading.Event()):
        pass
    assert [row["setting"] for row in swept.limit] == [sweeps.LIMIT]
    assert swept.speed_of_light().point.tpf == pytest.approx(swept.limit[0]["tpf"])
    assert not tiny_engine._device.locked()


def question(**change: Any) -> roofs.Question:
    device, model = known_device("h200"), RELEASED["Nemotron-Labs-Diffusion-8B"]
    asked = {"device": device, "geometry": Geometry.of(model), "block_length": 32, "streams": 1, "tpf": 3.4, "context": 1024}
    return roofs.Question(**{**asked, **change})


def test_released_geometries_are_those_of_the_fact_sheet():
    sizes = [round(Geometry.of(config).parameters / 1e9, 2) for config in RELEASED.values()]
    assert sizes == [3.83, 8.49, 13.51]


def test_speculation_stops_paying_where_the_curves_cross():
    ask = question()
    stop = ask.pays_until("linear_spec")
    assert ask.predicted("linear_spec", stop - 1) > ask.predicted("ar", stop - 1)
    assert ask.predicted("linear_spec", stop) <= ask.predicted("ar", stop)
    drawn = roofs.panel(ask)
    assert any(str(stop) in note["text"] for note in drawn["figures"][0]["layout"]["annotations"])


def test_the_same_acceptance_gives_quadratic_twice_the_tokens_a_forward():
    assert question().rate("quadratic_spec") == pytest.approx(6.8)
    assert question(tpf=16.0, block_length=16).rate("quadratic_spec") == 16
    assert question().rate("ar") == 1.0


def test_measured_points_stand_at_one_stream():
    swept = results({0: [True] * 4, 1: [True] * 4})
    drawn = roofs.panel(question(), swept)["figures"][0]["data"]
    measured = [t for t in drawn if t["name"].endswith("measured")]
    assert {tuple(t["x"]) for t in measured} == {(1,)} and len(measured) == 2


def test_a_device_without_a_figure_for_the_dtype_is_asked_in_another():
    assert roofs.fitting(question().geometry, known_device("t4")).dtype == "float16"
