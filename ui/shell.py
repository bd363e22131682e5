"""The page around the views: navigation, the shared form, the stage with its player, and how a run is started.

Every view has its own column on the left; the stage never changes hands, so that moving between views keeps
the run, the step and the cell that are looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from nemodiff_core.errors import NemodiffError

from ui import links
from ui.controls import Ask, General, general_fields, sampling
from ui.examples import examples, following
from ui.jobs import Job
from ui.mode_form import DEFAULTS, ModeForm, shown
from ui.parts import QUIET, notice
from ui.picker import Picker
from ui.player_component import Player
from ui.theme import shown_in
from ui.view import View
from ui.whatif import fork_job

PLAYER_ID = "nd-player"
# Views are shown and hidden in the browser: the attribute decides (theme.py), and changes at once.
_TURN = """
(view) => {
  document.documentElement.dataset.ndView = view.toLowerCase();
  const panel = (@PANELS@)[view];
  const player = () => ((window.__nemodiff || {}).handles || {})['@ID@'];
  const open = () => panel && player().select({ panel });
  if (player()) open();
  else document.addEventListener('nd-ready', open, { once: true });
  return view;
}
"""


class Shell:
    """The page's shared components, and `start`, by which views begin runs."""

    def __init__(self, app: Any, page: gr.Blocks, views: Sequence[View], opening_prompt: str) -> None:
        self.app, self.page, self.views = app, page, {view.name: view for view in views}
        first = views[0]
        self.run_id, self.last = gr.State(""), gr.State({})
        with gr.Row(elem_id="nd-head"):
            gr.HTML("<h1>nemodiff</h1><p>One model, three ways to write, every step on record</p>", elem_id="nd-title")
            self.view = gr.Radio([view.name for view in views], value=first.name, label="View", show_label=False, container=False, elem_id="nd-view")
            self.picker = Picker(app.models)
            with gr.Row(elem_id="nd-which"):
                self.status = gr.HTML(app.status(), elem_id="nd-status")
                self.picker.button()
            self.picker.panel()
        with gr.Row(elem_id="nd-page"):
            asking = [view.name for view in views if view.run_label is not None]
            with gr.Column(elem_id="nd-ask", elem_classes=shown_in(*asking)):
                self.ask = Ask.build(opening_prompt, [task for task, _ in examples()], first.run_label or "Run")
            with gr.Column(elem_id="nd-stage"):
                for view in views:
                    if hasattr(view, "board"):
                        with gr.Column(elem_id=f"nd-board-{view.name.lower()}", elem_classes=shown_in(view.name)):
                            view.board(app)
                self.notice = gr.HTML("", elem_id="nd-notice")
                record = app.recorded.get(first.name)
                self.player = Player(record.log[-1] if record else None, elem_id=PLAYER_ID, resync=app.resync, vote=app.vote)
                with gr.Row(elem_id="nd-files"):
                    self.with_prompt = gr.Checkbox(False, label="with the prompt", container=False, elem_id="nd-with-prompt")
                    self.share = gr.Button("Copy link", size="sm", elem_id="nd-share")
                    self.save = gr.Button("Save trace", size="sm", elem_id="nd-save")
                    self.load = gr.UploadButton("Open trace", size="sm", elem_id="nd-open", file_types=[".json", ".gz"])
            with gr.Column(elem_id="nd-knobs"):
                for view in views:
                    with gr.Column(elem_classes=["nd-form", *shown_in(view.name)], elem_id=f"nd-form-{view.name.lower()}"):
                        view.build(app.limits)
                with gr.Accordion("Settings", open=True, elem_id="nd-settings", elem_classes=shown_in(*asking)):
                    self.general = General.build(app.limits)
        self._connect()
        for view in views:
            view.connect(self)

    # -- runs -----------------------------------------------------------------------------------------

    def start(self, triggers: Sequence[Any], make: Callable[..., Job], inputs: Sequence[Any]) -> list[Any]:
        """Let `triggers` begin the job that `make(event, *values of inputs)` describes.

        What `make` refuses, as a NemodiffError, is said above the stage; nothing else changes then. Returns the
        events that come when a run is over or was refused, for what a view does then.
        """
        app, ask = self.app, self.ask
        locked = [ask.run, ask.stop, self.save, self.load]
        prepare = app.prepare(make)
        ended = []
        for trigger in triggers:  # not gr.on, which knows no events of a component's own
            run = trigger(prepare, [self.view, self.last, self.picker.choice, *inputs], [self.run_id, self.last, *locked, self.notice], **QUIET).then(
                app.run, self.run_id, [self.player, self.notice], concurrency_id="device", concurrency_limit=None,
                api_visibility="private", show_progress="hidden",
            )  # fmt: skip
            ended.append(run.then(app.finish, self.run_id, locked, **QUIET))
        return ended

    def arrive(self, request: gr.Request) -> list[Any]:
        """Fill the form as the page's link says: view, name of Run, prompt, settings, notice, and the view's recorded run."""
        form, general = self.views["Refine"].form, self.general
        skipped = [gr.skip()] * (5 + len(general.parts) + len(form.parts))
        try:
            link = links.read(dict(request.query_params), list(self.views), self.app.limits)
        except NemodiffError as error:
            return [*skipped[:-2], notice(str(error)), gr.skip()]
        if not (link.view or link.prompt or link.general or link.form):
            return skipped
        view = self.views[link.view or "Refine"]
        samples = sampling(link.general.get("temperature", 0.0))
        idle = dict(zip(("top_p", "seed"), samples))
        settings = [gr.update(**{**idle.get(n, {}), **({"value": link.general[n]} if n in link.general else {})}) for n in general.FIELDS]
        values = {**DEFAULTS, **link.form}
        seen = dict(zip(ModeForm.FIELDS[1:], shown(*(values[n] for n in ModeForm.FIELDS))))
        knobs = [gr.update(**{**seen.get(n, {}), **({"value": link.form[n]} if n in link.form else {})}) for n in ModeForm.FIELDS]
        label = gr.update(value=view.run_label) if view.run_label else gr.skip()
        record = None if "trace" in request.query_params else self.app.recorded.get(view.name)
        message = record.log[-1] if record is not None and record.log else gr.skip()
        return [view.name, label, link.prompt or gr.skip(), *settings, *knobs, gr.skip(), message]

    def _connect(self) -> None:
        app, ask, views = self.app, self.ask, list(self.views.values())
        spans, flat = {}, []
        for view in views:
            spans[view.name] = (len(flat), len(flat) + len(view.inputs))
            flat += view.inputs
        count = len(General.FIELDS)

        def job(event: gr.EventData, name: str, prompt: str, *values: Any) -> Job:
            start, end = spans[name]
            return self.views[name].job(general_fields(prompt, values[:count]), values[count:][start:end], app.limits)

        self.start([ask.run.click, ask.prompt.submit], job, [self.view, ask.prompt, *self.general.inputs(), *flat])
        ask.stop.click(app.stop, None, None, **QUIET)
        self.start([self.player.fork], fork_job(app.store, app.models), [])
        self.player.explain(
            app.explain, None, [self.player, self.notice], concurrency_id="device", concurrency_limit=None,
            api_visibility="private", show_progress="hidden",
        )  # fmt: skip
        self.general.connect()
        self.picker.connect(self.page, app.status, self.status)
        ask.task.input(lambda task: following(task, ""), ask.task, ask.prompt, **QUIET)
        ask.another.click(following, [ask.task, ask.prompt], ask.prompt, **QUIET)
        self.view.input(app.show, [self.view, self.last], [self.player, self.notice, ask.run], **QUIET)
        turn = _TURN.replace("@PANELS@", json.dumps({view.name: view.panel for view in views}))
        self.view.change(None, self.view, None, js=turn.replace("@ID@", PLAYER_ID), **QUIET)

        filled = [self.view, ask.run, ask.prompt, *self.general.inputs(), *self.views["Refine"].inputs]
        self.page.load(self.arrive, None, [*filled, self.notice, self.player], **QUIET)
        self.share.click(None, [self.view, self.with_prompt, *filled[2:]], self.notice, js=links.WRITE, **QUIET)
        self.save.click(None, None, self.notice, js=_SAVE.replace("@ID@", PLAYER_ID), **QUIET)
        self.load.upload(app.open, [self.load, self.last], [self.player, self.view, self.last, self.notice, ask.run], **QUIET)


# Saves the run that the player shows; what the server refuses is said on the page.
_SAVE = """
async () => {
  const player = ((window.__nemodiff || {}).handles || {})['@ID@'];
  const said = player ? await player.save() : 'There is nothing to save yet: run a prompt first.';
  const p = document.createElement('p');
  p.textContent = said;
  return said ? p.outerHTML : '';
}
"""
