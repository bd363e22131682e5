"""What a lane is called: its mode, and the settings that make it what it is. `ui/player/words.js` says the same in
the browser; a test holds the two together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MODES = {
    "ar": "Autoregressive",
    "diffusion": "Block diffusion",
    "linear_spec": "Self-speculation",
    "quadratic_spec": "Quadratic self-speculation",
    "refine": "Revision of a draft",
    "infill": "Fill in the middle",
    "remote": "Remote",
}


def title(request: Mapping[str, Any]) -> str:
    """One line about a request: 'Block diffusion · threshold 0.7 · block 16'."""
    return " · ".join([name(request), *parts(request)])


def name(request: Mapping[str, Any]) -> str:
    """The mode in words; of a server's answer, which server it was."""
    said = MODES.get(request["mode"], str(request["mode"]))
    return f"{said} · {request['remote']}" if request["mode"] == "remote" else said


def parts(request: Mapping[str, Any]) -> list[str]:
    """The settings of a request that say something, the most telling first. Absent settings have their defaults."""
    said: list[str] = []
    mode, say = request["mode"], said.append
    if mode in ("diffusion", "refine", "infill"):
        say(_rule(request))
        if request.get("revise_rounds"):
            bound, rank = request.get("revise_bound", 0.1), request.get("revise_rank")
            say(f"revised at {bound:g}" if rank is None else f"revised at rank {rank}")
        if request.get("remask_bound") is not None:
            say(f"reopened at {request['remask_bound']:g}")
    if mode == "linear_spec":
        if request.get("threshold") is not None:
            say(f"draft threshold {request['threshold']:g}")
        if request.get("verification", "match") != "match":
            say("ratio verification")
        if request.get("adaptive_block"):
            say("adaptive block")
        if request.get("adapter") is False:
            say("no adapter")
    if mode not in ("ar", "remote"):
        say(f"block {request.get('block_length', 16)}")
    if request.get("temperature"):
        said += [f"temperature {request['temperature']:g}", f"seed {request.get('seed', 0)}"]
    return said


def _rule(request: Mapping[str, Any]) -> str:
    policy, steps, threshold = request.get("policy"), request.get("steps"), request.get("threshold")
    if policy == "entropy_budget":
        return f"entropy budget {request.get('entropy_bound') or 0:g}"
    if policy == "margin":
        return f"margin {request.get('margin_bound') or 0:g}"
    if policy == "sampler":
        return "learned sampler" if threshold is None else f"learned sampler {threshold:g}"
    if policy == "leftmost":
        return "leftmost first" if steps is None else f"leftmost first, {steps} steps"
    if steps is not None:
        return f"{steps} steps a block"
    return f"threshold {0.9 if threshold is None else threshold:g}"


def model_name(model: Mapping[str, Any]) -> str:
    """The last two parts of a checkpoint's name."""
    return "/".join([part for part in str(model.get("id") or "").replace("\\", "/").split("/") if part][-2:])
