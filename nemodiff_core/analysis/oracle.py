"""Speed of light: the fewest forwards in which an oracle could have written an answer (facts §6, "SOL").

The reference is block diffusion with one commit a forward. The oracle knows its answer, so at every state of a
block it may commit any cells whose prediction is the final token; it never writes what the model did not predict.
How far a real commit policy stays behind it is what a better policy could gain without changing a token.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import torch

from nemodiff_core.analysis.replay import Context, Opinion, causal_opinions, check_model, opinions
from nemodiff_core.analysis.schedule_search import Found, State, fewest_forwards
from nemodiff_core.checkpoint import Checkpoint
from nemodiff_core.engine import environment
from nemodiff_core.errors import TraceError
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Candidates, Step, TokenEvent, Trace

BUDGET = 300  # forwards of the search, a block
_SHARED = ("prompt", "chat", "block_length", "temperature", "top_p", "seed", "max_new_tokens", "stop_at_eos", "candidates",
           "deadline_s")  # fmt: skip


@dataclass(frozen=True)
class _Block:
    """One block as the reference filled it. Cells are offsets from `start`; cell 0 is the seed."""

    number: int
    start: int
    tokens: dict[int, int]  # of every cell that was ever filled
    order: tuple[int, ...]
    needed: State
    commit: Step


def one_at_a_time(request: DecodeRequest) -> DecodeRequest:
    """The request whose answer is the oracle's target: diffusion with one commit a forward."""
    knobs = {name: getattr(request, name) for name in _SHARED}
    return DecodeRequest(mode="diffusion", steps=request.block_length - 1, **knobs)


@torch.inference_mode()
def speed_of_light(
    checkpoint: Checkpoint,
    trace: Trace,
    budget: int = BUDGET,
    listen: Callable[[int, int], None] | None = None,
) -> Trace:
    """The oracle's schedule for a finished one-at-a-time run, as a Trace with the same output.

    Its steps are forwards that ran, with the model's own confidences; `elapsed_ns` counts the forwards of the
    schedule and not those of the search. One annotation a block, of kind `oracle`: the forwards of the
    `reference`, of the `greedy` oracle (None: it ends in a dead end) and of this one, whether the count is
    `exact` or a `bound` found within the budget, the forwards `searched`, and the positions `given`: sampled
    cells that no forward of the reference predicted, committed alone as the reference did.
    `budget` is the forwards of the search per block; `listen` hears (blocks done, blocks). Raises TraceError
    where the trace is of another kind or another checkpoint.
    """
    request = check_model(checkpoint, trace)
    blocks = _blocks(trace, request)
    context = Context(checkpoint.model, len(trace.prompt.ids) + len(trace.output.ids) + request.block_length)
    causal_opinions(checkpoint, trace, context)
    context.hold([])
    writer = _Writer(context, trace)
    writer.causal(trace.steps[0], trace.prompt.ids)
    notes = []
    for block in blocks:
        states = _States(checkpoint, context, block, request)
        found = fewest_forwards(states.predict, block.order, block.needed, budget)
        filled: State = frozenset()
        given: list[int] = []
        for move in found.schedule:
            given += (block.start + cell for cell in move if states.views[filled][cell].best != block.tokens[cell])
            writer.denoise(block, states, filled, move)
            filled |= move
        dropped = {block.start + cell for cell in block.order if cell not in filled}
        events = tuple(event for event in block.commit.events if event.kind != "reject" or event.position not in dropped)
        reach = block.commit.span[1] - len(trace.prompt.ids)
        writer.causal(replace(block.commit, events=events), trace.prompt.ids + trace.output.ids[:reach])
        notes.append(_note(block, found, given))
        if listen is not None:
            listen(len(notes), len(blocks))
    piece = checkpoint.tokenizer.piece
    shown = {i for step in writer.steps for cell in step.candidates for i in cell.ids}
    device, dtype = str(checkpoint.model.device), checkpoint.model.format
    return replace(
        trace,
        id=secrets.token_hex(8),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=trace.model | {"device": device, "dtype": dtype},
        vocabulary=trace.vocabulary | {str(i): piece(i) for i in sorted(shown)},
        steps=writer.steps,
        parent={"trace": trace.id, "step": -1, "intervention": {"kind": "oracle", "budget": budget}},
        environment=environment(),
        annotations=notes,
    )


