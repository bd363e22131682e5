"""The draft adapter: read as PEFT writes it, used by drafts alone, and every fault of a folder said in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from nemodiff_core import placement
from nemodiff_core.checkpoint import Checkpoint, load, save
from nemodiff_core.engine import Engine
from nemodiff_core.errors import CheckpointError, NemodiffError
from nemodiff_core.lora import DraftAdapter, LowRank, load_adapter, save_adapter
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest
from tests.conftest import random_model

RANK, ALPHA, LAYERS, QUERIES, HIDDEN = 3, 12.0, 2, 64, 48


def random_adapter(seed: int = 5, size: float = 0.3) -> DraftAdapter:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((RANK, QUERIES), (HIDDEN, RANK))
    halves = ([torch.randn(shape, generator=generator) * size for shape in shapes] for _ in range(LAYERS))
    return DraftAdapter(tuple(LowRank(a, b, ALPHA / RANK) for a, b in halves))


@pytest.fixture
def model() -> TriModeModel:
    return random_model()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_adapter(random_adapter(), tmp_path / "linear_spec_lora")


@torch.inference_mode()
def logits(model: TriModeModel, pattern: str = "bidirectional", draft: bool = False) -> torch.Tensor:
    return model(torch.arange(150, 170)[None], pattern=pattern, draft=draft)


def equal(first: DraftAdapter, second: DraftAdapter) -> bool:
    pairs = zip(first.layers, second.layers, strict=True)
    return all(torch.equal(x.a, y.a) and torch.equal(x.b, y.b) and x.scale == y.scale for x, y in pairs)


# --- the arithmetic, and who sees it ---------------------------------------------------------------------


def test_a_draft_equals_the_model_with_the_update_merged_by_hand(model):
    adapter, merged = random_adapter(), random_model()
    for n, layer in enumerate(adapter.layers):
        merged.encoder.layers[n].self_attn.o_proj.weight += (ALPHA / RANK) * layer.b @ layer.a
    plain = logits(model)
    model.draft_adapter = adapter
    torch.testing.assert_close(logits(model, draft=True), logits(merged), atol=1e-3, rtol=1e-4)
    assert (logits(model, draft=True) - plain).abs().max() > 0.1
    assert torch.equal(logits(model), plain), "a draft pass leaves nothing behind"


def test_verification_and_cache_are_bit_identical_with_and_without_an_adapter(model):
    tokens = torch.arange(150, 190)[None]

    @torch.inference_mode()
    def verified() -> list[torch.Tensor]:
        cache = model.new_cache(64)
        prefix = model(tokens[:, :24], pattern="causal", cache=cache, write=True)
        model(tokens[:, 24:], pattern="bidirectional", cache=cache, draft=True)
        block = model(tokens[:, 24:], pattern="causal", cache=cache, write=True)
        return [prefix, block, cache.keys, cache.values]

    without = verified()
    model.draft_adapter = random_adapter()
    assert all(torch.equal(a, b) for a, b in zip(verified(), without, strict=True))


def test_a_draft_pass_may_not_write_and_needs_no_adapter(model):
    assert torch.equal(logits(model, draft=True), logits(model))
    for adapter in (None, random_adapter()):
        model.draft_adapter = adapter
        cache = model.new_cache(32)
        with pytest.raises(ValueError, match="base weights only"):
            model(torch.ones(1, 4, dtype=torch.int64), pattern="causal", cache=cache, write=True, draft=True)
        assert cache.length == 0


def test_an_adapter_is_no_weight_of_the_model(model):
    names, count = set(model.state_dict()), model.parameter_count()
    model.draft_adapter = random_adapter()
    assert set(model.state_dict()) == names and model.parameter_count() == count
    assert model.draft_adapter.parameter_count() == LAYERS * RANK * (QUERIES + HIDDEN)


def decode(engine: Engine, **knobs) -> list[int]:
    run = engine.run(DecodeRequest(prompt="Sort these numbers: 3 1 2", max_new_tokens=40, stop_at_eos=False, **knobs))
    list(run)
    return run.trace().output.ids


def drafts(engine: Engine, **knobs) -> list[int]:
    request = DecodeRequest(prompt="Sort these numbers: 3 1 2", mode="linear_spec", max_new_tokens=40, stop_at_eos=False, **knobs)
    return [event.token for step in engine.run(request) if step.phase == "draft" for event in step.events]


def test_greedy_self_speculation_with_an_adapter_is_ar(tiny_engine):
    ar, plain = decode(tiny_engine, mode="ar"), drafts(tiny_engine)
    tiny_engine.checkpoint.model.draft_adapter = random_adapter()
    assert decode(tiny_engine, mode="ar") == ar
    for adapter in (True, False):
        assert decode(tiny_engine, mode="linear_spec", adapter=adapter) == ar
    assert drafts(tiny_engine, adapter=False) == plain
    assert drafts(tiny_engine, adapter=True) != plain


def test_describe_says_whether_there_is_an_adapter(tiny_engine):
    assert tiny_engine.describe()["adapter"] is False
    tiny_engine.checkpoint.model.draft_adapter = random_adapter()
    assert tiny_engine.describe()["adapter"] is True


# --- files -------------------------------------------------------------------------------------------------


def test_what_is_saved_comes_back(folder, model):
    loaded = load_adapter(folder, model.config)
    assert equal(loaded, random_adapter())
    assert (loaded.rank, loaded.alpha) == (RANK, ALPHA)
    half = load_adapter(folder, model.config, torch.bfloat16)
    assert equal(half, random_adapter().to(torch.bfloat16))
    save_adapter(half, folder, torch.float32)
    assert equal(load_adapter(folder, model.config), half.to(torch.float32))
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    content = json.loads((folder / "adapter_config.json").read_text())
    assert (content["r"], content["lora_alpha"], content["target_modules"]) == (RANK, 12, ["o_proj"])
    assert set(load_file(folder / "adapter_model.safetensors")) == {
        f"base_model.model.encoder.layers.{n}.self_attn.o_proj.lora_{half}.weight" for n in range(LAYERS) for half in "AB"
    }


def test_the_adapters_name_may_stand_in_the_keys(folder, model):
    path = folder / "adapter_model.safetensors"
    save_file({key.replace(".weight", ".default.weight"): value for key, value in load_file(path).items()}, path)
    assert equal(load_adapter(folder, model.config), random_adapter())


def test_peft_and_we_read_each_other(tmp_path, model):
    peft = pytest.importorskip("peft")

    class Wrapped(nn.Module):
        """What PEFT needs to see: the modules under the checkpoint's names."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = random_model().encoder

    theirs = peft.get_peft_model(Wrapped(), peft.LoraConfig(r=4, lora_alpha=8, target_modules=["o_proj"], init_lora_weights=False))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_adapter(tmp_path / "theirs", model.config)
    x = torch.randn(2, QUERIES)
    for n, layer in enumerate(ours.layers):
        module = theirs.base_model.model.encoder.layers[n].self_attn.o_proj
        with torch.no_grad():
            torch.testing.assert_close(module.base_layer(x) + layer(x), module(x))
    save_adapter(random_adapter(), tmp_path / "ours")
    read = peft.PeftModel.from_pretrained(Wrapped(), str(tmp_path / "ours"))
    for n, layer in enumerate(random_adapter().layers):
        module = read.base_model.model.encoder.layers[n].self_attn.o_proj
        with torch.no_grad():
            torch.testing.assert_close(module.base_layer(x) + layer(x), module(x))


