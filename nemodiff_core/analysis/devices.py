"""How fast devices read memory and multiply matrices: the figures of some that are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nemodiff_core.errors import NemodiffError

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

def known_device(name: str) -> Device:
    """A device of the table. Raises NemodiffError."""
    try:
        return DEVICES[name.lower()]
    except KeyError:
        raise NemodiffError(f"there are no figures for {name!r}; choose among {', '.join(DEVICES)} or measure.") from None
