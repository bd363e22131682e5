"""All that the environment may say to the app, read once. What a host offers stands in the manifest (spaces.yml)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nemodiff_core.errors import ConfigError

HUB_FRAMES = ("https://huggingface.co", "https://*.hf.space")  # where a Space is shown in a frame
# Read elsewhere, by whoever needs them; listed here so that there is one list.
ELSEWHERE = {
    "NEMODIFF_PRESET": "preset of the manifest that this host runs (nemodiff_core/serving/manifest.py)",
    "NEMODIFF_MANIFEST": "another manifest than the repository's spaces.yml",
    "NEMODIFF_DATA": "folder for votes; default: the user's own data folder (ui/votes.py)",
    "NEMODIFF_KERNELS": "which kernels serve on a GPU; reference also turns off what is compiled for a CPU (kernels/dispatch.py)",
    "NEMODIFF_GRAPHS": "0 turns CUDA graphs off (nemodiff_core/decode/graphs.py)",
}
_ORIGIN = re.compile(r"https?://(\*\.)?[A-Za-z0-9.-]+(:[0-9]{1,5})?")
_KNOWN_LOGS = ("text", "json")
MAX_GRACE_S = 3600.0


@dataclass(frozen=True)
class Operation:
    """How this host is run."""

    log: Literal["text", "json"] = "text"  # NEMODIFF_LOG
    grace_s: float = 30.0  # NEMODIFF_GRACE_SECONDS: what running answers have after SIGTERM
    metrics: bool = True  # NEMODIFF_METRICS: on or off; default: on, but off on a Space without a token
    metrics_token: str | None = None  # NEMODIFF_METRICS_TOKEN: /metrics answers only with this bearer token
    frames: tuple[str, ...] = ()  # NEMODIFF_FRAMES: origins that may show the page in a frame, separated by spaces

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Operation:
        """What the environment says. Raises ConfigError."""
        space = bool(environment.get("SPACE_ID"))
        token = environment.get("NEMODIFF_METRICS_TOKEN") or None
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            raise ConfigError("NEMODIFF_METRICS_TOKEN has characters that no header carries; use letters, digits and signs.")
        log = environment.get("NEMODIFF_LOG") or "text"
        if log not in _KNOWN_LOGS:
            raise ConfigError(f"NEMODIFF_LOG is {log[:40]!r}; set it to text or json.")
        return cls(
            log=log,
            grace_s=_seconds(environment.get("NEMODIFF_GRACE_SECONDS") or "30"),
            metrics=_switch(environment.get("NEMODIFF_METRICS") or ("on" if token or not space else "off")),
            metrics_token=token,
            frames=_origins(environment["NEMODIFF_FRAMES"]) if environment.get("NEMODIFF_FRAMES") else HUB_FRAMES if space else (),
        )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_GRACE_S:
        raise ConfigError(f"NEMODIFF_GRACE_SECONDS is {text[:40]!r}; set it to seconds from 0 to {MAX_GRACE_S:.0f}.")
    return seconds


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise ConfigError(f"NEMODIFF_METRICS is {text[:40]!r}; set it to on or off.")
    return text == "on"


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(text.split())
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(f"NEMODIFF_FRAMES has {origin[:60]!r}, which is no origin; write such as https://example.org.")
    return origins
