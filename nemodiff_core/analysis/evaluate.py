"""`nemodiff eval`: exact-answer accuracy against budget for every mode, on held-out prompts."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from nemodiff_core.analysis.example import Example
from nemodiff_core.analysis.tasks import examples_for, grade
from nemodiff_core.engine import Engine, environment
from nemodiff_core.errors import RequestError
from nemodiff_core.metrics import summary
from nemodiff_core.request import DecodeRequest
from nemodiff_core.skeleton import GAP

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
STEPS = (1, 2, 4, 8)
MAX_NEW_TOKENS = 256


@dataclass(frozen=True)
class Setting:
    """One row of the table: a name and the knobs that differ from greedy decoding at block 16."""

    name: str
    knobs: dict[str, Any]


def _steps(n: int) -> str:
    return f"{n} step{'s' if n > 1 else ''} per block"


# Revision at a strict and at a mild bound: what it doubts is written again up to eight times a block.
REVISED = {f"revised below {bound}": {"revise_rounds": 8, "revise_bound": bound} for bound in (0.05, 0.3)}
SETTINGS = (
    Setting("ar", {"mode": "ar"}),
    Setting("linear_spec", {"mode": "linear_spec"}),
    Setting("quadratic_spec", {"mode": "quadratic_spec"}),
    *(Setting(f"diffusion, threshold {t}", {"threshold": t}) for t in reversed(THRESHOLDS)),
    *(Setting(f"diffusion, {_steps(n)}", {"steps": n}) for n in reversed(STEPS)),
    Setting("diffusion, entropy budget 0.3", {"policy": "entropy_budget", "entropy_bound": 0.3}),
    Setting("diffusion, margin 0.8", {"policy": "margin", "margin_bound": 0.8}),
    *(Setting(f"diffusion, threshold {t}, {name}", {"threshold": t} | r) for t in (0.9, 0.7, 0.5) for name, r in REVISED.items()),
    *(Setting(f"diffusion, {_steps(n)}, {name}", {"steps": n} | r) for n in (4, 2, 1) for name, r in REVISED.items()),
    *(Setting(f"diffusion, threshold {t}, reopened below 0.3", {"threshold": t, "remask_bound": 0.3}) for t in (0.7, 0.5)),
    # The two rules by which a sampled draft is judged, and the distribution that both keep.
    Setting("sampled ar, temperature 0.8", {"mode": "ar", "temperature": 0.8}),
    *(
        Setting(f"sampled linear_spec, {rule}, temperature 0.8", {"mode": "linear_spec", "temperature": 0.8, "verification": rule})
        for rule in ("match", "ratio")
    ),
)
LEARNED = tuple(Setting(f"diffusion, sampler {b}", {"policy": "sampler", "threshold": b}) for b in (0.9, 0.7, 0.5))
ADAPTED = Setting("linear_spec without adapter", {"mode": "linear_spec", "adapter": False})


def settings_for(engine: Engine, only: Sequence[str] = ()) -> list[Setting]:
    """Everything this checkpoint can be measured in, or what begins with one of `only`.

    Raises RequestError where nothing does.
    """
    model = engine.checkpoint.model
    every = [*SETTINGS, *(LEARNED if model.commit_sampler is not None else ()), *([ADAPTED] if model.draft_adapter is not None else ())]
    chosen = [setting for setting in every if not only or setting.name.startswith(tuple(only))]
    if not chosen:
        raise RequestError(f"no setting begins with {' or '.join(only)}; they are: {'; '.join(s.name for s in every)}.")
    return chosen


@dataclass
class Row:
    """One setting's results over all prompts."""

    setting: str
    correct: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))  # by family
    kinds: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))  # by family/kind
    acceptance: list[int] = field(default_factory=list)
    identical: list[bool] = field(default_factory=list)  # to AR's tokens
    parsed: list[bool] = field(default_factory=list)  # of the answers that should be JSON
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
            "valid_json": fmean(self.parsed) if self.parsed else None,
            "prompts": sum(map(len, self.correct.values())),
        }


