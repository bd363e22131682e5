"""A server's answer in the player: chunks at their arrival, and nothing about forwards that nobody has seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from nemodiff_core.trace import Step, TokenEvent, TokenText, Trace
from tests.ui.player.conftest import Stage
from tests.ui.player.traces import PROMPT, STORY, Maker
from ui.naming import name


def remote(pieces: Sequence[str], chunks: Sequence[int], title: str = "Big server", *, tokens: int | None = None, cells: str = "tokens",
           problem: str | None = None, blocks: Sequence[dict[str, Any]] = ()) -> Trace:  # fmt: skip
    """`chunks`: how many pieces came together, each 40 ms after the one before."""
    ids: dict[str, int] = {}
    output = [ids.setdefault(piece, len(ids)) for piece in pieces]
    steps, at = [], 0
    for number, count in enumerate(chunks):
        events = tuple(TokenEvent(at + i, output[at + i], "commit", 0.4 + 0.1 * (i % 6) if cells == "tokens" else None) for i in range(count))
        steps.append(Step(number, "chunk", (at, at + count), 0, 40_000_000 * (number + 1), events))
        at += count
    return Trace(
        id=f"remote-{title}", created="2026-01-01T00:00:00Z",
        model={"id": "nvidia/Nemotron-Labs-Diffusion-8B", "revision": None, "parameters": None, "dtype": "", "device": "remote"},
        request={"mode": "remote", "remote": title, "prompt": PROMPT, "chat": True, "temperature": 0.0, "max_new_tokens": 128, "stop_at_eos": True},
        prompt=TokenText([], []), output=TokenText(output, list(pieces)), vocabulary={str(i): piece for piece, i in ids.items()},
        steps=steps, stop_reason="error" if problem else "eos",
        environment={"versions": {}, "remote": {"kind": "sglang", "measured": "at the client", "cells": cells, "prompt_tokens": 9, "tokens": tokens,
                                                "problem": problem, "blocks": list(blocks)}},
    )  # fmt: skip


@pytest.fixture
def local() -> Trace:
    return Maker(STORY[:120]).ar()


def answer(**more: Any) -> Trace:
    maker = Maker(STORY[:120])
    pieces = [maker.words.pieces[token] for token in maker.answer[:-1]]
    return remote(pieces, [8] * (len(pieces) // 8) + ([len(pieces) % 8] if len(pieces) % 8 else []), **more)


def figures(stage: Stage, root: str) -> dict[str, str]:
    return stage.page.evaluate(
        "(root) => Object.fromEntries([...document.querySelectorAll(root + ' .ndp-figures > div')].filter(d => !d.hidden).map(d => [d.querySelector('dt').textContent, d.querySelector('dd').textContent]))",
        root,
    )


def end(stage: Stage) -> None:
    stage.focus()
    stage.page.keyboard.press("End")
    stage.settle()


def test_alone_it_shows_chunks_and_no_forwards(stage: Stage):
    stage.load([answer(tokens=31)])
    end(stage)
    shown = figures(stage, ".ndp-header")
    assert not {"forwards", "NFE", "TPF", "acceptance"} & shown.keys()
    assert shown["tokens"] == "31" and shown["first token"] == "40.0 ms" and shown["chunks"].split(" / ")[0] == shown["chunks"].split(" / ")[1]
    said = stage.page.locator(".ndp").inner_text()
    assert "Remote · Big server" in said and "Autoregressive" not in said and "forward" not in said.replace("one forward per tick", "")
    assert stage.page.locator(".ndp-tab:visible").all_inner_texts() == ["Map", "Cell over time"]
    stage.seek(1)
    assert "chunk 1 of" in stage.page.locator(".ndp").inner_text() and figures(stage, ".ndp-header")["tokens"] == "8"


@pytest.mark.parametrize("panel", ["map", "history"])
def test_the_panels_that_stay_speak_of_chunks(stage: Stage, panel: str):
    stage.load([answer()])
    stage.page.evaluate("(panel) => window.player.select({ panel, step: 2, cell: 3 })", panel)
    stage.settle()
    words = stage.page.locator(".ndp-panel").inner_text()
    assert words and "forward" not in words.lower()


def test_pieces_are_not_counted_as_tokens(stage: Stage):
    stage.load([answer(cells="pieces")])
    end(stage)
    assert figures(stage, ".ndp-header")["tokens"] == "–" and figures(stage, ".ndp-header")["tokens/s"] == "–"


def test_in_a_race_both_lanes_show_when_their_text_began(stage: Stage, local: Trace):
    blocks = [{"forward_passes": 5, "tokens": 32}, {"forward_passes": 2, "tokens": 9}]
    stage.load([local, answer(tokens=31, blocks=blocks)])
    end(stage)
    here, there = figures(stage, ".ndp-lane:nth-of-type(1)"), figures(stage, ".ndp-lane:nth-of-type(2)")
    assert "first token" in here and "forwards" in here and "chunks" not in here
    assert not {"forwards", "NFE", "TPF", "acceptance"} & there.keys() and there["first token"] == "40.0 ms"
    lane = stage.page.locator(".ndp-lane").nth(1).inner_text()
    assert "Remote · Big server" in lane and "as the client saw it" in lane and "another prompt" not in lane
    assert "counted 2 blocks: 41 tokens in 7 forwards as it counts them, other requests included" in lane
    assert "ran on a server, as the client saw it" in stage.page.locator(".ndp-clock-note").inner_text()
    assert "Two lanes, two models" in stage.page.locator(".ndp-header").inner_text()
    assert " by Autoregressive, 5 chunks by Remote · Big server" in stage.page.locator(".ndp").inner_text()
    assert "same device" not in stage.page.locator(".ndp-clock-note").inner_text()


def test_a_failed_lane_says_why_and_keeps_its_text(stage: Stage, local: Trace):
    stage.load([local, remote(["Hi", " <b>there"], [1, 1], problem="Big server broke off the connection; run again.")])
    end(stage)
    lane = stage.page.locator(".ndp-lane").nth(1)
    assert lane.get_by_role("alert").inner_text() == "Big server broke off the connection; run again."
    assert "failed" in lane.inner_text() and "<b>there" in lane.inner_text().replace("\n", "")


def test_names_are_those_of_python(stage: Stage):
    traces = [answer(title="One"), answer(title="Two")]
    stage.load(traces)
    shown = stage.page.locator(".ndp-lane-name").all_inner_texts()
    assert shown == [name(trace.request) for trace in traces]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_nothing_is_wider_than_the_page(open_stage: Callable[..., Stage], local: Trace, width: int, scheme: str):
    stage = open_stage(width, 900, color_scheme=scheme)
    stage.load([local, answer(title="A server with a very long name that somebody gave it without a thought", problem="It broke off; run again.")])
    end(stage)
    assert stage.page.evaluate("document.documentElement.scrollWidth") <= width
