"""What lessons may say about a recorded run. Every fact is found in the trace, none is written down.

A fact has a phrase for a name, `tokens` or `acceptance of cycle 2`. A place is a step and, mostly, a cell of it:
`the wrong commit`. Places are used through `step of …`, `cell of …`, `token at …` and so on. A phrase nobody
has defined is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nemodiff_core import metrics
from nemodiff_core.analysis.tasks import grade
from nemodiff_core.trace import EMITTED, STATUS, Canvas, Step, TokenEvent, Trace

from ui.lessons.library import Run
from ui.lessons.problem import LessonError

Value = int | float | str | bool


@dataclass(frozen=True)
class Place:
    """A step, -1 being the moment before the first, and a position or None."""

    step: int
    position: int | None = None


_FACTS: dict[str, Callable[..., Value]] = {}
_PLACES: dict[str, Callable[[Trace], Place | None]] = {}


def fact(phrase: str) -> Callable:
    """Define a fact; `{n}` in the phrase stands for a whole number that the function is given."""
    return lambda function: _FACTS.setdefault(phrase, function)


def place(phrase: str) -> Callable:
    """Define a place; its function answers None where a trace has no such place."""
    return lambda function: _PLACES.setdefault(phrase, function)


def value(phrase: str, run: Run) -> Value:
    """The fact of this name. Raises LessonError for an unknown one, or where the trace has none."""
    for form, read in _AT.items():
        if phrase.startswith(form + " "):
            return read(run, find(phrase.removeprefix(form + " "), run))
    for name, function in _FACTS.items():
        if match := re.fullmatch(re.escape(name).replace(r"\{n\}", r"(\d+)"), phrase):
            return function(run, *map(int, match.groups()))
    raise LessonError(f"“{phrase}” is no fact that lessons know; see ui/lessons/facts.py.")


def find(phrase: str, run: Run) -> Place:
    """The place of this name. Raises LessonError for an unknown one, or where the trace has none."""
    if phrase.isdecimal():
        return Place(int(phrase) - 1)
    if phrase not in _PLACES:
        raise LessonError(f"“{phrase}” is no place that lessons know; there are {', '.join(sorted(_PLACES))}.")
    found = _PLACES[phrase](run.trace)
    if found is None:
        raise LessonError(f"the recorded run “{run.name}” has no place “{phrase}”.")
    return found


def phrases() -> list[str]:
    """All facts and places."""
    return sorted([*_FACTS, *(f"{form} PLACE" for form in _AT), *_PLACES])


# -- figures ------------------------------------------------------------------------------------------


@fact("tokens")
def _tokens(run: Run) -> int:
    return metrics.tokens(run.trace)


@fact("forwards")
def _forwards(run: Run) -> int:
    return metrics.forwards(run.trace)


@fact("nfe")
def _nfe(run: Run) -> int:
    return metrics.nfe(run.trace)


@fact("tpf")
def _tpf(run: Run) -> float:
    return _there(metrics.tpf(run.trace), run)


@fact("acceptance length")
def _acceptance(run: Run) -> float:
    return _there(metrics.acceptance_length(run.trace), run)


@fact("longest acceptance")
def _longest(run: Run) -> int:
    return max(metrics.acceptance_lengths(run.trace))


@fact("shortest acceptance")
def _shortest(run: Run) -> int:
    return min(metrics.acceptance_lengths(run.trace))


@fact("acceptance of cycle {n}")
def _acceptance_of(run: Run, n: int) -> int:
    return metrics.acceptance_lengths(run.trace)[_nth(n, metrics.acceptance_lengths(run.trace)) - 1]


@fact("cycles")
def _cycles(run: Run) -> int:
    return len(metrics.acceptance_lengths(run.trace))


@fact("tokens per second")
def _rate(run: Run) -> float:
    return _there(metrics.tokens_per_second(run.trace), run)


@fact("seconds")
def _seconds(run: Run) -> float:
    return metrics.seconds(run.trace)


@fact("milliseconds")
def _milliseconds(run: Run) -> float:
    return metrics.seconds(run.trace) * 1000


@fact("milliseconds per forward")
def _per_forward(run: Run) -> float:
    return metrics.seconds(run.trace) * 1000 / metrics.forwards(run.trace)


@fact("block length")
def _block_length(run: Run) -> int:
    return run.trace.request["block_length"]


@fact("masks in a block")
def _masks(run: Run) -> int:
    return run.trace.request["block_length"] - 1  # the seed stands in its first cell


@fact("threshold")
def _threshold(run: Run) -> float:
    return _there(run.trace.request["threshold"], run)


@fact("revise bound")
def _revise_bound(run: Run) -> float:
    return _there(run.trace.request["revise_bound"], run)


@fact("temperature")
def _temperature(run: Run) -> float:
    return run.trace.request["temperature"]


@fact("prompt tokens")
def _prompt_tokens(run: Run) -> int:
    return len(run.trace.prompt.ids)


@fact("blocks")
def _blocks(run: Run) -> int:
    return metrics.blocks(run.trace)


for _phase, _phrase in {"denoise": "denoise forwards", "commit": "commit passes", "draft": "drafts", "verify": "verifications", "revise": "revisions"}.items():
    fact(_phrase)(lambda run, phase=_phase: sum(step.phase == phase for step in run.trace.steps))


@fact("positions read")
def _positions(run: Run) -> int:
    """Positions that went through the model behind the prompt."""
    if run.trace.request["mode"] == "quadratic_spec":
        raise LessonError("a quadratic forward reads several copies of its span, which the trace does not count.")
    return sum(step.span[1] - step.span[0] for step in run.trace.steps if step.phase != "prefill")


@fact("positions per token")
def _positions_per_token(run: Run) -> float:
    return _positions(run) / metrics.tokens(run.trace)


@fact("most commits in a forward")
def _most(run: Run) -> int:
    return max(map(_commits, run.trace.steps))


@fact("wrong commits")
def _wrong(run: Run) -> int:
    return sum(note["kind"] == "wrong_commit" for note in run.trace.annotations)


@fact("pinned tokens")
def _pinned(run: Run) -> int:
    return sum(event.kind == "pin" for step in run.trace.steps for event in step.events)


@fact("gap tokens")
def _gap_tokens(run: Run) -> int:
    return metrics.tokens(run.trace) - _pinned(run)


@fact("text")
def text_of(run: Run) -> str:
    """The answer, without the token that ended it."""
    pieces = run.trace.output.pieces
    return "".join(pieces[:-1] if run.trace.stop_reason == "eos" else pieces).strip()


@fact("first token")
def _first_token(run: Run) -> str:
    return run.trace.output.pieces[0].strip()


@fact("last word")
def _last_word(run: Run) -> str:
    return text_of(run).split()[-1]


@fact("prompt")
def _prompt(run: Run) -> str:
    return run.trace.request["prompt"]


@fact("draft")
def _draft(run: Run) -> str:
    return _there(run.trace.request["draft"], run)


@fact("answer")
def _answer(run: Run) -> str:
    """What the checker calls right."""
    return _problem(run).answer


@fact("right result")
def _right_result(run: Run) -> str:
    return _problem(run).answer.split()[-1]


@fact("exact")
def exact(run: Run) -> bool:
    """Whether the task's own checker takes the answer."""
    return grade(_problem(run), text_of(run)).correct


