"""Revision: budgets, pins, the critic, reopened cells, and the decoder for somebody's own draft."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from nemodiff_core.cache import KVCache
from nemodiff_core.decode.refine import Critic, reopened
from nemodiff_core.decode.sampling import Judgement
from nemodiff_core.metrics import nfe
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Step, Trace, fold
from tests.nemodiff_core.decode.test_decoders import EOS, MASK, MODELS, VOCABULARY, decode, models, output, prompts, quick

tokens = st.integers(0, VOCABULARY - 1).filter(lambda t: t not in (MASK, EOS))


def refine(model, prompt, draft, **fields) -> list[Step]:
    fields = {"max_new_tokens": max(len(draft), 1), "mode": "refine", "draft": "x", **fields}
    return decode(model, prompt, given=draft, **fields)


def events(steps, *kinds) -> list:
    return [event for step in steps for event in step.events if event.kind in kinds]


@given(st.lists(st.integers(1, 14), min_size=1, max_size=4, unique=True), st.data())
def test_what_is_reopened_was_doubted_or_depends_on_the_first_doubt(doubted, data) -> None:
    written = {o: data.draw(st.integers(0, 3)) for o in range(1, 15)}
    fixed = frozenset(data.draw(st.lists(st.integers(1, 14), max_size=3))) - set(doubted)
    again = reopened(doubted, written, fixed, 15)
    assert set(doubted) <= set(again) and not fixed & set(again) and again == sorted(again)
    first = min(doubted)
    for offset in set(range(1, 15)) - set(again) - fixed:
        assert offset < first or written[offset] < written[first]


def test_the_critic_never_doubts_what_it_would_write_itself() -> None:
    assert not Critic(1.0, 1).doubts(Judgement(0.01, 0, 5, 0.01))
    assert Critic(0.1).doubts(Judgement(0.05, 1, 5, 0.9))
    assert not Critic(0.1).doubts(Judgement(0.2, 7, 5, 0.3))
    assert Critic(0.1, rank=5).doubts(Judgement(0.2, 7, 5, 0.3))


@given(model=models, prompt=prompts, size=st.integers(2, 12), length=st.integers(1, 30), bound=st.sampled_from([0.02, 0.5, 1.0]))
@quick
def test_enough_revision_makes_diffusion_write_what_ar_writes(model, prompt, size, length, bound) -> None:
    """With a bound of 1 every token that is not the causal pass's own choice is doubted, until there is none."""
    fields = {"max_new_tokens": length, "stop_at_eos": False}
    steps = decode(model, prompt, mode="diffusion", block_length=size, revise_rounds=64, revise_bound=bound, threshold=0.2, **fields)
    text = output(prompt, steps)
    assert len(text) == length
    if bound == 1.0:
        assert text == output(prompt, decode(model, prompt, mode="ar", **fields))
    final: dict[int, float] = {}
    for step in steps:
        for score in step.scores:
            final[score.position] = score.probability if score.rank else 1.0
    assert all(p >= bound for p in final.values()), "what is left was judged and believed"


@given(model=models, prompt=prompts, size=st.integers(2, 12), length=st.integers(1, 30))
@quick
def test_text_that_is_believed_costs_nothing_extra(model, prompt, size, length) -> None:
    fields = {"mode": "diffusion", "block_length": size, "max_new_tokens": length}
    plain = decode(model, prompt, **fields)
    watched = decode(model, prompt, **fields, revise_rounds=5, revise_bound=0.0)
    seen = [[(s.phase, s.span, [(e.kind, e.position, e.token) for e in s.events]) for s in run] for run in (plain, watched)]
    assert seen[0] == seen[1]
    assert any(s.scores for s in watched) or length == 1 or len(output(prompt, plain)) <= 2


