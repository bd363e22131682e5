"""The Learn view: lessons and the gallery beside the player, all of them over recorded runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nemodiff_core.errors import NemodiffError, RequestError

from ui import lessons
from ui.jobs import Job
from ui.mounted import Mounted, mounting
from ui.parts import as_object

COURSE_ID = "nd-course"
_OPTIONS = "{ player: '@PLAYER@', course: (query) => server.course(query) }"


class Course(Mounted):
    """The lessons in the browser; they are fetched when the view is first looked at."""

    def __init__(self, value: str | None = None, **gradio: Any) -> None:
        from ui.shell import PLAYER_ID

        made = {**mounting("lessons", _OPTIONS, start="", PLAYER=PLAYER_ID), "elem_id": COURSE_ID, "server_functions": [course], **gradio}
        super().__init__(value, **made)

    def api_info(self) -> dict[str, Any]:
        """It has no value."""
        return {"type": "string", "description": "nothing"}


def course(query: Any) -> dict[str, Any]:
    """Lessons and gallery in a language, for the browser."""
    language = as_object(query).get("lang")
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
