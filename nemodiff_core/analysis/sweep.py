"""A sweep: every setting of a grid on every prompt, each run a row and a saved trace, resumable at any point.

The folder holds `grid.json` (what is swept and on which model), `runs.csv` (a tidy table, one row a run),
`runs.parquet` where pyarrow is installed, and `traces/`. A row is a fold over its trace and the answer's mark.
"""

from __future__ import annotations

import csv
import importlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from nemodiff_core.analysis.grid import KNOBS, Grid, Prompt, file_prompts, make_grid, task_prompts
from nemodiff_core.analysis.pareto import Point, pareto
from nemodiff_core.analysis.tasks import grade
from nemodiff_core.checkpoint import load
from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError, TraceError
from nemodiff_core.files import replace_file, write_json
from nemodiff_core.metrics import summary
from nemodiff_core.placement import set_threads
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Trace

__all__ = [
    "COLUMNS", "Grid", "Point", "Prompt", "Row", "Source", "Sweep",
    "file_prompts", "make_grid", "pareto", "read_rows", "task_prompts",
]  # fmt: skip

Row = dict[str, Any]
GRID, RUNS, PARQUET, TRACES = "grid.json", "runs.csv", "runs.parquet", "traces"
_FIGURES = ("tokens", "nfe", "forwards", "tpf", "acceptance_length", "seconds", "tokens_per_second")
COLUMNS = ("setting", *KNOBS, "family", "prompt_id", "correct", *_FIGURES, "verifications", "stop_reason", "trace", "model")
_TEXT = frozenset(
    ("mode", "policy", "draft", "template", "verification", "family", "prompt_id", "stop_reason", "trace", "model")
)


@dataclass(frozen=True)
class Source:
    """Where a process finds the model; the fields are those of `checkpoint.load`."""

    model: str
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None

    def engine(self) -> Engine:
        """Load the checkpoint. Raises NemodiffError."""
        checkpoint = load(self.model, dtype=self.dtype, device=self.device, revision=self.revision)
        set_threads(checkpoint.model.parameter_count())
        return Engine(checkpoint)


@dataclass(frozen=True)
class _Task:
    """One run: the setting by its number, its prompt and the request they make."""

    setting: int
    prompt: Prompt
    request: DecodeRequest

    @property
    def trace(self) -> str:
        return f"{TRACES}/{self.setting:04d}-{self.prompt.id}.json.gz"


