"""Builds the page and serves it. `python app.py` and `nemodiff serve` both end in `launch`."""

from __future__ import annotations

import contextlib
import html
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr  # noqa: E402

from nemodiff_core.errors import NemodiffError, RequestError  # noqa: E402
from nemodiff_core.request import Limits  # noqa: E402

from ui import files, opening, race, refine  # noqa: E402
from ui.controls import RACE, REFINE, Controls, ask, knobs, shown  # noqa: E402
from ui.examples import examples, following  # noqa: E402
from ui.live import stream  # noqa: E402
from ui.loader import Loader, ModelChoice  # noqa: E402
from ui.messages import resync, write_traces  # noqa: E402
from ui.player_component import Player, stylesheet  # noqa: E402
from ui.routes import TRACE_ROUTE, routes  # noqa: E402
from ui.runs import RunStore  # noqa: E402
from ui.theme import CSS, theme  # noqa: E402

PLAYER_ID = "nd-player"
QUEUE_SIZE = 16
PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}

# Fetches the file of the run that the player shows; what the server refuses is said on the page.
_SAVE = """
async () => {
  const notice = (text) => {
    const p = document.createElement('p');
    p.textContent = text;
    return text ? p.outerHTML : '';
  };
  const player = (window.__nemodiff || { players: {} }).players['@ID@'];
  if (!player || !player.run) return notice('There is nothing to save yet: run a prompt first.');
  const base = new URL((window.gradio_config || {}).root || '/', window.location.href).pathname.replace(/[/]+$/, '');
  const answer = await fetch(base + '@ROUTE@/' + encodeURIComponent(player.run));
  if (!answer.ok) return notice(await answer.text());
  const name = /filename="([^"]+)"/.exec(answer.headers.get('content-disposition') || '');
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await answer.blob());
  link.download = name ? name[1] : 'nemodiff-trace.json.gz';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  return '';
}
"""


@dataclass
class App:
    """What the handlers of one page share: the model, the limits of this host and the visitors' runs."""

    loader: Loader
    limits: Limits
    store: RunStore = field(default_factory=RunStore)

    def __post_init__(self) -> None:
        self.recorded = opening.load(self.store)

    # -- what the browser asks for ------------------------------------------------------------------

    def resync(self, query: Any) -> dict[str, Any]:
        """Everything about one run, for a player that has just mounted or has missed a message."""
        try:
            return resync(self.store.get(query.get("run") if isinstance(query, dict) else None))
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

    def prepare(self, view: str, last: dict[str, str], request: gr.Request) -> list[Any]:
        """Give the run its id, so that Stop works from the first moment, queued or running."""
        record = self.store.create(request.session_hash, lanes=len(race.LANES) if view == RACE else 1)
        busy, free = gr.update(interactive=False), gr.update(interactive=True)
        ahead = self.store.ahead(record)
        waiting = f"{ahead} {'run is' if ahead == 1 else 'runs are'} ahead on this device; yours starts by itself."
        return [record.id, {**last, view: record.id}, busy, free, busy, busy, busy, notice(waiting, calm=True) if ahead else ""]

    def run(self, run_id: str, view: str, *values: Any) -> Iterator[tuple[Any, Any]]:
        """Decode what the form says and stream it: (message for the player, notice)."""
        try:
            record = self.store.get(run_id)
        except NemodiffError as error:
            yield gr.skip(), notice(str(error))
            return
        try:
            requests = (race if view == RACE else refine).requests(dict(zip(Controls.VALUES, values)))
            for request in requests:
                request.check(self.limits)
            if not self.loader.wait(0):
                yield gr.skip(), notice("The model is still loading; the run starts by itself when it is ready.", calm=True)
                while not (self.loader.wait(0.1) or record.stop.is_set()):
                    pass
            if record.stop.is_set():
                yield gr.skip(), notice("Stopped before it began.", calm=True)
                return
            if self.loader.engine is None:
                raise RequestError(self.loader.problem or "There is no model; start the app again.")
            first: Any = ""
            for message in stream(self.loader.engine, requests, record):
                yield message, first
                first = gr.skip()
        except NemodiffError as error:
            yield gr.skip(), notice(str(error))
        finally:
            record.stop.set()
            record.ended = True

    def finish(self, run_id: str) -> list[Any]:
        """The buttons once a run is over, however it ended, be it that the queue refused it."""
        with contextlib.suppress(NemodiffError):
            self.store.get(run_id).ended = True
        free = gr.update(interactive=True)
        return [free, gr.update(interactive=False), free, free, free]

    def stop(self, request: gr.Request) -> None:
        """Stop the visitor's own run within one step."""
        self.store.stop(request.session_hash)

    def leave(self, request: gr.Request) -> None:
        """A tab was closed."""
        self.store.forget(request.session_hash)

    # -- views and files ----------------------------------------------------------------------------

    def show(self, view: str, last: dict[str, str], *knob_values: Any) -> list[Any]:
        """Switch views: the view's last run, or its recorded one, and the knobs that act there."""
        message = gr.skip()
        try:
            record = self.store.get(last[view]) if view in last else self.recorded.get(view)
        except NemodiffError:
            record = self.recorded.get(view)
        if record is not None and record.log:
            message = record.log[-1]
        return [message, "", *shown(view, *knob_values)]

    def open(self, path: str, last: dict[str, str], mode: str, rule: str, draft: str, temperature: float, request: gr.Request) -> list[Any]:
        """Show a saved run or race, or say why not."""
        try:
            traces = files.read(path)
            view = RACE if len(traces) > 1 else REFINE
            record = self.store.create(request.session_hash, lanes=len(traces))
            write_traces(record, traces)
        except NemodiffError as error:
            return [gr.skip(), gr.skip(), gr.skip(), notice(str(error)), *[gr.skip()] * len(Controls.DEPENDENT)]
        finally:
            Path(path).unlink(missing_ok=True)
        updates = shown(view, mode, rule, draft, temperature)
        return [record.log[-1], view, {**last, view: record.id}, "", *updates]


