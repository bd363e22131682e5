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

import gradio as gr

from ui.messages import compact
from ui.player_component import PLAYER_ROUTE

PLOTLY_ROUTE = "/nemodiff/plotly.min.js"

_TEMPLATE = '<div class="nd-mount" data-nemodiff="chart"></div>'
_ON_LOAD = """
const root = element.querySelector('[data-nemodiff="chart"]');
const base = new URL((window.gradio_config || {}).root || '/', window.location.href).pathname.replace(/[/]+$/, '');
import(base + '@ROUTE@/chart.js').then((module) => {
  const chart = module.mount(root, {
    id: '@ID@', group: '@GROUP@', base, plotly: base + '@PLOTLY@', send: (key) => trigger('pick', { key }),
  });
  const read = () => { if (props.value) chart.receive(props.value); };
  watch('value', read);
  read();
}).catch((error) => {
  root.textContent = 'The chart could not start (' + error.message + '). Reload the page.';
});
"""


class Chart(gr.HTML):
    """Figures of plotly.js, a table, or both. Its value is one message of `message`; `pick` tells a chosen key."""

    def __init__(self, value: str | None = None, *, elem_id: str, group: str = "", **gradio: Any) -> None:
        script = _ON_LOAD.replace("@ROUTE@", PLAYER_ROUTE).replace("@PLOTLY@", f"{PLOTLY_ROUTE}?v={metadata.version('plotly')}")
        settings = {"js_on_load": script.replace("@ID@", elem_id).replace("@GROUP@", group or elem_id), **gradio}
        super().__init__(value, html_template=_TEMPLATE, apply_default_css=False, elem_id=elem_id, **settings)

    def postprocess(self, value: str | None) -> str | None:
        """Messages are data that nobody parses as HTML, so they pass as they are."""
        return value

    def api_info(self) -> dict[str, Any]:
        return {"type": "string", "description": "figures and a table, as JSON"}


def message(content: Mapping[str, Any]) -> str:
    """A value for a Chart. Numbered, because a component does not tell of a value equal to the last one."""
    return compact({"seq": time.monotonic_ns(), **content})


def plotly_bundle() -> Path:
    """plotly.js as the installed package brings it."""
    return Path(str(metadata.distribution("plotly").locate_file("plotly/package_data/plotly.min.js")))
