"""Teachable moments, found and not staged: every scene searches held-out prompts for an answer that shows it.

A scene decodes a prompt as often as it needs and says whether the runs show what they should; the first prompt
of the test split for which they do is recorded. Cards say where to look; their words are in
`ui/lessons/<language>/gallery.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nemodiff_core import metrics
from nemodiff_core.analysis.example import Example
from nemodiff_core.analysis.regret import regret
from nemodiff_core.analysis.tasks import examples_for
from nemodiff_core.errors import NemodiffError
from nemodiff_core.request import parse_request
from nemodiff_core.trace import Trace

from ui import files, opening
from ui.controls import GENERAL
from ui.lessons import FOLDER as TEXTS
from ui.lessons import describe, places
from ui.lessons.facts import exact, text_of
from ui.lessons.library import FOLDER, Library, Run
from ui.loader import warm_up

SEED = 2
PER_FAMILY = 60
PLAIN = {"mode": "diffusion", "block_length": 16}
CAREFUL = {**PLAIN, "threshold": 0.9}
CARELESS = {**PLAIN, "threshold": 0.5}
DRAFTED = {"mode": "linear_spec", "block_length": 16}
Found = dict[str, list[Run]]  # recorded name -> lanes
Take = Callable[..., Run]  # request fields -> a finished run


@dataclass(frozen=True)
class Scene:
    """What to record: `act` decodes an example and answers None unless it shows the moment."""

    families: tuple[str, ...]
    act: Callable[[Example, Take], Found | None]


@dataclass(frozen=True)
class Card:
    """A card of the gallery: which run it opens, and where."""

    name: str
    trace: str
    place: str = "start"
    lane: int = 1
    panel: str | None = None


SCENES: list[Scene] = []
CARDS = (
    Card("wrong-commit", "sum-careless", "wrong commit"),
    Card("twice", "list-careless", "wrong commit"),
    Card("early-end", "sum-careful", "early end"),
    Card("one-forward", "code", "block in one forward"),
    Card("rejected-draft", "sum-spec", "rejection"),
    Card("lossless", "story", "end", lane=2),
    Card("quadratic", "story", "end", lane=3, panel="cycles"),
    Card("slower", "sampled", "end", lane=2),
    Card("revision", "sum-revised", "revision", panel="history"),
    Card("mended", "story-revised", "revision", panel="history"),
    Card("reopened", "reopened", "reopening", panel="history"),
    Card("draft", "draft", "revision", panel="history"),
    Card("infill", "infill", "last gap"),
    Card("surprise", "surprise", "end", lane=2),
)


def scene(*families: str) -> Callable:
    """Add a scene over examples of these families."""
    return lambda act: SCENES.append(Scene(families, act))


@scene("arithmetic")
def _sum(example: Example, take: Take) -> Found | None:
    """One short sum that tells most of the story: right when careful, wrong in haste, saved by either remedy."""
    if example.kind != "sub" or not exact(ar := take(mode="ar")) or not 20 <= metrics.tokens(ar.trace) <= 32:
        return None
    hasty = take(**CARELESS, judge=True)
    wrong = places.wrong_commit(hasty.trace)
    if wrong is None or exact(hasty):
        return None
    careful, drafted, revised = take(**CAREFUL), take(**DRAFTED), take(**CARELESS, revise_rounds=8, revise_bound=0.3)
    refused, changed = places.rejection(drafted.trace), places.revision(revised.trace)
    same = text_of(careful) == text_of(ar) == text_of(drafted) == text_of(revised)
    if not (same and refused and changed and places.early_end(careful.trace)):
        return None
    if not refused.position == changed.position == wrong.position or places.neighbour(hasty.trace) is None:
        return None
    return {"sum-ar": [ar], "sum-careful": [careful], "sum-careless": [hasty], "sum-spec": [drafted], "sum-revised": [revised]}


@scene("list")
def _twice(example: Example, take: Take) -> Found | None:
    """Two neighbours that never saw each other write the same number."""
    if example.kind != "sort" or not re.search(r"\d", example.answer):
        return None
    hasty = take(**CARELESS, judge=True)
    items = text_of(hasty).split(", ")
    if exact(hasty) or len(set(items)) == len(items) or places.wrong_commit(hasty.trace) is None:
        return None
    careful = take(**CAREFUL)
    return {"list-careless": [hasty], "list-careful": [careful]} if exact(careful) else None


@scene("code")
def _block(example: Example, take: Take) -> Found | None:
    """A block that needs no second thought."""
    run = take(**CAREFUL)
    found = places.block_in_one(run.trace)
    if found is None or not exact(run) or metrics.tokens(run.trace) < 28 or metrics.tpf(run.trace) < 5:
        return None
    return {"code": [run]}


@scene("story")
def _story(example: Example, take: Take) -> Found | None:
    """The three ways to write AR's text: by itself, speculating, and speculating in one forward a cycle."""
    ar = take(mode="ar")
    if not exact(ar) or metrics.tokens(ar.trace) > 110:
        return None
    linear, quadratic = take(**DRAFTED), take(**{**DRAFTED, "mode": "quadratic_spec"})
    lengths = metrics.acceptance_lengths(linear.trace)
    faster = metrics.tokens_per_second(linear.trace) > metrics.tokens_per_second(ar.trace)
    dear = metrics.tokens_per_second(quadratic.trace) < metrics.tokens_per_second(linear.trace)
    if not (min(lengths[:-1]) <= 3 and max(lengths) >= 12 and faster and dear and text_of(ar) == text_of(linear) == text_of(quadratic)):
        return None
    return {"story": [ar, linear, quadratic], "story-ar": [ar], "story-spec": [linear]}


