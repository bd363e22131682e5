"""The recorded runs that the page opens on, before any model is there, and how they are recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemodiff_core.trace import Trace

from ui import files, race, refine
from ui.controls import RACE, REFINE
from ui.loader import warm_up
from ui.messages import write_traces
from ui.runs import RunRecord, RunStore

FOLDER = Path(__file__).parent / "recorded"
NAMES = {REFINE: "refine", RACE: "race"}
# Short enough to watch to its end, long enough for four blocks; the test split keeps it out of training.
PROMPT = "What is 859 + 344?"
_KNOBS = {
    "mode": "diffusion", "block_length": 16, "rule": "threshold", "threshold": 0.9, "draft": "one", "temperature": 0.0,
    "max_new_tokens": 128, "stop_at_eos": True, "candidates": 5,
}  # fmt: skip


def load(store: RunStore) -> dict[str, RunRecord]:
    """Put the recorded runs into the store, where every visitor can see them: view -> record."""
    records = {}
    for view, name in NAMES.items():
        path = FOLDER / f"{name}.json.gz"
        if path.is_file():
            records[view] = store.create(None, lanes=1 if view == REFINE else len(race.LANES), run_id=f"recorded-{name}")
            write_traces(records[view], files.read(path))
    return records


def prompt(records: dict[str, RunRecord]) -> str:
    """The prompt of the recorded run, so that Run repeats what the page has just shown."""
    if REFINE not in records:
        return PROMPT
    return json.loads(records[REFINE].log[0])["head"]["request"]["prompt"]


def record(engine: Any, prompt_text: str | None = None, folder: Path = FOLDER) -> Iterator[Path]:
    """Decode the opening prompt again, in one mode and as a race, and write both files."""
    values = {**_KNOBS, "prompt": prompt_text or PROMPT}
    folder.mkdir(parents=True, exist_ok=True)
    warm_up(engine)
    for view, requests in ((REFINE, refine.requests(values)), (RACE, race.requests(values))):
        path = folder / f"{NAMES[view]}.json.gz"
        files.write([_trace(engine, request) for request in requests], path)
        yield path


def _trace(engine: Any, request: Any) -> Trace:
    run = engine.run(request)
    try:
        for _ in run:
            pass
        return run.trace()
    finally:
        run.close()
