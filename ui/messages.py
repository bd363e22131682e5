"""The live protocol between Python and the browser: numbered messages, each one compact JSON string.

Every message has the same keys (`run seq type lane lanes blind head steps vocabulary tail text`). For each lane
there is one `open`, any number of `steps`, and one `end` or `fault`; `notes` may follow. Joined again they are the trace. Lanes may
come from models with other tokenizers, so `vocabulary` is the lane's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from nemodiff_core.metrics import summary
from nemodiff_core.trace import Trace, annotated
from nemodiff_core.trace_reader import from_data

from ui.lossless import identity, verdicts
from ui.runs import RunRecord

_NOT_IN_HEAD = ("steps", "output", "stop_reason", "vocabulary", "environment")


class Writer:
    """Numbers the messages of one run, remembers them in its record, and sends each token's text once a lane."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._pieces: dict[int, Callable[[int], str]] = {}
        self._known: dict[int, set[int]] = {}
        self._opened: dict[int, bool] = {}

    def open(self, lane: int, document: Mapping[str, Any], piece: Callable[[int], str], opened: bool = False) -> str:
        """Begin a lane: everything of the trace that is known before the first step, and how its tokens are written.

        `opened`: the lane was recorded at another time, and its clock says nothing about this race.
        """
        self._pieces[lane], self._known[lane], self._opened[lane] = piece, set(), opened
        head = {key: value for key, value in document.items() if key not in _NOT_IN_HEAD}
        return self._write("open", lane, head=head, mentioned={*document["prompt"]["ids"], *annotated(document["annotations"])})

    def steps(self, lane: int, steps: Sequence[Mapping[str, Any]]) -> str:
        """Steps as in the trace's JSON."""
        return self._write("steps", lane, steps=steps, mentioned=(i for step in steps for i in _ids(step)))

    def end(self, lane: int, finished: Sequence[Trace], document: Mapping[str, Any]) -> str:
        """Finish a lane with its output, its figures and the verdicts it decides; `finished` ends with its trace."""
        tail = {key: document[key] for key in ("output", "stop_reason", "environment")}
        tail |= {"metrics": summary(finished[-1]), "identical": identity(finished, lane), "verdicts": verdicts(finished)}
        tail["opened"] = self._opened[lane]
        return self._write("end", lane, tail=tail, mentioned=document["output"]["ids"])

    def notes(self, lane: int, annotations: Sequence[Mapping[str, Any]], piece: Callable[[int], str]) -> str:
        """Say what an analysis found out about a lane that has ended; it takes the place of what was known."""
        self._pieces[lane] = piece
        return self._write("notes", lane, tail={"annotations": list(annotations)}, mentioned=annotated(annotations))

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
        record, known = self._record, self._known.setdefault(lane, set())
        new = set(mentioned) - known
        known |= new
        message = compact(
            {
                "run": record.id,
                "seq": len(record.log),
                "type": kind,
                "lane": lane,
                "lanes": record.lanes,
                "blind": record.blind.told() if record.blind else None,
                "head": head,
                "steps": list(steps),
                "vocabulary": {str(i): self._pieces[lane](i) for i in sorted(new)},
                "tail": tail,
                "text": text,
            }
        )
        record.add(message)
        return message


def write_traces(record: RunRecord, traces: Sequence[Trace]) -> None:
    """Fill a record with finished traces, one a lane: a recorded or an opened run."""
    writer = Writer(record)
    for lane, trace in enumerate(traces):
        document = trace.to_dict()
        writer.open(lane, document, lambda i, pieces=trace.vocabulary: pieces[str(i)])
        writer.steps(lane, document["steps"])
        writer.end(lane, traces[: lane + 1], document)
    record.ended = True


def documents(record: RunRecord) -> list[dict[str, Any]]:
    """The traces of a record, joined from its messages: one JSON document for each finished lane."""
    vocabularies: dict[int, dict[str, str]] = {}
    lanes: dict[int, dict[str, Any]] = {}
    for message in map(json.loads, record.log):
        vocabularies.setdefault(message["lane"], {}).update(message["vocabulary"])
        if message["type"] == "open":
            lanes[message["lane"]] = {**message["head"], "steps": []}
        elif message["type"] == "steps":
            lanes[message["lane"]]["steps"] += message["steps"]
        elif message["type"] == "end":
            tail = message["tail"]
            lanes[message["lane"]] |= {key: tail[key] for key in ("output", "stop_reason", "environment")}
        elif message["type"] == "notes":
            lanes[message["lane"]]["annotations"] = message["tail"]["annotations"]
    finished = [lane for lane in sorted(lanes) if "output" in lanes[lane]]
    for lane in finished:
        lanes[lane]["vocabulary"] = dict(sorted(vocabularies[lane].items(), key=lambda entry: int(entry[0])))
    return [lanes[lane] for lane in finished]


def traces_of(record: RunRecord) -> list[Trace]:
    """The traces of a record's finished lanes."""
    return [from_data(document) for document in documents(record)]


def resync(record: RunRecord) -> dict[str, Any]:
    """All that the browser needs to draw a run from nothing: its messages, neighbouring steps joined.

    The joined message carries the number of the last one in it, so that live messages continue the count.
    """
    joined: list[dict[str, Any]] = []
    blind = record.blind.told() if record.blind else None  # as it stands now, not as it stood when they were sent
    for message in map(json.loads, list(record.log)):
        message["blind"] = blind
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
    for score in step.get("scores") or ():
        yield score["token"]

