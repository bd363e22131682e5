"""The Budget view: exact answers against speed, a point a setting, what the hardware leaves room for, and what was measured."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from nemodiff_core.analysis.devices import Device, known_device
from nemodiff_core.analysis.released import RELEASED
from nemodiff_core.analysis.roofline import Geometry
from nemodiff_core.analysis.tasks import FAMILIES
from nemodiff_core.errors import NemodiffError, RequestError

from ui import plane, roofs, sweeps
from ui.benchmarks import Benchmarks
from ui.chart_component import Chart, message
from ui.jobs import Job
from ui.messages import write_traces
from ui.mode_form import MODES
from ui.opening import FOLDER, PREFIX, SWEEP
from ui.parts import FOLD_ON_PHONES, QUIET, as_object, notice, slider, whole
from ui.routes import SWEEP_ROUTE
from ui.runs import RunRecord
from ui.shell import PLAYER_ID
from ui.sweeps import Plan, Results

RECORDED_ID = PREFIX + "sweep"
HERE = "here"  # the geometry of the app's own checkpoint
MOST_PROMPTS = 12  # a family
RATE_S = 0.4  # between two drawings of the growing chart
PATIENCE_S = 20.0  # for the device, when it is to be probed
_CONTEXTS = [256, 1024, 4096, 16384, 65536]
_NO_ROOF = "These are no settings of a roofline; choose them in the form."
_NO_SWEEPS = "This host runs no sweeps; look at the recorded one, or run nemodiff on your own machine."
_NONE = Results(sweeps.Grid((), (), 0))
# The reader asked for the run, so the page may go there.
_SHOW_PLAYER = """
() => {
  const still = window.matchMedia('(prefers-reduced-motion: reduce)').matches;
  document.getElementById('@ID@')?.scrollIntoView({ behavior: still ? 'auto' : 'smooth', block: 'start' });
}
""".replace("@ID@", PLAYER_ID)


class Budget:
    """See ui/view.py."""

    name, run_label, panel = "Budget", None, None

    # -- what stands where ----------------------------------------------------------------------------

    def board(self, app: Any) -> None:
        """Charts and tables above the player, filled with the recorded sweep and a first prediction."""
        self.app, self.inputs = app, []
        self._host: Device | None = None
        self._probing = threading.Lock()
        recorded = FOLDER / SWEEP
        self.recorded = sweeps.read(recorded) if recorded.is_file() else _NONE
        app.store.keep(RunRecord(RECORDED_ID, None, ended=True, sweep=self.recorded))
        self.sweep = gr.State(RECORDED_ID)
        first = next((shown.key for shown in self.recorded.shown() if shown.point.front), "")
        with gr.Column(elem_id="nd-plane-card", elem_classes="nd-card"):
            gr.HTML("<h2>Speed and quality</h2>", elem_classes="nd-card-title")
            self.plane = Chart(self._plane(RECORDED_ID, first), elem_id="nd-plane", group="settings")
        with gr.Column(elem_id="nd-roof-card", elem_classes="nd-card"):
            gr.HTML("<h2>Roofline</h2>", elem_classes="nd-card-title")
            self.device = gr.Dropdown(roofs.devices(), value="h200", label="Device", filterable=False, elem_id="nd-roof-device")
            with gr.Row(elem_classes="nd-pair"):
                geometries = [(self._own(), HERE), *((name, name) for name in RELEASED)]
                self.geometry = gr.Dropdown(
                    geometries, value=list(RELEASED)[1], label="Checkpoint", filterable=False, elem_id="nd-roof-model"
                )
                self.context = gr.Dropdown(
                    [(f"{n:,}", n) for n in _CONTEXTS], value=1024, label="Context", filterable=False, elem_id="nd-roof-context"
                )
            with gr.Row(elem_classes="nd-pair"):
                self.streams = slider(1, 256, value=1, step=1, label="Streams", elem_id="nd-roof-streams")
                self.tpf = slider(1.0, 16.0, value=3.4, step=0.1, label="TPF", elem_id="nd-roof-tpf")
            self.roof = Chart(self.predict("h200", list(RELEASED)[1], 1, 3.4, 1024, RECORDED_ID), elem_id="nd-roof")
        with gr.Column(elem_id="nd-table-card", elem_classes="nd-card"):
            self.table = Chart(self._table(RECORDED_ID, first), elem_id="nd-sweep-table", group="settings")
        with gr.Column(elem_id="nd-runs-card", elem_classes="nd-card"):
            self.runs = Chart(message(plane.runs_table(self.recorded, first)), elem_id="nd-runs")
        self.benchmarks = Benchmarks()
        self.benchmarks.board()

    def build(self, limits: Any) -> None:
        blocks = [size for size in (4, 8, 16, 32, 64) if size <= limits.max_block_length]
        families = [(family.title, name) for name, family in FAMILIES.items()]
        most = max(1, min(MOST_PROMPTS, limits.max_sweep_runs // 4))
        offered = self.app.features.sweeps
        if not offered:
            gr.HTML(f"<p>{_NO_SWEEPS}</p>", elem_id="nd-no-sweeps")
        with gr.Row(visible=offered, elem_id="nd-sweep-row"):
            self.start = gr.Button("Run sweep", variant="primary", elem_id="nd-sweep-run")
            self.stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="nd-sweep-stop")
        self.progress = gr.HTML("", visible=offered, elem_id="nd-sweep-progress")
        with gr.Accordion("What to run", visible=offered, elem_id="nd-sweep-what") as self.what:
            self.modes = gr.CheckboxGroup(MODES, value=[mode for _, mode in MODES], label="Modes", elem_id="nd-sweep-modes")
            self.thresholds = gr.CheckboxGroup(
                [0.99, 0.95, 0.9, 0.8, 0.7, 0.5], value=[0.9, 0.7, 0.5], label="Thresholds", elem_id="nd-sweep-thresholds",
                info="Of block diffusion: confidence at which a cell commits",
            )  # fmt: skip
            self.steps = gr.CheckboxGroup([8, 4, 2, 1], value=[2], label="Steps per block", elem_id="nd-sweep-steps", info="Of block diffusion: an even schedule")
            self.revisions = gr.CheckboxGroup(
                [("Never", 0.0), ("Below 0.05", 0.05), ("Below 0.3", 0.3)], value=[0.0], label="Revision", elem_id="nd-sweep-revisions",
                info="Causal probability under which a token is chosen again",
            )  # fmt: skip
            self.blocks = gr.CheckboxGroup(blocks, value=[16] if 16 in blocks else blocks[-1:], label="Block lengths", elem_id="nd-sweep-blocks")
            self.families = gr.CheckboxGroup(families, value=list(FAMILIES), label="Tasks", elem_id="nd-sweep-families", info="Every answer is checked exactly")
            self.prompts = slider(1, most, value=min(2, most), step=1, label="Prompts per task", elem_id="nd-sweep-prompts")
            self.limit = gr.Checkbox(
                False, label="Oracle limit", elem_id="nd-sweep-limit", info="The fewest forwards that write the same answers; every search costs hundreds"
            )
        self.asked = [self.families, self.prompts, self.modes, self.thresholds, self.steps, self.revisions, self.blocks, self.limit]

    def connect(self, shell: Any) -> None:
        shell.page.load(None, None, self.what, js=FOLD_ON_PHONES, **QUIET)
        self.progress.value = self.estimate(*(part.value for part in self.asked))[0]
        gr.on([part.input for part in self.asked], self.estimate, self.asked, [self.progress, self.start], **QUIET)
        board = [self.plane, self.table]
        load = [self.device, self.geometry, self.streams, self.tpf, self.context, self.sweep]
        gr.on(
            [self.start.click], self.prepare, [shell.picker.choice, *self.asked],
            [self.sweep, self.start, self.stop, self.progress, shell.notice, self.runs, *board], **QUIET,
        ).success(
            self.run, self.sweep, [self.progress, shell.notice, *board], concurrency_id="sweep", concurrency_limit=1,
            api_visibility="private", show_progress="hidden",
        ).then(self.finish, self.sweep, [self.start, self.stop], **QUIET).then(self.predict, load, self.roof, **QUIET)  # fmt: skip
        self.stop.click(self.app.stop, None, None, **QUIET)

        for chart in (self.plane, self.table):
            chart.pick(self.choose, self.sweep, self.runs, **QUIET)
        self.runs.pick(self.open, [self.sweep, shell.last], [shell.player, shell.last, shell.notice], **QUIET).then(
            None, None, None, js=_SHOW_PLAYER, **QUIET
        )
        self.benchmarks.connect(shell)
        # A sweep that begins takes the runs of the one before off the roofline.
        changes = [self.device.input, self.geometry.input, self.streams.change, self.tpf.change, self.context.input, self.sweep.change]
        gr.on(changes, self.predict, load, self.roof, trigger_mode="always_last", **QUIET)

    def job(self, general: dict[str, Any], values: Sequence[Any], limits: Any) -> Job:
        raise RequestError("This view has no single run; press Run sweep.")

    # -- the sweep ------------------------------------------------------------------------------------

    def estimate(self, *values: Any) -> list[Any]:
        """What the form asks for, before it runs, and whether it can."""
        try:
            plan = plan_of(values)
            plan.grid(self.app.limits)
        except NemodiffError as error:
            return [_line(str(error)), gr.update(interactive=False)]
        settings, runs = len(plan.settings()), plan.count()
        words = f"{settings} {'setting' if settings == 1 else 'settings'} on {runs // settings} prompts: {runs} runs"
        seconds = sweeps.estimate(plan, [self.recorded])
        if seconds is not None:
            words += f", about {_duration(seconds)} at the speed of the recorded sweep"
        return [_line(words + "."), gr.update(interactive=True)]

    def prepare(self, model: str, request: gr.Request, *values: Any) -> list[Any]:
        """Check what is asked for, and make the sweep's record, so that Stop works from the first moment."""
        try:
            self.app.closing.check()
            if not self.app.features.sweeps:
                raise RequestError(_NO_SWEEPS)
            plan = plan_of(values)
            grid = plan.grid(self.app.limits)
        except NemodiffError as error:
            raise gr.Error(str(error), print_exception=False) from error
        record = self.app.store.create(request.session_hash, sweep=Results(grid, plan.limit))
        record.model = model
        busy, free = gr.update(interactive=False), gr.update(interactive=True)
        waiting = _line("Waiting for its turn: one sweep runs at a time.", 0, record.sweep.total)
        return [record.id, busy, free, waiting, "", message(plane.runs_table(_NONE, "")), self._plane(record.id), self._table(record.id)]

    def run(self, sweep_id: str) -> Iterator[list[Any]]:
        """Do a prepared sweep: (progress, notice, chart, table) as its runs finish."""
        record = self.app.store.get(sweep_id)
        results, began, drawn = record.sweep, time.monotonic(), 0.0
        quiet: list[Any] = [gr.skip()] * 3
        try:
            if self.app.models.ready(record.model) is None:
                yield [_line("The model is still loading; the sweep starts by itself.", 0, results.total), *quiet]
            with self.app.models.lease(record.model, record.stop) as engine:
                began = time.monotonic()
                for _ in self._in_turn(results.run(engine, record.stop), record):
                    if time.monotonic() - drawn >= RATE_S:
                        drawn = time.monotonic()
                        yield [_going(results, drawn - began), gr.skip(), self._plane(sweep_id), self._table(sweep_id)]
            yield [_ended(results, time.monotonic() - began), gr.skip(), self._plane(sweep_id), self._table(sweep_id)]
        except NemodiffError as error:
            said = gr.skip() if record.stop.is_set() else notice(str(error))
            yield [_ended(results, time.monotonic() - began), said, self._plane(sweep_id), self._table(sweep_id)]
        finally:
            record.stop.set()
            record.ended = True

    def _in_turn(self, rows: Iterator[None], record: RunRecord) -> Iterator[None]:
        """The runs of a sweep, each with a turn of its own, so that others wait for one run and not for the sweep."""
        end = object()
        while True:
            with self.app.line.turn(record.owner, record.stop.is_set, counted=False):
                if next(rows, end) is end:
                    return
            yield

    def finish(self, sweep_id: str) -> list[Any]:
        """The buttons once a sweep is over, however it ended."""
        record = self._record(sweep_id)
        record.ended = True
        return [gr.update(interactive=True), gr.update(interactive=False)]

    # -- its runs -------------------------------------------------------------------------------------

    def choose(self, sweep_id: str, event: gr.EventData) -> str:
        """The runs of a chosen point or row."""
        return message(plane.runs_table(self._record(sweep_id).sweep, str(as_object(event._data).get("key"))))

    def open(self, sweep_id: str, last: dict[str, str], request: gr.Request, event: gr.EventData) -> list[Any]:
        """The trace of a chosen run, for the player."""
        try:
            trace = self._record(sweep_id).sweep.trace(str(as_object(event._data).get("key")))
        except NemodiffError as error:
            return [gr.skip(), gr.skip(), notice(str(error))]
        record = self.app.store.create(request.session_hash)
        write_traces(record, [trace])
        return [record.log[-1], {**last, self.name: record.id}, ""]

    def _record(self, sweep_id: str) -> Any:
        try:
            return self.app.store.get(sweep_id)
        except NemodiffError:  # forgotten after an hour
            return self.app.store.get(RECORDED_ID)

    def _plane(self, sweep_id: str, selected: str | None = None) -> str:
        results = self._record(sweep_id).sweep
        return message({**plane.plane(results, results is self.recorded), "selected": selected})

    def _table(self, sweep_id: str, selected: str | None = None) -> str:
        table = plane.settings_table(self._record(sweep_id).sweep, f"{SWEEP_ROUTE}/{sweep_id}.csv")
        return message({**table, "selected": selected})

    # -- the roofline ---------------------------------------------------------------------------------

    def predict(self, device: str, model: str, streams: float, tpf: float, context: int, sweep_id: str) -> str:
        """The roofline for the panel's controls, or the sentence that says why there is none."""
        try:
            if not (isinstance(device, str) and isinstance(model, str)):
                raise RequestError(_NO_ROOF)
            geometry, block = self._geometry(model)
            host = device == roofs.HOST
            found = self._probe(geometry) if host else known_device(device)
            try:
                load = int(streams), float(tpf), int(context)
            except (TypeError, ValueError, OverflowError) as error:
                raise RequestError(_NO_ROOF) from error
            ask = roofs.Question(found, roofs.fitting(geometry, found), block, *load)
            return message(roofs.panel(ask, self._measured_here(sweep_id, ask.geometry) if host else None))
        except NemodiffError as error:
            return message({"note": str(error)})

    def _own(self) -> str:
        source = self.app.loader.choice.source
        return "The bundled model" if source is None else source.rstrip("/").rpartition("/")[2]

    def _geometry(self, model: str) -> tuple[Geometry, int]:
        """Geometry and block length. Raises NemodiffError."""
        if model in RELEASED:
            return Geometry.of(RELEASED[model]), RELEASED[model].block_size
        engine = self._engine()
        config = engine.checkpoint.config
        return Geometry.of(config, engine.describe()["dtype"]), config.block_size

    def _engine(self) -> Any:
        return self.app.models.present(None)

    def _probe(self, geometry: Geometry) -> Device:
        """This host, measured once, while no run has the device. Raises NemodiffError."""
        engine = self._engine()
        with self._probing:
            if self._host is None:
                own, _ = self._geometry(HERE)
                self._host = engine.probe(own.weight_bytes, PATIENCE_S)
        return self._host

    def _measured_here(self, sweep_id: str, geometry: Geometry) -> Results | None:
        """The sweep that is shown, where it ran on this host and on a model of this geometry."""
        results = self._record(sweep_id).sweep
        same = (geometry.parameters, geometry.dtype) == (results.model.get("parameters"), results.model.get("dtype"))
        return results if same and results.hardware == self._engine().environment()["hardware"] else None


