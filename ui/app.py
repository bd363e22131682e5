"""Builds the page and serves it. `python app.py` and `nemodiff serve` both end in `launch`."""

from __future__ import annotations

import contextlib
import html
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

# Read when gradio is imported. Its own bookkeeping of events makes a table of the last ten thousand after every one.
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_ANALYTICS_MAX_EVENTS": "1", "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9)}

import gradio as gr  # noqa: E402

from nemodiff_core.errors import NemodiffError, RequestError  # noqa: E402
from nemodiff_core.request import Limits  # noqa: E402
from nemodiff_core.serving.manifest import Features, Preset, this_host  # noqa: E402

from ui import api, blind, files, opening, script, sessions, space, whatif  # noqa: E402
from ui.budget import Budget  # noqa: E402
from ui.edit import Edit  # noqa: E402
from ui.jobs import Job  # noqa: E402
from ui.learn import Learn  # noqa: E402
from ui.line import Line  # noqa: E402
from ui.live import stream  # noqa: E402
from ui.loader import Cancelled, Loader, ModelChoice  # noqa: E402
from ui.messages import resync, write_traces  # noqa: E402
from ui.models import Models, offered  # noqa: E402
from ui.ops import logs, serving  # noqa: E402
from ui.ops.account import Account, model_ended  # noqa: E402
from ui.ops.closing import Closing  # noqa: E402
from ui.ops.meters import Meters  # noqa: E402
from ui.ops.settings import Operation  # noqa: E402
from ui.parts import QUIET, as_object, notice  # noqa: E402
from ui.player_component import stylesheet  # noqa: E402
from ui.race import Race  # noqa: E402
from ui.refine import Refine  # noqa: E402
from ui.remotes import Remotes  # noqa: E402
from ui.routes import routes  # noqa: E402
from ui.runs import RunRecord, RunStore  # noqa: E402
from ui.shell import Shell  # noqa: E402
from ui.speculate import Speculate  # noqa: E402
from ui.theme import head, theme  # noqa: E402
from ui.votes import Votes  # noqa: E402

# Every run that waits keeps a thread, and what needs no device must find one as well.
OTHER_THREADS = 48
# Messages that may wait for a browser; one that reads more slowly fetches the rest when it has caught up.
OUTBOX = 8
# Visitors that Gradio remembers; beyond them it forgets who has been away for longest.
SESSIONS = 5000
VIEWS: tuple[type, ...] = (Refine, Race, Speculate, Budget, Edit, Learn)


