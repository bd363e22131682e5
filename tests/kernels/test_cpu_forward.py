"""The compiled forward is the model's own, to rounding; and a token's numbers never depend on what comes with it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from kernels import reference
from kernels.cpu_forward import BIDIRECTIONAL, CAUSAL, MASKED, commit_stats
from kernels.pace import Pace
from nemodiff_core.cache import KVCache
from nemodiff_core.config import ModelConfig, RopeConfig
from nemodiff_core.decode.compiled import Compiled
from nemodiff_core.model import TriModeModel
from tests.kernels.oracle import HAIR, check_stats, error

VOCABULARY = 75
some = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# hidden, intermediate, heads, key-value heads, head_dim: whole numbers of panels and not
GEOMETRIES = [(48, 64, 4, 2, 16), (40, 50, 3, 3, 16), (33, 29, 6, 1, 32), (64, 96, 8, 2, 48)]


@cache
def model(geometry: int, halves: bool = True, dtype: torch.dtype = torch.float32) -> TriModeModel:
    hidden, inner, heads, pairs, size = GEOMETRIES[geometry]
    torch.manual_seed(geometry)
    made = TriModeModel(
        ModelConfig(
            vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=2, num_attention_heads=heads,
            num_key_value_heads=pairs, head_dim=size, max_position_embeddings=256, mask_token_id=7, eos_token_id=3,
            rope=RopeConfig(theta=1e4, original_max_position_embeddings=64, llama_4_scaling_beta=0.1),
        )
    ).eval().requires_grad_(False)  # fmt: skip
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.3) if weight.dim() == 2 else torch.nn.init.uniform_(weight, 0.5, 1.5)
        if halves:
            weight.copy_(weight.bfloat16())
    return made.to(dtype)


@cache
def program(geometry: int, halves: bool = True):
    compiled = Compiled(model(geometry, halves))
    compiled.new_cache(1)
    assert compiled._program._halves == halves
    return compiled._program


def filled(geometry: int, rows: int = 1, capacity: int = 100, dtype: torch.dtype = torch.float32) -> KVCache:
    """A cache with something in every place."""
    made = KVCache(model(geometry).config, rows, capacity, dtype=dtype)
    generator = torch.Generator().manual_seed(5)
    for part in (made.keys, made.values):
        part.copy_(torch.randn(part.shape, generator=generator))
    return made


def call(geometry: int, tokens: torch.Tensor, parts: list, positions: torch.Tensor, cache: KVCache, rows=None, halves=True, **more):
    whole = model(geometry, halves)
    cos, sin = whole.angles(256)
    scales = whole.query_scale(slice(0, len(cos)), len(cos), torch.float32, whole.device)
    rows = torch.arange(len(tokens)) if rows is None else rows
    run = more.pop("program", None) or program(geometry, halves)
    arrays = [tensor.numpy() for tensor in (cos, sin, scales[:, 0].contiguous(), cache.keys, cache.values, rows)]
    if "visible" in more:
        more["visible"] = more["visible"].numpy()
    return run(tokens.numpy(), positions.numpy(), parts, *arrays, **more)


def beside_the_model(geometry: int, halves: bool, count: int, prefix: int, pattern: int, seed: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """What a forward answers and, of a causal one, caches: as compiled, as the model has it, and as it is in float64."""
    tokens = torch.randint(VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed))
    rows = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: max(1, count // 2)]
    found, words = {}, "causal" if pattern == CAUSAL else "bidirectional"
    for dtype in (torch.float32, torch.float64):
        own = filled(geometry, dtype=dtype)
        own.advance(prefix)
        found[dtype] = model(geometry, halves, dtype)(tokens[None], pattern=words, cache=own, write=words == "causal", rows=rows)[0], own
    theirs = filled(geometry)
    got = call(geometry, tokens, [(0, prefix, 0, count, pattern)], torch.arange(prefix, prefix + count), theirs, rows, halves)
    yield got, found[torch.float32][0], found[torch.float64][0]
    for part in ("keys", "values") if pattern == CAUSAL else ():
        yield tuple(getattr(cache, part) for cache in (theirs, found[torch.float32][1], found[torch.float64][1]))


@some
@given(
    geometry=st.integers(0, len(GEOMETRIES) - 1), halves=st.booleans(), count=st.integers(1, 20), prefix=st.integers(0, 70),
    pattern=st.sampled_from([CAUSAL, BIDIRECTIONAL]), seed=st.integers(0, 99),
)  # fmt: skip
def test_it_computes_what_the_model_computes(geometry, halves, count, prefix, pattern, seed) -> None:
    for got, own, exact in beside_the_model(geometry, halves, count, prefix, pattern, seed):
        # A thousand times below what a wrong index does, ten times above what any order of the sums does.
        (worst, _), (own_worst, _) = error(got, exact), error(own, exact)
        assert worst <= 10 * own_worst + 10 * HAIR


@pytest.mark.parametrize("geometry", range(len(GEOMETRIES)))
def test_it_is_no_further_from_the_truth_than_the_model(geometry: int) -> None:
    """Over many forwards: through all layers, which order of the sums comes out ahead in a single one is luck."""
    far = torch.zeros(2, dtype=torch.float64)  # sums of squared errors: compiled, the model's
    for seed in range(30):
        for got, own, exact in beside_the_model(geometry, seed % 2 == 0, 1 + seed % 20, 7 * (seed % 10), (CAUSAL, BIDIRECTIONAL)[seed // 2 % 2], seed):
            far += torch.stack([(each.double() - exact).square().sum() for each in (got, own)])
    got, own = far.sqrt().tolist()
    assert got <= 1.3 * own, f"error {got:.2e}, the framework's is {own:.2e}"


@some
@given(geometry=st.integers(0, 3), halves=st.booleans(), count=st.integers(1, 20), prefix=st.integers(0, 40), data=st.data())
def test_a_causal_pass_cut_anywhere_gives_the_same_bits(geometry, halves, count, prefix, data) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, count), max_size=4)) | {count})
    tokens, positions = torch.randint(VOCABULARY, (count,)), torch.arange(prefix, prefix + count)
    whole, cut = filled(geometry), filled(geometry)
    expected = call(geometry, tokens, [(0, prefix, 0, count, CAUSAL)], positions, whole, halves=halves)
    start = 0
    for end in cuts:
        part = call(
            geometry, tokens[start:end], [(0, prefix + start, 0, end - start, CAUSAL)], positions[start:end], cut, halves=halves
        )
        assert torch.equal(part, expected[start:end])
        start = end
    assert torch.equal(cut.keys, whole.keys) and torch.equal(cut.values, whole.values)


@some
@given(data=st.data(), geometry=st.integers(0, 3))
def test_rows_together_get_the_bits_that_they_get_alone(data, geometry) -> None:
    rows = data.draw(st.permutations(range(4)))[: data.draw(st.integers(1, 4))]
    parts, start = [], 0
    for row in rows:
        count = data.draw(st.integers(1, 9))
        parts.append((row, data.draw(st.integers(0, 60)), start, count, data.draw(st.sampled_from([CAUSAL, BIDIRECTIONAL]))))
        start += count
    tokens = torch.randint(VOCABULARY, (start,))
    positions = torch.cat([torch.arange(prefix, prefix + count) for _, prefix, _, count, _ in parts])
    together = call(geometry, tokens, parts, positions, filled(geometry, 4))
    for row, prefix, first, count, pattern in parts:
        own = slice(first, first + count)
        alone = call(geometry, tokens[own], [(row, prefix, 0, count, pattern)], positions[own], filled(geometry, 4))
        assert torch.equal(together[own], alone)


def test_two_threads_compute_what_one_does() -> None:
    tokens, positions = torch.randint(VOCABULARY, (37,)), torch.arange(20, 57)
    found = []
    for threads in (1, 2):
        run = program(0)
        run._pace, before = SimpleNamespace(threads=lambda rows: threads, note=lambda *_: None), run._pace
        try:
            found.append(call(0, tokens, [(0, 20, 0, 37, CAUSAL)], positions, filled(0)))
        finally:
            run._pace = before
    assert torch.equal(*found)


@some
@given(geometry=st.integers(0, 3), count=st.integers(1, 12), prefix=st.integers(0, 30), seed=st.integers(0, 99))
def test_a_layout_of_its_own(geometry, count, prefix, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    visible = (torch.rand((count, count), generator=generator) < 0.5) | torch.eye(count, dtype=torch.bool)
    offsets, tokens = torch.randint(30, (count,), generator=generator), torch.randint(VOCABULARY, (count,), generator=generator)
    own = filled(geometry)
    own.advance(prefix)
    mask = torch.cat((torch.ones(count, prefix, dtype=torch.bool), visible), dim=1)
    expected = model(geometry).hidden(tokens[None], offsets + prefix, 256, mask=mask, cache=own)[0]
    got = call(geometry, tokens, [(0, prefix, 0, count, MASKED)], offsets + prefix, filled(geometry), visible=visible, head=False)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_what_is_not_a_number_stays_so_and_reaches_only_who_sees_it() -> None:
    cache = filled(0)
    cache.values[1, 0, 0, 12] = torch.nan  # behind the first two tokens' prefix
    tokens, positions = torch.tensor([1, 2, 3, 4]), torch.arange(10, 14)
    fine = call(0, tokens[:2], [(0, 10, 0, 2, CAUSAL)], positions[:2], cache)
    assert fine.isfinite().all()
    cache.values[0, 0, 0, 3] = torch.nan
    assert call(0, tokens, [(0, 10, 0, 4, CAUSAL)], positions, cache).isnan().all()


@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 75), (16, 2048), (5, 507)])
@pytest.mark.parametrize(("candidates", "margin"), [(0, False), (8, False), (0, True), (3, True)])
def test_commit_stats(rows, vocabulary, candidates, margin) -> None:
    logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(rows)) * 6
    logits[0, 20] = logits[0, 30] = logits[0].max() + 1  # the lower of two equal ones
    logits[-1, 7] = 40  # the mask has nearly all the probability
    logits[-1, 40:60] = -torch.inf
    got = commit_stats(logits, 7, candidates=candidates, margin=margin)
    check_stats(got, logits, 7, candidates, margin, own=reference.commit_stats(logits, 7, candidates=candidates, margin=margin))


def test_what_cannot_be_has_no_probability() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 1.0, -200.0, 0.5]])
    got = commit_stats(logits, 4, candidates=4)
    assert got[0, 3 + 4 :].tolist()[2:] == [0.0, 0.0]


def test_stats_of_what_is_not_a_number() -> None:
    logits = torch.randn(3, 75)
    logits[0, 3], logits[1] = torch.nan, -torch.inf
    got = commit_stats(logits, 7, candidates=4)
    assert got[:2, 2].isnan().all() and got[2].isfinite().all()
    assert ((got[:, 0] >= 0) & (got[:, 0] < 75)).all()


def test_the_pace_turns_to_what_is_quicker_and_looks_again() -> None:
    pace = Pace(2)
    assert pace.threads(1) == 1 and Pace(1).threads(50) == 1

    def chosen(seconds: dict[int, float], times: int) -> list[int]:
        found = []
        for _ in range(times):
            found.append(pace.threads(16))
            pace.note(16, found[-1], seconds[found[-1]])
        return found

    assert chosen({1: 2.0, 2: 1.1}, 300)[-60:].count(2) >= 58
    assert 1 in chosen({1: 2.0, 2: 1.1}, 200)  # now and then it looks whether one would do
    assert chosen({1: 2.0, 2: 9.0}, 400)[-60:].count(1) >= 58
    assert chosen({1: 2.0, 2: 1.1}, 2000)[-60:].count(2) >= 58
