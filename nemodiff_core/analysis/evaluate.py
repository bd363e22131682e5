"""`nemodiff eval`: exact-answer accuracy against budget for every mode, on held-out prompts."""

from __future__ import annotations

import platform
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from nemodiff_core.analysis.example import Example
from nemodiff_core.analysis.tasks import examples_for, grade
from nemodiff_core.engine import Engine
from nemodiff_core.metrics import summary
from nemodiff_core.request import DecodeRequest

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
STEPS = (1, 2, 4, 8)
MAX_NEW_TOKENS = 256


@dataclass(frozen=True)
class Setting:
    """One row of the table: a name and the knobs that differ from greedy decoding at block 16."""

    name: str
    knobs: dict[str, Any]


SETTINGS = (
    Setting("ar", {"mode": "ar"}),
    Setting("linear_spec", {"mode": "linear_spec"}),
    *(Setting(f"diffusion, threshold {t}", {"mode": "diffusion", "threshold": t}) for t in reversed(THRESHOLDS)),
    *(Setting(f"diffusion, {n} steps per block", {"mode": "diffusion", "steps": n}) for n in reversed(STEPS)),
)


@dataclass
class Row:
    """One setting's results over all prompts."""

    setting: str
    correct: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))  # by family
    kinds: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))  # by family/kind
    acceptance: list[int] = field(default_factory=list)
    identical: list[bool] = field(default_factory=list)  # to AR's tokens
    tokens: int = 0
    nfe: int = 0
    seconds: float = 0.0

    def accuracy(self, family: str | None = None) -> float:
        """Share of exact answers, 0..1; over all families each family counts the same."""
        if family is not None:
            return fmean(self.correct[family])
        return fmean(fmean(marks) for marks in self.correct.values())

    def as_dict(self) -> dict[str, Any]:
        return {
            "setting": self.setting,
            "accuracy": self.accuracy(),
            "families": {name: fmean(marks) for name, marks in self.correct.items()},
            "kinds": {name: fmean(marks) for name, marks in sorted(self.kinds.items())},
            "tpf": self.tokens / self.nfe,
            "tokens_per_second": self.tokens / self.seconds,
            "acceptance_length": fmean(self.acceptance) if self.acceptance else None,
            "identical_to_ar": fmean(self.identical) if self.identical else None,
            "prompts": sum(map(len, self.correct.values())),
        }


def evaluate(
    engine: Engine,
    *,
    per_family: int = 50,
    seed: int = 0,
    block_length: int = 16,
    settings: Sequence[Setting] = SETTINGS,
    families: Sequence[str] | None = None,
    listen: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Run every setting greedily over the same held-out prompts; returns a JSON-able report.

    `listen(setting, done, total)` hears about every finished prompt.
    """
    examples = [e for e in examples_for("test", per_family, seed) if families is None or e.family in families]
    rows, reference = [], {}
    for setting in settings:
        row = Row(setting.name)
        for n, example in enumerate(examples):
            _decode_one(engine, example, setting, block_length, row, reference, n)
            if listen is not None:
                listen(setting.name, n + 1, len(examples))
        rows.append(row.as_dict())
    return {
        "model": engine.describe(),
        "per_family": per_family,
        "seed": seed,
        "block_length": block_length,
        "machine": {"system": platform.platform(), "processor": platform.processor() or platform.machine()},
        "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
    }


def _decode_one(
    engine: Engine,
    example: Example,
    setting: Setting,
    block_length: int,
    row: Row,
    reference: dict[int, list[int]],
    n: int,
) -> None:
    request = DecodeRequest(
        prompt=example.prompt, block_length=block_length, max_new_tokens=MAX_NEW_TOKENS, **setting.knobs
    )
    run = engine.run(request)
    for _ in run:
        pass
    trace = run.trace()
    figures = summary(trace)
    ids = trace.output.ids
    mark = grade(example, engine.text(ids)).correct
    row.correct[example.family].append(mark)
    row.kinds[f"{example.family}/{example.kind}"].append(mark)
    row.tokens += figures["tokens"]
    row.nfe += figures["nfe"]
    row.seconds += figures["seconds"]
    row.acceptance += figures["acceptance_lengths"] or []
    if setting.knobs["mode"] == "ar":
        reference[n] = ids
    elif setting.knobs["mode"] == "linear_spec" and n in reference:
        row.identical.append(ids == reference[n])


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    rows = report["rows"]
    families = list(rows[0]["families"])
    head = ["setting", "all", *families, "TPF", "acceptance", "= AR", "tokens/s"]
    lines = [
        f"Model {report['model']['id']}, {report['per_family']} held-out prompts per family, block "
        f"{report['block_length']}, greedy, {report['date']}, {report['machine']['system']}.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + " --- |" + " ---: |" * (len(head) - 1),
    ]
    for r in rows:
        cells = [r["setting"], _percent(r["accuracy"]), *(_percent(r["families"][f]) for f in families)]
        acceptance, same = r["acceptance_length"], r["identical_to_ar"]
        cells += [
            f"{r['tpf']:.2f}",
            "" if acceptance is None else f"{acceptance:.2f}",
            "" if same is None else _percent(same),
            f"{r['tokens_per_second']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share in (0.0, 1.0) else f"{100 * share:.1f} %"
