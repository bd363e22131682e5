"""Races in the player: names, time shares, verdicts with a way to the divergence, and blind races that keep quiet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from nemodiff_core.request import parse_request
from nemodiff_core.trace import Trace
from tests.ui.player.traces import Maker, messages, race
from ui.naming import MODES, parts

REQUESTS = [
    {"mode": "ar"},
    {"mode": "ar", "temperature": 0.7, "seed": 3},
    {"mode": "diffusion"},
    {"mode": "diffusion", "threshold": 0.7, "revise_rounds": 8, "revise_bound": 0.25, "block_length": 32},
    {"mode": "diffusion", "steps": 8, "remask_bound": 0.3},
    {"mode": "diffusion", "policy": "entropy_budget", "entropy_bound": 0.3},
    {"mode": "diffusion", "policy": "margin", "margin_bound": 0.123456789},
    {"mode": "diffusion", "policy": "sampler", "threshold": 0.5},
    {"mode": "diffusion", "policy": "sampler"},
    {"mode": "diffusion", "policy": "leftmost", "steps": 4, "revise_rounds": 2, "revise_rank": 3},
    {"mode": "linear_spec", "threshold": 0.9, "verification": "ratio", "adaptive_block": True, "adapter": False},
    {"mode": "quadratic_spec", "block_length": 8},
]


def names(page: Page, traces: list[Any]) -> list[str]:
    return page.evaluate(
        """async (lanes) => {
          const { laneName } = await import('/player/words.js');
          const all = lanes.map(({ request, model }) => ({ mode: request.mode, request, head: { model } }));
          return all.map((lane) => laneName(lane, all));
        }""",
        traces,
    )


def test_python_and_the_browser_call_settings_by_the_same_words(stage: Any):
    requests = [parse_request({"prompt": "hi", **fields}).model_dump() for fields in REQUESTS]
    said = stage.page.evaluate("async (l) => { const { laneParts, modeName } = await import('/player/words.js'); return l.map((r) => [modeName(r.mode), ...laneParts(r)]); }", requests)
    assert said == [[MODES[r["mode"]], *parts(r)] for r in requests]


def test_lanes_are_named_by_what_tells_them_apart(stage: Any):
    def lane(model: str = "tiny", **request: Any) -> dict[str, Any]:
        return {"request": {"block_length": 16, **request}, "model": {"id": model}}

    diffusion = {"mode": "diffusion", "threshold": 0.9}
    assert names(stage.page, [lane(mode="ar"), lane(**diffusion)]) == ["Autoregressive", "Block diffusion"]
    assert names(stage.page, [lane(**diffusion), lane(mode="diffusion", threshold=0.7, revise_rounds=8, revise_bound=0.3)]) == [
        "Block diffusion · threshold 0.9", "Block diffusion · threshold 0.7 · revised at 0.3",
    ]  # fmt: skip
    assert names(stage.page, [lane(mode="ar"), lane(mode="ar")]) == ["Autoregressive · no. 1", "Autoregressive · no. 2"]
    assert names(stage.page, [lane(mode="ar"), lane("nvidia/big", mode="ar")]) == ["Autoregressive · tiny", "Autoregressive · nvidia/big"]


@pytest.mark.parametrize(("seconds", "speed"), [(20, "1"), (3, "1"), (1, "1/4"), (0.3, "1/16"), (0.037, "1/128"), (0.002, "1/256")])
def test_a_race_is_slowed_until_it_can_be_watched(seconds: float, speed: str, stage: Any):
    traces = []
    for trace in race():
        scale = seconds * 1e9 / trace.steps[-1].elapsed_ns
        traces.append(replace(trace, steps=[replace(step, elapsed_ns=round(step.elapsed_ns * scale)) for step in trace.steps]))
    stage.load(traces)
    assert stage.get("p.speed") == speed
    stage.page.locator(".ndp-speed").select_option("1/64")
    assert stage.get("p.speed") == "1/64"


@pytest.mark.parametrize("width", [390, 760, 1072])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_any_number_of_lanes_finds_room(count: int, width: int, open_stage: Callable[..., Any]):
    stage = open_stage(width)
    stage.load([*race(), Maker(seed=9).diffusion(size=8)][:count])
    boxes = [lane.bounding_box() for lane in stage.page.locator(".ndp-lane").all()]
    assert len(boxes) == count and stage.page.evaluate("document.documentElement.scrollWidth") <= width
    assert all(box["width"] >= 220 for box in boxes)
    if width == 390:
        assert len({box["x"] for box in boxes}) == 1
    assert len({box["x"] for box in boxes}) == {390: 1, 760: 1 if count == 3 else 2, 1072: 3 if count == 3 else 2}[width]


def test_the_bar_shows_where_the_time_went(stage: Any):
    traces = race()
    stage.load(traces)
    words = stage.page.locator(".ndp-lane").nth(2).locator(".ndp-shares-words")
    shares: dict[str, float] = {}
    before = 0
    for step in traces[2].steps:
        shares[step.phase] = shares.get(step.phase, 0) + step.elapsed_ns - before
        before = step.elapsed_ns
    assert words.locator("span").all_text_contents() == [f"{p} {round(100 * shares[p] / before)} %" for p in ("prefill", "draft", "verify")]
    stage.seek(0)  # not known before the lane's end
    expect(words).to_be_empty()


def differing(at: int = 16) -> tuple[list[Trace], dict[str, Any]]:
    """A race whose speculating lane parts from AR at one token of its output."""
    traces = race(candidates=3)
    spec = traces[2]
    position, other = spec.canvas_at(-1).prompt_length + at, spec.output.ids[3]
    steps = [replace(s, events=tuple(replace(e, token=other) if e.position == position and e.kind in ("accept", "bonus") else e for e in s.events)) for s in spec.steps]
    ids = [other if i == at else token for i, token in enumerate(spec.output.ids)]
    traces[2] = replace(spec, steps=steps, output=replace(spec.output, ids=ids))
    return traces, {"to_lane": 0, "same": False, "first_divergence": at, "gap": 0.0123}


def test_a_divergence_can_be_jumped_to(stage: Any):
    traces, verdict = differing()
    sent = messages(traces)
    sent[-1]["tail"]["identical"] = verdict
    stage.receive(*sent)
    stage.wait("p.complete")
    stage.page.keyboard.press("End")
    card = stage.page.locator(".ndp-lane").nth(2)
    expect(card.locator(".ndp-badge")).to_have_text("differs from AR at token 17")
    expect(card.locator(".ndp-gap")).to_contain_text("logit gap 0.0123")
    card.get_by_role("button", name="jump to it").click()
    position = len(traces[0].prompt.ids) + 16
    step = max(s.index for s in traces[2].steps for e in s.events if e.position == position and e.kind in ("accept", "bonus"))
    stage.wait("p.selection.lane === 2 && p.selection.position === a[0] && p.selection.step === a[1]", position, step)
    expect(card.locator('.ndp-slot[data-pinned="true"]')).to_have_count(1)
    assert not stage.get("p.playing")


def test_a_childs_tokens_that_differ_from_its_parents_are_marked_whenever_it_is_shown(stage: Any):
    (parent, _, spec), _ = differing()
    child = replace(spec, parent={"trace": parent.id, "step": 0, "label": "pinned"})
    marked = "[...document.querySelectorAll('.ndp-lane')].map((lane) => [...lane.querySelectorAll('.ndp-slot')].flatMap((slot, i) => (slot.classList.contains('ndp-differs') ? [i] : [])))"
    for lanes, expected in (([parent, child], [[], [16]]), ([parent, child], [[], [16]]), ([parent, spec], [[], []]), ([child, parent], [[16], []])):
        stage.load(lanes)
        assert stage.page.evaluate(marked) == expected
        said = stage.page.locator(".ndp-kin:visible").all_text_contents()
        assert said == (["differs from its parent in 1 token, marked above"] if sum(expected, []) else [])


def test_a_child_beside_its_parent_plays_from_where_they_part(stage: Any):
    (parent, _, spec), _ = differing()
    stage.load([parent, replace(spec, parent={"trace": parent.id, "step": 2, "label": "pinned"})], play=True)
    stage.page.keyboard.press(" ")
    stage.wait("!p.playing && p.lanes[1].step >= 2")


def test_a_gap_that_was_not_recorded_is_said_to_be_so(stage: Any):
    traces, verdict = differing()
    sent = messages(traces)
    sent[-1]["tail"]["identical"] = {**verdict, "gap": None}
    stage.receive(*sent)
    expect(stage.page.locator(".ndp-gap:visible")).to_contain_text("logit gap not recorded")


def test_a_verdict_may_come_after_its_lane(stage: Any):
    ar, _, spec = race()
    sent = messages([spec, ar])
    sent[-1]["tail"]["verdicts"] = {"0": {"to_lane": 1, "same": True, "first_divergence": None}}
    stage.receive(*sent)
    expect(stage.page.locator(".ndp-lane").first.locator(".ndp-badge")).to_contain_text("identical to AR")


def test_lanes_from_other_tokenizers_keep_their_own_words(stage: Any):
    traces = race()
    changed = replace(traces[1], vocabulary={key: f"({key})" for key in traces[1].vocabulary})
    stage.receive(*messages([traces[0], changed]))
    stage.wait("p.complete")
    first, second = (lane["text"] for lane in stage.get("p.lanes.map((l) => ({ text: l.text }))"))
    stage.page.keyboard.press("End")
    stage.page.get_by_label("To the end (End)").click()
    stage.wait("p.lanes.every((l) => l.done)")
    first, second = stage.get("p.lanes.map((l) => l.text)")
    assert first.startswith("Mira found") and second.startswith("(2")


def test_saved_lanes_are_told_from_those_that_ran_here(stage: Any):
    sent = messages(race())
    sent[-1]["tail"]["opened"] = True
    stage.receive(*sent)
    expect(stage.page.locator(".ndp-clock-note")).to_contain_text("Self-speculation is a saved trace with the times of its own run")


# -- blind ----------------------------------------------------------------------------------------------

TELLING = "autoregressive diffusion speculation linear_spec draft verify denoise threshold block forwards NFE acceptance TPF".split()
HIDDEN = {"number": 0, "of": 2, "best": None}


def blind(traces: list[Trace], **about: Any) -> list[dict[str, Any]]:
    return [{**message, "blind": {**HIDDEN, **about}} for message in messages(traces)]


def leaks(stage: Any) -> list[str]:
    """Telling words anywhere in the player's markup that the visitor could see, hear or inspect."""
    markup = stage.page.evaluate(
        """() => {
          const copy = document.querySelector('.ndp').cloneNode(true);
          // The transport, its menus and the tabs of the panels are the same for every run and not on show.
          for (const part of copy.querySelectorAll('.ndp-transport[hidden], .ndp-dock[hidden], .ndp-figures[hidden]')) part.remove();
          return copy.outerHTML;
        }"""
    ).lower()
    return [word for word in TELLING if word.lower() in markup]


