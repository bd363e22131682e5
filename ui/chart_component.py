"""A chart with its table as a Gradio component: Python hands it figures, the browser draws them (ui/player/chart.js).

`gr.Plot` has no click events and sends the whole figure as a component of its own, so only plotly.js is taken from
plotly, served from this machine (ui/routes.py) and loaded when the first chart comes into sight.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ui.messages import compact
from ui.mounted import Mounted, mounting

PLOTLY_ROUTE = "/nemodiff/plotly.min.js"

_OPTIONS = """{
    id: '@ID@', group: '@GROUP@', base, plotly: base + '@PLOTLY@', send: (key) => trigger('pick', { key }),
  }"""


class Chart(Mounted):
    """Figures of plotly.js, a table, or both. Its value is one message of `message`; `pick` tells a chosen key."""

    def __init__(self, value: str | None = None, *, elem_id: str, group: str = "", **gradio: Any) -> None:
        plotly = f"{PLOTLY_ROUTE}?v={metadata.version('plotly')}"
        made = {**mounting("chart", _OPTIONS, ID=elem_id, GROUP=group or elem_id, PLOTLY=plotly), **gradio}
        super().__init__(value, elem_id=elem_id, **made)

    def api_info(self) -> dict[str, Any]:
        return {"type": "string", "description": "figures and a table, as JSON"}


def message(content: Mapping[str, Any]) -> str:
    """A value for a Chart. Numbered, because a component does not tell of a value equal to the last one."""
    return compact({"seq": time.monotonic_ns(), **content})


def plotly_bundle() -> Path:
    """plotly.js as the installed package brings it."""
    return Path(str(metadata.distribution("plotly").locate_file("plotly/package_data/plotly.min.js")))
