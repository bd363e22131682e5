"""Lines say what happened and where it failed, and never what somebody wrote."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest

from ui.ops import logs

SECRET = "the walrus was Paul"


@pytest.fixture
def written() -> Iterator[Callable[[str], io.StringIO]]:
    """Gives `configure(kind)` a place to write to, and puts the usual one back."""
    names = ["", "ui", "nemodiff_core", "uvicorn", "uvicorn.error", "asyncio"]
    levels = {name: (logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in names}

    def begin(kind: str) -> io.StringIO:
        stream = io.StringIO()
        logs.configure(kind, stream)
        return stream

    yield begin
    logs.configure("text")
    for name, (level, handlers) in levels.items():
        if not name.startswith(("ui", "nemodiff")):
            logging.getLogger(name).setLevel(level)
            logging.getLogger(name).handlers = handlers


def fail() -> None:
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        raise ValueError(f"cannot do {SECRET}") from error


def test_an_event_is_one_line_of_json(written):
    out = written("json")
    logs.event("run ended", mode="ar", tokens=3)
    (line,) = out.getvalue().splitlines()
    said = json.loads(line)
    assert {key: said[key] for key in ("event", "level", "mode", "tokens")} == {"event": "run ended", "level": "info", "mode": "ar", "tokens": 3}
    assert said["at"].endswith("+00:00")


def test_an_event_is_one_line_for_people(written):
    out = written("text")
    logs.event("run ended", mode="ar", tokens=3)
    assert out.getvalue() == "run ended mode=ar tokens=3\n"


@pytest.mark.parametrize("kind", ["text", "json"])
@pytest.mark.parametrize("logger", ["ui.app", "nemodiff_core.engine", "uvicorn.error", "asyncio", "gradio"])
def test_a_failure_is_told_by_kind_and_place_alone(written, kind: str, logger: str):
    out = written(kind)
    try:
        fail()
    except ValueError as error:
        logging.getLogger(logger).error("it failed\nfuture: " + (SECRET if logger == "asyncio" else ""), exc_info=error)
    assert SECRET not in out.getvalue() and out.getvalue().count("\n") == 1
    assert "ValueError < KeyError" in out.getvalue() and "test_logs.py:" in out.getvalue() and " fail" in out.getvalue()


def test_arguments_of_strangers_are_not_written(written):
    out = written("text")
    logging.getLogger("uvicorn.error").error("bad request %s", SECRET)
    logging.getLogger("uvicorn.access").info("%s", SECRET)
    assert SECRET not in out.getvalue() and "bad request" in out.getvalue()


def test_configuring_again_does_not_write_twice(written):
    written("text")
    out = written("json")
    logs.event("once")
    assert len(out.getvalue().splitlines()) == 1
