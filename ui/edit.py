"""The Edit view: text with gaps that the model fills, and a draft whose proposed changes are taken or refused one by one."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import gradio as gr

from nemodiff_core.analysis.tasks import examples_for
from nemodiff_core.errors import NemodiffError, RequestError
from nemodiff_core.request import DecodeRequest, Limits, parse_request

from ui import proposal
from ui.editor_component import Editor
from ui.examples import SEED
from ui.jobs import Job
from ui.messages import compact, traces_of
from ui.parts import FOLD_ON_PHONES, QUIET, as_object, slider, whole
from ui.runs import RunStore
from ui.shell import PLAYER_ID

EDITOR_ID = "nd-editor"
GAP = "▢"
WITHOUT_PROMPT = "Fill in the gaps."  # as `nemodiff infill` has it
MAX_PINS = 2000
STRING_TOKENS = 3  # the most of a JSON string in a skeleton


class Edit:
    """See ui/view.py."""

    name, run_label, panel = "Edit", None, None

    def build(self, limits: Any) -> None:
        self.inputs: list[Any] = []
        self.editor = Editor(elem_id=EDITOR_ID, player=PLAYER_ID, desk=self.desk)
        with gr.Accordion("Settings", open=True, elem_id="nd-edit-settings") as self.knobs:
            block = min(16, limits.max_block_length)
            self.block = slider(
                2, limits.max_block_length, value=block, step=1, label="Block length", elem_id="nd-edit-block", info="A gap holds at most one less"
            )
            self.threshold = slider(
                0.0, 1.0, value=0.9, step=0.01, label="Commit at confidence", elem_id="nd-edit-threshold", info="Lower fills more cells a forward"
            )
            self.bound = slider(
                0.0, 1.0, value=0.1, step=0.01, label="Doubt below", elem_id="nd-edit-bound", info="Causal probability under which a draft’s token is written again"
            )
            self.rounds = slider(1, 16, value=4, step=1, label="Rounds a block", elem_id="nd-edit-rounds", info="Of judging and writing again")
        self.settings = [self.block, self.threshold, self.bound, self.rounds]

    def connect(self, shell: Any) -> None:
        self.app = shell.app
        shell.page.load(None, None, self.knobs, js=FOLD_ON_PHONES, **QUIET)
        ended = shell.start([self.editor.infill], self._maker(fill_request), [shell.picker.choice, *self.settings])
        ended += shell.start([self.editor.revise], self._maker(revise_request), [shell.picker.choice, *self.settings])
        for event in ended:
            event.then(self.answer, [shell.run_id, shell.notice], self.editor, **QUIET)
        self.editor.halt(shell.app.stop, None, None, **QUIET)

    def job(self, general: dict[str, Any], values: Sequence[Any], limits: Any) -> Job:
        raise RequestError("the editor has buttons of its own; press Fill or Propose changes.")

    # -- what the browser asks for --------------------------------------------------------------------

    def desk(self, query: Any) -> dict[str, Any]:
        """Examples, a skeleton, or how many tokens a text has: `{"ask": "examples" | "schema" | "count"}`."""
        query = as_object(query)
        ask, text = query.get("ask"), query.get("text")
        try:
            if ask == "examples":
                return {"examples": list(examples())}
            if ask == "schema":
                return {"template": skeleton(text, self.app.limits)}
            engine = self.app.models.ready(query.get("model"))
            if ask == "count" and engine is not None:
                return {"tokens": len(engine.checkpoint.tokenizer.encode_plain(_text(text, "the text", self.app.limits)))}
        except NemodiffError as error:
            return {"error": str(error)}
        return {}

    def answer(self, run_id: str, said: str) -> str:
        """What a run that has ended, or was refused, means for the editor; `said` is the page's notice."""
        models = self.app.models
        found = outcome(self.app.store, run_id, lambda model: models.ready(models.named(model)))
        return compact({"seq": time.monotonic_ns(), "problem": problem(said), **found})

    def _maker(self, request_for: Callable[..., DecodeRequest]) -> Callable[..., Job]:
        def make(event: gr.EventData, model: str, *values: Any) -> Job:
            asked = as_object(event._data)
            settings = dict(zip(("block_length", "threshold", "revise_bound", "revise_rounds"), map(whole, values)))
            limits = self.app.limits

            def lane(engine: Any, stop: Any) -> Any:
                return engine.run(request_for(asked, settings, limits, engine.checkpoint.tokenizer), stop=stop)

            request_for(asked, settings, limits, None).check(limits)
            if (engine := self.app.models.ready(model)) is not None:
                lane(engine, None).close()  # what does not fit is refused here, with nothing begun
            return Job((lane,))

        return make


