"""The statistics file that SGLang's fork for this family writes: JSON lines, one a finished block (facts §4.7)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from nemodiff_core.errors import TraceError
from nemodiff_core.trace_reader import parse_json

MAX_BYTES = 2**20  # read of one run
MAX_BLOCKS = 4096
_FIELDS = ("forward_passes", "tokens", "acceptance_rate")


class StatisticsFile:
    """A file that another process appends to. What cannot be read says nothing: the figures are beside the point of a run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def end(self) -> int:
        """Where the file ends now, in bytes."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def since(self, start: int) -> list[dict[str, Any]]:
        """The blocks written behind byte `start`, those of other requests among them."""
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                written = file.read(MAX_BYTES)
        except OSError:
            return []
        whole = written[: written.rfind(b"\n") + 1]  # the last line may not be finished
        return [block for line in whole.splitlines()[:MAX_BLOCKS] if (block := _block(line))]


def _block(line: bytes) -> dict[str, Any]:
    try:
        told = parse_json(line)
    except TraceError:
        return {}
    if not isinstance(told, dict):
        return {}
    return {name: told[name] for name in _FIELDS if type(told.get(name)) in (int, float) and math.isfinite(told[name]) and 0 <= told[name] < 2**31}
