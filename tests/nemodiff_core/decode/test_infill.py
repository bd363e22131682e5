"""Infill: given text stays, gaps are filled with what may stand there, lengths are chosen by score."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, strategies as st

from nemodiff_core.decode.infill import Gap
from nemodiff_core.errors import RequestError
from nemodiff_core.metrics import acceptance_length, forwards, nfe
from nemodiff_core.request import DecodeRequest, parse_request
from nemodiff_core.trace import Step, Trace
from tests.nemodiff_core.decode.test_decoders import EOS, MASK, MODELS, VOCABULARY, decode, models, output, prompts, quick

tokens = st.integers(0, VOCABULARY - 1).filter(lambda t: t not in (MASK, EOS))


def anything() -> torch.Tensor:
    allowed = torch.ones(VOCABULARY, dtype=torch.bool)
    allowed[[EOS, MASK]] = False
    return allowed


def infill(model, prompt, parts, **fields) -> list[Step]:
    return decode(model, prompt, mode="infill", template="▢", given=parts, **fields)


@st.composite
def texts(draw: st.DrawFn, size: int) -> list:
    parts: list = []
    for n in range(draw(st.integers(1, 5))):
        if (n + draw(st.integers(0, 1))) % 2 == 0 and not (parts and isinstance(parts[-1], Gap)):
            low = draw(st.integers(1, size - 1))
            high = min(low + draw(st.integers(0, 2)), size - 1)
            first, others = anything(), anything()
            first[draw(st.integers(0, 50))] = False
            parts.append(Gap(low, high, first, others))
        else:
            parts.append(draw(st.lists(tokens, min_size=1, max_size=9)))
    return parts


@given(model=models, prompt=prompts, size=st.integers(2, 10), data=st.data())
@quick
def test_given_text_stays_and_gaps_hold_what_is_allowed(model, prompt, size, data) -> None:
    parts = data.draw(texts(size))
    knobs = data.draw(st.sampled_from([{}, {"steps": 2}, {"candidates": 3}, {"remask_bound": 0.5}, {"max_forwards_per_block": 1}]))
    steps = infill(model, prompt, parts, block_length=size, **knobs)
    text, at = output(prompt, steps), 0
    fixed = [len(p) for p in parts if not isinstance(p, Gap)]
    gaps = [p for p in parts if isinstance(p, Gap)]
    assert sum(fixed) + sum(g.shortest for g in gaps) <= len(text) <= sum(fixed) + sum(g.longest for g in gaps)
    for n, part in enumerate(parts):
        if not isinstance(part, Gap):
            assert text[at : at + len(part)] == part
            at += len(part)
            continue
        commit = next(s for s in steps if s.phase == "commit" and s.block == n)
        filled = text[commit.span[0] - len(prompt) : commit.span[1] - len(prompt)]
        assert part.shortest <= len(filled) <= part.longest and MASK not in filled and EOS not in filled
        assert part.first[filled[0]] and all(part.others[t] for t in filled[1:])
        if knobs.get("max_forwards_per_block"):
            assert sum(s.phase == "denoise" and s.block == n for s in steps) == 1
        scored = sum(s.phase == "verify" and s.block == n and bool(s.scores) for s in steps)
        assert scored == (0 if part.shortest == part.longest else part.longest - part.shortest + 1)
        at += len(filled)
    assert len(text) == at


def test_the_suffix_is_seen() -> None:
    """The same gap is filled differently, or less surely, when the text behind it changes."""
    gap = Gap(2, 2, anything(), anything())
    seen = set()
    for behind in ([3, 4, 5], [60, 61, 62], [90, 20, 7]):
        steps = infill(MODELS[0], [5, 6], [gap, behind], block_length=8)
        denoised = next(s for s in steps if s.phase == "denoise")
        seen.add(tuple((e.token, round(e.confidence, 4)) for e in denoised.events))
    assert len(seen) == 3


@pytest.mark.parametrize("seed", range(3))
def test_the_chosen_length_scores_best(seed: int) -> None:
    gap = Gap(1, 4, anything(), anything())
    steps = infill(MODELS[seed], [5, 6], [[8, 9], gap, [7, 3]], block_length=10)
    scores = [s.scores for s in steps if s.phase == "verify" and s.scores]
    means = [sum(torch.tensor([s.probability for s in tried]).log().tolist()) / len(tried) for tried in scores]
    commit = [s for s in steps if s.phase == "commit"][1]
    assert commit.span[1] - commit.span[0] == 1 + means.index(max(means))


def test_the_scores_of_a_filled_text_are_its_causal_probabilities() -> None:
    model, prompt = MODELS[1], [5, 6]
    steps = infill(model, prompt, [[8, 9], Gap(2, 2, anything(), anything()), [7, 3]], block_length=6)
    text = prompt + output(prompt, steps)
    with torch.inference_mode():
        log_p = model(torch.tensor([text]), pattern="causal")[0].log_softmax(-1)
    found = {s.position: s.probability for step in steps if step.phase == "commit" for s in step.scores}
    assert sorted(found) == list(range(2, len(text)))
    for position, probability in found.items():
        assert probability == pytest.approx(log_p[position - 1, text[position]].exp().item(), rel=1e-3, abs=1e-6)


def test_infill_runs_from_a_template_and_survives_a_file(tiny_engine) -> None:
    request = DecodeRequest(prompt="fill", mode="infill", template='{"a": "▢▢", "b": ▢{1,2}}', block_length=8)
    run = tiny_engine.run(request)
    steps = list(run)
    trace = Trace.from_json(run.trace().to_json())
    data = json.loads(tiny_engine.text(trace.output.ids))
    assert len(data["a"]) == 2 and isinstance(data["b"], int)
    assert nfe(trace) == forwards(trace) - 1 == len(steps) - 1
    assert acceptance_length(trace) is None


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"template": "no gaps here"}, "no gaps"),
        ({"template": "▢" * 20}, "does not fit into a block"),
        ({"template": "a ▢{3,1} b"}, "no possible length"),
        ({"template": "a ▢▢▢{2} b"}, "side by side"),
        ({"template": "x" * 60 + "▢", "max_new_tokens": 20}, "max_new_tokens is 20"),
        ({}, "needs a text with gaps"),
        ({"template": "▢", "pins": ((0, 5),)}, "pins does nothing"),
        ({"template": "▢", "max_forwards_per_block": 0}, "max_forwards_per_block"),
    ],
)
def test_impossible_gaps_are_one_sentence(tiny_engine, fields, match) -> None:
    with pytest.raises(RequestError, match=match) as told:
        tiny_engine.run(parse_request({"prompt": "x", "mode": "infill", "block_length": 16, **fields}))
    assert "\n" not in str(told.value) and str(told.value).endswith(".")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"pins": ((50, 5),), "max_new_tokens": 20}, "outside the canvas"),
        ({"pins": ((1, 5), (1, 6))}, "same offset"),
        ({"pins": ((1, 4000),)}, "cannot write"),
        ({"mode": "refine", "draft": "abc", "pins": ((3, 5),)}, "behind the draft"),
        ({"mode": "refine"}, "needs the draft"),
        ({"max_forwards": 5, "max_new_tokens": 64}, "need two each"),
        ({"mode": "ar", "revise_rounds": 1}, "does nothing in mode ar"),
        ({"policy": "margin", "threshold": 0.5}, "belongs to the policy threshold"),
        ({"policy": "schedule"}, "needs steps"),
        ({"margin_bound": 0.5}, "need their policy"),
    ],
)
def test_impossible_pins_and_budgets_are_one_sentence(tiny_engine, fields, match) -> None:
    with pytest.raises(RequestError, match=match) as told:
        tiny_engine.run(parse_request({"prompt": "x", **fields}))
    assert "\n" not in str(told.value) and str(told.value).endswith(".")