class _States:
    """The states of one block, each put through the model at most once."""

    def __init__(self, checkpoint: Checkpoint, context: Context, block: _Block, request: DecodeRequest) -> None:
        self.model, self.mask_id = checkpoint.model, checkpoint.tokenizer.mask_id
        self.block, self.size, self.candidates = block, request.block_length, request.candidates
        self.cache = context.cache  # holds what stands before the block
        self.views: dict[State, dict[int, Opinion]] = {}
        self.elapsed: dict[State, int] = {}

    def predict(self, state: State) -> Sequence[int]:
        """Cells that a forward over the state predicts rightly, the surest first."""
        began = time.perf_counter_ns()
        tokens, masked = self.block.tokens, [cell for cell in sorted(self.block.order) if cell not in state]
        cells = [tokens[cell] if cell == 0 or cell in state else self.mask_id for cell in range(self.size)]
        logits = self.model(
            torch.tensor([cells], device=self.model.device),
            pattern="bidirectional",
            cache=self.cache,
            rows=torch.tensor(masked, device=self.model.device),
        )
        seen = opinions(logits[0], [tokens[cell] for cell in masked], self.mask_id, candidates=self.candidates)
        self.views[state] = view = dict(zip(masked, seen))
        self.elapsed[state] = time.perf_counter_ns() - began
        right = [cell for cell in masked if view[cell].best == tokens[cell]]
        return sorted(right, key=lambda cell: -view[cell].probability)


class _Writer:
    """Turns the forwards of the schedule into Steps, and keeps the cache at the text."""

    def __init__(self, context: Context, trace: Trace) -> None:
        self.context = context
        self.steps: list[Step] = []
        self.elapsed = 0

    def causal(self, recorded: Step, text: Sequence[int]) -> None:
        """A prefill or commit pass: the reference ran the same one, so its record holds; only the time is ours."""
        began = time.perf_counter_ns()
        self.context.hold(text)
        self.elapsed += time.perf_counter_ns() - began
        self.steps.append(replace(recorded, index=len(self.steps), elapsed_ns=self.elapsed))

    def denoise(self, block: _Block, states: _States, state: State, move: State) -> None:
        view, start = states.views[state], block.start
        self.elapsed += states.elapsed[state]
        events = tuple(
            TokenEvent(start + cell, block.tokens[cell], "commit", view[cell].probability, view[cell].entropy)
            for cell in sorted(move)
        )
        seen = tuple(Candidates(start + c, v.ids, v.probabilities, v.entropy) for c, v in view.items() if v.ids)
        span = (start, start + states.size)
        self.steps.append(Step(len(self.steps), "denoise", span, block.number, self.elapsed, events, seen))


def _note(block: _Block, found: Found, given: list[int]) -> dict[str, Any]:
    return {
        "kind": "oracle",
        "block": block.number,
        "start": block.start,
        "cells": len(block.needed),
        "reference": len(block.order),
        "greedy": found.greedy,
        "forwards": len(found.schedule),
        "found": "exact" if found.minimal else "bound",
        "searched": found.spent,
        "given": sorted(given),
    }


def _blocks(trace: Trace, request: DecodeRequest) -> list[_Block]:
    """The blocks of a finished run that committed one cell a forward. Raises TraceError."""
    if trace.request["mode"] != "diffusion":
        raise TraceError(f"the oracle needs a run of mode diffusion, and this one is {trace.request['mode']}; record another.")
    if trace.stop_reason not in ("eos", "length"):
        raise TraceError(f"the run was not finished ({trace.stop_reason}), so it has no answer to aim at; let it end.")
    damaged = TraceError(f"the trace's steps are not those of blocks of {request.block_length} cells; save it again.")
    size, origin, output = request.block_length, len(trace.prompt.ids), trace.output.ids
    if trace.steps[0].phase != "prefill":
        raise damaged
    blocks: list[_Block] = []
    tokens: dict[int, int] = {}
    for step in trace.steps[1:]:
        start = origin + size * len(blocks)
        kinds = [event.kind for event in step.events]
        if step.phase == "denoise" and kinds != ["commit"]:
            raise TraceError("the run committed or changed several cells in one forward; record one with one step less than the block has cells.")
        if step.phase not in ("denoise", "commit") or "pin" in kinds or "remask" in kinds:
            raise TraceError("the run pinned or revised cells, and the oracle needs one that only commits; record it without.")
        if step.span[0] != start or step.span[1] - start > size or start - origin >= len(output):
            raise damaged
        if step.phase == "denoise":
            (event,) = step.events
            cell = event.position - start
            if not 0 < cell < size or cell in tokens:
                raise damaged
            tokens[cell] = event.token
            continue
        needed = range(1, step.span[1] - start)
        text = dict(enumerate(output[start - origin : step.span[1] - origin]))
        if any(tokens.get(cell) != text.get(cell) for cell in needed):
            raise damaged
        blocks.append(_Block(step.block, start, {0: text[0]} | tokens, tuple(tokens), frozenset(needed), step))
        tokens = {}
    covered = blocks[-1].commit.span[1] - origin if blocks else 0
    seeded = any(event.kind == "seed" for event in (blocks[-1].commit if blocks else trace.steps[0]).events)
    if tokens or covered + seeded != len(output):
        raise damaged
    return blocks
