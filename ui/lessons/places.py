"""Places that lessons may speak of: a step of a recorded run and, mostly, a cell of it, like `wrong commit`.

Like facts they are found in the trace. A phrase nobody has defined is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nemodiff_core.trace import EMITTED, STATUS, Canvas, Step, TokenEvent, Trace

from ui.lessons.library import Run
from ui.lessons.problem import LessonError


@dataclass(frozen=True)
class Place:
    """A step, -1 being the moment before the first, and a position or None."""

    step: int
    position: int | None = None


_PLACES: dict[str, Callable[[Trace], Place | None]] = {}


def place(phrase: str) -> Callable:
    """Define a place; its function answers None where a trace has no such place."""
    return lambda function: _PLACES.setdefault(phrase, function)


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
    step = max(trace.steps, key=commits)
    return Place(step.index) if commits(step) else None


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
    return _last([(s, e) for s in trace.steps if s.phase == "denoise" and s.block == 0 for e in s.events if e.kind == "commit"])


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
    return next((Place(s.index) for s in trace.steps if s.phase == "denoise" and commits(s) == masks), None)


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
    return _last([(s, e) for s, e in _writing(trace) if e.kind == "commit" and e.position < end])


@place("gap")
def _gap(trace: Trace) -> Place | None:
    """The first token that an infill wrote itself."""
    return next((Place(s.index, e.position) for s, e in _writing(trace) if e.kind == "commit"), None)


@place("last gap")
def _last_gap(trace: Trace) -> Place | None:
    return _last([(s, e) for s, e in _writing(trace) if e.kind == "commit"])


def _writing(trace: Trace) -> Iterator[tuple[Step, TokenEvent]]:
    """Every event that put a token into the text, in order."""
    end = len(trace.prompt.ids) + len(trace.output.ids)
    for step in trace.steps:
        for event in step.events:
            if STATUS[event.kind] in EMITTED and event.position < end:
                yield step, event


def _last(events: list[tuple[Step, TokenEvent]]) -> Place | None:
    return Place(events[-1][0].index, events[-1][1].position) if events else None


def commits(step: Step) -> int:
    """How many cells a forward filled."""
    return sum(event.kind == "commit" for event in step.events)
