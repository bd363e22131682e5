"""Builds the page and serves it. `python app.py` and `nemodiff serve` both end in `launch`."""

from __future__ import annotations

import contextlib
import html
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr  # noqa: E402

from nemodiff_core.errors import NemodiffError, RequestError  # noqa: E402
from nemodiff_core.request import Limits  # noqa: E402

from ui import blind, files, opening, prelude, whatif  # noqa: E402
from ui.budget import Budget  # noqa: E402
from ui.edit import Edit  # noqa: E402
from ui.jobs import Job  # noqa: E402
from ui.learn import Learn  # noqa: E402
from ui.line import Line  # noqa: E402
from ui.live import stream  # noqa: E402
from ui.loader import Loader, ModelChoice, Models  # noqa: E402
from ui.messages import resync, write_traces  # noqa: E402
from ui.parts import QUIET, as_object, notice  # noqa: E402
from ui.player_component import stylesheet  # noqa: E402
from ui.race import Race  # noqa: E402
from ui.refine import Refine  # noqa: E402
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
VIEWS: tuple[type, ...] = (Refine, Race, Speculate, Budget, Edit, Learn)


@dataclass
class App:
    """What the handlers of one page share: the models, the limits of this host, the visitors' runs and their votes."""

    loader: Loader
    limits: Limits
    store: RunStore = field(default_factory=RunStore)
    others: tuple[ModelChoice, ...] = ()  # checkpoints that lanes of a race may use as well
    votes: Votes = field(default_factory=Votes)

    def __post_init__(self) -> None:
        self.models = Models(self.loader, self.others)
        self.recorded = opening.load(self.store)
        self.line = Line(self.limits, lambda: getattr(self.loader.engine, "capacity", 1))
        self.behind: Callable[[str], bool] = lambda visitor: False  # whether a visitor's browser reads too slowly

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

    def status(self) -> str:
        """The status line."""
        kind = {"loading": "nd-loading", "failed": "nd-failed"}.get(self.loader.state, "nd-ready")
        return f'<p class="{kind}" role="status">{html.escape(self.loader.status())}</p>'

    def poll(self) -> list[Any]:
        """Refresh the status line until loading has ended."""
        return [self.status(), gr.Timer(active=self.loader.state == "loading")]

    # -- a run --------------------------------------------------------------------------------------

    def prepare(self, make: Callable[..., Job]) -> Callable[..., list[Any]]:
        """The first half of a run: its job, and its id, so that Stop works from the first moment, queued or running."""

        def prepared(view: str, last: dict[str, str], request: gr.Request, event: gr.EventData, *values: Any) -> list[Any]:
            try:
                self.line.check(request.session_hash)
                job = make(event, *values)
            except NemodiffError as error:
                return ["", gr.skip(), *[gr.skip()] * 4, notice(str(error))]
            record = self.begin(job, request.session_hash)
            busy, free = gr.update(interactive=False), gr.update(interactive=True)
            return [record.id, {**last, view: record.id}, busy, free, busy, busy, ""]

        return prepared

    def begin(self, job: Job, visitor: str | None) -> RunRecord:
        """The record of a run that is about to join the line."""
        record = self.store.create(visitor, lanes=len(job.lanes))
        record.job, record.blind = job, job.blind
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
            yield unsent or gr.skip(), notice(str(error))

    def perform(self, record: RunRecord) -> Iterator[tuple[str | None, str | None]]:
        """Wait for the record's turn and do its job: (message of the live protocol or None, what is said of the waiting or None).

        Raises NemodiffError; what was recorded until then stays in the record.
        """
        place = None
        try:
            if not self.loader.wait(0):
                yield None, "The model is still loading; the run starts by itself when it is ready."
                while not (self.loader.wait(0.1) or record.stop.is_set()):
                    pass
            if not record.stop.is_set() and self.loader.engine is None:
                raise RequestError(self.loader.problem or "There is no model; start the app again.")
            place = self.line.join(record.owner or "")
            for words in place.told(record.stop.is_set):
                yield None, words
            if record.stop.is_set():
                yield None, "Stopped before it began."
                return
            said: str | None = ""  # the first message takes away what was said of the waiting
            for message in stream(self.loader.engine, record.job.lanes, record):
                yield message, said
                said = None
        finally:
            record.stop.set()
            record.ended = True
            record.job = None
            if place is not None:
                place.leave()

    def explain(self, request: gr.Request, event: gr.EventData) -> Iterator[tuple[Any, Any]]:
        """Look for wrong commits in the run that the player shows: (message for the player, notice)."""
        place = None
        try:
            place = self.line.join(request.session_hash)
            for words in place.told(lambda: False):
                yield gr.skip(), notice(words, calm=True)
            yield from whatif.explain(self.store, self.models, event._data)
        except NemodiffError as error:
            yield gr.skip(), notice(str(error))
        finally:
            if place is not None:
                place.leave()

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
            traces = files.read(path)
            view = Race.name if len(traces) > 1 else Refine.name
            record = self.store.create(request.session_hash, lanes=len(traces))
            write_traces(record, traces)
        except NemodiffError as error:
            return [gr.skip(), gr.skip(), gr.skip(), notice(str(error)), gr.skip()]
        finally:
            Path(path).unlink(missing_ok=True)
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
        shell = Shell(app, page, [Race(app.models) if kind is Race else kind() for kind in VIEWS], opening.prompt(app.recorded))
        page.unload(app.leave)
        timer = gr.Timer(0.5)
        gr.on([page.load, timer.tick], app.poll, None, [shell.status, timer], **QUIET)
    return page


@dataclass(frozen=True)
class ServeSettings:
    """How to serve: what `app.py` and `nemodiff serve` take as arguments."""

    model: ModelChoice = ModelChoice()
    host: str | None = None
    port: int | None = None
    root_path: str | None = None
    open_browser: bool = False
    limits: Limits = field(default_factory=Limits)
    extra_models: tuple[ModelChoice, ...] = ()  # what lanes of a race may use besides; loaded when first asked for
    keep_prompts: bool = False  # with the votes of blind races; otherwise prompts are never stored


def launch(settings: ServeSettings | None = None, *, block: bool = True) -> gr.Blocks:
    """Serve the page; the model loads meanwhile. With `block` False it returns once the server answers."""
    settings = settings or ServeSettings()
    loader = Loader(settings.model, settings.limits).start()
    app = App(loader, settings.limits, others=settings.extra_models, votes=Votes(keep_prompts=settings.keep_prompts))
    page = build(app)
    page.nemodiff = app
    first = prelude.serving(app.recorded.get(Refine.name))
    # Runs wait in the app's own line, which is fair and can say how long: Gradio's queue hands them on at once.
    page.queue(max_size=settings.limits.max_waiting + OTHER_THREADS, default_concurrency_limit=1)
    app.behind = lambda visitor: _unread(page, visitor) >= OUTBOX
    page.launch(
        server_name=settings.host,
        server_port=settings.port,
        root_path=settings.root_path,
        inbrowser=settings.open_browser,
        prevent_thread_lock=not block,
        theme=theme(),
        # Gradio puts its container before every selector of `css=`: the player's rules then win over
        # Gradio's own. The page's rules also speak of what is outside the container, so they go to the head.
        css=stylesheet(),
        head=head([kind.name for kind in VIEWS]),
        app_kwargs={**first, "routes": [*first["routes"], *routes(app.store, app.votes)]},
        max_file_size=files.MAX_FILE_BYTES,
        max_threads=settings.limits.max_waiting + OTHER_THREADS,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        share=False,
        quiet=not block,
    )
    return page
