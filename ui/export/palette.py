"""The player's colours, read from its stylesheet, so that a film looks like the page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

Theme = Literal["light", "dark"]
Colour = tuple[int, int, int]

STYLESHEET = Path(__file__).parents[1] / "player" / "player.css"
# The bounds between the eight levels of confidence, as in ui/player/confidence.js.
BOUNDS = (0.25, 0.4, 0.55, 0.7, 0.8, 0.9, 0.97)
_PAIR = re.compile(r"--nd-([\w-]+):\s*light-dark\(#(\w{6}),\s*#(\w{6})\)")


@dataclass(frozen=True)
class Palette:
    """The colours of one theme by the names they have in the stylesheet."""

    colours: dict[str, Colour]

    def __getitem__(self, name: str) -> Colour:
        return self.colours[name]

    def confidence(self, value: float | None) -> tuple[Colour, Colour]:
        """Background and text colour for a confidence; without one the quiet background."""
        if value is None:
            return self["sunken"], self["ink"]
        level = sum(value >= bound for bound in BOUNDS)
        return self[f"c{level}"], self[f"t{level}"]


@lru_cache(maxsize=2)
def palette(theme: Theme) -> Palette:
    """The colours of the light or the dark theme."""
    found = {name: (light, dark)[theme == "dark"] for name, light, dark in _PAIR.findall(STYLESHEET.read_text("utf-8"))}
    return Palette({name: (int(x[:2], 16), int(x[2:4], 16), int(x[4:], 16)) for name, x in found.items()})
