"""The Refine view: one prompt, one mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemodiff_core.request import DecodeRequest, parse_request

from ui.controls import request_fields


def requests(values: Mapping[str, Any]) -> list[DecodeRequest]:
    """The one request that the form asks for. Raises RequestError."""
    return [parse_request(request_fields(values["mode"], values))]
