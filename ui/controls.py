"""What all views ask in the same words: the prompt, and the settings of a run that have nothing to do with its mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui.parts import QUIET, slider, whole

_IDLE = "Acts only above temperature 0"
GENERAL: dict[str, Any] = {
    "temperature": 0.0, "top_p": 1.0, "seed": 0, "max_new_tokens": 128, "stop_at_eos": True, "candidates": 5,
}  # fmt: skip


@dataclass
class Ask:
    """Prompt, examples, Run and Stop."""

    prompt: gr.Textbox
    task: gr.Dropdown
    another: gr.Button
    run: gr.Button
    stop: gr.Button

    @classmethod
    def build(cls, prompt: str, tasks: list[str], run_label: str) -> Ask:
        box = gr.Textbox(
            prompt, label="Prompt", lines=4, max_lines=12, elem_id="nd-prompt", placeholder="Ask for something, or take an example below."
        )
        with gr.Row(elem_id="nd-example-row"):
            task = gr.Dropdown(tasks, value=None, label="Examples by task", elem_id="nd-task", scale=3)
            another = gr.Button("Another", size="sm", scale=1, elem_id="nd-another")
        with gr.Row(elem_id="nd-run-row"):
            run = gr.Button(run_label, variant="primary", elem_id="nd-run")
            stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="nd-stop")
        return cls(box, task, another, run, stop)


@dataclass
class General:
    """Temperature, length and what is recorded; `FIELDS` is the order in which handlers receive the values."""

    parts: dict[str, Any]

    FIELDS = tuple(GENERAL)

    @classmethod
    def build(cls, limits: Any) -> General:
        made: dict[str, Any] = {}
        at = GENERAL | {name: min(GENERAL[name], getattr(limits, f"max_{name.removeprefix('max_')}")) for name in ("max_new_tokens", "candidates")}
        made["temperature"] = slider(
            0.0, 5.0, value=at["temperature"], step=0.05, label="Temperature", elem_id="nd-temperature", info="0 takes the most likely token"
        )
        made["top_p"] = slider(0.05, 1.0, value=at["top_p"], step=0.05, label="Top-p", elem_id="nd-top-p", interactive=False, info=_IDLE)
        made["seed"] = gr.Number(at["seed"], precision=0, minimum=0, label="Seed", elem_id="nd-seed", interactive=False, info=_IDLE)
        made["max_new_tokens"] = slider(
            1, limits.max_new_tokens, value=at["max_new_tokens"], step=1, label="Longest answer (tokens)", elem_id="nd-length"
        )
        made["stop_at_eos"] = gr.Checkbox(at["stop_at_eos"], label="Stop at the end token", elem_id="nd-eos")
        made["candidates"] = slider(
            0, limits.max_candidates, value=at["candidates"], step=1, label="Candidates recorded per cell",
            elem_id="nd-candidates", info="What hovering a cell can show",
        )  # fmt: skip
        return cls(made)

    def inputs(self) -> list[Any]:
        return [self.parts[name] for name in self.FIELDS]

    def connect(self) -> None:
        """Let the knobs of sampling turn only where tokens are sampled."""
        temperature = self.parts["temperature"]
        temperature.input(sampling, temperature, [self.parts["top_p"], self.parts["seed"]], **QUIET)


def sampling(temperature: float | None) -> list[Any]:
    """Updates for top-p and seed."""
    samples = (temperature or 0) > 0
    return [gr.update(interactive=samples, info=None if samples else _IDLE)] * 2


def general_fields(prompt: Any, values: Sequence[Any]) -> dict[str, Any]:
    """What a request says besides its mode: only what acts."""
    given: Mapping[str, Any] = dict(zip(General.FIELDS, values, strict=True))
    fields = {name: whole(given[name]) for name in ("max_new_tokens", "stop_at_eos", "candidates")}
    fields |= {"prompt": str(prompt or ""), "temperature": float(given["temperature"] or 0)}
    if fields["temperature"] > 0:
        fields |= {"top_p": given["top_p"], "seed": whole(given["seed"] or 0)}
    return fields
