"""Servers as lanes of a race: only those of the manifest, named as servers, and never taken for a mode."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from nemodiff_core.errors import NemodiffError, RequestError
from nemodiff_core.fork import Intervention, fork
from nemodiff_core.request import DecodeRequest, Limits
from nemodiff_core.serving.manifest import Remote
from nemodiff_core.trace import Trace
from tests.openai_server import CUT, DONE, Server, said, serving, used
from ui import race
from ui.export.frames import Film
from ui.export.html import player_html
from ui.export.tables import metrics_csv, steps_csv
from ui.live import stream
from ui.lossless import identity
from ui.messages import traces_of
from ui.mode_form import DEFAULTS, ModeForm
from ui.naming import title
from ui.race import Race
from ui.remotes import Remotes, is_remote
from ui.runs import RunRecord, RunStore
from ui.votes import Votes

LANES = Limits().max_lanes  # places of the form
GENERAL = {"prompt": "hi", "temperature": 0.0, "max_new_tokens": 8, "stop_at_eos": True, "candidates": 0}
ANSWER = [said("Hi", tokens=[("Hi", 0.5)]), said(" there", tokens=[(" there", 0.9)], finish="stop"), used(4, 2), DONE]


@pytest.fixture(scope="module")
def server() -> Any:
    with serving() as running:
        yield running


@pytest.fixture
def remotes(server: Server) -> Remotes:
    server.answer = lambda body: ANSWER
    fields = {"url": server.url, "model": "org/big"}
    return Remotes([Remote(name="big", title="Big server", **fields), Remote(name="other", **fields), Remote(name="twin", title="other", **fields)], Limits(), {})


@pytest.fixture
def view(remotes: Remotes) -> Race:
    made = Race(SimpleNamespace(names=["tiny"]), remotes)
    made.store = RunStore()
    return made


def form(*lanes: tuple[str, str], as_batch: bool = False, blind: bool = False) -> list[Any]:
    """A race's values; `lanes` are (model, mode)."""
    rest = [["", model, *({**DEFAULTS, "mode": mode}[name] for name in ModeForm.FIELDS)] for model, mode in lanes]
    rest += [rest[0]] * (LANES - len(rest))
    return [[n < len(lanes) for n in range(LANES)], as_batch, blind, "", *(value for lane in rest for value in lane)]


def run(job: Any, engine: Any) -> RunRecord:
    record = RunStore().create("someone", lanes=len(job.lanes))
    list(stream(engine, job.lanes, record))
    return record


def test_every_server_has_a_name_of_its_own(remotes: Remotes):
    assert remotes.names == ["Remote · Big server", "Remote · other", "Remote · other (twin)"]
    assert all(map(is_remote, remotes.names)) and not is_remote("tiny") and not is_remote(None)


def test_a_server_runs_beside_the_model_of_this_host(view: Race, tiny_engine: Any):
    job = view.job(GENERAL, form(("", "ar"), ("Remote · Big server", "diffusion")), Limits())
    here, there = traces_of(run(job, tiny_engine))
    assert (here.request["mode"], there.request["mode"], there.output.pieces) == ("ar", "remote", ["Hi", " there"])
    assert identity([here, there], 1) is None and identity([there, here], 1) is None, "losslessness is claimed of one model's modes"
    assert title(there.request) == "Remote · Big server"


def test_hidden_knobs_do_not_refuse_a_server_and_real_limits_do(view: Race):
    values = form(("Remote · Big server", "diffusion"), ("", "ar"))
    at = 4 + 2 + ModeForm.FIELDS.index("block_length")
    values[at] = 64
    view.job(GENERAL, values, Limits(max_block_length=32))
    with pytest.raises(RequestError, match="max_new_tokens"):
        view.job({**GENERAL, "max_new_tokens": 2000}, form(("Remote · Big server", "ar"), ("", "ar")), Limits(max_new_tokens=2000))


def test_a_server_that_failed_leaves_the_other_lanes_to_run(view: Race, server: Server, tiny_engine: Any):
    server.answer = lambda body: [said("Hi"), CUT]
    job = view.job(GENERAL, form(("Remote · Big server", "ar"), ("", "ar")), Limits())
    failed, other = traces_of(run(job, tiny_engine))
    assert (failed.stop_reason, failed.output.pieces, other.stop_reason) == ("error", ["Hi"], "length")
    assert failed.environment["remote"]["problem"].startswith("Big server ")


@pytest.mark.parametrize("name", ["Remote · Evil", "Remote · ", "Remote · http://127.0.0.1/"])
def test_other_servers_cannot_be_asked(view: Race, name: str):
    with pytest.raises(NemodiffError, match="does not offer that server"):
        view.job(GENERAL, form((name, "ar"), ("", "ar")), Limits())


def test_a_batch_has_no_servers_and_blind_lanes_may(view: Race):
    with pytest.raises(RequestError, match="one model"):
        view.job(GENERAL, form(("", "ar"), ("Remote · Big server", "ar"), as_batch=True), Limits())
    assert view.job(GENERAL, form(("", "ar"), ("Remote · Big server", "ar"), blind=True), Limits()).blind is not None


def test_lanes_are_called_what_they_are():
    names = race._names([True, True], ["", "tiny", *(DEFAULTS[n] for n in ModeForm.FIELDS), "", "Remote · Big server", *(DEFAULTS[n] for n in ModeForm.FIELDS)])
    assert names == ["Lane 1 · Block diffusion · threshold 0.9 · block 16", "Lane 2 · Remote · Big server"]


@pytest.fixture
def answered(remotes: Remotes) -> Callable[[str], Trace]:
    def ask(name: str, **fields: Any) -> Trace:
        made = remotes.lane(name, DecodeRequest(prompt="hi", mode="ar", max_new_tokens=8, **fields))(None, threading.Event())
        list(made)
        return made.trace()

    return ask


def test_votes_tell_two_servers_apart_that_serve_one_model(answered: Callable[..., Trace], tmp_path: Any):
    votes = Votes(tmp_path)
    lanes = [{"model": t.model, "request": t.request} for t in (answered("Remote · Big server"), answered("Remote · other"))]
    votes.add("run", "hi", lanes, [0])
    assert [(score.setting, score.best) for score in votes.scores()] == [("Remote · Big server", 1), ("Remote · other", 0)]


def test_exports_say_nothing_of_forwards(answered: Callable[..., Trace]):
    trace = answered("Remote · Big server")
    head, row = metrics_csv([trace]).splitlines()
    figures = dict(zip(head.split(","), row.split(",")))
    assert (figures["nfe"], figures["tpf"], figures["forwards"], figures["ar_phase_seconds"]) == ("", "", "", "")
    assert (figures["chunks"], figures["tokens"], figures["prompt_tokens"]) == ("2", "2", "4")
    assert "chunk" in steps_csv([trace]).splitlines()[1]
    assert "Remote · Big server" in player_html([trace])
    assert sum(1 for _ in Film([trace]).frames()) == 3


def test_a_servers_answer_is_not_gone_on_with_here(answered: Callable[..., Trace], tiny_engine: Any):
    trace = answered("Remote · Big server")
    trace.model["id"] = tiny_engine.checkpoint.id  # the same checkpoint, but not its tokens
    with pytest.raises(RequestError, match="a server's answer"):
        fork(tiny_engine, trace, Intervention(0, changes={"mode": "ar"}))
    with pytest.raises(NemodiffError, match="a server's answer"):
        tiny_engine.regret(trace)
