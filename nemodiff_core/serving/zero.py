"""Hugging Face ZeroGPU: a GPU is there only while a decorated function runs, in a process that was forked for it.

The weights are loaded once, in the main process before the server starts; `spaces` packs them away and brings them to
a GPU inside each worker. What goes to a worker and what it yields is plain data (work.py), so the rest of the app sees
an engine whose model is elsewhere. Nothing that a worker changes comes back.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError
from nemodiff_core.request import DecodeRequest, changed_request, parse_request
from nemodiff_core.serving.distant import Distant
from nemodiff_core.serving.manifest import Preset, this_host
from nemodiff_core.serving.outline import Outline
from nemodiff_core.serving.work import Packet, perform

# What a worker does before its first forward: start, and read the packed weights from disk to the GPU.
START_S = 5.0
WEIGHTS_BYTES_PER_S = 2e9
# Until a run has been measured: without graphs every layer costs the time in which Python starts its operations.
ASSUMED_S_PER_LAYER = 1e-3
RESERVE = 1.5  # asked for beyond what is expected, since a run ends when its time is up
LEAST_S = 5.0

_log = logging.getLogger(__name__)
# A worker finds the model here: forked, it has the variables of the main process, and arguments are pickled.
_engines: dict[str, Engine] = {}


def active(preset: Preset | None = None) -> bool:
    """Whether runs go to ZeroGPU: the preset, by default this host's, says so, and the package is there."""
    return (preset or this_host()).zero_gpu and importlib.util.find_spec("spaces") is not None


def prepare(preset: Preset | None = None) -> None:
    """What has to happen before anything touches CUDA, in the main thread; does nothing where `active` is False."""
    if active(preset):
        os.environ.setdefault("NEMODIFF_GRAPHS", "0")  # a worker lives for a few runs, too short to pay for captures
        _decorated()


def wrap(engine: Engine, preset: Preset | None = None) -> Engine | Distant:
    """The engine that the app uses in place of the one just loaded; the same one where `active` is False.

    To be called in the main thread before the server starts, which is when `spaces` packs the weights.
    """
    preset = preset or this_host()
    if not active(preset):
        return engine
    outline = Outline.of(engine)
    name = f"{outline.id} {outline.about['dtype']}"
    _engines[name] = engine
    return Distant(_Lease(name, engine), outline, engine.limits, lambda: preset.runs_at_once)


class _Lease:
    """`send` of a Distant: asks for a GPU for as long as the work may take, and measures how long it takes."""

    def __init__(self, name: str, engine: Engine) -> None:
        config, model = engine.checkpoint.config, engine.checkpoint.model
        self.name = name
        self.limit = engine.limits.max_seconds
        self.start = START_S + sum(weight.nbytes for weight in model.parameters()) / WEIGHTS_BYTES_PER_S
        self.pace = config.num_hidden_layers * ASSUMED_S_PER_LAYER  # seconds a forward

    def __call__(self, work: dict[str, Any], stop: threading.Event) -> Iterator[list[Packet]]:
        forwards = most_forwards(work)
        seconds = self.limit if forwards is None else min(self.limit, max(LEAST_S, RESERVE * self.pace * forwards))
        steps: Counter[int] = Counter()
        elapsed_ns = 0
        try:
            with closing(_decorated()(self.name, work, seconds, self.start)) as batches:
                for batch in batches:
                    if stop.is_set():
                        return
                    for packet in batch:
                        if packet["type"] == "step":
                            steps[packet["row"]] += 1
                            elapsed_ns = packet["step"]["elapsed_ns"]
                    yield batch
        except NemodiffError:
            raise
        except Exception as error:  # gradio.Error: no quota left, no GPU free, the worker was killed
            why = " ".join(str(getattr(error, "message", error)).split()).rstrip(".")
            _log.warning("ZeroGPU: %s", why)
            raise NemodiffError(f"there was no GPU for this run ({why}); try again later.") from error
        finally:
            if steps and work["do"] != "fork":  # whose clock began in another run
                self.pace = (self.pace + elapsed_ns / 1e9 / max(steps.values())) / 2


def most_forwards(work: dict[str, Any]) -> int | None:
    """More forwards than the runs of this work can need; None where that cannot be told beforehand."""
    if work["do"] == "decode":
        return _most(parse_request(work["request"]))
    if work["do"] == "batch":  # rows share their forwards
        return max(_most(parse_request(fields)) for fields in work["requests"])
    if work["do"] == "fork":
        return _most(changed_request(work["parent"]["request"], work["changes"]))
    return None


def _most(request: DecodeRequest) -> int:
    tokens, width = request.max_new_tokens, request.block_length
    if request.mode == "ar":
        return tokens + 1
    if request.mode == "quadratic_spec":
        return tokens + 2
    if request.mode == "linear_spec":  # at worst a draft keeps nothing, and its cycle writes one token
        return tokens * 2 + 2
    rounds = 1 + request.revise_rounds + (request.remask_bound is not None)
    block = min(request.max_forwards_per_block or math.inf, rounds * min(width, request.steps or width)) + rounds
    return int(min(request.max_forwards or math.inf, math.ceil(tokens / width) * block)) + 2


def _work(name: str, work: dict[str, Any], seconds: float, start: float) -> Iterator[list[Packet]]:
    """In the worker: at most `seconds` of work on a model, its packets in batches. `start` has passed already."""
    stop, bounded = threading.Event(), _within(work, seconds)
    timer = threading.Timer(seconds, stop.set)
    timer.daemon = True
    if bounded is work:  # no run, which knows deadlines and says so
        timer.start()
    try:
        yield from perform(_engines[name], bounded, stop)
    finally:
        timer.cancel()


def _within(work: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The work with a deadline in its requests, where it has any. What a trace says of them is the main process's."""

    def sooner(fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "deadline_s": min(seconds, fields.get("deadline_s") or seconds)}

    if work["do"] == "decode":
        return {**work, "request": sooner(work["request"])}
    if work["do"] == "batch":
        return {**work, "requests": [sooner(fields) for fields in work["requests"]]}
    if work["do"] == "fork":
        return {**work, "changes": sooner(work["changes"])}
    return work


def _duration(name: str, work: dict[str, Any], seconds: float, start: float) -> int:
    """Seconds of a GPU to ask for; takes what `_work` takes."""
    return math.ceil(start + seconds)


@functools.cache
def _decorated() -> Callable[[str, dict[str, Any], float, float], Iterator[list[Packet]]]:
    """`_work` on a GPU. Off ZeroGPU `spaces` leaves it as it is."""
    import spaces

    return spaces.GPU(duration=_duration)(_work)
