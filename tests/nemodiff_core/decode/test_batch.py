"""Batches: every row writes what it writes alone, forwards and transfers are shared, rows end one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from nemodiff_core.cache import KVCache
from nemodiff_core.decode import MODES, batch
from nemodiff_core.decode.batch import alone, together
from nemodiff_core.decode.calls import Decoding
from nemodiff_core.errors import NemodiffError
from nemodiff_core.lora import DraftAdapter, LowRank
from nemodiff_core.model import TriModeModel
from nemodiff_core.packed import Packed, Part
from nemodiff_core.trace import Step
from tests.nemodiff_core.decode import test_decoders as decoders
from tests.nemodiff_core.decode.test_decoders import EOS, MODELS, VOCABULARY, HostReads, biased, output, prompts
from tests.nemodiff_core.decode.test_infill import texts

END_THINK = 13
some = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def ready(model: TriModeModel, dtype: torch.dtype) -> TriModeModel:
    """The model with an adapter that changes what it drafts, and a head that ends some of its texts early."""
    model = copy.deepcopy(model).to(dtype)
    plain, lean = model.head, 2.0 * torch.eye(VOCABULARY, dtype=dtype)[EOS]
    model.head = lambda x: plain(x) + lean
    generator, config = torch.Generator().manual_seed(4), model.config
    queries = config.num_attention_heads * config.head_dim
    model.draft_adapter = DraftAdapter(tuple(
        LowRank(torch.randn(2, queries, generator=generator), torch.randn(config.hidden_size, 2, generator=generator), 0.3)
        for _ in range(config.num_hidden_layers)
    )).to(dtype)  # fmt: skip
    return model


SINGLE = [ready(model, torch.float32) for model in MODELS]
# Sums in another order round otherwise; at this precision that moves no choice, however often one tries.
DOUBLE = [ready(model, torch.float64) for model in MODELS]


@st.composite
def rows(draw: st.DrawFn) -> dict:
    """A prompt and any sound combination of knobs, in any mode."""
    mode = draw(st.sampled_from(sorted(MODES)))
    fields = {
        "mode": mode,
        "block_length": draw(st.integers(2, 9)),
        "max_new_tokens": draw(st.integers(1, 20)),
        "stop_at_eos": draw(st.booleans()),
        "temperature": draw(st.sampled_from([0.0, 0.8])),
        "top_p": draw(st.sampled_from([1.0, 0.8])),
        "seed": draw(st.integers(0, 99)),
        "candidates": draw(st.sampled_from([0, 3])),
    }
    given = None
    if mode in ("diffusion", "refine", "infill"):
        fields |= draw(st.sampled_from([
            {}, {"threshold": 0.05}, {"steps": 2}, {"policy": "margin", "margin_bound": 0.1}, {"policy": "entropy_budget"},
            {"max_forwards_per_block": 2}, {"remask_bound": 0.4, "threshold": 0.1},
        ]))  # fmt: skip
    if mode in ("diffusion", "refine") and draw(st.booleans()):
        fields |= {"revise_rounds": draw(st.integers(1, 4)), "revise_bound": 0.5}
        fields["pins"] = [(o, 40 + o) for o in draw(st.sets(st.integers(0, fields["max_new_tokens"] - 1), max_size=3))]
    if mode == "linear_spec":
        fields |= draw(st.sampled_from([{}, {"threshold": 0.3}, {"verification": "ratio", "threshold": 0.2}]))
        fields |= {"adapter": draw(st.booleans()), "adaptive_block": draw(st.booleans())}
    if mode in ("ar", "diffusion", "linear_spec", "quadratic_spec"):
        fields["max_thinking_tokens"] = draw(st.none() | st.integers(0, 9))
    if mode == "refine":
        length = fields["max_new_tokens"]
        given = draw(st.lists(st.integers(20, 90), min_size=length, max_size=length))
        fields["draft"] = "x"
    if mode == "infill":
        given = draw(texts(fields["block_length"]))
        fields["template"] = "▢"
    return {"prompt": draw(prompts), "given": given, "fields": fields}


def decoder(model: TriModeModel, row: dict) -> Decoding[None]:
    return decoders.decoder(model, row["prompt"], end_think_id=END_THINK, given=row["given"], **row["fields"])


def run_together(model: TriModeModel, wanted: list[dict]) -> list[list[Step]]:
    return decoders.share(model, [decoder(model, row) for row in wanted])


def close(ours: float | None, theirs: float | None, tolerance: float) -> bool:
    return ours == theirs or abs(ours - theirs) <= tolerance


def same(ours: list[Step], theirs: list[Step], tolerance: float) -> None:
    """The same steps, up to the rounding of probabilities."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert (a.index, a.phase, a.span, a.block, a.elapsed_ns) == (b.index, b.phase, b.span, b.block, b.elapsed_ns)
        assert [(e.position, e.token, e.kind, e.forced) for e in a.events] == [(e.position, e.token, e.kind, e.forced) for e in b.events]
        assert all(close(e.confidence, f.confidence, tolerance) for e, f in zip(a.events, b.events))
        assert [(s.position, s.token, s.rank) for s in a.scores] == [(s.position, s.token, s.rank) for s in b.scores]
        assert all(close(s.probability, t.probability, tolerance) for s, t in zip(a.scores, b.scores))
        assert [(c.position, c.ids) for c in a.candidates] == [(c.position, c.ids) for c in b.candidates]


