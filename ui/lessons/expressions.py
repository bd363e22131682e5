"""What stands in a lesson's braces, questions and claims: facts, compared and related, over the recorded runs.

    tokens                          a fact of the run that is shown
    forwards in sum-ar              of another recorded run; `in story/ar` names a lane
    tokens / forwards               one arithmetic sign
    exact                           true or false; `not exact` turns it round
    text = text in sum-ar           a comparison: = != < <= > >=
    exact and wrong commits = 0     both
    3, 0.5, "Rome"                  themselves
"""

from __future__ import annotations

import operator
import re

from ui.lessons import facts
from ui.lessons.facts import Value
from ui.lessons.library import Library, Run
from ui.lessons.problem import LessonError

_COMPARED = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_RELATED = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_COMPARISON = re.compile(r"(.+?) (=|!=|<=|>=|<|>) (.+)")
_ARITHMETIC = re.compile(r"(.+?) ([-+*/]) (.+)")
_ELSEWHERE = re.compile(r"(.+) in ([a-z0-9-]+(?:/[a-z0-9_]+)?)")


def evaluate(text: str, run: Run | None, library: Library) -> Value:
    """The value of an expression; `run` is the one shown. Raises LessonError."""
    text = text.strip()
    if " and " in text:
        return all([holds(part, run, library) for part in text.split(" and ")])
    if match := _COMPARISON.fullmatch(text):
        left, sign, right = match.groups()
        a, b = evaluate(left, run, library), evaluate(right, run, library)
        if isinstance(a, str) != isinstance(b, str):
            raise LessonError(f"“{text}” compares text with a number.")
        return bool(_COMPARED[sign](a, b))
    if text.startswith("not "):
        return not holds(text.removeprefix("not "), run, library)
    if re.fullmatch(r'"[^"]*"', text):
        return text[1:-1]
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return float(text) if "." in text else int(text)
    if match := _ARITHMETIC.fullmatch(text):
        left, sign, right = match.groups()
        a, b = evaluate(left, run, library), evaluate(right, run, library)
        if isinstance(a, str) or isinstance(b, str):
            raise LessonError(f"“{text}” calculates with text.")
        return _RELATED[sign](a, b)
    if match := _ELSEWHERE.fullmatch(text):
        return facts.value(match[1], library.run(match[2]))
    if run is None:
        raise LessonError(f"“{text}” is said of a run, but the step shows none.")
    return facts.value(text, run)


def holds(text: str, run: Run | None, library: Library) -> bool:
    """Whether a claim is true. Raises LessonError where it is none."""
    found = evaluate(text, run, library)
    if not isinstance(found, bool):
        raise LessonError(f"“{text}” is neither true nor false.")
    return found


def shown(found: Value) -> str:
    """A value as it is read in a sentence."""
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, float):
        if 0.9995 <= found < 1:
            return "more than 0.999"
        if 0 < found < 0.0005:
            return "less than 0.001"
        if abs(found) >= 100:
            return f"{found:.0f}"
        return re.sub(r"(\.\d+?)0+$", r"\1", f"{found:.{1 if abs(found) >= 10 else 2}f}")
    return str(found)
