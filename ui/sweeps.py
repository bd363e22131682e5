"""A sweep as the page has it: what is asked for, what has run so far, and the recorded one that the page opens on."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

from nemodiff_core.analysis.grid import KNOBS, Grid, Prompt, Setting, task_prompts
from nemodiff_core.analysis.pareto import Point, pareto, wilson
from nemodiff_core.analysis.tasks import FAMILIES, grade
from nemodiff_core.errors import NemodiffError, RequestError, TraceError
from nemodiff_core.metrics import summary
from nemodiff_core.request import Limits
from nemodiff_core.trace import Trace
from nemodiff_core.trace_reader import from_data, parse_json, read_text

SCHEMA = "nemodiff.recorded-sweep/1"
SEED = 0  # of the prompts: those that `nemodiff eval` and `nemodiff sweep` take
LIMIT = "limit"  # the key of the oracle's point, beside the settings' numbers
LIMIT_BUDGET = 100  # forwards of the search, a block
REVISE_ROUNDS = 8
MAX_NEW_TOKENS = 256

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a sweep is to run, as the form asks for it."""

    families: tuple[str, ...]
    per_family: int
    modes: tuple[str, ...]
    thresholds: tuple[float, ...] = ()
    steps: tuple[int, ...] = ()
    revisions: tuple[float, ...] = (0.0,)  # bounds; 0: without
    block_lengths: tuple[int, ...] = (16,)
    limit: bool = False  # also the oracle's

    def settings(self, max_new_tokens: int = MAX_NEW_TOKENS) -> tuple[Setting, ...]:
        """Every combination that makes a difference, in the order in which they run."""
        found: list[Setting] = [{"mode": "ar"}] if "ar" in self.modes else []
        for size in self.block_lengths:
            found += ({"mode": mode, "block_length": size} for mode in ("linear_spec", "quadratic_spec") if mode in self.modes)
            if "diffusion" in self.modes:
                rules = [{"threshold": t} for t in self.thresholds] + [{"steps": n} for n in self.steps]
                for rule in rules:
                    for bound in self.revisions:
                        revised = {"revise_rounds": REVISE_ROUNDS, "revise_bound": bound} if bound else {}
                        found.append({"mode": "diffusion", "block_length": size, **rule, **revised})
        return tuple({**setting, "max_new_tokens": max_new_tokens} for setting in found)

    def count(self) -> int:
        """Runs, without the oracle's."""
        return len(self.settings()) * len(self.families) * self.per_family

    def grid(self, limits: Limits) -> Grid:
        """The grid of core's sweep. Raises RequestError where there is nothing to run, or more than the host allows."""
        settings = self.settings(min(MAX_NEW_TOKENS, limits.max_new_tokens))
        if not self.families or self.per_family < 1:
            raise RequestError("Choose at least one kind of task.")
        if not settings:
            raise RequestError("Choose at least one mode; block diffusion also needs a threshold or a number of steps.")
        if self.count() > limits.max_sweep_runs:
            raise RequestError(f"These are {self.count()} runs, but this host allows {limits.max_sweep_runs} in a sweep; choose less.")
        grid = Grid(settings, prompts_of(self.families, self.per_family), len(settings))
        for number in range(len(settings)):
            grid.request(number, grid.prompts[0]).check(limits)
        return grid


@lru_cache(maxsize=32)
def prompts_of(families: tuple[str, ...], per_family: int) -> tuple[Prompt, ...]:
    """The held-out prompts of a sweep."""
    return tuple(task_prompts(per_family, SEED, families))


@dataclass(frozen=True)
class Shown:
    """One setting as it is shown: its point, the interval of its accuracy, and whether all its prompts have run."""

    key: str
    setting: Setting
    point: Point
    low: float
    high: float
    whole: bool