def evaluate(
    engine: Engine,
    *,
    per_family: int = 50,
    seed: int = 0,
    block_length: int = 16,
    settings: Sequence[Setting] | None = None,
    families: Sequence[str] | None = None,
    listen: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Run every setting greedily over the same held-out prompts; returns a JSON-able report.

    The last row fills JSON skeletons, for the prompts that ask for JSON alone.
    `listen(setting, done, total)` hears about every finished prompt.
    """
    examples = [e for e in examples_for("test", per_family, seed) if families is None or e.family in families]
    rows, reference = [], {}
    for setting in settings or settings_for(engine):
        row = Row(setting.name)
        for n, example in enumerate(examples):
            _decode_one(engine, example, setting, block_length, row, reference, n)
            if listen is not None:
                listen(setting.name, n + 1, len(examples))
        rows.append(row.as_dict())
    if any(example.kind == "to_json" for example in examples):
        rows.append(_skeletons(engine, [e for e in examples if e.kind == "to_json"], block_length, listen))
    return {
        "model": engine.describe(),
        "per_family": per_family,
        "seed": seed,
        "block_length": block_length,
        "machine": environment()["hardware"],
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
    text = engine.text(ids)
    mark = grade(example, text).correct
    if example.kind == "to_json":
        row.parsed.append(parses(text))
    row.correct[example.family].append(mark)
    row.kinds[f"{example.family}/{example.kind}"].append(mark)
    row.tokens += figures["tokens"]
    row.nfe += figures["nfe"]
    row.seconds += figures["seconds"]
    row.acceptance += figures["acceptance_lengths"] or []
    mode = setting.knobs.get("mode")
    if request.temperature > 0:
        return  # another seed of chance, another text: nothing to be identical to
    if mode == "ar":
        reference[n] = ids
    elif mode in ("linear_spec", "quadratic_spec") and n in reference:
        row.identical.append(ids == reference[n])


def _skeletons(
    engine: Engine, examples: Sequence[Example], block_length: int, listen: Callable[[str, int, int], None] | None
) -> dict[str, Any]:
    """The JSON task with the record's own fields given as a skeleton: only the values are written."""
    row = Row("infill, JSON skeleton")
    for n, example in enumerate(examples):
        request = DecodeRequest(
            prompt=example.prompt, mode="infill", block_length=block_length, max_new_tokens=MAX_NEW_TOKENS, template=skeleton(example)
        )
        run = engine.run(request)
        for _ in run:
            pass
        trace = run.trace()
        text = engine.text(trace.output.ids)
        mark = grade(example, text).correct
        row.correct[example.family].append(mark)
        row.kinds[f"{example.family}/{example.kind}"].append(mark)
        row.parsed.append(parses(text))
        figures = summary(trace)
        row.tokens, row.nfe, row.seconds = row.tokens + figures["tokens"], row.nfe + figures["nfe"], row.seconds + figures["seconds"]
        if listen is not None:
            listen(row.setting, n + 1, len(examples))
    return row.as_dict()


def skeleton(example: Example) -> str:
    """The template of a record's JSON: its fields, one to three tokens for a text and one or two digits for a number."""
    values = ((name, f"{GAP}{{1,2}}" if isinstance(value, int) else f'"{GAP}{{1,3}}"') for name, value in example.facts["record"].items())
    return "{" + ", ".join(f'"{name}": {gap}' for name, gap in values) + "}"


def parses(text: str) -> bool:
    """Whether a text is JSON."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    rows = report["rows"]
    families = list(rows[0]["families"])
    head = ["setting", "all", *families, "to_json", "valid", "TPF", "acceptance", "= AR", "tokens/s"]
    lines = [
        f"Model {report['model']['id']}, {report['per_family']} held-out prompts per family, block "
        f"{report['block_length']}, greedy unless a row says otherwise, {report['date']}, {report['machine']['processor']}.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + " --- |" + " ---: |" * (len(head) - 1),
    ]
    for r in rows:
        whole = all(f in r["families"] for f in families)
        cells = [r["setting"], _percent(r["accuracy"]) if whole else ""]
        cells += [_percent(r["families"][f]) if whole else "" for f in families]
        cells += [_percent(r["kinds"].get("json/to_json")), _percent(r["valid_json"])]
        acceptance, same = r["acceptance_length"], r["identical_to_ar"]
        cells += [
            f"{r['tpf']:.2f}",
            "" if acceptance is None else f"{acceptance:.2f}",
            _percent(same),
            f"{r['tokens_per_second']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    return f"{100 * share:.0f} %" if share in (0.0, 1.0) else f"{100 * share:.1f} %"
