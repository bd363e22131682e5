"""The roofline panel: predicted tokens/s of every mode against concurrency, and what this host measured beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log10
from typing import Any

from nemodiff_core.analysis.devices import DEVICES, MEASURED, Device
from nemodiff_core.analysis.roofline import MODES, Geometry, break_even, floor, load_of, streams_that_fit, tokens_per_second, tpf_of
from nemodiff_core.errors import NemodiffError

from ui.plane import LOOKS, label
from ui.sweeps import Results

HOST = "host"
MOST = 1024  # streams on the chart
_STREAMS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
_SPECULATES = ("linear_spec", "quadratic_spec")


@dataclass(frozen=True)
class Question:
    """What the panel is asked: a device, a checkpoint's geometry and block, and the load."""

    device: Device
    geometry: Geometry
    block_length: int
    streams: int
    tpf: float
    context: int

    def rate(self, mode: str) -> float:
        """Tokens per forward of a mode. Speculating modes have the acceptance length that gives linear the asked TPF."""
        if mode == "ar":
            return 1.0
        if mode != "quadratic_spec":
            return min(self.tpf, self.block_length)
        return tpf_of(mode, min(self.tpf / tpf_of("linear_spec", 1.0), self.block_length))

    def predicted(self, mode: str, streams: int) -> float:
        """Tokens/s of all streams together."""
        load = load_of(mode, block_length=self.block_length, context=self.context, streams=streams)
        return tokens_per_second(self.device, self.geometry, load, self.rate(mode))

    def pays_until(self, mode: str) -> int | None:
        """The streams from which `mode` gains nothing over ar; None: never on the way to 2^20."""
        return break_even(self.device, self.geometry, mode, self.rate(mode), block_length=self.block_length, context=self.context)


def devices() -> list[tuple[str, str]]:
    """(label, key) of what the panel offers."""
    known = [(f"{device.name}, {_source(device)}", key) for key, device in DEVICES.items()]
    return [*known, ("This host, measured by a probe", HOST)]


def fitting(geometry: Geometry, device: Device) -> Geometry:
    """The geometry in a dtype that the device has a figure for: its own where it can. Raises NemodiffError."""
    for dtype in (geometry.dtype, "bfloat16", "float16", "float32"):
        if dtype in device.peak:
            return replace(geometry, dtype=dtype)
    raise NemodiffError(f"{device.name} has no figure for a matrix product; choose another device.")


def panel(ask: Question, measured: Results | None = None) -> dict[str, Any]:
    """The chart and its table. `measured` are runs at batch 1 on this very device."""
    data = [_curve(ask, mode) for mode in MODES]
    shapes = [_vertical(ask.streams, "--ndc-ink", "dot")]
    annotations = []
    stops = {mode: ask.pays_until(mode) for mode in _SPECULATES}
    for (mode, stop), height in zip(stops.items(), (0.99, 0.84)):
        if stop is not None and 1 < stop <= MOST:
            shapes.append(_vertical(stop, LOOKS[mode][1], "dash"))
            annotations.append(_note_at(stop, height, f"{LOOKS[mode][0]}<br>stops paying at {stop}", LOOKS[mode][1]))
    if measured is not None:
        data += _measured(measured)
    fits = streams_that_fit(ask.device, ask.geometry, ask.context)
    return {
        "figures": [
            {
                "name": "Tokens per second",
                "data": data,
                "layout": {
                    "xaxis": {"title": {"text": "Streams decoded together"}, "type": "log", "range": [-0.08, 3.05], "tickvals": [1, 4, 16, 64, 256, 1024]},
                    "yaxis": {"title": {"text": "Tokens/s, all streams"}, "type": "log", "exponentformat": "SI", "dtick": 1},
                    "shapes": shapes,
                    "annotations": annotations,
                },
            }
        ],
        "note": _note(ask, fits, measured),
        "summary": _summary(stops, ask),
        "table": {
            "caption": f"At {ask.streams} {'stream' if ask.streams == 1 else 'streams'}",
            "columns": ["Mode", "Floor (ms)", "Tokens/s", "× AR", "Pays below"],
            "rows": [_row(ask, mode) for mode in MODES],
        },
        "figures_at": {"streams": ask.streams, "stops": stops},
    }


