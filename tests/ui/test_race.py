"""Lanes of every kind become jobs; losslessness is computed over any of them; blind races hide the order."""

from __future__ import annotations

import gzip
import json
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nemodiff_core.errors import NemodiffError, RequestError
from nemodiff_core.request import Limits
from nemodiff_core.trace import Candidates, TokenText, Trace
from ui import blind, race
from ui.jobs import Job, elsewhere, recorded
from ui.live import stream
from ui.loader import ModelChoice
from ui.lossless import identity, verdicts
from ui.messages import documents, traces_of, write_traces
from ui.mode_form import DEFAULTS, ModeForm
from ui.models import Models
from ui.naming import title
from ui.race import LaneForm, Race
from ui.runs import RunStore
from ui.votes import Votes

GENERAL = {"prompt": "hi", "temperature": 0.0, "max_new_tokens": 3, "stop_at_eos": True, "candidates": 0}
LIMITS = Limits()


MOST = Limits().max_lanes


def lane(opened: str = "", model: str = "", **form: Any) -> list[Any]:
    values = {**DEFAULTS, **form}
    return [opened, model, *(values[name] for name in ModeForm.FIELDS)]


def values(*lanes: list[Any], as_batch: bool = False, blind_race: bool = False, prompts: str = "") -> list[Any]:
    rest = [*lanes, *[lane()] * (MOST - len(lanes))]
    return [[n < len(lanes) for n in range(MOST)], as_batch, blind_race, prompts, *(value for each in rest for value in each)]


class FakeEngine:
    """Says what it was asked, and answers with a trace of its own."""

    def __init__(self, answer: Trace) -> None:
        self.answer, self.asked = answer, []
        self.checkpoint = SimpleNamespace(tokenizer=SimpleNamespace(piece=lambda i: f"<{i}>"))

    def run(self, request: Any, stop: threading.Event) -> Any:
        self.asked.append(request)
        return recorded(replace(self.answer, request={**self.answer.request, "mode": request.mode}))(self, stop)


@pytest.fixture
def view() -> Race:
    made = Race(SimpleNamespace(names=["tiny", "big"]))
    made.store = RunStore()
    return made


def asked(job: Job, engine: FakeEngine) -> list[Any]:
    for start in job.lanes:
        start(engine, threading.Event())
    return engine.asked


# -- the form ------------------------------------------------------------------------------------------


def test_lanes_are_run_as_the_form_says(view: Race, traces: dict[str, Trace]):
    form = values(lane(mode="ar"), lane(threshold=0.7, revise=True), lane(mode="quadratic_spec", block_length=8), lane(mode="linear_spec", adapter=False))
    requests = asked(view.job(GENERAL, form, LIMITS), FakeEngine(traces["ar"]))
    assert [r.mode for r in requests] == ["ar", "diffusion", "quadratic_spec", "linear_spec"]
    assert (requests[1].threshold, requests[1].revise_rounds > 0, requests[2].block_length, requests[3].adapter) == (0.7, True, 8, False)


def test_lanes_that_were_removed_do_not_run(view: Race, traces: dict[str, Trace]):
    form = values(lane(mode="ar"), lane(), lane(mode="linear_spec"))
    form[0] = [True, False, True, False]
    assert [r.mode for r in asked(view.job(GENERAL, form, LIMITS), FakeEngine(traces["ar"]))] == ["ar", "linear_spec"]


def test_a_race_needs_two_lanes_and_keeps_the_hosts_limits(view: Race):
    with pytest.raises(RequestError, match="2 to 4 lanes"):
        view.job(GENERAL, values(lane()), LIMITS)
    with pytest.raises(RequestError, match="block_length"):
        view.job(GENERAL, values(lane(mode="ar"), lane(block_length=64)), Limits(max_block_length=32))


def test_lanes_of_a_batch_share_their_forwards_and_say_so(view: Race, tiny_engine: Any):
    job = view.job(GENERAL, values(lane(mode="ar"), lane(block_length=4), lane(mode="linear_spec", block_length=4), as_batch=True), LIMITS)
    record = view.store.create("me", lanes=len(job.lanes))
    messages = [json.loads(text) for text in stream(tiny_engine, job.lanes, record)]
    assert [m["lane"] for m in messages if m["type"] == "open"] == [0, 1, 2]
    assert max(n for n, m in enumerate(messages) if m["type"] == "open") < min(n for n, m in enumerate(messages) if m["type"] == "end")
    finished = traces_of(record)
    assert [trace.environment["batch"] for trace in finished] == [3, 3, 3]
    assert [trace.request["mode"] for trace in finished] == ["ar", "diffusion", "linear_spec"]
    assert finished[0].output.ids == finished[2].output.ids


