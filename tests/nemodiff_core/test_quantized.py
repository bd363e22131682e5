"""Quantised weights: how far they are from the originals, what they cost to load, and that a model still decodes as it should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import accelerate
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nemodiff_core import placement, quantized
from nemodiff_core.checkpoint import bundled_path, load, save
from nemodiff_core.engine import Engine
from nemodiff_core.errors import CheckpointError, NemodiffError
from nemodiff_core.lora import DraftAdapter, LowRank
from nemodiff_core.model import TriModeModel
from nemodiff_core.quantized import GROUP, Int4Linear, Int8Embedding, Int8Linear, from_int4, to_int4, to_int8
from nemodiff_core.request import DecodeRequest
from nemodiff_core.tokenizer import Tokenizer
from nemodiff_core.training.draft_adapter import AdapterSettings, train_adapter
from nemodiff_core.training.sampler import SamplerSettings, train_sampler
from tests.conftest import random_model

FORMATS = pytest.mark.parametrize("form", quantized.FORMATS)


@st.composite
def matrices(draw: st.DrawFn) -> torch.Tensor:
    """Any shape, rows of any magnitude, some of zeros; inputs need not be a multiple of the group."""
    shape = draw(st.integers(1, 9)), draw(st.integers(1, 3 * GROUP))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    magnitudes = draw(st.lists(st.sampled_from([0.0, 1e-30, 1e-6, 0.02, 1.0, 1e6, 1e30]), min_size=shape[0], max_size=shape[0]))
    return torch.randn(shape, generator=generator) * torch.tensor(magnitudes)[:, None]


# --- one matrix ------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(matrices())
def test_int8_moves_no_weight_by_more_than_half_its_rows_scale(rows: torch.Tensor):
    weight, scale = to_int8(rows)
    assert weight.dtype == torch.int8 and scale.shape == (len(rows),) and (scale > 0).all()
    error = (weight * scale[:, None] - rows).abs()
    assert (error <= scale[:, None] * 0.5001).all()
    assert (scale[rows.any(-1)] <= rows.abs().amax(-1)[rows.any(-1)] / 126.9).all()
    assert not weight[~rows.any(-1)].any()


@settings(max_examples=100, deadline=None)
@given(matrices())
def test_int4_moves_weights_by_half_their_groups_scale_but_at_the_far_end(rows: torch.Tensor):
    weight, scale = to_int4(rows)
    groups = -(-rows.shape[1] // GROUP)
    assert weight.shape == (len(rows), groups * GROUP // 2) and scale.shape == (len(rows), groups)
    back = from_int4(weight, scale, rows.shape[1], torch.float32)
    assert back.shape == rows.shape
    size = scale.float().abs().repeat_interleave(GROUP, dim=1)[:, : rows.shape[1]]
    error, level = (back - rows).abs(), rows / scale.float().repeat_interleave(GROUP, dim=1)[:, : rows.shape[1]]
    assert (error <= 1.02 * size).all()
    inside = level.abs() <= 7
    assert (error[inside] <= 0.5001 * size[inside]).all()


def test_a_group_in_int4_has_a_scale_of_its_own():
    rows = torch.cat((torch.full((1, GROUP), 0.01), torch.full((1, GROUP), 100.0)), dim=1)
    assert torch.allclose(from_int4(*to_int4(rows), 2 * GROUP, torch.float32), rows, rtol=0.01)


@pytest.mark.parametrize(("kind", "error"), [(Int8Linear, 0.01), (Int4Linear, 0.13)])
@pytest.mark.parametrize("inputs", [1, 31, 48, 256])
def test_a_product_is_that_of_the_rounded_weights_and_near_the_original(kind, error, inputs, monkeypatch):
    monkeypatch.setattr(quantized, "_SLICE_CPU", 7 * inputs)  # several slices, the last one shorter
    torch.manual_seed(inputs)
    weight, x = torch.randn(40, inputs), torch.randn(2, 5, inputs)
    module = filled(kind(40, inputs), weight)
    stored = module.weight * module.scale[:, None] if kind is Int8Linear else from_int4(module.weight, module.scale, inputs, torch.float32)
    torch.testing.assert_close(module(x), F.linear(x, stored), atol=1e-5 * inputs**0.5, rtol=1e-5)
    assert module(x).shape == (2, 5, 40)
    exact = F.linear(x, weight)
    assert (module(x) - exact).norm() <= error * exact.norm()
    low = module(x.bfloat16())
    assert low.dtype == torch.bfloat16 and (low.float() - module(x)).norm() <= 0.01 * exact.norm()


def test_an_embedding_gives_the_rounded_rows_in_the_models_dtype():
    weight = torch.randn(50, 12)
    module = filled(Int8Embedding(50, 12, torch.bfloat16), weight)
    tokens = torch.tensor([[3, 49], [0, 3]])
    found = module(tokens)
    assert found.dtype == torch.bfloat16 and found.shape == (2, 2, 12)
    assert (found.float() - weight[tokens]).abs().max() < 0.5 * module.scale.max() + 0.01 * weight.abs().max()


def filled(module: quantized.Quantized, weight: torch.Tensor) -> quantized.Quantized:
    module.load_state_dict(quantized.read(module, weight, "cpu"))
    return module


# --- a model ---------------------------------------------------------------------------------------------


@torch.inference_mode()
def logits(model: TriModeModel, pattern: str = "bidirectional", draft: bool = False) -> torch.Tensor:
    return model(torch.arange(150, 170)[None], pattern=pattern, draft=draft)


@FORMATS
def test_a_quantised_model_says_what_it_is(model: Path, form: str):
    whole, small = load(model, device="cpu").model, load(model, device="cpu", dtype=form).model
    assert (small.format, small.dtype, small.device) == (form, torch.float32, torch.device("cpu"))
    assert whole.format == "float32" and small.parameter_count() == whole.parameter_count()
    assert not any(weight.requires_grad for weight in small.parameters()) and not small.training
    kinds = {name.rpartition(".")[0]: weight.dtype for name, weight in small.named_parameters() if name.endswith(".weight")}
    assert kinds["encoder.embed_tokens"] == kinds["diffusion_head"] == torch.int8
    assert kinds["encoder.layers.1.mlp.down_proj"] == (torch.int8 if form == "int8" else torch.uint8)
    assert kinds["encoder.layers.0.input_layernorm"] == kinds["encoder.norm"] == torch.float32


@pytest.mark.parametrize(("form", "divergence"), [("int8", 0.01), ("int4", 0.6)])
@pytest.mark.parametrize("pattern", ["causal", "bidirectional"])
def test_logits_stay_near_those_of_the_original(form, divergence, pattern):
    """Nats of Kullback-Leibler divergence a position, on text; the bundled model, as random weights prove little."""
    whole, small = (load(bundled_path(), device="cpu", dtype=dtype) for dtype in (None, form))
    ids = torch.tensor([whole.tokenizer.chat([{"role": "user", "content": "Sort these numbers: 41, 7, 88, 12"}])])
    with torch.inference_mode():
        p, q = (checkpoint.model(ids, pattern=pattern).log_softmax(-1) for checkpoint in (whole, small))
    assert 0 < F.kl_div(q, p, log_target=True, reduction="none").sum(-1).mean() < divergence


@FORMATS
@pytest.mark.parametrize("mode", ["linear_spec", "quadratic_spec"])
def test_self_speculation_writes_what_ar_writes(form: str, mode: str):
    """Both from the same rounded weights, with sums in float32."""
    engine = Engine(load(bundled_path(), device="cpu", dtype=form))
    for prompt in ("Sort these numbers: 41, 7, 88", "Tell me a story about Leo and a small cup."):
        written = []
        for chosen in ("ar", mode):
            run = engine.run(DecodeRequest(prompt=prompt, mode=chosen, max_new_tokens=40, block_length=8))
            list(run)
            written.append(run.trace().output.ids)
        assert written[0] == written[1]
    assert run.trace().model["dtype"] == form


@FORMATS
def test_a_cached_pass_equals_a_whole_one(model: Path, form: str):
    small, tokens = load(model, device="cpu", dtype=form).model, torch.arange(150, 190)[None]
    with torch.inference_mode():
        cache = small.new_cache(64)
        small(tokens[:, :25], pattern="causal", cache=cache, write=True)
        rest = small(tokens[:, 25:], pattern="causal", cache=cache)
        torch.testing.assert_close(rest, small(tokens, pattern="causal")[:, 25:], atol=2e-3, rtol=1e-4)


@FORMATS
def test_a_draft_adapter_works_on_quantised_weights(tiny_engine: Engine, tmp_path: Path, form: str):
    original = tiny_engine.checkpoint.model
    torch.manual_seed(3)
    original.draft_adapter = DraftAdapter(tuple(LowRank(torch.randn(3, 64), torch.randn(48, 3), 1.0) for _ in range(2)))
    small = load(save(original, tiny_engine.checkpoint.tokenizer, tmp_path / "adapted"), device="cpu", dtype=form).model
    with_adapter, without = logits(small, draft=True), logits(small)
    assert not torch.allclose(with_adapter, without, atol=0.1)
    small.draft_adapter = None
    assert torch.equal(logits(small), without)


@FORMATS
def test_what_quantised_weights_cannot_do_is_refused(model: Path, tiny_tokenizer: Tokenizer, tmp_path: Path, form: str):
    checkpoint = load(model, device="cpu", dtype=form)
    with pytest.raises(CheckpointError, match=f"in {form}, which cannot be saved"):
        save(checkpoint.model, tiny_tokenizer, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    with pytest.raises(NemodiffError, match=f"floating point, not in {form}"):
        train_adapter(Engine(checkpoint), AdapterSettings(), tmp_path / "adapter")
    with pytest.raises(NemodiffError, match=f"floating point, not in {form}"):
        train_sampler(Engine(checkpoint), SamplerSettings(), tmp_path / "sampler")


# --- loading ---------------------------------------------------------------------------------------------


class Peak(TorchDispatchMode):
    """The most bytes that tensors made meanwhile took at once; what is mapped from a file was there before."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        made = operation(*arguments, **(named or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((arguments, named)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and not tensor.is_meta:
                storage = tensor.untyped_storage()
                if storage._cdata not in given and storage.filename is None:
                    self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        if sum(size for _, size in self._live.values()) > self.most:
            self._live = {key: (ref, size) for key, (ref, size) in self._live.items() if not ref.expired()}
            self.most = max(self.most, sum(size for _, size in self._live.values()))
        return made


