"""What a view is: a name in the navigation, a form in the left column, and the job that its Run button does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from ui.jobs import Job


class View(Protocol):
    """One way to use the page. `build` is called once, inside the view's own column.

    A view may also have `board(app)`, called once before `build`, inside an area of its own above the player.
    """

    name: ClassVar[str]  # in the navigation
    run_label: ClassVar[str | None]  # of the shared Run button; None: the view has no use for the shared prompt
    panel: ClassVar[str | None]  # of the player, opened with the view; None: whichever is open
    inputs: list[Any]  # components whose values `job` receives

    def build(self, limits: Any) -> None:
        """Make the form's components."""

    def connect(self, shell: Any) -> None:
        """Wire what happens inside the form, and what it starts besides Run."""

    def job(self, general: dict[str, Any], values: Sequence[Any], limits: Any) -> Job:
        """What Run does. `general` are request fields: prompt and settings. Raises NemodiffError."""