@given(seed=st.integers(0, 2), wanted=st.lists(rows(), min_size=2, max_size=5))
@some
def test_every_row_writes_what_it_writes_alone(seed: int, wanted: list[dict]) -> None:
    caches: list[KVCache] = []
    plain = KVCache.row
    KVCache.row = lambda self, number: (c := plain(self, number), caches.append(c))[0]
    try:
        mixed = run_together(DOUBLE[seed], wanted)
    finally:
        KVCache.row = plain
    for row, steps, cache in zip(wanted, mixed, caches, strict=True):
        same(steps, list(alone(DOUBLE[seed], decoder(DOUBLE[seed], row))), 1e-6)
        # Invariant 4: what is cached is what a plain causal pass over the text computes.
        text = [*row["prompt"], *output(row["prompt"], steps)][: cache.length]
        fresh = DOUBLE[seed].new_cache(cache.length)
        with torch.inference_mode():
            DOUBLE[seed](torch.tensor([text]), pattern="causal", cache=fresh, write=True)
        for layer in range(len(cache.keys)):
            for ours, theirs in zip(cache.read(layer, cache.length), fresh.read(layer, cache.length), strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


ROWS = [
    {"prompt": [5, 6, 7], "given": None, "fields": {"mode": "ar", "max_new_tokens": 30}},
    {"prompt": [9] * 20, "given": None, "fields": {"mode": "linear_spec", "max_new_tokens": 40, "block_length": 8}},
    {"prompt": [4], "given": None, "fields": {"mode": "quadratic_spec", "max_new_tokens": 33, "block_length": 5, "temperature": 1.0}},
    {"prompt": [1, 2], "given": None, "fields": {"mode": "diffusion", "max_new_tokens": 25, "block_length": 6, "revise_rounds": 2}},
    {"prompt": [3, 8, 2, 1], "given": None, "fields": {"mode": "linear_spec", "max_new_tokens": 21, "adapter": False}},
]


@pytest.mark.parametrize("model", SINGLE)
def test_in_float32_too(model: TriModeModel) -> None:
    for row, steps in zip(ROWS, run_together(model, ROWS)):
        same(steps, list(alone(model, decoder(model, row))), 1e-4)


@pytest.mark.parametrize("mode", ["ar", "linear_spec", "quadratic_spec"])
def test_rows_in_step_share_every_forward_and_every_transfer(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, shared, forwards, fetches = MODELS[0], [], [], []
    monkeypatch.setattr(batch, "Packed", lambda cache, parts, device: shared.append(len(parts)) or Packed(cache, parts, device))
    plain, fetch = TriModeModel.hidden, batch.fetch
    monkeypatch.setattr(TriModeModel, "hidden", lambda self, *a, **k: forwards.append(1) or plain(self, *a, **k))
    monkeypatch.setattr(batch, "fetch", lambda tables: fetches.append(1) or fetch(tables))
    lengths = (6, 14, 9)
    wanted = [{"prompt": [5, n], "given": None, "fields": {"mode": mode, "max_new_tokens": n, "block_length": 4, "stop_at_eos": False}}
              for n in lengths]  # fmt: skip
    with HostReads() as host:
        steps = run_together(model, wanted)
    assert [len(output(row["prompt"], s)) for row, s in zip(wanted, steps)] == list(lengths)
    longest = max(map(len, steps))
    assert len(forwards) == len(fetches) == longest and host.count == 0
    # Rows drop out as they end, and the last one runs alone.
    assert sum(shared) + (longest - len(shared)) == sum(map(len, steps))
    assert shared == sorted(shared, reverse=True) and len(shared) < longest


def test_a_row_that_is_given_up_leaves_the_others_as_they_were() -> None:
    model, live, steps = SINGLE[0], set(range(len(ROWS))), [[] for _ in ROWS]
    for row, step in together(model, [decoder(model, row) for row in ROWS], live):
        if step is not None:
            steps[row].append(step)
        if row == 1 and len(steps[1]) == 3:
            live.discard(1)
    assert len(steps[1]) == 3
    for n in (0, 2, 3, 4):
        same(steps[n], list(alone(model, decoder(model, ROWS[n]))), 1e-4)


def test_numbers_that_are_none_stay_in_their_row() -> None:
    model = MODELS[0]
    store = model.new_cache(12, 2)
    caches = [store.row(n) for n in range(2)]
    with torch.inference_mode():
        for cache, prompt in zip(caches, ([7, 8], [1, 2, 3])):
            model(torch.tensor([prompt]), pattern="causal", cache=cache, write=True)
        caches[0].keys[0][:] = torch.nan
        caches[0].values[1][:] = torch.nan
        expected = model(torch.tensor([[9]]), pattern="causal", cache=caches[1])
        packed = Packed(store, [Part(0, 2, 3, 0, "bidirectional"), Part(1, 3, 1, 0, "causal")], model.device)
        x = model.hidden(torch.tensor([[4, 5, 6, 9]]), packed.positions(), packed.limit, mask=packed.mask(), packed=packed)
        logits = model.head(x[0])
    assert logits[:3].isnan().all()
    torch.testing.assert_close(logits[3:], expected[0], atol=1e-4, rtol=1e-4)


def test_a_row_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="not all of what is kept fits"):
        Packed(MODELS[0].new_cache(4, 2), [Part(0, 2, 3, 3, "causal"), Part(1, 0, 2, 2, "causal")], torch.device("cpu"))


def test_an_error_ends_all_rows() -> None:
    model = biased(MODELS[0], 5, float("nan"))
    with pytest.raises(NemodiffError, match="not numbers"):
        run_together(model, ROWS[:2])
