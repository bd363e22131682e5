"""Checkpoints in the family's own layout: find a folder or a hub id, verify, load, save.

A checkpoint is a folder with config.json, model.safetensors (or several files and an index), the tokenizer's
files, the chat template and perhaps a draft adapter in linear_spec_lora/ (facts §2). Nothing else in it is
opened: no pickles, no code.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nemodiff_core import placement, quantized
from nemodiff_core.config import KNOWN_DTYPES, ModelConfig
from nemodiff_core.decode.learned import CONFIG as SAMPLER_CONFIG, load_sampler
from nemodiff_core.errors import CheckpointError
from nemodiff_core.files import damaged, replace_file, write_json
from nemodiff_core.lora import has_adapter, load_adapter, save_adapter
from nemodiff_core.model import TriModeModel
from nemodiff_core.sources import (
    ADAPTER,
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    INDEX,
    WEIGHTS,
    Found,
    Progress,
    bundled_path,
    find,
    one_line,
    read_config,
    read_json,
)
from nemodiff_core.tokenizer import Tokenizer

__all__ = ["Checkpoint", "bundled_path", "find", "load", "read_config", "save"]

SHARD_BYTES = 5 * 10**9
_FLOATS = {"F64", "F32", "F16", "BF16"}


SAMPLER = "sampler"  # folder of the learned sampler, where there is one


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with everything needed to talk to it. `revision` is the hub commit, None for a folder."""

    model: TriModeModel
    tokenizer: Tokenizer
    config: ModelConfig
    id: str
    revision: str | None
    path: Path

    @property
    def has_adapter(self) -> bool:
        """Whether drafts can use an adapter."""
        return self.model.draft_adapter is not None

    @property
    def has_sampler(self) -> bool:
        """Whether the policy `sampler` is there."""
        return self.model.commit_sampler is not None

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go."""
        return self.model.device

    def describe(self) -> dict[str, Any]:
        """What a trace says about the model."""
        return {
            "id": self.id,
            "revision": self.revision,
            "parameters": self.model.parameter_count(),
            "dtype": self.model.format,
            "device": str(self.model.device),
            "adapter": self.has_adapter,
        }


class StoredTensor(NamedTuple):
    """Where a tensor lies and what its file says about it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def load(
    source: str | os.PathLike[str] | Found,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    revision: str | None = None,
    progress: Progress | None = None,
    adapter: bool = True,
    make_room: Callable[[], None] = lambda: None,
) -> Checkpoint:
    """Load a checkpoint for inference from a folder, a hub id or "tiny", the bundled one, or what `find` has found.

    `device` defaults to the GPU where there is one; "auto" spreads what does not fit one GPU. `dtype` defaults
    to float32 on the CPU and to the config's own elsewhere; "int8" and "int4" quantise the weights alone
    (`quantized.py`). They go tensor by tensor from the mapped file to their dtype and device; unchanged ones
    stay mapped on the CPU, but for those that `TriModeModel.join` lays side by side. No weight requires a gradient.
    A draft adapter in the folder is attached to the model unless `adapter` is False. Raising in `progress` ends it.
    `make_room` is called before the first weight is read, when all that can be checked without them is sound.
    Raises CheckpointError or ConfigError, one sentence each.
    """
    tell = progress or (lambda what, share: None)
    form = dtype if dtype in quantized.FORMATS else None
    wanted = None if dtype is None or form else placement.parse_dtype(dtype, (*KNOWN_DTYPES, *quantized.FORMATS))
    main = placement.parse_device(None if device == "auto" else device)
    folder, name, commit = source if isinstance(source, Found) else find(source, revision, tell)
    config = read_config(folder)
    stored = survey(folder)
    if config.num_hidden_layers > len(stored):
        raise CheckpointError(
            f"{folder.name} holds {len(stored)} tensors, too few for the {config.num_hidden_layers} layers in its "
            "config.json; download it again."
        )
    with torch.device("meta"):
        model = TriModeModel(config)
    verify(model, stored, folder.name)
    # The tokenizer is read first: it fails fast, the weights of a large model take minutes.
    tokenizer = _read_tokenizer(folder, config)
    if form:
        wanted = quantized.compute_dtype(main)
        quantized.prepare(model, form, wanted)
    elif wanted is None:
        wanted = placement.usual_dtype(config, main)
    make_room()
    plan = placement.plan(model, device, wanted)
    if form and "disk" in plan.homes.values():
        raise CheckpointError(f"the weights in {form} fit neither the GPUs nor the memory beside them; use a smaller model.")
    _fill(model, stored, plan, wanted, tell)
    if adapter and has_adapter(folder / ADAPTER):
        homes = model.layer_devices or model.device
        model.draft_adapter = load_adapter(folder / ADAPTER, config, wanted, homes)
    if (folder / SAMPLER / SAMPLER_CONFIG).is_file():
        # Beside the weights' own attributes: it decides on the host, so it stays in float32 on the CPU.
        model.__dict__["commit_sampler"] = load_sampler(folder / SAMPLER, config.vocab_size, config.hidden_size)
    return Checkpoint(model, tokenizer, config, name, commit, folder)