def _curve(ask: Question, mode: str) -> dict[str, Any]:
    name, colour, symbol = LOOKS[mode]
    values = [ask.predicted(mode, n) for n in _STREAMS]
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": _STREAMS, "y": values,
        "line": {"color": colour, "width": 6 if mode == "diffusion" else 2}, "marker": {"symbol": symbol, "size": 6, "color": colour},
        "text": [f"<b>{name}</b><br>{n} streams: {value:,.0f} tokens/s<br>{value / n:,.0f} each" for n, value in zip(_STREAMS, values)],
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _measured(results: Results) -> list[dict[str, Any]]:
    found = []
    for mode, (name, colour, symbol) in LOOKS.items():
        shown = [s for s in results.shown() if s.setting["mode"] == mode and s.point.tokens_per_second]
        if shown:
            found.append({
                "type": "scatter", "mode": "markers", "name": f"{name}, measured", "x": [1] * len(shown), "showlegend": False,
                "y": [s.point.tokens_per_second for s in shown],
                "marker": {"symbol": f"{symbol}-open", "size": 11, "color": colour, "line": {"width": 2, "color": colour}},
                "text": [f"<b>{label(s.setting)}</b><br>measured: {s.point.tokens_per_second:,.0f} tokens/s<br>TPF {s.point.tpf:.2f}" for s in shown],
                "hovertemplate": "%{text}<extra></extra>", "customdata": [s.key for s in shown],
            })  # fmt: skip
    return found


def _row(ask: Question, mode: str) -> dict[str, Any]:
    load = load_of(mode, block_length=ask.block_length, context=ask.context, streams=ask.streams)
    least = floor(ask.device, ask.geometry, load)
    value, ar = ask.predicted(mode, ask.streams), ask.predicted("ar", ask.streams)
    stop = None if mode == "ar" else ask.pays_until(mode)
    pays = "" if mode == "ar" else "any number" if stop is None else "never" if stop == 1 else f"{stop:,}"
    cells = [LOOKS[mode][0], f"{1000 * least.seconds:.3g} · {least.bound}", f"{value:,.0f}", f"{value / ar:.2f}", pays]
    order = [mode, least.seconds, value, value / ar, stop or float(10**9)]
    return {"key": None, "look": LOOKS[mode][1:], "cells": cells, "order": order}


def _note(ask: Question, fits: int | None, measured: Results | None) -> str:
    device, geometry = ask.device, ask.geometry
    words = [
        f"{device.name} ({_source(device)}): {_rate(device.bandwidth)}B/s, {_rate(device.peak_for(geometry.dtype))}FLOP/s in {geometry.dtype}.",
        f"Block {ask.block_length}; the least time a forward can take, so no run is above these lines.",
        f"Quadratic has the same acceptance length ({ask.rate('quadratic_spec'):.1f}) as linear self-speculation.",
    ]
    if fits is not None:
        words.append(f"{fits:,} streams of this context fit the memory." if fits else "The weights do not fit its memory.")
    if measured is not None:
        words.append("Open shapes at 1: runs of the sweep that is shown, on this host.")
    return " ".join(words)


def _summary(stops: Mapping[str, int | None], ask: Question) -> str:
    words = [
        f"{LOOKS[mode][0]} pays at any number of streams" if stop is None else f"{LOOKS[mode][0]} never pays" if stop == 1 else f"{LOOKS[mode][0]} pays below {stop} streams"
        for mode, stop in stops.items()
    ]
    return f"Line chart of predicted tokens per second against streams decoded together, at a TPF of {ask.tpf:g}. {'; '.join(words)}."


def _rate(value: float) -> str:
    return f"{value / 1e12:.3g} T" if value >= 1e12 else f"{value / 1e9:.3g} G"


def _source(device: Device) -> str:
    return "measured" if device.source == MEASURED else "vendor figures"


def _vertical(x: float, color: str, dash: str) -> dict[str, Any]:
    return {"type": "line", "layer": "below", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": {"color": color, "width": 1.5, "dash": dash}}


def _note_at(x: int, y: float, text: str, color: str) -> dict[str, Any]:
    side = "right" if x > 24 else "left"  # annotations of a logarithmic axis stand at the logarithm
    return {"text": text, "x": log10(x), "y": y, "yref": "paper", "yanchor": "top", "xanchor": side, "align": side,
            "showarrow": False, "font": {"color": color, "size": 12}}  # fmt: skip
