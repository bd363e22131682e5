"""Blind races: the lanes in an order that nobody knows, without names or figures, until the visitor has voted."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nemodiff_core.errors import NemodiffError, RequestError

from ui.jobs import Job, Lane
from ui.messages import documents
from ui.parts import as_object
from ui.runs import RunStore
from ui.votes import Votes

MAX_PROMPTS = 50
Lanes = Callable[[str], Sequence[Lane]]  # prompt -> the lanes, in the form's order


@dataclass
class Round:
    """One prompt of a list, and what the visitor said of its answers."""

    prompts: tuple[str, ...]
    lanes: Lanes
    number: int = 0
    best: list[int] | None = None  # once voted: the lanes called best

    def job(self) -> Job:
        """Run the lanes in a random order, which is also the order shown."""
        lanes = list(self.lanes(self.prompts[self.number]))
        random.SystemRandom().shuffle(lanes)
        return Job(tuple(lanes), blind=self)

    def following(self) -> Round:
        """The round of the next prompt. Raises NemodiffError behind the last."""
        if self.number + 1 >= len(self.prompts):
            raise NemodiffError("That was the last prompt of the list; change it or run it again.")
        return Round(self.prompts, self.lanes, self.number + 1)

    def told(self) -> dict[str, Any]:
        """What the browser is told."""
        return {"number": self.number, "of": len(self.prompts), "best": self.best}


def prompts(text: Any, prompt: str) -> tuple[str, ...]:
    """The prompts of a list, one a line; the shared prompt where the list is empty. Raises RequestError."""
    listed = tuple(line.strip() for line in str(text or "").splitlines() if line.strip())
    if len(listed) > MAX_PROMPTS:
        raise RequestError(f"The list has {len(listed)} prompts, but at most {MAX_PROMPTS} are run one after another; shorten it.")
    return listed or (prompt,)


def cast(store: RunStore, votes: Votes, ballot: Any) -> dict[str, Any]:
    """Keep a vote, {run, best: lane numbers}; what the browser may then show. Raises NemodiffError."""
    ballot = as_object(ballot)
    record = store.get(ballot.get("run"))
    best = ballot.get("best")
    if not (isinstance(best, list) and all(type(n) is int and 0 <= n < record.lanes for n in best) and len(set(best)) == len(best)):
        raise NemodiffError("The vote could not be read; reload the page and vote again.")
    if record.blind is None or record.blind.best is not None:
        raise NemodiffError("There is nothing to vote on here; run a blind race first.")
    traces = documents(record)
    if len(traces) < record.lanes or any(trace["stop_reason"] in ("cancelled", "error") for trace in traces):
        raise NemodiffError("Not every lane has written its answer; run the comparison again.")
    lanes = [{"model": trace["model"], "request": trace["request"]} for trace in traces]
    votes.add(record.id, record.blind.prompts[record.blind.number], lanes, best)
    record.blind.best = sorted(best)
    return {"blind": record.blind.told()}
