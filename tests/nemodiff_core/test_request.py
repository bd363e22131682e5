"""Requests from outside: accepted as they are, or refused in one sentence; never anything else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import ValidationError

from nemodiff_core.errors import RequestError
from nemodiff_core.request import DecodeRequest, Limits, parse_request

KNOBS = st.fixed_dictionaries(
    {"prompt": st.text(min_size=1, max_size=20)},
    optional={
        "chat": st.booleans(),
        "block_length": st.integers(2, 64),
        "temperature": st.floats(0, 5),
        "top_p": st.floats(0, 1, exclude_min=True),
        "seed": st.integers(0, 2**63 - 1),
        "max_new_tokens": st.integers(1, 4096),
        "stop_at_eos": st.booleans(),
        "candidates": st.integers(0, 16),
        "deadline_s": st.none() | st.floats(0.001, 1e6),
    },
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(KNOBS, st.sampled_from([{"mode": "ar"}, {"threshold": 0.5}, {"steps": 64}, {"mode": "linear_spec", "threshold": 0.2}]))
@settings(max_examples=100, deadline=None)
def test_a_sound_request_survives_being_recorded(fields: dict, more: dict) -> None:
    request = parse_request(fields | more)
    assert all(getattr(request, name) == value for name, value in (fields | more).items())
    assert parse_request(request.model_dump()) == request
    assert DecodeRequest.model_validate_json(request.model_dump_json()) == request


@given(st.dictionaries(st.sampled_from([*DecodeRequest.model_fields, "other"]) | st.integers(), ANYTHING, max_size=6) | ANYTHING)
@settings(max_examples=200, deadline=None)
def test_anything_else_is_one_sentence(fields) -> None:
    try:
        parse_request(fields)
    except RequestError as error:
        sentence = str(error)
        assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 300


@pytest.mark.parametrize("fields", [None, "prompt", 3, ["prompt"], [("prompt", "x")]])
def test_what_is_no_mapping_is_refused(fields) -> None:
    with pytest.raises(RequestError, match="object of named settings"):
        parse_request(fields)


def test_a_missing_prompt_is_called_missing() -> None:
    with pytest.raises(RequestError, match="prompt is missing"):
        parse_request({"mode": "ar"})


def test_half_a_surrogate_pair_is_no_prompt() -> None:
    with pytest.raises(RequestError, match="prompt"):
        parse_request({"prompt": "\ud800"})


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("block_length", [2, 64], [1, 65]),
        ("threshold", [0.0, 1.0], [-0.001, 1.001, float("nan")]),
        ("steps", [1, 64], [0, 65]),
        ("temperature", [0.0, 5.0], [-0.001, 5.001, float("inf")]),
        ("top_p", [1e-9, 1.0], [0.0, 1.001]),
        ("seed", [0, 2**63 - 1], [-1, 2**63]),
        ("max_new_tokens", [1, 4096], [0, 4097]),
        ("candidates", [0, 16], [-1, 17]),
        ("deadline_s", [None, 0.1], [0.0, -1.0, float("inf")]),
    ],
)
def test_bounds_are_where_the_contract_has_them(name: str, inside: list, outside: list) -> None:
    for value in inside:
        assert getattr(parse_request({"prompt": "x", name: value}), name) == value
    for value in outside:
        with pytest.raises(RequestError, match=name):
            parse_request({"prompt": "x", name: value})


def test_a_request_cannot_be_changed_after_its_checks() -> None:
    request = parse_request({"prompt": "x"})
    with pytest.raises(ValidationError):
        request.max_new_tokens = 10**9


@pytest.mark.parametrize(
    ("name", "limit"), [("max_new_tokens", "max_new_tokens"), ("block_length", "max_block_length"), ("candidates", "max_candidates")]
)
def test_a_host_may_allow_less(name: str, limit: str) -> None:
    limits = Limits(**{limit: 8})
    parse_request({"prompt": "x", "max_new_tokens": 8, "block_length": 8, "candidates": 8}).check(limits)
    request = parse_request({"prompt": "x", "max_new_tokens": 8, "block_length": 8, "candidates": 8, name: 9})
    with pytest.raises(RequestError, match=f"{name} is 9.*at most 8"):
        request.check(limits)


def test_a_host_limits_the_prompt_before_it_is_tokenized() -> None:
    parse_request({"prompt": "x" * 10}).check(Limits(max_prompt_characters=10))
    with pytest.raises(RequestError, match="11 characters"):
        parse_request({"prompt": "x" * 11}).check(Limits(max_prompt_characters=10))
