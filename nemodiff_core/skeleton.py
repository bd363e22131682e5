"""Text with gaps: what infill is given, and templates that make valid JSON by construction.

A gap is one `▢` per token, `▢▢▢` or `▢{3}`; `▢{1,4}` lets the model choose a length. Where the text is JSON
once its gaps are filled, a gap inside quotes takes only what may stand inside a JSON string, and one outside
of them only digits, so that every filling parses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch

from nemodiff_core.decode.infill import Gap, Part
from nemodiff_core.errors import RequestError
from nemodiff_core.tokenizer import Tokenizer

GAP = "▢"
_GAP = re.compile(rf"{GAP}\{{(\d+)(?:,(\d+))?\}}|{GAP}+(?!\{{\d)")
Kind = Literal["text", "string", "number"]


@dataclass(frozen=True)
class Hole:
    """One gap of a template: its lengths in tokens and what may stand there."""

    shortest: int
    longest: int
    kind: Kind


def parse_template(text: str) -> list[str | Hole]:
    """Split a template into given text and holes. Raises RequestError for a template without gaps or an impossible one."""
    pieces: list[str | Hole] = []
    spans = list(_GAP.finditer(text))
    if not spans:
        raise RequestError(f"the template has no gaps; write {GAP} for every token that is to be filled in.")
    kinds = _json_kinds(text, spans) or ["text"] * len(spans)
    end = 0
    for match, kind in zip(spans, kinds):
        if match.start() > end:
            pieces.append(text[end : match.start()])
        shortest = int(match[1]) if match[1] else len(match[0])
        longest = int(match[2]) if match[2] else shortest
        if not 1 <= shortest <= longest:
            raise RequestError(f"the gap {match[0]} has no possible length; write the shorter length first, at least 1.")
        if pieces and isinstance(pieces[-1], Hole):
            raise RequestError(f"two gaps stand side by side before {match[0]}; write them as one.")
        pieces.append(Hole(shortest, longest, kind))
        end = match.end()
    if end < len(text):
        pieces.append(text[end:])
    return pieces


def _json_kinds(text: str, spans: Sequence[re.Match[str]]) -> list[Kind] | None:
    """What each gap is within JSON: tried with every gap as a digit, which fits in strings and as a number."""
    try:
        json.loads(_GAP.sub("1", text))
    except ValueError:
        return None
    kinds: list[Kind] = []
    for match in spans:
        quotes = re.findall(r'(?<!\\)(?:\\\\)*"', _GAP.sub("", text[: match.start()]))
        kinds.append("string" if len(quotes) % 2 else "number")
    return kinds


def _fits(text: str, kind: Kind) -> bool:
    if kind == "number":
        return text.isascii() and text.isdigit()
    return kind == "text" or not any(c in '"\\' or c < " " for c in text)


@lru_cache(maxsize=16)
def _allowed(tokenizer: Tokenizer, vocabulary: int, kind: Kind) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[vocab] bool each: tokens for inside a hole, for its start, and for its start with the space before it.

    Special tokens and parts of characters never fit; a number does not start with 0.
    """
    inside, start, spaced = torch.zeros(3, vocabulary, dtype=torch.bool)
    for token in range(min(vocabulary, tokenizer.vocab_size)):
        text = tokenizer.decode([token])
        if not text or "\ufffd" in text:
            continue
        inside[token] = _fits(text, kind)
        start[token] = inside[token] and not (kind == "number" and text[0] == "0")
        word = text[1:]
        spaced[token] = text[0] == " " and bool(word) and _fits(word, kind) and not (kind == "number" and word[0] == "0")
    return inside, start, spaced


def parts_for(template: str, tokenizer: Tokenizer, vocabulary: int, block_length: int, device: torch.device) -> list[Part]:
    """The template as the infill decoder takes it. Raises RequestError for a gap that no block can hold."""
    parts: list[Part] = []
    pieces = parse_template(template)
    for n, piece in enumerate(pieces):
        if isinstance(piece, str):
            # Most vocabularies join a space to the word behind it, so a gap takes over the space before it.
            heal = n + 1 < len(pieces) and piece.endswith(" ") and _takes_space(pieces[n + 1], tokenizer, vocabulary)
            if given := tokenizer.encode_plain(piece[:-1] if heal else piece):
                parts.append(given)
            continue
        if piece.longest > block_length - 1:
            raise RequestError(
                f"a gap of {piece.longest} tokens does not fit into a block of {block_length}, which holds at most "
                f"{block_length - 1}; shorten the gap or raise block_length."
            )
        before = pieces[n - 1] if n else ""
        inside, start, spaced = _allowed(tokenizer, vocabulary, piece.kind)
        if before.endswith(" ") and _takes_space(piece, tokenizer, vocabulary):
            start = spaced
        elif piece.longest == 1:
            start = inside
        if not (start.any() and inside.any()):
            raise RequestError(f"this checkpoint has no token that may stand in a gap for a {piece.kind}; choose another.")
        parts.append(Gap(piece.shortest, piece.longest, start.to(device), inside.to(device)))
    return parts


def _takes_space(hole: str | Hole, tokenizer: Tokenizer, vocabulary: int) -> bool:
    return isinstance(hole, Hole) and bool(_allowed(tokenizer, vocabulary, hole.kind)[2].any())


def template_from_schema(schema: Any, longest: int = 3) -> str:
    """A JSON template for a JSON Schema: an object of strings, whole numbers, fixed values and nested objects.

    Strings become gaps of 1 to `longest` tokens (fewer where maxLength is shorter), integers of as many digits
    as their bounds allow (1 to 3 without). Raises RequestError for what a skeleton of gaps cannot express.
    """
    try:
        import jsonschema

        jsonschema.validators.validator_for(schema).check_schema(schema)
    except jsonschema.SchemaError as error:
        raise RequestError(f"the JSON Schema is not valid ({error.message[:200]}); correct it.") from error
    return _template(schema, longest, "the schema")


def _template(schema: Any, longest: int, where: str) -> str:
    if not isinstance(schema, dict):
        raise RequestError(f"{where} does not say what stands there; give it a type.")
    if "const" in schema:
        return json.dumps(schema["const"])
    kind = schema.get("type")
    if kind == "object":
        fields = schema.get("properties", {})
        if not fields:
            raise RequestError(f"{where} is an object without properties; name them.")
        inner = (f"{json.dumps(name)}: {_template(part, longest, repr(name))}" for name, part in fields.items())
        return "{" + ", ".join(inner) + "}"
    if kind == "string":
        most = max(1, min(longest, schema.get("maxLength", longest)))
        return f'"{GAP}{{1,{most}}}"' if most > 1 else f'"{GAP}"'
    if kind == "integer":
        low, high = schema.get("minimum", 0), schema.get("maximum", 999)
        if low < 0:
            raise RequestError(f"{where} may be negative, which a gap of digits cannot be; set minimum to 0 or more.")
        shortest, most = len(str(int(low))), len(str(int(high)))
        return f"{GAP}{{{shortest},{most}}}" if most > shortest else GAP * most
    raise RequestError(f"{where} has type {kind!r}; a skeleton holds objects, strings, integers and const values.")
