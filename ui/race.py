"""The Race view: two to four lanes, one after another on the same device, replayed together; or blind, to be voted on."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from nemodiff_core.errors import NemodiffError, RequestError
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Trace

from ui import blind, files
from ui.ballot import BallotForm
from ui.jobs import Job, Lane, batch, decode, elsewhere, recorded
from ui.messages import traces_of, write_traces
from ui.mode_form import DEFAULTS, ModeForm, named, request_fields
from ui.naming import MODES, model_name, title
from ui.parts import QUIET, as_object, notice
from ui.refine import request
from ui.remotes import ABOUT, Remotes, is_remote

LANES = ("ar", "diffusion", "linear_spec")
FEWEST = 2
CHOSEN = "The one chosen for the page"
# What each lane begins with; the last one is added by hand.
_STARTS: tuple[dict[str, Any], ...] = (*({"mode": mode} for mode in LANES), {"mode": "diffusion", "threshold": 0.7, "revise": True})


@dataclass
class LaneForm:
    """The components of one lane. `opened` holds the run id of a trace that takes the place of the form."""

    box: gr.Accordion
    fields: gr.Column
    model: gr.Dropdown
    server: gr.HTML  # what is said in the place of the mode's knobs where a server answers
    knobs: gr.Column
    form: ModeForm
    opened: gr.State
    about: gr.HTML
    upload: gr.UploadButton
    back: gr.Button
    remove: gr.Button

    WIDTH = 2 + len(ModeForm.FIELDS)

    @classmethod
    def build(cls, limits: Any, number: int, models: Sequence[str]) -> LaneForm:
        start, at = _STARTS[number], f"nd-lane{number + 1}"
        with gr.Accordion(f"Lane {number + 1} · {_title({**DEFAULTS, **start})}", open=False, visible=number < len(LANES), elem_id=at, elem_classes="nd-lane") as box:
            opened, about = gr.State(""), gr.HTML("", elem_id=f"{at}-about", elem_classes="nd-lane-about", visible=False)
            with gr.Column(elem_id=f"{at}-fields") as fields:
                model = gr.Dropdown([(CHOSEN, ""), *models], value="", label="Model", visible=len(models) > 1, filterable=False, elem_id=f"{at}-model")
                server = gr.HTML(ABOUT, visible=False, elem_id=f"{at}-server", elem_classes="nd-lane-about")
                with gr.Column(elem_id=f"{at}-knobs") as knobs:
                    form = ModeForm.build(limits, at, **start)
            with gr.Row(elem_classes="nd-lane-row"):
                upload = gr.UploadButton("Use a saved trace", size="sm", elem_id=f"{at}-open", file_types=[".json", ".gz"])
                back = gr.Button("Use settings instead", size="sm", visible=False, elem_id=f"{at}-back")
                remove = gr.Button("Remove lane", size="sm", elem_id=f"{at}-remove")
        return cls(box, fields, model, server, knobs, form, opened, about, upload, back, remove)

    def inputs(self) -> list[Any]:
        return [self.opened, self.model, *self.form.inputs()]


class Race:
    """See ui/view.py."""

    name, run_label, panel = "Race", "Race", None

    def __init__(self, models: Any, remotes: Remotes | None = None, votes: bool = True) -> None:
        """`votes`: whether this host has blind races."""
        self.models, self.remotes, self.votes = models, remotes or Remotes(), votes

    def build(self, limits: Any) -> None:
        names, most = [*self.models.names, *self.remotes.names], limits.max_lanes
        self.present = gr.State([number < min(most, len(LANES)) for number in range(most)])
        self.lanes = [LaneForm.build(limits, number, names) for number in range(most)]
        self.add = gr.Button("Add a lane", size="sm", interactive=most > len(LANES), elem_id="nd-race-add")
        self.batch = gr.Checkbox(
            False, label="Run the lanes as one batch", info="They share every forward, so only the batch has a clock.", elem_id="nd-race-batch"
        )
        self.ballot = BallotForm.build(self.votes)
        self.inputs = [self.present, self.batch, self.ballot.blind, self.ballot.prompts, *(part for lane in self.lanes for part in lane.inputs())]

    def connect(self, shell: Any) -> None:
        self.store = shell.app.store
        everything = [self.present, *(part for lane in self.lanes for part in lane.inputs())]
        boxes = [lane.box for lane in self.lanes]
        arranged = [self.present, self.add, *boxes, *(lane.remove for lane in self.lanes)]
        gr.on([self.add.click], lambda *values: _arranged(_with(values[0], True), values), everything, arranged, **QUIET)
        for number, lane in enumerate(self.lanes):
            lane.form.connect()
            lane.model.input(
                lambda name: [gr.update(visible=is_remote(name)), gr.update(visible=not is_remote(name))], lane.model, [lane.server, lane.knobs], **QUIET
            )
            named_by = [part.input for part in (*lane.form.inputs(), lane.model)]
            gr.on(named_by, _labels, everything, boxes, trigger_mode="always_last", **QUIET)
            lane.remove.click(
                lambda *values, number=number: _arranged(_with(values[0], False, number), values), everything, arranged, **QUIET
            )
            shown = [lane.opened, lane.about, lane.fields, lane.upload, lane.back]
            for turned in (
                lane.upload.upload(self._open, lane.upload, [*shown, shell.notice], **QUIET),
                lane.back.click(lambda: ["", *_shown("")], None, shown, **QUIET),
            ):
                turned.then(_labels, everything, boxes, **QUIET)
        self.ballot.connect(shell)

        def following(event: gr.EventData) -> Job:
            done = self.store.get(as_object(event._data).get("run")).blind
            if done is None:
                raise RequestError("There is no list to go on with; run a blind race first.")
            return done.following().job()

        shell.start([shell.player.raised("nextprompt")], following, [])

    def job(self, general: dict[str, Any], values: Sequence[Any], limits: Any) -> Job:
        present, as_batch, is_blind, listed, *rest = values
        every = [rest[at : at + LaneForm.WIDTH] for at in range(0, len(rest), LaneForm.WIDTH)]
        plans = [plan for plan, there in zip(every, present) if there]
        if not FEWEST <= len(plans) <= limits.max_lanes:
            raise RequestError(f"A race has {FEWEST} to {limits.max_lanes} lanes on this host; choose so many.")
        if is_blind and not self.votes:
            raise RequestError("This host has no blind races; untick it.")
        opened = [plan[0] for plan in plans if plan[0]]
        traces = {run: traces_of(self.store.get(run))[0] for run in opened}
        asked = blind.prompts(listed if is_blind else "", general["prompt"])
        made = [traces.get(plan[0]) or (plan[1], request({**general, "prompt": asked[0]}, _form(plan))) for plan in plans]
        if as_batch:
            if is_blind:
                raise RequestError("Blind lanes run one after another, so that nobody can tell them by their pace; untick one of the two.")
            if any(isinstance(lane, Trace) or lane[0] for lane in made):
                raise RequestError("A batch shares the forwards of one model; use settings on the page's own choice in every lane, or untick it.")
            return batch([asked for _, asked in made], limits)
        if not is_blind:
            return Job(tuple(self.lane(lane, limits) for lane in made))
        if traces and any(trace.request.get("prompt") != prompt for trace in traces.values() for prompt in asked):
            raise RequestError("A saved trace answers its own prompt only; ask that one, or use settings for the lane instead.")

        def lanes(prompt: str) -> list[Lane]:
            return [self.lane(lane if isinstance(lane, Trace) else (lane[0], lane[1].model_copy(update={"prompt": prompt})), limits) for lane in made]

        for prompt in asked:  # a prompt that is too long is refused before the first one runs
            lanes(prompt)
        return blind.Round(asked, lanes).job()

    def lane(self, lane: Trace | tuple[str | None, DecodeRequest], limits: Any) -> Lane:
        """A lane: a saved trace, or a request on the model or server of this name. Raises NemodiffError."""
        if isinstance(lane, Trace):
            return recorded(lane)
        model, asked = lane
        if is_remote(model):
            return self.remotes.lane(model, asked)
        (here,) = decode([asked], limits).lanes
        if not model:
            return here
        self.models.loader(model)  # a name that nobody offers is refused before anything runs
        return elsewhere(here, lambda stop: self.models.lease(model, stop))

    def _open(self, path: str, visitor: gr.Request) -> list[Any]:
        """Put a saved trace in the place of a lane's settings, or say why not."""
        try:
            with files.uploaded(path) as file:
                traces = files.read(file)
            if len(traces) != 1:
                raise RequestError("The file holds a whole race; open it below the player, or choose a single trace.")
            record = self.store.create(visitor.session_hash)
            write_traces(record, traces)
        except NemodiffError as error:
            return [*[gr.skip()] * 5, notice(str(error))]
        return [record.id, *_shown(_about(traces[0])), ""]


