"""Lessons parse, say only what the recorded runs show, and refuse what they do not know."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from nemodiff_core.request import Limits
from nemodiff_core.trace import Trace
from ui import lessons, links
from ui.lessons import Library, markup, places
from ui.lessons.expressions import evaluate, holds, shown
from ui.lessons.lesson import read
from ui.lessons.problem import LessonError
from ui.lessons.resolve import resolve

LANGUAGES = lessons.languages()
FILES = [(language, path) for language in LANGUAGES for path in sorted((lessons.FOLDER / language).glob("*.md"))]


@pytest.fixture(scope="module")
def library() -> Library:
    return Library()


@pytest.mark.parametrize(("language", "path"), FILES, ids=[f"{language}-{path.stem}" for language, path in FILES])
def test_every_claim_and_every_answer_holds_on_the_recorded_runs(language: str, path: Path, library: Library):
    lesson = resolve(read(path), library)
    assert any(part["question"] for part in lesson["parts"]), "a lesson asks something"
    assert lesson["notes"], "a lesson has notes for its teacher"
    for part in lesson["parts"]:
        assert "{" not in str(part["heading"])
        assert part["body"] or part["question"]
        if part["show"]:
            run = library.run(part["show"]["run"].removeprefix("recorded-") + f"/{part['show']['lane'] + 1}")
            assert -1 <= part["show"]["step"] < len(run.trace.steps)
        if part["try"]:  # a link that the page accepts
            assert links.read(dict(parse_qsl(part["try"])), ["Refine"], Limits()).prompt


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_is_complete_or_falls_back_lesson_by_lesson(language: str):
    course = lessons.course(language)
    originals = sorted((lessons.FOLDER / "en").glob("*.md"))
    assert [lesson["id"] for lesson in course["lessons"]] == [path.stem for path in originals]
    assert set(course["words"]) == set(lessons.words("en"))
    for path in (lessons.FOLDER / language).glob("*.md"):
        original = read(lessons.FOLDER / "en" / path.name)
        assert [part.plan() for part in read(path).parts] == [part.plan() for part in original.parts]


def test_there_are_ten_lessons_on_the_ten_subjects():
    titles = [lesson["id"][3:] for lesson in lessons.course()["lessons"]]
    assert titles == [
        "one-at-a-time", "masks-and-commits", "cells-that-never-met", "block-and-cache", "draft-verify-bonus",
        "why-nothing-is-lost", "a-budget-of-forwards", "second-thoughts", "both-sides-in-sight", "when-the-speed-up-fails",
    ]  # fmt: skip


def test_a_translation_changes_words_only(tmp_path: Path, library: Library):
    shutil.copytree(lessons.FOLDER / "en", tmp_path / "en")
    (tmp_path / "de").mkdir()
    english = (tmp_path / "en" / "01-one-at-a-time.md").read_text("utf-8")
    (tmp_path / "de" / "01-one-at-a-time.md").write_text(english.replace("title: One token at a time", "title: Ein Token nach dem anderen"), "utf-8")
    moved = (tmp_path / "en" / "02-masks-and-commits.md").read_text("utf-8").replace("claim: exact", "claim: not exact")
    (tmp_path / "de" / "02-masks-and-commits.md").write_text(moved, "utf-8")
    course = lessons.course("de", library, tmp_path)
    assert course["lessons"][0]["title"] == "Ein Token nach dem anderen"
    assert course["lessons"][0]["language"] == "de"
    assert course["lessons"][1]["language"] == "en", "a translation that claims other things is not shown"
    assert lessons.course("../en", library, tmp_path)["language"] == "en"


def _lesson(folder: Path, body: str) -> Path:
    path = folder / "01-new.md"
    path.write_text(f"title: New\nsummary: Short\nminutes: 1\n---\n{body}\n", "utf-8")
    return path


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("show: nowhere\nText", "there is no recorded run “nowhere”"),
        ("show: ../sum-ar\nText", "there is no recorded run"),
        ("show: sum-ar/9\nText", "no lane"),
        ("show: sum-ar\nstep: moonrise\nText", "“moonrise” is no place"),
        ("show: sum-ar\nstep: wrong commit\nText", "has no place “wrong commit”"),
        ("show: sum-ar\nstep: 400\nText", "has no step 400"),
        ("show: sum-ar\npanel: garden\nText", "there is no panel “garden”"),
        ("show: sum-ar\nclaim: forwards < tokens\nText", "which the recorded run does not show"),
        ("show: sum-ar\nclaim: forwards\nText", "neither true nor false"),
        ("show: sum-ar\nIt has {feathers} feathers.", "“feathers” is no fact"),
        ("claim: exact\nText", "the step shows none"),
        ("show: sum-ar\nquestion: Which?\n- One :: exact\n- Two :: exact", "exactly one must be right"),
        ("show: sum-ar\nquestion: Which?", "one of the three"),
        ("show: sum-ar\nquestion: How many?\nanswer: text", "an answer is a number"),
        ("show: sum-ar\nquestion: Where?\npick: cell end", "a step without a cell"),
        ("show: sum-ar\ncolour: red", "“colour” is no word that lessons know"),
        ("show: sum-ar\nA formula $\\begin{x}$.", "the formula"),
    ],
)  # fmt: skip
def test_what_a_lesson_may_not_say_is_refused_with_one_sentence(body: str, wrong: str, tmp_path: Path, library: Library):
    with pytest.raises(LessonError) as refused:
        resolve(read(_lesson(tmp_path, body)), library)
    assert wrong in str(refused.value) and str(refused.value).count("\n") == 0


def test_check_names_the_lesson_that_no_longer_holds(tmp_path: Path, library: Library):
    (tmp_path / "en").mkdir()
    _lesson(tmp_path / "en", "show: sum-ar\nclaim: tokens = 3\nText")
    [problem] = lessons.check(library, tmp_path)
    assert problem.startswith("en/01-new, part 1: it claims “tokens = 3”")


def test_expressions(library: Library):
    run = library.run("sum-careless")
    assert evaluate("forwards", run, library) == len(run.trace.steps)
    assert evaluate("forwards in sum-ar - forwards", run, library) == len(library.run("sum-ar").trace.steps) - len(run.trace.steps)
    assert holds("not exact and exact in sum-ar", run, library)
    assert holds('last word in sum-ar = right result', run, library)
    assert [shown(found) for found in (True, 3, 0.5, 2.0, 12.345, 123.4, 0.99996, 0.0001)] == [
        "yes", "3", "0.5", "2.0", "12.3", "123", "more than 0.999", "less than 0.001",
    ]  # fmt: skip


def test_text_of_a_trace_is_never_markup():
    tree = markup.blocks("It wrote {x} and `{x}`, **{x}**.", lambda _: "<img src=x> *not* `code`")
    [paragraph] = tree
    assert paragraph == ["p", {}, ["It wrote ", "<img src=x> *not* `code`", " and ", ["code", {}, ["<img src=x> *not* `code`"]], ", ", ["strong", {}, ["<img src=x> *not* `code`"]], "."]]


def test_trees_hold_allowed_tags_only():
    def tags(tree: list) -> set[str]:
        return {node[0] for node in tree if not isinstance(node, str)} | {t for node in tree if not isinstance(node, str) for t in tags(node[2])}

    found = set()
    for lesson in lessons.course()["lessons"]:
        for part in lesson["parts"]:
            found |= tags(part["body"])
    assert found <= markup.TAGS and {"math", "p", "ul", "code"} <= found
    browser = (lessons.FOLDER.parent / "player" / "lesson_text.js").read_text("utf-8")
    named = set(re.findall(r"[a-z]+", " ".join(re.findall(r"new Set\((.+?)\);", browser))))
    assert markup.TAGS <= named, "the browser builds every tag that Python may send"


def test_the_detected_error_is_where_the_lesson_says(library: Library):
    trace: Trace = library.run("sum-careless").trace
    wrong, beside = places.wrong_commit(trace), places.neighbour(trace)
    assert beside.step == wrong.step and beside.position < wrong.position
    committed = {event.position for event in trace.steps[wrong.step].events if event.kind == "commit"}
    assert {wrong.position, beside.position} <= committed
