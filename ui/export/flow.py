"""Where the tokens of an answer stand: lines that never move, because every slot has its final width from the start."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ui.export.pen import Pen
from ui.export.words import is_special, prose

_PARTS = re.compile(r"\n|[^\S\n]+|\S+")


@dataclass(frozen=True)
class Piece:
    """A stretch of one token's text on one line."""

    index: int  # of the token
    text: str
    left: float
    width: float
    special: bool


@dataclass
class Flow:
    """The lines of an answer; `last_line[i]` is the line on which token i ends."""

    lines: list[list[Piece]] = field(default_factory=list)
    last_line: list[int] = field(default_factory=list)


def flow(pieces: Sequence[str], width: float, pen: Pen, small: Pen) -> Flow:
    """Break the tokens' texts into lines of `width` pixels, between words where that is possible."""
    made = Flow([[]])
    x = 0.0
    word: list[Piece] = []  # parts of the word under way, which may span tokens; `left` is still to be set

    def new_line() -> None:
        nonlocal x
        made.lines.append([])
        x = 0.0

    def place(part: Piece) -> None:
        nonlocal x
        made.lines[-1].append(Piece(part.index, part.text, x, part.width, part.special))
        x += part.width
        ends[part.index] = len(made.lines) - 1

    def put_word() -> None:
        whole = sum(part.width for part in word)
        if x > 0 and x + whole > width:
            new_line()
        for part in word:
            for bit in [part] if whole <= width else _split(part, width, small if part.special else pen):
                if x > 0 and x + bit.width > width:
                    new_line()
                place(bit)
        word.clear()

    ends = [0] * len(pieces)
    for index, piece in enumerate(pieces):
        ends[index] = len(made.lines) - 1
        special = is_special(piece)
        writer = small if special else pen
        for text in _PARTS.findall(prose(piece).replace("\t", "    ")):
            if text == "\n":
                put_word()
                ends[index] = len(made.lines) - 1
                new_line()
            elif text.isspace():
                put_word()
                # Space that would stand beyond the end of the line hangs there unseen.
                place(Piece(index, text, 0, min(writer.width(text), max(0.0, width - x)), special))
            else:
                word.append(Piece(index, text, 0, writer.width(text), special))
                if len(word) > 400:  # a word without end need not be measured again and again
                    put_word()
    put_word()
    made.last_line = ends
    return made


def _split(part: Piece, width: float, writer: Pen) -> list[Piece]:
    """A part that no line can hold, character by character where it must be."""
    if part.width <= width:
        return [part]
    bits: list[Piece] = []
    text = ""
    for character in part.text:
        if text and writer.width(text + character) > width:
            bits.append(Piece(part.index, text, 0, writer.width(text), part.special))
            text = ""
        text += character
    bits.append(Piece(part.index, text, 0, writer.width(text), part.special))
    return bits
