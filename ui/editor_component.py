"""The editor as a Gradio component: text with gaps, a draft with pins, and the changes proposed to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ui.mounted import Mounted, mounting

_OPTIONS = """{
    id: '@ID@',
    desk: (query) => server.desk(query),
    // Gradio knows an event by its quoted name: 'infill', 'revise', 'halt'.
    send: (name, data) => trigger(name, data),
    player: () => ((window.__nemodiff || {}).handles || {})['@PLAYER@'],
  }"""


class Editor(Mounted):
    """See ui/player/editor.js. Its value is always the last answer to it, as a JSON string."""

    def __init__(
        self, value: str | None = None, *, elem_id: str, player: str = "", desk: Callable[[Any], dict[str, Any]] | None = None, **gradio: Any
    ) -> None:
        def answer(query: Any) -> dict[str, Any]:
            return desk(query) if desk else {}

        answer.__name__ = "desk"
        made = {**mounting("editor", _OPTIONS, ID=elem_id, PLAYER=player), "server_functions": [answer], **gradio}
        super().__init__(value, elem_id=elem_id, **made)

    def api_info(self) -> dict[str, Any]:
        return {"type": "string", "description": "an answer to the editor, as JSON"}
