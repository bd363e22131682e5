"""The Speculate view: draft, verify and emit, cycle by cycle, beside other ways to write the same text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from nemodiff_core.request import DecodeRequest

from ui.jobs import Job, decode
from ui.mode_form import DEFAULTS, MODES, ModeForm, named
from ui.parts import QUIET
from ui.refine import request

QUADRATIC, PLAIN, AR = "Quadratic self-speculation", "Without the draft adapter", "Autoregressive"
_BESIDE = "Further lanes with the same prompt; the panel compares those that speculate"


class Speculate:
    """See ui/view.py."""

    name, run_label, panel = "Speculate", "Run", "cycles"

    def build(self, limits: Any) -> None:
        modes = [choice for choice in MODES if choice[1].endswith("_spec")]
        self.form = ModeForm.build(limits, "nd-speculate", modes=modes, mode="linear_spec")
        self.beside = gr.CheckboxGroup([QUADRATIC, AR], value=[QUADRATIC, AR], label="Beside it", elem_id="nd-beside", info=_BESIDE)
        self.inputs = [self.beside, *self.form.inputs()]

    def connect(self, shell: Any) -> None:
        self.form.connect()
        loaded = [shell.page.load, shell.status.change]
        gr.on(loaded, lambda model: offered(shell.app.models.ready(model)), shell.picker.choice, [self.beside, self.form.parts["adapter"]], **QUIET)

    def job(self, general: dict[str, Any], values: Sequence[Any], limits: Any) -> Job:
        return decode(requests(general, named(values[1:]), values[0] or ()), limits)


def offered(engine: Any) -> list[Any]:
    """Updates of what may stand beside the lane and of its adapter, once it is known whether the checkpoint has one."""
    if engine is None:
        return [gr.skip(), gr.skip()]
    if engine.checkpoint.has_adapter:
        return [gr.update(choices=[QUADRATIC, PLAIN, AR]), gr.skip()]
    none = "This checkpoint has none: it drafts with the weights it verifies with"
    return [gr.skip(), gr.update(interactive=False, info=none)]


def requests(
    general: Mapping[str, Any], form: Mapping[str, Any] = DEFAULTS | {"mode": "linear_spec"}, beside: Sequence[str] = (QUADRATIC, AR)
) -> list[DecodeRequest]:
    """The lane that the form asks for and those beside it; never the same lane twice. Raises RequestError."""
    others = {AR: {"mode": "ar"}, QUADRATIC: {"mode": "quadratic_spec"}, PLAIN: {"mode": "linear_spec", "adapter": False}}
    lanes = [request(general, form)]
    for name in others:
        if name in beside and (lane := request(general, {**form, **others[name]})) not in lanes:
            lanes.append(lane)
    return lanes
