"""Several visitors on one machine: turns, isolation, slow browsers, and what stays usable while the line is full."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nemodiff_core.engine import Engine
from nemodiff_core.request import Limits, parse_request
from ui.app import App
from ui.jobs import Job, decode
from ui.loader import ModelChoice
from ui.models import Models
from ui.runs import RunRecord

LIMITS = Limits(max_waiting=2, max_waiting_per_visitor=1, max_runs_per_minute=10)


@pytest.fixture
def make(model: Path) -> Callable[..., App]:
    def made(limits: Limits = LIMITS) -> App:
        app = App(Models((ModelChoice(str(model), device="cpu"),), limits).start(), limits)
        assert app.loader.wait(60)
        assert app.loader.engine is not None, app.loader.problem
        return app

    return made


def job(prompt: str, limits: Limits = LIMITS, tokens: int = 12) -> Job:
    return decode([parse_request({"prompt": prompt, "mode": "ar", "max_new_tokens": tokens, "stop_at_eos": False})], limits)


def begin(app: App, visitor: str, prompt: str = "hello", tokens: int = 12) -> RunRecord:
    return app.begin(job(prompt, app.limits, tokens), visitor)


@contextmanager
def held(app: App) -> Iterator[threading.Event]:
    """The model stands still in its next forward; the event says that it does."""
    goes_on, stands = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        stands.set()
        goes_on.wait(60)

    hook = app.loader.engine.checkpoint.model.register_forward_pre_hook(wait)
    try:
        yield stands
    finally:
        hook.remove()
        goes_on.set()


def in_background(app: App, record: RunRecord) -> threading.Thread:
    thread = threading.Thread(target=lambda: list(app.perform(record)), daemon=True)
    thread.start()
    return thread


def output(record: RunRecord) -> list[int]:
    (ended,) = [message for message in map(json.loads, record.log) if message["type"] == "end"]
    return ended["tail"]["output"]["ids"]


def alone(engine: Engine, prompt: str) -> list[int]:
    run = engine.run(parse_request({"prompt": prompt, "mode": "ar", "max_new_tokens": 12, "stop_at_eos": False}))
    list(run)
    return run.trace().output.ids


def test_who_waits_is_told_how_long_and_then_runs(make: Callable[..., App]):
    app = make()
    with held(app) as stands:
        first = in_background(app, begin(app, "first"))
        assert stands.wait(60)
        second = begin(app, "second")
        told = app.perform(second)
        assert "1 run is ahead on this device; yours starts by itself in about" in next(told)[1]
    messages = list(told)
    first.join(60)
    assert messages[0][1] == ""  # what was said of the waiting goes away
    assert len(output(second)) == 12


def test_everybody_gets_their_own_text(make: Callable[..., App]):
    app = make(Limits(max_waiting=50))
    prompts = [f"visitor {number} asks something" for number in range(8)]
    right = [alone(app.loader.engine, prompt) for prompt in prompts]
    records = [begin(app, f"visitor {number}", prompt) for number, prompt in enumerate(prompts)]
    for thread in [in_background(app, record) for record in records]:
        thread.join(120)
    assert [output(record) for record in records] == right
    assert len({tuple(ids) for ids in right}) > 1
    assert (app.line.waiting, app.line.running) == (0, 0)


def test_a_slow_browser_is_sent_only_the_end_and_fetches_the_rest(make: Callable[..., App]):
    app = make()
    app.behind = lambda visitor: visitor == "slow"
    record = begin(app, "slow")
    sent = [message for message, _ in app.run(record.id) if isinstance(message, str)]
    assert sent == [record.log[-1]]
    whole = app.resync({"run": record.id})["messages"]
    assert [message["type"] for message in whole] == ["open", "steps", "end"]
    assert len(whole[1]["steps"]) == 12


def test_stopping_while_waiting_leaves_the_line(make: Callable[..., App]):
    app = make()
    with held(app) as stands:
        first = in_background(app, begin(app, "first"))
        assert stands.wait(60)
        record = begin(app, "second")
        told = app.perform(record)
        next(told)
        app.store.stop("second")
        assert [words for _, words in told] == ["Stopped before it began."]
        assert app.line.waiting == 0
    first.join(60)


def test_a_browser_that_leaves_in_mid_run_frees_the_device(make: Callable[..., App]):
    app = make()
    run = app.perform(begin(app, "leaves", tokens=200))
    next(run)
    run.close()
    assert app.line.running == 0
    after = begin(app, "comes")
    list(app.perform(after))
    assert len(output(after)) == 12


def prepared(app: App, visitor: str) -> list[Any]:
    return app.prepare(lambda event: job("hello", app.limits))("Refine", {}, "", SimpleNamespace(session_hash=visitor), SimpleNamespace(_data={}))


def test_a_full_line_refuses_with_a_sentence_and_the_gallery_stays(make: Callable[..., App]):
    app = make()
    with held(app) as stands:
        threads = [in_background(app, begin(app, "runs"))]
        assert stands.wait(60)
        waiting = [begin(app, name) for name in ("a", "b")]
        told = [app.perform(record) for record in waiting]
        for words in told:
            next(words)
        run_id, *_, said = prepared(app, "c")
        assert run_id == "" and "2 runs already wait" in said and "recorded runs" in said
        (shown, *_) = app.show("Refine", {})
        assert json.loads(shown)["type"] == "end"
        assert app.resync({"run": app.recorded["Refine"].id})["messages"]
        for record in waiting:
            record.stop.set()
        for words in told:
            list(words)
    threads[0].join(60)


def test_a_visitor_in_a_hurry_is_asked_to_wait_and_others_are_not(make: Callable[..., App]):
    app = make(Limits(max_runs_per_minute=1))
    list(app.perform(begin(app, "hurried")))
    assert "runs a minute" in prepared(app, "hurried")[-1]
    assert prepared(app, "other")[0]
