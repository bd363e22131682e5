"""Reading traces from outside: files are data until every part of them has been checked."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from nemodiff_core.errors import NemodiffError, TraceError
from nemodiff_core.request import Mode
from nemodiff_core.trace import (
    KINDS,
    OPENING,
    PHASES,
    READABLE,
    REMOTE,
    STOP_REASONS,
    Candidates,
    Score,
    Step,
    TokenEvent,
    TokenText,
    Trace,
    annotated,
    fold,
)

MAX_FILE_BYTES = 32 * 2**20
MAX_TEXT_BYTES = 128 * 2**20
MAX_STEPS = 65_536
MAX_EVENTS = 2_000_000  # candidates count as events
MAX_OPENED = 4_194_304  # positions that all steps together may open for filling: the work of a fold
MAX_ANNOTATIONS = 10_000
MAX_DEPTH = 16  # of the free-form parts
MAX_POSITION = 1 << 20
MAX_PIECE = 400
MAX_BLOCK = 64
MAX_BATCH = 4096
_GZIP = b"\x1f\x8b"


def read_text(path: Path) -> bytes:
    """The JSON text of a file, unpacked within limits. Raises TraceError."""
    return unpack(read_within(path, MAX_FILE_BYTES, "; record fewer candidates or tokens.", TraceError))


def read_within(path: Path, limit: int, advice: str, wrong: type[NemodiffError]) -> bytes:
    """A file of at most `limit` bytes. Raises `wrong`, which of a larger one says its limit and the `advice`."""
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise wrong(f"{path.name} cannot be read ({error.strerror}); choose another file.") from error
    if len(raw) > limit:
        raise wrong(f"{path.name} is larger than {limit >> 20} MB{advice}")
    return raw


def unpack(raw: bytes) -> bytes:
    """Undo gzip where it is there, never beyond MAX_TEXT_BYTES. Raises TraceError."""
    if raw[:2] != _GZIP:
        return raw
    stream = zlib.decompressobj(wbits=31)
    try:
        text = stream.decompress(raw, MAX_TEXT_BYTES)
    except zlib.error as error:
        raise TraceError("the file is a damaged gzip; download or save it again.") from error
    if stream.unconsumed_tail:
        raise TraceError(f"the file unpacks to more than {MAX_TEXT_BYTES >> 20} MB; no trace is that large.")
    if not stream.eof:
        raise TraceError("the file ends too early; download or save it again.")
    return text


def parse_json(text: str | bytes) -> Any:
    """JSON without NaN, infinities or absurd nesting. Raises TraceError."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise TraceError("the file is not JSON, so it is no trace; choose a file that was saved as one.") from error


def parse(text: str | bytes) -> Trace:
    """A validated Trace. Keys beyond the schema are dropped, so that a newer minor writer can still be read."""
    return from_data(parse_json(text))


def from_data(data: Any) -> Trace:
    """A validated Trace from parsed JSON. Raises TraceError."""
    if not isinstance(data, dict) or "schema" not in data:
        raise TraceError("the file has no schema, so it is no trace; choose a file that was saved as one.")
    if data["schema"] not in READABLE:
        raise TraceError(f"the file has schema {_quote(data['schema'])}, but this version reads {' and '.join(READABLE)}; convert it.")
    reader = _Reader(data)
    trace = reader.trace()
    if fold(len(trace.prompt.ids), trace.steps).output() != trace.output.ids:
        raise TraceError("the trace's steps do not add up to its output, so it is damaged; save it again.")
    return trace


class StepReader:
    """Checks the steps of one run as they come, one after another."""

    def __init__(self, prompt_length: int, before: Sequence[Step]) -> None:
        """`before`: what the run has so far; the caller adds to it each step that was read."""
        self._reader, self._prompt_length, self._before = _Reader({}), prompt_length, before

    def read(self, raw: Any) -> Step:
        """The next step. Raises TraceError."""
        if len(self._before) >= MAX_STEPS:
            raise TraceError(f"the run has more than {MAX_STEPS} steps.")
        return self._reader.after(self._before, raw, self._prompt_length)