def test_a_blind_race_tells_nothing_before_the_vote(stage: Any):
    traces = race()
    sent = blind(traces)
    for message in sent[:-1]:
        stage.receive(message)
        stage.settle()
        assert leaks(stage) == []
        assert stage.page.locator(".ndp-answer").all_text_contents() == ["…"] * 3
    expect(stage.page.locator(".ndp-blind button:enabled")).to_have_count(0)
    stage.receive(sent[-1])
    stage.settle()
    assert leaks(stage) == []
    answers = stage.page.locator(".ndp-answer").all_text_contents()
    assert [a[:10] for a in answers] == ["".join(t.output.pieces)[:10] for t in traces]
    assert stage.page.locator(".ndp-transport, .ndp-dock").locator("visible=true").count() == 0
    for key in ("Space", "ArrowRight", "End", "?"):
        stage.focus()
        stage.page.keyboard.press(key)
    stage.settle()
    assert leaks(stage) == []


def answer_votes(stage: Any, answer: Any) -> None:
    """What the server would say to a vote; ballots are kept in `window.ballots`."""
    stage.page.evaluate(
        """async (answer) => {
          window.player.destroy();
          const { mount } = await import('/player/player.js');
          window.ballots = [];
          window.calls = [];
          window.player = mount(document.getElementById('root'), {
            id: 'p', resync: async () => ({ messages: [] }),
            vote: async (ballot) => { window.ballots.push(ballot); return typeof answer === 'object' ? answer : { error: answer }; },
            voted: () => window.calls.push('voted'), next: (run) => window.calls.push('next ' + run),
          });
        }""",
        answer,
    )