@pytest.mark.parametrize(("form", "encoded"), [("int8", 2**14), ("int4", 2**12)])
def test_loading_takes_no_more_than_the_weights_and_a_tenth(tiny_tokenizer: Tokenizer, tmp_path: Path, monkeypatch, form, encoded):
    """Small slices beside a small model, as the usual ones beside billions of weights."""
    monkeypatch.setattr(quantized, "_ENCODED_CPU", encoded)
    config = replace(random_model().config, hidden_size=256, intermediate_size=1024, num_hidden_layers=6)
    folder = save(TriModeModel(config), tiny_tokenizer, tmp_path / "larger", dtype="bfloat16")
    with Peak() as peak:
        small = load(folder, device="cpu", dtype=form).model
    weights = sum(weight.nbytes for weight in small.parameters())
    assert weights < small.parameter_count() * (1.05 if form == "int8" else 0.65)
    assert weights <= peak.most < 1.1 * weights


def test_the_peak_would_show_a_matrix_that_is_held_twice():
    with Peak() as peak:
        first = torch.ones(1000)
        second = first * 2
        view = second[10:]
        del second, view
        third = first + 1  # noqa: F841
    assert peak.most == 8000


@FORMATS
def test_progress_counts_the_files_tensors(model: Path, form: str):
    shares: list[float] = []
    load(model, device="cpu", dtype=form, progress=lambda what, share: shares.append(share))
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) == 2 * 9 + 3


