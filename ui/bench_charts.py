"""A benchmark report as charts and tables: speed beside the plain loop, where the time goes, how it grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nemodiff_core.bench.report import Report, Spread, Table, number, shown

from ui.plane import LOOKS

MEASURED = ("nemodiff", "Plain transformers loop")
# Phase -> (name, colour, hatching). The hatched part is nobody's forward.
_PHASES = {
    "prefill": ("Prefill", "--ndc-prefill", ""),
    "ar": ("AR step", "--ndc-ar", ""),
    "denoise": ("Denoise", "--ndc-diffusion", ""),
    "draft": ("Draft", "--ndc-linear", ""),
    "verify": ("Verify", "--ndc-quadratic", ""),
    "commit": ("Commit pass", "--ndc-limit", ""),
    "revise": ("Revise", "--ndc-front", ""),
    "host": ("Host", "--ndc-error", "/"),
}
# In the order of the bars, which a stack's legend otherwise turns round.
_LEGEND = {
    "orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom", "font": {"size": 12}, "traceorder": "normal", "entrywidth": 76,
}  # fmt: skip
# (button, table, column of x, its title, columns of y and their lines, title of y)
_GROWTH = (
    ("Answer length", "scale_length", "length", "Answer length (tokens)", {"ms/forward": "solid", "host ms/forward": "dot"}, "Milliseconds a forward"),
    ("Memory", "scale_length", "length", "Answer length (tokens)", {"cache MB": "solid"}, "Cache (MB)"),
    ("Batch", "scale_batch", "batch", "Rows decoded together", {"tokens/s": "solid"}, "Tokens/s, all rows"),
    ("Block length", "scale_block", "block", "Block length", {"tokens/s": "solid"}, "Tokens per second"),
)


def speed(report: Report) -> dict[str, Any]:
    """Tokens/s of every mode, ours beside the loop's, with the spread of the rounds."""
    table = report.table("decode")
    if table is None:
        return {"note": "This report holds no decoding; nemodiff bench decode measures it."}
    data = [
        _bars(table, MEASURED[0], "tokens/s", "--ndc-diffusion", ""),
        _bars(table, MEASURED[1], "loop tokens/s", "--ndc-error", "/"),
    ]
    gains = [f"{_mode(row)} {shown(number(row['× loop']))} times the loop" for row in table.rows if row.get("× loop") is not None]
    return {
        "figures": [{
            "name": "Speed",
            "data": [trace for trace in data if trace["x"]],
            "layout": {"barmode": "group", "bargap": 0.35, "xaxis": {"type": "category"}, "yaxis": {"title": {"text": "Tokens per second"}, "rangemode": "tozero"}},
        }],
        "summary": f"Bar chart of tokens per second by mode; the table of decoding holds the same numbers. {'; '.join(gains)}.",
        "note": "Both on the same weights, in turns; whiskers reach from the slowest round to the fastest.",
    }  # fmt: skip


def split(report: Report) -> dict[str, Any]:
    """How the time of a run divides among the phases of its forwards and the work between them."""
    table = report.table("split")
    if table is None:
        return {"note": "This report does not say where the time goes; nemodiff bench decode measures it."}
    data = []
    for phase, (name, colour, hatch) in _PHASES.items():
        rows = [row for row in table.rows if number(row.get(f"{phase} %")) is not None]
        if rows:
            values = [number(row[f"{phase} %"]) for row in rows]
            data.append({
                "type": "bar", "orientation": "h", "name": name, "x": values, "y": [_mode(row) for row in rows],
                "text": [f"<b>{_mode(row)}</b><br>{name}: {value:.1f} %" for row, value in zip(rows, values)], "textposition": "none",
                "hovertemplate": "%{text}<extra></extra>", "marker": _marker(colour, hatch),
            })  # fmt: skip
    modes = [_mode(row) for row in table.rows]
    return {
        "figures": [{
            "name": "Time",
            "data": data,
            "layout": {
                "barmode": "stack", "bargap": 0.4, "xaxis": {"title": {"text": "Percent of the time"}, "range": [0, 100.5]},
                "yaxis": {"type": "category", "categoryorder": "array", "categoryarray": modes[::-1], "ticksuffix": " "},
                "legend": _LEGEND,
            },
        }],
        "summary": "Stacked bars of where the time of a run goes, a bar a mode; its table holds the same numbers.",
        "note": "Hatched: all that happens between forwards, choosing and recording included.",
    }  # fmt: skip


