"""Figures for Prometheus: counts and times of runs, never whose they were or what they said.

The numbers of a run are the folds of nemodiff_core.metrics over its trace. Every label has a fixed list of values, so
that nothing a browser sends can make new series. Each app has a registry of its own.
"""

from __future__ import annotations

import hmac
import sys
from collections.abc import Callable
from typing import Any, get_args

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from nemodiff_core import __version__, metrics
from nemodiff_core.errors import CheckpointError, NemodiffError, RequestError, TraceError
from nemodiff_core.request import Mode
from nemodiff_core.trace import REMOTE, STOP_REASONS, Trace

from ui.ops.logs import event

ROUTE = "/metrics"
MODES = (*get_args(Mode), REMOTE)
_OTHER = "other"
_REFUSALS = {RequestError: "request", TraceError: "file", CheckpointError: "checkpoint"}
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_RATES = (3, 10, 30, 100, 300, 1000, 3000, 10_000)
_TPF = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class Meters:
    """What is counted. Safe to share among threads; nothing here raises over a number."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)

        def make(kind: Any, name: str, about: str, labels: tuple[str, ...] = (), **more: Any) -> Any:
            return kind(f"nemodiff_{name}", about, labels, registry=registry, **more)

        make(Info, "build", "The app").info({"version": __version__})
        self.queue = make(Gauge, "queue_length", "Runs that wait for the device")
        self.running = make(Gauge, "runs_in_progress", "Runs that have their turn")
        self.models = make(Gauge, "models_loaded", "Models in memory")
        self.wait = make(Histogram, "wait_seconds", "From asking to the run's turn", buckets=_SECONDS)
        self.started = make(Counter, "runs_started", "Lanes that began to decode", ("mode",))
        self.ended = make(Counter, "runs_ended", "Lanes that ended, by what ended them", ("mode", "stop_reason"))
        self.forwards = make(Counter, "forwards", "Model forwards", ("mode",))
        self.tokens = make(Counter, "tokens", "Tokens written", ("mode",))
        self.rate = make(Histogram, "tokens_per_second", "Of one run, prefill included", ("mode",), buckets=_RATES)
        self.tpf = make(Histogram, "tokens_per_forward", "Of one run, forwards counted as the reference does", ("mode",), buckets=_TPF)
        self.first = make(Histogram, "first_token_seconds", "From the start of a run to its first token", ("mode",), buckets=_SECONDS)
        self.failures = make(Counter, "load_failures", "Models that could not be loaded")
        self.refusals = make(Counter, "refusals", "What was refused with a sentence, by kind", ("kind",))
        for mode in MODES:  # a series that is there from the start has a rate from the start
            self.started.labels(mode), self.forwards.labels(mode), self.tokens.labels(mode)
        make(Gauge, "resident_bytes", "Memory of this process").set_function(_resident)
        make(Gauge, "cuda_bytes", "Memory that tensors take on CUDA devices").set_function(_on_cuda)

    def watch(self, *, waiting: Callable[[], int], running: Callable[[], int], models: Callable[[], int]) -> None:
        """Where the gauges are read when they are asked for."""
        for gauge, read in ((self.queue, waiting), (self.running, running), (self.models, models)):
            gauge.set_function(read)

    def run_waited(self, seconds: float) -> None:
        """A run has its turn, so many seconds after it was asked for."""
        self.wait.observe(max(0.0, seconds))

    def run_started(self, mode: Any) -> None:
        """A lane begins to decode."""
        self.started.labels(_of(mode, MODES)).inc()

    def run_ended(self, trace: Trace) -> None:
        """A lane has ended; all figures come from what it recorded."""
        mode = _of(trace.request.get("mode"), MODES)
        self.ended.labels(mode, _of(trace.stop_reason, STOP_REASONS)).inc()
        self.forwards.labels(mode).inc(metrics.forwards(trace) or 0)
        self.tokens.labels(mode).inc(metrics.tokens(trace) or 0)
        if metrics.batch(trace) > 1:
            return  # the clock was that of the whole batch
        for histogram, value in (
            (self.rate, metrics.tokens_per_second(trace)), (self.tpf, metrics.tpf(trace)), (self.first, metrics.first_token_seconds(trace)),
        ):  # fmt: skip
            if value is not None:
                histogram.labels(mode).observe(value)

    def run_lost(self, mode: Any, reason: str) -> None:
        """A lane has ended whose trace nobody has."""
        self.ended.labels(_of(mode, MODES), _of(reason, STOP_REASONS)).inc()

    def load_failed(self) -> None:
        """A model could not be loaded."""
        self.failures.inc()

    def refused(self, error: NemodiffError) -> None:
        """Something was refused with a sentence."""
        kind = _REFUSALS.get(type(error), _OTHER)
        self.refusals.labels(kind).inc()
        event("refused", kind=kind)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


def route(meters: Meters, token: str | None) -> Route:
    """`/metrics`, with a bearer token where there is one."""

    async def answer(request: Request) -> Response:
        given = request.headers.get("authorization", "")
        if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return PlainTextResponse("Send the token of NEMODIFF_METRICS_TOKEN as a bearer token.", 401, {"www-authenticate": "Bearer"})
        return Response(await run_in_threadpool(meters.text), media_type=CONTENT_TYPE_PLAIN_0_0_4, headers={"cache-control": "no-store"})

    return Route(ROUTE, answer, methods=["GET"])


def _of(value: Any, known: tuple[str, ...]) -> str:
    return value if isinstance(value, str) and value in known else _OTHER


def _resident() -> float:
    return float(psutil.Process().memory_info().rss)


def _on_cuda() -> float:
    torch = sys.modules.get("torch")  # not before a model has brought it
    if torch is None or not torch.cuda.is_available():
        return 0.0
    return float(sum(torch.cuda.memory_allocated(device) for device in range(torch.cuda.device_count())))
