"""A revision as a diff: what of the draft would change, and what the causal pass thought of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from nemodiff_core.trace import Score, Trace

Decode = Callable[[Sequence[int]], str]
Hunk = tuple[int, int, int, int]  # [start, end) in the draft and in the output, in tokens
_BROKEN = "\ufffd"  # what a part of a character decodes to


def parts(trace: Trace, decode: Decode) -> list[dict[str, Any]]:
    """A finished or stopped refinement in the order of the text: `{"text"}` that stays, `{"before", "after", "cause"}`.

    The parts' `text` and `before` join to the draft. What a stopped run did not reach stays.
    """
    first = len(trace.prompt.ids)
    draft, after = drafted(trace), trace.output.ids
    before = [draft[first + i] for i in range(len(after)) if first + i in draft]
    made: list[dict[str, Any]] = []

    def keep(text: str) -> None:
        if text:
            made.append({"text": text})

    reached = 0
    for low, high, new_low, new_high in hunks(before, after, decode):
        keep(decode(before[reached:low]))
        made.append(
            {
                "before": decode(before[low:high]),
                "after": decode(after[new_low:new_high]),
                "cause": cause(trace, first + low, first + max(high, low + 1), draft, decode),
            }
        )
        reached = high
    keep(decode(before[reached:]))
    told = "".join(part.get("text", part.get("before", "")) for part in made)
    given = trace.request.get("draft") or ""
    if given.startswith(told):
        keep(given[len(told) :])
    return made


def drafted(trace: Trace) -> dict[int, int]:
    """The tokens of the draft by position, as the steps tell them."""
    found: dict[int, int] = {}
    for step in trace.steps:
        for event in step.events:
            if event.kind in ("draft", "pin"):
                found.setdefault(event.position, event.token)
    return found


def hunks(before: Sequence[int], after: Sequence[int], decode: Decode) -> list[Hunk]:
    """Where two texts differ, in whole words.

    Cells are compared with themselves, unless the revision moved text along: then the two are aligned.
    """
    blocks = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    aligned = [(a, b, c, d) for kind, a, b, c, d in blocks if kind != "equal"]
    places = [(i, i + 1, i, i + 1) for i, (old, new) in enumerate(zip(before, after)) if old != new]
    chosen = places if len(places) <= sum(max(b - a, d - c) for a, b, c, d in aligned) else aligned
    return _whole_words(chosen, [decode([i]) for i in before], [decode([i]) for i in after])


def _whole_words(found: Sequence[Hunk], before: Sequence[str], after: Sequence[str]) -> list[Hunk]:
    grown: list[Hunk] = []
    for a, b, c, d in found:
        while a > 0 and c > 0 and (_joined(before, a) or _joined(after, c)):
            a, c = a - 1, c - 1
        while b < len(before) and d < len(after) and (_joined(before, b) or _joined(after, d)):
            b, d = b + 1, d + 1
        if grown and (a <= grown[-1][1] or c <= grown[-1][3]):
            a, _, c, _ = grown.pop()
        grown.append((a, b, c, d))
    return grown


def _joined(pieces: Sequence[str], at: int) -> bool:
    """Whether a word, or even a character, runs across the edge before piece `at`."""
    if not 0 < at < len(pieces):
        return False
    left, right = pieces[at - 1][-1:], pieces[at][:1]
    return all(c.isalnum() or c == _BROKEN for c in (left, right) if c) and bool(left and right)


def cause(trace: Trace, start: int, end: int, draft: Mapping[int, int], decode: Decode) -> dict[str, Any] | None:
    """What the causal pass first thought of the draft at positions [start, end): its lowest score; None where none is recorded.

    `doubted`: this is why the cell was written again; otherwise a doubted token before it was.
    """
    first: dict[int, tuple[Score, int]] = {}
    for step in trace.steps:
        for score in step.scores:
            if start <= score.position < end and score.token == draft.get(score.position):
                first.setdefault(score.position, (score, step.index))
    if not first:
        return None
    score, step = min(first.values(), key=lambda found: (not _doubts(trace.request, found[0]), found[0].probability))
    return {
        "token": decode([score.token]),
        "probability": score.probability,
        "rank": score.rank,
        "step": step,
        "doubted": _doubts(trace.request, score),
    }


def _doubts(request: Mapping[str, Any], score: Score) -> bool:
    """As decode/refine.py decides it."""
    rank = request.get("revise_rank")
    return score.rank > 0 and (score.probability < request.get("revise_bound", 0.1) or (rank is not None and score.rank >= rank))