def requests(general: Mapping[str, Any], form: Mapping[str, Any] = DEFAULTS) -> list[DecodeRequest]:
    """The requests of the race that the page opens on, in lane order. Raises RequestError."""
    return [request(general, {**form, "mode": mode}) for mode in LANES]


def _form(plan: Sequence[Any]) -> dict[str, Any]:
    """The mode of a lane and its knobs; a server has neither, so that a hidden knob cannot refuse the lane."""
    return {**DEFAULTS, "mode": "ar"} if is_remote(plan[1]) else named(plan[2:])


def _with(present: Sequence[bool], there: bool, number: int | None = None) -> list[bool]:
    """The lanes with one added at the first free place, or one taken away; never fewer than two."""
    present = list(present)
    if there and not all(present):
        present[present.index(False)] = True
    if not there and sum(present) > FEWEST:
        present[number] = False
    return present


def _arranged(present: Sequence[bool], values: Sequence[Any]) -> list[Any]:
    """Updates after a lane was added or removed."""
    names = iter(_names(present, values[1:]))
    boxes = [gr.update(visible=there, **({"label": next(names)} if there else {})) for there in present]
    return [list(present), gr.update(interactive=not all(present)), *boxes, *[gr.update(interactive=sum(present) > FEWEST)] * len(present)]


