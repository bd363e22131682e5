"""The speed-quality plane: a sweep's settings as a chart and as a table, and the runs of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nemodiff_core.analysis.grid import Prompt

from ui.mode_form import MODES
from ui.sweeps import LIMIT, Results, Row, Shown, machine

# Mode -> (name, colour, marker). Colours are CSS variables (chart.css), read in the browser; shapes say the same.
LOOKS = {
    "ar": ("AR", "--ndc-ar", "diamond"),
    "diffusion": ("Diffusion", "--ndc-diffusion", "circle"),
    "linear_spec": ("Self-speculation", "--ndc-linear", "square"),
    "quadratic_spec": ("Quadratic", "--ndc-quadratic", "triangle-up"),
}
_NAMES = {mode: name for name, mode in MODES}
_AXES = {
    "tpf": ("Tokens per forward", "Tokens per forward (TPF)"),
    "tokens_per_second": ("Tokens per second", "Tokens per second"),
}


def label(setting: Mapping[str, Any]) -> str:
    """A setting in a few words."""
    mode = setting["mode"]
    if mode == "ar":
        return _NAMES[mode]
    if mode != "diffusion":
        words = _NAMES[mode]
    elif setting.get("steps") is not None:
        words = f"{setting['steps']} {'step' if setting['steps'] == 1 else 'steps'} a block"
    else:
        words = f"Threshold {setting['threshold']}"
    words += f", block {setting['block_length']}"
    return words + (f", revised below {setting['revise_bound']}" if setting.get("revise_rounds") else "")


def plane(results: Results, recorded: bool = False) -> dict[str, Any]:
    """The chart: one figure for each measure of speed, exact answers upwards."""
    figures = [{"name": name, **_figure(results, by, title)} for by, (name, title) in _AXES.items()]
    return {"figures": figures, "note": _note(results, recorded), "summary": _summary(results), "points": len(results.shown())}


def settings_table(results: Results, downloads: str) -> dict[str, Any]:
    """The same numbers as a table, a row a setting, the oracle's last."""
    limit = results.speed_of_light()
    rows = [
        {
            "key": shown.key,
            "look": LOOKS[shown.setting["mode"]][1:],
            "cells": [
                _name(shown),
                _percent(shown.point.accuracy),
                f"{100 * shown.low:.0f}–{100 * shown.high:.0f} %",
                _figures(shown.point.tpf),
                _figures(shown.point.acceptance_length),
                _figures(shown.point.tokens_per_second, 0),
                str(shown.point.runs),
                "●" if shown.point.front else "",
            ],
            "order": [
                _name(shown), shown.point.accuracy, shown.low, shown.point.tpf, shown.point.acceptance_length,
                shown.point.tokens_per_second, shown.point.runs, int(shown.point.front),
            ],
        }
        for shown in [*results.shown(), *([limit] if limit else [])]
    ]  # fmt: skip
    return {
        "table": {
            "caption": "Settings",
            "columns": ["Setting", "Exact", "95 % interval", "TPF", "Acceptance", "Tokens/s", "Runs", "Front (TPF)"],
            "rows": rows,
            "action": "Runs",
            "empty": "No run has finished yet.",
            "downloads": [{"name": "Runs as CSV", "path": downloads}] if results.rows else [],
        }
    }


def runs_table(results: Results, key: str) -> dict[str, Any]:
    """The runs of one setting, each of which can be opened where its trace is kept."""
    found = results.runs(key)
    shown = next((s for s in [*results.shown(), results.speed_of_light()] if s and s.key == key), None)
    return {
        "table": {
            "caption": f"Runs: {_name(shown)}" if shown else "Runs",
            "columns": ["Prompt", "Exact", "Tokens", "TPF"],
            "rows": [_run(row, prompt) for row, prompt in sorted(found, key=lambda pair: pair[0]["trace"] is None)],
            "action": "Open",
            "empty": "Choose a point of the chart, or a row of the settings, to see its runs.",
            "long": [0],
        },
        "note": "Rows without a button: the recording keeps their figures, not their traces." if any(row["trace"] is None for row, _ in found) else "",
    }


def _run(row: Row, prompt: Prompt) -> dict[str, Any]:
    return {
        "key": row["trace"],
        "cells": [
            prompt.text,
            "✓ yes" if row["correct"] else "✗ no",
            str(row["tokens"]),
            _figures(row["tpf"]),
        ],
        "order": [prompt.text, int(bool(row["correct"])), row["tokens"], row["tpf"]],
    }