def notice(sentence: str, calm: bool = False) -> str:
    """One sentence in the page's notice area."""
    return f'<p class="{"nd-note" if calm else "nd-error"}" role="{"status" if calm else "alert"}">{html.escape(sentence)}</p>'


def build(app: App) -> gr.Blocks:
    """The page."""
    with gr.Blocks(title="nemodiff", fill_width=True, delete_cache=(1800, 1800)) as page:
        run_id = gr.State("")
        last: gr.State = gr.State({})
        with gr.Row(elem_id="nd-head"):
            gr.HTML("<h1>nemodiff</h1><p>One model, three ways to write, every step on record</p>", elem_id="nd-title")
            view = gr.Radio([REFINE, RACE], value=REFINE, label="View", show_label=False, container=False, elem_id="nd-view")
            status = gr.HTML(app.status(), elem_id="nd-status")
        with gr.Row(elem_id="nd-page"):
            with gr.Column(elem_id="nd-ask"):
                parts = ask(opening.prompt(app.recorded), [task for task, _ in examples()])
            with gr.Column(elem_id="nd-stage"):
                message = gr.HTML("", elem_id="nd-notice")
                first = app.recorded.get(REFINE)
                player = Player(first.log[-1] if first else None, elem_id=PLAYER_ID, resync=app.resync)
                with gr.Row(elem_id="nd-files"):
                    save = gr.Button("Save trace", size="sm", elem_id="nd-save")
                    load = gr.UploadButton("Open trace", size="sm", elem_id="nd-open", file_types=[".json", ".gz"])
            with gr.Column(elem_id="nd-knobs"), gr.Accordion("Settings", open=True, elem_id="nd-settings"):
                parts |= knobs(app.limits)
        controls = Controls(**parts)
        _connect(app, page, controls, view, player, message, status, save, load, run_id, last)
    return page


def _connect(
    app: App, page: gr.Blocks, c: Controls, view: Any, player: Player, message: Any, status: Any, save: Any, load: Any,
    run_id: gr.State, last: gr.State,
) -> None:  # fmt: skip
    acting = [c.mode, c.rule, c.draft, c.temperature]
    locked = [c.run, c.stop, view, save, load]
    gr.on(
        [c.run.click, c.prompt.submit], app.prepare, [view, last], [run_id, last, *locked, message], queue=False, **PRIVATE
    ).then(
        app.run, [run_id, view, *c.inputs()], [player, message], concurrency_id="device", concurrency_limit=1, **PRIVATE
    ).then(app.finish, run_id, locked, queue=False, **PRIVATE)  # fmt: skip
    c.stop.click(app.stop, None, None, queue=False, **PRIVATE)
    page.unload(app.leave)

    view.input(app.show, [view, last, *acting], [player, message, *c.dependent()], queue=False, **PRIVATE)
    gr.on([k.input for k in acting], shown, [view, *acting], c.dependent(), queue=False, **PRIVATE)
    c.task.input(lambda task: following(task, ""), c.task, c.prompt, queue=False, **PRIVATE)
    c.another.click(following, [c.task, c.prompt], c.prompt, queue=False, **PRIVATE)

    js = _SAVE.replace("@ID@", PLAYER_ID).replace("@ROUTE@", TRACE_ROUTE)
    save.click(None, None, message, js=js, **PRIVATE)
    load.upload(app.open, [load, last, *acting], [player, view, last, message, *c.dependent()], queue=False, **PRIVATE)

    timer = gr.Timer(0.5)
    gr.on([page.load, timer.tick], app.poll, None, [status, timer], queue=False, **PRIVATE)


@dataclass(frozen=True)
class ServeSettings:
    """How to serve: what `app.py` and `nemodiff serve` take as arguments."""

    model: ModelChoice = ModelChoice()
    host: str | None = None
    port: int | None = None
    root_path: str | None = None
    open_browser: bool = False
    limits: Limits = field(default_factory=Limits)


def launch(settings: ServeSettings | None = None, *, block: bool = True) -> gr.Blocks:
    """Serve the page; the model loads meanwhile. With `block` False it returns once the server answers."""
    settings = settings or ServeSettings()
    app = App(Loader(settings.model, settings.limits).start(), settings.limits)
    page = build(app)
    page.nemodiff = app
    page.queue(max_size=QUEUE_SIZE, default_concurrency_limit=1)
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
        head=f"<style>{CSS}</style>",
        app_kwargs={"routes": routes(app.store)},
        max_file_size=files.MAX_FILE_BYTES,
        footer_links=["settings"],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        share=False,
        quiet=not block,
    )
    return page
