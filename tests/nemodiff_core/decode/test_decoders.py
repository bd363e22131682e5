"""The invariants of DESIGN §6 for every mode, on random models, prompts and knobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from nemodiff_core.cache import KVCache
from nemodiff_core.decode import GIVEN, MODES, ar, denoise, diffusion, linear_spec, quadratic_spec, refine
from nemodiff_core.decode.batch import alone, together
from nemodiff_core.decode.calls import Decoding
from nemodiff_core.metrics import nfe
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import EMITTED, Step, fold
from tests.conftest import random_model

EOS, MASK, VOCABULARY = 11, 100, 130
MODELS = [random_model(seed, VOCABULARY) for seed in range(3)]

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def knobs(draw: st.DrawFn, mode: str | None = None) -> dict:
    """Any sound combination of knobs."""
    mode = mode or draw(st.sampled_from(sorted(MODES.keys() - GIVEN)))
    fields = {
        "mode": mode,
        "block_length": draw(st.integers(2, 20)),
        "max_new_tokens": draw(st.integers(1, 40)),
        "stop_at_eos": draw(st.booleans()),
        "temperature": draw(st.sampled_from([0.0, 0.0, 0.7, 1.5])),
        "top_p": draw(st.sampled_from([1.0, 0.8])),
        "seed": draw(st.integers(0, 99)),
        "candidates": draw(st.sampled_from([0, 0, 3])),
    }
    if mode in ("diffusion", "linear_spec") and draw(st.booleans()):
        fields["threshold"] = draw(st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0]))
    elif mode == "diffusion" and draw(st.booleans()):
        fields["steps"] = draw(st.integers(1, 8))
    return fields


prompts = st.lists(st.integers(0, VOCABULARY - 1).filter(lambda t: t != MASK), min_size=1, max_size=12)
models = st.integers(0, len(MODELS) - 1).map(MODELS.__getitem__)


def biased(model: TriModeModel, token: int, amount: float) -> TriModeModel:
    """The same model with a head that leans towards one token."""
    other = TriModeModel(model.config).eval().requires_grad_(False)
    other.load_state_dict(model.state_dict())
    plain = other.head
    other.head = lambda x: plain(x) + amount * torch.eye(VOCABULARY)[token]
    return other


def decoder(model: TriModeModel, prompt: list[int], *, end_think_id: int | None = None, given: Any = None, **fields) -> Decoding[None]:
    """The decoder of a request with these fields; `given` is the text of the modes that start from one."""
    request = DecodeRequest(prompt="x", **fields)
    ticks = iter(range(10_000))
    more = {} if given is None else {"given": given}
    return MODES[request.mode](
        model, prompt, request, eos_id=EOS, mask_id=MASK, end_think_id=end_think_id, generator=torch.Generator().manual_seed(request.seed),
        clock=lambda: next(ticks), **more,
    )  # fmt: skip


def decode(model: TriModeModel, prompt: list[int], **fields) -> list[Step]:
    return list(alone(model, decoder(model, prompt, **fields)))


def share(model: TriModeModel, decoders: Sequence[Decoding[None]]) -> list[list[Step]]:
    """The steps of every decoder, driven together."""
    steps: list[list[Step]] = [[] for _ in decoders]
    ended = []
    for row, step in together(model, decoders):
        ended.append(row) if step is None else steps[row].append(step)
    assert sorted(ended) == list(range(len(decoders)))
    return steps


def sampled(model: TriModeModel, prompt: list[int], runs: int, **fields) -> Iterator[list[int]]:
    """What a run writes with each of the seeds 0, 1, ... A hundred share their forwards, or it would take minutes."""
    for first in range(0, runs, 100):
        seeds = range(first, min(first + 100, runs))
        for steps in share(model, [decoder(model, prompt, seed=seed, **fields) for seed in seeds]):
            yield output(prompt, steps)


def output(prompt: list[int], steps: list[Step]) -> list[int]:
    return fold(len(prompt), steps).output()


@given(model=models, prompt=prompts, block=st.integers(2, 24), length=st.integers(1, 60), lean=st.sampled_from([0.0, 4.0]),
       threshold=st.sampled_from([None, 0.2, 0.9]))  # fmt: skip
@quick
def test_greedy_self_speculation_emits_ars_tokens(model, prompt, block, length, lean, threshold) -> None:
    model = biased(model, EOS, lean)  # leaning towards the end, so that runs stop at every place in a block
    reference = output(prompt, decode(model, prompt, mode="ar", max_new_tokens=length))
    steps = decode(model, prompt, mode="linear_spec", max_new_tokens=length, block_length=block, threshold=threshold)
    assert output(prompt, steps) == reference


@given(model=models, prompt=prompts, fields=knobs(), lean=st.sampled_from([0.0, 3.0]))
@quick
def test_every_run_is_sound(model, prompt, fields, lean) -> None:
    model = biased(model, EOS, lean)
    steps = decode(model, prompt, **fields)
    ids = output(prompt, steps)
    assert 1 <= len(ids) <= fields["max_new_tokens"]
    assert MASK not in ids
    if fields["stop_at_eos"]:
        assert EOS not in ids[:-1]
        assert len(ids) == fields["max_new_tokens"] or ids[-1] == EOS
    else:
        assert len(ids) == fields["max_new_tokens"]
    canvas = fold(len(prompt), steps)
    emitted = [position for position, cell in canvas.cells.items() if cell.status in EMITTED]
    assert sorted(emitted) == list(range(len(prompt), len(prompt) + len(ids)))
    assert [step.index for step in steps] == list(range(len(steps)))
    for step in steps:
        for event in step.events:
            assert event.confidence is None or 0 <= event.confidence <= 1
            assert event.entropy is None or event.entropy >= 0
            assert len(prompt) <= event.position
        for cell in step.candidates:
            assert len(cell.ids) == fields["candidates"] and MASK not in cell.ids
            assert list(cell.probabilities) == sorted(cell.probabilities, reverse=True)


# Quadratic forwards are of another kind: test_speculation.py.
@given(model=models, prompt=prompts, fields=knobs().filter(lambda fields: fields["mode"] != "quadratic_spec"))
@quick
def test_steps_are_the_forwards_that_ran_and_only_causal_passes_write(model, prompt, fields) -> None:
    calls: list[tuple[str, bool, int]] = []
    caches: set[KVCache] = set()
    plain = TriModeModel.forward

    def spy(self, tokens, *, pattern, cache=None, write=False, rows=None, draft=False):
        calls.append((pattern, write, tokens.shape[1]))
        caches.add(cache)
        return plain(self, tokens, pattern=pattern, cache=cache, write=write, rows=rows, draft=draft)

    TriModeModel.forward = spy
    try:
        steps = decode(model, prompt, **fields)
    finally:
        TriModeModel.forward = plain
    assert len(steps) == len(calls)
    for step, (pattern, write, count) in zip(steps, calls):
        assert pattern == ("bidirectional" if step.phase in ("denoise", "draft") else "causal")
        assert write == (pattern == "causal")
        assert step.span[1] - step.span[0] == count
    # What is cached is what a plain causal pass over the same tokens computes.
    (cache,) = caches
    ids = [*prompt, *output(prompt, steps)]
    fresh = model.new_cache(len(ids) + 1)
    with torch.inference_mode():
        model(torch.tensor([ids]), pattern="causal", cache=fresh, write=True)
    assert len(prompt) <= cache.length <= len(ids)
    for stored, expected in ((cache.keys, fresh.keys), (cache.values, fresh.values)):
        held = slice(0, cache.length)
        torch.testing.assert_close(stored[..., held, :], expected[..., held, :], atol=2e-4, rtol=1e-3)


@given(model=models, prompt=prompts, fields=knobs(), shorter=st.integers(1, 39))
@quick
def test_a_smaller_budget_writes_a_prefix(model, prompt, fields, shorter) -> None:
    fields = fields | {"temperature": 0.0}
    long = output(prompt, decode(model, prompt, **fields))
    short = output(prompt, decode(model, prompt, **fields | {"max_new_tokens": min(shorter, fields["max_new_tokens"])}))
    assert short == long[: len(short)]


@pytest.mark.parametrize("mode", sorted(MODES.keys() - GIVEN))
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_mask_is_never_written_even_by_a_model_that_loves_it(mode: str, temperature: float) -> None:
    model = biased(MODELS[0], MASK, 50.0)
    steps = decode(model, [5, 6], mode=mode, temperature=temperature, max_new_tokens=20, stop_at_eos=False)
    ids = output([5, 6], steps)
    assert len(ids) == 20 and MASK not in ids
    confidences = [e.confidence for s in steps for e in s.events if e.kind == "commit"]
    assert all(c < 1e-3 for c in confidences), "the mask keeps its share of the probability"


@given(model=models, prompt=prompts, block=st.integers(2, 20))
@quick
def test_budgets_of_diffusion(model, prompt, block) -> None:
    def denoise_steps(**more) -> list[int]:
        fields = {"mode": "diffusion", "block_length": block, "max_new_tokens": 2 * block, "stop_at_eos": False}
        steps = decode(model, prompt, **fields, **more)
        return [count for _, count in sorted(Counter(s.block for s in steps if s.phase == "denoise").items())]

    assert denoise_steps(threshold=0.0) == [1, 1]
    assert denoise_steps(threshold=1.0) == [block - 1, block - 1]
    for n in (1, 2, 5):
        assert denoise_steps(steps=n) == [min(n, block - 1)] * 2


@given(model=models, prompt=prompts, fields=knobs(), more=st.integers(1, 16))
@quick
def test_recording_candidates_changes_nothing_else(model, prompt, fields, more) -> None:
    bare = decode(model, prompt, **fields | {"candidates": 0})
    full = decode(model, prompt, **fields | {"candidates": more})
    assert output(prompt, full) == output(prompt, bare)
    assert [[(e.position, e.token, e.kind) for e in s.events] for s in full] == [
        [(e.position, e.token, e.kind) for e in s.events] for s in bare
    ]
    assert not any(s.candidates for s in bare)
    for step in full:
        looked_at = {
            "prefill": {len(prompt)},
            "ar": {step.span[1]},
            "denoise": set(range(*step.span)),
            "draft": {e.position for e in step.events},  # at least the cells drafted now
            # Of a quadratic verification, the cells that were decided or drafted.
            "verify": {e.position for e in step.events}
            if fields["mode"] == "quadratic_spec"
            else {position + 1 for position in range(*step.span)},
            "commit": {e.position for e in step.events if e.kind == "seed"},
        }[step.phase]
        assert looked_at <= {cell.position for cell in step.candidates}


class HostReads(TorchDispatchMode):
    """Counts the operations that bring a tensor's value to Python, or a size that depends on one."""

    waiting = {
        "aten::_local_scalar_dense",
        "aten::item",
        "aten::nonzero",
        "aten::masked_select",
        "aten::equal",
        "aten::multinomial",  # checks its input on the host, twice
    }

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.name() in self.waiting or func.name().startswith("aten::unique")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", sorted(MODES.keys() - GIVEN))
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_step_waits_for_the_device_once(mode: str, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    for module in (ar, denoise, diffusion, linear_spec, quadratic_spec, refine):
        plain = module.read
        monkeypatch.setattr(module, "read", lambda packed, plain=plain: reads.append(1) or plain(packed))
    with HostReads() as host:
        steps = decode(MODELS[0], [5, 6, 7], mode=mode, temperature=temperature, top_p=0.9, candidates=4, max_new_tokens=20,
                       block_length=6, stop_at_eos=False)  # fmt: skip
    assert len(reads) == len(steps)
    assert host.count == 0


def test_nfe_is_counted_as_the_reference_counts_it(tiny_engine) -> None:
    def run(**fields):
        run = tiny_engine.run(DecodeRequest(prompt="abc", stop_at_eos=False, max_new_tokens=16, **fields))
        return list(run), run.trace()

    steps, trace = run(mode="ar")
    assert nfe(trace) == 16 == len(steps)
    steps, trace = run(mode="diffusion", block_length=8, steps=3)
    # Two blocks of eight: three denoise steps and a commit pass each; the prefill is not counted.
    assert nfe(trace) == 8 and len(steps) == 9
    steps, trace = run(mode="linear_spec", block_length=8)
    phases = Counter(s.phase for s in steps)
    assert phases["prefill"] == 1 and phases["draft"] == phases["verify"]
    assert nfe(trace) == len(steps) == 1 + 2 * phases["verify"]


@pytest.mark.parametrize("mode", ["ar", "linear_spec"])
def test_sampling_keeps_ars_distribution(mode: str) -> None:
    """The first two sampled tokens follow the exact product of the causal softmaxes (DESIGN §6.2)."""
    torch.manual_seed(3)
    model = random_model(5, VOCABULARY)
    chosen = torch.randperm(99)[:5]  # a vocabulary of five, the rest is out of reach
    plain = model.head
    shut = torch.full((VOCABULARY,), -1e4)
    shut[chosen] = 0.0
    model.head = lambda x: plain(x) * 0.15 + shut
    prompt = [7, 8, 9]
    with torch.inference_mode():
        first = model(torch.tensor([prompt]), pattern="causal")[0, -1].softmax(-1)
        joint = {}
        for a in chosen.tolist():
            second = model(torch.tensor([[*prompt, a]]), pattern="causal")[0, -1].softmax(-1)
            joint.update({(a, b): float(first[a] * second[b]) for b in chosen.tolist()})
    runs = 1500
    seen: Counter = Counter()
    for ids in sampled(model, prompt, runs, mode=mode, temperature=1.0, max_new_tokens=3, block_length=3, stop_at_eos=False):
        seen[tuple(ids[:2])] += 1
    chi_square = sum((seen[pair] - runs * p) ** 2 / (runs * p) for pair, p in joint.items())
    assert chi_square < 51.2, "24 degrees of freedom: exceeded once in a thousand by chance"


def test_drafts_are_sometimes_right_and_often_refused() -> None:
    """Guards the tests above against a verifier that never meets a matching draft, or never a wrong one."""
    model = biased(MODELS[1], 42, 9.0)
    steps = decode(model, [1, 2, 3], mode="linear_spec", max_new_tokens=120, block_length=6, stop_at_eos=False)
    kinds = Counter(e.kind for s in steps for e in s.events)
    assert kinds["accept"] > 5 and kinds["reject"] > 5 and kinds["bonus"] > 5