def _figure(results: Results, by: str, title: str) -> dict[str, Any]:
    shown, limit = results.shown(by), results.speed_of_light()
    data = [_cloud(mode, [s for s in shown if s.setting["mode"] == mode], by) for mode in LOOKS]
    front = sorted((getattr(s.point, by), 100 * s.point.accuracy) for s in shown if s.point.front)
    lowest = max(-2.0, min((100 * s.low for s in shown), default=4.0) - 4.0)
    if front:
        # From the axis to the most exact point, down the stairs, and to the axis behind the fastest one.
        x, y = [0.0, *(x for x, _ in front), front[-1][0]], [front[0][1], *(y for _, y in front), lowest]
        data.insert(0, {
            "type": "scatter", "mode": "lines", "name": "Pareto front", "x": x, "y": y,
            "line": {"shape": "vh", "color": "--ndc-front", "width": 1.5}, "hoverinfo": "skip",
        })  # fmt: skip
    shapes, annotations = [], []
    base = next((s for s in shown if s.setting["mode"] == "ar" and s.whole and getattr(s.point, by)), None)
    if base is not None:
        x, y = getattr(base.point, by), 100 * base.point.accuracy
        shapes.append(_line(x0=x, x1=x, y0=0, y1=1, yref="paper", color="--ndc-ar"))
        shapes.append(_line(x0=0, x1=1, y0=y, y1=y, xref="paper", color="--ndc-ar"))
        annotations.append(_words("AR", x=x, y=0, yref="paper", yanchor="bottom", xanchor="left", color="--ndc-ar"))
    if limit is not None and getattr(limit.point, by):
        x = getattr(limit.point, by)
        shapes.append(_line(x0=x, x1=x, y0=0, y1=1, yref="paper", color="--ndc-limit", dash="dash"))
        annotations.append(
            _words(f"oracle {_figures(x, 1 if by == 'tpf' else 0)}", x=x, y=1, yref="paper", yanchor="top", xanchor="right", color="--ndc-limit")
        )
        data.append(_cloud(LIMIT, [limit], by))
    return {
        "data": [trace for trace in data if trace["x"]],
        "layout": {
            "xaxis": {"title": {"text": title}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "Exact answers (%)"}, "range": [lowest, 103]},
            "shapes": shapes,
            "annotations": annotations,
        },
    }


def _cloud(mode: str, shown: Sequence[Shown], by: str) -> dict[str, Any]:
    name, colour, symbol = LOOKS.get(mode, ("Oracle limit", "--ndc-limit", "star"))
    shown = [s for s in shown if s.point.accuracy is not None and getattr(s.point, by)]
    values = [100 * s.point.accuracy for s in shown]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [getattr(s.point, by) for s in shown],
        "y": values,
        "customdata": [s.key for s in shown],
        "text": [_hover(s) for s in shown],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "symbol": symbol if mode == LIMIT else [symbol if s.whole else f"{symbol}-open" for s in shown],
            "size": 12,
            "color": colour,
            "line": {"width": 1.5, "color": "--ndc-surface" if all(s.whole for s in shown) else colour},
        },
        "error_y": {
            "type": "data", "symmetric": False, "array": [100 * s.high - y for s, y in zip(shown, values)],
            "arrayminus": [y - 100 * s.low for s, y in zip(shown, values)], "color": "--ndc-error", "thickness": 1, "width": 0,
        },
    }  # fmt: skip


def _hover(shown: Shown) -> str:
    point = shown.point
    lines = [
        f"<b>{_name(shown)}</b>",
        f"exact {_percent(point.accuracy)} of {point.graded} ({100 * shown.low:.0f}–{100 * shown.high:.0f} %)",
        f"TPF {_figures(point.tpf)}",
    ]
    if point.acceptance_length is not None:
        lines.append(f"acceptance length {_figures(point.acceptance_length)}")
    lines.append(f"{_figures(point.tokens_per_second, 0)} tokens/s")
    return "<br>".join(lines)


def _name(shown: Shown) -> str:
    return f"Oracle limit, block {shown.setting['block_length']}" if shown.key == LIMIT else label(shown.setting)


def _note(results: Results, recorded: bool) -> str:
    if not results.model:
        return "Waiting for the first run."
    prompts = len(results.grid.prompts)
    where = f"{results.model['id']}, {results.model['dtype']}, {machine(results.hardware)}, {results.date}."
    words = f"{'Recorded' if recorded else 'Measured here'}: {prompts} held-out {'prompt' if prompts == 1 else 'prompts'} a setting, greedy, batch 1, {where}"
    if results.limit:
        words += f" The oracle writes what block diffusion writes one token a forward, on {len(results.limit)} of the prompts."
    return words


def _summary(results: Results) -> str:
    shown = results.shown()
    front = [_name(s) for s in shown if s.point.front]
    words = f"Scatter chart of exact answers against speed, {len(shown)} {'setting' if len(shown) == 1 else 'settings'}; the table holds the same numbers."
    return words + (f" On the Pareto front: {'; '.join(front)}." if front else "")


def _line(color: str, dash: str = "dot", **place: Any) -> dict[str, Any]:
    return {"type": "line", "layer": "below", "line": {"color": color, "width": 1, "dash": dash}, **place}


def _words(text: str, color: str, **place: Any) -> dict[str, Any]:
    return {"text": text, "showarrow": False, "font": {"color": color, "size": 12}, **place}


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %".replace(".0 %", " %")


def _figures(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"