def survey(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor the weight files hold, from their headers alone. Raises CheckpointError."""
    stored: dict[str, StoredTensor] = {}
    for file in _weight_files(folder):
        try:
            with safe_open(file, framework="pt") as reader:
                for name in reader.keys():
                    if name in stored:
                        raise CheckpointError(f"{name} is in two files of {folder.name}; download it again.")
                    entry = reader.get_slice(name)
                    stored[name] = StoredTensor(file, tuple(entry.get_shape()), str(entry.get_dtype()))
        except (SafetensorError, OSError) as error:
            raise damaged(file, error) from error
    return stored


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        places = read_json(folder / INDEX).get("weight_map")
        if not isinstance(places, Mapping) or not places:
            raise CheckpointError(f"{INDEX} has no weight_map; download it again.")
        names = []
        for name in dict.fromkeys(str(place) for place in places.values()):
            # A file of the same folder, and nothing that this or another system reads as a path.
            if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
                raise CheckpointError(f"{INDEX} names {name[:80]!r}, which is no safetensors file of its folder.")
            if not (folder / name).is_file():
                raise CheckpointError(f"{name} is missing from {folder.name}; download it again.")
            names.append(folder / name)
        return names
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
        raise CheckpointError(
            f"{folder.name} holds its weights as pickles, which could run code and are never opened; "
            "convert them to safetensors."
        )
    raise CheckpointError(f"{folder.name} has a config.json but no model.safetensors; download it completely.")


def verify(model: TriModeModel, stored: Mapping[str, StoredTensor], name: str) -> None:
    """Check names, shapes and number formats of the stored tensors against `model`. Raises CheckpointError."""
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    for problem, keys in (
        ("lacks", [key for key in expected if key not in stored]),
        ("has unexpected", [key for key in stored if key not in expected]),
    ):
        if keys:
            raise CheckpointError(
                f"{name} {problem} {len(keys)} tensor(s), {keys[0][:120]!r} first, where its config.json asks for "
                f"{len(expected)}; config and weights belong to different models."
            )
    for key, shape in expected.items():
        if stored[key].shape != shape:
            raise CheckpointError(
                f"{key} has shape {list(stored[key].shape)} in {name}, but its config.json asks for {list(shape)}; "
                "config and weights belong to different models."
            )
        if stored[key].dtype not in _FLOATS:
            raise CheckpointError(
                f"{key} is stored as {stored[key].dtype} in {name}; quantised weights cannot be read, load the "
                "original checkpoint."
            )


def _fill(
    model: TriModeModel,
    stored: Mapping[str, StoredTensor],
    plan: placement.Plan,
    dtype: torch.dtype,
    progress: Progress,
) -> None:
    """Bring every tensor to its home, file by file, so that nothing is held twice."""
    loaded: dict[str, torch.Tensor] = {}
    done = 0
    on_disk: dict[str, dict[str, str]] = {}
    try:
        for file in dict.fromkeys(tensor.file for tensor in stored.values()):
            with safe_open(file, framework="pt") as reader:
                for name in (name for name, tensor in stored.items() if tensor.file == file):
                    home, owner = plan.home(name), name.rpartition(".")[0]
                    module = model.get_submodule(owner)
                    if isinstance(module, quantized.Quantized):
                        parts = quantized.read(module, reader.get_slice(name), home)
                        loaded |= {f"{owner}.{part}": tensor for part, tensor in parts.items()}
                    elif home == "disk":
                        kind = str(dtype).removeprefix("torch.")
                        on_disk[name] = {"safetensors_file": str(file), "weight_name": name, "dtype": kind}
                    else:
                        loaded[name] = reader.get_tensor(name).to(device=home, dtype=dtype)
                    done += 1
                    progress("reading weights", done / len(stored))
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise CheckpointError("the weights do not fit the device; use device 'auto' or a smaller model.") from error
    except (SafetensorError, OSError, RuntimeError) as error:
        raise CheckpointError(f"the weights cannot be read ({one_line(error)}); download them again.") from error
    model.load_state_dict(loaded, strict=False, assign=True)
    loaded.clear()  # else `join` would replace weights that are held here still
    model.requires_grad_(False).eval()
    if on_disk:
        # What stays in its file is still a tensor of the meta device, whose dtype a forward asks for.
        for name, parameter in model.named_parameters():
            if name in on_disk:
                parameter.data = parameter.data.to(dtype)
    if plan.spread:
        placement.dispatch(model, plan, on_disk)
    elif not model.quantized:
        model.join()


def _read_tokenizer(folder: Path, config: ModelConfig) -> Tokenizer:
    tokenizer = Tokenizer.from_folder(folder, mask_id=config.mask_token_id, eos_id=config.eos_token_id)
    largest = max(tokenizer.fast.get_vocab().values(), default=0)
    if largest >= config.vocab_size:
        raise CheckpointError(
            f"the tokenizer of {folder.name} has ids up to {largest}, but its config.json has a vocabulary of "
            f"{config.vocab_size}; they belong to different models."
        )
    return tokenizer


def save(
    model: TriModeModel,
    tokenizer: Tokenizer,
    folder: str | os.PathLike[str],
    dtype: torch.dtype | str | None = None,
    max_shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write `model`, its draft adapter and `tokenizer` in the layout that `load` reads; returns the folder.

    Every file is written beside its place and then moved there: a reader that has the old weights mapped
    keeps them, and an interrupted save leaves the old file. Raises CheckpointError.
    """
    if model.quantized:
        raise CheckpointError(f"this model holds its weights in {model.quantized}, which cannot be saved; load it in a floating-point dtype.")
    folder = Path(folder)
    target = model.dtype if dtype is None else placement.parse_dtype(dtype)
    tensors = model.state_dict()
    if any(tensor.is_meta for tensor in tensors.values()):
        raise CheckpointError("this model is partly on disk and cannot be saved; load it on the CPU first.")
    shards = _shards(tensors, target, max_shard_bytes)
    names = [f"model-{n + 1:05d}-of-{len(shards):05d}.safetensors" for n in range(len(shards))]
    if len(shards) == 1:
        names = [WEIGHTS]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, keys in zip(names, shards, strict=True):
            part = {key: tensors[key].detach().to("cpu", target).contiguous() for key in keys}
            replace_file(folder / file, lambda path, part=part: save_file(part, path, metadata={"format": "pt"}))
        if len(shards) > 1:
            size = sum(tensor.numel() for tensor in tensors.values()) * target.itemsize
            places = {key: file for file, keys in zip(names, shards, strict=True) for key in keys}
            write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": places})
        config = dataclasses.replace(model.config, torch_dtype=str(target).removeprefix("torch."))
        write_json(folder / CONFIG, config.to_dict())
        tokenizer.save(folder)
        # Weight files of an earlier save would otherwise be taken for the model.
        stale = {WEIGHTS, INDEX, *(path.name for path in folder.glob("model-*-of-*.safetensors"))}
        for name in stale - {*names, *([INDEX] if len(shards) > 1 else [])}:
            (folder / name).unlink(missing_ok=True)
        if model.draft_adapter is not None:
            save_adapter(model.draft_adapter, folder / ADAPTER, target)
        else:  # one that was trained for other weights
            for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
                (folder / ADAPTER / name).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the model could not be saved to {folder} ({one_line(error)}).") from error
    return folder


def _shards(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype, limit: int) -> list[list[str]]:
    """Tensor names in order, cut into groups of at most `limit` bytes (a larger tensor stands alone)."""
    groups: list[list[str]] = [[]]
    room = limit
    for key, tensor in tensors.items():
        size = tensor.numel() * dtype.itemsize
        if size > room and groups[-1]:
            groups.append([])
            room = limit
        groups[-1].append(key)
        room -= size
    return groups