def test_the_vote_brings_the_names_and_the_next_prompt(stage: Any):
    answer_votes(stage, {"blind": {**HIDDEN, "best": [0, 2]}})
    stage.receive(*blind(race()))
    page = stage.page
    vote = page.locator(".ndp-cast")
    expect(vote).to_be_disabled()
    page.get_by_role("button", name="A is best").click()
    page.get_by_role("button", name="All bad").click()
    expect(page.get_by_role("button", name="A is best")).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="A is best").click()
    page.get_by_role("button", name="C is best").click()
    expect(page.get_by_role("button", name="All bad")).to_have_attribute("aria-pressed", "false")
    expect(vote).to_have_text("Vote: a tie")
    vote.click()
    expect(page.locator(".ndp-revealed")).to_contain_text("Prompt 1 of 2. You preferred A, Autoregressive, and C, Self-speculation.")
    assert page.evaluate("window.ballots") == [{"run": "run-1", "best": [0, 2]}]
    expect(page.locator(".ndp-lane-name")).to_have_text(["A · Autoregressive", "B · Block diffusion", "C · Self-speculation"])
    expect(page.locator(".ndp-transport")).to_be_visible()
    page.get_by_role("button", name="Next prompt (2 of 2)").click()
    assert page.evaluate("window.calls") == ["voted", "next run-1"]


def test_a_vote_that_is_refused_says_why_and_hides_on(stage: Any):
    answer_votes(stage, "This comparison has been voted on already; run the next one.")
    stage.receive(*blind(race()))
    stage.page.get_by_role("button", name="All bad").click()
    stage.page.locator(".ndp-cast").click()
    expect(stage.page.locator(".ndp-blind .ndp-fault")).to_contain_text("voted on already")
    assert stage.page.evaluate("window.ballots[0].best") == [] and leaks(stage) == []


def test_a_stopped_blind_race_has_no_vote_and_keeps_its_secret(stage: Any):
    traces = race()
    traces[1] = replace(traces[1], stop_reason="cancelled")
    stage.receive(*blind(traces)[:-1])
    expect(stage.page.locator(".ndp-clock-note")).to_contain_text("nothing to vote on")
    expect(stage.page.locator(".ndp-blind button:enabled")).to_have_count(0)
    assert leaks(stage) == []


def test_a_race_that_was_voted_on_opens_with_its_names(stage: Any):
    stage.receive(*blind(race(), best=[]))
    expect(stage.page.locator(".ndp-revealed")).to_contain_text("You called all of them bad.")
    expect(stage.page.locator(".ndp-lane-name").first).to_have_text("A · Autoregressive")