# --- inside a checkpoint -----------------------------------------------------------------------------------


@pytest.fixture
def checkpoint_folder(tmp_path, model, tiny_tokenizer) -> Path:
    model.draft_adapter = random_adapter()
    return save(model, tiny_tokenizer, tmp_path / "checkpoint")


def test_a_checkpoint_brings_its_adapter(checkpoint_folder, model, tiny_tokenizer):
    loaded: Checkpoint = load(checkpoint_folder, device="cpu")
    assert loaded.has_adapter and equal(loaded.model.draft_adapter, random_adapter())
    assert torch.equal(logits(loaded.model, draft=True), logits(model, draft=True))
    assert load(checkpoint_folder, dtype="bfloat16", device="cpu").model.draft_adapter.layers[0].a.dtype == torch.bfloat16
    assert not load(checkpoint_folder, device="cpu", adapter=False).has_adapter
    model.draft_adapter = None
    save(model, tiny_tokenizer, checkpoint_folder)
    assert not load(checkpoint_folder, device="cpu").has_adapter, "an adapter of other weights would stay behind"


def test_the_adapter_is_downloaded_with_its_checkpoint(checkpoint_folder):
    from huggingface_hub.utils import filter_repo_objects

    from nemodiff_core.sources import WANTED_FILES

    files = [path.relative_to(checkpoint_folder).as_posix() for path in checkpoint_folder.rglob("*") if path.is_file()]
    wanted = set(filter_repo_objects([*files, "linear_spec_lora/README.md"], allow_patterns=WANTED_FILES))
    assert {"linear_spec_lora/adapter_config.json", "linear_spec_lora/adapter_model.safetensors"} <= wanted
    assert wanted == set(files)


