"""On a Space: no second door, no question to the hub, and ZeroGPU's way to load."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio import http_server, utils
from gradio.context import LocalContext

from nemodiff_core.engine import Engine
from nemodiff_core.request import parse_request
from nemodiff_core.serving import zero
from nemodiff_core.serving.distant import Distant
from nemodiff_core.serving.manifest import Preset
from ui import space
from ui.live import stream
from ui.loader import Loader, ModelChoice
from ui.runs import RunStore


def test_a_page_on_a_space_keeps_to_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("SPACE_ID", "me/demo")
    monkeypatch.setattr(http_server, "get_space", utils.get_space)  # whatever other tests have served
    with gr.Blocks() as page:
        gr.Textbox()
    assert page.get_config_file()["space_id"] == "me/demo" and http_server.get_space() == "me/demo"
    space.keep_to_itself(page)
    assert page.get_config_file()["space_id"] is None and http_server.get_space() is None


def test_on_zero_gpu_the_model_is_there_before_the_server_is(model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NEMODIFF_PRESET", "zero-gpu")
    monkeypatch.setenv("NEMODIFF_GRAPHS", "0")
    monkeypatch.setattr(zero, "_engines", {})
    loader = Loader(ModelChoice(str(model), device="cpu")).start()
    assert loader.state == "ready", loader.problem
    assert isinstance(loader.engine, Distant) and loader.engine.capacity > 1
    run = loader.engine.run(parse_request({"prompt": "Hello", "mode": "ar", "max_new_tokens": 4, "stop_at_eos": False}))
    assert len(list(run)) == 4 and run.trace().model["id"] == loader.about["id"]


def test_a_lent_gpu_counts_against_the_visitor_who_asked(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NEMODIFF_GRAPHS", "0")
    monkeypatch.setattr(zero, "_engines", {})
    asked_for: list[Any] = []

    def decorated(*arguments: Any) -> Iterator[Any]:
        asked_for.append(LocalContext.request.get(None))  # where `spaces` looks for the visitor
        yield from zero._work(*arguments)

    monkeypatch.setattr(zero, "_decorated", lambda: decorated)
    engine = zero.wrap(tiny_engine, Preset(hardware="zero-a10g"))
    request = parse_request({"prompt": "Hello", "mode": "ar", "max_new_tokens": 4})

    def lane(engine: Any, stop: threading.Event) -> Any:
        return engine.run(request, stop)

    def handler() -> None:
        LocalContext.request.set("the visitor's request")
        list(stream(engine, [lane], RunStore().create("visitor")))

    copy_context().run(handler)
    assert asked_for == ["the visitor's request"]
