"""Films are decoded again: how many frames, how long, and what is on them."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from itertools import pairwise

import av
import pytest
from PIL import Image, ImageChops, ImageDraw, ImageSequence

from nemodiff_core.errors import NemodiffError
from nemodiff_core.trace import Trace
from tests.ui.player.traces import MODES, STORY, Maker, noise, race
from ui.export import frames, palette
from ui.export.flow import flow
from ui.export.frames import Film
from ui.export.pen import pen
from ui.export.plan import FRAME_MS, HOLD_MS, MAX_FRAMES, make_plan
from ui.export.video import gif, mp4


def pixels_off(a: Image.Image, b: Image.Image) -> int:
    """How many pixels differ to the eye."""
    return sum(ImageChops.difference(a.convert("RGB"), b.convert("RGB")).convert("L").histogram()[40:])


def colours(image: Image.Image) -> set[tuple[int, int, int]]:
    return {colour for _, colour in image.getcolors(maxcolors=2**24)}


# -- the plan ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(MODES))
def test_every_forward_of_a_short_run_has_its_frame(mode: str):
    trace = MODES[mode](Maker(seed=2))
    plan = make_plan([trace])
    assert [moment.steps for moment in plan.moments] == [(i,) for i in range(-1, len(trace.steps))]
    assert plan.hold_ms == HOLD_MS and plan.frame_ms >= FRAME_MS


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_long_run_keeps_to_the_frames_there_are(lanes: int):
    traces = [Maker(STORY * 4, seed).ar() for seed in range(lanes)]
    plan = make_plan(traces)
    assert len(plan.moments) <= MAX_FRAMES
    assert plan.moments[-1].steps == tuple(len(trace.steps) - 1 for trace in traces)
    assert all(a <= b for one, two in pairwise(plan.moments) for a, b in zip(one.steps, two.steps))
    assert plan.duration_ms <= MAX_FRAMES * FRAME_MS + HOLD_MS


def test_a_race_goes_by_the_measured_clock():
    traces = race()
    plan = make_plan(traces)
    for moment in plan.moments:
        for trace, step in zip(traces, moment.steps):
            done = [s.index for s in trace.steps if s.elapsed_ns <= moment.time_ns]
            assert step == (done[-1] if done else -1)
    ticks = {round(b.time_ns - a.time_ns) for a, b in list(pairwise(plan.moments))[:-1]}
    assert len(ticks) == 1, "time must pass evenly"


@pytest.mark.parametrize(("scale", "clock"), [(1e-4, "slowed 1000×"), (1, "slowed 4×"), (10, "real time"), (100, "16× as fast")])
def test_the_clock_is_named(scale: float, clock: str):
    traces = [replace(t, steps=[replace(s, elapsed_ns=int(s.elapsed_ns * scale)) for s in t.steps]) for t in race()]
    assert make_plan(traces).clock == clock


# -- pictures ---------------------------------------------------------------------------------------


def test_the_colours_are_the_players():
    source = (palette.STYLESHEET.parent / "confidence.js").read_text("utf-8")
    bounds = re.search(r"BOUNDS = \[([^\]]+)\]", source)[1]
    assert palette.BOUNDS == tuple(float(x) for x in bounds.split(","))
    for theme in ("light", "dark"):
        known = palette.palette(theme)
        assert {f"c{i}" for i in range(8)} | {f"t{i}" for i in range(8)} <= set(known.colours)
        assert known.confidence(0.0) == (known["c0"], known["t0"]) and known.confidence(1.0) == (known["c7"], known["t7"])
        assert known.confidence(None) == (known["sunken"], known["ink"])


def test_the_text_never_moves_and_no_line_is_too_long():
    trace = Maker(seed=1).ar()
    pieces = [trace.vocabulary[str(i)] for i in trace.output.ids]
    made = flow(pieces, 400, pen(16), pen(12))
    joined = "".join("".join(part.text for part in line) for line in made.lines)
    assert joined == "".join(pieces).replace("\n", "")
    for line in made.lines:
        assert all(abs(a.left + a.width - b.left) < 1e-6 for a, b in pairwise(line))
        assert not line or line[-1].left + line[-1].width <= 400 + 1e-6
    assert made.last_line == sorted(made.last_line) and len(made.last_line) == len(pieces)
    words = " ".join("".join(part.text for part in line).strip() for line in made.lines).split()
    assert words == STORY.split()[:-1] + ["morning.<|im_end|>"], "lines must break between words"


def test_states_are_told_apart_by_more_than_colour():
    seen: set[str] = set()
    for trace in (Maker(STORY[:250], seed=5).diffusion(mistakes=0.2), Maker(STORY[:250], seed=5).linear_spec()):
        film = Film([trace])
        for _ in film.frames():
            (lane,) = film.lanes
            looks = [lane.look(i) for i in range(len(lane.final))]
            seen |= {look.state for look in looks}
            seen |= {"revised" for look in looks if look.revised} | {"other" for look in looks if look.other is not None}
            cells = trace.canvas_at(lane.step).cells
            for index, look in enumerate(looks):
                cell = cells.get(lane.start + index)
                assert (cell is None) == (look.state == "hidden")
                assert look.confidence is None or look.confidence == cell.confidence
    assert seen >= {"hidden", "masked", "shown", "draft", "rejected", "other"}


def test_a_token_that_gave_way_leaves_a_notch():
    trace = Maker("one two three four", seed=1).diffusion(size=4)
    at = len(trace.prompt.ids) + 1
    first = next(s for s in trace.steps if any(e.position == at and e.kind == "commit" for e in s.events))
    wrong = next(int(i) for i, piece in trace.vocabulary.items() if piece.strip() == "one")
    commit = next(e for e in first.events if e.position == at)
    steps = list(trace.steps)
    steps[first.index] = replace(first, events=tuple(replace(e, token=wrong) if e is commit else e for e in first.events))
    second = replace(first, phase="revise", index=first.index + 1, events=(replace(commit, kind="remask"),))
    third = replace(first, index=first.index + 2, events=(commit,))
    steps[first.index + 1 : first.index + 1] = [second, third]
    steps = [replace(s, index=i) for i, s in enumerate(steps)]
    film = Film([replace(trace, steps=steps)])
    for image in film.frames():
        pass
    assert film.lanes[0].look(1).revised
    assert film.colours["bonus"] in colours(image)


def test_light_and_dark_and_the_last_frame_shows_everything():
    for theme in ("light", "dark"):
        film = Film([Maker(STORY[:250], seed=3).diffusion()], theme)
        first = None
        for image in film.frames():
            first = first or image.copy()
            assert image.size == film.size and not image.width % 2 and not image.height % 2
        assert image.getpixel((2, 2)) == palette.palette(theme)["surface"]
        assert pixels_off(first, image) > 5000
        assert film.colours["hatch"] not in colours(image)


def test_a_frame_does_not_depend_on_the_frames_before_it():
    trace = Maker(STORY[:400] * 4, seed=3).linear_spec()
    film = Film([trace])
    assert len(film.lanes[0].flow.lines) > film.lines, "the text must not fit one page"
    for number, image in enumerate(film.frames()):
        if number in (10, 40):
            fresh = Film([trace])
            fresh.lanes[0].advance(film.plan.moments[number - 1].steps[0])
            fresh.plan = replace(film.plan, moments=(film.plan.moments[number],))
            (again,) = fresh.frames()
            strip = film._strips[0]
            if strip._first == fresh._strips[0]._first:
                box = (0, strip.top, film.width, strip.bottom)
                assert pixels_off(image.crop(box), again.crop(box)) == 0


def test_hostile_and_shapeless_runs_can_be_drawn(hostile: Trace):
    for traces in ([hostile], [hostile, noise(3)], [noise(1)], [replace(noise(2), steps=[])]):
        for image in Film(traces).frames():
            assert image.size[0] >= 800


def test_text_that_the_font_lacks_comes_as_boxes():
    writer = pen(18)
    image = Image.new("RGB", (200, 40), "white")
    assert writer.width("\u4f60\u597d") > 20
    writer.write(ImageDraw.Draw(image), 4, 20, "\u4f60\u597d", (0, 0, 0))
    assert len(colours(image)) > 2
    assert writer.cut("x" * 400, 100).endswith("…") and writer.width(writer.cut("x" * 400, 100)) <= 100


def test_what_no_film_can_show_is_refused(monkeypatch: pytest.MonkeyPatch):
    trace = Maker("Hi.").ar()
    with pytest.raises(NemodiffError, match="one to 4"):
        Film([trace] * 5)
    monkeypatch.setattr(frames, "MAX_TOKENS", 2)
    with pytest.raises(NemodiffError, match="at most 2 tokens"):
        Film([trace])


# -- files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_gif_decodes_to_the_frames_that_were_drawn(theme: palette.Theme):
    traces = [Maker(STORY[:200], seed=6).linear_spec()]
    film = Film(traces, theme)
    drawn = [image.copy() for image in film.frames()]
    with Image.open(io.BytesIO(gif(traces, theme))) as file:
        assert file.info["loop"] == 0
        got = [(frame.info["duration"], frame.convert("RGB")) for frame in ImageSequence.Iterator(file)]
    assert len(got) == len(drawn)
    assert [ms for ms, _ in got] == [film.plan.frame_ms] * (len(drawn) - 1) + [HOLD_MS]
    for (_, image), wanted in zip(got, drawn):
        assert pixels_off(image, wanted) == 0


def test_a_race_as_gif_lasts_as_long_as_planned():
    traces = [Maker(STORY[:120], seed=1).ar(), Maker(STORY[:120], seed=1).linear_spec()]
    with Image.open(io.BytesIO(gif(traces))) as file:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(file)]
    plan = make_plan(traces)
    assert sum(durations) == plan.duration_ms
    assert len(durations) <= len(plan.moments) <= MAX_FRAMES and durations[-1] >= HOLD_MS


def test_a_run_without_a_forward_is_one_picture():
    with Image.open(io.BytesIO(gif([replace(noise(2), steps=[])]))) as file:
        assert getattr(file, "n_frames", 1) == 1


def test_the_mp4_is_what_browsers_play():
    traces = [Maker(STORY[:120], seed=6).diffusion()]
    film = Film(traces, "dark")
    for last in film.frames():
        pass
    with av.open(io.BytesIO(mp4(traces, "dark"))) as file:
        (stream,) = file.streams
        assert stream.codec_context.name == "h264" and "Baseline" in stream.codec_context.profile
        pictures = list(file.decode(stream))
        seconds = float(stream.duration * stream.time_base)
    assert {picture.format.name for picture in pictures} == {"yuv420p"}
    held = -(-HOLD_MS // film.plan.frame_ms)
    assert len(pictures) == len(film.plan.moments) - 1 + held
    assert seconds == pytest.approx(len(pictures) * film.plan.frame_ms / 1000, abs=0.05)
    shown = pictures[-1].to_image().resize(film.size)
    assert shown.getpixel((3, 3)) == pytest.approx(last.getpixel((3, 3)), abs=6), "colours must survive"