@fact("ended by itself")
def _ended(run: Run) -> bool:
    return run.trace.stop_reason == "eos"


# -- places -------------------------------------------------------------------------------------------


@place("start")
def _start(trace: Trace) -> Place:
    return Place(-1)


@place("end")
def _end(trace: Trace) -> Place:
    return Place(len(trace.steps) - 1)


for _name, _phase in {"first denoise": "denoise", "first commit pass": "commit", "first draft": "draft", "first verification": "verify", "first revision pass": "revise"}.items():
    place(_name)(lambda trace, phase=_phase: next((Place(s.index) for s in trace.steps if s.phase == phase), None))


@place("last denoise")
def _last_denoise(trace: Trace) -> Place | None:
    return next((Place(step.index) for step in reversed(trace.steps) if step.phase == "denoise"), None)


@place("busiest forward")
def _busiest(trace: Trace) -> Place | None:
    step = max(trace.steps, key=_commits)
    return Place(step.index) if _commits(step) else None


@place("least sure token")
def _least_sure(trace: Trace) -> Place | None:
    events = [e for e in _writing(trace) if e[1].confidence is not None]
    step, event = min(events, key=lambda e: e[1].confidence, default=(None, None))
    return step and Place(step.index, event.position)


@place("wrong commit")
def wrong_commit(trace: Trace) -> Place | None:
    """The first commit that the detector calls wrong and that stayed in the answer."""
    first = len(trace.prompt.ids)
    output = dict(enumerate(trace.output.ids, first))
    for note in trace.annotations:
        if note["kind"] == "wrong_commit" and output.get(note["position"]) == note["token"]:
            return Place(note["step"], note["position"])
    return None