def growth(report: Report) -> dict[str, Any]:
    """How a forward's time and the speed change with the answer's length, the batch and the block."""
    figures = []
    for name, source, by, title, lines, y in _GROWTH:
        if (table := report.table(source)) is None:
            continue
        data = [_line(table, mode, by, column, dash) for column, dash in lines.items() for mode in LOOKS]
        ticks = sorted({value for trace in data for value in trace["x"]})
        if data := [trace for trace in data if trace["x"]]:
            axis = {"title": {"text": title}, "type": "log", "tickvals": ticks[:: -(-len(ticks) // 7)]}
            figures.append({"name": name, "data": data, "layout": {"xaxis": axis, "yaxis": {"title": {"text": y}, "rangemode": "tozero"}}})
    if not figures:
        return {"note": "This report does not say how speed grows; nemodiff bench scale measures it."}
    return {
        "figures": figures,
        "summary": "Line charts of time and speed against answer length, batch and block length; their tables hold the same numbers.",
        "note": "Of answer length, dotted and open: the part of it that is spent between forwards.",
    }


def table(report: Report, name: str) -> dict[str, Any]:
    """One table as it is in the report."""
    found = report.table(name)
    return {"note": "This report holds no such table; choose another."} if found is None else {"table": _rows(found), "note": found.note}


def about(report: Report) -> str:
    """Where and when a report was made."""
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return f"{report.machine}, {report.date}; {versions}. Made by: {report.command}"


def _bars(table: Table, name: str, column: str, colour: str, hatch: str) -> dict[str, Any]:
    rows = [row for row in table.rows if number(row.get(column)) is not None]
    values = [number(row[column]) for row in rows]
    ends = [(v.low, v.high) if isinstance(v := row[column], Spread) else (value, value) for row, value in zip(rows, values)]
    return {
        "type": "bar", "name": name, "x": [_mode(row) for row in rows], "y": values, "marker": _marker(colour, hatch),
        "text": [f"<b>{_mode(row)}</b>, {name}<br>{shown(row[column])} tokens/s" for row in rows], "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
        "error_y": {
            "type": "data", "symmetric": False, "array": [high - v for v, (_, high) in zip(values, ends)],
            "arrayminus": [v - low for v, (low, _) in zip(values, ends)], "color": "--ndc-ink", "thickness": 1.5, "width": 5,
        },
    }  # fmt: skip


def _line(table: Table, mode: str, by: str, column: str, dash: str) -> dict[str, Any]:
    name, colour, symbol = LOOKS[mode]
    rows = [row for row in table.rows if row.get("mode") == mode and number(row.get(by)) is not None and number(row.get(column)) is not None]
    solid = dash == "solid"
    words = name if solid else f"{name}, host"
    return {
        "type": "scatter", "mode": "lines+markers", "name": words, "showlegend": solid, "x": [number(row[by]) for row in rows], "y": [number(row[column]) for row in rows],
        "line": {"color": colour, "width": 2, "dash": dash}, "marker": {"symbol": symbol if solid else f"{symbol}-open", "size": 8, "color": colour},
        "text": [f"<b>{words}</b><br>{by} {shown(row[by])}: {shown(row[column])} {column}" for row in rows], "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _marker(colour: str, hatch: str) -> dict[str, Any]:
    line = {"color": "--ndc-surface", "width": 1}
    if not hatch:
        return {"color": colour, "line": line}
    return {"color": colour, "line": line, "pattern": {"shape": hatch, "fgcolor": "--ndc-ink", "bgcolor": colour, "size": 7, "solidity": 0.15}}


def _rows(table: Table) -> dict[str, Any]:
    columns = table.columns()
    return {
        "caption": table.title,
        "columns": columns,
        "rows": [_row(table, row, columns) for row in table.rows],
        "long": [n for n, name in enumerate(columns) if name == "note"],
        "empty": "Nothing was measured.",
    }


def _row(table: Table, row: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    say: Callable[[str], str] = lambda name: _mode(row) if name == "mode" else shown(row.get(name))
    figures = {name: number(row.get(name)) for name in columns}
    texts = {name for name in columns if any(isinstance(each.get(name), str) for each in table.rows)}
    look = {"look": LOOKS[row["mode"]][1:]} if row.get("mode") in LOOKS else {}
    return {"key": None, **look, "cells": [say(name) for name in columns], "order": [say(name) if name in texts else figures[name] for name in columns]}


def _mode(row: dict[str, Any]) -> str:
    return LOOKS[row["mode"]][0] if row.get("mode") in LOOKS else str(row.get("mode"))
