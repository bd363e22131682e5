"""What lessons may say about a recorded run. Every fact is found in the trace, none is written down.

A fact has a phrase for a name, `tokens` or `acceptance of cycle 2`. Places (places.py) are used through `step of …`,
`cell of …`, `token at …` and so on. A phrase nobody has defined is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from nemodiff_core import metrics
from nemodiff_core.analysis.tasks import grade

from ui.lessons.library import Run
from ui.lessons.places import Place, commits, find
from ui.lessons.problem import LessonError

Value = int | float | str | bool
_FACTS: dict[str, Callable[..., Value]] = {}


def fact(phrase: str) -> Callable:
    """Define a fact; `{n}` in the phrase stands for a whole number that the function is given."""
    return lambda function: _FACTS.setdefault(phrase, function)


def value(phrase: str, run: Run) -> Value:
    """The fact of this name. Raises LessonError for an unknown one, or where the trace has none."""
    for form, read in _AT.items():
        if phrase.startswith(form + " "):
            return read(run, find(phrase.removeprefix(form + " "), run))
    for name, function in _FACTS.items():
        if match := re.fullmatch(re.escape(name).replace(r"\{n\}", r"(\d+)"), phrase):
            return function(run, *map(int, match.groups()))
    raise LessonError(f"“{phrase}” is no fact that lessons know; see ui/lessons/facts.py.")


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
    return max(map(commits, run.trace.steps))


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
