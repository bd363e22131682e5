"""A mode and the knobs that act in it: the form of the Refine view, and of every lane of a race."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui.parts import QUIET, slider, whole

MODES = [
    ("Autoregressive", "ar"),
    ("Block diffusion", "diffusion"),
    ("Self-speculation", "linear_spec"),
    ("Quadratic self-speculation", "quadratic_spec"),
]
RULES = [
    ("Threshold", "threshold"),
    ("Even steps", "schedule"),
    ("Entropy budget", "entropy_budget"),
    ("Margin", "margin"),
    ("Learned sampler", "sampler"),
]
_FILLS = ("diffusion",)
_SPECULATES = ("linear_spec", "quadratic_spec")


@dataclass
class ModeForm:
    """The components of one form; `FIELDS` is the order in which handlers receive their values."""

    parts: dict[str, Any]

    FIELDS = (
        "mode block_length rule threshold sampler_bound steps entropy_bound margin_bound "
        "revise revise_bound remask remask_bound draft draft_threshold verification adaptive_block adapter"
    ).split()
    _ACTING = ("mode", "rule", "revise", "remask", "draft")

    @classmethod
    def build(cls, limits: Any, prefix: str = "nd", modes: Sequence[tuple[str, str]] = MODES, **start: Any) -> ModeForm:
        """Make the components; `start` holds values other than the usual ones."""
        at = {**DEFAULTS, "block_length": min(16, limits.max_block_length), **start}
        seen = _seen(at)
        made: dict[str, Any] = {}

        def add(name: str, kind: Any, *arguments: Any, **settings: Any) -> None:
            made[name] = kind(*arguments, value=at[name], visible=name in seen, elem_id=f"{prefix}-{_ID.get(name, name)}", **settings)

        add("mode", gr.Radio, list(modes), label="Mode")
        add("block_length", slider, 2, limits.max_block_length, step=1, label="Block length", info="Positions filled together")
        add("rule", gr.Dropdown, RULES, label="Commit rule", info="Which masked cells become tokens after a forward", filterable=False)
        add("threshold", slider, 0.0, 1.0, step=0.01, label="Threshold", info="Confidence at which a cell commits")
        add("sampler_bound", slider, 0.0, 1.0, step=0.01, label="Bound", info="Commit what the sampler calls final with this probability")
        add("steps", slider, 1, 64, step=1, label="Steps per block", info="Forwards that fill one block, the same share in each")
        add("entropy_bound", slider, 0.0, 5.0, step=0.05, label="Entropy budget (nats)", info="What the cells of one step may have together")
        add("margin_bound", slider, 0.0, 1.0, step=0.01, label="Margin", info="Lead of the first candidate over the second")
        add("revise", gr.Checkbox, label="Revise", info="A causal pass doubts the block before it is kept")
        add("revise_bound", slider, 0.0, 1.0, step=0.01, label="Doubt below", info="Causal probability under which a token is chosen again")
        add("remask", gr.Checkbox, label="Reopen", info="Later commits of a block may take earlier ones back")
        add("remask_bound", slider, 0.0, 1.0, step=0.01, label="Reopen below", info="Probability given the other cells")
        add("draft", gr.Radio, [("One forward", "one"), ("Threshold", "threshold")], label="Drafting",
            info="Draft the block in one forward, or refine the draft first")  # fmt: skip
        add("draft_threshold", slider, 0.0, 1.0, step=0.01, label="Draft threshold", info="Confidence at which a drafted cell commits")
        add("verification", gr.Radio, [("Exact match", "match"), ("Ratio", "ratio")], label="Verification",
            info="How sampled drafts are judged; at temperature 0 both are the same")  # fmt: skip
        add("adaptive_block", gr.Checkbox, label="Adaptive block", info="Draft length from the recent acceptance")
        add("adapter", gr.Checkbox, label="Draft adapter", info="Draft with the checkpoint’s adapter, where it has one")
        return cls(made)

    def inputs(self) -> list[Any]:
        return [self.parts[name] for name in self.FIELDS]

    def connect(self) -> None:
        """Show the knobs that act in the chosen mode, and only those."""
        acting = [self.parts[name] for name in self._ACTING]
        rest = [self.parts[name] for name in self.FIELDS[1:]]
        gr.on([part.input for part in acting], shown, self.inputs(), rest, **QUIET)


DEFAULTS: dict[str, Any] = {
    "mode": "diffusion", "block_length": 16, "rule": "threshold", "threshold": 0.9, "sampler_bound": 0.7, "steps": 8, "entropy_bound": 0.3,
    "margin_bound": 0.8, "revise": False, "revise_bound": 0.3, "remask": False, "remask_bound": 0.3, "draft": "one",
    "draft_threshold": 0.9, "verification": "match", "adaptive_block": False, "adapter": True,
}  # fmt: skip
_ID = {"block_length": "block", "revise_bound": "revise-bound", "remask_bound": "remask-bound", "entropy_bound": "entropy",
       "margin_bound": "margin", "sampler_bound": "sampler", "draft_threshold": "draft-threshold", "adaptive_block": "adaptive"}  # fmt: skip
_BOUND = {"threshold": "threshold", "schedule": "steps", "entropy_budget": "entropy_bound", "margin": "margin_bound", "sampler": "sampler_bound"}
_ROUNDS = 8  # of revision at most; the decoder stops earlier once nothing is doubted


def shown(*values: Any) -> list[Any]:
    """Updates for all fields but the mode."""
    seen = _seen(named(values))
    return [gr.update(visible=name in seen) for name in ModeForm.FIELDS[1:]]


def named(values: Sequence[Any]) -> dict[str, Any]:
    """The values of a form by name."""
    return dict(zip(ModeForm.FIELDS, values, strict=True))


def request_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a request says about the mode: only the knobs that act in it, so that a trace records what was in force."""
    seen, mode = _seen(values), values["mode"]
    fields: dict[str, Any] = {"mode": mode}
    if "block_length" in seen:
        fields["block_length"] = whole(values["block_length"])
    if "rule" in seen:
        rule = values["rule"]
        bound = values[_BOUND.get(rule, "threshold")]
        # The plain rules are the reference's own: a request names only those that are not.
        fields |= {} if rule in ("threshold", "schedule") else {"policy": rule}
        fields["threshold" if rule == "sampler" else _BOUND.get(rule, "threshold")] = whole(bound)
    if "revise_bound" in seen:
        fields |= {"revise_rounds": _ROUNDS, "revise_bound": values["revise_bound"]}
    if "remask_bound" in seen:
        fields["remask_bound"] = values["remask_bound"]
    if "draft_threshold" in seen:
        fields["threshold"] = values["draft_threshold"]
    if mode == "linear_spec":
        fields |= {name: values[name] for name in ("verification", "adaptive_block", "adapter")}
    return fields


