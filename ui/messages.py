"""The live protocol between Python and the browser: numbered messages, each one compact JSON string.

Every message has the same keys (`run seq type lane lanes head steps vocabulary tail text`). For each lane
there is one `open`, any number of `steps`, and one `end` or `fault`. Joined again they are the trace.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from nemodiff_core.metrics import first_divergence, summary
from nemodiff_core.trace import Trace

from ui.runs import RunRecord

_NOT_IN_HEAD = ("steps", "output", "stop_reason", "vocabulary", "environment")


class Writer:
    """Numbers the messages of one run, remembers them in its record, and sends each token's text once."""

    def __init__(self, record: RunRecord, piece: Callable[[int], str]) -> None:
        self._record = record
        self._piece = piece
        self._known: set[int] = set()

    def open(self, lane: int, document: Mapping[str, Any]) -> str:
        """Begin a lane: everything of the trace that is known before the first step."""
        head = {key: value for key, value in document.items() if key not in _NOT_IN_HEAD}
        return self._write("open", lane, head=head, mentioned=document["prompt"]["ids"])

    def steps(self, lane: int, steps: Sequence[Mapping[str, Any]]) -> str:
        """Steps as in the trace's JSON."""
        return self._write("steps", lane, steps=steps, mentioned=(i for step in steps for i in _ids(step)))

    def end(self, lane: int, trace: Trace, document: Mapping[str, Any], identical: dict[str, Any] | None = None) -> str:
        """Finish a lane with its output and its figures."""
        tail = {key: document[key] for key in ("output", "stop_reason", "environment")}
        tail |= {"metrics": summary(trace), "identical": identical}
        return self._write("end", lane, tail=tail, mentioned=document["output"]["ids"])

    def fault(self, lane: int, sentence: str) -> str:
        """Finish a lane with what went wrong."""
        return self._write("fault", lane, text=sentence)

    def _write(
        self,
        kind: str,
        lane: int,
        *,
        head: Mapping[str, Any] | None = None,
        steps: Sequence[Mapping[str, Any]] = (),
        tail: Mapping[str, Any] | None = None,
        text: str = "",
        mentioned: Iterable[int] = (),
    ) -> str:
        new = set(mentioned) - self._known
        self._known |= new
        record = self._record
        message = compact(
            {
                "run": record.id,
                "seq": len(record.log),
                "type": kind,
                "lane": lane,
                "lanes": record.lanes,
                "head": head,
                "steps": list(steps),
                "vocabulary": {str(i): self._piece(i) for i in sorted(new)},
                "tail": tail,
                "text": text,
            }
        )
        record.add(message)
        return message


def write_traces(record: RunRecord, traces: Sequence[Trace]) -> None:
    """Fill a record with finished traces, one a lane: a recorded or an opened run."""
    for lane, trace in enumerate(traces):
        document = trace.to_dict()
        writer = Writer(record, lambda i, pieces=trace.vocabulary: pieces[str(i)])
        writer.open(lane, document)
        writer.steps(lane, document["steps"])
        writer.end(lane, trace, document, identity(traces, lane))
    record.ended = True


def identity(traces: Sequence[Trace], lane: int) -> dict[str, Any] | None:
    """Whether a race's self-speculation wrote AR's tokens; None where the claim is not made.

    Losslessness is a claim about greedy runs that both came to their own end.
    """
    ours, reference = traces[lane], traces[0]
    claims = lane > 0 and ours.request["mode"] == "linear_spec" and reference.request["mode"] == "ar"
    finished = all(t.stop_reason in ("eos", "length") for t in (ours, reference))
    greedy = all(t.request.get("temperature") == 0 for t in (ours, reference))
    if not (claims and finished and greedy):
        return None
    differs = first_divergence(reference.output.ids, ours.output.ids)
    return {"to_lane": 0, "same": differs is None, "first_divergence": differs}


def documents(record: RunRecord) -> list[dict[str, Any]]:
    """The traces of a record, joined from its messages: one JSON document for each finished lane."""
    vocabulary: dict[str, str] = {}
    lanes: dict[int, dict[str, Any]] = {}
    for message in map(json.loads, record.log):
        vocabulary |= message["vocabulary"]
        if message["type"] == "open":
            lanes[message["lane"]] = {**message["head"], "steps": []}
        elif message["type"] == "steps":
            lanes[message["lane"]]["steps"] += message["steps"]
        elif message["type"] == "end":
            tail = message["tail"]
            lanes[message["lane"]] |= {key: tail[key] for key in ("output", "stop_reason", "environment")}
    finished = [lanes[lane] for lane in sorted(lanes) if "output" in lanes[lane]]
    for document in finished:
        named = {*document["prompt"]["ids"], *document["output"]["ids"]}
        named.update(i for step in document["steps"] for i in _ids(step))
        document["vocabulary"] = {str(i): vocabulary[str(i)] for i in sorted(named)}
    return finished


def resync(record: RunRecord) -> dict[str, Any]:
    """All that the browser needs to draw a run from nothing: its messages, neighbouring steps joined.

    The joined message carries the number of the last one in it, so that live messages continue the count.
    """
    joined: list[dict[str, Any]] = []
    for message in map(json.loads, list(record.log)):
        last = joined[-1] if joined else None
        if last and last["type"] == message["type"] == "steps" and last["lane"] == message["lane"]:
            last["steps"] += message["steps"]
            last["vocabulary"] |= message["vocabulary"]
            last["seq"] = message["seq"]
        else:
            joined.append(message)
    return {"messages": joined}


def compact(value: Any) -> str:
    """JSON without spaces; NaN and infinities are refused, because browsers refuse them too."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _ids(step: Mapping[str, Any]) -> Iterator[int]:
    for event in step["events"]:
        yield event["token"]
    for cell in step.get("candidates") or ():
        yield from cell["ids"]

