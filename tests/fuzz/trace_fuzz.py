"""Fuzzes the reading of uploaded traces, coverage-guided where atheris is installed:

    pip install atheris && python tests/fuzz/trace_fuzz.py -max_total_time=60

`TestOneInput` takes any bytes. The first one says whether the rest is a file as it is, or a recipe that damages a sound
trace; the file then goes the way of an upload. Anything but acceptance or a TraceError is a find.
"""

from __future__ import annotations

import copy
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from nemodiff_core.errors import TraceError  # noqa: E402
from nemodiff_core.metrics import summary  # noqa: E402
from nemodiff_core.trace import Trace, fold  # noqa: E402
from nemodiff_core.trace_reader import from_data, parse_json, unpack  # noqa: E402
from ui.messages import documents, write_traces  # noqa: E402
from ui.runs import RunRecord  # noqa: E402

SEEDS = sorted((ROOT / "ui" / "recorded").glob("*.json.gz"), key=lambda path: path.stat().st_size)[:4]
RAW, DAMAGED, PACKED, CUT = range(4)
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "0", "ar", "\0", "\u202eevil\u2066",
    "<img src=x onerror='window.hacked=1'>", "</script><script>alert(1)</script>", "\ud800", "a\u0300" * 300, "x" * 401, "{{x}}${y}", [], {}, [[]], {"": {}}, [0] * 17,
)  # fmt: skip


class Recipe:
    """Reads choices off bytes; zeros behind their end."""

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)
        self.left = len(data)

    def pick(self, count: int) -> int:
        """One of `count` choices."""
        self.left -= 2
        return (next(self._data, 0) * 256 + next(self._data, 0)) % max(1, count)


def damaged(document: Any, recipe: Recipe) -> Any:
    """The document with as many small damages as the recipe has room for, at most eight."""
    document = copy.deepcopy(document)
    for _ in range(8):
        if recipe.left <= 0:
            break
        places = list(_places(document, recipe))
        holder, key = places[recipe.pick(len(places))]
        what = recipe.pick(6)
        if what == 0:
            holder.pop(key)
        elif what == 1 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[recipe.pick(len(holder))]))
        elif what == 2:
            other, name = places[recipe.pick(len(places))]
            if name in other if isinstance(other, dict) else name < len(other):
                holder[key] = copy.deepcopy(other[name])
        elif what == 3 and isinstance(holder, dict):
            holder[str(HOSTILE[recipe.pick(len(HOSTILE))])] = holder.pop(key)
        elif what == 4 and type(holder[key]) is int:
            holder[key] += recipe.pick(5) - 2
        elif what == 5:
            for _ in range(recipe.pick(100)):
                holder[key] = [holder[key]]
        else:
            holder[key] = copy.deepcopy(HOSTILE[recipe.pick(len(HOSTILE))])
    return document


def _places(document: Any, recipe: Recipe) -> Iterator[tuple[Any, Any]]:
    """Places on one way down the document, every one a (holder, key)."""
    while isinstance(document, (dict, list)) and document:
        keys = list(document) if isinstance(document, dict) else range(len(document))
        key = keys[recipe.pick(len(keys))]
        yield document, key
        document = document[key]


def upload(content: bytes) -> Trace | None:
    """What becomes of an uploaded file; None where it was refused with a sentence."""
    try:
        trace = from_data(parse_json(unpack(content)))
    except TraceError as refusal:
        assert "\n" not in str(refusal) and len(str(refusal)) < 400, "a refusal is one short sentence"
        return None
    assert fold(len(trace.prompt.ids), trace.steps).output() == trace.output.ids
    text = trace.to_json()
    assert Trace.from_json(text).to_json() == text, "what was read can be saved and read again"
    summary(trace)
    record = RunRecord("fuzz", None)
    write_traces(record, [trace])
    assert len(documents(record)) == 1
    return trace


def sources() -> list[dict[str, Any]]:
    """Sound traces to begin with: single ones, and the lanes of races."""
    found: list[dict[str, Any]] = []
    for path in SEEDS:
        content = json.loads(gzip.decompress(path.read_bytes()))
        found += content.get("traces", [content])
    return found


_sound: list[dict[str, Any]] = []


def TestOneInput(data: bytes) -> Trace | None:  # noqa: N802  (the name that fuzzers look for)
    """One round."""
    if not _sound:
        _sound.extend(sources())
    kind, rest = (data[0] % 4, data[1:]) if data else (RAW, b"")
    if kind == RAW:
        return upload(rest)
    recipe = Recipe(rest)
    document = damaged(_sound[recipe.pick(len(_sound))], recipe)
    content = json.dumps(document).encode("utf-8")
    if kind == DAMAGED:
        return upload(content)
    packed = gzip.compress(content, 1, mtime=0)
    return upload(packed if kind == PACKED else packed[: recipe.pick(len(packed))])


def main() -> None:
    """Let atheris drive; its options are on the command line."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed; run pip install atheris, or the hypothesis tests beside this file.")
    atheris.instrument_all()
    atheris.Setup(sys.argv, TestOneInput)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