# -- requests -----------------------------------------------------------------------------------------


def fill_request(asked: dict[str, Any], settings: dict[str, Any], limits: Limits, tokenizer: Any = None) -> DecodeRequest:
    """The infill that the editor asks for, checked; against its lengths in tokens where a tokenizer is given. Raises RequestError."""
    from nemodiff_core.skeleton import Hole, parse_template  # torch comes with it: not before somebody fills a gap

    template = _text(asked.get("text"), "the text", limits)
    pieces = parse_template(template)
    block = settings["block_length"]
    longest = max(piece.longest for piece in pieces if isinstance(piece, Hole))
    if longest > block - 1:
        raise RequestError(
            f"a gap of {longest} tokens does not fit into a block of {block}, which holds at most {block - 1}; "
            "shorten the gap or raise the block length."
        )
    if tokenizer is not None:
        _fits(sum(p.longest if isinstance(p, Hole) else len(tokenizer.encode_plain(p)) for p in pieces), limits)
    prompt = _prompt(asked, limits) or WITHOUT_PROMPT
    return parse_request({**_shared(prompt, settings, limits), "mode": "infill", "template": template})


def revise_request(asked: dict[str, Any], settings: dict[str, Any], limits: Limits, tokenizer: Any = None) -> DecodeRequest:
    """The refinement that the editor asks for; its pins are known once a tokenizer is. Raises RequestError."""
    draft = _text(asked.get("text"), "the draft", limits)
    if not (prompt := _prompt(asked, limits)):
        raise RequestError("the prompt is empty, and a draft is judged as its answer; write what the draft answers.")
    if GAP in draft:
        raise RequestError(f"the draft has a gap ({GAP}); fill it first, or write a word there.")
    ranges = _ranges(asked.get("pins"))
    fields = {**_shared(prompt, settings, limits), "mode": "refine", "draft": draft}
    fields |= {name: settings[name] for name in ("revise_bound", "revise_rounds")}
    if tokenizer is not None:
        ids = tokenizer.encode_plain(draft)
        _fits(len(ids), limits)
        fields["pins"] = pins(ids, ranges, tokenizer.decode)
    return parse_request(fields)


def pins(ids: Sequence[int], ranges: Sequence[tuple[int, int]], decode: Callable[[Sequence[int]], str]) -> list[tuple[int, int]]:
    """(offset, token) of every token that has a character within one of `ranges` of their text."""
    found, at, waiting = [], 0, []
    for offset, token in enumerate(ids):
        waiting.append((offset, token))
        text = decode([token for _, token in waiting])
        if "\ufffd" in text and offset + 1 < len(ids):
            continue  # a part of a character: it ends with the tokens behind
        end = at + len(text)
        if any(low < end and high > at for low, high in ranges):
            found += waiting
        at, waiting = end, []
    return found


def _shared(prompt: str, settings: dict[str, Any], limits: Limits) -> dict[str, Any]:
    knobs = {name: settings[name] for name in ("block_length", "threshold")}
    return {"prompt": prompt, "max_new_tokens": limits.max_new_tokens, "candidates": min(5, limits.max_candidates), **knobs}


def _text(value: Any, name: str, limits: Limits) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RequestError(f"{name} is empty; write something, or take an example.")
    if len(value) > limits.max_prompt_characters:
        raise RequestError(f"{name} has {len(value)} characters, but this host allows at most {limits.max_prompt_characters}; shorten it.")
    return value


def _prompt(asked: dict[str, Any], limits: Limits) -> str:
    prompt = asked.get("prompt")
    return _text(prompt, "the prompt", limits) if isinstance(prompt, str) and prompt.strip() else ""


def _fits(tokens: int, limits: Limits) -> None:
    if tokens > limits.max_new_tokens:
        raise RequestError(f"the text has {tokens} tokens, but this host allows at most {limits.max_new_tokens}; shorten it.")


