"""What the player asks of the model: to go on from a step with something changed, and to explain a run."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from nemodiff_core.errors import NemodiffError, RequestError
from nemodiff_core.trace import Trace

from ui.jobs import Job, elsewhere, recorded
from ui.messages import Writer, traces_of
from ui.models import Models
from ui.parts import as_object, notice
from ui.runs import RunRecord, RunStore

_CHANGES = {"mode": str, "threshold": float, "block_length": int}


def trace_of(record: RunRecord, lane: Any) -> Trace:
    """A finished lane of a run as a trace. Raises NemodiffError."""
    finished = traces_of(record)
    if type(lane) is not int or not 0 <= lane < len(finished):
        raise NemodiffError("This lane has not ended yet; let the run finish, or stop it first.")
    return finished[lane]


def fork_job(store: RunStore, models: Models) -> Callable[..., Job]:
    """The maker of a job that continues what the event names: the parent in the first lane, its child in the second.

    What cannot be done is refused here, before the page has left the parent.
    """

    def make(event: gr.EventData) -> Job:
        asked = as_object(event._data)
        parent = trace_of(store.get(asked.get("run")), asked.get("lane"))
        name = models.named(parent.model)
        engine = models.present(name)
        what = intervention(asked, engine.checkpoint.tokenizer)
        engine.fork(parent, what)
        child = elsewhere(lambda engine, stop: engine.fork(parent, what, stop), lambda stop: models.lease(name, stop))
        return Job((recorded(parent), child))

    return make


def intervention(asked: dict[str, Any], tokenizer: Any) -> Any:
    """What a browser asked for, checked. Raises RequestError."""
    from nemodiff_core.fork import Intervention  # torch comes with it: not before the model is there

    action = asked.get("action")
    if action not in ("none", "pin", "remask", "ban", "force"):
        raise RequestError("choose what to do with the cell: leave, pin, remask, ban or force.")
    step, position, token = (_whole(asked.get(name), name) for name in ("step", "position", "token"))
    if token is None and isinstance(text := asked.get("text"), str) and text:
        token = one_token(text, tokenizer)
    changes = {}
    for name, kind in _CHANGES.items():
        if (value := asked.get(name)) is not None:
            if not isinstance(value, (kind, int)) or isinstance(value, bool):
                raise RequestError(f"{name} is no {kind.__name__}; choose it again.")
            changes[name] = kind(value)
    if step is None:
        raise RequestError("choose the step to go on from.")
    return Intervention(step, action, None if action == "none" else position, token, changes)


def one_token(text: str, tokenizer: Any) -> int:
    """The id of a text that is a single token, as it stands or behind a space. Raises RequestError."""
    tried = [tokenizer.encode_plain(form) for form in (text[:200], " " + text[:200].strip())]
    for ids in tried:
        if len(ids) == 1:
            return ids[0]
    pieces = ", ".join(f"“{tokenizer.piece(i)}”" for i in tried[0][:6])
    raise RequestError(f"“{text[:40]}” is {len(tried[0])} tokens ({pieces}), and a cell holds one; write one of them.")


def explain(store: RunStore, models: Models, asked: Any) -> Iterator[tuple[Any, Any]]:
    """Look for wrong commits and regret in a run: (message for the player, notice). The run keeps what was found."""
    asked = as_object(asked)
    record = store.get(asked.get("run"))
    lane = asked.get("lane")
    trace = trace_of(record, lane)
    annotations, message = trace.annotations, _notes(record, lane)
    if message is None:  # a recorded run is everybody's, and may have been looked at for somebody else
        yield gr.skip(), notice("Putting the run’s commits through the model again, one at a time…", calm=True)
        with models.lease(models.named(trace.model), threading.Event()) as engine:
            found = engine.regret(trace)
        annotations = found.annotations
        message = Writer(record).notes(lane, annotations, lambda i: found.vocabulary[str(i)])
    wrong = sum(note["kind"] == "wrong_commit" for note in annotations)
    cells = f"{wrong} {'cell' if wrong == 1 else 'cells'}"
    said = f"{cells} would have become another token, had the commits of a step come one at a time." if wrong else (
        "No wrong commit: every cell would have become the same token, had the commits of a step come one at a time."
    )
    yield message, notice(said, calm=True)


def _notes(record: RunRecord, lane: int) -> str | None:
    """The message by which a run was told what was found in a lane; None where nobody has looked."""
    for message in reversed(record.log):
        told = json.loads(message)
        if told["type"] != "notes":
            return None
        if told["lane"] == lane:
            return message
    return None


def _whole(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not -1 <= value < 2**31:
        raise RequestError(f"{name} is no whole number; choose it again.")
    return value
