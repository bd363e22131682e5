"""The Learn view: lessons and the gallery beside the player, all of them over recorded runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from nemodiff_core.errors import NemodiffError, RequestError

from ui import lessons
from ui.jobs import Job
from ui.player_component import PLAYER_ROUTE

COURSE_ID = "nd-course"
_TEMPLATE = '<div class="nd-mount" data-nemodiff="lessons"></div>'
_ON_LOAD = """
const root = element.querySelector('[data-nemodiff="lessons"]');
const base = new URL((window.gradio_config || {}).root || '/', window.location.href).pathname.replace(/[/]+$/, '');
import(base + '@ROUTE@/lessons.js').then((module) => module.mount(root, {
  player: '@PLAYER@',
  course: (query) => server.course(query),
})).catch((error) => {
  root.textContent = 'The lessons could not start (' + error.message + '). Reload the page.';
});
"""


class Course(gr.HTML):
    """The lessons in the browser; they are fetched when the view is first looked at."""

    def __init__(self, value: str | None = None, **gradio: Any) -> None:
        from ui.shell import PLAYER_ID

        gradio = {"elem_id": COURSE_ID, "apply_default_css": False, "server_functions": [course], **gradio}
        on_load = _ON_LOAD.replace("@ROUTE@", PLAYER_ROUTE).replace("@PLAYER@", PLAYER_ID)
        super().__init__(value, **{"html_template": _TEMPLATE, "js_on_load": on_load, **gradio})

    def api_info(self) -> dict[str, Any]:
        """It has no value."""
        return {"type": "string", "description": "nothing"}


def course(query: Any) -> dict[str, Any]:
    """Lessons and gallery in a language, for the browser."""
    language = query.get("lang") if isinstance(query, dict) else None
    try:
        return lessons.course(language if language in lessons.languages() else lessons.DEFAULT)
    except NemodiffError as error:
        return {"error": str(error)}


class Learn:
    """See ui/view.py."""

    name, run_label, panel = "Learn", None, None

    def build(self, limits: Any) -> None:
        self.inputs: list[Any] = []
        Course()

    def connect(self, shell: Any) -> None:
        """The lessons speak to the player in the browser, and to nothing else."""

    def job(self, general: dict[str, Any], values: Sequence[Any], limits: Any) -> Job:
        raise RequestError("lessons run nothing; take another view to run a prompt.")