def _ranges(value: Any) -> list[tuple[int, int]]:
    """Ranges of characters as a browser sends them. Raises RequestError."""
    good = isinstance(value or [], list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair) for pair in value or []
    )
    if not good or len(value or []) > MAX_PINS:
        raise RequestError("the pins cannot be read; pin the words again.")
    return [(low, high) for low, high in value or []]


# -- answers ------------------------------------------------------------------------------------------


def outcome(store: RunStore, run_id: str, engine_of: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """What an ended run of the editor gives: its filled text, or its proposed changes; `{"kind": "over"}` where it gives nothing.

    `engine_of` finds the engine of a trace's model, None where it has gone.
    """
    try:
        finished = traces_of(store.get(run_id)) if run_id else []
    except NemodiffError as error:
        return {"kind": "over", "problem": str(error)}
    engine = engine_of(finished[0].model) if finished else None
    if engine is None:
        return {"kind": "over"}
    trace = finished[0]
    whole_run = trace.stop_reason in ("length", "eos")
    if trace.request["mode"] == "infill" and whole_run:
        return {"kind": "filled", "text": engine.text(trace.output.ids)}
    if trace.request["mode"] == "refine":
        return {"kind": "proposal", "whole": whole_run, "draft": trace.request["draft"], "parts": proposal.parts(trace, engine.text)}
    return {"kind": "over"}


def problem(said: Any) -> str | None:
    """The sentence of a notice, where it tells of a mistake: on a phone the notice is out of sight."""
    found = re.fullmatch(r'<p class="nd-error"[^>]*>(.*)</p>', said if isinstance(said, str) else "", re.DOTALL)
    return html.unescape(found[1]) if found else None


def skeleton(text: Any, limits: Limits) -> str:
    """The template of a JSON Schema that somebody pasted. Raises RequestError."""
    from nemodiff_core.skeleton import template_from_schema

    text = _text(text, "the JSON Schema", limits)
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" ({error.msg}, line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise RequestError(f"this is not JSON{where}; paste a JSON Schema.") from error
    if not isinstance(schema, dict):
        raise RequestError("a JSON Schema is an object in braces; paste one.")
    try:
        return template_from_schema(schema, STRING_TOKENS)
    except (RecursionError, OverflowError) as error:
        raise RequestError("the JSON Schema is nested too deeply or has an endless bound; simplify it.") from error


# -- examples -----------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def examples() -> tuple[dict[str, Any], ...]:
    """What to start from: problems that training never saw. `was` is what stood in the gaps, in their order."""
    record = next(e for e in _held_out("json") if e.answer.startswith("{") and {"day", "place"} <= set(e.facts["record"]))
    story = next(e for e in _held_out("story") if e.facts["plot"] == "lost")
    total = next(e for e in _held_out("arithmetic") if e.facts["key"].startswith("add"))
    values = _masked(record.answer, r'(?<=: ")[^"]+(?=")|(?<=: )\d+', lambda old: "{1,2}" if old.isdigit() else "{1,3}")
    holes = _masked(story.answer, r"(?<=looked )under the \w+ and behind the \w+|We will look together", lambda old: f"{{{len(old.split())}}}")
    digits = _masked(total.answer, r"(?<== )\d+|(?<=write )\d|(?<=carry )\d|(?<=Answer: )\d+", lambda old: f"{{1,{len(old)}}}" if len(old) > 1 else "")
    day, place = record.facts["record"]["day"], record.facts["record"]["place"]
    wrong = record.answer.replace(day, "Sunday" if day != "Sunday" else "Monday").replace(place, "garden" if place != "garden" else "market")
    return (
        {"name": "JSON from a sentence", "tool": "fill", "prompt": record.prompt, **values},
        {"name": "A story with holes", "tool": "fill", "prompt": story.prompt, **holes},
        {"name": "A sum, its digits missing", "tool": "fill", "prompt": total.prompt, **digits},
        {"name": "JSON with two mistakes", "tool": "revise", "prompt": record.prompt, "text": wrong, "was": []},
    )


def _held_out(family: str) -> list[Any]:
    return examples_for("test", 8, SEED, [family])


def _masked(text: str, pattern: str, length: Callable[[str], str]) -> dict[str, Any]:
    """`text` with every match of `pattern` as a gap."""
    return {"text": re.sub(pattern, lambda m: GAP + length(m[0]), text), "was": re.findall(pattern, text)}
