"""Every figure that nemodiff shows, each defined once as a fold over a Trace."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from nemodiff_core.trace import REMOTE, Canvas, Step, Trace

# Which forwards the reference counts (facts §4): AR counts tokens, diffusion leaves the prefill out.
_COUNTED = {
    "diffusion": frozenset(("denoise", "commit", "revise")),
    "refine": frozenset(("commit", "revise")),
    "infill": frozenset(("verify", "denoise", "commit")),
    "linear_spec": frozenset(("prefill", "draft", "verify")),
    "quadratic_spec": frozenset(("prefill", "verify")),
}


def tokens(trace: Trace) -> int | None:
    """Emitted tokens, the end token included. Of a server's answer: what it counted or named, None where it did neither."""
    if remote(trace):
        told = trace.environment[REMOTE]
        return told["tokens"] if told["tokens"] is not None or told["cells"] != "tokens" else len(trace.output.ids)
    return len(trace.output.ids)


def remote(trace: Trace) -> bool:
    """Whether a server wrote the answer: its steps are chunks, and what went on behind them is not known."""
    return trace.request["mode"] == REMOTE


def forwards(trace: Trace) -> int | None:
    """Model forwards that really ran; None where a server ran them."""
    return None if remote(trace) else len(trace.steps)


def chunks(trace: Trace) -> int | None:
    """Chunks in which a server's answer came; None of other runs."""
    return len(trace.steps) if remote(trace) else None


def nfe(trace: Trace) -> int | None:
    """Number of function evaluations as the reference counts them (facts §4.1-4.4); None where a server ran them."""
    if remote(trace):
        return None
    counted = _COUNTED.get(trace.request["mode"])
    if counted is None:
        return tokens(trace)
    return sum(step.phase in counted for step in trace.steps)


def tpf(trace: Trace) -> float | None:
    """Emitted tokens per NFE; None before the first counted forward."""
    count = nfe(trace)
    return tokens(trace) / count if count else None


def acceptance_lengths(trace: Trace) -> list[int]:
    """Tokens emitted by each verification, the bonus included: 1..block length."""
    return [_emitted(step) for step in trace.steps if step.phase == "verify" and trace.request["mode"] != "infill"]


def acceptance_length(trace: Trace) -> float | None:
    """Mean of `acceptance_lengths`; None in modes that do not verify."""
    lengths = acceptance_lengths(trace)
    return fmean(lengths) if lengths else None


def batch(trace: Trace) -> int:
    """Runs that shared the forwards; where it is not 1, times are those of all of them together."""
    return trace.environment.get("batch", 1)


def seconds(trace: Trace) -> float:
    """From the start of the run to the end of its last forward."""
    return trace.steps[-1].elapsed_ns / 1e9 if trace.steps else 0.0


def first_token_seconds(trace: Trace) -> float | None:
    """From the start of the run to the end of the forward that wrote the answer's first token; None without one."""
    canvas = Canvas(len(trace.prompt.ids))
    for step in trace.steps:
        canvas.apply(step)
        if canvas.output():
            return step.elapsed_ns / 1e9
    return None


def tokens_per_second(trace: Trace) -> float | None:
    """Emitted tokens over `seconds`, prefill included."""
    whole, emitted = seconds(trace), tokens(trace)
    return emitted / whole if emitted is not None and whole > 0 else None


def forward_seconds(trace: Trace) -> list[float]:
    """Seconds of each forward, the work between it and the one before included."""
    ends = [step.elapsed_ns for step in trace.steps]
    return [(end - before) / 1e9 for before, end in zip([0, *ends], ends)]


def time_by_phase(trace: Trace) -> dict[str, float]:
    """Seconds spent in the forwards of each phase, the work between forwards counted to the later one."""
    shares: dict[str, float] = {}
    for step, took in zip(trace.steps, forward_seconds(trace)):
        shares[step.phase] = shares.get(step.phase, 0.0) + took
    return shares


def blocks(trace: Trace) -> int:
    """Blocks begun: canvases in diffusion, draft-and-verify cycles in self-speculation, 0 in AR."""
    return len({step.block for step in trace.steps if step.phase in ("denoise", "draft", "commit", "verify")})


def summary(trace: Trace) -> dict[str, Any]:
    """All figures, JSON-able; None for what cannot be known."""
    by_phase = {} if remote(trace) else time_by_phase(trace)
    prefill = None if remote(trace) else by_phase.get("prefill", 0.0)
    return {
        "tokens": tokens(trace),
        "nfe": nfe(trace),
        "forwards": forwards(trace),
        "chunks": chunks(trace),
        "tpf": tpf(trace),
        "acceptance_length": acceptance_length(trace),
        "acceptance_lengths": acceptance_lengths(trace),
        "seconds": seconds(trace),
        "tokens_per_second": tokens_per_second(trace),
        "first_token_seconds": first_token_seconds(trace),
        "prefill_seconds": prefill,
        "decode_seconds": None if prefill is None else seconds(trace) - prefill,
        "time_by_phase": by_phase,
        "blocks": blocks(trace),
    }


def pooled(traces: Sequence[Trace]) -> dict[str, Any]:
    """Counts and rates of several runs of one mode together: sums over sums, so that a long run weighs more."""
    emitted, counted, spent = sum(map(tokens, traces)), sum(map(nfe, traces)), sum(map(seconds, traces))
    lengths = [length for trace in traces for length in acceptance_lengths(trace)]
    return {
        "tokens": emitted,
        "nfe": counted,
        "forwards": sum(map(forwards, traces)),
        "tpf": emitted / counted if counted else None,
        "acceptance_length": fmean(lengths) if lengths else None,
        "seconds": spent,
        "tokens_per_second": emitted / spent if spent > 0 else None,
    }


def first_divergence(reference: Sequence[int], other: Sequence[int]) -> int | None:
    """Index of the first token in which two outputs differ; None where they are identical."""
    if list(reference) == list(other):
        return None
    pairs = enumerate(zip(reference, other))
    return next((i for i, (a, b) in pairs if a != b), min(len(reference), len(other)))


def _emitted(step: Step) -> int:
    # A pin is a token that the thinking budget put in the bonus' place.
    return sum(event.kind in ("accept", "bonus", "pin") for event in step.events)