@dataclass
class Results:
    """A sweep and what there is of it: rows as in core's sweep, a row a run, and traces that can be opened."""

    grid: Grid
    oracle: bool = False
    model: dict[str, Any] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    rows: list[Row] = field(default_factory=list)
    limit: list[Row] = field(default_factory=list)  # the oracle's
    traces: Mapping[str, Any] | None = None  # of a recorded sweep, by name; else they lie in `folder`
    folder: Any = None

    @property
    def total(self) -> int:
        return len(self.grid.settings) * len(self.grid.prompts)

    def run(self, engine: Any, stop: threading.Event) -> Iterator[None]:
        """Run what was asked for; each row is there when this yields. Raises NemodiffError.

        Every run takes the device's turn for itself, so that others wait for one run and not for the sweep.
        """
        # torch belongs to decoding, not to opening the page.
        from nemodiff_core.analysis.sweep import Sweep

        for number in range(len(self.grid.settings)):  # refused now, and not after minutes
            engine.run(self.grid.request(number, self.grid.prompts[0]))
        self.model, self.hardware = engine.describe(), engine.environment()["hardware"]
        self.date = datetime.now(UTC).date().isoformat()
        self.folder = tempfile.TemporaryDirectory(prefix="nemodiff-sweep-")
        for row in Sweep(self.grid, self.folder.name).run(engine, stop=stop):
            self.rows.append(row)
            yield
        if self.oracle and not stop.is_set():
            for row in _limit(engine, self.grid, Path(self.folder.name), stop):
                self.limit.append(row)
                yield

    def trace(self, name: str) -> Trace:
        """The trace of a row. Raises NemodiffError."""
        if not any(row["trace"] == name for row in (*self.rows, *self.limit)):
            raise NemodiffError("There is no such run in this sweep; choose another.")
        return from_data(self.traces[name]) if self.traces is not None else Trace.load(Path(self.folder.name) / name)

    def shown(self, by: str = "tpf") -> list[Shown]:
        """The settings that have rows, in their order. The front is that of `by` and accuracy.

        A setting with only some of its prompts done is never on it: a few easy prompts would put it there.
        """
        grouped: dict[int, list[Row]] = {}
        for row in list(self.rows):
            grouped.setdefault(row["setting"], []).append(row)
        done = {n for n, rows in grouped.items() if len(rows) == len(self.grid.prompts)}
        points = dict(zip(sorted(done), pareto([row for n in sorted(done) for row in grouped[n]], (by, "correct"))))
        points |= {n: replace(pareto(grouped[n])[0], front=False) for n in grouped if n not in done}
        return [_shown(str(n), self.grid.settings[n], points[n], n in done) for n in sorted(grouped)]

    def speed_of_light(self) -> Shown | None:
        """The oracle's point, over the few prompts it was asked about."""
        if not self.limit:
            return None
        point = replace(pareto(self.limit)[0], front=False)
        return _shown(LIMIT, {"mode": "diffusion", "block_length": self.limit[0]["block_length"]}, point, True)

    def runs(self, key: str) -> list[tuple[Row, Prompt]]:
        """The rows of a setting, or the oracle's, each with its prompt."""
        prompts = {prompt.id: prompt for prompt in self.grid.prompts}
        rows = self.limit if key == LIMIT else [row for row in self.rows if str(row["setting"]) == key]
        return [(row, prompts[row["prompt_id"]]) for row in list(rows)]

    def seconds_per_run(self) -> dict[str, float]:
        """Mean duration of a run by mode."""
        modes: dict[str, list[float]] = {}
        for row in self.rows:
            modes.setdefault(row["mode"], []).append(row["seconds"])
        return {mode: fmean(found) for mode, found in modes.items()}

    def table(self) -> str:
        """The rows as CSV, columns as in core's sweep."""
        out = io.StringIO()
        rows = list(self.rows)
        table = csv.DictWriter(out, list(rows[0]) if rows else ["setting"])
        table.writeheader()
        for row in rows:
            table.writerow({name: json.dumps(cell) if isinstance(cell, (list, dict, tuple)) else cell for name, cell in row.items()})
        return out.getvalue()


def _shown(key: str, setting: Setting, point: Point, whole: bool) -> Shown:
    low, high = wilson(round((point.accuracy or 0.0) * point.graded), point.graded)
    return Shown(key, setting, point, low, high, whole)


