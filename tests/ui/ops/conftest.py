"""The whole app on a port of this machine, with the small random model, and ways to speak to it without a browser."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nemodiff_core.checkpoint import save
from nemodiff_core.tokenizer import Tokenizer
from tests.conftest import random_model
from ui.app import ServeSettings, launch
from ui.loader import ModelChoice

_numbers = itertools.count()


class Visitor:
    """Speaks with a served app as its page does."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=60)
        self.config = self.client.get("config").json()
        self.values = {component["id"]: component["props"].get("value") for component in self.config["components"]}
        self.names = {component["id"]: component["props"].get("elem_id") for component in self.config["components"]}

    def handlers(self, name: str = "") -> list[dict[str, Any]]:
        """What a browser may call in Python; with a name, those that Gradio calls so."""
        found = [handler for handler in self.config["dependencies"] if handler["backend_fn"]]
        return [handler for handler in found if handler["api_name"].rstrip("0123456789").rstrip("_") == name] if name else found

    def usual(self, handler: dict[str, Any]) -> list[Any]:
        """What the page sends to a handler when nobody has touched it."""
        return [self.values[part] for part in handler["inputs"]]

    def call(self, handler: dict[str, Any], data: list[Any], event_data: Any = None, session: str = "visitor") -> httpx.Response:
        """Call a handler that needs no queue."""
        body = {"fn_index": handler["id"], "data": data, "event_data": event_data, "session_hash": session, "trigger_id": None}
        return self.client.post("gradio_api/run/predict", content=json.dumps(body), headers={"content-type": "application/json"})

    def stream(self, handler: dict[str, Any], data: list[Any], event_data: Any = None, session: str = "visitor") -> list[dict[str, Any]]:
        """Call a handler of the queue; all that its stream says."""
        body = {"fn_index": handler["id"], "data": data, "event_data": event_data, "session_hash": session, "trigger_id": None}
        self.client.post("gradio_api/queue/join", content=json.dumps(body), headers={"content-type": "application/json"}).raise_for_status()
        said = []
        with self.client.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as lines:
            for line in lines.iter_lines():
                if line.startswith("data:"):
                    said.append(json.loads(line[5:]))
                    if said[-1]["msg"] in ("process_completed", "close_stream", "unexpected_error"):
                        return said
        return said

    def prepare(self, session: str, **fields: Any) -> httpx.Response:
        """Press Run; `fields` are values by the ends of their elements' ids."""
        handler = self.handlers("prepared")[0]
        values = [fields.get((self.names[part] or "").removeprefix("nd-"), usual) for part, usual in zip(handler["inputs"], self.usual(handler))]
        return self.call(handler, values, {}, session)

    def run(self, session: str | None = None, **fields: Any) -> str:
        """A whole run, as the page makes it; everything that was streamed, as text."""
        session = session or f"visitor-{next(_numbers)}"
        answer = self.prepare(session, **fields)
        assert answer.status_code == 200, answer.text
        return answer.text + json.dumps(self.stream(self.handlers("run")[0], [None], None, session))


class Live(Visitor):
    """An app in this process."""

    def __init__(self, model: Path) -> None:
        self.page = launch(ServeSettings(ModelChoice(str(model), device="cpu"), host="127.0.0.1"), block=False)
        self.app = self.page.nemodiff
        assert self.app.loader.wait(60) and self.app.loader.engine is not None, self.app.loader.problem
        super().__init__(self.page.local_url)


class Complaints(logging.Handler):
    """What was logged as failed, with its exceptions."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.errors.append(record.exc_info[1])


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    """The small random model as a checkpoint folder."""
    return save(random_model(), tiny_tokenizer, tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, small: Path) -> Iterator[Live]:
    os.environ["NEMODIFF_DATA"] = str(tmp_path_factory.mktemp("data"))
    served = Live(small)
    yield served
    served.client.close()
    served.page.close(verbose=False)


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """Failures that nobody foresaw, while a test runs."""
    handler = Complaints()
    loggers = [logging.getLogger(name) for name in ("ui", "nemodiff_core")]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)
