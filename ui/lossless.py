"""Losslessness computed, not claimed: whether a greedy speculating lane wrote what a greedy AR lane wrote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nemodiff_core.metrics import first_divergence
from nemodiff_core.trace import Trace

_CLAIMS = ("linear_spec", "quadratic_spec")
_SAME_MODEL = ("id", "revision", "dtype", "device")  # other numerics may choose other tokens, and nobody claims otherwise
_SAME_REQUEST = ("max_new_tokens", "stop_at_eos", "max_thinking_tokens")


def identity(traces: Sequence[Trace], lane: int) -> dict[str, Any] | None:
    """The verdict on a lane of a race; None where the claim is not made.

    The claim is about self-speculation and AR over the same model, prompt and length, both greedy, both at
    their own end. `gap` is how much more probable, in log p, AR found its own token where the two part.
    """
    ours = traces[lane]
    if ours.request["mode"] not in _CLAIMS or not _settled(ours):
        return None
    for number, reference in enumerate(traces):
        if reference.request["mode"] == "ar" and _settled(reference) and _comparable(reference, ours):
            differs = first_divergence(reference.output.ids, ours.output.ids)
            verdict: dict[str, Any] = {"to_lane": number, "same": differs is None, "first_divergence": differs}
            return verdict if differs is None else verdict | {"gap": _gap(reference, ours, differs)}
    return None


def verdicts(traces: Sequence[Trace]) -> dict[str, dict[str, Any]]:
    """Verdicts that became known only with the last of `traces`: those on earlier lanes, by lane number."""
    last = len(traces) - 1
    found = {str(lane): identity(traces, lane) for lane in range(last)}
    return {lane: verdict for lane, verdict in found.items() if verdict and verdict["to_lane"] == last}


def _settled(trace: Trace) -> bool:
    return trace.stop_reason in ("eos", "length") and trace.request.get("temperature") == 0


def _comparable(a: Trace, b: Trace) -> bool:
    return (
        a.prompt.ids == b.prompt.ids
        and all(a.model.get(name) == b.model.get(name) for name in _SAME_MODEL)
        and all(a.request.get(name) == b.request.get(name) for name in _SAME_REQUEST)
    )


def _gap(reference: Trace, ours: Trace, index: int) -> float | None:
    """log p(AR's token) - log p(ours) as AR's own forward saw them; None where that was not recorded."""
    if index >= min(len(reference.output.ids), len(ours.output.ids)):
        return None
    position = len(reference.prompt.ids) + index
    seen = next((look for step in reference.steps for look in step.candidates if look.position == position), None)
    if seen is None:
        return None
    p = dict(zip(seen.ids, seen.probabilities))
    theirs, mine = p.get(reference.output.ids[index], 0.0), p.get(ours.output.ids[index], 0.0)
    return round(math.log(theirs / mine), 4) if theirs > 0 and mine > 0 else None