def test_a_batch_that_fails_says_why(view: Race, tiny_engine: Any):
    job = view.job({**GENERAL, "max_new_tokens": 2000}, values(lane(mode="ar"), lane(mode="linear_spec"), as_batch=True), Limits(max_new_tokens=4000))
    record = view.store.create("me", lanes=len(job.lanes))
    (fault,) = [json.loads(text) for text in stream(tiny_engine, job.lanes, record)]
    assert fault["type"] == "fault" and "at most 1024" in fault["text"]


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (values(lane(), lane(mode="ar"), as_batch=True, blind_race=True), "untick one"),
        (values(lane(), lane(mode="ar", model="big"), as_batch=True), "one model"),
    ],
)
def test_what_cannot_share_its_forwards_is_refused(view: Race, form: list[Any], says: str):
    with pytest.raises(RequestError, match=says):
        view.job(GENERAL, form, LIMITS)


def test_lanes_come_and_go_but_never_fewer_than_two():
    three = [True, True, True, False]
    assert race._with(three, True) == [True] * 4 == race._with([True] * 4, True)
    assert race._with(three, False, 1) == [True, False, True, False]
    assert race._with([True, False, True, False], True) == three
    assert race._with([True, False, True, False], False, 2) == [True, False, True, False]


def test_titles_say_what_the_lanes_are_and_count_those_shown():
    form = values(lane(mode="ar"), lane(), lane(threshold=0.7, revise=True, model="big"), lane("a-run"))
    names = race._names([True, False, True, True], form[4:])
    assert names == ["Lane 1 · Autoregressive", "Lane 2 · Block diffusion · threshold 0.7 · revised at 0.3 · block 16 · big", "Lane 3 · saved trace"]
    assert race._names([True] * 2, [*lane(mode="ar"), *lane(threshold=None)])[0] == "Lane 1 · Autoregressive"


def test_the_race_the_page_opens_on_is_the_one_the_form_starts_with(view: Race):
    starts = [race.request(GENERAL, {**DEFAULTS, **start}) for start in race._STARTS[:3]]
    assert race.requests(GENERAL) == starts


# -- other checkpoints and saved traces -----------------------------------------------------------------


def test_a_lane_may_run_on_another_checkpoint(view: Race, traces: dict[str, Trace]):
    own, other, wanted = FakeEngine(traces["ar"]), FakeEngine(traces["linear_spec"]), []
    view.models.loader = wanted.append
    view.models.lease = lambda name, stop: nullcontext(other)
    assert [r.mode for r in asked(view.job(GENERAL, values(lane(mode="ar"), lane(mode="ar", model="big")), LIMITS), own)] == ["ar"]
    assert [r.mode for r in other.asked] == ["ar"] and wanted == ["big"]


def test_each_lane_is_told_in_its_own_models_words(traces: dict[str, Trace]):
    other = FakeEngine(traces["linear_spec"])
    other.checkpoint.tokenizer.piece = lambda i: f"[{i}]"
    saved = replace(traces["ar"], vocabulary={key: f"({key})" for key in traces["ar"].vocabulary})
    request = race.request(GENERAL, {**DEFAULTS, "mode": "linear_spec"})
    record = RunStore().create("me", lanes=2)
    list(stream(FakeEngine(traces["ar"]), [recorded(saved), elsewhere(lambda engine, stop: engine.run(request, stop), lambda stop: nullcontext(other))], record))
    first, second = documents(record)
    assert first["vocabulary"]["50"] == "(50)" and second["vocabulary"]["50"] == "[50]"
    assert [json.loads(m)["tail"]["opened"] for m in record.log if json.loads(m)["type"] == "end"] == [True, False]


def test_only_models_that_the_operator_named_are_loaded(tmp_path: Path):
    models = Models((ModelChoice("a/b/tiny"), ModelChoice("x/tiny/"), ModelChoice("y/b/tiny"), ModelChoice(str(tmp_path / "none"))))
    assert models.names[:3] == ["b/tiny", "x/tiny", "b/tiny (3)"]
    with pytest.raises(NemodiffError, match="does not offer"):
        Race(models).job(GENERAL, values(lane(mode="ar"), lane(mode="ar", model="nvidia/other")), LIMITS)
    with pytest.raises(NemodiffError):
        models.lease(models.names[3], threading.Event()).__enter__()