def form_values(request: Mapping[str, Any]) -> dict[str, Any]:
    """The form that asks for a recorded request: the inverse of `request_fields`, for links and what-ifs."""
    values = dict(DEFAULTS)
    values |= {name: request[name] for name in ("mode", "block_length", "verification", "adaptive_block", "adapter") if request.get(name) is not None}
    rule = request.get("policy") or ("schedule" if request.get("steps") is not None else "threshold")
    if rule in _BOUND:
        values["rule"] = rule
        bound = request.get("threshold" if rule == "sampler" else _BOUND[rule])
        values[_BOUND[rule]] = bound if bound is not None else values[_BOUND[rule]]
    if request.get("mode") in _SPECULATES:
        values["draft"] = "one" if request.get("threshold") is None else "threshold"
        values["draft_threshold"] = request.get("threshold") or values["draft_threshold"]
    if request.get("revise_rounds"):
        values |= {"revise": True, "revise_bound": request["revise_bound"]}
    if request.get("remask_bound") is not None:
        values |= {"remask": True, "remask_bound": request["remask_bound"]}
    return values


def _seen(values: Mapping[str, Any]) -> set[str]:
    """The fields that do something, given the values of those that decide."""
    mode = values["mode"]
    seen = {"mode"}
    if mode != "ar":
        seen.add("block_length")
    if mode in _FILLS:
        seen |= {"rule", "revise", "remask", _BOUND.get(values["rule"], "threshold")}
        seen |= {"revise_bound"} if values["revise"] else set()
        seen |= {"remask_bound"} if values["remask"] else set()
    if mode == "linear_spec":
        seen |= {"draft", "verification", "adaptive_block", "adapter"}
        seen |= {"draft_threshold"} if values["draft"] == "threshold" else set()
    return seen