class Sweep:
    """A grid in its folder. `rows` are the finished runs, those of earlier calls included."""

    def __init__(self, grid: Grid, out: str | os.PathLike[str]) -> None:
        """Open the folder, or make it. Raises NemodiffError where it belongs to another grid."""
        self.grid, self.out = grid, Path(out)
        self._tasks = [
            _Task(setting, prompt, grid.request(setting, prompt))
            for setting in range(len(grid.settings))
            for prompt in grid.prompts
        ]
        pinned = self._pinned()
        if pinned is not None and {key: pinned.get(key) for key in grid.describe()} != grid.describe():
            raise NemodiffError(f"{self.out} holds a sweep of other settings or prompts; choose another folder.")
        self.rows = self._finished()

    @property
    def total(self) -> int:
        """How many runs the grid has."""
        return len(self._tasks)

    def run(self, model: Engine | Source, *, workers: int = 1, stop: threading.Event | None = None) -> Iterator[Row]:
        """Yield the missing rows as they finish; each is on disk before it is seen.

        Set `stop`, or close the iterator, to end it early: what runs in this process is dropped at its next step,
        what other processes have begun is finished first. More than one worker needs a Source, from which each
        loads its own model and computes with one thread. Rows are the same for any number of workers, but for
        order and times. Raises NemodiffError for another model than the folder's and for a run that fails.
        """
        if workers < 1:
            raise NemodiffError("the number of workers must be at least 1.")
        if workers > 1 and not isinstance(model, Source):
            raise NemodiffError("several workers each load the model; say where it is, or use one worker.")
        done = {(row["setting"], row["prompt_id"]) for row in self.rows}
        missing = [task for task in self._tasks if (task.setting, task.prompt.id) not in done]
        (self.out / TRACES).mkdir(parents=True, exist_ok=True)
        stop = stop or threading.Event()
        if workers == 1:
            rows = self._in_process(model.engine() if isinstance(model, Source) else model, missing, stop)
        else:
            rows = self._in_workers(model, missing, workers, stop)
        with closing(rows):
            for row in rows:
                self._append(row)
                yield row
        _write_parquet(self.rows, self.out / PARQUET)

    def _in_process(self, engine: Engine, tasks: list[_Task], stop: threading.Event) -> Iterator[Row]:
        self._begin(engine.identity())
        for task in tasks:
            row = None if stop.is_set() else _decode(engine, task, self.out, stop)
            if row is None:
                return
            yield row

    def _in_workers(self, source: Source, tasks: list[_Task], workers: int, stop: threading.Event) -> Iterator[Row]:
        # Not forked: a forked child inherits torch's threads and locks in whatever state they are.
        context = multiprocessing.get_context("spawn")
        waiting: set[Future[Row]] = set()
        queue = iter(tasks)
        try:
            with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker) as pool:
                self._begin(pool.submit(_identity_in_worker, source).result())
                while True:
                    # No more than what runs: whatever has been handed over is finished after a stop.
                    while len(waiting) < workers and not stop.is_set() and (task := next(queue, None)) is not None:
                        waiting.add(pool.submit(_decode_in_worker, source, task, self.out))
                    if not waiting:
                        return
                    finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in finished:
                        yield future.result()
        except BrokenProcessPool as error:
            raise NemodiffError(
                "a worker process was ended from outside, perhaps for want of memory; run the same again with fewer workers."
            ) from error

    def _pinned(self) -> dict[str, Any] | None:
        try:
            content = json.loads((self.out / GRID).read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise NemodiffError(f"{self.out / GRID} cannot be read; choose another folder.") from error
        return content if isinstance(content, dict) else {}

    def _begin(self, model: dict[str, Any]) -> None:
        """Tie the folder to grid and model, or hold them against what it is tied to; then clean the table."""
        pinned = self._pinned()
        if pinned is None:
            write_json(self.out / GRID, {**self.grid.describe(), "model": model})
        elif pinned.get("model") != json.loads(json.dumps(model)):
            raise NemodiffError(
                f"{self.out} holds a sweep of another model, weights, dtype or device than {model['id']}; choose another folder."
            )
        self._write_all()  # without the rows that are done again, and without a torn last line

    def _finished(self) -> list[Row]:
        """Rows of the table whose trace is sound and of this grid, made anew from the trace."""
        tasks = {(task.setting, task.prompt.id): task for task in self._tasks}
        found: dict[tuple[int, str], Row] = {}
        for stored in read_rows(self.out / RUNS):
            number, prompt_id = stored.get("setting"), stored.get("prompt_id")
            task = tasks.get((number, prompt_id)) if isinstance(number, int) else None
            if task is None or isinstance(stored.get("correct"), bool) != (task.prompt.example is not None):
                continue
            try:
                trace = Trace.load(self.out / task.trace)
            except TraceError:
                continue
            if trace.request == json.loads(task.request.model_dump_json()) and trace.stop_reason != "cancelled":
                found[task.setting, task.prompt.id] = _row(task, trace, stored["correct"])
        return list(found.values())

    def _write_all(self) -> None:
        def write(path: Path) -> None:
            with path.open("w", encoding="utf-8", newline="") as file:
                table = csv.writer(file)
                table.writerow(COLUMNS)
                table.writerows(map(_cells, self.rows))

        replace_file(self.out / RUNS, write)

    def _append(self, row: Row) -> None:
        with (self.out / RUNS).open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(_cells(row))
        self.rows.append(row)


def read_rows(path: Path) -> list[Row]:
    """The rows of a sweep's CSV, typed; what a torn or damaged file no longer holds is left out."""
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            for cells in csv.DictReader(file):
                if None not in cells and None not in cells.values():
                    rows.append({name: cell if name in _TEXT and cell else _value(cell) for name, cell in cells.items()})
    except FileNotFoundError:
        pass
    except csv.Error:  # nothing behind a damaged place can be trusted
        pass
    return rows


def _decode(engine: Engine, task: _Task, out: Path, stop: threading.Event | None = None) -> Row | None:
    """Run one task and save its trace; None where `stop` ended it. Raises NemodiffError."""
    try:
        run = engine.run(task.request, stop)
        for _ in run:
            pass
    except NemodiffError as error:
        raise NemodiffError(f"{task.prompt.id}: {error}") from error
    trace = run.trace()
    if trace.stop_reason == "cancelled":
        return None
    trace.save(out / task.trace)
    example = task.prompt.example
    correct = None if example is None else grade(example, engine.text(trace.output.ids)).correct
    return _row(task, trace, correct)


def _row(task: _Task, trace: Trace, correct: bool | None) -> Row:
    figures = summary(trace)
    knobs = json.loads(task.request.model_dump_json())
    row = {
        "setting": task.setting,
        **{name: knobs[name] for name in KNOBS},
        "family": task.prompt.family,
        "prompt_id": task.prompt.id,
        "correct": correct,
        **{name: figures[name] for name in _FIGURES},
        "verifications": len(figures["acceptance_lengths"]),
        "stop_reason": trace.stop_reason,
        "trace": task.trace,
        "model": trace.model["id"],
    }
    return {name: row[name] for name in COLUMNS}


# In a worker process: the model is loaded at the first task and kept.
@lru_cache(maxsize=1)
def _engine_of(source: Source) -> Engine:
    return source.engine()


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends the workers in order
    torch.set_num_threads(1)


def _identity_in_worker(source: Source) -> dict[str, Any]:
    return _engine_of(source).identity()


def _decode_in_worker(source: Source, task: _Task, out: Path) -> Row | None:
    return _decode(_engine_of(source), task, out)


def _cells(row: Mapping[str, Any]) -> list[Any]:
    """A row as CSV writes it: nothing for None, JSON for lists."""
    return [json.dumps(value) if isinstance(value, (list, dict)) else value for value in (row[name] for name in COLUMNS)]


def _value(cell: str) -> Any:
    if cell in ("", "True", "False"):
        return {"": None, "True": True, "False": False}[cell]
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def _write_parquet(rows: list[Row], path: Path) -> None:
    """The same table as Parquet, where pyarrow is installed."""
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        return
    table = arrow.Table.from_pylist([dict(zip(COLUMNS, _cells(row))) for row in rows])
    replace_file(path, lambda partial: parquet.write_table(table, partial))
