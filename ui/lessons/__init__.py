"""Lessons over recorded runs: texts in one folder a language, facts found in the traces, never written down.

`course` gives the browser everything; `check` says what does not hold.
"""

from __future__ import annotations

import json
import logging
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from ui.lessons.expressions import evaluate, shown
from ui.lessons.lesson import Lesson, read
from ui.lessons.library import Library, Run
from ui.lessons.problem import LessonError
from ui.lessons.resolve import resolve

__all__ = ["LessonError", "Library", "check", "course", "languages", "lessons"]
FOLDER = Path(__file__).parent
DEFAULT = "en"
_log = logging.getLogger(__name__)


def languages(folder: Path = FOLDER) -> list[str]:
    """Languages that have a folder, English first."""
    found = sorted(path.name for path in folder.iterdir() if re.fullmatch(r"[a-z]{2,3}(-[a-z]{2,4})?", path.name) and path.is_dir())
    return sorted(found, key=lambda name: name != DEFAULT)


def lessons(language: str = DEFAULT, folder: Path = FOLDER) -> list[tuple[str, Lesson]]:
    """(language, lesson) in order; where a translation is missing or no longer fits, the English one. Raises LessonError."""
    chosen = []
    for path in sorted((folder / DEFAULT).glob("*.md")):
        original, translated = read(path), folder / language / path.name
        if language in languages(folder) and language != DEFAULT and translated.is_file():
            lesson = read(translated)
            if [part.plan() for part in lesson.parts] == [part.plan() for part in original.parts]:
                chosen.append((language, lesson))
                continue
            _log.warning("%s/%s shows or claims other things than the English lesson, which is shown instead.", language, path.name)
        chosen.append((DEFAULT, original))
    return chosen


@lru_cache(maxsize=8)
def course(language: str = DEFAULT, library: Library = Library(), folder: Path = FOLDER) -> dict[str, Any]:  # noqa: B008
    """Lessons and gallery for the browser. A lesson that does not hold is left out, and the log says why."""
    language = language if language in languages(folder) else DEFAULT
    taught = []
    for spoken, lesson in lessons(language, folder):
        try:
            taught.append(resolve(lesson, library) | {"language": spoken})
        except LessonError as error:
            _log.warning("Lesson left out: %s", error)
    return {"language": language, "words": words(language, folder), "lessons": taught, "gallery": gallery(language, library, folder)}


def words(language: str, folder: Path = FOLDER) -> dict[str, str]:
    """What buttons and answers say; English where a language lacks one."""
    found = json.loads((folder / DEFAULT / "words.json").read_text("utf-8"))
    path = folder / language / "words.json"
    own = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return {name: str(own.get(name, text)) for name, text in found.items()}


def gallery(language: str, library: Library, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The cards, in the language where it has their words (`gallery.json`: {name: {title, sentence}})."""
    path, words = folder / language / "gallery.json", {}
    if language != DEFAULT and path.is_file():
        words = json.loads(path.read_text("utf-8"))
    cards = []
    for card in library.gallery["cards"]:
        run = library.run(f"{card['trace']}/{card['lane']}")
        told = words.get(card["name"])
        cards.append({**card, **(describe(told, run, library) if told else {})})
    return cards


def describe(words: dict[str, str], run: Run, library: Library) -> dict[str, str]:
    """A card's title and sentence, its facts said."""
    return {name: re.sub(r"\{(.+?)\}", lambda m: shown(evaluate(m[1], run, library)), words[name]) for name in ("title", "sentence")}


def check(library: Library | None = None, folder: Path = FOLDER) -> list[str]:
    """What does not hold on the recorded runs, in every language: one sentence each."""
    library, problems = library or Library(), []
    for language in languages(folder):
        for path in sorted((folder / language).glob("*.md")):
            try:
                resolve(read(path), library)
            except LessonError as error:
                problems.append(f"{language}/{error}")
    return problems
