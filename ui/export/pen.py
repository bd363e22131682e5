"""Text in pictures: the bundled font at any size, and a box with the number of every character it lacks."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ui.export.palette import Colour

FONT = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"
_NOBODY = "\U0010fffe"  # a noncharacter: no font has it
SMALLEST = 8


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT), size)


@lru_cache(maxsize=8192)
def _has(character: str) -> bool:
    """Whether the font can draw it: what it lacks comes out as the font's one mark for everything unknown."""
    font = _font(24)
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask(_NOBODY))


class Pen:
    """Writes at one size. Positions are the left end of the line and its middle height."""

    def __init__(self, size: int) -> None:
        self.size = max(SMALLEST, size)
        self.font = _font(self.size)
        self._tiny = _font(max(5, round(self.size * 0.42)))
        self._widths: dict[str, float] = {}

    def width(self, text: str) -> float:
        """Pixels the text is wide."""
        known = self._widths.get(text)
        if known is None:
            if len(self._widths) > 20_000:
                self._widths.clear()
            known = self._widths[text] = sum(self._box(part) if boxed else self.font.getlength(part) for part, boxed in _runs(text))
        return known

    def write(self, draw: ImageDraw.ImageDraw, x: float, y: float, text: str, fill: Colour, *, bold: bool = False) -> float:
        """Draw one line and return where it ends."""
        for part, boxed in _runs(text):
            if boxed:
                wide = self._box(part)
                self._draw_box(draw, x, y, wide, part, fill)
                x += wide
                continue
            for shift in (0, 0.5) if bold else (0,):  # one weight of the font is bundled; twice is bolder
                draw.text((x + shift, y + self.size * 0.35), part, fill=fill, font=self.font, anchor="ls")
            x += self.font.getlength(part)
        return x

    def cut(self, text: str, room: float) -> str:
        """The text, or its beginning and an ellipsis where it is wider than `room`."""
        if self.width(text) <= room:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.width(text[:middle] + "…") <= room else (low, middle - 1)
        return text[:low].rstrip() + "…"

    def _box(self, character: str) -> float:
        return round(self._tiny.getlength("0") * (len(_number(character)) // 2)) + 5

    def _draw_box(self, draw: ImageDraw.ImageDraw, x: float, y: float, wide: float, character: str, fill: Colour) -> None:
        number = _number(character)
        half, tall = len(number) // 2, self.size * 0.5
        draw.rectangle((x + 0.5, y - tall, x + wide - 1.5, y + tall), outline=fill)
        for row, digits in ((-0.5, number[:half]), (0.5, number[half:])):
            draw.text((x + wide / 2 - 0.5, y + row * tall), digits, fill=fill, font=self._tiny, anchor="mm")


@lru_cache(maxsize=128)
def pen(size: int) -> Pen:
    """The pen of a size."""
    return Pen(size)


def blank(width: int, height: int, colour: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty picture and what draws on it."""
    image = Image.new("RGB", (max(1, width), max(1, height)), colour)
    return image, ImageDraw.Draw(image)


@lru_cache(maxsize=20_000)
def _runs(text: str) -> tuple[tuple[str, bool], ...]:
    """The text as stretches that the font has, and single characters that it lacks (True)."""
    runs: list[tuple[str, bool]] = []
    for character in text:
        if not _has(character):
            runs.append((character, True))
        elif runs and not runs[-1][1]:
            runs[-1] = (runs[-1][0] + character, False)
        else:
            runs.append((character, False))
    return tuple(runs)


def _number(character: str) -> str:
    digits = f"{ord(character):04X}"
    return digits if len(digits) % 2 == 0 else "0" + digits