@scene("story")
def _sampled(example: Example, take: Take) -> Found | None:
    """Text that nobody can guess: drafts are refused, and speculation loses to AR by the clock."""
    heat = {"temperature": 1.6, "seed": 0, "max_new_tokens": 64}
    ar, linear = take(mode="ar", **heat), take(mode="linear_spec", block_length=32, **heat)
    tokens = min(metrics.tokens(ar.trace), metrics.tokens(linear.trace))
    if tokens < 24 or metrics.tokens_per_second(linear.trace) * 1.2 > metrics.tokens_per_second(ar.trace):
        return None
    return {"sampled": [ar, linear]}


@scene("arithmetic")
def _budget(example: Example, take: Take) -> Found | None:
    """The same sum for one, two, four and eight forwards a block."""
    lanes = []
    for steps, good in ((1, False), (2, False), (4, True), (8, True)):
        run = take(**PLAIN, steps=steps)
        if exact(run) != good or metrics.tokens(run.trace) < 32:
            return None
        lanes.append(run)
    return {"steps": sorted(lanes, key=lambda run: run.trace.request["steps"])}


@scene("story")
def _mended(example: Example, take: Take) -> Found | None:
    """A story that haste spoils and revision mends."""
    hasty, revised = take(**CARELESS), take(**CARELESS, revise_rounds=8, revise_bound=0.3)
    if exact(hasty) or not exact(revised) or places.revision(revised.trace) is None:
        return None
    return {"story-careless": [hasty], "story-revised": [revised]}


@scene("arithmetic", "date_unit", "story")
def _reopened(example: Example, take: Take) -> Found | None:
    """A later forward takes back what an earlier one committed."""
    hasty, reopened = take(**CARELESS), take(**CARELESS, remask_bound=0.3)
    if exact(hasty) or not exact(reopened) or places.reopening(reopened.trace) is None:
        return None
    return {"reopened": [reopened]}


@scene("json")
def _infill(example: Example, take: Take) -> Found | None:
    """The values of a JSON object, the rest given."""
    if example.kind != "to_json" or len(values := json.loads(example.answer)) < 3:
        return None
    gaps = {name: "▢" * (2 if isinstance(found, int) else 1) for name, found in values.items()}
    template = "{" + ", ".join(f'"{n}": {g}' if isinstance(values[n], int) else f'"{n}": "{g}"' for n, g in gaps.items()) + "}"
    run = take(mode="infill", template=template, block_length=16)
    return {"infill": [run]} if exact(run) and any(isinstance(found, int) for found in values.values()) else None


@scene("json")
def _draft(example: Example, take: Take) -> Found | None:
    """A draft with one wrong value in it."""
    if example.kind != "to_json" or len(values := json.loads(example.answer)) < 3:
        return None
    city = next((name for name in values if name == "city"), None)
    if city is None:
        return None
    other = "Oslo" if values[city] != "Oslo" else "Lima"
    run = take(mode="refine", draft=json.dumps({**values, city: other}), block_length=16)
    return {"draft": [run]} if exact(run) and places.revision(run.trace) else None


@scene("qa")
def _surprise(example: Example, take: Take) -> Found | None:
    """What AR gets wrong and diffusion gets right."""
    ar = take(mode="ar")
    if exact(ar) or metrics.tokens(ar.trace) > 64:
        return None
    diffusion = take(**CAREFUL)
    return {"surprise": [ar, diffusion]} if exact(diffusion) else None


def record(engine: Any, folder: Path = FOLDER, tell: Callable[[str], None] = lambda what: None) -> Iterator[Path]:
    """Search every scene again and write its runs, then gallery.json. Raises NemodiffError where one finds nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    warm_up(engine)
    problems = {}
    for number, found in enumerate(SCENES, 1):
        tell(f"scene {number} of {len(SCENES)}")
        example, runs = _search(engine, found)
        for name, lanes in runs.items():
            path = folder / f"{name}.json.gz"
            traces = [replace(run.trace, id=f"{opening.PREFIX}{name}-{lane}") for lane, run in enumerate(lanes, 1)]
            files.write(traces, path)
            problems[name] = asdict(example)
            yield path
    path = folder / "gallery.json"
    path.write_text(json.dumps({"cards": [], "problems": problems}))
    content = {"cards": list(map(_card, CARDS, [Library(folder)] * len(CARDS))), "problems": problems}
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")
    yield path


def _search(engine: Any, found: Scene) -> tuple[Example, Found]:
    """The first held-out example that shows the scene."""
    for example in examples_for("test", PER_FAMILY, SEED, found.families):
        if runs := found.act(example, lambda judge=False, example=example, **fields: _take(engine, example, judge, fields)):
            return example, runs
    raise NemodiffError(f"no held-out prompt shows {found.act.__name__.strip('_')}; look at its conditions in ui/gallery.py.")


def _take(engine: Any, example: Example, judge: bool, fields: dict[str, Any]) -> Run:
    usual = {name: GENERAL[name] for name in ("max_new_tokens", "candidates")}
    trace: Trace = opening.decode(engine, parse_request({**usual, "prompt": example.prompt, **fields}))
    return Run("new", 0, regret(engine.checkpoint, trace) if judge else trace, example)


def _card(card: Card, library: Library) -> dict[str, Any]:
    """A card as the page opens it: words, and a place that counts lanes, steps and cells from one, as links do."""
    run = library.run(f"{card.trace}/{card.lane}")
    at = places.find(card.place, run)
    words = describe(json.loads((TEXTS / "en" / "gallery.json").read_text("utf-8"))[card.name], run, library)
    return {
        "name": card.name, **words, "trace": card.trace, "lane": card.lane, "step": at.step + 1,
        "cell": None if at.position is None else at.position - len(run.trace.prompt.ids) + 1, "panel": card.panel,
    }  # fmt: skip
