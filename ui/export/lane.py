"""One trace on its way through a film: how each slot of its text looks at the step reached."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from nemodiff_core.trace import EMITTED, Canvas, TokenText, Trace

from ui.export.flow import Flow, flow
from ui.export.pen import Pen

UNSEEN = -2  # a step before the first frame


class Look(NamedTuple):
    """How a slot looks. Equal looks are drawn alike."""

    state: str = "hidden"  # hidden, masked, shown, draft, rejected
    confidence: float | None = None
    fresh: bool = False
    revised: bool = False
    other: int | None = None  # the token that stands there, where it is not the final one


class Lane:
    """One trace on its way through the film; it only goes forward."""

    def __init__(self, trace: Trace, width: int, text: Pen, small: Pen) -> None:
        self.trace = trace
        self.start = len(trace.prompt.ids)
        self.canvas = Canvas(self.start)
        self.step, self.before = -1, UNSEEN  # shown in this frame, and in the one before
        self.moved = True
        self.final = trace.output.ids
        self.flow: Flow = flow([self.piece(i) for i in self.final], width, text, small)
        self._written: dict[int, int] = {}  # the token last emitted at a position
        self._revised: set[int] = set()
        self.reached = 0

    def piece(self, token: int) -> str:
        return self.trace.vocabulary[str(token)]

    def advance(self, step: int) -> None:
        """Go on to a step."""
        self.moved = step != self.step or self.before == UNSEEN
        self.before = self.step
        for one in self.trace.steps[self.step + 1 : step + 1]:
            self.canvas.apply(one)
            for event in one.events:
                cell = self.canvas.cells.get(event.position)
                self.reached = max(self.reached, event.position - self.start)
                if cell is not None and cell.status in EMITTED:
                    if self._written.setdefault(event.position, cell.token) != cell.token:
                        self._revised.add(event.position)
                    self._written[event.position] = cell.token
            if one.phase != "prefill":
                self.reached = max(self.reached, min(one.span[1] - self.start, len(self.final)) - 1)
        self.step = step

    def look(self, index: int) -> Look:
        """How the slot of output token `index` looks now."""
        position = self.start + index
        cell = self.canvas.cells.get(position)
        if cell is None:
            return Look()
        fresh = cell.step > self.before
        other = None if cell.token == self.final[index] else cell.token
        if cell.status in EMITTED:
            return Look("shown", cell.confidence, fresh, position in self._revised, other)
        if cell.status in ("draft", "rejected"):
            return Look(cell.status, None, False, False, other)
        return Look("masked")

    @property
    def done(self) -> bool:
        return self.step >= len(self.trace.steps) - 1

    def so_far(self) -> Trace:
        """The trace as if it had ended here: what its figures are counted on."""
        ids = self.canvas.output()[: len(self.final)]  # cells behind the end token are filled, then trimmed
        return replace(self.trace, steps=self.trace.steps[: self.step + 1], output=TokenText(ids, [""] * len(ids)))
