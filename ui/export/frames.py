"""The frames of a film: what the player shows of a run, drawn without a browser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw

from nemodiff_core import metrics
from nemodiff_core.errors import NemodiffError
from nemodiff_core.trace import Trace

from ui.export.lane import Lane
from ui.export.palette import Colour, Palette, Theme, palette
from ui.export.pen import Pen, blank, pen
from ui.export.plan import Moment, Plan, make_plan
from ui.export.strip import Strip, Style
from ui.export.words import apart, duration, ending, prompt_of, shorten
from ui.lossless import identity
from ui.naming import model_name, name

MAX_TOKENS = 16_384  # of all lanes together
MAX_LANES = 4
LANE_WIDTH, SINGLE_WIDTH = 380, 880
MOST_LINES, FEWEST_LINES = 20, 4
_PLACES = ("1st", "2nd", "3rd", "4th")


class Film:
    """A run drawn frame by frame, one lane large or several side by side. Raises NemodiffError."""

    def __init__(self, traces: Sequence[Trace], theme: Theme = "light", scale: float = 1.0) -> None:
        if not 1 <= len(traces) <= MAX_LANES:
            raise NemodiffError(f"a film shows one to {MAX_LANES} runs side by side.")
        if sum(len(trace.output.ids) for trace in traces) > MAX_TOKENS:
            raise NemodiffError(f"a film shows at most {MAX_TOKENS} tokens; save the run as HTML instead.")
        self.traces, self.scale = traces, scale
        self.colours: Palette = palette(theme)
        self.plan: Plan = make_plan(traces)
        self.race = len(traces) > 1
        self.pad, self.gap = self.px(24), self.px(14)
        self.text = pen(self.px(15 if self.race else 18))
        self.small, self.note = pen(self.px(12 if self.race else 14)), pen(self.px(13))
        row = self.px(26 if self.race else 32)
        if self.race:
            lane_width = self.px(LANE_WIDTH if len(traces) < 4 else 320)
            inner = lane_width - 2 * self.gap
            self.width = 2 * self.pad + len(traces) * lane_width + (len(traces) - 1) * self.gap
        else:
            self.width = self.px(SINGLE_WIDTH)
            inner = lane_width = self.width - 2 * self.pad
        self.lanes = [Lane(trace, inner, self.text, self.small) for trace in traces]
        self.lines = max(FEWEST_LINES, min(MOST_LINES, max(len(lane.flow.lines) for lane in self.lanes)))
        top = self.pad + self.px(116 if self.race else 104)
        bottom = self.px(110 if self.race else 40)
        self.height = top + self.lines * row + bottom
        self.width += self.width % 2  # films in H.264 have even sides
        self.height += self.height % 2
        lefts = [self.pad + i * (lane_width + self.gap) for i in range(len(traces))]
        self._boxes = [(left, left + lane_width) for left in lefts]
        style = Style(self.colours, self.text, self.small, row, self.lines, scale)
        self._strips = [
            Strip(lane, style, (left + self.gap if self.race else left, top), inner) for lane, left in zip(self.lanes, lefts)
        ]

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    def px(self, value: float) -> int:
        return round(value * self.scale)

    def frames(self) -> Iterator[Image.Image]:
        """Every frame in turn, always in the same picture: take what you need before asking for the next."""
        image, draw = blank(self.width, self.height, self.colours["surface"])
        self._frame(draw)
        for moment in self.plan.moments:
            for lane, step in zip(self.lanes, moment.steps):
                lane.advance(step)
            if self.race:
                self._clock(draw, moment)
            for number, strip in enumerate(self._strips):
                if self.lanes[number].moved:
                    (self._card if self.race else self._head)(draw, number)
                strip.paint(image)
            yield image

    # -- around the text ----------------------------------------------------------------------------

    def _frame(self, draw: ImageDraw.ImageDraw) -> None:
        """What stays as it is."""
        px, left, right = self.px, self.pad, self.width - self.pad
        trace, y = self.traces[0], self.pad + px(6)
        asked = f"Prompt: {shorten(prompt_of(trace), 200)}"
        if self.race:
            runs = f"{len(self.traces)} runs{', one model' if len({run.model['id'] for run in self.traces}) == 1 else ''}"
            pen(px(19)).write(draw, left, y, runs, self.colours["ink"], bold=True)
            self._line(draw, left, y + px(26), right - left, asked)
            devices = {shorten(trace.model["device"], 40) for trace in self.traces}
            where = f" ({devices.pop()})" if len(devices) == 1 else ""
            self._line(draw, left, y + px(46), right - left, f"Measured clock{where}, {self.plan.clock}; each lane’s time counts from its own start")
        else:
            pen(px(19)).write(draw, left, y, name(trace.request), self.colours["ink"], bold=True)
            self._line(draw, left, y + px(72), right - left, asked)
            self._line(draw, left, self.height - px(22), right - left - px(120), self._model(trace))
            self._right(draw, right, self.height - px(22), "nemodiff", self.note, self.colours["muted"])

    def _clock(self, draw: ImageDraw.ImageDraw, moment: Moment) -> None:
        right, y = self.width - self.pad, self.pad + self.px(6)
        draw.rectangle((right - self.px(320), y - self.px(12), right, y + self.px(12)), fill=self.colours["surface"])
        clock = f"{duration(moment.time_ns)} of {duration(self.plan.moments[-1].time_ns)}"
        self._right(draw, right, y, clock, self.note, self.colours["ink"])

    def _head(self, draw: ImageDraw.ImageDraw, number: int) -> None:
        c, px, lane = self.colours, self.px, self.lanes[number]
        left, right, y = self.pad, self.width - self.pad, self.pad + px(6)
        draw.rectangle((right - px(320), y - px(12), right, y + px(12)), fill=c["surface"])
        draw.rectangle((left, y + px(16), right, y + px(58)), fill=c["surface"])
        steps = lane.trace.steps
        phase = f" · {steps[lane.step].phase}" if lane.step >= 0 else ""
        self._right(draw, right, y, f"step {lane.step + 1} of {len(steps)}{phase}", self.note, c["muted"])
        self._row(draw, left, y + px(30), self._figures(lane), self.note, px(20))
        self._bar(draw, left, right, y + px(50), (lane.step + 1) / max(1, len(steps)))

    def _figures(self, lane: Lane) -> list[tuple[str, str]]:
        now = lane.so_far()
        if metrics.remote(now):
            counted = metrics.tokens(now) if lane.done else None
            first = metrics.first_token_seconds(now)
            return [
                ("tokens", "–" if counted is None else f"{counted}"),
                ("chunks", f"{metrics.chunks(now)}"),
                ("first", "–" if first is None else duration(first * 1e9)),
                ("time", duration(metrics.seconds(now) * 1e9)),
            ]
        rate, length = metrics.tpf(now), metrics.acceptance_length(now)
        shown = [
            ("tokens", f"{metrics.tokens(now)} / {len(lane.final)}"),
            ("NFE", f"{metrics.nfe(now)}"),
            ("TPF", "–" if rate is None else f"{rate:.2f}"),
            ("time", duration(metrics.seconds(now) * 1e9)),
        ]
        return shown if length is None else [*shown, ("acceptance", f"{length:.2f}")]

    def _card(self, draw: ImageDraw.ImageDraw, number: int) -> None:
        c, px, lane, strip = self.colours, self.px, self.lanes[number], self._strips[number]
        left, right = self._boxes[number]
        top, bottom = self.pad + px(70), self.height - self.pad
        draw.rectangle((left, top, right, strip.top - 1), fill=c["surface"])
        draw.rectangle((left, strip.bottom, right, bottom), fill=c["surface"])
        draw.rounded_rectangle((left, top, right, bottom), px(8), outline=c["line"])
        inner, end, y = left + self.gap, right - self.gap, top + px(20)
        x = self.text.write(draw, inner, y, name(lane.trace.request), c["ink"], bold=True) + px(10)
        if lane.done:
            place = _PLACES[sorted(self._ends).index(self._ends[number])]
            wide = self.small.width(place) + px(12)
            draw.rounded_rectangle((x, y - px(9), x + wide, y + px(9)), px(9), fill=c["ink"])
            self.small.write(draw, x + px(6), y, place, c["surface"])
            x += wide + px(12)
        beside = apart(lane.trace, self.traces) or (ending(lane.trace.stop_reason) if lane.done else "")
        if x + px(40) < end:
            self._right(draw, end, y, self.small.cut(shorten(beside, 80), end - x), self.small, c["muted"])
        self._bar(draw, inner, end, y + px(18), (lane.step + 1) / max(1, len(lane.trace.steps)))
        figures, y = self._figures(lane), bottom - px(64)
        draw.line((inner, y - px(14), end, y - px(14)), fill=c["line"])
        self._row(draw, inner, y, figures[:3], self.small, px(14))
        self._row(draw, inner, y + px(22), figures[3:], self.small, px(14))
        verdict = identity(self.traces, number) if lane.done else None
        if verdict is not None:
            n, at = len(lane.final), verdict["first_divergence"]
            said = f"✓ identical to AR · {n}/{n} tokens" if verdict["same"] else f"≠ differs from AR at token {at + 1}"
            self.small.write(draw, inner, y + px(44), said, c["good" if verdict["same"] else "bad"], bold=True)

    @property
    def _ends(self) -> list[tuple[int, int]]:
        return [(trace.steps[-1].elapsed_ns if trace.steps else 0, n) for n, trace in enumerate(self.traces)]

    def _model(self, trace: Trace) -> str:
        parts = (shorten(model_name(trace.model), 80), shorten(trace.model["device"], 40), shorten(trace.model["dtype"].replace("torch.", ""), 20))
        return " · ".join([*filter(None, parts), self.plan.clock])

    def _row(self, draw: ImageDraw.ImageDraw, x: float, y: float, figures: list[tuple[str, str]], writer: Pen, gap: int) -> None:
        for name, value in figures:
            x = writer.write(draw, x, y, name + " ", self.colours["muted"])
            x = writer.write(draw, x, y, value, self.colours["ink"], bold=True) + gap

    def _line(self, draw: ImageDraw.ImageDraw, x: float, y: float, room: float, text: str) -> None:
        self.note.write(draw, x, y, self.note.cut(text, room), self.colours["muted"])

    def _right(self, draw: ImageDraw.ImageDraw, x: float, y: float, text: str, writer: Pen, fill: Colour) -> None:
        writer.write(draw, x - writer.width(text), y, text, fill)

    def _bar(self, draw: ImageDraw.ImageDraw, left: int, right: int, y: float, share: float) -> None:
        tall = self.px(3)
        draw.rectangle((left, y, right, y + tall - 1), fill=self.colours["line"])
        if share > 0:
            draw.rectangle((left, y, left + (right - left) * min(1.0, share), y + tall - 1), fill=self.colours["accent"])
