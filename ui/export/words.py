"""Words of exported things: the same names as in the player (ui/player/words.js), and token text made safe to show."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nemodiff_core.trace import Trace

from ui.naming import model_name, parts

ENDINGS = {
    "eos": "finished: end token",
    "length": "finished: token limit",
    "cancelled": "stopped",
    "deadline": "out of time",
    "error": "failed",
}
# Invisible characters and those that reorder their surroundings, as in ui/player/pieces.js.
_HIDDEN = re.compile(
    "[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U000e0000-\U000e0fff\ue000-\uf8ff\ud800-\udfff\U000f0000-\U000ffffd\U00100000-\U0010fffd]"
)
_SPECIAL = re.compile(r"<[|/]?[\w-]+[|/]?>", re.A)


def apart(trace: Trace, traces: Sequence[Trace]) -> str:
    """What tells a lane from the others of its mode and from other models; nothing where the mode is enough."""
    alike = [other for other in traces if other.request["mode"] == trace.request["mode"]]
    own = [part for part in parts(trace.request) if any(part not in parts(other.request) for other in alike)]
    several = len({other.model["id"] for other in traces}) > 1
    return " · ".join([*own, *([model_name(trace.model)] if several else [])])


def ending(reason: str) -> str:
    """Why a run ended, in words."""
    return ENDINGS.get(reason, reason)


def prose(piece: str) -> str:
    """A piece for reading: line breaks and tabs act, everything hidden is spelled out."""
    return _HIDDEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", piece.replace("\r", "␍"))


def is_special(piece: str) -> bool:
    """Whether a piece is the written name of a special token."""
    return _SPECIAL.fullmatch(piece) is not None


def prompt_of(trace: Trace) -> str:
    """The prompt as it was asked."""
    asked = trace.request.get("prompt")
    return asked if isinstance(asked, str) else "".join(trace.prompt.pieces)


def shorten(text: str, length: int) -> str:
    """One line of at most `length` characters."""
    line = " ".join(prose(text).split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def duration(ns: float) -> str:
    """Nanoseconds in the unit that reads best."""
    ms = ns / 1e6
    if ms < 1:
        return f"{ms:.2f} ms"
    return f"{ms:.1f} ms" if ms < 1000 else f"{ms / 1000:.2f} s"

