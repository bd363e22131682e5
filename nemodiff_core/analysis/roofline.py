"""The roofline of a checkpoint on a device: the least time a forward can take, and what each mode can make of it.

A forward reads every weight once, whatever the number of tokens that go through it, and the keys and values of
every stream; it multiplies each weight with each token. The longer of the two times is the floor (Williams,
Waterman and Patterson 2009). Left out, as small beside them: activations, norms, softmax, launching kernels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from nemodiff_core.analysis.devices import DEVICES, Device, known_device
from nemodiff_core.config import ModelConfig
from nemodiff_core.errors import NemodiffError
from nemodiff_core.metrics import forward_seconds
from nemodiff_core.trace import Step, Trace

__all__ = [
    "DEVICES", "Device", "Floor", "Geometry", "Load", "Measured", "break_even", "bytes_read", "floor", "known_device", "load_of",
    "overlay", "streams_that_fit", "tokens_per_second", "tpf_of",
]  # fmt: skip

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Forwards in which an accepted token costs its share: draft and verification, or both in one.
_FORWARDS_PER_VERIFICATION = {"linear_spec": 2, "quadratic_spec": 1}
MODES = ("ar", "diffusion", *_FORWARDS_PER_VERIFICATION)
MOST_STREAMS = 2**20


@dataclass(frozen=True)
class Geometry:
    """What a forward reads and computes, in numbers of values, and the bytes of one value."""

    layers: int  # weights of all decoder layers and the last norm
    head: int  # weights of the head: hidden × vocabulary
    embedding: int  # of which a forward reads only the rows of its tokens
    cached: int  # keys and values that one token leaves in the cache, over all layers
    attention: int  # layers × query heads × head_dim
    dtype: str

    @classmethod
    def of(cls, config: ModelConfig, dtype: str | None = None) -> Geometry:
        """Count a config's weights; `dtype` defaults to the checkpoint's own. Raises NemodiffError for an unknown one."""
        kind = dtype or config.torch_dtype
        if kind not in _BYTES:
            raise NemodiffError(f"there is no prediction for weights in {kind!r}; use one of {', '.join(_BYTES)}.")
        hidden = config.hidden_size
        queries = config.num_attention_heads * config.head_dim
        pairs = config.num_key_value_heads * config.head_dim
        layer = 2 * hidden * (queries + pairs) + 3 * hidden * config.intermediate_size + 2 * hidden
        return cls(
            layers=config.num_hidden_layers * layer + hidden,
            head=hidden * config.vocab_size,
            embedding=hidden * config.vocab_size,
            cached=2 * config.num_hidden_layers * pairs,
            attention=config.num_hidden_layers * queries,
            dtype=kind,
        )

    @property
    def width(self) -> int:
        """Bytes of one value."""
        return _BYTES[self.dtype]

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.layers + self.head + self.embedding

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that a forward reads: all but the embedding table."""
        return self.width * (self.layers + self.head)


@dataclass(frozen=True)
class Load:
    """One forward: `queries` tokens in each of `streams` sequences that have `context` tokens cached each."""

    queries: int
    context: int = 0
    streams: int = 1
    head_rows: int | None = None  # queries of a stream that go through the head; None: all


@dataclass(frozen=True)
class Floor:
    """The least time of a forward, in seconds, and its two parts."""

    memory: float
    compute: float

    @property
    def seconds(self) -> float:
        return max(self.memory, self.compute)

    @property
    def bound(self) -> str:
        return "memory" if self.memory >= self.compute else "compute"


def bytes_read(geometry: Geometry, load: Load) -> int:
    """Bytes that a forward cannot do without: every weight once, and what each stream has cached."""
    return geometry.weight_bytes + geometry.width * load.streams * load.context * geometry.cached


def floor(device: Device, geometry: Geometry, load: Load) -> Floor:
    """The floor of one forward, in seconds.

    memory  = width · (layers + head + streams · context · cached) / bandwidth
    compute = 2 · streams · (queries · layers + head_rows · head
                             + 2 · queries · (context + queries) · attention) / peak

    with the geometry's numbers of values, `width` in bytes, bandwidth in bytes/s and peak in FLOP/s. A product
    with a weight is two operations; attention has two products, queries · keys and probabilities · values.
    Raises NemodiffError where the device has no peak for the geometry's dtype.
    """
    rows = load.queries if load.head_rows is None else load.head_rows
    attended = 2 * load.queries * (load.context + load.queries) * geometry.attention
    products = load.streams * (load.queries * geometry.layers + rows * geometry.head + attended)
    return Floor(bytes_read(geometry, load) / device.bandwidth, 2 * products / device.peak_for(geometry.dtype))


