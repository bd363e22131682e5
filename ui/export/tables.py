"""Runs as CSV tables: steps, tokens, draft-and-verify cycles, figures. Every table names the lane a row belongs to."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from nemodiff_core import metrics
from nemodiff_core.trace import EMITTED, KINDS, PHASES, REMOTE, Canvas, Step, Trace

# What a spreadsheet takes for the beginning of a formula, full-width forms and what it skips before one included.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_FORWARDS = tuple(phase for phase in PHASES if phase != "chunk")
_SUMMARY = (
    "tokens", "nfe", "forwards", "tpf", "acceptance_length", "seconds", "tokens_per_second", "prefill_seconds",
    "decode_seconds", "blocks", "chunks", "first_token_seconds",
)  # fmt: skip


def steps_csv(traces: Sequence[Trace]) -> str:
    """A row per model forward, or per chunk of a server's answer: when, where, what kind of events and how many."""
    head = ["lane", "mode", "step", "phase", "block", "span_start", "span_end", "elapsed_ms", "took_ms", *KINDS]
    return _table(head, (row for lane, trace in enumerate(traces) for row in _steps(lane, trace)))


def tokens_csv(traces: Sequence[Trace]) -> str:
    """A row per token of the answer: its text, the step that settled it, and how sure that step was."""
    head = [
        "lane", "mode", "offset", "position", "id", "text", "status", "step", "phase", "block", "elapsed_ms",
        "confidence", "entropy_nats", "forced", "revisions", "drafts_refused",
    ]  # fmt: skip
    return _table(head, (row for lane, trace in enumerate(traces) for row in _tokens(lane, trace)))


def cycles_csv(traces: Sequence[Trace]) -> str:
    """A row per verification of self-speculation: what was drafted, what was accepted, what it cost."""
    head = [
        "lane", "mode", "cycle", "verify_step", "forwards", "took_ms", "drafted", "accepted", "rejected", "bonus",
        "acceptance_length", "drafted_text", "emitted_text",
    ]  # fmt: skip
    return _table(head, (row for lane, trace in enumerate(traces) for row in _cycles(lane, trace)))


def metrics_csv(traces: Sequence[Trace]) -> str:
    """A row per run: the figures that the player shows, and the settings they were measured with."""
    knobs = sorted({key for trace in traces for key in trace.request} - {"prompt", "mode"})
    head = [
        "lane", "mode", "trace", "created", "model", "revision", "parameters", "dtype", "device", "stop_reason", *_SUMMARY,
        *(f"{phase}_phase_seconds" for phase in _FORWARDS), "prompt_tokens", "prompt", *(f"request.{knob}" for knob in knobs),
    ]  # fmt: skip
    return _table(head, (_metrics(lane, trace, knobs) for lane, trace in enumerate(traces)))


def _steps(lane: int, trace: Trace) -> Iterator[list[Any]]:
    for step, took in zip(trace.steps, metrics.forward_seconds(trace)):
        counts = [sum(event.kind == kind for event in step.events) for kind in KINDS]
        yield [lane, trace.request["mode"], step.index, step.phase, step.block, *step.span, _ms(step), round(took * 1e3, 6), *counts]


def _tokens(lane: int, trace: Trace) -> Iterator[list[Any]]:
    start, canvas = len(trace.prompt.ids), Canvas(len(trace.prompt.ids))
    forced: set[int] = set()
    refused: dict[int, int] = {}
    revisions: dict[int, int] = {}
    stood: dict[int, int] = {}  # the token that last counted as written at a position
    for step in trace.steps:
        canvas.apply(step)
        for event in step.events:
            at = event.position
            (forced.add if event.forced else forced.discard)(at)
            refused[at] = refused.get(at, 0) + (event.kind == "reject")
            cell = canvas.cells[at]
            if cell.status in EMITTED and cell.token is not None:
                revisions[at] = revisions.get(at, 0) + (stood.get(at, cell.token) != cell.token)
                stood[at] = cell.token
    for offset, token in enumerate(trace.output.ids):
        at = start + offset
        cell = canvas.cells[at]
        step = trace.steps[cell.step]
        yield [
            lane, trace.request["mode"], offset, at, token, trace.vocabulary[str(token)], cell.status, step.index, step.phase,
            step.block, _ms(step), cell.confidence, cell.entropy, int(at in forced), revisions[at], refused[at],
        ]  # fmt: skip


def _cycles(lane: int, trace: Trace) -> Iterator[list[Any]]:
    lengths = iter(metrics.acceptance_lengths(trace))
    took = metrics.forward_seconds(trace)
    drafted: dict[int, int] = {}  # position -> token, of drafts no verification has seen
    forwards: list[int] = []
    cycle = 0
    for step in trace.steps:
        if step.phase != "prefill":
            forwards.append(step.index)
        if step.phase == "verify" and (length := next(lengths, None)) is not None:
            kinds = [event.kind for event in step.events]
            judged = {e.position: e.token for e in step.events if e.kind in ("accept", "reject")}
            emitted = {e.position: e.token for e in step.events if e.kind in ("accept", "bonus", "pin")}
            yield [
                lane, trace.request["mode"], cycle, step.index, len(forwards), round(sum(took[i] for i in forwards) * 1e3, 6),
                len(drafted or judged), kinds.count("accept"), kinds.count("reject"), kinds.count("bonus"), length,
                _text(trace, drafted or judged), _text(trace, emitted),
            ]  # fmt: skip
            cycle, drafted, forwards = cycle + 1, {}, []
        # A forward that verifies may draft the next cycle as well.
        drafted |= {event.position: event.token for event in step.events if event.kind == "draft"}


def _metrics(lane: int, trace: Trace, knobs: Sequence[str]) -> list[Any]:
    figures, model = metrics.summary(trace), trace.model
    told = trace.environment[REMOTE] if metrics.remote(trace) else None
    return [
        lane, trace.request["mode"], trace.id, trace.created, model["id"], model.get("revision"), model.get("parameters"),
        model["dtype"], model["device"], trace.stop_reason, *(figures[name] for name in _SUMMARY),
        *(None if told else figures["time_by_phase"].get(phase, 0.0) for phase in _FORWARDS),
        told["prompt_tokens"] if told else len(trace.prompt.ids), trace.request.get("prompt"),
        *(trace.request.get(knob) for knob in knobs),
    ]  # fmt: skip


def _text(trace: Trace, tokens: dict[int, int]) -> str:
    return "".join(trace.vocabulary[str(tokens[position])] for position in sorted(tokens))


def _ms(step: Step) -> float:
    return step.elapsed_ns / 1e6


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_cell(name) for name in head)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A value as a spreadsheet may safely read it: text that would act as a formula gets an apostrophe in front."""
    if value is None or type(value) in (int, float):
        return value
    if isinstance(value, bool):
        return int(value)
    text = str(value).replace("\0", "␀")  # many readers end the text at a zero
    return "'" + text if text.startswith(_FORMULA) else text
