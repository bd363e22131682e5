"""What is left of a given text (`refine`, `infill`) at a step of a recorded run, for a run that goes on from there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nemodiff_core.checkpoint import Checkpoint
from nemodiff_core.decode.infill import Gap
from nemodiff_core.errors import RequestError
from nemodiff_core.request import DecodeRequest
from nemodiff_core.skeleton import parts_for
from nemodiff_core.trace import Canvas, Cell, Step, Trace

NOT_REACHED = "this cell has not been reached yet; choose a later step."


@dataclass(frozen=True)
class Change:
    """What happens to the cell at an absolute position; see `fork.Intervention`."""

    action: str
    position: int | None
    token: int | None


@dataclass(frozen=True)
class Remains:
    """Where the run goes on: the absolute position, the number of the block there, and what the decoder takes."""

    begin: int
    block: int
    reach: int  # positions from here on are written anew
    given: Sequence[Any]
    more: Mapping[str, Any] = field(default_factory=dict)  # further arguments of the decoder


def of_draft(checkpoint: Checkpoint, trace: Trace, steps: Sequence[Step], canvas: Canvas, change: Change) -> Remains:
    """The text as it stands from the block of the change on; cells that are open there are masks. Raises RequestError."""
    origin, mask = len(trace.prompt.ids), checkpoint.tokenizer.mask_id
    draft = checkpoint.tokenizer.encode_plain(trace.request["draft"])
    if change.position is not None and change.position >= origin + len(draft):
        raise RequestError(f"the cell lies behind the text, which has {len(draft)} tokens; choose one of its cells.")
    begin, block = next(_blocks(trace, steps), (origin, 0))
    if change.position is not None and change.position < begin:
        begin, block = next(_holding(steps, change.position), (origin, 0))
    if begin >= origin + len(draft):
        raise RequestError("the run is over at this step; go back a step, or remask, ban or force one of its cells.")

    def stands(position: int) -> int:
        cell = canvas.cells.get(position)
        if cell is None:
            return draft[position - origin]
        return mask if cell.token is None else cell.token

    given = [stands(position) for position in range(begin, origin + len(draft))]
    if change.action in ("remask", "ban"):
        given[change.position - begin] = mask
    bans = {change.position - begin: frozenset((change.token,))} if change.action == "ban" else {}
    return Remains(begin, block, origin + len(draft), given, {"bans": bans})


def closes(trace: Trace, step: Step) -> bool:
    """Whether the step is the last of its block: a commit pass that reopens nothing and is followed by none."""
    if step.phase != "commit" or any(event.kind == "remask" for event in step.events):
        return False
    following = trace.steps[step.index + 1 : step.index + 2]
    return not any(later.phase == "commit" and later.block == step.block for later in following)


def _blocks(trace: Trace, steps: Sequence[Step]) -> Iterator[tuple[int, int]]:
    """Start and number of the block that is open after `steps`, or of the next one where none is."""
    for step in reversed(steps):
        if step.phase == "prefill" or closes(trace, step):
            yield step.span[1], step.block + (step.phase == "commit")
        elif step.phase in ("commit", "revise"):
            yield step.span[0], step.block


def _holding(steps: Sequence[Step], position: int) -> Iterator[tuple[int, int]]:
    """Start and number of the block that a position was last part of."""
    return ((s.span[0], s.block) for s in reversed(steps) if s.phase == "commit" and s.span[0] <= position < s.span[1])


def of_template(
    checkpoint: Checkpoint, trace: Trace, request: DecodeRequest, steps: Sequence[Step], canvas: Canvas, change: Change
) -> Remains:
    """The part that is open after `steps`, or the one of the change, and all behind it. Raises RequestError."""
    origin = len(trace.prompt.ids)
    parts = parts_for(request.template, checkpoint.tokenizer, checkpoint.config.vocab_size, request.block_length, checkpoint.device)
    begin, end, number = _part(steps, change.position) or (origin, origin, 0)
    if number >= len(parts):
        raise RequestError("the run is over at this step; go back a step, or remask, ban or force one of its cells.")
    if end == begin:  # nothing of it is there yet
        if change.position is not None:
            raise RequestError(NOT_REACHED)
        return Remains(begin, number, begin, parts[number:])
    cells = [canvas.cells.get(position) for position in range(begin, end)]
    part = parts[number]
    first = _gap(part, cells, change, begin) if isinstance(part, Gap) else _text(cells, change, begin)
    return Remains(begin, number, end, [first, *parts[number + 1 :]])


def _part(steps: Sequence[Step], position: int | None) -> tuple[int, int, int] | None:
    """Start, end and number of the part that holds a position, or of the one that is open; start is end where
    nothing of the part stands yet."""
    for step in reversed(steps):
        start, end = step.span
        inside = position is not None and start <= position < end
        if step.phase in ("commit", "denoise") and (inside or (position is None and step.phase == "denoise")):
            return start, end, step.block
        if step.phase == "prefill" and (position is None or position >= end):
            return end, end, step.block
        if position is None:
            return (end, end, step.block + 1) if step.phase == "commit" else (start, start, step.block)
    return None


def _gap(gap: Gap, cells: Sequence[Cell | None], change: Change, begin: int) -> Gap:
    """The gap in the length it has, with what stands in it and what is changed."""
    stands = {o: cell.token for o, cell in enumerate(cells) if cell is not None and cell.token is not None}
    kept = {o for o, cell in enumerate(cells) if cell is not None and cell.status == "pinned"}
    bans = {}
    if change.position is not None:
        offset = change.position - begin
        stands.pop(offset, None)
        kept.discard(offset)
        if change.action in ("pin", "force"):
            if not (gap.others if offset else gap.first)[change.token]:
                raise RequestError("this gap may not hold that token, or its text would not parse; choose another.")
            stands[offset] = change.token
            kept.add(offset)
        elif change.action == "ban":
            bans = {offset: frozenset((change.token,))}
    return replace(gap, shortest=len(cells), longest=len(cells), stands=stands, pinned=frozenset(kept), bans=bans)


def _text(cells: Sequence[Cell | None], change: Change, begin: int) -> list[int]:
    """Given text, with one token forced where that is the change."""
    if change.action in ("remask", "ban"):
        raise RequestError("this cell is given text and not part of a gap; force another token there, or change the text in Edit.")
    if None in cells:
        raise RequestError(NOT_REACHED)
    tokens = [cell.token for cell in cells]
    tokens[change.position - begin] = change.token
    return tokens
