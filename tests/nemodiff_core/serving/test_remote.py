"""A server's answer as a run: what came when, nothing invented, and one sentence for whatever goes wrong."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from nemodiff_core import metrics
from nemodiff_core.errors import RequestError, TraceError
from nemodiff_core.request import DecodeRequest, Limits
from nemodiff_core.serving import completions
from nemodiff_core.serving.manifest import Remote
from nemodiff_core.serving.remote import RemoteEngine, RemoteRun
from nemodiff_core.serving.sse import Events, StreamError
from nemodiff_core.trace import Trace
from nemodiff_core.trace_reader import from_data
from tests.openai_server import CUT, DONE, FIRST, Server, event, said, serving, token, used

KEY = "sk-test-4711-do-not-tell"
ENVIRONMENT = {"REMOTE_KEY": KEY}
ASKED = DecodeRequest(prompt="Say hi.", mode="ar", max_new_tokens=32)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.asked.clear()
    running.left.clear()
    return running


def engine(server: Server, limits: Limits | None = None, **remote: Any) -> RemoteEngine:
    patience = remote.pop("patience_s", 60.0)
    described = {"name": "big", "title": "Big server", "url": server.url, "model": "org/big", "key_env": "REMOTE_KEY", **remote}
    return RemoteEngine(Remote(**described), limits, ENVIRONMENT, patience_s=patience)


def whole(run: RemoteRun) -> Trace:
    """The trace of a run that went to its end, read back from its JSON."""
    steps = list(run)
    trace = Trace.from_json(run.trace().to_json())
    assert [step.to_dict() for step in trace.steps] == [step.to_dict() for step in steps]
    return trace


def text(trace: Trace) -> str:
    return "".join(trace.output.pieces)


# -- what is asked and recorded ------------------------------------------------------------------------


def test_a_stream_with_probabilities_becomes_one_step_a_chunk_and_one_cell_a_token(server: Server):
    server.answer = lambda body: [
        FIRST, said("Hi", tokens=[("Hi", 0.5)]), said(" there, you", tokens=[(" there", 0.9), (",", 1.0), (" you", 0.25)]),
        said(None, finish="stop"), used(9, 5), DONE,
    ]  # fmt: skip
    trace = whole(engine(server).run(ASKED))
    assert text(trace) == "Hi there, you" and trace.stop_reason == "eos"
    assert [len(step.events) for step in trace.steps] == [1, 3] and {step.phase for step in trace.steps} == {"chunk"}
    assert [e.confidence for step in trace.steps for e in step.events] == pytest.approx([0.5, 0.9, 1.0, 0.25])
    assert trace.request == {"mode": "remote", "remote": "Big server", "prompt": "Say hi.", "chat": True, "temperature": 0.0, "max_new_tokens": 32, "stop_at_eos": True}
    told = trace.environment["remote"]
    assert (told["cells"], told["prompt_tokens"], told["tokens"], told["problem"]) == ("tokens", 9, 5, None)


def test_the_figures_claim_nothing_about_forwards(server: Server):
    server.answer = lambda body: [said("Hi there", tokens=[("Hi", 0.5), (" there", 0.9)]), said("!", finish="length"), used(9, 4), DONE]
    trace = whole(engine(server).run(ASKED))
    figures = metrics.summary(trace)
    assert (figures["nfe"], figures["tpf"], figures["forwards"], figures["prefill_seconds"], figures["time_by_phase"]) == (None, None, None, None, {})
    assert (figures["chunks"], figures["tokens"]) == (2, 4), "as the server counted them"
    assert figures["first_token_seconds"] == trace.steps[0].elapsed_ns / 1e9
    assert figures["tokens_per_second"] == pytest.approx(4 / figures["seconds"])
    assert trace.environment["remote"]["cells"] == "pieces", "the last chunk came without its tokens"


def test_where_the_server_counts_nothing_the_tokens_it_names_are_counted_and_pieces_are_not(server: Server):
    server.answer = lambda body: [said("a b", tokens=[("a", 0.5), (" b", 0.5)]), said(None, finish="stop"), DONE]
    assert metrics.summary(whole(engine(server).run(ASKED)))["tokens"] == 2
    server.answer = lambda body: [said("a b"), said(" c", finish="stop"), DONE]
    figures = metrics.summary(whole(engine(server).run(ASKED)))
    assert (figures["tokens"], figures["tokens_per_second"], figures["chunks"]) == (None, None, 2)


@pytest.mark.parametrize(
    ("sent", "tokens", "cells"),
    [
        ("é!", [{"token": "\ufffd", "logprob": -1.0, "bytes": [0xC3]}, {"token": "\ufffd", "logprob": -2.0, "bytes": [0xA9]}, token("!", 1.0)], ["", "é", "!"]),
        ("Hi", [token("Hi", 0.5), token("<|im_end|>", 0.9)], ["Hi"]),
        ("Hi", [token("something", 0.5)], ["Hi"]),
        ("x" * 1000, [token("x" * 1000, 0.5)], ["x" * 400, "x" * 400, "x" * 200]),
    ],
)
def test_tokens_that_do_not_spell_the_text_never_change_it(server: Server, sent: str, tokens: list[Any], cells: list[str]):
    server.answer = lambda body: [said(sent, tokens=tokens), said(None, finish="stop"), DONE]
    assert whole(engine(server).run(ASKED)).output.pieces == cells


def test_what_is_thought_before_the_answer_is_part_of_the_text(server: Server):
    thought = event({"choices": [{"index": 0, "delta": {"reasoning_content": "Well. "}}]})
    server.answer = lambda body: [thought, said("Yes", finish="stop"), DONE]
    assert text(whole(engine(server).run(ASKED))) == "Well. Yes"


def test_the_request_carries_what_acts_and_the_key(server: Server):
    sampled = DecodeRequest(prompt="Say hi.", mode="ar", temperature=0.5, top_p=0.9, seed=7, max_new_tokens=5, stop_at_eos=False)
    trace = whole(engine(server, kind="vllm").run(sampled))
    headers, body = server.asked[-1]
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "org/big", "messages": [{"role": "user", "content": "Say hi."}], "stream": True, "stream_options": {"include_usage": True},
        "temperature": 0.5, "max_tokens": 5, "top_p": 0.9, "seed": 7, "ignore_eos": True, "logprobs": True,
    }  # fmt: skip
    assert (trace.request["seed"], trace.request["stop_at_eos"]) == (7, False)
    trace = whole(engine(server, kind="openai", key_env=None).run(sampled))
    headers, body = server.asked[-1]
    assert "ignore_eos" not in body and "authorization" not in headers
    assert trace.request["stop_at_eos"] is True, "a server of that kind cannot be told to go on"


def test_a_server_that_refuses_probabilities_is_asked_without_them(server: Server):
    server.answer = lambda body: Response(status_code=400) if "logprobs" in body else [said("Hi", finish="stop"), DONE]
    assert text(whole(engine(server).run(ASKED))) == "Hi" and len(server.asked) == 2


def test_the_statistics_of_the_sglang_fork_are_those_written_meanwhile(server: Server, tmp_path: Path):
    file = tmp_path / "stats.jsonl"
    file.write_text('{"forward_passes": 99, "tokens": 1}\n')

    def answer(body: Any) -> list[str]:
        with file.open("a") as log:
            log.write('{"forward_passes": 4, "tokens": 32, "tokens_per_fp": 8.0}\nno json\n{"forward_passes": 2, "tokens": 9, "acceptance_rate": 0.5}\n{"forward')
        return [said("Hi", finish="stop"), DONE]

    server.answer = answer
    blocks = whole(engine(server, kind="sglang", statistics=str(file)).run(ASKED)).environment["remote"]["blocks"]
    assert blocks == [{"forward_passes": 4, "tokens": 32}, {"forward_passes": 2, "tokens": 9, "acceptance_rate": 0.5}]
    assert whole(engine(server, statistics=str(tmp_path / "none")).run(ASKED)).environment["remote"]["blocks"] == []


# -- what goes wrong -----------------------------------------------------------------------------------


def failing(trace: Trace) -> str:
    assert trace.stop_reason == "error"
    problem = trace.environment["remote"]["problem"]
    assert problem.startswith("Big server ") and problem.endswith(".") and ". " not in problem, problem
    return problem


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Response(status_code=401, content=f"Incorrect API key provided: {KEY}"), "did not accept its key"),
        (Response(status_code=404), "no such address or model"),
        (Response(status_code=429, headers={"retry-after": "7"}), "too much to do"),
        (Response(status_code=400), "refused the request"),
        (Response(status_code=503), "failed; run again later (HTTP 503)"),
        (Response(status_code=418), "nobody expects; tell the operator (HTTP 418)"),
        (Response(status_code=204), "nobody expects; tell the operator (HTTP 204)"),
        (JSONResponse({"choices": []}), "does not answer with a stream"),
        (StreamingResponse(iter([b"data: 1\n\n"]), media_type="text/event-stream", headers={"content-encoding": "gzip"}), "does not answer with a stream"),
        ([event({"error": {"message": f"key {KEY} is bad"}})], "reported an error"),
        (["data: {nope\n\n"], "no JSON"),
        (["data: " + "[" * 100_000 + "\n\n"], "no JSON"),
        ([event({"hello": 1})], "without choices"),
        ([event({"choices": [{"index": 0}]})], "choices.0.delta is wrong"),
        ([event({"choices": [{"index": 0, "delta": {"content": 7}}]})], "choices.0.delta.content is wrong"),
        ([event([1])], "shape is wrong"),
        ([said("x", usage={"prompt_tokens": -1, "completion_tokens": 1})], "usage.prompt_tokens is wrong"),
        (['data: {"choices":[{"index":0,"delta":{"content":"\\ud800"}}]}\n\n'], "no JSON"),
        (['data: {"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":NaN}]}}]}\n\n'], "logprob is wrong"),
        ([b"data: \xff\xfe\n\n"], "bytes that are no text"),
        ([said("x" * 70_000)], "more than 64 thousand characters"),
        (["data: " + "x" * 300_000], "a line of more than 256 KB"),
        ([said("a" * 60_000)] * 6, "much more than it was asked for"),
        ([said("Hi", finish="content_filter"), DONE], "content_filter"),
        ([said("Hi", finish="<b>bold</b>"), DONE], "unknown"),
        ([said("Hi"), DONE], "without saying why"),
    ],
)  # fmt: skip
def test_wrong_answers_end_the_run_with_one_sentence(server: Server, answer: Any, says: str):
    server.answer = lambda body: answer
    problem = failing(whole(engine(server).run(ASKED)))
    assert says in problem and KEY not in problem and server.url not in problem


@pytest.mark.parametrize(
    ("ending", "says"),
    [([CUT], "broke off"), ([], "before the end of its answer"), (["data: {"], "before the end of its answer"), (["data: nope\n\n"], "no JSON")],
)
def test_what_had_come_before_a_failure_stays(server: Server, ending: list[Any], says: str):
    server.answer = lambda body: [FIRST, said("Hi", tokens=[("Hi", 0.5)]), said(" there", tokens=[(" there", 0.5)]), *ending]
    trace = whole(engine(server).run(ASKED))
    assert says in failing(trace) and text(trace) == "Hi there"


def test_an_endless_stream_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(completions, "MAX_STREAM_BYTES", 1 << 20)
    server.answer = lambda body: [b": still here\n\n" * 1000] * 200
    assert "more than 1 MB" in failing(whole(engine(server).run(ASKED)))


def test_redirects_are_not_followed(server: Server):
    with serving() as other:
        server.answer = lambda body: RedirectResponse(f"{other.url}/chat/completions", status_code=307)
        problem = failing(whole(engine(server).run(ASKED)))
        assert "sends elsewhere" in problem and other.url not in problem and not other.asked


def test_proxies_of_the_environment_are_not_used(server: Server, monkeypatch: pytest.MonkeyPatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.answer = lambda body: [said("Hi", finish="stop"), DONE]
    assert text(whole(engine(server).run(ASKED))) == "Hi"


def test_nobody_there(server: Server):
    assert "cannot be reached" in failing(whole(engine(server, url="http://127.0.0.1:1/v1").run(ASKED)))


def test_a_silent_server_is_given_up_and_what_it_said_stays(server: Server):
    never = threading.Event()
    server.answer = lambda body: [said("Hi"), never]
    trace = whole(engine(server, patience_s=0.5).run(ASKED))
    assert "sent nothing for 0.5 seconds" in failing(trace) and text(trace) == "Hi"
    assert server.left.wait(30)


def test_tokens_are_handed_out_as_they_come(server: Server):
    goes_on = threading.Event()
    server.answer = lambda body: [said("Hi"), goes_on, said(" there", finish="stop"), DONE]
    run = engine(server).run(ASKED)
    steps = iter(run)
    next(steps)
    assert text(run.trace()) == "Hi" and run.trace().stop_reason == "cancelled"
    goes_on.set()
    next(steps)
    assert list(steps) == [] and run.trace().stop_reason == "eos"


def test_stopping_leaves_the_server(server: Server):
    never, stop = threading.Event(), threading.Event()
    server.answer = lambda body: [said("Hi"), never]
    run = engine(server).run(ASKED, stop)
    for _ in run:
        stop.set()
    assert server.left.wait(30) and run.trace().stop_reason == "cancelled" and from_data(run.trace().to_dict())
    server.left.clear()
    run = engine(server).run(ASKED)
    next(iter(run))
    run.close()
    assert server.left.wait(30) and list(run) == []


def test_the_hosts_deadline_counts(server: Server):
    never = threading.Event()
    server.answer = lambda body: [said("Hi"), never]
    trace = whole(engine(server, Limits(max_seconds=0.3)).run(ASKED))
    assert trace.stop_reason == "deadline"


def test_requests_are_held_against_the_limits_before_anything_is_sent(server: Server):
    with pytest.raises(RequestError, match="max_new_tokens is 32"):
        engine(server, Limits(max_new_tokens=8)).run(ASKED)
    with pytest.raises(RequestError, match="Big server takes prompts as chats"):
        engine(server).run(ASKED.model_copy(update={"chat": False}))
    assert not server.asked


# -- the trace of it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda d: d["steps"][0].update(phase="ar"), "chunks are the steps of mode remote"),
        (lambda d: d["request"].update(mode="ar"), "chunks are the steps of mode remote"),
        (lambda d: d["request"].pop("remote"), "request.remote is missing"),
        (lambda d: d["environment"].pop("remote"), "environment.remote is missing"),
        (lambda d: d["environment"]["remote"].update(cells="words"), "environment.remote.cells is 'words'"),
        (lambda d: d["environment"]["remote"].update(tokens=-1), "environment.remote.tokens is -1"),
        (lambda d: d["environment"]["remote"].update(prompt_tokens=True), "environment.remote.prompt_tokens is True"),
        (lambda d: d["environment"]["remote"].update(problem=["x"]), "environment.remote.problem"),
        (lambda d: d["environment"]["remote"].update(blocks=[{"tokens": "many"}]), "environment.remote.blocks"),
        (lambda d: d["environment"]["remote"].pop("blocks"), "environment.remote.blocks is missing"),
    ],
)
def test_a_damaged_trace_of_a_server_is_refused(server: Server, damage: Any, says: str):
    server.answer = lambda body: [said("Hi", finish="stop"), DONE]
    document = json.loads(whole(engine(server).run(ASKED)).to_json())
    damage(document)
    with pytest.raises(TraceError, match=re.escape(says)):
        from_data(document)


# -- the key -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [{}, {"REMOTE_KEY": " "}, {"REMOTE_KEY": "two\nlines"}, {"REMOTE_KEY": "ключ"}])
def test_without_a_usable_key_the_lane_says_so(server: Server, environment: dict[str, str], caplog: pytest.LogCaptureFixture):
    made = RemoteEngine(Remote(name="big", title="Big server", url=server.url, model="m", key_env="REMOTE_KEY"), None, environment)
    with pytest.raises(RequestError, match="Big server has no key on this host"):
        made.run(ASKED)
    assert "REMOTE_KEY" in caplog.text and not any(value.strip() and value in caplog.text for value in environment.values())


@pytest.mark.parametrize("ending", [[said(None, finish="stop"), used(1, 1), DONE], [CUT], [event({"error": KEY})], ["data: " + KEY + "\n\n"]])
def test_the_key_reaches_no_trace_no_log_and_no_sentence(server: Server, ending: list[Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]):
    caplog.set_level(logging.DEBUG)
    server.answer = lambda body: [FIRST, said("Hi"), *ending]
    made = engine(server)
    run = made.run(ASKED)
    trace = whole(run)
    assert server.asked[-1][0]["authorization"].endswith(KEY), "it was sent, so it could have leaked"
    printed = capfd.readouterr()
    for place in (trace.to_json(), caplog.text, repr(made), repr(run), repr(made.remote), printed.out, printed.err, json.dumps(metrics.summary(trace))):
        assert KEY not in place


# -- the format of the stream --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_may_be_cut_anywhere_and_end_in_any_kind_of_line(size: int):
    stream = ": hello\r\nid: 1\r\ndata: é\rdata:two\n\r\n\ndata\ndata: 3\n\ndata: lost".encode()
    events = Events(max_line=100, max_bytes=1000)
    found = [e for at in range(0, len(stream), size) for e in events.feed(stream[at : at + size])]
    assert found == ["é\ntwo", "\n3"]


def test_what_is_too_long_is_refused_before_it_is_whole():
    events = Events(max_line=2048, max_bytes=1 << 30)
    with pytest.raises(StreamError, match="2 KB"):
        for _ in range(3):
            events.feed(b"x" * 1000)
