"""The Refine view: one prompt, one mode, every knob."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nemodiff_core.request import DecodeRequest, parse_request

from ui.jobs import Job, decode
from ui.mode_form import ModeForm, named, request_fields


class Refine:
    """See ui/view.py."""

    name, run_label, panel = "Refine", "Run", None

    def build(self, limits: Any) -> None:
        self.form = ModeForm.build(limits)
        self.inputs = self.form.inputs()

    def connect(self, shell: Any) -> None:
        self.form.connect()

    def job(self, general: dict[str, Any], values: Sequence[Any], limits: Any) -> Job:
        return decode([request(general, named(values))], limits)


def request(general: Mapping[str, Any], form: Mapping[str, Any]) -> DecodeRequest:
    """The request that the form asks for. Raises RequestError."""
    return parse_request({**general, **request_fields(form)})
