"""The editor as a Gradio component: text with gaps, a draft with pins, and the changes proposed to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ui.player_component import PLAYER_ROUTE

_TEMPLATE = '<div class="nd-mount" data-nemodiff="editor"></div>'
_ON_LOAD = """
const root = element.querySelector('[data-nemodiff="editor"]');
const base = new URL((window.gradio_config || {}).root || '/', window.location.href).pathname.replace(/[/]+$/, '');
import(base + '@ROUTE@/editor.js').then((module) => {
  const editor = module.mount(root, {
    id: '@ID@',
    desk: (query) => server.desk(query),
    // Gradio knows an event by its quoted name: 'infill', 'revise', 'halt'.
    send: (name, data) => trigger(name, data),
    player: () => ((window.__nemodiff || {}).handles || {})['@PLAYER@'],
  });
  const read = () => { if (props.value) editor.receive(props.value); };
  watch('value', read);
  read();
}).catch((error) => {
  root.textContent = 'The editor could not start (' + error.message + '). Reload the page.';
});
"""


class Editor(gr.HTML):
    """See ui/player/editor.js. Its value is always the last answer to it, as a JSON string."""

    def __init__(
        self, value: str | None = None, *, elem_id: str, player: str = "", desk: Callable[[Any], dict[str, Any]] | None = None, **gradio: Any
    ) -> None:
        def answer(query: Any) -> dict[str, Any]:
            return desk(query) if desk else {}

        answer.__name__ = "desk"
        script = _ON_LOAD.replace("@ROUTE@", PLAYER_ROUTE).replace("@ID@", elem_id).replace("@PLAYER@", player)
        made = {"html_template": _TEMPLATE, "js_on_load": script, "apply_default_css": False, "server_functions": [answer], **gradio}
        super().__init__(value, elem_id=elem_id, **made)

    def postprocess(self, value: str | None) -> str | None:
        """Messages are data that nobody parses as HTML, so they pass as they are."""
        return value

    def api_info(self) -> dict[str, Any]:
        return {"type": "string", "description": "an answer to the editor, as JSON"}