def plain_object(value: Any, where: str) -> dict[str, Any]:
    """An object of free form that can be written again. Raises TraceError."""
    if not isinstance(value, dict):
        raise TraceError(f"{where} is {_quote(value)}; it must be an object.")
    _writable(value, where)
    return value


class _Reader:
    """Checks one document from the outside in; every refusal names the place."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.mentioned: set[int] = set()
        self.events = 0
        self.opened = 0

    def trace(self) -> Trace:
        data = self.data
        prompt, output = self._text("prompt"), self._text("output")
        steps = _typed(data, "steps", list, "trace")
        if len(steps) > MAX_STEPS:
            raise TraceError(f"the trace has {len(steps)} steps; at most {MAX_STEPS} can be opened.")
        read: list[Step] = []
        for raw in steps:
            read.append(self.after(read, raw, len(prompt.ids)))
        reason = data.get("stop_reason")
        if reason not in STOP_REASONS:
            raise TraceError(f"stop_reason is {_quote(reason)}; it must be one of {', '.join(STOP_REASONS)}.")
        parent = data.get("parent")
        if parent is not None and not isinstance(parent, dict):
            raise TraceError("parent must be null or an object naming a trace and a step.")
        notes = data.get("annotations", [])
        if not isinstance(notes, list) or len(notes) > MAX_ANNOTATIONS or not all(isinstance(n, dict) for n in notes):
            raise TraceError(f"annotations must be a list of at most {MAX_ANNOTATIONS} objects.")
        for name in ("model", "request", "parent", "environment", "annotations", "id", "created"):
            _writable(data.get(name), name)
        model = _typed(data, "model", dict, "trace")
        for key in ("id", "dtype", "device"):
            _typed(model, key, str, "model")
        request = _typed(data, "request", dict, "trace")
        modes = (*get_args(Mode), REMOTE)
        if request.get("mode") not in modes:
            raise TraceError(f"request.mode is {_quote(request.get('mode'))}; it must be one of {', '.join(modes)}.")
        environment = _typed(data, "environment", dict, "trace")
        _check_remote(request, environment, read)
        _whole(environment.get("batch", 1), "environment.batch", MAX_BATCH)
        return Trace(
            id=_typed(data, "id", str, "trace")[:200],
            created=_typed(data, "created", str, "trace")[:100],
            model=model,
            request=request,
            prompt=prompt,
            output=output,
            vocabulary=self._vocabulary({*prompt.ids, *output.ids, *annotated(notes)}),
            steps=read,
            stop_reason=reason,
            parent=parent,
            environment=environment,
            annotations=notes,
        )

    def after(self, before: Sequence[Step], raw: Any, prompt_length: int) -> Step:
        """The step that follows `before`."""
        step = self._step(len(before), raw, prompt_length)
        if before and step.elapsed_ns < before[-1].elapsed_ns:
            raise TraceError(f"steps[{step.index}].elapsed_ns runs backwards, so the trace is damaged.")
        return step

    def _text(self, name: str) -> TokenText:
        part = _typed(self.data, name, dict, "trace")
        ids = [_whole(i, f"{name}.ids", 2**31) for i in _typed(part, "ids", list, name)]
        pieces = _typed(part, "pieces", list, name)
        if len(pieces) != len(ids) or not all(isinstance(p, str) and len(p) <= MAX_PIECE for p in pieces):
            raise TraceError(f"{name}.pieces must be one short text for each of {name}.ids.")
        _writable("".join(pieces), f"{name}.pieces")
        return TokenText(ids, pieces)

    def _vocabulary(self, more: set[int]) -> dict[str, str]:
        table = _typed(self.data, "vocabulary", dict, "trace")
        if not all(isinstance(v, str) and len(v) <= MAX_PIECE for v in table.values()):
            raise TraceError("vocabulary must give a short text for each token id.")
        _writable("".join(table.values()), "vocabulary")
        for token in self.mentioned | more:
            if str(token) not in table:
                raise TraceError(f"vocabulary has no text for token {token}, so the trace is damaged.")
        return {str(token): table[str(token)] for token in sorted(self.mentioned | more)}

    def _step(self, n: int, raw: Any, prompt_length: int) -> Step:
        where = f"steps[{n}]"
        if not isinstance(raw, dict):
            raise TraceError(f"{where} is not an object.")
        if raw.get("index") != n or isinstance(raw.get("index"), bool):
            raise TraceError(f"{where}.index is {_quote(raw.get('index'))}; steps must be numbered 0, 1, 2 … without gaps.")
        if raw.get("phase") not in PHASES:
            raise TraceError(f"{where}.phase is {_quote(raw.get('phase'))}; it must be one of {', '.join(PHASES)}.")
        span = raw.get("span")
        if not isinstance(span, list) or len(span) != 2:
            raise TraceError(f"{where}.span must be [start, end).")
        start, end = (_whole(x, f"{where}.span", MAX_POSITION) for x in span)
        if start >= end or end - start > MAX_POSITION or (raw["phase"] != "prefill" and end - start > 4096):
            raise TraceError(f"{where}.span [{start}, {end}) is empty or absurd.")
        if raw["phase"] in OPENING:
            if start < prompt_length:
                raise TraceError(f"{where}.span [{start}, {end}) reaches into the prompt.")
            self.opened += end - start
            if self.opened > MAX_OPENED:
                raise TraceError(f"the spans up to {where} cover more than {MAX_OPENED} cells; no decoder writes that much.")
        events = _typed(raw, "events", list, where)
        cells = raw.get("candidates", [])
        if not isinstance(cells, list):
            raise TraceError(f"{where}.candidates is wrong; it must be a list.")
        scores = raw.get("scores", [])
        if not isinstance(scores, list):
            raise TraceError(f"{where}.scores is wrong; it must be a list.")
        self.events += len(events) + len(cells) + len(scores)
        if self.events > MAX_EVENTS:
            raise TraceError(f"{where} holds too many events or candidates; the trace is too large to open.")
        # An event may lie one behind the span: the token that a causal pass predicts for what comes next.
        # A commit pass also drops cells of its block that it did not write.
        low, high = max(prompt_length, start), end + (MAX_BLOCK if raw["phase"] == "commit" else 0) + 1
        if raw["phase"] == "prefill" and n:  # where a child goes on: it says what became of its parent's cells
            high = MAX_POSITION
        return Step(
            index=n,
            phase=raw["phase"],
            span=(start, end),
            block=_whole(raw.get("block"), f"{where}.block", MAX_POSITION),
            elapsed_ns=_whole(raw.get("elapsed_ns"), f"{where}.elapsed_ns", 2**62),
            events=tuple(self._event(e, f"{where}.events[{i}]", low, high) for i, e in enumerate(events)),
            candidates=tuple(self._candidates(c, f"{where}.candidates[{i}]", low, high) for i, c in enumerate(cells)),
            scores=tuple(self._score(x, f"{where}.scores[{i}]", low, high) for i, x in enumerate(scores)),
        )

    def _event(self, raw: Any, where: str, low: int, high: int) -> TokenEvent:
        if not isinstance(raw, dict) or raw.get("kind") not in KINDS:
            raise TraceError(f"{where}.kind must be one of {', '.join(KINDS)}.")
        token = _whole(raw.get("token"), f"{where}.token", 2**31)
        self.mentioned.add(token)
        return TokenEvent(
            _position(raw, where, low, high),
            token,
            raw["kind"],
            _real(raw.get("confidence"), f"{where}.confidence", 1.0),
            _real(raw.get("entropy"), f"{where}.entropy", 100.0),
            raw.get("forced") is True,
        )

    def _score(self, raw: Any, where: str, low: int, high: int) -> Score:
        if not isinstance(raw, dict):
            raise TraceError(f"{where} is not an object.")
        token = _whole(raw.get("token"), f"{where}.token", 2**31)
        self.mentioned.add(token)
        probability = _real(raw.get("probability"), f"{where}.probability", 1.0)
        return Score(_position(raw, where, low, high), token, probability or 0.0, _whole(raw.get("rank"), f"{where}.rank", 2**31))

    def _candidates(self, raw: Any, where: str, low: int, high: int) -> Candidates:
        if not isinstance(raw, dict):
            raise TraceError(f"{where} is not an object.")
        ids = [_whole(i, f"{where}.ids", 2**31) for i in _typed(raw, "ids", list, where)]
        probabilities = [_real(p, f"{where}.probabilities", 1.0) for p in _typed(raw, "probabilities", list, where)]
        if len(ids) != len(probabilities) or len(ids) > 16 or None in probabilities:
            raise TraceError(f"{where} must have one probability for each of at most 16 ids.")
        self.mentioned.update(ids)
        entropy = _real(raw.get("entropy"), f"{where}.entropy", 100.0)
        return Candidates(_position(raw, where, low, high), tuple(ids), tuple(probabilities), entropy or 0.0)


def _check_remote(request: dict[str, Any], environment: dict[str, Any], steps: Sequence[Step]) -> None:
    """A server's answer says how it was measured and holds chunks; any other run holds forwards."""
    remote = request["mode"] == REMOTE
    if any((step.phase == "chunk") != remote for step in steps):
        raise TraceError(f"chunks are the steps of mode {REMOTE} and of no other, so the trace is damaged.")
    if not remote:
        return
    _typed(request, "remote", str, "request")
    told = _typed(environment, REMOTE, dict, "environment")
    if told.get("cells") not in ("tokens", "pieces"):
        raise TraceError(f"environment.remote.cells is {_quote(told.get('cells'))}; it must be tokens or pieces.")
    for name in ("tokens", "prompt_tokens"):
        if told.get(name) is not None:
            _whole(told[name], f"environment.remote.{name}", 2**31)
    if not isinstance(told.get("problem"), str | None):
        raise TraceError("environment.remote.problem must be null or a text.")
    blocks = _typed(told, "blocks", list, "environment.remote")
    for block in blocks:
        if not isinstance(block, dict) or not all(type(value) in (int, float) for value in block.values()):
            raise TraceError("environment.remote.blocks must be objects of numbers.")