def test_a_saved_trace_takes_a_lane(view: Race, traces: dict[str, Trace], tmp_path: Path):
    path = tmp_path / "saved.json.gz"
    path.write_bytes(gzip.compress(traces["linear_spec"].to_json().encode()))
    run, about, *_ = view._open(str(path), SimpleNamespace(session_hash="me"))
    assert "Self-speculation" in about["value"] and about["visible"]
    job = view.job(GENERAL, values(lane(mode="ar"), lane(run)), LIMITS)
    assert job.lanes[1](None, threading.Event()).trace().id == "hand-linear_spec"
    assert not path.exists()


def test_a_saved_race_or_a_broken_file_is_no_lane(view: Race, traces: dict[str, Trace], tmp_path: Path):
    for content, says in ((b"hello", "not JSON"), (json.dumps({"schema": "nemodiff.race/1", "traces": [t.to_dict() for t in traces.values()]}).encode(), "whole race")):
        path = tmp_path / "file.json"
        path.write_bytes(content)
        *rest, notice = view._open(str(path), SimpleNamespace(session_hash="me"))
        assert says in notice


# -- losslessness ---------------------------------------------------------------------------------------


def rewritten(trace: Trace, token: int, probabilities: tuple[float, ...] = ()) -> Trace:
    """The AR trace with another last token, and what its forward thought of both."""
    *steps, last = trace.steps
    event = replace(last.events[0], token=token)
    seen = (Candidates(event.position, (token, 52), probabilities, 0.5),) if probabilities else ()
    ids = [*trace.output.ids[:-1], token]
    return replace(trace, steps=[*steps, replace(last, events=(event,), candidates=seen)], output=TokenText(ids, [f"<{i}>" for i in ids]))


def test_any_greedy_speculation_is_held_against_any_comparable_ar_lane(traces: dict[str, Trace]):
    ar, spec = traces["ar"], traces["linear_spec"]
    quadratic = replace(spec, request={**spec.request, "mode": "quadratic_spec"})
    other = replace(ar, model={**ar.model, "id": "other"})
    same = {"to_lane": 2, "same": True, "first_divergence": None}
    assert identity([spec, other, ar, quadratic], 0) == identity([spec, other, ar, quadratic], 3) == same
    assert identity([spec, other, ar, quadratic], 2) is None
    assert verdicts([spec, other, ar]) == {"0": same}
    assert verdicts([ar, spec]) == {} == verdicts([spec])


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"max_new_tokens": 9}, {"stop_at_eos": False}])
def test_no_claim_across_settings(traces: dict[str, Trace], change: dict[str, Any]):
    spec = traces["linear_spec"]
    assert identity([traces["ar"], replace(spec, request={**spec.request, **change})], 1) is None
    prompt = TokenText([10, 41], ["<10>", "<41>"])
    assert identity([traces["ar"], replace(spec, prompt=prompt)], 1) is None


def test_the_gap_is_what_ar_thought_of_both_tokens(traces: dict[str, Trace]):
    spec = traces["linear_spec"]
    close = identity([rewritten(traces["ar"], 70, (0.5, 0.25)), spec], 1)
    assert close == {"to_lane": 0, "same": False, "first_divergence": 2, "gap": 0.6931}
    assert identity([rewritten(traces["ar"], 70), spec], 1)["gap"] is None
    assert identity([rewritten(traces["ar"], 70, (0.9, 0.0)), spec], 1)["gap"] is None
    shorter = replace(spec, output=TokenText([50, 51], ["<50>", "<51>"]))
    assert identity([traces["ar"], shorter], 1) == {"to_lane": 0, "same": False, "first_divergence": 2, "gap": None}


# -- blind ----------------------------------------------------------------------------------------------


def blind_record(traces: dict[str, Trace], store: RunStore, prompts: tuple[str, ...] = ("hi",)) -> Any:
    job = blind.Round(prompts, lambda prompt: [recorded(trace) for trace in traces.values()]).job()
    record = store.create("me", lanes=2)
    record.blind = job.blind
    list(stream(FakeEngine(traces["ar"]), job.lanes, record))
    return record


