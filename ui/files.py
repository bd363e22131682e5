"""Runs as files: a single run is its trace, a race is its three traces together."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nemodiff_core.errors import NemodiffError, TraceError
from nemodiff_core.trace import Trace
from nemodiff_core.trace_reader import MAX_FILE_BYTES, from_data, parse_json, read_text

from ui.messages import compact, documents, traces_of
from ui.runs import RunRecord

RACE_SCHEMA = "nemodiff.race/1"
__all__ = ["MAX_FILE_BYTES", "RACE_SCHEMA", "file_name", "pack", "read", "unpack", "uploaded", "write"]


def pack(record: RunRecord) -> bytes:
    """The finished lanes of a run as a .json.gz. Raises NemodiffError when there is none yet."""
    finished = _some(documents(record))
    content: Any = finished[0] if record.lanes == 1 else {"schema": RACE_SCHEMA, "traces": finished}
    return gzip.compress(compact(content).encode(), mtime=0)


def unpack(record: RunRecord) -> list[Trace]:
    """The finished lanes of a run as traces. Raises NemodiffError when there is none yet."""
    return _some(traces_of(record))


def file_name(record: RunRecord) -> str:
    """A name that says what is inside, and nothing that could be guessed from outside."""
    kind = "race" if record.lanes > 1 else "trace"
    return f"nemodiff-{kind}-{zlib.crc32(record.id.encode()):08x}.json.gz"


def read(path: str | Path) -> list[Trace]:
    """The traces of a saved run or race. Raises TraceError with one sentence that says what is wrong."""
    content = parse_json(read_text(Path(path)))
    if not (isinstance(content, dict) and content.get("schema") == RACE_SCHEMA):
        return [from_data(content)]
    parts = content.get("traces")
    if not (isinstance(parts, list) and 2 <= len(parts) <= 4):
        raise TraceError("the file calls itself a race but does not hold two to four traces; save the race again.")
    return [from_data(part) for part in parts]


@contextlib.contextmanager
def uploaded(path: Any) -> Iterator[Path]:
    """A visitor's file as long as somebody looks at it; then it is deleted. Raises TraceError where there is none."""
    if not isinstance(path, str) or not path:
        raise TraceError("No file has come; choose one and open it again.")
    try:
        yield Path(path)
    finally:
        Path(path).unlink(missing_ok=True)


def write(traces: Sequence[Trace], path: Path) -> None:
    """Save traces as one file: one is a trace, several are a race."""
    parts = [trace.to_dict() for trace in traces]
    content: Any = parts[0] if len(parts) == 1 else {"schema": RACE_SCHEMA, "traces": parts}
    data = compact(content).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _some(finished: list[Any]) -> list[Any]:
    if not finished:
        raise NemodiffError("There is nothing to save yet: let the run finish, or stop it first.")
    return finished
