"""How fast this machine reads memory and multiplies matrices, found by trying."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from nemodiff_core.analysis.devices import MEASURED, Device
from nemodiff_core.engine import environment
from nemodiff_core.placement import parse_device, parse_dtype

_READ_SECONDS, _MULTIPLY_SECONDS = 0.4, 0.8
_SMALLEST_BUFFER, _LARGEST_BUFFER = 16 * 2**20, {"cpu": 256 * 2**20}
_SIZES = (256, 512, 1024, 2048, 4096, 8192)


def measure_device(
    dtype: torch.dtype | str = "float32", device: torch.device | str | None = None, working_set: int = _LARGEST_BUFFER["cpu"]
) -> Device:
    """Probe this machine in under two seconds: the best time of reading a buffer, and of square matrix products.

    `working_set` in bytes should be what a forward reads, so that a model which fits a processor's cache is
    measured from there; it is cut to 16 MiB..256 MiB (1 GiB on a GPU). Raises NemodiffError for an unknown dtype or
    device. A busy machine measures slower than it is.
    """
    kind, place = parse_dtype(dtype), parse_device(device)
    size = min(max(working_set, _SMALLEST_BUFFER), _LARGEST_BUFFER.get(place.type, 2**30))
    buffer = torch.ones(size // 4, device=place)
    bandwidth = size / _best(buffer.sum, place, _READ_SECONDS)
    hardware = environment()["hardware"]
    name = hardware["gpu"] if place.type == "cuda" else f"{hardware['processor']}, {hardware['threads']} {'thread' if hardware['threads'] == 1 else 'threads'}"
    return Device(name, MEASURED, bandwidth, {str(kind).removeprefix("torch."): _matmul_peak(kind, place)})


def _matmul_peak(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of the best square product; sizes grow while there is time, for small ones do not fill a GPU."""
    began, best = time.perf_counter(), 0.0
    for size in _SIZES:
        matrix = torch.ones((size, size), dtype=dtype, device=device)
        took = _best(lambda: F.linear(matrix, matrix), device, _MULTIPLY_SECONDS / 2 / len(_SIZES))
        best = max(best, 2 * size**3 / took)
        left = _MULTIPLY_SECONDS - (time.perf_counter() - began)
        if 8 * took * (1 + _calls_together(device)) > left:  # the next size has eight times the work
            break
    return best


def _best(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Shortest time of one call, in seconds; the first call only warms up."""

    def wait() -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    together = _calls_together(device)
    call()
    wait()
    shortest, end = float("inf"), time.perf_counter() + seconds
    while True:
        began = time.perf_counter()
        for _ in range(together):
            call()
        wait()
        now = time.perf_counter()
        shortest = min(shortest, (now - began) / together)
        if now >= end:
            return shortest


def _calls_together(device: torch.device) -> int:
    # On a GPU waiting itself takes a good part of a short call's time, so several calls share one wait.
    return 1 if device.type == "cpu" else 8
