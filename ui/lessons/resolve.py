"""Lessons held against the recorded runs: every place found, every claim checked, every answer computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from ui.controls import GENERAL
from ui.lessons import markup, places
from ui.lessons.expressions import evaluate, holds, shown
from ui.lessons.lesson import Lesson, Part
from ui.lessons.library import Library, Run
from ui.lessons.places import Place
from ui.lessons.problem import LessonError
from ui.mode_form import DEFAULTS, MODES, form_values


def resolve(lesson: Lesson, library: Library) -> dict[str, Any]:
    """The lesson for the browser. Raises LessonError where a claim does not hold or a question has no one answer."""
    parts, scene = [], None
    for number, part in enumerate(lesson.parts, 1):
        try:
            scene = _scene(part, scene, library)
            parts.append(_part(part, scene, library))
        except LessonError as error:
            raise LessonError(f"{lesson.id}, part {number}: {error}") from error
    say = _sayer(None, library)
    return {
        "id": lesson.id, "title": lesson.title, "summary": lesson.summary, "minutes": lesson.minutes,
        "parts": parts, "notes": markup.blocks(lesson.notes, say) if lesson.notes else [],
    }  # fmt: skip


def _scene(part: Part, before: tuple[Run, Place, bool] | None, library: Library) -> tuple[Run, Place, bool] | None:
    """Run, step and cell that a part looks at, and whether it says so itself."""
    words = part.words
    if "show" not in words:
        if {"step", "cell"} & set(words) and before is None:
            raise LessonError("step and cell need a run; say which one with show.")
        run = before and before[0]
    else:
        run = library.run(words["show"])
    if run is None:
        return None
    at = places.find(words["step"], run) if "step" in words else Place(-1) if "show" in words else before[1]
    cell = at.position if "step" not in words else None
    if "cell" in words:
        wanted = words["cell"]
        cell = len(run.trace.prompt.ids) + int(wanted) - 1 if wanted.isdecimal() else places.find(wanted, run).position
        if cell is None:
            raise LessonError(f"“{wanted}” is a step without a cell.")
    if not -1 <= at.step < len(run.trace.steps):
        raise LessonError(f"“{run.name}” has no step {at.step + 1}.")
    return run, Place(at.step, cell), bool({"show", "step", "cell", "panel", "play"} & set(words))


def _part(part: Part, scene: tuple[Run, Place, bool] | None, library: Library) -> dict[str, Any]:
    run, at, told = scene or (None, None, False)
    for claim in part.claims:
        if not holds(claim, run, library):
            raise LessonError(f"it claims “{claim}”, which the recorded run does not show.")
    say, words = _sayer(run, library), part.words
    return {
        "heading": words.get("heading", ""),
        "show": _shown(run, at, words) if told else None,
        "body": markup.blocks(part.text, say) if part.text else [],
        "question": _question(part, run, library) if "question" in words else None,
        "try": try_link(run.trace.request) if run else None,
    }


def _shown(run: Run, at: Place, words: Mapping[str, str]) -> dict[str, Any]:
    cell = None if at.position is None else at.position - len(run.trace.prompt.ids)
    return {
        "run": f"recorded-{run.name}", "lane": run.lane, "step": at.step, "cell": cell,
        "panel": words.get("panel"), "play": "play" in words,
    }  # fmt: skip


def _question(part: Part, run: Run | None, library: Library) -> dict[str, Any]:
    say, words = _sayer(run, library), part.words
    asked: dict[str, Any] = {name: markup.inline(words.get(name, ""), say) for name in ("question", "hint", "because")}
    if part.choices:
        choices = [{"text": markup.inline(text, say), "right": holds(claim, run, library)} for text, claim in part.choices]
        if sum(choice["right"] for choice in choices) != 1:
            raise LessonError("of the choices exactly one must be right; the recorded run says otherwise.")
        return asked | {"kind": "choice", "choices": choices}
    if "answer" in words:
        answer = evaluate(words["answer"], run, library)
        if isinstance(answer, (str, bool)):
            raise LessonError("an answer is a number; use choices for words.")
        margin = abs(answer) * float(words.get("within", "0")) / 100
        return asked | {"kind": "number", "answer": shown(answer), "low": answer - margin - 1e-9, "high": answer + margin + 1e-9}
    what, _, phrase = words["pick"].partition(" ")
    if what not in ("cell", "step") or run is None:
        raise LessonError("what is picked is a cell or a step of the run that is shown.")
    at = places.find(phrase, run)
    target = at.step if what == "step" else at.position
    if target is None:
        raise LessonError(f"“{phrase}” is a step without a cell.")
    return asked | {"kind": what, "run": f"recorded-{run.name}", "lane": run.lane, "step": at.step, "position": at.position}


def try_link(request: Mapping[str, Any]) -> str | None:
    """The query that fills the live form with a recorded run's prompt and settings; None where no form has them."""
    if request["mode"] not in {mode for _, mode in MODES}:
        return None
    form = form_values(request)
    query = {name: found for name, found in form.items() if found != DEFAULTS[name]}
    query |= {name: request[name] for name, usual in GENERAL.items() if request.get(name) not in (None, usual)}
    text = {name: str(found).lower() if isinstance(found, bool) else str(found) for name, found in query.items()}
    return urlencode({"view": "refine", **text, "prompt": request["prompt"]})


def _sayer(run: Run | None, library: Library) -> Any:
    return lambda text: shown(evaluate(text, run, library))
