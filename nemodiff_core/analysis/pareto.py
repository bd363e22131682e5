"""What the rows of a sweep say about each setting, and which settings no other one beats."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import fmean
from typing import Any

from nemodiff_core.analysis.grid import KNOBS
from nemodiff_core.errors import NemodiffError

# Axes of a front by the name of their column; more is better on each.
AXES = {"correct": "accuracy", "tpf": "tpf", "acceptance_length": "acceptance_length", "tokens_per_second": "tokens_per_second"}


@dataclass(frozen=True)
class Point:
    """One setting over all its prompts: totals, and ratios of totals (not means of ratios)."""

    knobs: dict[str, Any]
    runs: int
    graded: int
    accuracy: float | None  # share of the graded answers that are exact, 0..1
    tokens: int
    nfe: int
    tpf: float | None  # total tokens / total NFE
    acceptance_length: float | None  # over all verifications
    seconds: float
    tokens_per_second: float | None
    front: bool = False


def pareto(rows: Iterable[Mapping[str, Any]], by: Sequence[str] = ("tpf", "correct")) -> list[Point]:
    """Summarise rows by setting, in order of appearance, and mark the Pareto front.

    A setting is on the front when no other is at least as good on every axis of `by` (column names) and better on
    one. A setting without a figure on an axis (prompts that are no tasks, say) is never on it. Raises NemodiffError
    for an unknown axis.
    """
    for axis in by:
        if axis not in AXES:
            raise NemodiffError(f"{axis!r} is no axis of a front; choose among {', '.join(AXES)}.")
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(json.dumps(_knobs(row)), []).append(row)
    points = [_summarise(group) for group in groups.values()]
    values = [tuple(getattr(point, AXES[axis]) for axis in by) for point in points]
    complete = [value for value in values if None not in value]
    return [
        replace(point, front=None not in value and not any(_dominates(other, value) for other in complete))
        for point, value in zip(points, values)
    ]


def wilson(correct: int, graded: int, z: float = 1.96) -> tuple[float, float]:
    """The interval, within 0..1, that holds the true share with 95 % confidence (Wilson 1927); (0, 1) of nothing.

    Unlike the normal interval it stays inside 0..1 and has a width at 0 and at 1, which few prompts often reach.
    """
    if not graded:
        return 0.0, 1.0
    share, weight = correct / graded, z * z / graded
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * sqrt(share * (1 - share) / graded + weight / (4 * graded))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))  # rounding aside, they hold the share


def _knobs(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in KNOBS if name in row}


def _summarise(rows: list[Mapping[str, Any]]) -> Point:
    marks = [row["correct"] for row in rows if row["correct"] is not None]
    tokens, nfe = sum(row["tokens"] for row in rows), sum(row["nfe"] for row in rows)
    seconds = sum(row["seconds"] for row in rows)
    verified = [row for row in rows if row["verifications"]]
    verifications = sum(row["verifications"] for row in verified)
    accepted = sum(row["acceptance_length"] * row["verifications"] for row in verified)
    return Point(
        knobs=_knobs(rows[0]),
        runs=len(rows),
        graded=len(marks),
        accuracy=fmean(marks) if marks else None,
        tokens=tokens,
        nfe=nfe,
        tpf=tokens / nfe if nfe else None,
        acceptance_length=accepted / verifications if verifications else None,
        seconds=seconds,
        tokens_per_second=tokens / seconds if seconds > 0 else None,
    )


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other)) and any(a > b for a, b in zip(one, other))
