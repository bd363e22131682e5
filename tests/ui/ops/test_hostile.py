"""Whatever a browser sends, our code answers with a result or a sentence: nothing in it fails unforeseen."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

ROOT = Path(__file__).parents[3]
OURS = tuple(str(ROOT / package) for package in ("ui", "nemodiff_core"))
LAYERS = (str(ROOT / "ui/ops"), str(ROOT / "ui/script.py"))  # every request comes through these
# Every example is a request of a whole page, so that little is left of a test's time to make a find smaller.
USUAL = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=[Phase.explicit, Phase.generate])

odd_numbers = st.sampled_from([0, -1, 2**31, 2**63, 10**400, -(10**30), 1e308, float("nan"), float("inf"), -0.0, 0.5, True])
odd_texts = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["", "\0", "../../etc/passwd", "http://127.0.0.1:1/", "<script>x</script>", "\u202eevil", "recorded-refine", "x" * 30_000, "▢{9}", "▢" * 400, "{" * 5000]),
)
scalars = st.one_of(st.none(), st.booleans(), odd_numbers, odd_texts)
names = st.sampled_from(
    ["run", "lane", "step", "position", "token", "text", "action", "mode", "threshold", "block_length", "ask", "pins", "prompt", "best", "key", "lang", "path", "url", "meta", "seq", "panel"]
)
wrongs = st.recursive(scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=6)), max_leaves=12)
deep = st.integers(50, 900).map(lambda depth: nested(depth))
anything = st.one_of(wrongs, deep)


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = [value]
    return value


def in_our_code(error: BaseException) -> bool:
    """Whether the failure arose below a handler of ours, and not where Gradio reads what was sent."""
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return any(name.startswith(OURS) and not name.startswith(LAYERS) for name in frames)


def blamed(complaints: Any) -> list[str]:
    return ["".join(traceback.format_exception(error)[-6:]) for error in complaints.errors if in_our_code(error)]


@given(st.data())
@settings(USUAL, max_examples=120)
def test_handlers_bear_any_values(live: Any, complaints: Any, data: st.DataObject):
    handler = data.draw(st.sampled_from([h for h in live.handlers() if not h["queue"]]))
    values = live.usual(handler)
    for at in data.draw(st.lists(st.integers(0, max(0, len(values) - 1)), max_size=3)):
        if values:
            values[at] = data.draw(anything)
    answer = live.call(handler, values, data.draw(anything))
    assert answer.status_code in (200, 400, 422, 500)
    assert not blamed(complaints), (handler["api_name"], blamed(complaints)[-1])


@given(fn=st.sampled_from(["resync", "vote", "desk", "course", "receive", "__init__", "launch"]), data=anything, session=st.one_of(st.just("visitor"), scalars))
@settings(USUAL, max_examples=60)
def test_server_functions_bear_any_query(live: Any, complaints: Any, fn: str, data: Any, session: Any):
    offered = [c["id"] for c in live.config["components"] if fn in (c["props"].get("server_fns") or [])]
    for component in offered or [live.config["components"][0]["id"]]:
        body = json.dumps({"data": data, "component_id": component, "session_hash": session, "fn_name": fn})
        answer = live.client.post("gradio_api/component_server", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in ((200, 400, 500) if offered else (400, 404, 500)), answer.text
    assert not blamed(complaints), blamed(complaints)[-1]


QUERIES = st.fixed_dictionaries({}, optional={
    "run": st.one_of(st.sampled_from(["recorded-refine", "recorded-race", "recorded-sweep", "recorded-../x"]), anything), "lane": anything, "step": anything,
    "position": anything, "token": anything, "text": anything, "action": st.one_of(st.sampled_from(["none", "pin", "remask", "ban", "force"]), anything),
    "mode": anything, "threshold": anything, "block_length": anything, "best": anything, "ask": st.sampled_from(["examples", "schema", "count", "x"]),
})  # fmt: skip


@given(QUERIES)
@settings(USUAL, max_examples=25)
def test_what_ifs_bear_any_question(live: Any, complaints: Any, asked: Any):
    for handler in live.handlers("prepared"):
        answer = live.call(handler, live.usual(handler), asked)
        assert answer.status_code in (200, 500)
    assert not blamed(complaints), blamed(complaints)[-1]


@given(QUERIES)
@settings(USUAL, max_examples=25)
def test_explanations_bear_any_question(live: Any, complaints: Any, asked: Any):
    live.stream(live.handlers("explain")[0], [], asked, session="curious")
    assert not blamed(complaints), blamed(complaints)[-1]


@given(st.data())
@settings(USUAL, max_examples=40)
def test_the_api_bears_any_values(live: Any, complaints: Any, data: st.DataObject):
    endpoint = data.draw(st.sampled_from([h for h in live.handlers() if h["api_visibility"] == "public"]))
    values = [data.draw(st.one_of(st.sampled_from(["Hello", "ar", 4, None]), anything)) for _ in endpoint["inputs"]]
    said = live.stream(endpoint, values, session=f"agent-{data.draw(st.integers(0, 10**9))}")
    assert "Traceback" not in json.dumps(said)
    assert not blamed(complaints), (endpoint["api_name"], blamed(complaints)[-1])


@given(data=st.lists(anything, max_size=3), index=st.one_of(st.integers(-5, 500), scalars))
@settings(USUAL, max_examples=30)
def test_calls_of_the_wrong_shape_are_refused(live: Any, complaints: Any, data: Any, index: Any):
    body = json.dumps({"fn_index": index, "data": data, "session_hash": "visitor"})
    for address in ("gradio_api/run/predict", "gradio_api/queue/join", "gradio_api/call/predict"):
        answer = live.client.post(address, content=body, headers={"content-type": "application/json"})
        assert answer.status_code >= 200 and "Traceback" not in answer.text
    assert not blamed(complaints), blamed(complaints)[-1]


@pytest.mark.parametrize("fields", [{"length": 10**6}, {"block": 4096}, {"candidates": 999}, {"rule": "schedule", "steps": 10**6}, {"temperature": 1e9}, {"prompt": "x" * 10**6}])
def test_limits_hold_on_the_server_whatever_the_page_shows(live: Any, fields: dict[str, Any]):
    answer = live.prepare("greedy", **fields)
    # Gradio refuses what is beyond a slider's ends, the request's own check what is left.
    assert answer.status_code == 500 or any(words in answer.text for words in ("change it", "smaller value", "shorten it")), answer.text
    assert not any(record.owner == "greedy" for record in live.app.store._runs.values())
