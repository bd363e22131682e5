"""The app's named endpoints, for programs (gradio_client, plain HTTP) and for agents (MCP): the same runs as the page's.

Every run waits in the same line as the visitors' and is held against the same limits.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import gradio as gr

from nemodiff_core.errors import NemodiffError, RequestError
from nemodiff_core.metrics import summary
from nemodiff_core.request import DecodeRequest, parse_request
from nemodiff_core.serving.manifest import Features
from nemodiff_core.trace_reader import from_data

from ui.jobs import Job, decode
from ui.messages import documents
from ui.naming import title
from ui.progress import Answer, Progress, Writing
from ui.race import FEWEST, LANES, Race
from ui.remotes import is_remote

Mode = Literal["ar", "diffusion", "linear_spec", "quadratic_spec"]
USUAL_TOKENS = 128
_log = logging.getLogger(__name__)


class Run(Answer):
    """What decode, refine and infill answer, again and again while they run; the last answer is whole."""

    state: str  # waiting, running or done
    said: str  # of the waiting


class Lanes(TypedDict):
    """What race answers, as above."""

    state: str
    said: str
    lanes: list[Answer]


@dataclass(frozen=True)
class _Asked:
    """One lane: what it is to do and on which model, "" being the page's own."""

    request: DecodeRequest
    model: str


class Endpoints:
    """What is published; the docstrings are what clients and agents are told."""

    def __init__(self, app: Any) -> None:
        self._app, self._race = app, Race(app.models, app.remotes)

    def decode(
        self,
        prompt: str,
        request: gr.Request,
        mode: Mode = "diffusion",
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        settings: dict[str, Any] | None = None,
        model: str = "",
        with_trace: bool = False,
    ) -> Iterator[Run]:
        """Answer a prompt with a language model that can write token by token or by refining blocks of masked text.

        Answers repeatedly while it runs, with the text so far; the last answer has the figures: tokens per second, NFE, TPF.

        Args:
            prompt: What the model is to answer, sent as one chat message.
            mode: How to decode: ar (one token a forward), diffusion (blocks refined in parallel), linear_spec or quadratic_spec (self-speculation, which at temperature 0 writes exactly what ar writes).
            max_new_tokens: Longest answer; as long as this host usually allows, where it is left out.
            temperature: 0 takes the most likely token.
            seed: For repeatable sampling; acts only above temperature 0.
            settings: Further knobs by name, such as block_length, threshold, steps, policy, top_p, candidates, chat, deadline_s.
            model: A name of a model that this host offers; empty for its own.
            with_trace: Also give the record of every step (long).
        """
        fields = {**self._settings(settings), "prompt": prompt, "mode": mode, "temperature": temperature, "seed": seed}
        yield from self._run([_Asked(self._request(fields, max_new_tokens), model)], request, with_trace)

    def refine(
        self,
        draft: str,
        request: gr.Request,
        prompt: str = "Rewrite this text without mistakes.",
        seed: int = 0,
        settings: dict[str, Any] | None = None,
        model: str = "",
        with_trace: bool = False,
    ) -> Iterator[Run]:
        """Revise a draft in place: tokens that the model doubts are masked and written again, the others stay.

        Answers repeatedly while it runs; the last answer has the revised text and its figures.

        Args:
            draft: The text to revise.
            prompt: What the text answers, or what is wanted of it.
            seed: For repeatable sampling; acts only above temperature 0.
            settings: Further knobs by name: revise_rounds, revise_bound (causal probability under which a token is doubted), block_length, threshold, temperature.
            model: A name of a model that this host offers; empty for its own.
            with_trace: Also give the record of every step (long).
        """
        fields = {"revise_rounds": 8, **self._settings(settings), "prompt": prompt, "mode": "refine", "draft": draft, "seed": seed}
        yield from self._run([_Asked(self._request(fields, self._app.limits.max_new_tokens), model)], request, with_trace)

    def infill(
        self,
        template: str,
        request: gr.Request,
        prompt: str = "Fill in the gaps.",
        seed: int = 0,
        settings: dict[str, Any] | None = None,
        model: str = "",
        with_trace: bool = False,
    ) -> Iterator[Run]:
        """Fill the gaps of a text; everything else stays as it is. Of a JSON template every filling is valid JSON.

        Answers repeatedly while it runs; the last answer has the whole text and its figures.

        Args:
            template: The text, with one ▢ for every token to be filled in, or ▢{3} for three, or ▢{1,4} to let the model choose a length.
            prompt: What is wanted in the gaps.
            seed: For repeatable sampling; acts only above temperature 0.
            settings: Further knobs by name: block_length, threshold, steps, temperature.
            model: A name of a model that this host offers; empty for its own.
            with_trace: Also give the record of every step (long).
        """
        fields = {**self._settings(settings), "prompt": prompt, "mode": "infill", "template": template, "seed": seed}
        yield from self._run([_Asked(self._request(fields, self._app.limits.max_new_tokens), model)], request, with_trace)

    def race(
        self,
        prompt: str,
        request: gr.Request,
        lanes: list[dict[str, Any]] | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        with_traces: bool = False,
    ) -> Iterator[Lanes]:
        """Answer one prompt in several ways, one after another on the same device, and compare their texts and speeds.

        Answers repeatedly while it runs; the last answer has every lane's text and figures, and whether self-speculation wrote exactly what ar wrote.

        Args:
            prompt: What the lanes are to answer.
            lanes: Two or more objects of settings, such as {"mode": "ar"} or {"mode": "diffusion", "threshold": 0.7}; "model" names another model or a remote server of this host. Left out: ar, diffusion and linear_spec.
            max_new_tokens: Longest answer of every lane; as long as this host usually allows, where it is left out.
            temperature: Of every lane; 0 takes the most likely token.
            seed: Of every lane; acts only above temperature 0.
            with_traces: Also give the record of every step of every lane (long).
        """
        yield from self._race_of(prompt, lanes, {"temperature": temperature, "seed": seed}, max_new_tokens, request, with_traces)

    def trace_metrics(self, trace: dict[str, Any]) -> dict[str, Any]:
        """Compute the figures of a recorded run: tokens, NFE, TPF, acceptance length, tokens per second, time by phase.

        Args:
            trace: A trace as this app saves it (schema nemodiff.trace/1 or /2), as an object.
        """
        with _told(self._app):
            return summary(from_data(trace))

    # -- behind them ----------------------------------------------------------------------------------

    def _settings(self, settings: Any) -> dict[str, Any]:
        with _told(self._app):
            if settings is not None and not isinstance(settings, Mapping):
                raise RequestError("settings must be an object of named knobs; leave it out to use the usual ones.")
            return dict(settings or {})

    def _request(self, fields: Mapping[str, Any], max_new_tokens: Any) -> DecodeRequest:
        usual = min(USUAL_TOKENS, self._app.limits.max_new_tokens)
        with _told(self._app):
            return parse_request({"max_new_tokens": usual if max_new_tokens is None else max_new_tokens, **fields})

    def _race_of(
        self, prompt: str, lanes: Any, general: Mapping[str, Any], max_new_tokens: Any, visitor: gr.Request, with_traces: bool
    ) -> Iterator[Lanes]:
        plans = [{"mode": mode} for mode in LANES] if lanes is None else lanes
        with _told(self._app):
            most = self._app.limits.max_lanes
            if not isinstance(plans, list) or not FEWEST <= len(plans) <= most or not all(isinstance(plan, Mapping) for plan in plans):
                raise RequestError(f"A race has {FEWEST} to {most} lanes, each an object of settings; give so many.")
        asked = []
        for plan in plans:
            model = str(plan.get("model") or "")
            fields = {"mode": "ar"} if is_remote(model) else {key: value for key, value in plan.items() if key != "model"}
            asked.append(_Asked(self._request({**general, **fields, "prompt": prompt}, max_new_tokens), model))
        with _told(self._app):
            job = Job(tuple(self._race.lane((lane.model, lane.request), self._app.limits) for lane in asked))
        for state, said, answers in self._perform(job, asked, "", visitor, with_traces):
            yield {"state": state, "said": said, "lanes": answers}

    def _run(self, asked: Sequence[_Asked], visitor: gr.Request, with_trace: bool) -> Iterator[Run]:
        (lane,) = asked
        with _told(self._app):
            self._app.models.loader(lane.model)
            job = decode([lane.request], self._app.limits)
        for state, said, (answer,) in self._perform(job, asked, lane.model, visitor, with_trace):
            if answer["problem"] and state == "done":
                raise gr.Error(answer["problem"], print_exception=False)
            yield {"state": state, "said": said, **answer}

    def _perform(
        self, job: Job, asked: Sequence[_Asked], model: str, visitor: gr.Request, with_traces: bool
    ) -> Iterator[tuple[str, str, list[Answer]]]:
        """Do a job in its turn: (state, what is said of the waiting, the lanes as they stand)."""
        app = self._app
        progress = Progress([self._writing(lane, model) for lane in asked])
        said = ""
        with _told(app):
            record = app.begin(job, visitor.session_hash, model)
            for message, words in app.perform(record):
                said = said if words is None else words
                if message is not None:
                    progress.take(message)
                if not app.behind(record.owner):
                    yield "waiting" if message is None else "running", said, [lane.answer() for lane in progress.lanes]
        traces: Sequence[dict[str, Any] | None] = [None] * len(asked)
        if with_traces:
            # A lane that failed has no trace; those behind it have not begun.
            traces = [*documents(record), *traces][: len(asked)]
        began = any(lane.tail or lane.problem for lane in progress.lanes)
        yield "done", "" if began else said, [lane.answer(trace) for lane, trace in zip(progress.lanes, traces)]

    def _writing(self, lane: _Asked, chosen: str) -> Writing:
        if is_remote(lane.model):
            return Writing(lane.model, lambda: None)
        return Writing(title(lane.request.model_dump()), lambda: self._app.models.ready(lane.model or chosen))