def _limit(engine: Any, grid: Grid, folder: Path, stop: threading.Event) -> Iterator[Row]:
    """The oracle's schedules for the prompts, as far as `stop` lets it come."""
    from nemodiff_core.analysis.oracle import one_at_a_time

    size = max(setting.get("block_length", 2) for setting in grid.settings)
    for prompt in grid.prompts:
        request = one_at_a_time(grid.request(0, prompt).model_copy(update={"block_length": size}))
        run = engine.run(request, stop)
        for _ in run:
            pass
        reference = run.trace()
        if reference.stop_reason not in ("eos", "length"):
            return
        trace = engine.oracle(reference, LIMIT_BUDGET, stop)
        name = f"traces/oracle-{prompt.id}.json.gz"
        trace.save(folder / name)
        yield _limit_row(trace, prompt, grade(prompt.example, engine.text(trace.output.ids)).correct, name)


def _limit_row(trace: Trace, prompt: Prompt, correct: bool, name: str) -> Row:
    figures = summary(trace)
    kept = ("tokens", "nfe", "forwards", "tpf", "acceptance_length", "seconds", "tokens_per_second")
    return {
        "setting": LIMIT,
        **{knob: trace.request[knob] for knob in KNOBS},
        "family": prompt.family,
        "prompt_id": prompt.id,
        "correct": correct,
        **{figure: figures[figure] for figure in kept},
        "verifications": 0,
        "stop_reason": trace.stop_reason,
        "trace": name,
        "model": trace.model["id"],
    }


# -- the recorded sweep -------------------------------------------------------------------------------

RECORDED = Plan(
    families=tuple(FAMILIES),
    per_family=8,
    modes=("ar", "diffusion", "linear_spec", "quadratic_spec"),
    thresholds=(0.99, 0.9, 0.7, 0.5),
    steps=(4, 2, 1),
    revisions=(0.0, 0.3),
    limit=True,
)
KEPT_TRACES = 2  # a family and setting


def record(engine: Any, path: Path, plan: Plan = RECORDED) -> None:
    """Run the sweep that the page opens on, and write it as one file: all rows, and the traces of a few prompts."""
    limits = Limits(max_sweep_runs=plan.count() or 1)
    results = Results(plan.grid(limits), plan.limit)
    for _ in results.run(engine, threading.Event()):
        pass
    kept = {prompt.id for prompt in plan.grid(limits).prompts if int(prompt.id.rpartition("-")[2]) < KEPT_TRACES}
    rows = [*results.rows, *results.limit]
    traces = {row["trace"]: results.trace(row["trace"]).to_dict() for row in rows if row["prompt_id"] in kept}
    for row in rows:
        row["trace"] = row["trace"] if row["trace"] in traces else None
    columns = list(results.rows[0])
    content = {
        "schema": SCHEMA,
        "model": results.model,
        "hardware": results.hardware,
        "date": results.date,
        "plan": {name: getattr(plan, name) for name in plan.__dataclass_fields__},
        "columns": columns,
        "rows": [[row[name] for name in columns] for row in results.rows],
        "limit": [[row[name] for name in columns] for row in results.limit],
        "traces": traces,
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def read(path: Path) -> Results:
    """A recorded sweep. Raises TraceError where the file is not one."""
    content = parse_json(read_text(path))
    if not (isinstance(content, dict) and content.get("schema") == SCHEMA):
        raise TraceError(f"{path.name} is no recorded sweep; make it again with nemodiff record.")
    asked = {name: tuple(value) if isinstance(value, list) else value for name, value in content["plan"].items()}
    plan = Plan(**asked)
    columns = content["columns"]
    return Results(
        plan.grid(Limits(max_sweep_runs=plan.count())),
        plan.limit,
        content["model"],
        content["hardware"],
        content["date"],
        [dict(zip(columns, row)) for row in content["rows"]],
        [dict(zip(columns, row)) for row in content["limit"]],
        content["traces"],
    )


def machine(hardware: Mapping[str, Any]) -> str:
    """Hardware in a few words."""
    if not hardware:
        return ""
    threads = hardware.get("threads", 1)
    return hardware.get("gpu") or f"{hardware.get('processor', 'CPU')}, {threads} {'thread' if threads == 1 else 'threads'}"


def estimate(plan: Plan, known: Sequence[Results]) -> float | None:
    """Seconds that a plan will take, the oracle left out; from the last sweep that knows all of its modes."""
    for results in known:
        times = results.seconds_per_run()
        if times and all(setting["mode"] in times for setting in plan.settings()):
            prompts = len(plan.families) * plan.per_family
            return sum(times[setting["mode"]] for setting in plan.settings()) * prompts
    return None
