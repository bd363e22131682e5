"""`nemodiff bench scale`: how speed and memory grow with the answer's length, the batch and the block.

Greedy runs that do not stop at an end token, on the checkpoint itself; positions beyond its context are allowed,
since what it writes there does not matter here.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import torch

from nemodiff_core.bench.recording import BYTES_PER_COMMIT, steps_bytes
from nemodiff_core.bench.report import Listen, Table, unheard
from nemodiff_core.bench.stopwatch import Split, Stopwatch
from nemodiff_core.cache import KVCache
from nemodiff_core.checkpoint import Checkpoint
from nemodiff_core.engine import Engine
from nemodiff_core.metrics import forward_seconds, pooled, tokens
from nemodiff_core.request import DecodeRequest, Limits, parse_request

LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
BLOCKS = (2, 4, 8, 16, 32, 64)
MODES = ("ar", "diffusion", "linear_spec")
PROMPT = "Write a story about Mia and a red kite."
SHORT = 64  # tokens of an answer where its length is not what varies


def measure(
    engine: Engine,
    *,
    lengths: Sequence[int] = LENGTHS,
    batches: Sequence[int] = BATCHES,
    blocks: Sequence[int] = BLOCKS,
    modes: Sequence[str] = MODES,
    short: int = SHORT,
    seconds: float = 60.0,
    listen: Listen = unheard,
) -> list[Table]:
    """Three tables; a mode has `seconds` for its longest answer, and as long for its batches. What came too late is unmeasured."""
    checkpoint, limits = _unlimited(engine.checkpoint, max(lengths), max(batches))
    total, done = len(modes) * 3, 0

    def next_is(words: str) -> None:
        nonlocal done
        listen(done, total, words)
        done += 1

    by_length, by_batch, by_block = [], [], []
    for mode in modes:
        next_is(f"{mode}, answer length")
        by_length += _lengths(Stopwatch(checkpoint, limits), mode, lengths, seconds)
        next_is(f"{mode}, batch")
        by_batch += _batches(Engine(checkpoint, limits), mode, batches, short, seconds)
        next_is(f"{mode}, block length")
        if mode != "ar":
            by_block += _blocks(Stopwatch(checkpoint, limits), mode, blocks, short)
    listen(total, total, "done")
    about = engine.describe()
    where = f"{about['id']} in {about['dtype']} on {about['device']}, greedy, not stopping at end tokens"
    return [
        Table(
            name="scale_length", title="Answer length", keys=("mode", "length"), rows=by_length,
            note=f"{where}, batch 1. One run a mode, read off as it grows: ms/forward and host ms/forward are of its last half up to there, "
            "host being all that is no forward. Peak MB, on a GPU, is of the whole run, whose cache has room for the longest answer. "
            f"Bytes/commit are its gzipped steps without candidates; the target is {BYTES_PER_COMMIT}.",
        ),
        Table(
            name="scale_batch", title="Batch", keys=("mode", "batch"), rows=by_batch,
            note=f"{where}, {short} tokens a row, every row the same prompt. Tokens/s of all rows together.",
        ),
        Table(name="scale_block", title="Block length", keys=("mode", "block"), rows=by_block, note=f"{where}, batch 1, {short} tokens."),
    ]  # fmt: skip


def _lengths(watch: Stopwatch, mode: str, lengths: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """One long run, read off at every length that it reached in time."""
    _start_peak(watch.model.device)
    request = _request(mode, max(lengths), watch.engine.checkpoint.config.block_size).model_copy(update={"deadline_s": seconds})
    split = watch.run(request)
    peak, reached, rows = _peak(watch.model.device), tokens(split.trace), []
    for length in lengths:
        row: dict[str, Any] = {"mode": mode, "length": length}
        if length > reached:
            rows.append(row | {"note": f"unmeasured: not within {seconds:.0f} s"})
            continue
        cache = watch.model.new_cache(len(split.trace.prompt.ids) + length + request.block_length)  # what such an answer asks for
        rows.append(row | _until(split, length) | {"cache MB": _cache_bytes(cache) / 1e6})
    if measured := [row for row in rows if "note" not in row]:
        measured[-1] |= {**peak, "bytes/commit": steps_bytes(split.trace) / reached}
    return rows


def _until(split: Split, length: int) -> dict[str, Any]:
    """Speed up to `length` tokens, and what a forward took in the last half of the way."""
    trace, origin = split.trace, len(split.trace.prompt.ids)
    took, reached = forward_seconds(trace), [step.span[1] - origin for step in trace.steps]
    last = next((n for n, end in enumerate(reached) if end >= length), len(reached) - 1)
    first = next(n for n, end in enumerate(reached) if end >= length // 2)
    window = range(max(first, 1), last + 1)  # never the prefill
    host = sum(took[n] - split.in_forwards[n] for n in window)
    return {
        "tokens/s": min(length, reached[last]) / (trace.steps[last].elapsed_ns / 1e9),
        "ms/forward": 1000 * sum(took[n] for n in window) / len(window),
        "host ms/forward": 1000 * host / len(window),
    }


def _batches(engine: Engine, mode: str, batches: Sequence[int], short: int, seconds: float) -> list[dict[str, Any]]:
    rows, end, took = [], time.monotonic() + seconds, 0.0
    for count in batches:
        row: dict[str, Any] = {"mode": mode, "batch": count}
        if rows and time.monotonic() + 2 * took > end:
            rows.append(row | {"note": f"unmeasured: not within {seconds:.0f} s"})
            continue
        model, began = engine.checkpoint.model, time.monotonic()
        _start_peak(model.device)
        request = _request(mode, short, engine.checkpoint.config.block_size)
        run = engine.run_batch([request] * count)
        for _ in run:
            pass
        peak = _peak(model.device)
        figures = pooled([each.trace() for each in run.rows])
        together = figures["tokens"] / max(each.steps[-1].elapsed_ns for each in run.rows) * 1e9
        cache = _cache_bytes(model.new_cache(len(run.rows[0].prompt_ids) + short + request.block_length, count)) / 1e6
        rows.append(row | {"tokens/s": together, "tokens/s a row": together / count, "TPF": figures["tpf"], "cache MB": cache, **peak})
        took = time.monotonic() - began
    return rows


def _blocks(watch: Stopwatch, mode: str, blocks: Sequence[int], short: int) -> list[dict[str, Any]]:
    rows = []
    for block in blocks:
        split = watch.run(_request(mode, short, block))
        figures = pooled([split.trace])
        rows.append({
            "mode": mode, "block": block, "tokens/s": figures["tokens_per_second"], "NFE": figures["nfe"], "TPF": figures["tpf"],
            "acceptance": figures["acceptance_length"], "ms/forward": 1000 * sum(split.in_forwards) / len(split.in_forwards),
        })  # fmt: skip
    return rows


def _start_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> dict[str, float]:
    """The most that the GPU's allocator held; a CPU has no such count, and a process gives little back to grow by again."""
    return {"peak MB": torch.cuda.max_memory_allocated(device) / 1e6} if device.type == "cuda" else {}


def _cache_bytes(cache: KVCache) -> int:
    return sum(layer.nbytes for part in (cache.keys, cache.values) for layer in part)


def _unlimited(checkpoint: Checkpoint, length: int, batch: int) -> tuple[Checkpoint, Limits]:
    config = dataclasses.replace(checkpoint.config, max_position_embeddings=max(checkpoint.config.max_position_embeddings, 2 * length))
    limits = Limits(max_new_tokens=max(length, 1), max_batch=batch, max_seconds=86_400)
    return dataclasses.replace(checkpoint, config=config), limits


def _request(mode: str, length: int, block: int) -> DecodeRequest:
    """A run of exactly `length` tokens, also beyond what a request may ask for."""
    asked = parse_request({"prompt": PROMPT, "mode": mode, "block_length": min(block, 64), "max_new_tokens": 1, "stop_at_eos": False})
    return asked.model_copy(update={"max_new_tokens": length})