@place("missed neighbour")
def neighbour(trace: Trace) -> Place | None:
    """The nearest cell to the left that the wrong commit should have repeated, committed in the same forward."""
    if (found := wrong_commit(trace)) is None:
        return None
    note = next(n for n in trace.annotations if (n.get("step"), n["position"]) == (found.step, found.position))
    right = trace.vocabulary[str(note["alternative"])].strip()
    beside = [
        event.position for event in trace.steps[found.step].events
        if event.kind == "commit" and event.position < found.position and trace.vocabulary[str(event.token)].strip() == right
    ]  # fmt: skip
    return Place(found.step, max(beside)) if beside else None


@place("longest cycle")
def _longest_cycle(trace: Trace) -> Place | None:
    """The verification that emitted most."""
    checks = [step for step in trace.steps if step.phase == "verify"]
    best = max(checks, key=lambda step: sum(e.kind in ("accept", "bonus") for e in step.events), default=None)
    return best and Place(best.index)


@place("last mask of the first block")
def _last_of_first(trace: Trace) -> Place | None:
    """The last cell that the denoise forwards of the first block filled."""
    filled = [(s, e) for s in trace.steps if s.phase == "denoise" and s.block == 0 for e in s.events if e.kind == "commit"]
    return Place(filled[-1][0].index, filled[-1][1].position) if filled else None


@place("rejection")
def rejection(trace: Trace) -> Place | None:
    """The first verification that put another token in the place of a draft."""
    for step in trace.steps:
        refused = {event.position: event.token for event in step.events if event.kind == "reject"}
        for event in step.events:
            if event.kind == "bonus" and refused.get(event.position, event.token) != event.token:
                return Place(step.index, event.position)
    return None


@place("seed of the second block")
def _second_seed(trace: Trace) -> Place | None:
    """The token that a commit pass hands to the block behind it."""
    return next((Place(s.index, e.position) for s in trace.steps if s.phase == "commit" for e in s.events if e.kind == "seed"), None)


@place("draft before the rejection")
def _before_rejection(trace: Trace) -> Place | None:
    found = rejection(trace)
    return found and Place(found.step - 1, found.position)


@place("revision")
def revision(trace: Trace) -> Place | None:
    """The first time that a token of the text gives way to another one."""
    draft = trace.request["mode"] == "refine"
    held: dict[int, int] = {}
    for step in trace.steps:
        for event in step.events:
            if STATUS[event.kind] in EMITTED or (draft and event.kind == "draft"):
                if held.setdefault(event.position, event.token) != event.token:
                    return Place(step.index, event.position)
                held[event.position] = event.token
    return None


@place("before the revision")
def _before_revision(trace: Trace) -> Place | None:
    found = revision(trace)
    return found and Place(found.step - 1, found.position)


@place("reopening")
def reopening(trace: Trace) -> Place | None:
    """The first token that a denoise forward masked again."""
    return next((Place(s.index, e.position) for s in trace.steps if s.phase == "denoise" for e in s.events if e.kind == "remask"), None)


@place("block in one forward")
def block_in_one(trace: Trace) -> Place | None:
    """A denoise forward that filled every mask of its block."""
    masks = trace.request["block_length"] - 1
    return next((Place(s.index) for s in trace.steps if s.phase == "denoise" and _commits(s) == masks), None)


@place("early end")
def early_end(trace: Trace) -> Place | None:
    """The end token committed while cells to its left are still masks."""
    if trace.stop_reason != "eos":
        return None
    last, canvas = len(trace.prompt.ids) + len(trace.output.ids) - 1, Canvas(len(trace.prompt.ids))
    for step in trace.steps:
        canvas.apply(step)
        done = any(event.kind == "commit" and event.position == last for event in step.events)
        if done and any(p < last and cell.status == "masked" for p, cell in canvas.cells.items()):
            return Place(step.index, last)
    return None


@place("last cell to be filled")
def _last_filled(trace: Trace) -> Place | None:
    """The last mask of the run that became a token of the answer."""
    end = len(trace.prompt.ids) + len(trace.output.ids)
    found = [(s, e) for s, e in _writing(trace) if e.kind == "commit" and e.position < end]
    return Place(found[-1][0].index, found[-1][1].position) if found else None


@place("gap")
def _gap(trace: Trace) -> Place | None:
    """The first token that an infill wrote itself."""
    return next((Place(s.index, e.position) for s, e in _writing(trace) if e.kind == "commit"), None)


@place("last gap")
def _last_gap(trace: Trace) -> Place | None:
    found = [(s, e) for s, e in _writing(trace) if e.kind == "commit"]
    return Place(found[-1][0].index, found[-1][1].position) if found else None


# -- what is at a place -------------------------------------------------------------------------------


