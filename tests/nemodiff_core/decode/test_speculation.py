"""Self-speculation: the ratio rule, quadratic drafts, adaptive blocks and the thinking budget."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from nemodiff_core.cache import KVCache
from nemodiff_core.decode import linear_spec, quadratic_spec
from nemodiff_core.decode.linear_spec import BlockLength
from nemodiff_core.decode.quadratic_spec import layout
from nemodiff_core.decode.sampling import Sampler, choose_beside, drawn_from, looks_of
from nemodiff_core.errors import RequestError
from nemodiff_core.metrics import acceptance_lengths, nfe
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest, parse_request
from nemodiff_core.trace import Step, Trace
from tests.conftest import random_model
from tests.nemodiff_core.decode import test_decoders as decoders
from tests.nemodiff_core.decode.test_decoders import EOS, MODELS, VOCABULARY, HostReads, biased, models, output, prompts, sampled

END_THINK = 13
SPECULATIVE = ("linear_spec", "quadratic_spec")
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def decode(model: TriModeModel, prompt: list[int], mode: str, **fields) -> list[Step]:
    return decoders.decode(model, prompt, mode=mode, end_think_id=END_THINK, **fields)


# Quadratic self-speculation


@given(model=models, prompt=prompts, block=st.integers(2, 16), length=st.integers(1, 40), lean=st.sampled_from([0.0, 4.0]))
@quick
def test_greedy_quadratic_emits_ars_tokens(model, prompt, block, length, lean) -> None:
    model = biased(model, EOS, lean)
    reference = output(prompt, decode(model, prompt, "ar", max_new_tokens=length))
    steps = decode(model, prompt, "quadratic_spec", max_new_tokens=length, block_length=block)
    assert output(prompt, steps) == reference


@given(model=models, prompt=prompts, block=st.integers(2, 9), length=st.integers(1, 24), temperature=st.sampled_from([0.0, 1.0]),
       budget=st.none() | st.integers(0, 12))  # fmt: skip
@quick
def test_a_quadratic_step_is_one_forward_that_leaves_only_causal_keys(model, prompt, block, length, temperature, budget) -> None:
    calls: list[tuple[int, int]] = []
    caches: set[KVCache] = set()
    plain = TriModeModel.hidden

    def spy(self, tokens, positions, limit, **more):
        calls.append((int(positions.min()), int(positions.max()) + 1))
        caches.add(more["cache"])
        return plain(self, tokens, positions, limit, **more)

    TriModeModel.hidden = spy
    try:
        steps = decode(model, prompt, "quadratic_spec", max_new_tokens=length, block_length=block, temperature=temperature,
                       max_thinking_tokens=budget)  # fmt: skip
    finally:
        TriModeModel.hidden = plain
    assert [step.span for step in steps] == calls
    (cache,) = caches
    ids = [*prompt, *output(prompt, steps)]
    fresh = model.new_cache(len(ids))
    with torch.inference_mode():
        model(torch.tensor([ids]), pattern="causal", cache=fresh, write=True)
    assert cache.length == len(ids) - 1, "all but the last token, which nobody reads"
    for stored, expected in ((cache.keys, fresh.keys), (cache.values, fresh.values)):
        held = slice(0, cache.length)
        torch.testing.assert_close(stored[..., held, :], expected[..., held, :], atol=2e-4, rtol=1e-3)


def test_a_layout_lets_masks_see_their_group_and_tokens_only_the_chain() -> None:
    chain, opening, size = 4, 1, 3
    plan = layout(chain, opening, size, torch.device("cpu"))
    inputs = [(i, 0) for i in range(chain)] + [(i, d) for i in range(opening, chain) for d in range(1, size + 1)]
    assert plan.offsets.tolist() == [group + depth for group, depth in inputs]
    for (q, (group, depth)), (k, (other, other_depth)) in product(enumerate(inputs), repeat=2):
        seen = other <= group if other_depth == 0 else (depth > 0 and other == group)
        assert bool(plan.visible[q, k]) == seen


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_quadratic_figures_add_up(tiny_engine, temperature: float) -> None:
    request = DecodeRequest(prompt="abc", mode="quadratic_spec", block_length=5, max_new_tokens=20, candidates=2, temperature=temperature,
                            stop_at_eos=False)  # fmt: skip
    run = tiny_engine.run(request)
    steps = list(run)
    trace = Trace.from_json(run.trace().to_json())
    assert nfe(trace) == len(steps)
    assert 1 + sum(acceptance_lengths(trace)) == len(trace.output.ids) == 20
    assert all(1 <= n <= 5 for n in acceptance_lengths(trace))


def test_quadratic_drafts_are_sometimes_right_and_often_refused() -> None:
    model = biased(MODELS[1], 42, 9.0)
    steps = decode(model, [1, 2, 3], "quadratic_spec", max_new_tokens=80, block_length=5, stop_at_eos=False)
    kinds = Counter(e.kind for s in steps for e in s.events)
    assert kinds["accept"] > 5 and kinds["reject"] > 5 and kinds["bonus"] > 5


# The thinking budget


@given(model=models, prompt=prompts, block=st.integers(2, 10), budget=st.integers(0, 20), mode=st.sampled_from(SPECULATIVE),
       leaning=st.sampled_from([(EOS, 0.0), (EOS, 3.0), (END_THINK, 3.0)]), adaptive=st.booleans())  # fmt: skip
@quick
def test_the_thinking_budget_is_ars(model, prompt, block, budget, mode, leaning, adaptive) -> None:
    model = biased(model, *leaning)
    budgeted = {"max_new_tokens": 24, "max_thinking_tokens": budget}
    reference = output(prompt, decode(model, prompt, "ar", **budgeted))
    more = {"adaptive_block": adaptive, "threshold": 0.2} if mode == "linear_spec" else {}
    steps = decode(model, prompt, mode, block_length=block, **budgeted, **more)
    assert output(prompt, steps) == reference
    forced = [e.position - len(prompt) for s in steps for e in s.events if e.kind == "pin"]
    if len(reference) > budget and END_THINK not in reference[:budget]:
        assert forced == [budget] and reference[budget] == END_THINK
    else:
        assert forced == []


def test_a_forced_end_of_thinking_is_fed() -> None:
    ids = output([5, 6], decode(MODELS[0], [5, 6], "ar", max_new_tokens=12, max_thinking_tokens=4, stop_at_eos=False))
    plain = output([5, 6], decode(MODELS[0], [5, 6], "ar", max_new_tokens=12, stop_at_eos=False))
    again = output([5, 6, *ids[:5]], decode(MODELS[0], [5, 6, *ids[:5]], "ar", max_new_tokens=7, stop_at_eos=False))
    assert ids[:4] == plain[:4] and ids[4] == END_THINK != plain[4]
    assert ids[5:] == again


@pytest.mark.parametrize("mode", ["ar", *SPECULATIVE])
def test_an_engine_finds_the_token_or_refuses_the_budget(tiny_engine, mode: str) -> None:
    request = DecodeRequest(prompt="abc", mode=mode, max_new_tokens=6, max_thinking_tokens=2, stop_at_eos=False)
    run = tiny_engine.run(request)
    list(run)
    assert run.trace().output.pieces[2] == "</think>"
    tiny_engine.end_think_id = None
    with pytest.raises(RequestError, match="max_thinking_tokens"):
        tiny_engine.run(request)


# Adaptive blocks


def test_adaptive_blocks_follow_the_acceptance() -> None:
    fixed, adaptive = BlockLength(16, False), BlockLength(16, True)
    assert adaptive.next() == 16
    seen = []
    for _ in range(8):
        fixed.saw(1)
        adaptive.saw(1)
        seen.append(adaptive.next())
    assert seen == sorted(seen, reverse=True) and seen[-1] == 2 and fixed.next() == 16
    for _ in range(12):
        adaptive.saw(adaptive.next())
    assert adaptive.next() == 16, "blocks that are accepted whole grow back"


@given(model=models, prompt=prompts, block=st.integers(2, 16), length=st.integers(1, 40))
@settings(quick, max_examples=15)
def test_greedy_adaptive_blocks_emit_ars_tokens(model, prompt, block, length) -> None:
    reference = output(prompt, decode(model, prompt, "ar", max_new_tokens=length))
    steps = decode(model, prompt, "linear_spec", max_new_tokens=length, block_length=block, adaptive_block=True)
    assert output(prompt, steps) == reference
    assert all(1 <= step.span[1] - step.span[0] <= block for step in steps[1:])


# The ratio rule


def test_greedy_ratio_is_match() -> None:
    for fields in ({"block_length": 6}, {"block_length": 9, "threshold": 0.3}):
        match, ratio = (decode(MODELS[2], [4, 5], "linear_spec", verification=v, max_new_tokens=30, **fields) for v in ("match", "ratio"))
        assert match == ratio


def test_ratio_keeps_the_distribution_and_as_many_drafts_as_it_allows() -> None:
    runs, vocabulary, mask = 40_000, 7, 2
    causal = torch.tensor([1.0, 0.2, 3.0, -0.5, 0.6, -3.0, 0.0]).repeat(runs, 1)
    bidirectional = torch.tensor([0.1, 1.0, 3.0, 0.4, 0.6, -3.0, -0.6]).repeat(runs, 1)
    generator = torch.Generator().manual_seed(9)
    knobs = {"temperature": 0.8, "top_p": 0.95, "generator": generator}
    drafter, verifier = Sampler(mask, tempered=True, **knobs), Sampler(mask, **knobs)
    q, p = drawn_from(drafter, bidirectional), drawn_from(verifier, causal)[0]
    drafts = drafter.choose(bidirectional)[:, 0].long()
    packed = choose_beside(verifier, torch.cat((causal, causal[:1])), drafts, q)
    tokens = packed[:-1, 0].long()
    assert p[mask] == 0 and int((p == 0).sum()) > 1, "the nucleus should cut something"
    seen = torch.bincount(tokens, minlength=vocabulary)
    assert int(seen[p == 0].sum()) == 0
    chi_square = float((((seen - runs * p) ** 2) / (runs * p))[p > 0].sum())
    assert chi_square < 18.5, "4 degrees of freedom: exceeded once in a thousand by chance"
    kept = float((tokens == drafts).float().mean())
    assert kept == pytest.approx(float(torch.minimum(p, q[0]).sum()), abs=0.01)
    # Matching drafts by chance is all that the other rule does.
    assert kept > float((p * q[0]).sum()) + 0.1
    look = looks_of(packed.tolist())[0]
    assert look.confidence == pytest.approx(float(causal[0].softmax(0)[look.token]), abs=1e-6)


def test_equal_distributions_keep_every_draft() -> None:
    logits = torch.randn(500, 40, generator=torch.Generator().manual_seed(1))
    sampler = Sampler(2, 1.0, 0.9, generator=torch.Generator().manual_seed(2))
    drafts = sampler.choose(logits)[:, 0].long()
    packed = choose_beside(sampler, torch.cat((logits, logits[:1])), drafts, drawn_from(sampler, logits))
    assert packed[:-1, 0].long().tolist() == drafts.tolist()


def test_ratio_accepts_more_than_match() -> None:
    model = random_model(5, VOCABULARY)
    plain = model.head
    model.head = lambda x: plain(x) * 0.1

    def accepted(rule: str) -> int:
        steps = decode(model, [7, 8], "linear_spec", verification=rule, temperature=1.0, max_new_tokens=150, block_length=6, stop_at_eos=False)
        return sum(e.kind == "accept" for s in steps for e in s.events)

    assert accepted("ratio") > 3 * accepted("match")


def test_ratio_drafts_from_the_left_whatever_is_drawn() -> None:
    """Else a draft would not be a draw from the recorded distribution, and the ratio would be of the wrong one."""
    model, _ = small_vocabulary_model()
    first: dict[int, set] = {}  # the cells that the first step drafts, by the token they stand behind
    for seed in range(30):
        steps = decode(model, [7, 8, 9], "linear_spec", verification="ratio", temperature=0.8, threshold=0.6, seed=seed, max_new_tokens=6,
                       block_length=6, stop_at_eos=False)  # fmt: skip
        filled = {3}
        for step in steps[1:]:
            if step.phase == "verify":
                break
            positions = [event.position for event in step.events]
            assert positions == list(range(max(filled) + 1, max(filled) + 1 + len(positions))) and positions
            if len(filled) == 1:
                first.setdefault(steps[0].events[0].token, set()).add(tuple(positions))
            filled.update(positions)
    assert len(first) > 1 and all(len(cells) == 1 for cells in first.values())


def small_vocabulary_model() -> tuple[TriModeModel, list[int]]:
    """A model that can only write three tokens, and not equally gladly causally and bidirectionally."""
    model = random_model(5, VOCABULARY)
    chosen = [17, 42, 88]
    plain = model.head
    shut = torch.full((VOCABULARY,), -1e4)
    shut[chosen] = 0.0
    model.head = lambda x: plain(x) * 0.4 + shut
    return model, chosen


def exact(model: TriModeModel, prompt: list[int], length: int, chosen: list[int], temperature: float, top_p: float) -> dict:
    """What AR sampling does: every continuation of `length` tokens with its probability."""
    joint = {(): 1.0}
    for _ in range(length):
        longer = {}
        for ids, weight in joint.items():
            with torch.inference_mode():
                logits = model(torch.tensor([[*prompt, *ids]]), pattern="causal")[0, -1]
            p = dict(zip(chosen, (logits[chosen] / temperature).softmax(0).tolist()))
            nucleus, mass = [], 0.0
            for token in sorted(chosen, key=p.__getitem__, reverse=True):
                if mass < top_p:
                    nucleus.append(token)
                    mass += p[token]
            longer.update({(*ids, token): weight * p[token] / mass for token in nucleus})
        joint = longer
    return joint


@pytest.mark.parametrize(
    ("mode", "fields"),
    [
        ("linear_spec", {"verification": "ratio"}),
        ("linear_spec", {"verification": "ratio", "threshold": 0.6, "temperature": 0.8, "top_p": 0.9}),
        ("linear_spec", {"threshold": 0.6, "adaptive_block": True}),
        ("quadratic_spec", {}),
        ("quadratic_spec", {"temperature": 0.8, "top_p": 0.9}),
    ],
)
def test_sampling_keeps_ars_distribution(mode: str, fields: dict) -> None:
    """The first three sampled tokens follow the exact product of the causal softmaxes (DESIGN §6.2)."""
    model, chosen = small_vocabulary_model()
    prompt, runs = [7, 8, 9], 300
    fields = {"temperature": 1.0, "top_p": 1.0} | fields
    joint = exact(model, prompt, 3, chosen, fields["temperature"], fields["top_p"])
    seen: Counter = Counter()
    for ids in sampled(model, prompt, runs, mode=mode, max_new_tokens=4, block_length=4, stop_at_eos=False, **fields):
        seen[tuple(ids[:3])] += 1
    assert seen.keys() <= joint.keys()
    # Rare texts are counted together: the bound holds for cells of some size.
    cells = [(seen[ids], runs * p) for ids, p in joint.items() if runs * p >= 5]
    cells.append((runs - sum(count for count, _ in cells), runs - sum(expected for _, expected in cells)))
    chi_square = sum((count - expected) ** 2 / expected for count, expected in cells if expected >= 1)
    assert chi_square < 2 * len(cells) + 12, "exceeded less than once in a thousand by chance"


@pytest.mark.parametrize(
    ("module", "mode", "fields"),
    [
        (linear_spec, "linear_spec", {"verification": "ratio", "threshold": 0.3, "adaptive_block": True}),
        (quadratic_spec, "quadratic_spec", {}),
    ],
)
def test_a_step_waits_for_the_device_once(module, mode: str, fields: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    for name in ("read", "read_with_judgements"):
        plain = getattr(module, name, None)
        monkeypatch.setattr(module, name, lambda *tables, plain=plain: reads.append(1) or plain(*tables), raising=False)
    with HostReads() as host:
        steps = decode(MODELS[0], [5, 6, 7], mode, temperature=1.0, top_p=0.9, candidates=4, max_new_tokens=20, block_length=6,
                       stop_at_eos=False, **fields)  # fmt: skip
    assert len(reads) == len(steps) and host.count == 0


def test_knobs_of_speculation_are_refused_elsewhere() -> None:
    for name, value, mode in (
        ("verification", "ratio", "quadratic_spec"),
        ("adaptive_block", True, "diffusion"),
        ("threshold", 0.5, "quadratic_spec"),
        ("adapter", False, "ar"),
    ):
        with pytest.raises(RequestError, match=f"{name} does nothing in mode {mode}"):
            parse_request({"prompt": "x", "mode": mode, name: value})