def test_layers_that_wait_on_disk_draft_with_the_adapter(checkpoint_folder, model, monkeypatch):
    layer = sum(p.numel() for p in model.encoder.layers[0].parameters()) * 4
    table, decide = model.diffusion_head.weight.numel() * 4, placement.plan
    budget = {"cpu": table + 3 * layer // 2}
    monkeypatch.setattr(placement, "plan", lambda meta, device, kind: decide(meta, device, kind, budget))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spread = load(checkpoint_folder, device="auto").model
    assert spread.layer_devices is not None and any(p.is_meta for p in spread.encoder.layers.parameters())
    assert torch.equal(logits(spread, draft=True), logits(model, draft=True))
    assert torch.equal(logits(spread), logits(model))


# --- folders that hold no sound adapter --------------------------------------------------------------------


def refusal(folder: Path, model: TriModeModel, match: str) -> None:
    """The one sentence that `load_adapter` refuses with, and that it says what to do."""
    with pytest.raises(CheckpointError, match=match) as caught:
        load_adapter(folder, model.config)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".") and len(sentence) < 500, sentence
    assert any(cure in sentence for cure in ("download it again", "give ", "run `git lfs pull`")), sentence


def edit(folder: Path, **changes) -> None:
    path = folder / "adapter_config.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"target_modules": ["q_proj", "o_proj"]}, "target_modules .*o_proj alone"),
        ({"target_modules": ...}, "target_modules None"),
        ({"target_modules": "all-linear"}, "target_modules 'all-linear'"),
        ({"r": RANK + 1}, r"has shape \[3, 64\], but rank 4 and the model ask for \[4, 64\]"),
        ({"r": 0}, "r 0"),
        ({"r": "x" * 9999}, "which is no rank"),
        ({"r": ...}, "r None"),
        ({"lora_alpha": None}, "lora_alpha None"),
        ({"lora_alpha": float("nan")}, "lora_alpha nan"),
        ({"peft_type": "LOHA"}, "peft_type 'LOHA'"),
        ({"use_rslora": True}, "use_rslora True"),
        ({"use_dora": True}, "use_dora True"),
        ({"bias": "lora_only"}, "bias 'lora_only'"),
        ({"rank_pattern": {"layers.0": 8}}, "rank_pattern"),
        ({"modules_to_save": ["diffusion_head"]}, "modules_to_save"),
    ],
)
def test_settings_that_cannot_be_applied(folder, model, change, match):
    edit(folder, **change)
    refusal(folder, model, match)


def test_what_peft_writes_for_unused_settings_is_no_fault(folder, model):
    edit(folder, rank_pattern={}, alpha_pattern={}, modules_to_save=None, use_dora=False, target_modules="o_proj", lora_dropout=0.1)
    assert equal(load_adapter(folder, model.config), random_adapter())


def test_missing_unexpected_and_misshapen_tensors(folder, model):
    path = folder / "adapter_model.safetensors"
    whole = load_file(path)
    key = "base_model.model.encoder.layers.1.self_attn.o_proj.lora_{}.weight"
    save_file({name: value for name, value in whole.items() if name != key.format("B")}, path)
    refusal(folder, model, r"lacks 1 tensor\(s\), lora_B of layer 1")
    for extra in ("other.weight", key.format("A").replace("layers.1", "layers.2"), key.format("A").replace("o_proj", "q_proj")):
        save_file({**whole, extra: torch.zeros(2)}, path)
        refusal(folder, model, "unexpected tensor .*2 layers")
    save_file({**whole, key.format("A").replace(".weight", ".default.weight"): whole[key.format("A")].clone()}, path)
    refusal(folder, model, "unexpected tensor")
    save_file({**whole, key.format("B"): torch.zeros(HIDDEN + 1, RANK)}, path)
    refusal(folder, model, r"lora_B.weight has shape \[49, 3\].*\[48, 3\].*another model")
    save_file({**whole, key.format("B"): torch.zeros(HIDDEN, RANK, dtype=torch.int8)}, path)
    refusal(folder, model, "stored as I8")


def test_missing_and_damaged_files(folder, model):
    path = folder / "adapter_model.safetensors"
    whole = path.read_bytes()
    for content in (b"", whole[:5], whole[:-1], b"\xff" * 100):
        path.write_bytes(content)
        refusal(folder, model, "adapter_model.safetensors is damaged or cut off")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    refusal(folder, model, "git lfs pull")
    path.unlink()
    refusal(folder, model, "has no adapter_model.safetensors.*without an adapter")
    (folder / "adapter_config.json").write_text("[]")
    path.write_bytes(whole)
    refusal(folder, model, "adapter_config.json is no JSON object")
    (folder / "adapter_config.json").unlink()
    refusal(folder, model, "has no adapter_config.json")


def test_a_checkpoint_with_a_damaged_adapter_says_so(checkpoint_folder):
    (checkpoint_folder / "linear_spec_lora" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(NemodiffError, match="adapter_model.safetensors is damaged"):
        load(checkpoint_folder, device="cpu")


def test_saving_where_it_cannot_be(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="could not be saved"):
        save_adapter(random_adapter(), tmp_path / "file")