@dataclass
class App:
    """What the handlers of one page share: the models, the limits of this host, the visitors' runs and their votes."""

    models: Models
    limits: Limits
    store: RunStore = field(default_factory=RunStore)
    votes: Votes = field(default_factory=Votes)
    remotes: Remotes = field(default_factory=Remotes)
    features: Features = field(default_factory=Features)
    meters: Meters = field(default_factory=Meters)
    closing: Closing = field(default_factory=Closing)

    def __post_init__(self) -> None:
        self.recorded = opening.load(self.store)
        self.line = Line(self.limits, lambda: getattr(self.loader.engine, "capacity", 1))
        self.meters.watch(waiting=lambda: self.line.waiting, running=lambda: self.line.running, models=lambda: self.models.loaded)
        self.models.told = lambda loader: model_ended(self.meters, loader)
        self.behind: Callable[[str], bool] = lambda visitor: False  # whether a visitor's browser reads too slowly
        self.forget: Callable[[str], None] = lambda visitor: None  # what Gradio holds of a visitor

    @property
    def loader(self) -> Loader:
        """The page's own model."""
        return self.models.own

    # -- what the browser asks for ------------------------------------------------------------------

    def resync(self, query: Any) -> dict[str, Any]:
        """Everything about one run, for a player that has just mounted or has missed a message."""
        try:
            return resync(self.store.get(as_object(query).get("run")))
        except NemodiffError as error:
            return {"error": str(error)}

    def vote(self, ballot: Any) -> dict[str, Any]:
        """Keep the vote on a blind race; what the player may then show."""
        try:
            return blind.cast(self.store, self.votes, ballot)
        except NemodiffError as error:
            return {"error": str(error)}

    def status(self, model: str = "") -> str:
        """The status line of a visitor who has chosen this model."""
        return self._status(model)[0]

    def _status(self, model: str) -> tuple[str, str]:
        """The status line, and the model's state that it tells of."""
        try:
            loader = self.models.loader(model)
            state, words = loader.state, loader.status()
        except NemodiffError as error:  # one that a visitor named, and that is forgotten by now
            state, words = "failed", str(error)
        kind = {"loading": "nd-loading", "failed": "nd-failed"}.get(state, "nd-ready")
        return f'<p class="{kind}" role="status" data-model="{html.escape(model)}">{html.escape(words)}</p>', state

    def poll(self, model: str = "") -> list[Any]:
        """Refresh the status line until loading has ended."""
        status, state = self._status(model)
        return [status, gr.Timer(active=state == "loading")]

    # -- a run --------------------------------------------------------------------------------------

    def prepare(self, make: Callable[..., Job]) -> Callable[..., list[Any]]:
        """The first half of a run: its job, and its id, so that Stop works from the first moment, queued or running."""

        def prepared(view: str, last: dict[str, str], model: str, request: gr.Request, event: gr.EventData, *values: Any) -> list[Any]:
            try:
                self.line.check(request.session_hash)
                record = self.begin(make(event, *values), request.session_hash, model)
            except NemodiffError as error:
                self.meters.refused(error)
                return ["", gr.skip(), *[gr.skip()] * 4, notice(str(error))]
            busy, free = gr.update(interactive=False), gr.update(interactive=True)
            return [record.id, {**last, view: record.id}, busy, free, busy, busy, ""]

        return prepared

    def begin(self, job: Job, visitor: str | None, model: str = "") -> RunRecord:
        """The record of a run that is about to join the line; `model` is a name in `models`, "" the page's own.

        Raises RequestError once the app is on its way out.
        """
        self.closing.check()
        record = self.store.create(visitor, lanes=len(job.lanes))
        record.job, record.blind, record.model = job, job.blind, model
        return record

    def run(self, run_id: str) -> Iterator[tuple[Any, Any]]:
        """Do the job of a prepared run and stream it: (message for the player, notice)."""
        if not run_id:
            yield gr.skip(), gr.skip()
            return
        unsent = ""
        try:
            record = self.store.get(run_id)
            said: Any = gr.skip()
            for message, words in self.perform(record):
                said = notice(words, calm=True) if words else "" if words is not None else said
                if message is not None and self.behind(record.owner):
                    unsent = message
                    continue
                yield gr.skip() if message is None else message, said
                said, unsent = gr.skip(), "" if message is not None else unsent
            if unsent:  # its number tells the player that it has missed some
                yield unsent, said
        except NemodiffError as error:
            self.meters.refused(error)
            yield unsent or gr.skip(), notice(str(error))

    def perform(self, record: RunRecord) -> Iterator[tuple[str | None, str | None]]:
        """Wait for the record's turn and do its job: (message of the live protocol or None, what is said of the waiting or None).

        Raises NemodiffError; what was recorded until then stays in the record.
        """
        if record.job is None:
            raise RequestError("This run has been started already; start another one.")
        asked = time.monotonic()
        try:
            if self.models.ready(record.model) is None:
                yield None, "The model is still loading; the run starts by itself when it is ready."
            with self.models.lease(record.model, record.stop) as engine, self.line.join(record.owner or "") as place:
                for words in place.told(record.stop.is_set):
                    yield None, words
                if record.stop.is_set():
                    raise Cancelled("Stopped before it began.")
                said: str | None = ""  # the first message takes away what was said of the waiting
                self.meters.run_waited(time.monotonic() - asked)
                for message in stream(engine, record.job.lanes, record, account=Account(self.meters, record.id)):
                    yield message, said
                    said = None
        except Cancelled:
            yield None, "Stopped before it began."
        finally:
            record.stop.set()
            record.ended = True
            record.job = None

    def explain(self, request: gr.Request, event: gr.EventData) -> Iterator[tuple[Any, Any]]:
        """Look for wrong commits in the run that the player shows: (message for the player, notice)."""
        try:
            with self.line.join(request.session_hash) as place:
                for words in place.told(lambda: False):
                    yield gr.skip(), notice(words, calm=True)
                yield from whatif.explain(self.store, self.models, event._data)
        except NemodiffError as error:
            yield gr.skip(), notice(str(error))

    def finish(self, run_id: str) -> list[Any]:
        """The buttons once a run is over, however it ended, be it that the queue refused it."""
        with contextlib.suppress(NemodiffError):
            self.store.get(run_id).ended = True
        free = gr.update(interactive=True)
        return [free, gr.update(interactive=False), free, free]

    def stop(self, request: gr.Request) -> None:
        """Stop the visitor's own run within one step."""
        self.store.stop(request.session_hash)

    def leave(self, request: gr.Request) -> None:
        """A tab was closed."""
        self.store.forget(request.session_hash)
        self.models.leave(request.session_hash)
        self.forget(request.session_hash)

    # -- views and files ----------------------------------------------------------------------------

    def show(self, view: str, last: dict[str, str]) -> list[Any]:
        """Switch views: the view's last run or its recorded one, where it has any, and the name of its Run button."""
        message = gr.skip()
        try:
            record = self.store.get(last[view]) if view in last else self.recorded.get(view)
        except NemodiffError:
            record = self.recorded.get(view)
        if record is not None and record.log:
            message = record.log[-1]
        return [message, "", _run_label(view)]

    def open(self, path: str, last: dict[str, str], request: gr.Request) -> list[Any]:
        """Show a saved run or race, or say why not."""
        try:
            with files.uploaded(path) as file:
                traces = files.read(file)
            view = Race.name if len(traces) > 1 else Refine.name
            record = self.store.create(request.session_hash, lanes=len(traces))
            write_traces(record, traces)
        except NemodiffError as error:
            return [gr.skip(), gr.skip(), gr.skip(), notice(str(error)), gr.skip()]
        return [record.log[-1], view, {**last, view: record.id}, "", _run_label(view)]


