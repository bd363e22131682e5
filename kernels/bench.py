"""How fast the kernels are, beside what they replace: `measure` gives one row for every kernel and shape.

Shapes are those of the 8B model (32 query and 8 KV heads of 128, hidden 4096, vocabulary 131072) in bfloat16.
Everything is timed on the device: the median of graph replays, or of event pairs for what asks the host and so
cannot be captured. Inputs rotate through more memory than the last-level cache holds. A kernel that does not
agree with its reference has no time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F

from kernels import reference
from kernels.dispatch import NAMES, use

HEADS, KV_HEADS, SIZE, HIDDEN, VOCAB, MASK = 32, 8, 128, 4096, 131072, 100
PREFIXES = (1024, 32768)
KIND = torch.bfloat16
UNMEASURED = "unmeasured: no CUDA device"

Call = Callable[..., object]


@dataclass(frozen=True)
class Row:
    """One kernel at one shape. Times are milliseconds; None where nothing was measured, and `note` says why."""

    kernel: str
    shape: str
    bytes: int  # the fewest the operation can move
    ms: float | None = None
    baselines: dict[str, float] = field(default_factory=dict)  # name -> ms; eager and compile, and others by kernel
    bandwidth: float | None = None  # bytes/s of a plain copy on this device
    note: str = ""

    @property
    def gb_per_second(self) -> float | None:
        return None if self.ms is None else self.bytes / self.ms / 1e6

    @property
    def share(self) -> float | None:
        """Part of the measured bandwidth that the fewest bytes account for."""
        return None if self.ms is None or not self.bandwidth else self.bytes / (self.ms / 1e3) / self.bandwidth

    def speedup(self, baseline: str) -> float | None:
        """How many times faster than a baseline."""
        return None if self.ms is None or baseline not in self.baselines else self.baselines[baseline] / self.ms


@dataclass(frozen=True)
class Case:
    """A kernel at a shape: fresh inputs, what to pass besides them, and what to compare with."""

    kernel: str
    shape: str
    bytes: int
    make: Callable[[torch.device], tuple]
    named: dict[str, object] = field(default_factory=dict)
    others: dict[str, Call] = field(default_factory=dict)  # further baselines, called with the same inputs
    adapt: Callable[[Call], Call] = lambda operation: operation  # makes inputs of what does not come first by name
    compiled: Call | None = None  # what to compile instead of the reference
    compiles: bool = True  # whether there is anything to compile
    waits: bool = False  # whether the reference asks the host
    numbers: Callable[[object], object] = lambda result: result  # the part of the result that two ways of rounding agree on
    tolerance: float = 2e-2


def cases(names: Iterable[str] = NAMES) -> Iterator[Case]:
    """Every shape of the named kernels. Raises ValueError for an unknown name."""
    makers = {
        "commit_stats": _commit_stats,
        "head_stats": _head_stats,
        "block_attention": _block_attention,
        "verify_commit": _verify_commit,
        "rope_qscale_kvstore": _rope_qscale_kvstore,
        "add_rmsnorm": _add_rmsnorm,
    }
    for name in names:
        if name not in makers:
            raise ValueError(f"there is no kernel {name!r}; choose among {', '.join(NAMES)}.")
        yield from makers[name]()


def measure(names: Iterable[str] = NAMES, device: torch.device | str = "cuda") -> list[Row]:
    """Rows for every shape of the named kernels; on a CPU the same rows, unmeasured. Raises ValueError, RuntimeError."""
    chosen, device = list(cases(names)), torch.device(device)
    if device.type != "cuda" or not torch.cuda.is_available():
        return [Row(case.kernel, case.shape, case.bytes, note=UNMEASURED) for case in chosen]
    ops = use(device, "triton")
    with torch.inference_mode(), torch.cuda.device(device):
        bandwidth = copy_bandwidth(device)
        return [_measured(case, getattr(ops, case.kernel), bandwidth, device) for case in chosen]


def copy_bandwidth(device: torch.device, size: int = 2**30) -> float:
    """Bytes/s, read and written together, of copying `size` bytes within the device."""
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / (_median([lambda: target.copy_(source)]) / 1e3)


def _measured(case: Case, kernel: Call, bandwidth: float, device: torch.device) -> Row:
    torch.manual_seed(0)
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    # Enough inputs that each is forgotten before its turn comes again; a few launches a graph in any case.
    sets = [case.make(device) for _ in range(min(max(math.ceil(3 * cache / case.bytes), 4), 64))]
    kernel, plain = (partial(case.adapt(each), **case.named) for each in (kernel, getattr(reference, case.kernel)))
    if not _agree(case, kernel, plain, device):
        return Row(case.kernel, case.shape, case.bytes, note="wrong: disagrees with its reference")

    def median(call: Call, waits: bool = False) -> float:
        return _median([partial(call, *inputs) for inputs in sets], captured=not waits)

    baselines = {"eager": median(plain, case.waits)}
    note = ""
    if case.compiles:
        try:
            baselines["compile"] = median(torch.compile(case.compiled or plain, dynamic=False))
        except Exception as error:  # whatever the compiler cannot do is no fault of the kernel's
            note = f"torch.compile failed: {type(error).__name__}"
    for name, call in case.others.items():
        baselines[name] = median(call)
    return Row(case.kernel, case.shape, case.bytes, median(kernel), baselines, bandwidth, note)


def _agree(case: Case, kernel: Call, plain: Call, device: torch.device) -> bool:
    results = []
    for operation in (kernel, plain):
        torch.manual_seed(1)
        made = case.numbers(operation(*case.make(device)))
        results.append(made if isinstance(made, tuple) else (made,))
    return all(torch.allclose(a.float(), b.float(), atol=case.tolerance, rtol=case.tolerance) for a, b in zip(*results))


def _median(calls: Sequence[Call], captured: bool = True, seconds: float = 0.3) -> float:
    """Median milliseconds of one of `calls`, which run one after the other."""
    for call in [*calls, *calls[:3]]:
        call()
    torch.cuda.synchronize()

    def together() -> None:
        for call in calls:
            call()

    if captured:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            together()
        together = graph.replay
        together()
    times: list[float] = []
    while len(times) < 10 or sum(times) < seconds * 1e3 and len(times) < 1000:
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        together()
        ended.record()
        ended.synchronize()
        times.append(began.elapsed_time(ended))
    return statistics.median(times) / len(calls)


def _random(*shape: int) -> Callable[[torch.device], torch.Tensor]:
    return lambda device: torch.randn(shape, dtype=KIND, device=device)


def _commit_stats() -> Iterator[Case]:
    for rows, candidates in ((1, 0), (32, 0), (32, 8)):
        yield Case(
            "commit_stats",
            f"{rows} x {VOCAB}, {candidates} candidates",
            rows * VOCAB * KIND.itemsize + rows * (3 + 2 * candidates) * 4,
            lambda device, rows=rows: (_random(rows, VOCAB)(device), MASK),
            dict(candidates=candidates),
            numbers=lambda packed: packed[:, 1:3],  # equal logits are common in bfloat16
        )


def _head_stats() -> Iterator[Case]:
    for rows in (1, 32):

        def make(device: torch.device, rows: int = rows) -> tuple:
            return _random(rows, HIDDEN)(device), _random(VOCAB, HIDDEN)(device).mul_(HIDDEN**-0.5), MASK

        yield Case(
            "head_stats",
            f"{rows} x {HIDDEN} x {VOCAB}",
            (rows + VOCAB) * HIDDEN * KIND.itemsize + rows * 12,
            make,
            others={"product": lambda hidden, weight, mask_id: F.linear(hidden, weight)},
            numbers=lambda packed: packed[:, 1:3],
        )


def _block_attention() -> Iterator[Case]:
    for length, n, causal in ((p, *block) for p in PREFIXES for block in ((1, True), (32, False), (32, True))):

        def make(device: torch.device, length: int = length, n: int = n) -> tuple:
            pair, cached = (1, KV_HEADS, n, SIZE), (1, KV_HEADS, length + n, SIZE)
            tensors = [_random(*shape)(device) for shape in ((1, HEADS, n, SIZE), pair, pair, cached, cached)]
            return *tensors, torch.tensor([length], dtype=torch.int32, device=device)

        def masked(q, k, v, keys, values, length, n: int = n, causal: bool = causal) -> torch.Tensor:
            """What a plain PyTorch decoder runs: everything in the cache already, and a mask over it."""
            mask = torch.ones(n, keys.shape[2], dtype=torch.bool, device=q.device)
            mask = mask.tril(keys.shape[2] - n) if causal else mask
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=True)

        def fused(q, k, v, keys, values, length) -> torch.Tensor:
            """The fused kernel at its best: no mask, no concatenation."""
            return F.scaled_dot_product_attention(q, keys, values, enable_gqa=True)

        yield Case(
            "block_attention",
            f"prefix {length}, block {n}, {'causal' if causal else 'bidirectional'}",
            2 * KIND.itemsize * SIZE * (KV_HEADS * (length + n) + HEADS * n),
            make,
            dict(causal=causal),
            others={"sdpa mask": masked, "sdpa": fused},
            compiled=masked,  # the reference asks for the length, which breaks a compiled graph
            waits=True,
        )


def _verify_commit() -> Iterator[Case]:
    def make(device: torch.device) -> tuple:
        block = torch.randint(200, VOCAB, (1, 32), device=device)
        picks = block.roll(-1, 1)
        picks[0, 20] += 1
        return block, picks, torch.tensor([100], dtype=torch.int32, device=device)

    # Only the host loop is there to compare with: it is what the decoders run.
    yield Case("verify_commit", "1 x 32", 32 * 16 + 36 * 4, make, dict(end=2**30, stop_id=11), compiles=False, waits=True)


def _rope_qscale_kvstore() -> Iterator[Case]:
    length, capacity = 1024, 2048
    for n in (1, 32):

        def make(device: torch.device, n: int = n) -> tuple:
            projections = [_random(1, n, heads, SIZE)(device) for heads in (HEADS, KV_HEADS, KV_HEADS)]
            angles = torch.rand(capacity, SIZE // 2, device=device) * 6
            angles = torch.cat((angles, angles), -1)
            at = torch.tensor([length], dtype=torch.int32, device=device)
            return *projections, angles.cos().to(KIND), angles.sin().to(KIND), at, *_cache(device, capacity)

        yield Case(
            "rope_qscale_kvstore",
            f"{n} x ({HEADS} + 2 x {KV_HEADS}) x {SIZE}, stored",
            # Queries and keys are read and written, keys stored once more, values read and stored.
            KIND.itemsize * SIZE * n * (2 * HEADS + 3 * KV_HEADS + 2 * KV_HEADS + 2),
            make,
            dict(window=16384, beta=0.1, keep=n, known=length),
            adapt=lambda operation: lambda *t, **named: operation(*t[:6], keys=t[6], values=t[7], **named),
        )


def _cache(device: torch.device, capacity: int) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (1, KV_HEADS, capacity, SIZE)
    return torch.zeros(shape, dtype=KIND, device=device), torch.zeros(shape, dtype=KIND, device=device)


def _add_rmsnorm() -> Iterator[Case]:
    for rows in (1, 32):
        yield Case(
            "add_rmsnorm",
            f"{rows} x {HIDDEN}",
            KIND.itemsize * HIDDEN * (4 * rows + 1),
            lambda device, rows=rows: (*(_random(*s)(device) for s in ((rows, HIDDEN), (rows, HIDDEN), (HIDDEN,))), 1e-5),
        )
