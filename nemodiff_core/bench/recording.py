"""`nemodiff bench trace`: what recording costs, in time and on disk (DESIGN §6.5)."""

from __future__ import annotations

import gzip
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from nemodiff_core.analysis.grid import task_prompts
from nemodiff_core.bench.plain import LOOPS, OwnPasses, Task
from nemodiff_core.bench.report import Listen, Spread, Table, unheard
from nemodiff_core.bench.stopwatch import wait
from nemodiff_core.engine import Engine
from nemodiff_core.metrics import seconds, tokens
from nemodiff_core.request import DecodeRequest, parse_request
from nemodiff_core.trace import Trace

CANDIDATES = 8
LIMITS = {0: 5, CANDIDATES: 15}  # percent of decode time that recording may cost
BYTES_PER_COMMIT = 60  # a gzipped trace without candidates


@dataclass
class _Measured:
    bare: list[float] = field(default_factory=list)  # milliseconds a token
    cost: dict[int, list[float]] = field(default_factory=lambda: {count: [] for count in LIMITS})  # percent
    same: bool = True


def measure(
    engine: Engine, *, per_family: int = 1, rounds: int = 5, max_new_tokens: int = 256, listen: Listen = unheard
) -> list[Table]:
    """Time the engine against the same algorithm as a bare loop on the same model, and weigh the traces.

    The bare loop (plain.py) keeps nothing but the tokens: it computes no entropies, makes no events, Steps or
    candidates, and stands behind no engine. What the engine takes longer is the price of the record. Each prompt is
    decoded by turns without, with, and with top-8 candidates; a round's cost is the median of its prompts', so that
    a busy moment falls on few of them.
    """
    prompts = [prompt.text for prompt in task_prompts(per_family)]
    times, sizes = [], []
    total, done = len(LOOPS) * (rounds + 1), 0
    for mode in LOOPS:
        measured, traces = _Measured(), {count: [] for count in LIMITS}
        for turn in range(-1, rounds):  # the turn before the first only warms up
            listen(done, total, f"{mode}, " + ("warming up" if turn < 0 else f"round {turn + 1} of {rounds}"))
            traces = _round(engine, mode, prompts[:1] if turn < 0 else prompts, max_new_tokens, measured, turn)
            done += 1
        times.append(_times(mode, measured))
        sizes += [_sizes(mode, count, found) for count, found in traces.items()]
    listen(total, total, "done")
    about = f"{len(prompts)} held-out prompts, greedy, at most {max_new_tokens} tokens"
    return [
        Table(
            name="trace", title="Recording: time", keys=("mode",), rows=times,
            note=f"{about}, {rounds} rounds by turns; medians, lowest–highest. Percent that the engine with its record takes longer than a "
            f"bare loop on the same model that keeps tokens only; the limits are {LIMITS[0]} and {LIMITS[CANDIDATES]} %. Below zero: the engine is faster than that loop.",
        ),
        Table(
            name="trace_bytes", title="Recording: bytes", keys=("mode", "candidates"), rows=sizes,
            note=f"{about}. Gzipped files; a commit is a token that came to stay, an event anything that happened to a cell. The target is "
            f"{BYTES_PER_COMMIT} bytes a commit without candidates. Beside the steps a file holds the request, the machine and the "
            "vocabulary, which weigh on short answers.",
        ),
    ]  # fmt: skip


def _round(engine: Engine, mode: str, prompts: Sequence[str], max_new_tokens: int, measured: _Measured, turn: int) -> dict[int, list[Trace]]:
    """Every prompt three ways, the first to go changing from prompt to prompt; the traces by their number of candidates."""
    traces: dict[int, list[Trace]] = {count: [] for count in LIMITS}
    bare, costs = [], {count: [] for count in LIMITS}
    for n, prompt in enumerate(prompts):
        took, texts = {}, {}
        ways = [None, *LIMITS]
        for way in ways[(n + turn) % 3 :] + ways[: (n + turn) % 3]:
            request = _request(engine, mode, prompt, max_new_tokens, way or 0)
            if way is None:
                texts[way], took[way] = _bare(engine, request)
                continue
            run = engine.run(request)
            for _ in run:
                pass
            traces[way].append(run.trace())
            texts[way], took[way] = traces[way][-1].output.ids, seconds(traces[way][-1])
        bare.append(1000 * took[None] / len(texts[None]))
        measured.same &= texts[None] == texts[0] == texts[CANDIDATES]
        for count in LIMITS:
            costs[count].append(100 * (took[count] / took[None] - 1))
    if turn >= 0:
        measured.bare.append(statistics.median(bare))
        for count in LIMITS:
            measured.cost[count].append(statistics.median(costs[count]))
    return traces


@torch.inference_mode()
def _bare(engine: Engine, request: DecodeRequest) -> tuple[list[int], float]:
    """The tokens, and the seconds from an empty cache to the last of them."""
    tokenizer = engine.checkpoint.tokenizer
    prompt = tokenizer.chat([{"role": "user", "content": request.prompt}])
    task = Task(prompt, request.max_new_tokens, tokenizer.eos_id, tokenizer.mask_id, request.block_length)
    began = time.perf_counter()
    capacity = len(prompt) + request.max_new_tokens + request.block_length
    passes = OwnPasses(engine.checkpoint.model, capacity, engine.fast)
    text = LOOPS[request.mode](passes, task)
    wait(passes.device)
    return text, time.perf_counter() - began


def _times(mode: str, measured: _Measured) -> dict[str, Any]:
    row: dict[str, Any] = {"mode": mode, "bare ms/token": Spread.of(measured.bare)}
    for count, limit in LIMITS.items():
        costs = Spread.of(measured.cost[count])
        words = f"{count} candidates" if count else "recorded"
        row |= {f"{words} %": costs, f"{words}, in its limit": costs.median <= limit}
    return row | {"same tokens": measured.same}


def _sizes(mode: str, candidates: int, traces: Sequence[Trace]) -> dict[str, Any]:
    files = [len(gzip.compress(trace.to_json().encode(), mtime=0)) for trace in traces]
    commits = sum(map(tokens, traces))
    events = sum(len(step.events) for trace in traces for step in trace.steps)
    steps = sum(steps_bytes(trace) for trace in traces)
    return {
        "mode": mode,
        "candidates": candidates,
        "bytes/commit": sum(files) / commits,
        "of which steps": steps / commits,
        "bytes/event": steps / events,
        "events/commit": events / commits,
        "file bytes": statistics.median(files),
    }


def steps_bytes(trace: Trace) -> int:
    """Gzipped bytes of a trace that its steps are responsible for."""
    whole = trace.to_json().encode()
    rest = replace(trace, steps=[]).to_json().encode()
    return len(gzip.compress(whole, mtime=0)) - len(gzip.compress(rest, mtime=0))


def _request(engine: Engine, mode: str, prompt: str, max_new_tokens: int, candidates: int) -> DecodeRequest:
    knobs = {"linear_spec": {"adapter": False}}.get(mode, {})  # the bare loop has no adapter
    return parse_request({"prompt": prompt, "mode": mode, "candidates": candidates, "max_new_tokens": max_new_tokens, **knobs})