def _typed(part: dict[str, Any], key: str, kind: type, where: str) -> Any:
    value = part.get(key)
    if not isinstance(value, kind):
        name = {dict: "an object", list: "a list", str: "a text"}[kind]
        raise TraceError(f"{where}.{key} {'is missing' if key not in part else 'is wrong'}; it must be {name}.")
    return value


def _whole(value: Any, where: str, limit: int) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise TraceError(f"{where} is {_quote(value)}; it must be a whole number from 0 to {limit - 1}.")
    return value


def _real(value: Any, where: str, limit: float) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value <= limit:
        raise TraceError(f"{where} is {_quote(value)}; it must be a number from 0 to {limit:g}.")
    return float(value)


def _position(raw: dict[str, Any], where: str, low: int, high: int) -> int:
    position = _whole(raw.get("position"), f"{where}.position", MAX_POSITION)
    if not low <= position < high:
        raise TraceError(f"{where}.position {position} lies outside its step ([{low}, {high})).")
    return position


def _writable(value: Any, where: str, depth: int = 0) -> None:
    """Refuse what JSON can read but nobody can write again: infinities (1e999), half a surrogate pair, deep nests."""
    if depth > MAX_DEPTH:
        raise TraceError(f"{where} is nested more than {MAX_DEPTH} levels deep, so the trace is damaged.")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise TraceError(f"{where} holds text that is not Unicode, so the trace is damaged.") from error
    elif isinstance(value, float) and not math.isfinite(value):
        raise TraceError(f"{where} holds a number that is not finite, so the trace is damaged.")
    elif isinstance(value, list):
        for part in value:
            _writable(part, where, depth + 1)
    elif isinstance(value, dict):
        for key, part in value.items():
            _writable(key, where, depth + 1)
            _writable(part, where, depth + 1)


def _quote(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
