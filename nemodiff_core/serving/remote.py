"""Answers of an OpenAI-compatible server as runs: what a client can see of them, recorded in the same trace.

A server tells no forwards. A Step of such a run is one chunk of the stream at the moment it arrived, with as many
tokens as came in it (a diffusion server sends a block at a time), and `environment.remote` says how it was measured.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from anyio.from_thread import start_blocking_portal

from nemodiff_core import __version__
from nemodiff_core.errors import RequestError
from nemodiff_core.request import DecodeRequest, Limits
from nemodiff_core.serving.completions import Arrival, Call, Ending, Piece, StreamError, readable, stream
from nemodiff_core.serving.manifest import Remote
from nemodiff_core.serving.statistics import StatisticsFile
from nemodiff_core.trace import REMOTE, Step, TokenEvent, TokenText, Trace

PATIENCE_S = 60.0  # without a byte
_LOOK_S = 0.1  # how often a waiting run looks whether it should stop
_REASONS = {"stop": "eos", "length": "length"}
_log = logging.getLogger(__name__)


class RemoteEngine:
    """One server of the manifest. It has no device of ours: its runs wait for nobody here."""

    def __init__(
        self, remote: Remote, limits: Limits | None = None, environment: Mapping[str, str] = os.environ, *, patience_s: float = PATIENCE_S
    ) -> None:
        self.remote, self.limits, self.patience_s = remote, limits or Limits(), patience_s
        self.title = remote.title or remote.name
        self.statistics = StatisticsFile(remote.statistics) if remote.statistics else None
        self.problem: str | None = None  # why it cannot be asked
        self._key = None
        if remote.key_env is not None:
            key = environment.get(remote.key_env, "").strip()
            if not key or not key.isascii() or not key.isprintable():
                _log.warning("The remote lane %s has no usable key in %s.", remote.name, remote.key_env)
                self.problem = f"{self.title} has no key on this host; its operator has to set one."
            self._key = key

    def run(self, request: DecodeRequest, stop: threading.Event | None = None) -> RemoteRun:
        """Check the request and prepare its run; nothing is sent until it is iterated.

        Only prompt, length, temperature, top_p, seed and stop_at_eos act; the server decides how it decodes.
        Raises RequestError.
        """
        self.check(request)
        return RemoteRun(self, request, stop or threading.Event())

    def check(self, request: DecodeRequest) -> None:
        """Refuse what could not be asked. Raises RequestError."""
        if self.problem:
            raise RequestError(self.problem)
        if not request.chat:
            raise RequestError(f"{self.title} takes prompts as chats only; leave chat on.")
        request.check(self.limits)

    def asked(self, request: DecodeRequest) -> dict[str, Any]:
        """What a trace says was asked: only what was sent."""
        fields = {"mode": REMOTE, "remote": self.title, "prompt": request.prompt, "chat": True, "temperature": request.temperature}
        if request.temperature > 0:
            fields |= {"top_p": request.top_p, "seed": request.seed}
        return fields | {"max_new_tokens": request.max_new_tokens, "stop_at_eos": request.stop_at_eos or not self._ignores_eos}

    def call(self, request: DecodeRequest) -> Call:
        """The request as the server takes it; with probabilities, and without for servers that refuse them."""
        body: dict[str, Any] = {
            "model": self.remote.model, "messages": [{"role": "user", "content": request.prompt}], "stream": True,
            "stream_options": {"include_usage": True}, "temperature": request.temperature, "max_tokens": request.max_new_tokens,
        }  # fmt: skip
        if request.temperature > 0:
            body |= {"top_p": request.top_p, "seed": request.seed}
        if self._ignores_eos and not request.stop_at_eos:
            body["ignore_eos"] = True
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return Call(self.remote.url.rstrip("/") + "/chat/completions", headers, ({**body, "logprobs": True}, body), self.patience_s)

    @property
    def _ignores_eos(self) -> bool:
        return self.remote.kind in ("vllm", "sglang")  # a field of theirs, which others refuse


class RemoteRun:
    """One answer. Iterate it once for its Steps; `trace()` is valid at any time, also in mid-run.

    A run that fails ends with stop_reason `error` and a sentence in `environment.remote.problem`; the text that came
    stays.
    """

    def __init__(self, engine: RemoteEngine, request: DecodeRequest, stop: threading.Event) -> None:
        self.engine, self.request = engine, request
        self.id = secrets.token_hex(8)
        self.created = datetime.now(UTC).isoformat(timespec="seconds")
        self.steps: list[Step] = []
        self.stop_reason = "cancelled"  # until a run comes to its own end, leaving it is what ended it
        self.problem: str | None = None
        self._stop, self._closed = stop, False
        self._ids: dict[str, int] = {}  # the server's ids are not known: a piece's number is its own
        self._pieces: list[str] = []
        self._length = 0
        self._tokens = True  # every piece so far is one token
        self._ending: Ending | None = None
        self._blocks: list[dict[str, Any]] = []
        self._iterator = self._run()

    def __iter__(self) -> Iterator[Step]:
        return self._iterator

    def piece(self, token: int) -> str:
        """How a token of this run is written."""
        return self._pieces[token]

    def close(self) -> None:
        """End the run now; the connection is closed when this returns, or soon after where another thread iterates."""
        self._closed = True
        try:
            self._iterator.close()
        except ValueError:  # "generator already executing": that thread sees the flag when it looks next
            pass

    def trace(self) -> Trace:
        """The run as recorded so far."""
        steps, remote = list(self.steps), self.engine.remote
        output = [event.token for step in steps for event in step.events]
        ending = self._ending or Ending("", None, None)
        return Trace(
            id=self.id,
            created=self.created,
            model={"id": remote.model, "revision": None, "parameters": None, "dtype": "", "device": "remote"},
            request=self.engine.asked(self.request),
            prompt=TokenText([], []),
            output=TokenText(output, [self._pieces[i] for i in output]),
            vocabulary={str(i): piece for i, piece in enumerate(list(self._pieces))},
            steps=steps,
            stop_reason=self.stop_reason,
            environment={
                "versions": {"nemodiff": __version__},
                REMOTE: {
                    "kind": remote.kind,
                    "measured": "at the client; a step is a chunk of the stream, not a forward of the model",
                    "cells": "tokens" if self._tokens else "pieces",  # what a cell holds
                    "prompt_tokens": ending.prompt_tokens,
                    "tokens": ending.tokens,  # as the server counted them
                    "problem": self.problem,
                    "blocks": list(self._blocks),  # of the server's statistics file, whoever asked
                },
            },
        )

    def _run(self) -> Iterator[Step]:
        arrivals: queue.SimpleQueue[Arrival | Ending | str] = queue.SimpleQueue()
        limit = min(self.engine.limits.max_seconds, self.request.deadline_s or self.engine.limits.max_seconds)
        statistics = self.engine.statistics
        mark = statistics.end() if statistics else 0
        # A loop of its own notes when each chunk came, whatever the reader of this run does meanwhile.
        with start_blocking_portal() as portal:
            receiving = portal.start_task_soon(self._receive, arrivals)
            try:
                yield from self._recorded(arrivals, time.monotonic() + limit)
            finally:
                receiving.cancel()
                if statistics:
                    self._blocks = statistics.since(mark)

    async def _receive(self, arrivals: queue.SimpleQueue[Arrival | Ending | str]) -> None:
        try:
            async for item in stream(self.engine.call(self.request)):
                arrivals.put(item)
        except StreamError as error:
            arrivals.put(str(error))
        except Exception as error:  # of a library; its message may hold what was sent
            _log.error("a remote lane failed: %s", type(error).__name__)
            arrivals.put("failed; tell the operator")

    def _recorded(self, arrivals: queue.SimpleQueue[Arrival | Ending | str], deadline: float) -> Iterator[Step]:
        while not (self._stop.is_set() or self._closed):
            left = deadline - time.monotonic()
            if left <= 0:
                self.stop_reason = "deadline"
                return
            try:
                item = arrivals.get(timeout=min(_LOOK_S, left))
            except queue.Empty:
                continue
            if isinstance(item, Arrival) and (wrong := self._too_much(item)) is not None:
                item = wrong
            if isinstance(item, str):
                self.stop_reason, self.problem = "error", f"{self.engine.title} {item}."
                return
            if isinstance(item, Ending):
                self._ending, self.stop_reason = item, _REASONS.get(item.reason, "error")
                if self.stop_reason == "error":
                    self.problem = f"{self.engine.title} ended its answer early ({readable(item.reason)}); ask something else."
                return
            yield self._step(item)

    def _too_much(self, arrival: Arrival) -> str | None:
        # A server may send a token in parts, but hardly in more than bytes.
        if self._length + len(arrival.pieces) > 8 * self.request.max_new_tokens + 64:
            return "wrote much more than it was asked for; tell the operator"
        return None

    def _step(self, arrival: Arrival) -> Step:
        start = self._length
        events = tuple(TokenEvent(start + i, self._id(piece), "commit", piece.confidence) for i, piece in enumerate(arrival.pieces))
        self._length += len(events)
        self._tokens = self._tokens and arrival.tokens
        step = Step(len(self.steps), "chunk", (start, start + len(events)), 0, arrival.at_ns, events)
        self.steps.append(step)
        return step

    def _id(self, piece: Piece) -> int:
        known = self._ids.setdefault(piece.text, len(self._ids))
        if known == len(self._pieces):
            self._pieces.append(piece.text)
        return known