def load_of(mode: str, *, block_length: int = 32, context: int = 1024, streams: int = 1) -> Load:
    """A forward of a mode (facts §4): one token, a block of B, or B·(B+1) in quadratic self-speculation, whose head
    reads only the B picks and the B-1 drafts behind the right one. Raises NemodiffError for an unknown mode."""
    if mode == "ar":
        return Load(1, context, streams)
    if mode in ("diffusion", "linear_spec"):
        return Load(block_length, context, streams)
    if mode == "quadratic_spec":
        return Load(block_length * (block_length + 1), context, streams, head_rows=2 * block_length - 1)
    raise NemodiffError(f"there is no prediction for mode {mode!r}; choose among {', '.join(MODES)}.")


def tpf_of(mode: str, acceptance_length: float) -> float:
    """Tokens per forward of a speculating mode: acceptance / 2 (linear: draft and verify), acceptance (quadratic).

    Raises NemodiffError for a mode that does not verify.
    """
    if mode not in _FORWARDS_PER_VERIFICATION:
        raise NemodiffError(f"mode {mode} has no acceptance length; give its tokens per forward.")
    return acceptance_length / _FORWARDS_PER_VERIFICATION[mode]


def tokens_per_second(device: Device, geometry: Geometry, load: Load, tpf: float = 1.0) -> float:
    """The most tokens/s that all streams together can have: streams · TPF / floor; 1 token per forward is AR.

    Every forward is taken to have the same load, and the prefill to be over.
    """
    return load.streams * tpf / floor(device, geometry, load).seconds


def break_even(
    device: Device, geometry: Geometry, mode: str, tpf: float, *, block_length: int = 32, context: int = 1024
) -> int | None:
    """The fewest streams at which `mode` with `tpf` writes no more tokens/s than `ar`; None: not up to 2^20 streams.

    While both wait for memory the gain is TPF. Computing grows with streams · queries, so a block's forward becomes
    compute-bound first, and from there the gain falls until AR is compute-bound too. It never rises again, which
    lets bisection find the place. It stays above 1 where a long context keeps AR waiting for its keys and values.
    """

    def pays(streams: int) -> bool:
        there = load_of(mode, block_length=block_length, context=context, streams=streams)
        ar = load_of("ar", context=context, streams=streams)
        return tokens_per_second(device, geometry, there, tpf) > tokens_per_second(device, geometry, ar)

    if not pays(1):
        return 1
    if pays(MOST_STREAMS):
        return None
    low, high = 1, MOST_STREAMS  # it pays at low and does not at high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if pays(middle) else (low, middle)
    return high


def streams_that_fit(device: Device, geometry: Geometry, context: int) -> int | None:
    """Streams whose caches fit the device's memory beside all the weights; None where its size is not known."""
    if device.memory is None:
        return None
    room = device.memory - geometry.width * geometry.parameters
    return max(0, int(room // (geometry.width * geometry.cached * max(context, 1))))


@dataclass(frozen=True)
class Measured:
    """Forwards of one phase and size as they ran, beside their floor; medians, times in seconds."""

    phase: str
    queries: int
    forwards: int
    context: float
    seconds: float
    floor: float

    @property
    def ratio(self) -> float:
        """Measured time over the floor: 1 is perfect, less means that the device's figures are too low."""
        return self.seconds / self.floor


def overlay(traces: Iterable[Trace], device: Device, geometry: Geometry) -> list[Measured]:
    """Measured time per forward by phase and number of queries, each beside the floor of the same forwards.

    Medians, because first forwards warm up and a busy machine interrupts. A forward's time includes the work
    between it and the one before. Raises NemodiffError for a trace of another model or dtype than the geometry's.
    """
    groups: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for trace in traces:
        _check(trace, geometry)
        for step, seconds in zip(trace.steps, forward_seconds(trace)):
            load = _load_of_step(trace, step)
            least = floor(device, geometry, load).seconds
            groups.setdefault((step.phase, load.queries), []).append((load.context, seconds, least))
    return [
        Measured(phase, queries, len(found), *(median(column) for column in zip(*found)))
        for (phase, queries), found in sorted(groups.items())
    ]


def _check(trace: Trace, geometry: Geometry) -> None:
    model = trace.model
    if (model.get("parameters"), model.get("dtype")) != (geometry.parameters, geometry.dtype):
        raise NemodiffError(
            f"trace {trace.id} is of a model with {model.get('parameters')} weights in {model.get('dtype')}, not of "
            f"{geometry.parameters} in {geometry.dtype}; leave it out or name its model and dtype."
        )


def _load_of_step(trace: Trace, step: Step) -> Load:
    start, end = step.span
    if step.phase == "prefill":
        return Load(end - start, start, head_rows=1)
    if step.phase == "verify" and trace.request["mode"] == "quadratic_spec":
        # The span is the chain of drafts and one group of masks; every token of the chain has such a group.
        size = trace.request["block_length"]
        return Load((end - start - size) * (size + 1), start, head_rows=end - start - 1)
    return Load(end - start, start)
