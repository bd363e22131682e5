"""`nemodiff bench decode`: tokens/s of every mode beside the plain transformers loop, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from nemodiff_core.analysis.grid import task_prompts
from nemodiff_core.bench.plain import LOOPS, Task, TransformersPasses, missing, transformers_model
from nemodiff_core.bench.report import Listen, Spread, Table, unheard
from nemodiff_core.bench.stopwatch import HOST, Stopwatch, wait
from nemodiff_core.decode.compiled import Compiled
from nemodiff_core.engine import Engine
from nemodiff_core.metrics import first_divergence, pooled
from nemodiff_core.placement import forward_threads
from nemodiff_core.request import DecodeRequest, Limits, parse_request
from nemodiff_core.trace import Trace

MODES = ("ar", "diffusion", "linear_spec", "quadratic_spec")
THRESHOLD = 0.9
PHASES = ("prefill", "ar", "draft", "denoise", "verify", "commit")
NO_LOOP = "no plain loop of it"


@dataclass
class _Measured:
    """One mode's rounds, tokens/s of all prompts together."""

    ours: list[float] = field(default_factory=list)
    loop: list[float] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)  # of the last round
    texts: list[list[int]] = field(default_factory=list)  # the loop's, of the last round
    forwards: int = 0  # the loop's, of the last round


def measure(
    engine: Engine, *, per_family: int = 1, rounds: int = 5, max_new_tokens: int = 256, modes: Sequence[str] = MODES, listen: Listen = unheard
) -> list[Table]:
    """Decode held-out prompts in every mode, greedily, by turns with the same algorithm as a plain transformers loop.

    `per_family` prompts of every task; in each of `rounds` rounds ours and the loop decode all of them, the first to
    go alternating. Tables: rates and counts; and how the time of ours divides, from one more, timed round.
    """
    reason = missing(engine.checkpoint.model)
    theirs = None if reason else transformers_model(engine.checkpoint.model)
    prompts = [prompt.text for prompt in task_prompts(per_family)]
    asked = {mode: [_request(engine, mode, prompt, max_new_tokens) for prompt in prompts] for mode in modes}
    found = {mode: _Measured() for mode in modes}
    total, done = (rounds + 2) * len(modes), 0
    for turn in range(-1, rounds):  # the turn before the first only warms up
        for mode in modes:
            listen(done, total, f"{mode}, " + ("warming up" if turn < 0 else f"round {turn + 1} of {rounds}"))
            measured = found[mode]
            sides = [_ours, _loop] if theirs is not None and mode in LOOPS else [_ours]
            for side in sides if turn % 2 == 0 else reversed(sides):
                side(measured, engine, theirs, asked[mode][:1] if turn < 0 else asked[mode], turn >= 0)
            done += 1
    watch = Stopwatch(engine.checkpoint, engine.limits)
    splits = []
    for mode in modes:
        listen(done, total, f"{mode}, where the time goes")
        splits.append(_split(mode, watch, asked[mode]))
        done += 1
    listen(total, total, "done")
    about = f"{len(prompts)} held-out prompts, greedy, batch 1, at most {max_new_tokens} tokens, {_about(engine)}"
    return [
        Table(
            name="decode", title="Decoding", keys=("mode",), rows=[_row(mode, found[mode], reason) for mode in modes],
            note=f"{about}. Medians of {rounds} rounds, lowest–highest; ours and the loop by turns in one process, on the same weights. "
            f"The loop is the same algorithm on transformers' own model with its DynamicCache.{_threads(engine)}",
        ),
        Table(
            name="split", title="Where the time goes", keys=("mode",), rows=splits,
            note=f"{about}. Percent of ours, from the start of a run to its last forward; host is all that happens between forwards.",
        ),
    ]  # fmt: skip


def _threads(engine: Engine) -> str:
    if not isinstance(engine.fast, Compiled):
        return ""
    return f" Threads: the loop {torch.get_num_threads()}, ours up to {forward_threads()}."


def _ours(measured: _Measured, engine: Engine, _: Any, requests: Sequence[DecodeRequest], counts: bool) -> None:
    traces = []
    for request in requests:
        run = engine.run(request)
        for _ in run:
            pass
        traces.append(run.trace())
    if counts:
        measured.ours.append(pooled(traces)["tokens_per_second"])
        measured.traces = traces


@torch.inference_mode()
def _loop(measured: _Measured, engine: Engine, theirs: Any, requests: Sequence[DecodeRequest], counts: bool) -> None:
    tokenizer, texts, forwards, seconds = engine.checkpoint.tokenizer, [], 0, 0.0
    for request in requests:
        prompt = tokenizer.chat([{"role": "user", "content": request.prompt}])
        task = Task(prompt, request.max_new_tokens, tokenizer.eos_id, tokenizer.mask_id, request.block_length, THRESHOLD)
        began = time.perf_counter()
        passes = TransformersPasses(theirs)
        texts.append(LOOPS[request.mode](passes, task))
        wait(passes.device)
        seconds += time.perf_counter() - began
        forwards += passes.forwards
    if counts:
        measured.loop.append(sum(map(len, texts)) / seconds)
        measured.texts, measured.forwards = texts, forwards


def _row(mode: str, measured: _Measured, reason: str | None) -> dict[str, Any]:
    figures = pooled(measured.traces)
    row: dict[str, Any] = {"mode": mode, "tokens/s": Spread.of(measured.ours)}
    if measured.loop:
        row |= {"loop tokens/s": Spread.of(measured.loop), "× loop": Spread.of(a / b for a, b in zip(measured.ours, measured.loop))}
    row |= {
        "tokens": figures["tokens"], "NFE": figures["nfe"], "TPF": figures["tpf"],
        "acceptance": figures["acceptance_length"], "forwards": figures["forwards"],
    }  # fmt: skip
    if measured.loop:
        same = [first_divergence(trace.output.ids, text) is None for trace, text in zip(measured.traces, measured.texts, strict=True)]
        row |= {"loop forwards": measured.forwards, "same tokens": f"{sum(same)} of {len(same)}"}
    else:
        row["note"] = NO_LOOP if mode not in LOOPS else reason
    return row


def _split(mode: str, watch: Stopwatch, requests: Sequence[DecodeRequest]) -> dict[str, Any]:
    spent: dict[str, float] = {}
    for request in requests:
        for phase, seconds in watch.run(request).seconds().items():
            spent[phase] = spent.get(phase, 0.0) + seconds
    whole = sum(spent.values())
    return {"mode": mode} | {f"{phase} %": 100 * spent[phase] / whole for phase in (*PHASES, HOST) if phase in spent}


def _request(engine: Engine, mode: str, prompt: str, max_new_tokens: int) -> DecodeRequest:
    block = min(engine.checkpoint.config.block_size, Limits().max_block_length)
    knobs = {"diffusion": {"threshold": THRESHOLD}, "linear_spec": {"adapter": False}}.get(mode, {})  # the loop has no adapter
    return parse_request({"prompt": prompt, "mode": mode, "block_length": block, "max_new_tokens": max_new_tokens, **knobs})


def _about(engine: Engine) -> str:
    about = engine.describe()
    return f"{about['id']} in {about['dtype']} on {about['device']}"
