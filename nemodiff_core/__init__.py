"""The decoding core: models of the family, decoders, traces and metrics. No user interface in here.

`from nemodiff_core import load` is all that a script needs; the names below are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nemodiff_core.engine import Engine
    from nemodiff_core.quick import Answer, Model, load
    from nemodiff_core.request import DecodeRequest, Limits, parse_request
    from nemodiff_core.trace import Trace

__version__ = "0.1.0"
__all__ = ["Answer", "DecodeRequest", "Engine", "Limits", "Model", "Trace", "load", "parse_request"]

_HOMES = {
    "Answer": "quick", "DecodeRequest": "request", "Engine": "engine", "Limits": "request", "Model": "quick", "Trace": "trace",
    "load": "quick", "parse_request": "request",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
