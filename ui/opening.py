"""The recorded runs that the page opens on, before any model is there, and how they are recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemodiff_core.errors import TraceError
from nemodiff_core.trace import Trace

from ui import files, race, speculate, sweeps
from ui.controls import GENERAL, general_fields
from ui.lessons.library import FOLDER, NAME
from ui.loader import warm_up
from ui.messages import write_traces
from ui.mode_form import DEFAULTS
from ui.refine import request
from ui.runs import RunRecord, RunStore

NAMES = {"Refine": "refine", "Race": "race", "Speculate": "speculate"}  # view -> file
SWEEP = "sweep.gz"  # of the Budget view; no trace, so not named like one
PREFIX = "recorded-"  # of the ids under which everybody finds these runs
# Short enough to watch to its end, long enough for four blocks; the test split keeps it out of training.
PROMPT = "What is 859 + 344?"


def load(store: RunStore) -> dict[str, RunRecord]:
    """Put the runs that views open on into the store, and let it fetch the others when they are asked for: view -> record."""
    store.elsewhere = fetch
    records = {view: record for view, name in NAMES.items() if (record := fetch(PREFIX + name)) is not None}
    for record in records.values():
        store.keep(record)
    return records


def fetch(run_id: str) -> RunRecord | None:
    """The recorded run with this id; None where there is no such file, or it is damaged."""
    name = run_id.removeprefix(PREFIX)
    path = FOLDER / f"{name}.json.gz"
    if not (run_id.startswith(PREFIX) and NAME.fullmatch(name) and path.is_file()):
        return None
    try:
        traces = files.read(path)
    except TraceError:
        return None
    record = RunRecord(run_id, None, len(traces))
    write_traces(record, traces)
    return record


def prompt(records: dict[str, RunRecord]) -> str:
    """The prompt of the recorded run, so that Run repeats what the page has just shown."""
    if "Refine" not in records:
        return PROMPT
    return json.loads(records["Refine"].log[0])["head"]["request"]["prompt"]


def record(engine: Any, prompt_text: str | None = None, folder: Path = FOLDER) -> Iterator[Path]:
    """Decode the opening prompt again, as each view does by itself, run the sweep again, and write the files."""
    general = general_fields(prompt_text or PROMPT, list(GENERAL.values()))
    folder.mkdir(parents=True, exist_ok=True)
    warm_up(engine)
    opened = {"Refine": [request(general, DEFAULTS)], "Race": race.requests(general), "Speculate": speculate.requests(general)}
    for view, requests in opened.items():
        path = folder / f"{NAMES[view]}.json.gz"
        files.write([decode(engine, request) for request in requests], path)
        yield path
    sweeps.record(engine, folder / SWEEP)
    yield folder / SWEEP


def decode(engine: Any, request: Any) -> Trace:
    """A request run to its end."""
    run = engine.run(request)
    try:
        for _ in run:
            pass
        return run.trace()
    finally:
        run.close()
