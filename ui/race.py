"""The Race view: the same prompt in all three modes, one after another on the same device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemodiff_core.request import DecodeRequest, parse_request

from ui.controls import request_fields

LANES = ("ar", "diffusion", "linear_spec")


def requests(values: Mapping[str, Any]) -> list[DecodeRequest]:
    """The three requests of a race, in lane order. Raises RequestError.

    Self-speculation always drafts in one forward here: that is the setting whose speed is compared.
    """
    return [parse_request(request_fields(mode, {**values, "draft": "one"})) for mode in LANES]