def plan_of(values: Sequence[Any]) -> Plan:
    """The plan that the form asks for. Raises RequestError for values that no form sends."""
    try:
        families, prompts, modes, thresholds, steps, revisions, blocks, limit = values
        plan = Plan(
            tuple(name for name in FAMILIES if name in families),
            int(prompts),
            tuple(mode for _, mode in MODES if mode in modes),
            tuple(sorted(map(float, thresholds), reverse=True)),
            tuple(sorted(map(int, steps), reverse=True)),
            tuple(sorted(map(float, revisions))) or (0.0,),
            tuple(sorted(whole(size) for size in blocks)),
            bool(limit),
        )
    except (TypeError, ValueError) as error:
        raise RequestError("These are no settings of a sweep; choose them in the form.") from error
    if plan.per_family > MOST_PROMPTS:
        raise RequestError(f"At most {MOST_PROMPTS} prompts of a task can run; choose fewer.")
    return plan


def _line(words: str, done: int | None = None, total: int = 0) -> str:
    bar = "" if done is None else f'<progress max="{total}" value="{done}" aria-label="Runs done"></progress>'
    return f'{bar}<p role="status">{html.escape(words)}</p>'


def _going(results: Results, elapsed: float) -> str:
    done = len(results.rows)
    if done == results.total:
        return _line(f"The oracle searches: {len(results.limit)} of {len(results.grid.prompts)} answers.", done, results.total)
    left = elapsed / done * (results.total - done)
    return _line(f"{done} of {results.total} runs, about {_duration(left)} left.", done, results.total)


def _ended(results: Results, elapsed: float) -> str:
    done = len(results.rows)
    words = f"{done} runs in {_duration(elapsed)}." if done == results.total else f"Stopped: {done} of {results.total} runs are kept."
    return _line(words, done, results.total)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"
