"""The form that both views share, and which of its knobs do something for the mode at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

MODES = [("Autoregressive", "ar"), ("Block diffusion", "diffusion"), ("Self-speculation", "linear_spec")]
REFINE, RACE = "Refine", "Race"
_IDLE = "Acts only above temperature 0"


@dataclass
class Controls:
    """The components of the form; `inputs()` is the order in which handlers receive their values."""

    prompt: gr.Textbox
    task: gr.Dropdown
    another: gr.Button
    run: gr.Button
    stop: gr.Button
    mode: gr.Radio
    block_length: gr.Slider
    rule: gr.Radio
    draft: gr.Radio
    threshold: gr.Slider
    steps: gr.Slider
    temperature: gr.Slider
    top_p: gr.Slider
    seed: gr.Number
    max_new_tokens: gr.Slider
    stop_at_eos: gr.Checkbox
    candidates: gr.Slider

    VALUES = (
        "prompt mode block_length rule draft threshold steps temperature top_p seed "
        "max_new_tokens stop_at_eos candidates"
    ).split()
    DEPENDENT = "mode block_length rule draft threshold steps top_p seed run".split()

    def inputs(self) -> list[Any]:
        return [getattr(self, name) for name in self.VALUES]

    def dependent(self) -> list[Any]:
        """The components that `shown` updates, in its order."""
        return [getattr(self, name) for name in self.DEPENDENT]


def ask(prompt: str, tasks: list[str]) -> dict[str, Any]:
    """The upper part: prompt, examples, mode, Run and Stop."""
    made: dict[str, Any] = {}
    made["prompt"] = gr.Textbox(
        prompt, label="Prompt", lines=4, max_lines=12, elem_id="nd-prompt", placeholder="Ask for something, or take an example below."
    )
    with gr.Row(elem_id="nd-example-row"):
        made["task"] = gr.Dropdown(tasks, value=None, label="Examples by task", elem_id="nd-task", scale=3)
        made["another"] = gr.Button("Another", size="sm", scale=1, elem_id="nd-another")
    made["mode"] = gr.Radio(MODES, value="diffusion", label="Mode", elem_id="nd-mode")
    with gr.Row(elem_id="nd-run-row"):
        made["run"] = gr.Button("Run", variant="primary", elem_id="nd-run")
        made["stop"] = gr.Button("Stop", variant="stop", interactive=False, elem_id="nd-stop")
    return made


def knobs(limits: Any) -> dict[str, Any]:
    """The lower part: everything else that can be turned."""
    made: dict[str, Any] = {}
    made["block_length"] = _slider(
        2, limits.max_block_length, value=min(16, limits.max_block_length), step=1, label="Block length", elem_id="nd-block",
        info="Positions filled together",
    )  # fmt: skip
    made["rule"] = gr.Radio(
        [("Threshold", "threshold"), ("Even steps", "steps")], value="threshold", label="Commit rule", elem_id="nd-rule",
        info="Commit what is sure enough, or the same share in every step",
    )  # fmt: skip
    made["draft"] = gr.Radio(
        [("One forward", "one"), ("Threshold", "threshold")], value="one", label="Drafting", elem_id="nd-draft", visible=False,
        info="Draft the whole block in one forward, or refine the draft first",
    )  # fmt: skip
    made["threshold"] = _slider(
        0.0, 1.0, value=0.9, step=0.01, label="Threshold", elem_id="nd-threshold", info="Confidence at which a cell commits"
    )
    made["steps"] = _slider(
        1, 64, value=8, step=1, label="Steps per block", elem_id="nd-steps", visible=False, info="Forwards that fill one block"
    )
    made["temperature"] = _slider(
        0.0, 5.0, value=0.0, step=0.05, label="Temperature", elem_id="nd-temperature", info="0 takes the most likely token"
    )
    made["top_p"] = _slider(0.05, 1.0, value=1.0, step=0.05, label="Top-p", elem_id="nd-top-p", interactive=False, info=_IDLE)
    made["seed"] = gr.Number(0, precision=0, minimum=0, label="Seed", elem_id="nd-seed", interactive=False, info=_IDLE)
    made["max_new_tokens"] = _slider(
        1, limits.max_new_tokens, value=min(128, limits.max_new_tokens), step=1, label="Longest answer (tokens)", elem_id="nd-length"
    )
    made["stop_at_eos"] = gr.Checkbox(True, label="Stop at the end token", elem_id="nd-eos")
    made["candidates"] = _slider(
        0, limits.max_candidates, value=min(5, limits.max_candidates), step=1, label="Candidates recorded per cell", elem_id="nd-candidates",
        info="What hovering a cell can show",
    )  # fmt: skip
    return made


def shown(view: str, mode: str, rule: str, draft: str, temperature: float, running: bool = False) -> list[Any]:
    """Updates for `Controls.dependent()`: a knob that would do nothing is hidden or cannot be turned."""
    race = view == RACE
    denoises = race or mode == "diffusion"
    speculates = not race and mode == "linear_spec"
    by_threshold = (denoises and rule == "threshold") or (speculates and draft == "threshold")
    samples = (temperature or 0) > 0
    seen = {
        "mode": gr.update(visible=not race),
        "block_length": gr.update(visible=denoises or speculates),
        "rule": gr.update(visible=denoises, label="Commit rule of block diffusion" if race else "Commit rule"),
        "draft": gr.update(visible=speculates),
        "threshold": gr.update(visible=by_threshold),
        "steps": gr.update(visible=denoises and rule == "steps"),
        "top_p": gr.update(interactive=samples, info=None if samples else _IDLE),
        "seed": gr.update(interactive=samples, info=None if samples else _IDLE),
        "run": gr.update(value="Race" if race else "Run", interactive=not running),
    }
    return [seen[name] for name in Controls.DEPENDENT]


def request_fields(mode: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The request for `mode`: only the knobs that act in it, so that a trace records what was in force."""
    names = ("prompt", "temperature", "max_new_tokens", "stop_at_eos", "candidates")
    fields = {name: _whole(values[name]) for name in names}
    fields["prompt"] = str(values["prompt"] or "")
    fields["temperature"] = float(values["temperature"] or 0)
    fields["mode"] = mode
    if fields["temperature"] > 0:
        fields |= {"top_p": values["top_p"], "seed": _whole(values["seed"] or 0)}
    if mode != "ar":
        fields["block_length"] = _whole(values["block_length"])
    if mode == "diffusion":
        by_steps = values["rule"] == "steps"
        fields |= {"steps": _whole(values["steps"])} if by_steps else {"threshold": values["threshold"]}
    if mode == "linear_spec" and values["draft"] == "threshold":
        fields["threshold"] = values["threshold"]
    return fields


def _slider(low: float, high: float, **settings: Any) -> gr.Slider:
    return gr.Slider(low, high, buttons=[], **settings)


def _whole(value: Any) -> Any:
    """Sliders answer 16.0 as readily as 16; anything else is left for the request's own check."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
