"""The thinking budget: `</think>` is written where the model has not written it in time (facts §4.1 step 3)."""

from __future__ import annotations

from nemodiff_core.decode.canvas import event
from nemodiff_core.decode.sampling import Look
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import TokenEvent


class ThinkingBudget:
    """Watches the emitted tokens, left to right.

    The answer may open with `max_thinking_tokens` tokens of thought; the token behind them is the end-think
    token, unless it stands among them. It is part of the text like any other: recorded, emitted and fed.
    """

    def __init__(self, request: DecodeRequest, end_think_id: int | None, origin: int) -> None:
        """`origin` is the position of the answer's first token."""
        self.token = end_think_id
        limited = request.max_thinking_tokens is not None and end_think_id is not None
        self.due = origin + request.max_thinking_tokens if limited else None  # None: nothing will be forced

    def event(self, kind: str, position: int, look: Look) -> TokenEvent:
        """What really stands at `position`: the chosen token as an event of `kind`, or a forced one as a pin."""
        if position == self.due:
            settled = TokenEvent(position, self.token, "pin")
        else:
            settled = event(kind, position, look)
        if settled.token == self.token:
            self.due = None
        return settled

    def reach(self, position: int) -> int:
        """`position`, or the forced token's where that comes first: no draft may stand there or behind it."""
        return position if self.due is None else min(position, self.due)