@FORMATS
def test_waiting_weights_come_in_for_each_forward(model: Path, form: str):
    """accelerate's hooks, as with `device="auto"` and a GPU that is too small: they move integers untouched."""
    small = load(model, device="cpu", dtype=form).model
    expected = logits(small)
    accelerate.cpu_offload(small, execution_device="cpu")
    assert all(weight.is_meta for weight in small.parameters())
    assert torch.equal(logits(small), expected)


@FORMATS
def test_a_spread_plan_counts_the_bytes_that_weights_really_take(form: str):
    config = random_model().config
    with torch.device("meta"):
        whole, small = TriModeModel(config), TriModeModel(config)
    quantized.prepare(small, form, torch.bfloat16)
    taken, gpu = sum(weight.nbytes for weight in small.parameters()), torch.device("cuda", 0)
    assert placement.plan(small, "auto", torch.bfloat16, {0: taken, "cpu": 0}).homes == {"": gpu}
    assert placement.plan(whole, "auto", torch.bfloat16, {0: taken, "cpu": 10**9}).homes != {"": gpu}


@FORMATS
def test_quantised_weights_never_wait_in_their_file(model: Path, monkeypatch, form: str):
    decide = placement.plan
    monkeypatch.setattr(placement, "plan", lambda meta, device, dtype: decide(meta, device, dtype, {"cpu": 40_000}))
    with pytest.raises(CheckpointError, match=f"weights in {form} fit neither"):
        load(model, device="auto", dtype=form)
