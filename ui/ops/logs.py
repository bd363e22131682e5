"""What the server writes about itself: events with their figures, and of failures the kind and the place.

Never what a visitor typed or was answered, never an address or a session. Messages of exceptions often quote what they
stumbled over, so a failure is told by its type and by the lines of code it came through.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_OURS = ("nemodiff_core", "nemodiff_cli", "kernels", "ui")
_THEIRS = ("uvicorn", "uvicorn.error", "uvicorn.access", "gradio", "httpx", "asyncio", "mcp")  # warnings of these are worth a line
_LEVELS = {"WARNING": "warning: ", "ERROR": "error: ", "CRITICAL": "error: "}
_DEEPEST = 4  # places of a failure that are told
_log = logging.getLogger("ui")


def event(name: str, **fields: Any) -> None:
    """Write one event with its figures."""
    _log.info(name, extra={"fields": fields})


def failed(logger: logging.Logger, what: str, error: BaseException) -> None:
    """Write that something failed which nobody foresaw."""
    logger.error("%s failed", what, exc_info=error)


def configure(kind: str = "text", stream: Any = None) -> logging.Handler:
    """Let the app's loggers write to stderr, as `text` or as `json` lines; again: in the new way only."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.set_name("nemodiff")
    handler.setFormatter(Lines(kind == "json"))
    for name in (*_OURS, *_THEIRS):
        logger = logging.getLogger(name)
        # uvicorn brings handlers of its own, which would print whole tracebacks and addresses.
        logger.handlers = [h for h in logger.handlers if h.get_name() != "nemodiff" and not name.startswith("uvicorn")]
        logger.addHandler(handler)
        logger.setLevel(logging.INFO if name in _OURS else logging.ERROR if name.startswith("uvicorn") else logging.WARNING)
    logging.getLogger("uvicorn.access").disabled = True  # its lines are addresses and session hashes
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).propagate = False
    _hush_gradio()
    return handler


class Lines(logging.Formatter):
    """One line a record."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self.as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        # A stranger's record may quote anything in its arguments and, as asyncio's do, behind its first line.
        ours = record.name.split(".")[0] in _OURS
        said = record.getMessage() if ours else str(record.msg).partition("\n")[0]
        fields: dict[str, Any] = dict(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[1] is not None:
            fields |= told(record.exc_info[1])
        if self.as_json:
            at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
            line = {"at": at, "level": record.levelname.lower(), "logger": record.name, "event": said, **fields}
            return json.dumps(line, ensure_ascii=False, default=str)
        words = [f"{name}={value}" for name, value in fields.items()]
        return " ".join([_LEVELS.get(record.levelname, "") + said, *words]).replace("\n", " ")


def told(error: BaseException) -> dict[str, Any]:
    """A failure by its kind and place, without its message."""
    kinds, link = [], error
    while link is not None and len(kinds) < _DEEPEST:
        kinds.append(type(link).__name__)
        link = link.__cause__ or link.__context__
    frames = traceback.extract_tb(error.__traceback__)[-_DEEPEST:]
    places = [f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}" for frame in frames]
    return {"error": " < ".join(kinds), "place": " > ".join(places)}


def _hush_gradio() -> None:
    """Gradio prints the traceback of a handler that fails, message included; these modules log it as above instead."""
    import gradio
    from gradio import queueing, routes

    def print_exc(*_: Any, **__: Any) -> None:
        error = sys.exception()
        if error is not None and not isinstance(error, gradio.Error):  # those are sentences that the visitor has read
            failed(_log, "handler", error)

    for module in (queueing, routes):
        module.traceback = SimpleNamespace(print_exc=print_exc)
