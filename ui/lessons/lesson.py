"""One lesson as it stands in its file: a head, parts divided by `---`, and notes for the teacher.

    title: One token at a time
    summary: …
    minutes: 4
    ---
    heading: Predict
    show: sum-careless              a recorded run; `story/ar` is one of its lanes
    step: wrong commit              a place of it, a number, `start` or `end`
    cell: wrong commit
    panel: pattern                  of the player
    play: yes                       from that step on
    claim: not exact                what the part relies on
    question: Which token belongs there?
    - `3` :: alternative at wrong commit = "3"
    - `4` :: token at wrong commit = "3"
    hint: …
    because: …
    Any other line is text (markup.py); `{tokens}` says a fact (facts.py).
    ---
    notes:
    For the teacher.

In place of choices a question has `answer: acceptance of cycle 2` (a number; `within: 10` allows so many percent),
or `pick: cell wrong commit` / `pick: step first commit pass` (something to select in the player). A part
without `show` looks at what the part before it shows. A translation changes the words and leaves the rest alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from ui.lessons.problem import LessonError

_HEAD = ("title", "summary", "minutes")
_ONCE = ("heading", "show", "step", "cell", "panel", "play", "question", "answer", "within", "pick", "hint", "because")
_LINE = re.compile(r"([a-z]+): ?(.*)")
PANELS = ("map", "history", "pattern", "cycles")


@dataclass
class Part:
    """One step of a lesson, as written."""

    words: dict[str, str] = field(default_factory=dict)
    claims: list[str] = field(default_factory=list)
    choices: list[tuple[str, str]] = field(default_factory=list)  # text, claim
    text: str = ""

    def plan(self) -> tuple:
        """Everything that is not language: what a translation must leave as it is."""
        kept = {name: found for name, found in self.words.items() if name not in ("heading", "question", "hint", "because")}
        return (kept, "question" in self.words, self.claims, [claim for _, claim in self.choices])


@dataclass
class Lesson:
    """A whole lesson, as written."""

    id: str
    title: str
    summary: str
    minutes: int
    parts: list[Part]
    notes: str


def read(path: Path) -> Lesson:
    """The lesson in a file. Raises LessonError with the file's name and what is wrong."""
    try:
        head, *sections = re.split(r"^---\s*$", path.read_text("utf-8"), flags=re.M)
        words = _head(head)
        notes = ""
        if sections and sections[-1].lstrip().startswith("notes:"):
            notes = sections.pop().strip().removeprefix("notes:").strip()
        if not sections:
            raise LessonError("a lesson needs at least one part behind its head.")
        return Lesson(path.stem, words["title"], words["summary"], int(words["minutes"]), [_part(s) for s in sections], notes)
    except LessonError as error:
        raise LessonError(f"{path.name}: {error}") from error


def _head(text: str) -> dict[str, str]:
    words = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        match = _LINE.fullmatch(line)
        if match is None or match[1] not in _HEAD:
            raise LessonError(f"“{line[:60]}” is no line of a lesson's head, which has {', '.join(_HEAD)}.")
        words[match[1]] = match[2]
    if missing := [name for name in _HEAD if not words.get(name)]:
        raise LessonError(f"the head lacks {missing[0]}.")
    if not words["minutes"].isdecimal():
        raise LessonError("minutes must be a whole number.")
    return words


def _part(text: str) -> Part:
    part, rest, asking = Part(), [], False
    for line in text.strip().splitlines():
        match = _LINE.fullmatch(line)
        choice = line.startswith("- ") and " :: " in line
        if choice and asking:
            words, _, claim = line[2:].rpartition(" :: ")
            part.choices.append((words.strip(), claim.strip()))
        elif match and match[1] == "claim":
            part.claims.append(match[2])
        elif match and match[1] in _ONCE:
            if match[1] in part.words:
                raise LessonError(f"a part says {match[1]} twice.")
            part.words[match[1]] = match[2]
            asking = match[1] == "question"
        elif match and " " not in match[1] and not rest and not part.text and match[1] not in _ONCE:
            raise LessonError(f"“{match[1]}” is no word that lessons know; there are claim, {', '.join(_ONCE)}.")
        else:
            rest.append(line)
            asking = asking and not line.strip()
    part.text = "\n".join(rest).strip()
    _check(part)
    return part


def _check(part: Part) -> None:
    words = part.words
    ways = [bool(part.choices), "answer" in words, "pick" in words]
    if "question" in words and sum(ways) != 1:
        raise LessonError("a question has choices, or an answer, or something to pick: one of the three.")
    if "question" not in words and any(ways):
        raise LessonError("there are answers without a question.")
    if words.get("panel") not in (None, *PANELS):
        raise LessonError(f"there is no panel “{words['panel']}”; there are {', '.join(PANELS)}.")
    if words.get("play") not in (None, "yes"):
        raise LessonError("play is yes, or left out.")