def _unread(page: gr.Blocks, visitor: str) -> int:
    """Messages that Gradio holds for a visitor whose browser has not fetched them."""
    held = page._queue.pending_messages_per_session.get(visitor)
    return held.qsize() if held is not None else 0


def _run_label(view: str) -> Any:
    label = next(kind.run_label for kind in VIEWS if kind.name == view)
    return gr.skip() if label is None else gr.update(value=label)


def build(app: App) -> gr.Blocks:
    """The page."""
    with gr.Blocks(title="nemodiff", fill_width=True, delete_cache=(1800, 1800)) as page:
        shell = Shell(app, page, [Race(app.models, app.remotes, app.features.votes) if kind is Race else kind() for kind in VIEWS], opening.prompt(app.recorded))
        if app.features.api:
            api.publish(app)
        page.unload(app.leave)
        timer = gr.Timer(0.5)
        gr.on([page.load, timer.tick], app.poll, shell.picker.choice, [shell.status, timer], **QUIET)
    return page


@dataclass(frozen=True)
class ServeSettings:
    """How to serve: what `app.py` and `nemodiff serve` take as arguments."""

    model: ModelChoice = ModelChoice()
    host: str | None = None
    port: int | None = None
    root_path: str | None = None
    open_browser: bool = False
    preset: Preset | None = None  # what this machine offers; None: what its manifest says
    extra_models: tuple[ModelChoice, ...] = ()  # offered besides; loaded when first asked for
    keep_prompts: bool = False  # with the votes of blind races; otherwise prompts are never stored
    maker: Callable[[Callable[[str, float], None]], Any] | None = None  # of the engine, where the model is elsewhere


def _models(settings: ServeSettings, preset: Preset) -> Models:
    offers, own = offered(preset, settings.model, settings.extra_models), settings.model
    return Models(
        (own, *settings.extra_models) if settings.maker else offers,
        preset.limits,
        any_model=preset.features.any_model and not settings.maker,
        budget_bytes=None if preset.memory_gb is None else int(preset.memory_gb * 2**30),
        maker=settings.maker,
        token=None if preset.hardware is None else False,  # a Space's token reads what is its owner's
    )


def launch(settings: ServeSettings | None = None, *, block: bool = True) -> gr.Blocks:
    """Serve the page; the model loads meanwhile. With `block` False it returns once the server answers."""
    settings, operation = settings or ServeSettings(), Operation.read()
    logs.configure(operation.log)
    preset = settings.preset or this_host()
    app = App(_models(settings, preset), preset.limits, votes=Votes(keep_prompts=settings.keep_prompts),
              remotes=Remotes(preset.remotes, preset.limits), features=preset.features, closing=Closing(operation.grace_s))  # fmt: skip
    app.models.start()
    page = build(app)
    page.nemodiff = app
    modules = script.serving(app.recorded.get(Refine.name))
    # Runs wait in the app's own line, which is fair and can say how long: Gradio's queue hands them on at once.
    page.queue(max_size=preset.limits.max_waiting + OTHER_THREADS, default_concurrency_limit=1, api_open=False)
    app.behind = lambda visitor: _unread(page, visitor) >= OUTBOX
    sessions.keep_little()
    app.forget = lambda visitor: sessions.drop(page, visitor)
    in_head = head([kind.name for kind in VIEWS], preset.features.exports)
    space.keep_to_itself(page)
    page.launch(
        server_name=settings.host,
        server_port=settings.port,
        root_path=settings.root_path,
        inbrowser=settings.open_browser,
        prevent_thread_lock=True,
        theme=theme(),
        # Gradio puts its container before every selector of `css=`: the player's rules then win over
        # Gradio's own. The page's rules also speak of what is outside the container, so they go to the head.
        css=stylesheet(),
        head=in_head,
        app_kwargs={
            "routes": [*modules["routes"], *routes(app.store, app.votes, preset.features.exports), *serving.routes(app, operation)],
            "middleware": [*serving.layers(operation, in_head), *modules["middleware"]],
        },
        max_file_size=files.MAX_FILE_BYTES,
        state_session_capacity=SESSIONS,
        max_threads=preset.limits.max_waiting + OTHER_THREADS,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=api.serves_agents(preset.features),
        share=False,
        quiet=not block,
    )
    serving.without_banner(page.server)
    if block:
        serving.until_stopped(app, page)
    return page
