"""Small traces written out by hand, as the schema has them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from nemodiff_core.trace import Trace

PROMPT = [10, 40]


def _event(position: int, token: int, kind: str) -> dict[str, Any]:
    return {"position": position, "token": token, "kind": kind, "confidence": 0.75, "entropy": 0.5}


def _step(index: int, phase: str, span: list[int], events: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "index": index, "phase": phase, "span": span, "block": 0, "elapsed_ns": 1_000_000 * (index + 1),
        "events": events, "candidates": [], **more,
    }  # fmt: skip


def _trace(mode: str, output: list[int], steps: list[dict[str, Any]], **request: Any) -> dict[str, Any]:
    named = {*PROMPT, *output, *(e["token"] for s in steps for e in s["events"])}
    named |= {i for s in steps for c in s["candidates"] for i in c["ids"]}
    return {
        "schema": "nemodiff.trace/1",
        "id": f"hand-{mode}",
        "created": "2026-01-01T00:00:00Z",
        "model": {"id": "tiny", "revision": None, "parameters": 1, "dtype": "float32", "device": "cpu"},
        "request": {
            "prompt": "hi", "chat": True, "mode": mode, "block_length": 4, "threshold": None, "steps": None, "temperature": 0.0,
            "top_p": 1.0, "seed": 0, "max_new_tokens": len(output), "stop_at_eos": True, "candidates": 0, "deadline_s": None, **request,
        },
        "prompt": {"ids": PROMPT, "pieces": [f"<{i}>" for i in PROMPT]},
        "output": {"ids": output, "pieces": [f"<{i}>" for i in output]},
        "vocabulary": {str(i): f"<{i}>" for i in sorted(named)},
        "steps": steps,
        "stop_reason": "length",
        "parent": None,
        "environment": {"python": "3.11"},
    }  # fmt: skip


AR = _trace(
    "ar",
    [50, 51, 52],
    [
        _step(0, "prefill", [0, 2], [_event(2, 50, "commit")]),
        _step(1, "ar", [2, 3], [_event(3, 51, "commit")]),
        _step(2, "ar", [3, 4], [_event(4, 52, "commit")]),
    ],
)
SPEC = _trace(
    "linear_spec",
    [50, 51, 52],
    [
        _step(0, "prefill", [0, 2], [_event(2, 50, "seed")]),
        _step(
            1, "draft", [2, 6], [_event(3, 51, "draft"), _event(4, 60, "draft"), _event(5, 61, "draft")],
            candidates=[{"position": 3, "ids": [51, 70], "probabilities": [0.75, 0.2], "entropy": 0.6}],
        ),
        _step(
            2, "verify", [2, 6],
            [_event(3, 51, "accept"), _event(4, 60, "reject"), _event(5, 61, "reject"), _event(4, 52, "bonus")],
        ),
    ],
)  # fmt: skip


@pytest.fixture
def hand_made() -> dict[str, dict[str, Any]]:
    """The documents by mode, free to be changed."""
    return {"ar": copy.deepcopy(AR), "linear_spec": copy.deepcopy(SPEC)}


@pytest.fixture
def traces(hand_made: dict[str, dict[str, Any]]) -> dict[str, Trace]:
    return {mode: Trace.from_json(json.dumps(document)) for mode, document in hand_made.items()}
