"""What a sweep runs: the settings that a list of values for each knob gives, and the prompts they run on."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemodiff_core.analysis.example import Example
from nemodiff_core.analysis.tasks import FAMILIES, examples_for
from nemodiff_core.errors import NemodiffError, RequestError
from nemodiff_core.request import DecodeRequest, parse_request

SCHEMA = "nemodiff.sweep/1"
KNOBS = tuple(name for name in DecodeRequest.model_fields if name != "prompt")
MAX_COMBINATIONS = 4096
# Knobs that a request accepts in a mode although they change nothing there.
_WITHOUT_EFFECT = {"ar": ("block_length",)}

Setting = dict[str, Any]  # the knobs of one request that were asked for; all others stay at their default


@dataclass(frozen=True)
class Prompt:
    """One prompt. Its answers are graded only where it comes with the example it asks about."""

    id: str
    text: str
    example: Example | None = None

    @property
    def family(self) -> str | None:
        return None if self.example is None else self.example.family


@dataclass(frozen=True)
class Grid:
    """Settings × prompts, and how many combinations of knobs no request accepts as they stand."""

    settings: tuple[Setting, ...]
    prompts: tuple[Prompt, ...]
    combinations: int
    refused: tuple[str, ...] = ()  # why, one sentence for each refused combination

    def request(self, setting: int, prompt: Prompt) -> DecodeRequest:
        """The request of one run."""
        return parse_request({**self.settings[setting], "prompt": prompt.text})

    def describe(self) -> dict[str, Any]:
        """What decides whether two grids are the same one, as JSON data."""
        text = json.dumps([(prompt.id, prompt.text) for prompt in self.prompts])
        plain = {
            "schema": SCHEMA,
            "settings": self.settings,
            "prompts": {
                "count": len(self.prompts),
                "families": sorted({prompt.family for prompt in self.prompts if prompt.family}),
                "digest": hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
            },
        }
        return json.loads(json.dumps(plain))


def make_grid(knobs: Mapping[str, Sequence[Any]], prompts: Sequence[Prompt]) -> Grid:
    """Every combination of the values, `{"mode": ["ar", "diffusion"], "threshold": [0.5, 0.9], ...}`.

    A combination that the request refuses (steps together with a threshold, a knob that does nothing in a mode)
    does not run; its largest parts that the request accepts do, each once, always with the mode asked for. So `ar`
    runs once beside any number of thresholds, and thresholds and steps make one axis. Raises NemodiffError for an
    unknown knob, for a value that no request accepts, and where nothing is left to run.
    """
    if not prompts:
        raise NemodiffError("there are no prompts to run on; give some.")
    ids = [prompt.id for prompt in prompts]
    if len(set(ids)) < len(ids) or not all(re.fullmatch(r"[\w-]+", name) for name in ids):  # they name files
        raise NemodiffError("every prompt needs an id of its own, made of letters, digits, - and _; rename them.")
    for name, values in knobs.items():
        if name not in KNOBS:
            raise NemodiffError(f"{name} is no setting of a decoding request; the settings are {', '.join(KNOBS)}.")
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise NemodiffError(f"{name} needs a list of values; give at least one.")
    count = math.prod(map(len, knobs.values()))
    if count > MAX_COMBINATIONS:
        raise NemodiffError(f"the grid has {count} combinations, but at most {MAX_COMBINATIONS} can run; give fewer values.")
    found: dict[str, Setting] = {}
    refused = []
    for values in itertools.product(*knobs.values()):
        combination = dict(zip(knobs, values))
        reason = _refusal(combination)
        if reason is not None:
            refused.append(reason)
        for setting in [combination] if reason is None else _accepted_parts(combination):
            idle = _WITHOUT_EFFECT.get(setting.get("mode"), ())
            setting = {name: value for name, value in setting.items() if name not in idle}
            found.setdefault(_request(setting).model_dump_json(), setting)
    if not found:
        raise NemodiffError(f"no combination of the grid can run: {refused[0]}")
    return Grid(tuple(found.values()), tuple(prompts), count, tuple(refused))


def task_prompts(per_family: int, seed: int = 0, families: Sequence[str] | None = None) -> list[Prompt]:
    """Held-out prompts of the graded tasks. Raises NemodiffError for an unknown family."""
    for name in families or ():
        if name not in FAMILIES:
            raise NemodiffError(f"there is no task family {name!r}; choose among {', '.join(FAMILIES)}.")
    prompts: list[Prompt] = []
    for name in dict.fromkeys(families or FAMILIES):
        examples = examples_for("test", per_family, seed, [name])
        prompts += [Prompt(f"{name}-{n:04d}", example.prompt, example) for n, example in enumerate(examples)]
    return prompts


def file_prompts(path: Path) -> list[Prompt]:
    """One prompt a line of a text file, ungraded; empty lines are skipped. Raises NemodiffError."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise NemodiffError(f"{path} is no UTF-8 text; save it as such.") from error
    except OSError as error:
        raise NemodiffError(f"{path} cannot be read ({error.strerror}); choose another file.") from error
    prompts = [Prompt(f"line-{n:04d}", line.strip()) for n, line in enumerate(lines, start=1) if line.strip()]
    if not prompts:
        raise NemodiffError(f"{path} holds no prompts; write one on each line.")
    return prompts


def _request(setting: Setting) -> DecodeRequest:
    return parse_request({**setting, "prompt": "-"})


def _refusal(setting: Setting) -> str | None:
    """Why no request has these knobs together; None where one has. Raises RequestError for a value bad by itself."""
    try:
        _request(setting)
    except RequestError as error:
        if error.__cause__.errors()[0]["loc"]:  # of one field: a slip, which must not pass for a combination
            raise
        return str(error)
    return None


def _accepted_parts(combination: Setting) -> list[Setting]:
    others = [name for name in combination if name != "mode"]
    for size in range(len(others) - 1, -1, -1):
        parts = [
            {name: value for name, value in combination.items() if name == "mode" or name in kept}
            for kept in itertools.combinations(others, size)
        ]
        if accepted := [part for part in parts if _refusal(part) is None]:
            return accepted
    return []
