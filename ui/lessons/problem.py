"""What is wrong with a lesson, in one sentence."""

from __future__ import annotations

from nemodiff_core.errors import NemodiffError


class LessonError(NemodiffError):
    """A lesson that cannot be read, names something unknown, or claims what its trace does not show."""
