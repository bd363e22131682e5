"""After SIGTERM nobody new comes in, and whoever is there may finish, within the grace."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from nemodiff_core.errors import RequestError
from ui.ops import closing
from ui.ops.closing import Closing


class Clock:
    """Goes on by itself, a tenth of a second a look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.1
        return self.now


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing.time, "sleep", lambda seconds: None)


def begun(grace_s: float) -> Closing:
    way_out = Closing(grace_s, Clock())
    way_out.begun.set()
    return way_out


def test_nothing_new_begins_once_it_is_closing():
    open_app = Closing(1.0)
    open_app.check()
    with pytest.raises(RequestError, match="try again in a minute"):
        begun(1.0).check()


def test_running_answers_finish():
    left, told = iter([2, 2, 1, 1, 0, 0, 0]), []
    begun(30.0).stay(lambda: next(left, 0), lambda: told.append("stop"))
    assert not told


def test_what_outlasts_the_grace_is_stopped_between_steps():
    stop = threading.Event()
    begun(5.0).stay(lambda: 0 if stop.is_set() else 1, stop.set)
    assert stop.is_set()


def test_a_run_that_never_ends_does_not_keep_the_process():
    begun(5.0).stay(lambda: 1, lambda: None)


def test_browsers_hear_the_end_first():
    unread = iter([True, True, False])
    seen: list[Any] = []

    def undelivered() -> bool:
        seen.append(next(unread))
        return seen[-1]

    begun(5.0).stay(lambda: 0, lambda: None, undelivered)
    assert seen == [True, True, False]
