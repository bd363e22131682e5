"""`nemodiff bench forward`: one forward of a geometry beside the memory it must read.

Random weights suffice: a forward takes as long whatever it says. The prefix stands in the cache; one row is the
step of ar, more are the open block of diffusion and of a draft.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import psutil
import torch

from nemodiff_core.analysis.devices import Device
from nemodiff_core.analysis.probe import measure_device
from nemodiff_core.analysis.released import RELEASED
from nemodiff_core.analysis.roofline import Geometry, Load, bytes_read, floor
from nemodiff_core.bench.plain import TransformersPasses, missing, transformers_model
from nemodiff_core.bench.report import Listen, Spread, Table, unheard
from nemodiff_core.bench.stopwatch import wait
from nemodiff_core.cache import KVCache
from nemodiff_core.checkpoint import bundled_path, read_config
from nemodiff_core.config import ModelConfig
from nemodiff_core.decode.batch import Fast, fast_for
from nemodiff_core.decode.calls import Forward
from nemodiff_core.errors import NemodiffError
from nemodiff_core.model import TriModeModel
from nemodiff_core.placement import free_memory, parse_device, set_threads

ROWS = (1, 16, 32)
PREFIX = 1024
SHARE = 0.6  # of the free memory: the machine has other work, too
_MOST, _FEWEST = 50, 3  # repetitions: at most, and what a case must have time for to be tried
_NOISE = 2**20  # random values that fill the weights, over and over

Call = Callable[[], object]


def geometries() -> dict[str, tuple[ModelConfig, str | None]]:
    """What is measured by name: a config, and the dtype on a CPU (None: the checkpoint's own, as everywhere else)."""
    released = {name.removeprefix("Nemotron-Labs-Diffusion-"): (config, None) for name, config in RELEASED.items()}
    return {"tiny": (read_config(bundled_path()), "float32"), **released}


def measure(
    names: Sequence[str] = (),
    device: torch.device | str | None = None,
    *,
    rows: Sequence[int] = ROWS,
    prefix: int = PREFIX,
    seconds: float = 60.0,
    compiles: bool = False,
    listen: Listen = unheard,
) -> list[Table]:
    """Time forwards of the named geometries (all where none is named).

    A geometry has `seconds`: cases that cannot be run in it, or weights that do not fit the memory, are reported
    as unmeasured. With `compiles`, torch.compile's forward stands beside, and its start-up outside of that time.
    Raises NemodiffError for an unknown geometry or device.
    """
    place, known = parse_device(device), geometries()
    if unknown := [name for name in names if name not in known]:
        raise NemodiffError(f"there is no geometry {unknown[0]}; they are {', '.join(known)}.")
    chosen = names or list(known)
    found, note = [], ""
    for n, name in enumerate(chosen):
        config, on_cpu = known[name]
        geometry = Geometry.of(config, on_cpu if place.type == "cpu" else None)
        needs = geometry.width * (geometry.parameters + 2 * geometry.cached * (prefix + max(rows)))
        if needs > SHARE * _free(place):
            cases = [{"note": f"unmeasured: needs {needs / 1e9:.1f} GB of free memory"} for _ in rows]
        else:
            listen(n * len(rows), len(chosen) * len(rows), f"{name}, making weights")
            with _threads_for(geometry.parameters):
                host = measure_device(geometry.dtype, place, geometry.weight_bytes)
                heard = partial(_offset, listen, n, len(chosen), name)
                cases = _cases(config, geometry, host, place, rows, prefix, seconds, compiles, heard)
            note += f" {name}: a plain read reaches {host.bandwidth / 1e9:.1f} GB/s ({host.name})."
        about = [{"geometry": name, "dtype": geometry.dtype, "rows": count, "prefix": prefix} for count in rows]
        found += [{**row, "MB": bytes_read(geometry, Load(row["rows"], prefix)) / 1e6, **case} for row, case in zip(about, cases)]
    listen(len(chosen) * len(rows), len(chosen) * len(rows), "done")
    return [
        Table(
            name="forward", title="Forward", keys=("geometry", "dtype", "rows", "prefix"), rows=found,
            note=f"Random weights on {place.type}. The forward is the fast loop's where there is one (compiled for small models on a CPU, a "
            f"graph on a GPU), with the eager one beside it, and eager elsewhere. MB is what a forward must read: every weight but the embedding, and the cached "
            f"prefix. The floor is the longer of reading and multiplying, at this machine's own measured rates.{note}",
        )
    ]  # fmt: skip


@contextmanager
def _threads_for(parameters: int) -> Iterator[None]:
    """As many threads as a model of this size is given when it is loaded by itself; OMP_NUM_THREADS has the last word."""
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(psutil.cpu_count(logical=False) or 1)
    set_threads(parameters)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _offset(listen: Listen, number: int, geometries: int, name: str, done: int, cases: int, words: str) -> None:
    listen(number * cases + done, geometries * cases, f"{name}, {words}")


def _cases(
    config: ModelConfig, geometry: Geometry, host: Device, place: torch.device, rows: Sequence[int], prefix: int, seconds: float,
    compiles: bool, listen: Listen,
) -> list[dict[str, Any]]:  # fmt: skip
    model, theirs, found, share = None, None, [], seconds / len(rows)
    for n, count in enumerate(rows):
        least = floor(host, geometry, Load(count, prefix)).seconds
        if 2 * _FEWEST * least > share:
            found.append({"floor ms": 1000 * least, "note": f"unmeasured: not within {seconds:.0f} s"})
            continue
        listen(n, len(rows), f"{count} {'row' if count == 1 else 'rows'}")
        if model is None:
            model = random_model(config, geometry.dtype, place)
            # Its weights may have to be copied.
            if missing(model) is None and geometry.width * geometry.parameters < SHARE * _free(place):
                theirs = transformers_model(model)
        found.append(_case(model, theirs, geometry, host, count, prefix, least, share if theirs is None else share / 2, compiles))
    return found


@torch.inference_mode()
def _case(
    model: TriModeModel, theirs: Any, geometry: Geometry, host: Device, count: int, prefix: int, least: float, seconds: float,
    compiles: bool,
) -> dict[str, Any]:  # fmt: skip
    eager, fast = own_forward(model, count, prefix), fast_for(model)
    ours = eager if fast is None else fast_forward(model, fast, count, prefix)
    times = repeat(ours, model.device, seconds)
    row = {
        "ms": Spread.of(1000 * took for took in times),
        "GB/s": bytes_read(geometry, Load(count, prefix)) / _median(times) / 1e9,
        "floor ms": 1000 * least,
        "× floor": _median(times) / least,
    }
    if fast is not None:
        took = _median(repeat(eager, model.device, seconds))
        row |= {"eager ms": 1000 * took, "× eager": took / _median(times)}
    row["% of bandwidth"] = 100 * row["GB/s"] * 1e9 / host.bandwidth
    if theirs is not None:
        took = _median(repeat(their_forward(theirs, count, prefix), model.device, seconds))
        row |= {"transformers ms": 1000 * took, "× transformers": took / _median(times)}
    if compiles:
        try:
            compiled = _median(repeat(torch.compile(eager, dynamic=False), model.device, seconds))
            row |= {"compile ms": 1000 * compiled, "× compile": compiled / _median(times)}
        except Exception as error:  # whatever the compiler cannot do is no fault of the forward's
            row["note"] = f"torch.compile failed: {type(error).__name__}"
    return row


def own_forward(model: TriModeModel, count: int, prefix: int) -> Call:
    """A forward of `count` tokens behind a cache that holds `prefix`: written and forgotten for one, open for more."""
    return _forward(model, model.new_cache(prefix + count), count, prefix, lambda asked: asked.run(model))


def fast_forward(model: TriModeModel, fast: Fast, count: int, prefix: int) -> Call:
    """The same by the fast loop."""
    return _forward(model, fast.new_cache(prefix + count), count, prefix, fast.answer)


def _forward(
    model: TriModeModel, cache: KVCache, count: int, prefix: int, answer: Callable[[Forward], torch.Tensor | None]
) -> Call:
    for layer in (*cache.keys, *cache.values):
        layer.normal_()
    cache.advance(prefix)
    tokens = torch.randint(model.config.vocab_size, (1, count), device=model.device)
    asked = Forward(tokens, "causal", cache, write=True) if count == 1 else Forward(tokens, "bidirectional", cache)

    def forward() -> torch.Tensor:
        logits = answer(asked)
        if logits is None:
            raise RuntimeError("the fast loop does not serve this forward")
        cache.crop(prefix)
        return logits

    return forward


def their_forward(theirs: Any, count: int, prefix: int) -> Call:
    """The same by transformers' model."""
    passes, config = TransformersPasses(theirs), theirs.config
    for layer in range(config.num_hidden_layers):
        shape = (1, config.num_key_value_heads, prefix, config.head_dim)
        passes.cache.update(*(torch.randn(shape, dtype=theirs.dtype, device=theirs.device) for _ in "kv"), layer)
    tokens, rows = torch.randint(config.vocab_size, (count,), device=theirs.device), torch.arange(count, device=theirs.device)

    def forward() -> torch.Tensor:
        logits = passes.causal(tokens) if count == 1 else passes.open(tokens, rows)
        passes.crop(prefix)
        return logits

    return forward


def random_model(config: ModelConfig, dtype: str, device: torch.device) -> TriModeModel:
    """A model of this geometry with random weights, made where it shall be."""
    with torch.device("meta"):
        model = TriModeModel(config)
    model = model.to(getattr(torch, dtype)).to_empty(device=device).eval().requires_grad_(False)
    noise = torch.randn(_NOISE, device=device).mul_(0.02).to(model.dtype)
    for weight in model.parameters():
        for part in weight.view(-1).split(_NOISE):  # quicker than drawing billions, and as random to a product
            part.copy_(noise[: len(part)])
    model.join()
    return model


def repeat(call: Call, device: torch.device, seconds: float) -> list[float]:
    """Seconds of each of up to 50 calls, as many as the time allows and at least one; the first call only warms up."""
    end = time.monotonic() + seconds
    call()
    wait(device)
    times: list[float] = []
    while not times or len(times) < _MOST and time.monotonic() < end:
        began = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - began)
    return times


def _median(times: Sequence[float]) -> float:
    return Spread.of(times).median


def _free(device: torch.device) -> float:
    """Bytes that are free where the weights go."""
    return free_memory()["cpu" if device.type == "cpu" else device.index or 0]
