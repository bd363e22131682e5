"""Checkpoints: what is saved comes back, and everything that is wrong with one is said in one sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from nemodiff_core import checkpoint, placement
from nemodiff_core.checkpoint import load, save
from nemodiff_core.config import ModelConfig
from nemodiff_core.errors import CheckpointError, NemodiffError
from nemodiff_core.model import TriModeModel
from nemodiff_core.tokenizer import Tokenizer

LAYERS = 3


def small_tokenizer() -> Tokenizer:
    specials = ["<unk>", "<s>", *(f"<SPECIAL_{n}>" for n in range(2, 101))]
    specials[10:12] = ["<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = FastTokenizer(models.BPE({token: n for n, token in enumerate([*specials, *alphabet])}, []))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(token, special=True) for token in specials])
    return Tokenizer(fast, {"bos_token": "<s>", "eos_token": "<|im_end|>"}, "{{ messages }}", mask_id=100, eos_id=11)


def small_model(seed: int = 0) -> TriModeModel:
    torch.manual_seed(seed)
    return TriModeModel(
        ModelConfig(
            vocab_size=400,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=12,
        )
    ).eval()


@pytest.fixture
def model() -> TriModeModel:
    return small_model()


@pytest.fixture
def folder(model, tmp_path) -> Path:
    return save(model, small_tokenizer(), tmp_path / "made-up-model")


def refusal(source, *, match: str, **options) -> str:
    """The one sentence that `load` refuses with."""
    with pytest.raises(NemodiffError, match=match) as caught:
        load(source, device=options.pop("device", "cpu"), **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".") and 20 < len(sentence) < 500, sentence
    return sentence


def edit(path: Path, **changes) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in {**content, **changes}.items() if value is not ...}))


@torch.inference_mode()
def logits(model: TriModeModel, pattern: str = "bidirectional") -> torch.Tensor:
    return model(torch.arange(150, 170)[None], pattern=pattern)


# --- round trips ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard_bytes", [checkpoint.SHARD_BYTES, 20_000])
def test_what_is_saved_comes_back(model, tmp_path, dtype, shard_bytes):
    folder = save(model, small_tokenizer(), tmp_path / "m", dtype=dtype, max_shard_bytes=shard_bytes)
    sharded = shard_bytes == 20_000
    assert (folder / "model.safetensors").exists() is not sharded
    files = sorted(folder.glob("*.safetensors"))
    assert (len(files) > 2) is sharded
    assert sum(len(load_file(file)) for file in files) == 9 * LAYERS + 3
    loaded = load(folder, dtype=dtype)
    assert loaded.id == "m" and loaded.revision is None and loaded.path == folder
    assert loaded.model.dtype == dtype and loaded.config.torch_dtype == str(dtype).removeprefix("torch.")
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], value.to(dtype)), key
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("as it was")) == "as it was"
    assert (loaded.tokenizer.mask_id, loaded.tokenizer.eos_id) == (100, 11)
    if dtype == torch.float32:
        assert torch.equal(logits(loaded.model), logits(model))


def test_the_cpu_default_is_float32_whatever_is_stored(model, tmp_path):
    folder = save(model, small_tokenizer(), tmp_path / "m", dtype="bfloat16")
    assert load(folder, device="cpu").model.dtype == torch.float32
    assert load(folder, device="cpu", dtype="torch.float16").model.dtype == torch.float16


def test_unchanged_weights_stay_mapped_and_saving_over_them_is_safe(folder, model):
    first = load(folder, device="cpu").model
    before = logits(first)
    save(small_model(seed=1), small_tokenizer(), folder)
    assert torch.equal(logits(first), before)
    assert not torch.equal(logits(load(folder, device="cpu").model), before)


def test_saving_again_leaves_no_stale_weights(model, folder):
    save(model, small_tokenizer(), folder, max_shard_bytes=20_000)
    shards = len(list(folder.glob("model-*.safetensors")))
    assert shards > 2 and not (folder / "model.safetensors").exists()
    save(model, small_tokenizer(), folder, max_shard_bytes=60_000)
    assert 1 < len(list(folder.glob("model-*.safetensors"))) < shards
    assert torch.equal(logits(load(folder, device="cpu").model), logits(model))
    save(model, small_tokenizer(), folder)
    assert sorted(p.name for p in folder.glob("model*")) == ["model.safetensors"]
    assert not list(folder.glob(".*"))


def test_tensor_names_and_config_keys_are_the_familys(folder):
    names = set(load_file(folder / "model.safetensors"))
    layer = ["input_layernorm", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    layer += [f"self_attn.{letter}_proj" for letter in "qkvo"]
    expected = {f"encoder.layers.{n}.{part}.weight" for n in range(LAYERS) for part in layer}
    assert names == expected | {"encoder.embed_tokens.weight", "encoder.norm.weight", "diffusion_head.weight"}
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["NemotronLabsDiffusionModel"] and config["torch_dtype"] == "float32"


def test_other_files_are_ignored(folder, model):
    (folder / "modeling_nemotron_labs_diffusion.py").write_text("raise SystemExit('code was run')")
    (folder / "training_state.pt").write_bytes(b"\x80\x04.")
    assert torch.equal(logits(load(folder, device="cpu").model), logits(model))


def test_progress_ends_at_one(folder):
    shares = []
    load(folder, device="cpu", progress=lambda what, share: shares.append((what, share)))
    assert shares == sorted(shares, key=lambda entry: entry[1]) and shares[-1] == ("reading weights", 1.0)
    assert len(shares) == 9 * LAYERS + 3


# --- folders that are no sound checkpoint --------------------------------------------------------------


def test_places_that_hold_no_checkpoint(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refusal(tmp_path / "nowhere", match="there is no folder")
    refusal("just-a-name", match="nvidia/Nemotron-Labs-Diffusion-3B")
    refusal("../some/where/else", match="there is no folder")
    refusal("a\0b", match="no folder")
    refusal(tmp_path, match="no config.json")
    refusal(folder / "model.safetensors", match="is a file")
    refusal(folder, revision="main", match="no revisions")


def test_an_existing_relative_folder_wins_over_the_hub(folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("went to the hub"))
    assert load(f"{folder.parent.name}/{folder.name}", device="cpu").id == folder.name


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model_type": "llama"}, "model_type 'llama'"),
        ({"model_type": ...}, "model_type None"),
        ({"model_type": "nemotron_labs_diffusion_vlm"}, "vision-language"),
        ({"dlm_paradigm": "two\nlines"}, "unknown dlm_paradigm"),
        ({"torch_dtype": "int4"}, "torch_dtype 'int4'"),
        ({"head_dim": ...}, "head_dim is missing"),
        ({"head_dim": 14}, r"q_proj.weight has shape \[48, 32\].*asks for \[56, 32\]"),
        ({"num_hidden_layers": LAYERS + 1}, "lacks 9 tensor"),
        ({"num_hidden_layers": LAYERS - 1}, "unexpected 9 tensor"),
        ({"num_hidden_layers": 10**9}, "too few for the 1000000000 layers"),
        ({"vocab_size": 10**40}, "vocab_size is"),
        ({"vocab_size": 300}, "embed_tokens.weight has shape"),
    ],
)
def test_configs_that_do_not_fit(folder, change, match):
    edit(folder / "config.json", **change)
    refusal(folder, match=match)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b"[" * 100_000])
def test_a_config_that_is_no_json_object(folder, content):
    (folder / "config.json").write_bytes(content)
    refusal(folder, match="config.json is (not readable JSON|no JSON object)")


def test_room_is_asked_for_once_all_but_the_weights_is_sound(folder):
    told = []
    load(folder, device="cpu", make_room=lambda: told.append("room"), progress=lambda what, share: told.append(what))
    assert told.count("room") == 1 and told.index("room") < told.index("reading weights")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(NemodiffError):
        load(folder, device="cpu", make_room=lambda: pytest.fail("room was made for a model without its tokenizer"))


def test_missing_unexpected_and_misshapen_tensors(folder):
    path = folder / "model.safetensors"
    whole = load_file(path)
    save_file({key: value for key, value in whole.items() if key != "encoder.norm.weight"}, path)
    refusal(folder, match="lacks 1 tensor.*'encoder.norm.weight'")
    save_file({**whole, "encoder.extra\nline": torch.zeros(2)}, path)
    refusal(folder, match="unexpected 1 tensor.*encoder.extra")
    save_file({**whole, "diffusion_head.weight": torch.zeros(32, 400)}, path)
    refusal(folder, match=r"diffusion_head.weight has shape \[32, 400\].*\[400, 32\]")
    save_file({**whole, "encoder.norm.weight": torch.zeros(32, dtype=torch.int8)}, path)
    refusal(folder, match="stored as I8.*quantised")


@pytest.mark.parametrize("keep", [0, 5, 600, -1])
def test_cut_off_weights(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refusal(folder, match="model.safetensors is damaged or cut off")


def test_corrupt_weights(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[:8] = b"\xff" * 8
    path.write_bytes(content)
    refusal(folder, match="damaged or cut off")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    refusal(folder, match="git lfs pull")


def test_missing_weights_and_pickles(folder):
    (folder / "model.safetensors").unlink()
    refusal(folder, match="no model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    refusal(folder, match="pickles, which could run code")


@pytest.mark.parametrize(
    ("places", "match"),
    [
        ({"a": "../made-up-model/model-00001-of-00002.safetensors"}, "no safetensors file of its folder"),
        ({"a": "/etc/passwd"}, "no safetensors file of its folder"),
        ({"a": "sub/model.safetensors"}, "no safetensors file of its folder"),
        ({"a": r"..\model.safetensors"}, "no safetensors file of its folder"),
        ({"a": "pytorch_model.bin"}, "no safetensors file of its folder"),
        ({"a": 7}, "no safetensors file of its folder"),
        ({"a": "model-00009-of-00009.safetensors"}, "model-00009-of-00009.safetensors is missing"),
        ({}, "no weight_map"),
        (["a"], "no weight_map"),
    ],
)
def test_an_index_that_points_elsewhere(model, folder, places, match):
    save(model, small_tokenizer(), folder, max_shard_bytes=20_000)
    edit(folder / "model.safetensors.index.json", weight_map=places)
    refusal(folder, match=match)


def test_a_tensor_in_two_shards(model, folder):
    save(model, small_tokenizer(), folder, max_shard_bytes=20_000)
    first, second = sorted(folder.glob("model-*.safetensors"))[:2]
    save_file({**load_file(second), **load_file(first)}, second)
    refusal(folder, match="is in two files")


def test_tokenizers_that_do_not_fit(folder):
    edit(folder / "tokenizer_config.json", chat_template="{{ messages }}")
    tokens = json.loads((folder / "tokenizer.json").read_text())
    tokens["model"]["vocab"]["zz"] = 399
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    load(folder, device="cpu")
    tokens["model"]["vocab"]["zz"] = 400
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    refusal(folder, match="ids up to 400, but its config.json has a vocabulary of 400")
    (folder / "tokenizer.json").unlink()
    refusal(folder, match="no tokenizer.json")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"device": "banana"}, "names no device"),
        ({"device": "cuda:77"}, "not available on this machine"),
        ({"device": "meta"}, "not available on this machine"),
        ({"dtype": "int3"}, "dtype 'int3' cannot hold this model; use one of .*int8, int4"),
        ({"dtype": torch.complex64}, "dtype 'complex64'"),
    ],
)
def test_devices_and_dtypes_that_cannot_be(folder, options, match):
    refusal(folder, match=match, **options)


def test_saving_where_it_cannot_be(model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="could not be saved") as caught:
        save(model, small_tokenizer(), tmp_path / "file")
    assert "\n" not in str(caught.value)


# --- the hub -------------------------------------------------------------------------------------------

COMMIT = "0d51902d" + "0" * 32


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """A hub that serves the folder into a cache laid out like the real one, and notes what was asked for."""
    asked = []

    def download(repo_id, revision=None, allow_patterns=None, token=None, dry_run=False, tqdm_class=None):
        assert token is None
        if dry_run:
            return []
        asked.append((repo_id, revision, list(allow_patterns)))
        snapshot = tmp_path / "snapshots" / COMMIT
        snapshot.mkdir(parents=True, exist_ok=True)
        for file in huggingface_hub.utils.filter_repo_objects(
            [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()],
            allow_patterns=allow_patterns,
        ):
            (snapshot / file).parent.mkdir(exist_ok=True)
            shutil.copy(folder / file, snapshot / file)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_a_hub_model_fetches_its_config_first_and_only_what_is_read(folder, model, hub):
    for extra in ("pytorch_model.bin", "modeling_x.py", "linear_spec_lora/README.md"):
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_bytes(b"unwanted")
    loaded = load("someone/a-model", device="cpu", revision="main")
    assert (loaded.id, loaded.revision) == ("someone/a-model", COMMIT)
    assert torch.equal(logits(loaded.model), logits(model))
    assert hub[0] == ("someone/a-model", "main", ["config.json", "README.md"]) and hub[1][1] == COMMIT
    assert sorted(p.name for p in loaded.path.iterdir()) == [
        "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    ]  # fmt: skip


def test_another_kind_of_model_is_refused_before_its_weights_are_fetched(folder, hub):
    edit(folder / "config.json", model_type="llama")
    refusal("someone/a-llama", match="model_type 'llama'")
    assert len(hub) == 1


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (GatedRepoError, "licence to be accepted"),
        (RepositoryNotFoundError, "no public model some/model"),
        (RevisionNotFoundError, "no revision 'v9'"),
        (LocalEntryNotFoundError, "the hub cannot be reached; check the connection"),
        (OSError, r"could not be downloaded \(two lines\)"),
        (RuntimeError, "could not be downloaded"),
    ],
)
def test_what_the_hub_answers(monkeypatch, error, match):
    def download(*_, **__):
        try:
            raise error("two\nlines")
        except TypeError:  # the hub's own errors insist on a response
            raise error("two\nlines", response=MagicMock()) from None

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    refusal("some/model", revision="v9", match=match)


def test_offline_without_the_model_in_the_cache(monkeypatch, tmp_path):
    """The real client, told to stay offline: nothing leaves the machine."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    refusal("nobody/has-this-model", match="unset HF_HUB_OFFLINE")