def test_a_blind_race_runs_every_prompt_in_a_random_order(view: Race, traces: dict[str, Trace]):
    form = values(lane(mode="ar"), lane(), lane(mode="linear_spec"), blind_race=True, prompts="one\n\n  two \n")
    orders = set()
    for _ in range(60):
        engine = FakeEngine(traces["ar"])
        job = view.job(GENERAL, form, LIMITS)
        orders.add(tuple(r.mode for r in asked(job, engine)))
        assert {r.prompt for r in engine.asked} == {"one"} and job.blind.told() == {"number": 0, "of": 2, "best": None}
    assert len(orders) == 6
    engine = FakeEngine(traces["ar"])
    following = job.blind.following()
    assert {r.prompt for r in asked(following.job(), engine)} == {"two"} and following.number == 1
    with pytest.raises(NemodiffError, match="last prompt"):
        following.following()


def test_without_a_list_the_shared_prompt_is_asked(view: Race, traces: dict[str, Trace]):
    job = view.job(GENERAL, values(lane(mode="ar"), lane(), blind_race=True), LIMITS)
    assert {r.prompt for r in asked(job, FakeEngine(traces["ar"]))} == {"hi"}
    listed = view.job({**GENERAL, "prompt": ""}, values(lane(), lane(), blind_race=True, prompts="one"), LIMITS)
    assert {r.prompt for r in asked(listed, FakeEngine(traces["ar"]))} == {"one"}


def test_a_list_is_refused_as_a_whole_before_anything_runs(view: Race):
    with pytest.raises(RequestError, match="shorten"):
        view.job(GENERAL, values(lane(), lane(), blind_race=True, prompts="fine\n" + "x" * 30_000), LIMITS)
    with pytest.raises(RequestError, match="at most 50"):
        view.job(GENERAL, values(lane(), lane(), blind_race=True, prompts="a\n" * 51), LIMITS)


def test_a_saved_trace_is_compared_on_its_own_prompt_only(view: Race, traces: dict[str, Trace]):
    record = view.store.create("me")
    write_traces(record, [traces["ar"]])
    view.job(GENERAL, values(lane(record.id), lane(), blind_race=True), LIMITS)
    with pytest.raises(RequestError, match="its own prompt"):
        view.job(GENERAL, values(lane(record.id), lane(), blind_race=True, prompts="other"), LIMITS)


def test_a_vote_is_kept_with_the_order_shown_and_told_from_then_on(traces: dict[str, Trace], tmp_path: Path):
    store, votes = RunStore(), Votes(tmp_path)
    record = blind_record(traces, store)
    assert all(json.loads(m)["blind"] == {"number": 0, "of": 1, "best": None} for m in record.log)
    answer = blind.cast(store, votes, {"run": record.id, "best": [1]})
    assert answer == {"blind": {"number": 0, "of": 1, "best": [1]}} and record.blind.best == [1]
    shown = [document["request"]["mode"] for document in documents(record)]
    by_setting = {score.setting: score.best for score in votes.scores()}
    assert by_setting[title({"mode": shown[1], "block_length": 4})] == 1
    with pytest.raises(NemodiffError, match="nothing to vote on"):
        blind.cast(store, votes, {"run": record.id, "best": [0]})


@pytest.mark.parametrize("best", [None, "0", [2], [-1], [True], [0, 0], [0.5], [[0]]])
def test_a_ballot_that_makes_no_sense_is_refused(traces: dict[str, Trace], tmp_path: Path, best: Any):
    store = RunStore()
    record = blind_record(traces, store)
    with pytest.raises(NemodiffError, match="could not be read"):
        blind.cast(store, Votes(tmp_path), {"run": record.id, "best": best})


def test_open_races_and_unfinished_ones_are_not_voted_on(traces: dict[str, Trace], tmp_path: Path):
    store, votes = RunStore(), Votes(tmp_path)
    plain = store.create("me", lanes=2)
    write_traces(plain, list(traces.values()))
    unfinished = store.create("me", lanes=3)
    unfinished.blind = blind.Round(("hi",), lambda prompt: [])
    write_traces(unfinished, list(traces.values()))
    for record, says in ((plain, "nothing to vote on"), (unfinished, "Not every lane")):
        with pytest.raises(NemodiffError, match=says):
            blind.cast(store, votes, {"run": record.id, "best": []})
    for nonsense in (None, [], {"run": "guess", "best": []}):
        with pytest.raises(NemodiffError, match="no longer kept"):
            blind.cast(store, votes, nonsense)


def test_the_form_has_as_many_values_as_its_width():
    assert len(lane()) == LaneForm.WIDTH