def _labels(present: Sequence[bool], *values: Any) -> list[Any]:
    """Updates that say in every lane's title what the lane is."""
    names = iter(_names(present, values))
    return [gr.update(label=next(names)) if there else gr.skip() for there in present]


def _names(present: Sequence[bool], values: Sequence[Any]) -> list[str]:
    """The titles of the lanes there are, numbered as they are shown."""
    plans = [values[at : at + LaneForm.WIDTH] for at in range(0, len(values), LaneForm.WIDTH)]
    there = [plan for plan, shown in zip(plans, present) if shown]
    several = len({plan[1] for plan in there if not plan[0] and not is_remote(plan[1])}) > 1
    return [_name(place, plan, several) for place, plan in enumerate(there)]


def _name(place: int, plan: Sequence[Any], several_models: bool) -> str:
    opened, model, *form = plan
    if is_remote(model) and not opened:
        return f"Lane {place + 1} · {model}"
    what = "saved trace" if opened else _title(named(form))
    return " · ".join([f"Lane {place + 1}", what, *([model] if several_models and model and not opened else [])])


def _title(form: Mapping[str, Any]) -> str:
    try:
        return title(request_fields(form))
    except (TypeError, ValueError):  # a number field is being emptied
        return MODES.get(form["mode"], "")


def _shown(about: str) -> list[Any]:
    """Updates for what a lane shows: an opened trace, or its settings."""
    opened = bool(about)
    return [gr.update(value=about, visible=opened), *(gr.update(visible=shown) for shown in (not opened, not opened, opened))]


def _about(trace: Trace) -> str:
    """What an opened trace is, as HTML."""
    prompt = str(trace.request.get("prompt", ""))
    lines = [title(trace.request), model_name(trace.model), f"“{prompt if len(prompt) <= 90 else prompt[:89] + '…'}”"]
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines if line)
