"""What committing several cells at once cost an answer, and how far it strays from the causal pass.

A denoise forward predicts every masked cell on its own. Cells committed together never saw one another, so they
may fit badly (facts §8, "parallel commits corrupt structure"). Committed one after another, each would have seen
those before it: where that changes a choice, the commit was wrong. Regret is the measure without blocks: how much
more probable, given what stands before it, the causal pass finds its own choice than the token that was written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from nemodiff_core.analysis.replay import Context, Opinion, causal_opinions, check_model, opinions
from nemodiff_core.checkpoint import Checkpoint
from nemodiff_core.errors import TraceError
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import OPENING, Canvas, Step, Trace
from nemodiff_core.trace_reader import MAX_ANNOTATIONS

MODES = ("ar", "diffusion", "refine", "linear_spec")
KINDS = ("wrong_commit", "regret")


@torch.inference_mode()
def regret(checkpoint: Checkpoint, trace: Trace, listen: Callable[[int, int], None] | None = None) -> Trace:
    """The same trace with what was found as `annotations`, those of an earlier analysis replaced.

    Kind `wrong_commit`: a cell that would have become `alternative` had its step's cells been committed one a
    forward, the surest first; both probabilities are those of that forward. Kind `regret`, one for each
    token of the output: `nats` by which the causal pass prefers its own choice, `best`, to it.
    `listen` hears (steps looked at, steps to look at). Raises TraceError where the trace is of another kind or
    another checkpoint.
    """
    request = check_model(checkpoint, trace)
    if request.mode not in MODES:
        raise TraceError(f"commits of mode {request.mode} cannot be put through the model again; use {', '.join(MODES)}.")
    if request.temperature > 0:
        raise TraceError("the run sampled its tokens, so they are draws and no choices; record it with temperature 0.")
    if _adapted(trace, request) and not checkpoint.has_adapter:
        raise TraceError("the run drafted with an adapter, which this checkpoint lacks; give the one that has it.")
    moments = _moments(checkpoint, trace, request)
    if len(trace.output.ids) + sum(len(moment.written) for moment in moments) > MAX_ANNOTATIONS:
        raise TraceError(f"the run has more than {MAX_ANNOTATIONS} commits to look at; record a shorter one.")
    first = len(trace.prompt.ids)
    reach = max(step.span[1] for step in trace.steps)
    context = Context(checkpoint.model, max(reach, first + len(trace.output.ids)))
    causal = causal_opinions(checkpoint, trace, context)
    notes = []
    for n, moment in enumerate(moments, 1):
        notes += _wrong_commits(checkpoint, context, moment)
        if listen is not None:
            listen(n, len(moments))
    notes += [_regret(first + i, opinion) for i, opinion in enumerate(causal)]
    named = {note[key] for note in notes for key in ("token", "alternative", "best") if key in note}
    piece = checkpoint.tokenizer.piece
    return replace(
        trace,
        vocabulary=trace.vocabulary | {str(i): piece(i) for i in sorted(named)},
        annotations=[note for note in trace.annotations if note.get("kind") not in KINDS] + notes,
    )


@dataclass(frozen=True)
class _Moment:
    """What one forward saw that committed several cells, and what it wrote. Cells are offsets from `start`."""

    step: int
    start: int
    context: list[int]  # everything before the block
    cells: list[int]
    written: dict[int, int]
    banned: frozenset[int]  # cells that may not become the end token
    adapted: bool  # the draft adapter took part


def _moments(checkpoint: Checkpoint, trace: Trace, request: DecodeRequest) -> list[_Moment]:
    """Every step that committed several cells, with the state it started from. Raises TraceError."""
    eos_id, mask_id = checkpoint.tokenizer.eos_id, checkpoint.tokenizer.mask_id
    prompt, moments = trace.prompt.ids, []
    canvas, end = Canvas(len(prompt)), len(prompt) + len(trace.output.ids)
    for step in trace.steps:
        kind = "draft" if step.phase == "draft" else "commit"
        written = {event.position - step.span[0]: event.token for event in step.events if event.kind == kind}
        if step.phase in OPENING and len(written) > 1:
            # A step also shows what its block held from the start, such as pins.
            before = tuple(event for event in step.events if event.kind not in (kind, "remask"))
            canvas.apply(replace(step, events=before))
            start, stop = step.span
            context = [*prompt, *(_token(canvas, step, position) for position in range(len(prompt), start))]
            cells = [mask_id if (cell := canvas.cells[p]).token is None else cell.token for p in range(start, stop)]
            if request.mode == "refine":
                # Behind the end of a revised text stand end tokens, which are no part of the trace.
                cells[max(end - start, 0) :] = [eos_id] * max(stop - max(end, start), 0)
            if any(not 0 <= cell < len(cells) or cells[cell] != mask_id for cell in written):
                raise TraceError(f"step {step.index} commits a cell that was not masked; save the trace again.")
            banned = frozenset(cell for cell in written if _no_end(request, len(prompt), start + cell))
            adapted = kind == "draft" and _adapted(trace, request)
            moments.append(_Moment(step.index, start, context, cells, written, banned, adapted))
        canvas.apply(step)
    return moments


def _adapted(trace: Trace, request: DecodeRequest) -> bool:
    return request.mode == "linear_spec" and request.adapter and trace.model.get("adapter") is True


def _token(canvas: Canvas, step: Step, position: int) -> int:
    cell = canvas.cells.get(position)
    if cell is None or cell.token is None:
        raise TraceError(f"step {step.index} begins behind a cell that is still empty; save the trace again.")
    return cell.token


def _no_end(request: DecodeRequest, origin: int, position: int) -> bool:
    """Whether the decoder forbade the end token here: in a text that is revised, and before the last pin."""
    last_pin = max((offset for offset, _ in request.pins), default=-1)
    return request.mode == "refine" or (request.stop_at_eos and position < origin + last_pin)


def _wrong_commits(checkpoint: Checkpoint, context: Context, moment: _Moment) -> list[dict[str, Any]]:
    """Commit the step's cells one a forward, the surest first, and say which of them become another token."""
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    cache, cells, waiting, notes = context.hold(moment.context), list(moment.cells), sorted(moment.written), []
    adapter = {"draft": True} if moment.adapted else {}
    while waiting:
        tokens = torch.tensor([cells], device=model.device)
        rows = torch.tensor(waiting, device=model.device)
        logits = model(tokens, pattern="bidirectional", cache=cache, rows=rows, **adapter)[0]
        banned = None
        if moment.banned:
            banned = torch.zeros_like(logits, dtype=torch.bool)
            banned[:, tokenizer.eos_id] = torch.tensor([cell in moment.banned for cell in waiting], device=model.device)
        seen = opinions(logits, [moment.written[cell] for cell in waiting], tokenizer.mask_id, banned=banned)
        cell, opinion = max(zip(waiting, seen), key=lambda pair: pair[1].best_probability)
        cells[cell] = opinion.best
        waiting.remove(cell)
        if opinion.best != moment.written[cell]:
            notes.append({
                "kind": "wrong_commit",
                "step": moment.step,
                "position": moment.start + cell,
                "token": moment.written[cell],
                "probability": round(opinion.probability, 5),
                "alternative": opinion.best,
                "alternative_probability": round(opinion.best_probability, 5),
            })  # fmt: skip
    return notes


def _regret(position: int, opinion: Opinion) -> dict[str, Any]:
    return {
        "kind": "regret",
        "position": position,
        "nats": round(opinion.nats, 5),
        "probability": round(opinion.probability, 5),
        "best": opinion.best,
        "best_probability": round(opinion.best_probability, 5),
    }
