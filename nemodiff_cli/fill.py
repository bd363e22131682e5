"""`nemodiff refine` and `nemodiff infill`: work on text that is already there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from nemodiff_cli.decode import run_decode
from nemodiff_core.errors import NemodiffError
from nemodiff_core.request import parse_request
from nemodiff_core.skeleton import parse_template, template_from_schema
from nemodiff_core.trace import Trace


def read_argument(text: str) -> str:
    """The argument itself, or standard input for `-`."""
    return sys.stdin.read() if text == "-" else text


def schema_template(path: Path, longest: int) -> str:
    """The template of a JSON Schema file. Raises NemodiffError."""
    try:
        schema = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise NemodiffError(f"{path} cannot be read ({error.strerror}); choose another file.") from error
    except (ValueError, RecursionError) as error:
        raise NemodiffError(f"{path} is not JSON; give a file with a JSON Schema.") from error
    return template_from_schema(schema, longest)


def run_infill(fields: dict[str, Any], engine: Any, json_path: str | None) -> None:
    """Fill a template's gaps. Raises NemodiffError."""
    request = parse_request({**fields, "mode": "infill"})
    parse_template(request.template)
    run_decode(request, engine(), json_path)


def run_refine(fields: dict[str, Any], keep: list[str], engine: Any, json_path: str | None) -> None:
    """Revise a draft and say how much of it changed. Raises NemodiffError."""
    request = parse_request({**fields, "mode": "refine"})
    loaded = engine()
    tokenizer = loaded.checkpoint.tokenizer
    draft = tokenizer.encode_plain(request.draft)
    if pins := pins_for(request.draft, draft, keep, tokenizer):
        request = parse_request({**fields, "mode": "refine", "pins": pins})
    trace = run_decode(request, loaded, json_path)
    Console(stderr=json_path == "-", highlight=False).print(changed(draft, trace), style="dim")


def pins_for(text: str, ids: list[int], keep: list[str], tokenizer: Any) -> list[tuple[int, int]]:
    """Pins for every place where one of the texts `keep` stands. Raises NemodiffError for one that does not occur."""
    edges, at = [], 0
    for end in range(1, len(ids) + 1):
        after = len(tokenizer.decode(ids[:end]))
        edges.append((at, after))
        at = after
    pins: dict[int, int] = {}
    for wanted in keep:
        start = text.find(wanted)
        if start < 0 or not wanted:
            raise NemodiffError(f"the draft does not contain {wanted!r}; give --keep a part of it.")
        while start >= 0:
            stop = start + len(wanted)
            pins.update((n, ids[n]) for n, (low, high) in enumerate(edges) if low < stop and high > start)
            start = text.find(wanted, stop)
    return sorted(pins.items())


def changed(draft: list[int], trace: Trace) -> str:
    """How many tokens differ from the draft."""
    count = sum(a != b for a, b in zip(draft, trace.output.ids))
    return f"{count} of {len(draft)} tokens changed" if count else "nothing changed: the causal pass believes the draft"
