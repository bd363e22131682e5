"""The recorded run: steps, their events, and the fold that turns them back into text (DESIGN §4).

`Canvas` is the one definition of what a sequence of steps means; the browser's `ui/player/fold.js` repeats it
and a test holds the two together.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = "nemodiff.trace/2"
READABLE = ("nemodiff.trace/1", SCHEMA)  # version 1 had neither scores, nor annotations, nor forced commits
PHASES = ("prefill", "ar", "denoise", "commit", "draft", "verify", "revise", "chunk")
REMOTE = "remote"  # the mode of a server's answer: its steps are chunks of a stream, not forwards (serving/remote.py)
KINDS = ("seed", "commit", "remask", "draft", "accept", "reject", "bonus", "pin")
STOP_REASONS = ("eos", "length", "cancelled", "deadline", "error")
# The status a cell takes from an event of each kind, and the statuses that are part of the text.
STATUS = {
    "seed": "seed",
    "commit": "committed",
    "draft": "draft",
    "accept": "accepted",
    "reject": "rejected",
    "bonus": "bonus",
    "pin": "pinned",
    "remask": "masked",
}
EMITTED = frozenset(("seed", "committed", "accepted", "bonus", "pinned"))
OPENING = frozenset(("denoise", "draft", "revise"))  # phases that open their span for filling


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """Something that happened to one position. Confidence is a probability, entropy is in nats."""

    position: int
    token: int
    kind: str
    confidence: float | None = None
    entropy: float | None = None
    forced: bool = False  # committed because the budget of forwards ended, not because the policy chose it

    def to_dict(self) -> dict[str, Any]:
        plain = {
            "position": self.position,
            "token": self.token,
            "kind": self.kind,
            "confidence": _short(self.confidence),
            "entropy": _short(self.entropy),
        }
        return plain | {"forced": True} if self.forced else plain


@dataclass(frozen=True, slots=True)
class Score:
    """What a causal pass thought of the token that stands at a position, given only what is before it."""

    position: int
    token: int
    probability: float
    rank: int  # 0 = the causal pass would have chosen it itself

    def to_dict(self) -> dict[str, Any]:
        return {"position": self.position, "token": self.token, "probability": _short(self.probability), "rank": self.rank}


@dataclass(frozen=True, slots=True)
class Candidates:
    """The most probable tokens of one position, as one forward saw it; best first."""

    position: int
    ids: tuple[int, ...]
    probabilities: tuple[float, ...]
    entropy: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "ids": list(self.ids),
            "probabilities": [_short(p) for p in self.probabilities],
            "entropy": _short(self.entropy),
        }


@dataclass(frozen=True, slots=True)
class Step:
    """One model forward. `elapsed_ns` counts from the start of the run to the end of this forward."""

    index: int
    phase: str
    span: tuple[int, int]  # [start, end) of the positions that went through the model
    block: int
    elapsed_ns: int
    events: tuple[TokenEvent, ...] = ()
    candidates: tuple[Candidates, ...] = ()
    scores: tuple[Score, ...] = ()  # of the causal pass that judged this block, where revision asked for them

    def to_dict(self) -> dict[str, Any]:
        plain = {
            "index": self.index,
            "phase": self.phase,
            "span": list(self.span),
            "block": self.block,
            "elapsed_ns": self.elapsed_ns,
            "events": [event.to_dict() for event in self.events],
            "candidates": [cell.to_dict() for cell in self.candidates],
        }
        return plain | {"scores": [score.to_dict() for score in self.scores]} if self.scores else plain


@dataclass(slots=True)
class Cell:
    """One position as it stands: `replaced` is a refused draft that a bonus token took the place of."""

    status: str
    token: int | None = None
    confidence: float | None = None
    entropy: float | None = None
    step: int = -1
    replaced: int | None = None


class Canvas:
    """The fold over steps: what stands at every position behind the prompt."""

    def __init__(self, prompt_length: int) -> None:
        self.prompt_length = prompt_length
        self.cells: dict[int, Cell] = {}
        self._rejected: set[int] = set()

    def apply(self, step: Step) -> None:
        """Advance by one step."""
        cells, rejected = self.cells, self._rejected
        if step.phase in OPENING:
            # Refused cells stay visible only until the next forward that fills a block.
            for position in list(rejected):
                if not step.span[0] <= position < step.span[1]:
                    del cells[position]
            for position in range(*step.span):
                if position not in cells or position in rejected:
                    cells[position] = Cell("masked", step=step.index)
            rejected.clear()
        for event in step.events:
            old, status = cells.get(event.position), STATUS[event.kind]
            replaced = None
            if status == "bonus" and old and old.status in ("draft", "rejected") and old.token != event.token:
                replaced = old.token
            token = None if status == "masked" else event.token
            cells[event.position] = Cell(status, token, event.confidence, event.entropy, step.index, replaced)
            if status == "rejected":
                rejected.add(event.position)
            else:
                rejected.discard(event.position)

    def output(self) -> list[int]:
        """Ids of the text so far: the unbroken run of emitted cells behind the prompt."""
        ids: list[int] = []
        while (cell := self.cells.get(self.prompt_length + len(ids))) is not None and cell.status in EMITTED:
            ids.append(cell.token)
        return ids


def fold(prompt_length: int, steps: Iterable[Step]) -> Canvas:
    """The canvas after `steps`."""
    canvas = Canvas(prompt_length)
    for step in steps:
        canvas.apply(step)
    return canvas


def annotated(notes: Iterable[Mapping[str, Any]]) -> set[int]:
    """The token ids that annotations mention (analysis/)."""
    named = (note.get(key) for note in notes for key in ("token", "alternative", "best"))
    return {token for token in named if type(token) is int}


@dataclass(frozen=True)
class TokenText:
    """Token ids (authoritative) with their display pieces."""

    ids: list[int]
    pieces: list[str]


@dataclass(frozen=True)
class Trace:
    """A whole run, reproducible and replayable without a model."""

    id: str
    created: str  # UTC, ISO 8601
    model: dict[str, Any]  # id, revision, parameters, dtype, device
    request: dict[str, Any]  # every knob of the DecodeRequest
    prompt: TokenText
    output: TokenText
    vocabulary: dict[str, str]  # decimal id -> display piece, for every id the trace mentions
    steps: list[Step]
    stop_reason: str
    parent: dict[str, Any] | None = None
    environment: dict[str, Any] = field(default_factory=dict)  # versions, hardware, `batch` where runs shared forwards, `restarts` of processes that were lost
    annotations: list[dict[str, Any]] = field(default_factory=list)  # what analyses found out: see analysis/
    schema: str = SCHEMA

    def canvas_at(self, step: int) -> Canvas:
        """The canvas after step `step`; -1 is the moment before the first."""
        if not -1 <= step < len(self.steps):
            raise IndexError(f"there is no step {step} in a trace of {len(self.steps)}")
        return fold(len(self.prompt.ids), self.steps[: step + 1])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, keys as in DESIGN §4."""
        return {
            "schema": self.schema,
            "id": self.id,
            "created": self.created,
            "model": self.model,
            "request": self.request,
            "prompt": asdict(self.prompt),
            "output": asdict(self.output),
            "vocabulary": self.vocabulary,
            "steps": [step.to_dict() for step in self.steps],
            "stop_reason": self.stop_reason,
            "parent": self.parent,
            "environment": self.environment,
            "annotations": self.annotations,
        }

    def to_json(self) -> str:
        """Compact JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Trace:
        """Read and validate a trace. Raises TraceError with one sentence that names what is wrong."""
        from nemodiff_core.trace_reader import parse

        return parse(text)

    def save(self, path: str | Path) -> None:
        """Write JSON, gzipped when the name ends in .gz; a file that is already there stays whole until then."""
        path = Path(path)
        data = self.to_json().encode()
        if path.suffix == ".gz":
            data = gzip.compress(data, mtime=0)
        partial = path.with_name(path.name + ".partial")
        try:
            partial.write_bytes(data)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)  # what a full disk took

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a saved trace, gzipped or not. Raises TraceError."""
        from nemodiff_core.trace_reader import read_text

        return cls.from_json(read_text(Path(path)))


def _short(value: float | None) -> float | None:
    # Five decimals are finer than any eye or chart, and half the file.
    return None if value is None else round(value, 5)
