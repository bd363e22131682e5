"""Templates: gaps in text and in JSON, and JSON Schemas turned into skeletons."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from nemodiff_core.errors import RequestError
from nemodiff_core.request import DecodeRequest
from nemodiff_core.skeleton import GAP, Hole, parse_template, parts_for, template_from_schema
from nemodiff_core.training.vocabulary import train_vocabulary


def test_gaps_are_counted_and_ranged() -> None:
    assert parse_template("a ▢▢ b ▢{3} c ▢{1,4}") == [
        "a ", Hole(2, 2, "text"), " b ", Hole(3, 3, "text"), " c ", Hole(1, 4, "text"),
    ]  # fmt: skip


def test_json_gaps_know_where_they_stand() -> None:
    holes = [p for p in parse_template('{"a": "x ▢▢ \\" ▢", "b": ▢▢, "c": [▢]}') if isinstance(p, Hole)]
    assert [h.kind for h in holes] == ["string", "string", "number", "number"]


def test_a_gap_takes_over_the_space_before_it() -> None:
    tokenizer = train_vocabulary(600, examples=2000)
    given_text, gap = parts_for('{"n": ▢▢', tokenizer, 600, 8, "cpu")[:2]
    assert tokenizer.decode(given_text) == '{"n":'
    firsts = {tokenizer.decode([i]) for i in gap.first.nonzero()[:, 0].tolist()}
    assert " 7" in firsts and all(t.startswith(" ") for t in firsts)
    whole = parts_for('{"n": ▢▢}', tokenizer, 600, 8, "cpu")[1]
    assert {tokenizer.decode([i]) for i in whole.first.nonzero()[:, 0].tolist()} == {f" {d}" for d in range(1, 10)}


scalars = st.one_of(
    st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(1, 9)),
    st.just({"type": "string"}),
    st.builds(lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more}, st.integers(1, 99), st.integers(0, 99)),
    st.builds(lambda v: {"const": v}, st.sampled_from(["x", 3, None, [1]])),
)
schemas = st.recursive(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), scalars, min_size=1, max_size=3).map(lambda p: {"type": "object", "properties": p}),
    lambda inner: st.dictionaries(st.text("de", min_size=1, max_size=2), inner | scalars, min_size=1, max_size=2).map(lambda p: {"type": "object", "properties": p}),
    max_leaves=3,
)  # fmt: skip


@given(schemas)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_filled_schema_is_valid_json_of_its_types(tiny_engine, schema) -> None:
    template = template_from_schema(schema)
    if GAP not in template:
        return
    run = tiny_engine.run(DecodeRequest(prompt="x", mode="infill", template=template, block_length=8, max_new_tokens=256))
    list(run)
    data = json.loads(tiny_engine.text(run.trace().output.ids))
    loose = json.loads(json.dumps(schema), object_hook=lambda d: {k: v for k, v in d.items() if k not in ("minimum", "maximum", "maxLength")})
    jsonschema.validate(data, loose)


@pytest.mark.parametrize(
    ("schema", "match"),
    [
        ({"type": "nonsense"}, "not valid"),
        ({"type": "array"}, "holds objects, strings"),
        ({"type": "object"}, "without properties"),
        ({"type": "object", "properties": {"a": {"type": "integer", "minimum": -5}}}, "may be negative"),
        ({"type": "object", "properties": {"a": True}}, "give it a type"),
    ],
)
def test_a_schema_no_skeleton_can_hold_is_one_sentence(schema, match) -> None:
    with pytest.raises(RequestError, match=match):
        template_from_schema(schema)