@given(
    model=models, prompt=prompts, size=st.integers(2, 12), length=st.integers(1, 30),
    cap=st.integers(1, 4), rounds=st.sampled_from([0, 3]), remask=st.sampled_from([None, 0.3]),
)  # fmt: skip
@quick
def test_a_block_keeps_its_budget_and_says_what_was_forced(model, prompt, size, length, cap, rounds, remask) -> None:
    fields = {"mode": "diffusion", "block_length": size, "max_new_tokens": length, "stop_at_eos": False, "threshold": 1.0}
    fields |= {"revise_rounds": rounds, "remask_bound": remask, "revise_bound": 0.5}
    steps = decode(model, prompt, **fields, max_forwards_per_block=cap)
    assert len(output(prompt, steps)) == length
    used: dict[int, int] = {}
    for step in steps:
        if step.phase in ("denoise", "revise"):
            used[step.block] = used.get(step.block, 0) + 1
    assert all(count <= cap for count in used.values())
    forced = [event.forced for event in events(steps, "commit")]
    if size - 1 > cap and length > 1:
        assert any(forced), "with a threshold of 1 every cell beyond the first of a step is forced"
    elif rounds == 0 and remask is None:
        assert not any(forced)


@given(model=models, prompt=prompts, size=st.integers(2, 10), length=st.integers(1, 30), spare=st.integers(0, 12), rounds=st.sampled_from([0, 4]))
@quick
def test_an_answer_keeps_its_budget(model, prompt, size, length, spare, rounds) -> None:
    allowed = 2 * -(-length // size) + spare
    fields = {"mode": "diffusion", "block_length": size, "max_new_tokens": length, "stop_at_eos": False, "threshold": 1.0}
    steps = decode(model, prompt, **fields, revise_rounds=rounds, revise_bound=0.5, max_forwards=allowed)
    assert len(output(prompt, steps)) == length
    assert len(steps) - 1 <= allowed


@given(model=models, prompt=prompts, size=st.integers(2, 12), length=st.integers(2, 30), data=st.data())
@quick
def test_pinned_cells_keep_their_tokens(model, prompt, size, length, data) -> None:
    pins = data.draw(st.dictionaries(st.integers(0, length - 1), tokens, min_size=1, max_size=5))
    knobs = data.draw(st.sampled_from([{}, {"revise_rounds": 3, "revise_bound": 0.9}, {"remask_bound": 0.9}, {"steps": 2}]))
    steps = decode(model, prompt, mode="diffusion", block_length=size, max_new_tokens=length, pins=tuple(pins.items()), **knobs)
    text = output(prompt, steps)
    assert len(text) > max(pins)
    assert {offset: text[offset] for offset in pins} == pins
    assert {e.position - len(prompt) for e in events(steps, "pin")} == set(pins)
    assert not {e.position - len(prompt) for e in events(steps, "remask")} & set(pins)


@given(model=models, prompt=prompts, size=st.integers(2, 12), length=st.integers(1, 30), bound=st.sampled_from([0.3, 1.0]))
@quick
def test_reopened_cells_always_settle(model, prompt, size, length, bound) -> None:
    steps = decode(model, prompt, mode="diffusion", block_length=size, max_new_tokens=length, remask_bound=bound, stop_at_eos=False)
    assert len(output(prompt, steps)) == length
    for block in {step.block for step in steps}:
        assert sum(s.phase == "denoise" and s.block == block for s in steps) <= 2 * size
    positions = [e.position for e in events(steps, "remask")]
    assert len(positions) == len(set(positions)), "a cell reopens at most once"


@given(model=models, prompt=prompts, draft=st.lists(tokens, min_size=1, max_size=30), size=st.integers(2, 12), data=st.data())
@quick
def test_a_draft_is_revised_in_place(model, prompt, draft, size, data) -> None:
    pins = data.draw(st.dictionaries(st.integers(0, len(draft) - 1), tokens, max_size=3))
    bound = data.draw(st.sampled_from([0.0, 0.05, 0.6]))
    steps = refine(model, prompt, draft, block_length=size, pins=tuple(pins.items()), revise_bound=bound, revise_rounds=4)
    text = output(prompt, steps)
    assert len(text) == len(draft)
    assert {o: text[o] for o in pins} == pins
    if bound == 0.0:
        assert text == [pins.get(o, t) for o, t in enumerate(draft)], "nothing is doubted"
        assert len(steps) == 1 + -(-len(draft) // size)
    assert steps[-1].span[1] == len(prompt) + len(draft)


@given(model=models, prompt=prompts, length=st.integers(1, 24), size=st.integers(2, 12))
@quick
def test_ars_own_text_is_left_alone(model, prompt, length, size) -> None:
    text = output(prompt, decode(model, prompt, mode="ar", max_new_tokens=length, stop_at_eos=False))
    if EOS in text:
        text = text[: text.index(EOS)] or [5]
    if text == [5]:
        return
    steps = refine(model, prompt, text, block_length=size, revise_bound=1.0)
    assert output(prompt, steps) == text
    assert {step.phase for step in steps} == {"prefill", "commit"}


def test_every_causal_pass_of_a_revision_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache behind each commit pass equals a fresh causal prefill of the text it stands for."""
    model, prompt, caches = MODELS[0], [5, 7, 9], []
    fresh = KVCache.__init__
    monkeypatch.setattr(KVCache, "__init__", lambda self, *a, **k: (fresh(self, *a, **k), caches.append(self))[0])
    steps = decode(model, prompt, mode="diffusion", block_length=8, max_new_tokens=24, stop_at_eos=False,
                   revise_rounds=5, revise_bound=0.6, threshold=0.1)  # fmt: skip
    assert any(step.phase == "revise" for step in steps)
    held = caches[0]
    text = prompt + output(prompt, steps)
    again = model.new_cache(len(text))
    with torch.inference_mode():
        model(torch.tensor([text]), pattern="causal", cache=again, write=True)
    assert held.length == len(text)
    torch.testing.assert_close(held.keys[..., : len(text), :], again.keys, rtol=1e-4, atol=1e-5)


def test_forwards_are_counted_and_the_trace_survives_a_file(tiny_engine) -> None:
    request = DecodeRequest(
        prompt="hello", mode="diffusion", max_new_tokens=24, block_length=8, revise_rounds=3, revise_bound=0.5,
        threshold=0.05, remask_bound=0.2, max_forwards_per_block=6, candidates=2, stop_at_eos=False,
    )  # fmt: skip
    run = tiny_engine.run(request)
    steps = list(run)
    trace = run.trace()
    again = Trace.from_json(trace.to_json())
    assert nfe(again) == len(steps) - 1
    assert [s.scores for s in again.steps] == [tuple(type(x)(x.position, x.token, round(x.probability, 5), x.rank) for x in s.scores) for s in steps]
    assert [e.forced for s in again.steps for e in s.events] == [e.forced for s in steps for e in s.events]
    assert fold(len(trace.prompt.ids), again.steps).output() == trace.output.ids


def test_refine_runs_from_text(tiny_engine) -> None:
    run = tiny_engine.run(DecodeRequest(prompt="hello", mode="refine", draft="some words", revise_bound=0.01))
    assert list(run) and len(run.trace().output.ids) == len("some words")
    assert run.stop_reason == "length"


@given(model=models, prompt=prompts, size=st.integers(2, 10), length=st.integers(1, 30), budget=st.integers(0, 12))
@quick
def test_diffusion_ends_its_thinking_in_time(model, prompt, size, length, budget) -> None:
    end_think = 13
    steps = decode(model, prompt, mode="diffusion", block_length=size, max_new_tokens=length, max_thinking_tokens=budget, stop_at_eos=False,
                   end_think_id=end_think)  # fmt: skip
    text = output(prompt, steps)
    assert len(text) == length
    if length > budget:
        assert end_think in text[: budget + 1]
