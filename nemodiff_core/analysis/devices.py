"""How fast devices read memory and multiply matrices: published figures of some, and a probe of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from nemodiff_core.engine import environment
from nemodiff_core.errors import NemodiffError
from nemodiff_core.placement import parse_device, parse_dtype

TB, TFLOP, GB = 1e12, 1e12, 1e9
VENDOR, MEASURED = "vendor", "measured"


@dataclass(frozen=True)
class Device:
    """Bandwidth in bytes/s, matmul peaks in FLOP/s by dtype, memory in bytes (None where it does not matter)."""

    name: str
    source: str  # VENDOR: data sheet, reached by no program; MEASURED: what a plain copy and a plain product reach
    bandwidth: float
    peak: Mapping[str, float]
    memory: float | None = None

    def peak_for(self, dtype: str) -> float:
        """FLOP/s of a matrix product in `dtype`. Raises NemodiffError for one the device has no figure for."""
        if dtype not in self.peak:
            raise NemodiffError(f"{self.name} has no figure for {dtype}; choose among {', '.join(self.peak)}.")
        return self.peak[dtype]


def _gpu(name: str, source: str, memory: float, bandwidth: float, half: float, single: float | None, bfloat: bool = True) -> Device:
    peak = {"float16": half * TFLOP}
    if bfloat:
        peak["bfloat16"] = half * TFLOP
    if single is not None:
        peak["float32"] = single * TFLOP
    return Device(name, source, bandwidth * TB, peak, memory * GB)


# Vendor figures are NVIDIA's data sheets and architecture papers: without sparsity, half precision on tensor cores
# with float32 accumulation, float32 without TF32, as PyTorch computes by default.
DEVICES: dict[str, Device] = {
    #                     name                     source    GB     TB/s   half    float32
    "b200":          _gpu("NVIDIA B200 SXM",       VENDOR,   180.0, 8.0,   2250.0, 75.0),
    "h200":          _gpu("NVIDIA H200 SXM",       VENDOR,   141.0, 4.8,   989.0,  67.0),
    "h200-measured": _gpu("NVIDIA H200 SXM",       MEASURED, 141.0, 4.3,   790.0,  None),
    "h100":          _gpu("NVIDIA H100 SXM",       VENDOR,   80.0,  3.35,  989.0,  67.0),
    "a100":          _gpu("NVIDIA A100 80GB SXM",  VENDOR,   80.0,  2.039, 312.0,  19.5),
    "l40s":          _gpu("NVIDIA L40S",           VENDOR,   48.0,  0.864, 362.0,  91.6),
    "l4":            _gpu("NVIDIA L4",             VENDOR,   24.0,  0.3,   121.0,  30.3),
    "t4":            _gpu("NVIDIA T4",             VENDOR,   16.0,  0.3,   65.0,   8.1, bfloat=False),
    "rtx4090":       _gpu("NVIDIA RTX 4090",       VENDOR,   24.0,  1.008, 165.2,  82.6),
}  # fmt: skip

_READ_SECONDS, _MULTIPLY_SECONDS = 0.4, 0.8
_SMALLEST_BUFFER, _LARGEST_BUFFER = 16 * 2**20, {"cpu": 256 * 2**20}
_SIZES = (256, 512, 1024, 2048, 4096, 8192)


def known_device(name: str) -> Device:
    """A device of the table. Raises NemodiffError."""
    try:
        return DEVICES[name.lower()]
    except KeyError:
        raise NemodiffError(f"there are no figures for {name!r}; choose among {', '.join(DEVICES)} or measure.") from None


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
    name = hardware["gpu"] if place.type == "cuda" else f"{hardware['processor']}, {hardware['threads']} threads"
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