def test_a_cached_model_loads_offline(folder, model, monkeypatch, tmp_path):
    cache = tmp_path / "cache"
    repo = cache / "models--someone--a-model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    shutil.copytree(folder, repo / "snapshots" / COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    download = huggingface_hub.snapshot_download
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: download(*a, cache_dir=cache, **k))
    loaded = load("someone/a-model", device="cpu")
    assert loaded.revision == COMMIT and torch.equal(logits(loaded.model), logits(model))


# --- placement -----------------------------------------------------------------------------------------


def test_auto_without_a_gpu_is_the_cpu(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loaded = load(folder, device="auto")
    assert loaded.model.device.type == "cpu" and loaded.model.layer_devices is None
    assert loaded.model.dtype == torch.float32


def meta_model() -> TriModeModel:
    with torch.device("meta"):
        return TriModeModel(small_model().config)


def test_the_plan_keeps_decoder_layers_whole_and_fills_gpus_first():
    model = meta_model()
    layer = sum(p.numel() for p in model.encoder.layers[0].parameters()) * 4
    head = model.diffusion_head.weight.numel() * 4
    everything = model.parameter_count() * 4
    assert placement.plan(model, "auto", torch.float32, {0: 10, 1: everything, "cpu": 0}).homes == {
        "": torch.device("cuda", 1)
    }
    assert not placement.plan(model, "auto", torch.float32, {"cpu": everything}).spread
    budget = {0: head - 1, 1: head + 3 * layer, 2: head + 3 * layer, "cpu": 10 * everything}
    spread = placement.plan(model, "auto", torch.float32, budget)
    assert spread.spread and spread.main == torch.device("cuda", 1)
    homes = {spread.home(f"encoder.layers.{n}.mlp.up_proj.weight") for n in range(LAYERS)}
    assert homes == {torch.device("cuda", 1), torch.device("cuda", 2)}
    for n in range(LAYERS):
        parts = (f"encoder.layers.{n}.{name}" for name, _ in model.encoder.layers[n].named_parameters())
        assert len({spread.home(part) for part in parts}) == 1
    tight = placement.plan(model, "auto", torch.float32, {0: head + 2 * layer, "cpu": head})
    waiting = [name for name in tight.homes if tight.home(name) in ("disk", torch.device("cpu"))]
    assert waiting and all(tight.computes_on(name) == torch.device("cuda", 0) for name in waiting)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layers_left_in_their_file_decode_like_the_rest(folder, model, monkeypatch, dtype):
    """accelerate's hooks at work on a CPU: some layers wait on disk and come in during each forward."""
    layer = sum(p.numel() for p in model.encoder.layers[0].parameters()) * getattr(torch, dtype).itemsize
    table = model.diffusion_head.weight.numel() * getattr(torch, dtype).itemsize
    decide = placement.plan
    plans = []

    def tight(meta, device, kind):
        plans.append(decide(meta, device, kind, {"cpu": table + 2 * layer}))
        return plans[-1]

    monkeypatch.setattr(placement, "plan", tight)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spread = load(folder, device="auto", dtype=dtype).model
    assert plans[0].spread and any(p.is_meta for p in spread.parameters())
    assert not all(p.is_meta for p in spread.parameters())
    monkeypatch.undo()
    whole = load(folder, device="cpu", dtype=dtype).model
    assert spread.dtype == whole.dtype and spread.device == whole.device
    assert spread.parameter_count() == whole.parameter_count()
    tokens = torch.arange(150, 180)[None]
    caches = [m.new_cache(64) for m in (spread, whole)]
    assert isinstance(caches[0].keys, list) and len(caches[0].keys) == LAYERS
    with torch.inference_mode():
        for part, pattern, write in (
            (tokens[:, :20], "causal", True),
            (tokens[:, 20:], "bidirectional", False),
            (tokens[:, 20:], "causal", True),
        ):
            got, expected = (
                m(part, pattern=pattern, cache=c, write=write, rows=torch.tensor([0, 3]))
                for m, c in zip((spread, whole), caches, strict=True)
            )
            # Projections of one device are one product, whose sums round otherwise.
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 if dtype == "float32" else 3e-2)
    with pytest.raises(CheckpointError, match="partly on disk"):
        save(spread, small_tokenizer(), folder.parent / "copy")


def test_small_models_use_one_thread_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    from nemodiff_core.placement import set_threads

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        set_threads(5_000_000)
        assert torch.get_num_threads() == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        monkeypatch.setattr("psutil.cpu_count", lambda logical: 3)
        set_threads(3_000_000_000)
        assert torch.get_num_threads() == 3
        set_threads(5_000_000)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_loading_does_not_import_torchs_compiler():
    """Which takes seconds, and nothing here needs it."""
    code = "import sys; from nemodiff_core.checkpoint import load; load('tiny', device='cpu'); sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0
