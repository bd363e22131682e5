"""The text of one lane in a film, line by line."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from PIL import Image, ImageDraw

from ui.export.flow import Piece
from ui.export.lane import Lane, Look
from ui.export.palette import Colour, Palette
from ui.export.pen import Pen, blank, pen
from ui.export.words import prose


@dataclass(frozen=True)
class Style:
    """How text is drawn: colours, pens, and the height and number of lines in view."""

    colours: Palette
    text: Pen
    small: Pen
    row: int
    lines: int
    scale: float

    def px(self, value: float) -> int:
        return round(value * self.scale)


class Strip:
    """The lines of one lane in view; only those that have changed are drawn again."""

    def __init__(self, lane: Lane, style: Style, corner: tuple[int, int], width: int) -> None:
        self.lane, self.style, self.width = lane, style, width
        self.left, self.top = corner
        self.bottom = self.top + style.lines * style.row
        self._first = 0  # the uppermost line in view
        self._drawn: dict[int, tuple[int, tuple[Look, ...]]] = {}
        self._hatch = _hatch(width + 16, style.row, style.colours, style.scale)
        self._tokens = [[(index, list(parts)) for index, parts in groupby(line, key=lambda part: part.index)] for line in lane.flow.lines]

    def paint(self, image: Image.Image) -> None:
        self._turn_page()
        for row in range(self.style.lines):
            line = self._first + row
            tokens = self._tokens[line] if line < len(self._tokens) else []
            looks = tuple(self.lane.look(index) for index, _ in tokens)
            if self._drawn.get(row) == (line, looks):
                continue
            self._drawn[row] = (line, looks)
            image.paste(self._line(tokens, looks), (self.left, self.top + row * self.style.row))

    def _turn_page(self) -> None:
        """Show the line at work. The text moves seldom and by half a page: it can be read, and the film stays small."""
        ends, lines = self.lane.flow.last_line, self.style.lines
        active = ends[min(self.lane.reached, len(ends) - 1)] if ends else 0
        if active >= self._first + lines:
            self._first = min(active - lines // 2, len(self._tokens) - lines)

    def _line(self, tokens: list[tuple[int, list[Piece]]], looks: tuple[Look, ...]) -> Image.Image:
        image, draw = blank(self.width, self.style.row, self.style.colours["surface"])
        boxes = []
        for (index, parts), look in zip(tokens, looks):
            left, right = parts[0].left, parts[-1].left + parts[-1].width
            text = "".join(part.text for part in parts)
            boxes.append((index, parts, look, left, right, text))
            if text.strip() or parts[-1] is not tokens[-1][1][-1]:  # space at the end of a line hangs unseen
                self._ground(image, draw, look, round(left), round(right), parts[0].special)
        for _, parts, look, left, right, text in boxes:
            if look.state in ("shown", "draft", "rejected") and right - left >= 1:
                self._ink(image, draw, parts, look, left, right, text)
        return image

    def _ground(self, image: Image.Image, draw: ImageDraw.ImageDraw, look: Look, left: int, right: int, special: bool) -> None:
        c, px, tall = self.style.colours, self.style.px, self.style.row
        top, bottom = px(3), tall - px(3)
        if look.state == "hidden" or right - left < 2:
            return
        if look.state == "masked":
            image.paste(self._hatch.crop((left, top, right - 1, bottom)), (left, top))
        elif look.state == "shown":
            if not special:
                draw.rectangle((left, top, right - 2, bottom - 1), fill=c.confidence(look.confidence)[0])
            if look.fresh:
                draw.rectangle((left, bottom - px(2), right - 2, bottom - 1), fill=c["fresh"])
            if look.revised:
                draw.polygon(((left, top), (left + px(7), top), (left, top + px(7))), fill=c["bonus"])
        elif look.state == "rejected":
            draw.rectangle((left, top, right - 1, bottom - 1), fill=c["sunken"])
        else:
            _dashed(draw, left, top, right - px(1) - 1, bottom - 1, c["phase-draft"], max(2, px(3)))

    def _ink(self, image: Image.Image, draw: ImageDraw.ImageDraw, parts: list[Piece], look: Look, left: float, right: float, text: str) -> None:
        c, px, middle = self.style.colours, self.style.px, self.style.row / 2
        _, on_tint = c.confidence(look.confidence)
        special = parts[0].special
        colour = {"shown": c["muted"] if special else on_tint, "draft": c["muted"], "rejected": c["bad"]}[look.state]
        if look.other is None:
            for part in parts:
                (self.style.small if special else self.style.text).write(draw, part.left, middle, part.text, colour)
        elif text.strip():
            self._squeeze(image, prose(self.lane.piece(look.other)), left, right, colour)
            if look.state == "shown":
                for x in range(round(left), round(right) - 1, max(3, px(4))):
                    draw.rectangle((x, self.style.row - px(6), x + px(1), self.style.row - px(6) + max(1, px(1)) - 1), fill=colour)
        if look.state == "rejected":
            draw.rectangle((left, middle, right - 1, middle + max(1, px(2)) - 1), fill=c["bad"])

    def _squeeze(self, image: Image.Image, text: str, left: float, right: float, colour: Colour) -> None:
        """Another token's text in a slot that was made for the final one."""
        shown = " ".join(text.split()) or text.replace("\n", "⏎").replace(" ", "·")
        room = right - left
        writer = self.style.text
        while writer.width(shown) > room and writer.size > self.style.px(10):
            writer = pen(writer.size - 1)
        tile = image.crop((round(left), 0, round(right), self.style.row))  # so that nothing reaches beyond the slot
        if tile.width and tile.height:
            writer.write(ImageDraw.Draw(tile), max(0.0, (room - writer.width(shown)) / 2), self.style.row / 2, shown, colour)
            image.paste(tile, (round(left), 0))


def _hatch(width: int, height: int, colours: Palette, scale: float) -> Image.Image:
    # Drawn larger and made smaller, so that the lines are smooth.
    finer = 3
    image, draw = blank(width * finer, height * finer, colours["surface"])
    pitch, thick = round(8 * scale * finer), max(2, round(2 * scale * finer))
    for x in range(-height * finer, width * finer, pitch):
        draw.line((x, height * finer, x + height * finer, 0), fill=colours["hatch"], width=thick)
    return image.resize((width, height), Image.Resampling.BOX)


def _dashed(draw: ImageDraw.ImageDraw, left: int, top: int, right: int, bottom: int, colour: Colour, dash: int) -> None:
    for x in range(left, right, 2 * dash):
        end = min(x + dash - 1, right)
        draw.line((x, top, end, top), fill=colour)
        draw.line((x, bottom, end, bottom), fill=colour)
    for y in range(top, bottom, 2 * dash):
        end = min(y + dash - 1, bottom)
        draw.line((left, y, left, end), fill=colour)
        draw.line((right, y, right, end), fill=colour)
