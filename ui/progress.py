"""A run as those without a browser follow it: the text so far, counts, and at the end figures and the trace.

It reads the messages that the player reads (ui/messages.py), so that both are told the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

from nemodiff_core.trace import REMOTE, Canvas
from nemodiff_core.trace_reader import StepReader


class Answer(TypedDict):
    """One lane: what it has written, and once it has ended how it went."""

    title: str  # its mode and settings in words
    text: str
    tokens: int | None  # None: a server tells neither tokens nor their number
    forwards: int | None  # of the model; None where a server ran them
    stop_reason: str | None  # eos, length, cancelled, deadline or error; None: not ended
    problem: str | None  # what went wrong, as a sentence
    metrics: dict[str, Any] | None  # with the end
    identical: dict[str, Any] | None  # of self-speculation: whether it wrote what a greedy AR lane wrote
    trace: dict[str, Any] | None  # with the end, where it was asked for


class Writing:
    """One lane as its messages tell it."""

    def __init__(self, title: str, engine: Callable[[], Any]) -> None:
        """`engine()`: whose tokens these are, while it is in memory; without it the pieces are joined."""
        self.title, self._engine = title, engine
        self._pieces: dict[int, str] = {}
        self._steps: list[Any] = []
        self._canvas = Canvas(0)
        self._reader: StepReader | None = None
        self._remote = False
        self._whole = ""
        self.tail: dict[str, Any] | None = None
        self.problem: str | None = None

    def take(self, message: dict[str, Any]) -> None:
        """One message of the live protocol about this lane."""
        self._pieces |= {int(token): piece for token, piece in message["vocabulary"].items()}
        if message["type"] == "open":
            self._remote = message["head"]["request"]["mode"] == REMOTE
            start = len(message["head"]["prompt"]["ids"])
            self._canvas, self._reader = Canvas(start), StepReader(start, self._steps)
        elif message["type"] == "steps":
            for raw in message["steps"]:
                self._steps.append(self._reader.read(raw))
                self._canvas.apply(self._steps[-1])
        elif message["type"] == "end":
            self.tail = message["tail"]
            self._whole = self._text(self.tail["output"]["ids"])
            self.problem = (self.tail["environment"].get(REMOTE) or {}).get("problem")
        elif message["type"] == "fault":
            self.problem = message["text"]

    def answer(self, trace: dict[str, Any] | None = None) -> Answer:
        """The lane as it stands."""
        ids = self._canvas.output()
        figures = self.tail["metrics"] if self.tail else None
        return {
            "title": self.title,
            "text": self._whole if self.tail else self._text(ids),
            "tokens": figures["tokens"] if figures else None if self._remote else len(ids),
            "forwards": None if self._remote else len(self._steps),
            "stop_reason": self.tail["stop_reason"] if self.tail else "error" if self.problem else None,
            "problem": self.problem,
            "metrics": figures,
            "identical": self.tail["identical"] if self.tail else None,
            "trace": trace,
        }

    def _text(self, ids: Sequence[int]) -> str:
        engine = None if self._remote else self._engine()
        if engine is None:
            return "".join(self._pieces[token] for token in ids)
        return engine.text(ids)


class Progress:
    """All lanes of a run."""

    def __init__(self, lanes: Sequence[Writing]) -> None:
        self.lanes = lanes

    def take(self, message: str) -> None:
        """One message as it is sent to the player."""
        told = json.loads(message)
        self.lanes[told["lane"]].take(told)
        if told["type"] == "end":
            # An AR lane may come after the lanes that it is the measure of.
            for lane, verdict in told["tail"]["verdicts"].items():
                if self.lanes[int(lane)].tail:
                    self.lanes[int(lane)].tail["identical"] = verdict
