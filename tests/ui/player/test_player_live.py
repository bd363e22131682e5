"""The live protocol as the browser hears it: following, gaps, faults, races."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import expect

from tests.ui.player.traces import Maker, messages, race


def test_a_live_run_is_followed_to_its_end(stage: Any):
    trace = Maker(seed=1).diffusion()
    sent = messages([trace])
    stage.receive(*sent[:4])
    assert stage.get("p.step") == 14 and stage.get("p.following")
    stage.receive(*sent[4:-1])
    assert stage.get("p.step") == len(trace.steps) - 1 and not stage.get("p.complete")
    stage.receive(sent[-1])
    assert stage.get("p.output") == trace.output.ids and stage.get("p.complete")
    assert stage.get("p.lanes[0].metrics.tokens") == len(trace.output.ids)
    assert stage.page.evaluate("window.asked") == []


def test_a_live_runs_earlier_text_never_moves(stage: Any):
    places = "[...document.querySelectorAll('.ndp-slot')].filter(s => s.dataset.state === 'shown').slice(0, 20).map(s => [s.offsetLeft, s.offsetTop, s.textContent])"
    sent = messages([Maker(seed=1).ar()])
    stage.receive(*sent[:9])
    stage.settle()
    early = stage.page.evaluate(places)
    assert len(early) == 20
    for message in sent[9:]:
        stage.receive(message)
        stage.settle()
        assert stage.page.evaluate(places)[:19] == early[:19]


def test_scrubbing_stops_following_and_live_returns(stage: Any):
    sent = messages([Maker(seed=1).diffusion()])
    stage.receive(*sent[:4])
    stage.settle()
    expect(stage.page.locator(".ndp-live")).to_be_hidden()
    stage.seek(3)
    assert stage.get("p.step") == 2
    stage.receive(sent[4])
    assert stage.get("p.step") == 2 and stage.get("p.steps") == 20
    stage.page.locator(".ndp-live").click()
    assert stage.get("p.step") == 19
    stage.receive(sent[5])
    assert stage.get("p.step") == 24


def test_a_gap_fetches_the_run_again_and_goes_on(stage: Any):
    trace = Maker(seed=1).diffusion()
    sent = messages([trace])
    stage.page.evaluate("(list) => { window.answer = { messages: list }; }", sent[:6])
    stage.receive(*sent[:2], sent[4], sent[6])  # 2, 3 and 5 are lost; 6 comes while the answer is on its way
    stage.wait("p.seq === 6")
    assert stage.page.evaluate("window.asked") == [{"run": "run-1"}]
    assert stage.get("p.steps") == 30 and stage.get("p.step") == 29
    stage.receive(*sent[7:], sent[3])
    assert stage.get("p.output") == trace.output.ids and stage.get("p.complete")


def test_a_recorded_run_is_fetched_and_played(stage: Any):
    trace = Maker(seed=1).diffusion()
    sent = messages([trace])
    stage.page.evaluate("(list) => { window.answer = { messages: list }; }", sent)
    stage.receive(sent[-1])  # all that a new page is given
    stage.wait("p.playing && p.step >= 2")
    assert stage.page.evaluate("window.asked") == [{"run": "run-1"}]
    stage.receive(sent[-1])
    assert stage.get("p.playing"), "hearing the same message twice must change nothing"


def test_what_the_server_refuses_is_said(stage: Any):
    stage.page.evaluate("() => { window.answer = { error: 'This run is no longer <b>kept</b> here.' }; }")
    stage.receive(messages([Maker(seed=1).ar()])[5])
    expect(stage.page.get_by_role("alert")).to_have_text("This run is no longer <b>kept</b> here.")
    assert stage.get("p.fault") == "This run is no longer <b>kept</b> here."


def test_a_fault_is_shown_and_the_next_run_clears_it(stage: Any):
    sent = messages([Maker(seed=1).diffusion()])
    fault = {**sent[3], "type": "fault", "steps": [], "text": "The device is out of memory; shorten the prompt."}
    stage.receive(*sent[:3], fault)
    expect(stage.page.get_by_role("alert")).to_have_text(fault["text"])
    assert stage.get("p.complete") and stage.get("p.steps") == 10
    stage.receive(*messages([Maker(seed=2).diffusion()], run="run-2"))
    expect(stage.page.locator(".ndp-fault")).to_be_hidden()
    assert stage.get("p.run") == "run-2" and stage.get("p.fault") is None


def test_unreadable_messages_do_not_stop_the_player(stage: Any):
    stage.page.evaluate("() => { window.player.receive('{'); window.player.receive('[]'); }")
    expect(stage.page.get_by_role("alert")).to_be_visible()
    trace = Maker(seed=1).ar()
    stage.receive(*messages([trace]))
    assert stage.get("p.output") == trace.output.ids


def test_a_live_race_names_the_running_lane_and_then_replays(stage: Any):
    traces = race()
    sent = messages(traces)
    second = next(i for i, m in enumerate(sent) if m["lane"] == 1 and m["type"] == "steps")
    stage.receive(*sent[: second + 1])
    states = [stage.page.locator(".ndp-lane-state").nth(i) for i in range(3)]
    expect(states[1]).to_have_text("live")
    expect(states[2]).to_have_text("waits for its turn")
    expect(stage.page.locator(".ndp-badge:visible")).to_have_count(0)
    assert not stage.get("p.playing") and stage.get("p.identical") is None
    stage.receive(*sent[second + 1 :])
    stage.wait("p.playing && p.complete")
    assert stage.get("p.lanes.every((l) => !l.done)")
    stage.focus()
    stage.page.keyboard.press("End")
    stage.wait("p.lanes.every((l) => l.done)")
    assert stage.get("p.identical.same") is True


def test_destroy_leaves_nothing_behind(stage: Any):
    stage.load([Maker(seed=1).diffusion()], play=True)
    stage.page.evaluate("() => window.player.destroy()")
    assert stage.page.evaluate("[document.querySelectorAll('.ndp').length, Object.keys(window.__nemodiff.players).length]") == [0, 0]
    stage.receive(json.loads(json.dumps(messages([Maker(seed=2).ar()])[0])))


def test_any_step_of_a_long_trace_is_drawn_when_jumped_to(stage: Any):
    """4096 steps, 512 tokens, back and forth: what is shown is the fold's own state, wherever the hand lands."""
    maker = Maker(" ".join(["word"] * 511), seed=1)
    steps = 4096
    for index in range(steps):
        span = (maker.start, maker.start + 512)
        kind = "commit" if index >= steps - 512 else "remask"
        position = maker.start + index % 512
        maker.step("denoise", span, 0, [maker.event(position, kind, 200 + index % 7)], 5)
    output = [200 + i % 7 for i in range(steps - 512, steps)]
    trace = maker.trace("diffusion", output, "length", "long", block_length=64)
    stage.load([trace])
    shown = stage.page.evaluate(
        """async () => {
          const range = document.querySelector('.ndp-range');
          const shown = [];
          for (let i = 0; i < 40; i += 1) {
            range.value = String((i * 2411) % 4096);
            range.dispatchEvent(new Event('input'));
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            const { step, output } = window.__nemodiff.players.p;
            shown.push([step, output.length, document.querySelector('.ndp-step').textContent]);
          }
          return shown;
        }"""
    )
    for i, (step, tokens, sentence) in enumerate(shown):
        assert step == (i * 2411) % 4096 - 1
        assert tokens == len(trace.canvas_at(step).output())
        assert sentence.startswith(f"step {step + 1} of 4096" if step >= 0 else "before")
