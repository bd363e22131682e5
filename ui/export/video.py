"""A film as a file: animated GIF, or MP4 that every browser plays."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache

from PIL import Image, ImageChops

from nemodiff_core.trace import Trace

from ui.export.frames import Film
from ui.export.palette import Colour, Palette, Theme, palette

MP4_SCALE = 1.5
_X264 = {"profile": "baseline", "preset": "veryfast", "crf": "18", "tune": "animation"}
UNCHANGED = 255  # the number of the see-through colour of a GIF
_BT709 = 1  # the number of that standard in H.264's colour fields


def gif(traces: Sequence[Trace], theme: Theme = "light") -> bytes:
    """An animated GIF that repeats. Raises NemodiffError."""
    film = Film(traces, theme)
    frames = _changes(film.frames(), _gif_palette(theme))
    durations = [film.plan.frame_ms] * (len(film.plan.moments) - 1) + [film.plan.hold_ms]
    first, file = next(frames), io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=frames, duration=durations, loop=0, disposal=1, transparency=UNCHANGED, optimize=False)
    return file.getvalue()


def _changes(frames: Iterator[Image.Image], table: Image.Image) -> Iterator[Image.Image]:
    """The frames in the colours of `table`; from the second on, what has not changed is see-through and costs nothing."""
    before: Image.Image | None = None
    for frame in frames:
        whole = frame.quantize(palette=table, dither=Image.Dither.NONE)
        numbers = Image.frombytes("L", whole.size, whole.tobytes())
        if before is not None:
            same = ImageChops.difference(numbers, before).point([255] + [0] * 255)
            whole.paste(UNCHANGED, mask=same)
        before = numbers
        yield whole


def mp4(traces: Sequence[Trace], theme: Theme = "light") -> bytes:
    """H.264 (baseline, 4:2:0) in MP4. Raises NemodiffError."""
    import av  # tens of megabytes of codecs: only loaded when a film is asked for
    from av.video.reformatter import Colorspace

    film = Film(traces, theme, MP4_SCALE)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(1000, film.plan.frame_ms), options=_X264)
        stream.width, stream.height, stream.pix_fmt = *film.size, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.thread_count = 1
        for number, frame in enumerate(_at_even_pace(film)):
            picture = av.VideoFrame.from_image(frame).reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return file.getvalue()


def _at_even_pace(film: Film) -> Iterator[Image.Image]:
    """The frames, the last as often as its time needs: players disagree about a last frame that lasts longer."""
    for frame in film.frames():
        yield frame
    for _ in range(-(-film.plan.hold_ms // film.plan.frame_ms) - 1):
        yield frame


@lru_cache(maxsize=2)
def _gif_palette(theme: Theme) -> Image.Image:
    """One table of colours for all frames: the theme's own, and what lies between text and its background."""
    c = palette(theme)
    grounds = [("ink", "surface", 10), ("muted", "surface", 10), ("hatch", "surface", 6), ("bad", "surface", 4), ("bad", "sunken", 6)]
    pairs = [(c[a], c[b], n) for a, b, n in (*grounds, ("good", "surface", 6), ("ink", "sunken", 6), ("muted", "sunken", 4))]
    for level in range(8):
        pairs += [(c[f"t{level}"], c[f"c{level}"], 8), (c["muted"], c[f"c{level}"], 3)]
    table = _single(c)
    for text, ground, n in pairs:
        table += [_between(text, ground, i / n) for i in range(n + 1)]
    table = list(dict.fromkeys(table))[:UNCHANGED]
    table += [table[0]] * (UNCHANGED - len(table)) + [(255, 0, 255)]  # that one is near to none of them
    image = Image.new("P", (1, 1))
    image.putpalette([value for colour in table for value in colour])
    return image


def _single(c: Palette) -> list[Colour]:
    return [c[name] for name in ("surface", "sunken", "line", "edge", "ink", "muted", "accent", "good", "bad", "bonus", "hatch", "fresh", "phase-draft")]


def _between(a: Colour, b: Colour, share: float) -> Colour:
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b))
    return red, green, blue