@contextmanager
def _told(app: Any) -> Iterator[None]:
    """Errors for people become errors that clients are shown; whatever else fails is the server's own."""
    try:
        yield
    except NemodiffError as error:
        app.meters.refused(error)
        raise gr.Error(str(error), print_exception=False) from error


def publish(app: Any) -> None:
    """Add the endpoints to the page that is being built."""
    endpoints = Endpoints(app)
    for method, answer in ((endpoints.decode, Run), (endpoints.race, Lanes), (endpoints.refine, Run), (endpoints.infill, Run)):
        # No limit of Gradio's: every call waits in the app's own line.
        gr.api(_typed(method, answer), api_name=method.__name__, concurrency_id="device", concurrency_limit=None)
    gr.api(endpoints.trace_metrics, api_name="trace_metrics")


def _typed(method: Any, answer: type) -> Any:
    """A generator whose declared answer is what it yields, which is how Gradio describes endpoints."""

    @functools.wraps(method)
    def call(*values: Any) -> Any:
        yield from method(*values)

    call.__signature__ = inspect.signature(method).replace(return_annotation=answer)
    return call


def serves_agents(features: Features) -> bool:
    """Whether to start the MCP server; says so where it is wanted and cannot be."""
    if not (features.api and features.mcp):
        return False
    if importlib.util.find_spec("mcp") is None:
        _log.warning("Agents are not served, because the package mcp is not installed; install gradio[mcp].")
        return False
    return True
