"""Where a checkpoint's weights go: device and dtype by name, and several devices through accelerate."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil
import torch
from accelerate import dispatch_model, infer_auto_device_map

from nemodiff_core.config import KNOWN_DTYPES, ModelConfig
from nemodiff_core.errors import CheckpointError
from nemodiff_core.model import DecoderLayer, TriModeModel

# Share of the free memory that weights may take; the rest is for the KV cache and activations.
WEIGHTS_SHARE = 0.85

Home = torch.device | str  # a device, or "disk" for weights that stay in their file


@dataclass(frozen=True)
class Plan:
    """The home of every module that is placed as a whole; `main` computes what has no device of its own."""

    homes: Mapping[str, Home]
    main: torch.device

    @property
    def spread(self) -> bool:
        """Whether accelerate has to move activations or weights during a forward."""
        return len(set(self.homes.values())) > 1 or "disk" in self.homes.values()

    def home(self, name: str) -> Home:
        """The home of a tensor or module, by the longest module name that contains it."""
        while name not in self.homes and name:
            name = name.rpartition(".")[0]
        return self.homes[name]

    def computes_on(self, name: str) -> torch.device:
        """The device a module runs on: its home, or `main` when its weights wait on the CPU or on disk."""
        home = self.home(name)
        return self.main if home == "disk" or torch.device(home).type == "cpu" else torch.device(home)


def parse_dtype(dtype: torch.dtype | str, offered: Sequence[str] = KNOWN_DTYPES) -> torch.dtype:
    """A floating-point dtype by object or name ("bfloat16", "torch.float32").

    Raises CheckpointError, which names what is `offered`.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in KNOWN_DTYPES:
        raise CheckpointError(f"dtype {name!r} cannot hold this model; use one of {', '.join(offered)}.")
    return getattr(torch, name)


def parse_device(device: torch.device | str | None) -> torch.device:
    """The device meant: None is the GPU where there is one. Raises CheckpointError for one that is not there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"{device!r} names no device; use 'cpu', 'cuda', 'cuda:1' or 'auto'.") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    beyond = chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count()
    if not there.get(chosen.type, False) or beyond:
        raise CheckpointError(f"device {str(device)!r} is not available on this machine; use 'cpu' or 'auto'.")
    return chosen


def usual_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """What weights are held in where nobody chose: float32 on the CPU, the config's own dtype elsewhere."""
    return torch.float32 if device.type == "cpu" else getattr(torch, config.torch_dtype)


def place_of(device: torch.device | str | None) -> int | str:
    """The key of `free_memory` for what is loaded to `device`. Raises CheckpointError as `parse_device` does."""
    chosen = parse_device(device)
    return (chosen.index or 0) if chosen.type == "cuda" else "cpu"


def release() -> None:
    """Give back the memory of models that nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_memory() -> dict[int | str, int]:
    """Bytes that weights may take: GPUs by index, and "cpu" once they are full."""
    budget: dict[int | str, int] = {
        n: int(torch.cuda.mem_get_info(n)[0] * WEIGHTS_SHARE) for n in range(torch.cuda.device_count())
    }
    # A GPU that shares the machine's memory has been counted already.
    shared = any(getattr(torch.cuda.get_device_properties(n), "is_integrated", False) for n in budget)
    return budget | {"cpu": 0 if shared else int(psutil.virtual_memory().available * WEIGHTS_SHARE)}


def plan(
    model: TriModeModel,
    device: torch.device | str | None,
    dtype: torch.dtype,
    budget: Mapping[int | str, int] | None = None,
) -> Plan:
    """Decide where the weights of `model` (on the meta device) go.

    `device="auto"` takes one GPU if the weights fit it, else spreads whole decoder layers over all GPUs, then
    the CPU, then leaves the rest in the file; without a GPU it is the CPU. `budget` replaces `free_memory()`.
    """
    if device != "auto" or (budget is None and not torch.cuda.is_available()):
        chosen = parse_device(None if device == "auto" else device)
        return Plan({"": chosen}, chosen)
    budget = dict(free_memory() if budget is None else budget)
    size = _size(model, dtype)
    # A GPU too full for one layer would only be in the way: what waits elsewhere computes on the first one.
    least = max(_size(module, dtype) for module in _whole_modules(model))
    budget = {place: room for place, room in budget.items() if place == "cpu" or room >= least}
    gpus = [place for place in budget if place != "cpu"]
    roomiest = max(gpus, key=budget.__getitem__, default="cpu")
    if size <= budget[roomiest]:
        whole = _home(roomiest)
        return Plan({"": whole}, whole)
    found = infer_auto_device_map(
        model, max_memory=budget, no_split_module_classes=[DecoderLayer.__name__], dtype=dtype
    )
    return Plan({name: _home(where) for name, where in found.items()}, _home(min(gpus, default="cpu")))


def dispatch(model: TriModeModel, plan: Plan, on_disk: Mapping[str, dict[str, str]]) -> None:
    """Attach accelerate's hooks, which bring activations and waiting weights together, layer by layer.

    `on_disk` names, for every tensor left in its file, the safetensors file, the name in it and the dtype.
    """
    names = (f"encoder.layers.{n}" for n in range(model.config.num_hidden_layers))
    model.layer_devices = tuple(plan.computes_on(name) for name in names)
    homes = {name: _accelerate_name(home) for name, home in plan.homes.items()}
    dispatch_model(
        model, device_map=homes, main_device=_accelerate_name(plan.main), offload_index=dict(on_disk) or None
    )


def _size(module: torch.nn.Module, dtype: torch.dtype) -> int:
    """Bytes of its weights, those in floating point in `dtype`."""
    return sum(p.numel() * (dtype if p.is_floating_point() else p.dtype).itemsize for p in module.parameters())


def _whole_modules(model: TriModeModel) -> list[torch.nn.Module]:
    return [model.encoder.embed_tokens, *model.encoder.layers, model.encoder.norm, model.diffusion_head]


# accelerate has its own spelling for places: an index for a GPU, "cpu", "disk".
def _home(place: int | str) -> Home:
    if place == "disk":
        return place
    return torch.device("cuda", place) if isinstance(place, int) else torch.device(place)


def _accelerate_name(home: Home) -> int | str:
    if home == "disk":
        return home
    device = torch.device(home)
    return device.index if device.type == "cuda" else device.type


# Below this a matrix product is over before a second thread has woken up; and on a busy machine spinning
# threads that wait for each other cost a small model many times its own work.
SINGLE_THREAD_PARAMETERS = 50_000_000


def set_threads(parameters: int) -> None:
    """Choose the process's thread count for a model of this size on the CPU; OMP_NUM_THREADS has the last word."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1 if parameters < SINGLE_THREAD_PARAMETERS else psutil.cpu_count(logical=False) or 1)


def forward_threads() -> int:
    """Threads for the compiled forward of a small model (decode/compiled.py), which uses two at most; OMP_NUM_THREADS has the last word."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal():
        return min(int(given), 2) or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count(logical=False) or 1
    return min(cores, 2)