def _step_at(run: Run, at: Place) -> int:
    return at.step + 1


def _cell_at(run: Run, at: Place) -> int:
    """As the player numbers it: within the positions that the step's forward read."""
    return _position(run, at) - run.trace.steps[at.step].span[0] + 1


def _token_at(run: Run, at: Place) -> str:
    cell = run.trace.canvas_at(at.step).cells.get(_position(run, at))
    if cell is None or cell.token is None:
        raise LessonError(f"the recorded run “{run.name}” has no token in that cell at step {at.step + 1}.")
    return _piece(run, cell.token)


def _confidence_at(run: Run, at: Place) -> float:
    cell = run.trace.canvas_at(at.step).cells.get(_position(run, at))
    return _there(cell and cell.confidence, run)


def _runner_up(run: Run, at: Place) -> str:
    return _piece(run, _candidates(run, at).ids[1])


def _runner_up_probability(run: Run, at: Place) -> float:
    return _candidates(run, at).probabilities[1]


def _candidates(run: Run, at: Place) -> Any:
    position = _position(run, at)
    for step in reversed(run.trace.steps[: at.step + 1]):
        for seen in step.candidates:
            if seen.position == position and len(seen.ids) > 1:
                return seen
    raise LessonError(f"the recorded run “{run.name}” keeps no candidates of that cell.")


def _note(run: Run, at: Place) -> dict[str, Any]:
    for note in run.trace.annotations:
        if note["kind"] == "wrong_commit" and (note["step"], note["position"]) == (at.step, at.position):
            return note
    raise LessonError(f"the detector says nothing about that cell of “{run.name}”.")


def _replaced(run: Run, at: Place) -> str:
    """The token that stood there one step earlier, or the draft that was refused."""
    position = _position(run, at)
    refused = [e.token for e in run.trace.steps[at.step].events if e.kind == "reject" and e.position == position]
    before = run.trace.canvas_at(at.step - 1).cells.get(position)
    token = refused[0] if refused else before and before.token
    given = [e.token for e in run.trace.steps[at.step].events if e.kind == "draft" and e.position == position]
    return _piece(run, _there(given[0] if given else token, run))


def _count(*kinds: str) -> Callable[[Run, Place], int]:
    return lambda run, at: sum(event.kind in kinds for event in run.trace.steps[at.step].events)


def _masks_after(run: Run, at: Place) -> int:
    return sum(cell.status == "masked" for cell in run.trace.canvas_at(at.step).cells.values())


_AT: dict[str, Callable[[Run, Place], Value]] = {
    "step of": _step_at,
    "cell of": _cell_at,
    "block of": lambda run, at: run.trace.steps[at.step].block + 1,
    "phase of": lambda run, at: run.trace.steps[at.step].phase,
    "token at": _token_at,
    "confidence at": _confidence_at,
    "runner-up at": _runner_up,
    "runner-up probability at": _runner_up_probability,
    "alternative at": lambda run, at: _piece(run, _note(run, at)["alternative"]),
    "alternative probability at": lambda run, at: _note(run, at)["alternative_probability"],
    "replaced at": _replaced,
    "commits at": _count("commit"),
    "accepted at": _count("accept"),
    "rejected at": _count("reject"),
    "drafted at": _count("draft"),
    "remasked at": _count("remask"),
    "emitted at": _count("accept", "bonus"),
    "masks after": _masks_after,
    "positions read at": lambda run, at: run.trace.steps[at.step].span[1] - run.trace.steps[at.step].span[0],
}


def _writing(trace: Trace) -> Iterator[tuple[Step, TokenEvent]]:
    """Every event that put a token into the text, in order."""
    end = len(trace.prompt.ids) + len(trace.output.ids)
    for step in trace.steps:
        for event in step.events:
            if STATUS[event.kind] in EMITTED and event.position < end:
                yield step, event


def _commits(step: Step) -> int:
    return sum(event.kind == "commit" for event in step.events)


def _nth(n: int, items: list[Any]) -> int:
    if not 1 <= n <= len(items):
        raise LessonError(f"there is no {n}th of {len(items)}.")
    return n


def _position(run: Run, at: Place) -> int:
    return _there(at.position, run)


def _piece(run: Run, token: int) -> str:
    return run.trace.vocabulary[str(token)].strip() or run.trace.vocabulary[str(token)].replace("\n", "⏎")


def _problem(run: Run) -> Any:
    return _there(run.problem, run)


def _there(found: Any, run: Run) -> Any:
    if found is None:
        raise LessonError(f"the recorded run “{run.name}” has no such figure or cell.")
    return found
