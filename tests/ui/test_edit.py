"""The Edit view without a browser: its requests, its refusals, the diff of a revision, the skeleton of a schema."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from nemodiff_core.errors import RequestError
from nemodiff_core.request import Limits
from nemodiff_core.skeleton import parse_template
from nemodiff_core.trace import Score, Step, TokenEvent, TokenText, Trace
from ui import edit, proposal
from ui.messages import write_traces
from ui.runs import RunStore

LIMITS = Limits()
SETTINGS = {"block_length": 16, "threshold": 0.9, "revise_bound": 0.1, "revise_rounds": 4}
WORDS = ["", " a", " red", " kite", " blue", " car", "s", " and", "\ufffd"]
START = 2  # positions of the prompt


def decode(ids: Any) -> str:
    return "".join(WORDS[i] for i in ids)


def revision(before: list[int], after: list[int], scores: list[Score] = [], draft: str | None = None, reason: str = "length") -> Trace:
    events = tuple(TokenEvent(START + i, token, "draft") for i, token in enumerate(before))
    steps = [
        Step(0, "prefill", (0, START), 0, 1),
        Step(1, "commit", (START, START + len(before)), 0, 2, events, (), tuple(scores)),
        Step(2, "commit", (START, START + len(after)), 0, 3, tuple(TokenEvent(START + i, t, "accept") for i, t in enumerate(after))),
    ]
    named = {str(i): word for i, word in enumerate(WORDS)}
    request = {"mode": "refine", "prompt": "x", "draft": decode(before) if draft is None else draft, "revise_bound": 0.1, "block_length": 16}
    model = {"id": "m", "revision": None, "parameters": 1, "dtype": "float32", "device": "cpu"}
    output = TokenText(after, [WORDS[i] for i in after])
    return Trace("t", "2026-01-01T00:00:00Z", model, request, TokenText([0, 0], ["", ""]), output, named, steps, reason)


def changes(trace: Trace) -> list[tuple[str, str]]:
    return [(part["before"], part["after"]) for part in proposal.parts(trace, decode) if "before" in part]


def test_cells_are_compared_with_themselves_and_neighbours_are_one_change():
    assert changes(revision([1, 2, 3, 7, 1, 5], [1, 4, 5, 7, 1, 3])) == [(" red kite", " blue car"), (" car", " kite")]


def test_a_text_that_moved_along_is_aligned_and_not_called_wholly_changed():
    trace = revision([1, 3, 7, 1, 5, 7], [1, 2, 3, 7, 1, 5])
    assert changes(trace) == [("", " red"), (" and", "")]


def test_a_change_of_half_a_word_is_a_change_of_the_word():
    assert changes(revision([1, 3, 6, 7], [1, 5, 6, 7])) == [(" kites", " cars")]


def test_the_parts_join_to_the_draft_also_where_a_stopped_run_did_not_come():
    trace = revision([1, 2, 3], [1, 4], draft=" a red kite and more", reason="cancelled")
    parts = proposal.parts(trace, decode)
    assert "".join(part.get("text", part.get("before")) for part in parts) == " a red kite and more"
    assert changes(trace) == [(" red", " blue")]


def test_a_change_says_what_raised_the_doubt_or_what_it_was_reopened_with():
    scores = [Score(3, 2, 0.03, 4), Score(5, 7, 0.6, 0), Score(4, 3, 0.5, 1)]
    first, second = [p for p in proposal.parts(revision([1, 2, 3, 7], [1, 4, 3, 1], scores), decode) if "cause" in p]
    assert first["cause"] == {"token": " red", "probability": 0.03, "rank": 4, "step": 1, "doubted": True}
    assert second["cause"] == {"token": " and", "probability": 0.6, "rank": 0, "step": 1, "doubted": False}


def test_where_no_score_is_recorded_none_is_claimed():
    assert [p["cause"] for p in proposal.parts(revision([1, 2], [1, 4]), decode) if "cause" in p] == [None]


def test_pins_are_the_tokens_that_have_a_character_in_their_range():
    assert edit.pins([1, 2, 3, 6], [(3, 6), (11, 12)], decode) == [(1, 2), (3, 6)]
    assert edit.pins([1, 2], [], decode) == []


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"text": ""}, "the text is empty"),
        ({"text": 7}, "the text is empty"),
        ({"text": "no hole"}, "has no gaps"),
        ({"text": "a ▢{40} b"}, "40 tokens does not fit into a block of 16"),
        ({"text": "▢{3,1}"}, "no possible length"),
        ({"text": "▢" + "x" * 20_001}, "shorten it"),
    ],
)
def test_what_cannot_be_filled_is_refused_with_a_sentence(asked: dict[str, Any], sentence: str):
    with pytest.raises(RequestError, match=sentence):
        edit.fill_request(asked, SETTINGS, LIMITS)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"text": "  ", "prompt": "p"}, "the draft is empty"),
        ({"text": "a", "prompt": " "}, "the prompt is empty"),
        ({"text": "a ▢ b", "prompt": "p"}, "has a gap"),
        ({"text": "a", "prompt": "p", "pins": [[0]]}, "pins cannot be read"),
        ({"text": "a", "prompt": "p", "pins": [[0, "1"]]}, "pins cannot be read"),
    ],
)
def test_what_cannot_be_revised_is_refused_with_a_sentence(asked: dict[str, Any], sentence: str):
    with pytest.raises(RequestError, match=sentence):
        edit.revise_request(asked, SETTINGS, LIMITS)


def test_a_request_has_only_the_settings_of_its_mode():
    filled = edit.fill_request({"text": "a ▢ b"}, SETTINGS, LIMITS)
    assert (filled.mode, filled.template, filled.prompt, filled.revise_rounds) == ("infill", "a ▢ b", edit.WITHOUT_PROMPT, 0)
    tokenizer = SimpleNamespace(encode_plain=lambda text: [1, 2], decode=decode)
    revised = edit.revise_request({"text": " a red", "prompt": "p", "pins": [[3, 5]]}, SETTINGS, LIMITS, tokenizer)
    assert (revised.mode, revised.pins, revised.revise_rounds) == ("refine", ((1, 2),), 4)


def test_a_schema_becomes_a_skeleton():
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "maximum": 99}}}
    assert edit.skeleton(json.dumps(schema), LIMITS) == '{"name": "▢{1,3}", "age": ▢{1,2}}'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("{", "not JSON"),
        ("7", "object in braces"),
        ('{"type": 5}', "not valid"),
        ('{"type": "array"}', "a skeleton holds"),
        ('{"type": "integer", "maximum": 1e999}', "endless"),
        ('{"a":' * 3000 + "1" + "}" * 3000, "nested too deeply|not JSON|does not say"),
    ],
)
def test_a_schema_that_cannot_be_is_refused_with_a_sentence(text: str, sentence: str):
    with pytest.raises(RequestError, match=sentence):
        edit.skeleton(text, LIMITS)


def test_every_example_can_be_filled_or_revised_as_it_stands():
    for example in edit.examples():
        make = edit.fill_request if example["tool"] == "fill" else edit.revise_request
        make(example, SETTINGS, LIMITS)
        if example["tool"] == "fill":
            assert len(example["was"]) == sum(not isinstance(piece, str) for piece in parse_template(example["text"]))


def test_an_ended_run_gives_its_changes_and_one_that_is_gone_nothing():
    store, engine = RunStore(), lambda model: SimpleNamespace(text=decode)
    record = store.create("somebody")
    write_traces(record, [revision([1, 2], [1, 4])])
    found = edit.outcome(store, record.id, engine)
    assert found["kind"] == "proposal" and found["whole"] and found["parts"][1]["after"] == " blue"
    assert edit.outcome(store, "", engine) == {"kind": "over"}
    assert "no longer kept" in edit.outcome(store, "gone", engine)["problem"]


def test_tokens_that_only_scores_name_have_their_text_in_the_messages():
    # The tries of a gap's lengths score tokens that never reach the text.
    store, engine = RunStore(), lambda model: SimpleNamespace(text=decode)
    record = store.create("somebody")
    write_traces(record, [revision([1, 2], [1, 2], [Score(3, 5, 0.5, 1)])])
    assert edit.outcome(store, record.id, engine)["kind"] == "proposal"


def test_a_mistake_in_the_notice_reaches_the_editor_and_news_do_not():
    from ui.parts import notice

    assert edit.problem(notice("a < b; change it.")) == "a < b; change it."
    assert edit.problem(notice("queued", calm=True)) is None and edit.problem("") is None
