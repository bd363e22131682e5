"""The app's endpoints as programs and agents use them, over HTTP on this machine."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from nemodiff_core import metrics
from nemodiff_core.checkpoint import bundled_path
from nemodiff_core.request import Limits, parse_request
from nemodiff_core.serving.manifest import Features, Offer, Preset, Remote
from nemodiff_core.trace_reader import from_data
from tests.openai_server import DONE, Server, said, serving, used
from ui import api
from ui.app import ServeSettings, build, launch
from ui.loader import ModelChoice

ENDPOINTS = {"/decode", "/race", "/refine", "/infill", "/trace_metrics"}
REPOSITORY = Path(__file__).parents[2]
LIMITS = Limits(max_new_tokens=64, max_prompt_characters=2000, max_lanes=3, max_runs_per_minute=1000)


@pytest.fixture(scope="module")
def remote() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def served(remote: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEMODIFF_DATA", str(tmp_path_factory.mktemp("data")))
        preset = Preset(
            models=(Offer(source="tiny", device="cpu"),), limits=LIMITS, features=Features(mcp=True),
            remotes=(Remote(name="big", title="Big server", url=remote.url, model="org/big"),),
        )  # fmt: skip
        page = launch(ServeSettings(ModelChoice(str(bundled_path()), device="cpu"), host="127.0.0.1", preset=preset), block=False)
        yield page
        page.close()


@pytest.fixture(scope="module")
def client(served: Any) -> Client:
    return Client(served.local_url, verbose=False, analytics_enabled=False, download_files=False)


def engine(served: Any) -> Any:
    loader = served.nemodiff.loader
    assert loader.wait(120) and loader.engine is not None, loader.problem
    return loader.engine


def alone(served: Any, **fields: Any) -> Any:
    run = engine(served).run(parse_request(fields))
    list(run)
    return run.trace()


# -- what there is -------------------------------------------------------------------------------------


def test_only_the_named_endpoints_are_told(client: Client, served: Any):
    with urllib.request.urlopen(f"{served.local_url}gradio_api/info") as answer:
        info = json.load(answer)
    assert info["named_endpoints"].keys() == ENDPOINTS and not info["unnamed_endpoints"]
    decode = {p["parameter_name"]: p for p in info["named_endpoints"]["/decode"]["parameters"]}
    assert decode["mode"]["type"] == {"enum": ["ar", "diffusion", "linear_spec", "quadratic_spec"]} and not decode["prompt"]["parameter_has_default"]
    (returned,) = info["named_endpoints"]["/decode"]["returns"]
    assert {"text", "state", "metrics", "trace"} <= returned["type"]["properties"].keys()


def test_other_handlers_of_the_page_are_not_called(client: Client, served: Any):
    private = [fn for fn in served.fns.values() if fn.api_visibility != "public"]
    assert len(private) > 20 and {f"/{fn.api_name}" for fn in served.fns.values() if fn.api_visibility == "public"} == ENDPOINTS
    with pytest.raises(ValueError, match="run"):
        client.predict("x", api_name="/run")


def test_a_host_may_have_no_endpoints(served: Any):
    app = served.nemodiff
    features = app.features
    try:
        app.features = Features(api=False, mcp=True)
        assert not any(fn.api_visibility == "public" for fn in build(app).fns.values())
        assert not api.serves_agents(app.features)
    finally:
        app.features = features


# -- what they do --------------------------------------------------------------------------------------


def test_decode_streams_the_text_and_ends_with_what_the_engine_writes(client: Client, served: Any):
    job = client.submit("What is 859 + 344?", mode="diffusion", max_new_tokens=40, with_trace=True, api_name="/decode")
    answers = list(job)
    *_, last = answers
    expected = alone(served, prompt="What is 859 + 344?", mode="diffusion", max_new_tokens=40)
    assert last["state"] == "done" and last["text"] == engine(served).text(expected.output.ids)
    trace = from_data(last["trace"])
    assert trace.output.ids == expected.output.ids and last["metrics"]["nfe"] == metrics.nfe(trace) == metrics.nfe(expected)
    assert (last["tokens"], last["forwards"], last["stop_reason"]) == (len(expected.output.ids), len(expected.steps), expected.stop_reason)
    assert all(answer["trace"] is None for answer in answers[:-1])
    counts = [answer["forwards"] for answer in answers]
    assert counts == sorted(counts)


@pytest.mark.parametrize(
    ("mode", "settings"), [("ar", {}), ("linear_spec", {"block_length": 8}), ("diffusion", {"steps": 4, "candidates": 2, "block_length": 8})]
)
def test_knobs_reach_the_engine(client: Client, served: Any, mode: str, settings: dict[str, Any]):
    last = client.predict("Sort the list 3, 1, 2", mode=mode, max_new_tokens=12, seed=5, temperature=0.7, settings=settings, with_trace=True, api_name="/decode")
    request = last["trace"]["request"]
    assert {"mode": mode, "seed": 5, "temperature": 0.7, "max_new_tokens": 12, **settings}.items() <= request.items()
    assert alone(served, **request).output.ids == last["trace"]["output"]["ids"]


def test_a_race_compares_its_lanes_and_servers_take_part(client: Client, remote: Server):
    remote.answer = lambda body: [said("1203", tokens=[("1203", 0.5)], finish="stop"), used(9, 1), DONE]
    last = client.predict(
        "What is 859 + 344?", lanes=[{"mode": "linear_spec"}, {"mode": "ar"}, {"model": "Remote · Big server"}], max_new_tokens=24, with_traces=True,
        api_name="/race",
    )  # fmt: skip
    spec, ar, there = last["lanes"]
    assert spec["identical"]["same"] is True and spec["text"] == ar["text"], "known only once ar had run"
    assert (there["text"], there["tokens"], there["forwards"], there["title"]) == ("1203", 1, None, "Remote · Big server")
    assert [from_data(lane["trace"]).request["mode"] for lane in last["lanes"]] == ["linear_spec", "ar", "remote"]


def test_refine_and_infill(client: Client, served: Any):
    refined = client.predict("The sum of 2 and 2 is 5.", prompt="What is 2 + 2?", settings={"revise_rounds": 2}, with_trace=True, api_name="/refine")
    assert refined["trace"]["request"]["revise_rounds"] == 2 and refined["state"] == "done"
    filled = client.predict('{"name": "▢{1,3}", "age": ▢▢}', prompt="Somebody", api_name="/infill")
    assert json.loads(filled["text"]).keys() == {"name", "age"} and filled["trace"] is None


def test_the_figures_of_a_saved_trace(client: Client, served: Any):
    trace = alone(served, prompt="hi", mode="ar", max_new_tokens=4)
    assert client.predict(trace.to_dict(), api_name="/trace_metrics") == json.loads(json.dumps(metrics.summary(trace)))


# -- what they refuse ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "sent", "says"),
    [
        ("/decode", {"prompt": ""}, "the prompt is empty"),
        ("/decode", {"prompt": "x" * 3000}, "3000 characters"),
        ("/decode", {"prompt": "hi", "max_new_tokens": 1000}, "allows at most 64"),
        ("/decode", {"prompt": "hi", "mode": "telepathy"}, "mode is 'telepathy'"),
        ("/decode", {"prompt": ["hi"]}, "prompt is"),
        ("/decode", {"prompt": "hi", "settings": {"nonsense": 1}}, "nonsense is no setting"),
        ("/decode", {"prompt": "hi", "settings": [1]}, "settings must be an object"),
        ("/decode", {"prompt": "hi", "model": "/etc"}, "does not offer that model"),
        ("/decode", {"prompt": "hi", "model": "Remote · Big server"}, "does not offer that model"),
        ("/race", {"prompt": "hi", "lanes": [{"mode": "ar"}]}, "2 to 3 lanes"),
        ("/race", {"prompt": "hi", "lanes": [{"mode": "ar"}] * 4}, "2 to 3 lanes"),
        ("/race", {"prompt": "hi", "lanes": "ar"}, "2 to 3 lanes"),
        ("/race", {"prompt": "hi", "lanes": [{"mode": "ar"}, {"model": "Remote · http://127.0.0.1:1"}]}, "does not offer that server"),
        ("/race", {"prompt": "hi", "lanes": [{"mode": "ar"}, {"mode": "ar", "threshold": 0.5}]}, "threshold does nothing in mode ar"),
        ("/refine", {"draft": "x" * 3000}, "the draft has 3000 characters"),
        ("/infill", {"template": "no gaps"}, "no gaps"),
        ("/trace_metrics", {"trace": {"schema": "other"}}, "schema"),
        ("/trace_metrics", {"trace": [1]}, "no schema"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(client: Client, endpoint: str, sent: dict[str, Any], says: str):
    with pytest.raises(AppError) as refused:
        client.predict(**sent, api_name=endpoint)
    assert says in str(refused.value) and "Traceback" not in str(refused.value)


def test_callers_take_their_turn_in_the_line_of_the_page(client: Client, served: Any):
    app = served.nemodiff
    place = app.line.join("somebody at the page")
    assert place.wait(10)
    try:
        job = client.submit("What is 2 + 2?", max_new_tokens=8, api_name="/decode")
        waiting = next(iter(job))
        assert waiting["state"] == "waiting" and "1 run is ahead" in waiting["said"] and not job.done()
    finally:
        place.leave()
    assert job.result(60)["state"] == "done"


def test_a_caller_who_stops_frees_the_device(client: Client, served: Any):
    model, began, ran = engine(served).checkpoint.model, threading.Event(), []

    def slowly(*_: Any) -> None:
        ran.append(None)
        began.set()
        threading.Event().wait(0.2)  # the cancelling must arrive before the last of them

    hook = model.register_forward_pre_hook(slowly)
    try:
        job = client.submit("Tell a story about a fox.", mode="ar", max_new_tokens=64, api_name="/decode")
        assert began.wait(60)
        job.cancel()
        with served.nemodiff.line.turn("next"):
            assert len(ran) < 64
    finally:
        hook.remove()


# -- agents --------------------------------------------------------------------------------------------


@pytest.mark.own_thread
def test_agents_see_the_endpoints_as_tools_and_call_them(served: Any):
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def talk() -> tuple[Any, Any, Any]:
        async with streamable_http_client(f"{served.local_url}gradio_api/mcp/") as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            tools = await session.list_tools()
            decode = next(tool.name for tool in tools.tools if tool.name.endswith("decode"))
            answer = await session.call_tool(decode, {"prompt": "What is 859 + 344?", "mode": "ar", "max_new_tokens": 24})
            return tools.tools, answer, await session.call_tool(decode, {"prompt": ""})

    tools, answer, refused = asyncio.run(talk())
    assert {tool.name.rpartition("_")[2] for tool in tools} >= {"decode", "race", "refine", "infill", "metrics"} and len(tools) == len(ENDPOINTS)
    decode = next(tool for tool in tools if tool.name.endswith("decode"))
    assert decode.description.startswith("Answer a prompt") and decode.inputSchema["required"] == ["prompt"]
    assert "block_length" in decode.inputSchema["properties"]["settings"]["description"]
    expected = engine(served).text(alone(served, prompt="What is 859 + 344?", mode="ar", max_new_tokens=24).output.ids)
    assert not answer.isError and expected in answer.content[0].text
    assert refused.isError and "the prompt is empty" in refused.content[0].text


def test_a_missing_package_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(api.importlib.util, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert not api.serves_agents(Features(mcp=True))
        assert len(caplog.records) == 1 and "gradio[mcp]" in caplog.text
        assert not api.serves_agents(Features()) and len(caplog.records) == 1


# -- the examples --------------------------------------------------------------------------------------


def test_the_example_client_prints_the_text_as_it_refines(served: Any):
    engine(served)
    ran = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / "client.py"), "What is 859 + 344?", "--url", served.local_url, "--tokens", "24"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    expected = engine(served).text(alone(served, prompt="What is 859 + 344?", mode="diffusion", max_new_tokens=24).output.ids)
    assert expected in ran.stdout and "tokens per forward" in ran.stdout
