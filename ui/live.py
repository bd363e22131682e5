"""From a running engine to messages at display rate.

The decoder runs in a thread of its own and never waits for the page: what is shown costs it nothing.
This side collects whatever steps have come since the last message and sends them together, at most
25 times a second, which is what a browser can draw and what the queue carries without falling behind.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

from nemodiff_core.errors import NemodiffError

from ui.jobs import Lane, Recorded, Together
from ui.messages import Writer
from ui.ops.account import Account
from ui.runs import RunRecord

RATE_HZ = 25.0
_Item = tuple[str, int, Any]  # what, lane, content


def stream(
    engine: Any, lanes: Sequence[Lane] | Together, record: RunRecord, rate_hz: float = RATE_HZ, account: Account | None = None
) -> Iterator[str]:
    """Run the lanes, one after another or as one batch, and yield the messages of the live protocol.

    Leaving the generator early (a closed tab, a cancelled event) or setting `record.stop` ends the run
    between two steps. A run that fails ends with a `fault` message. `account` keeps the books.
    """
    items: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
    decode = _decode_together if isinstance(lanes, Together) else _decode
    # With the visitor's request in its context: a GPU that is lent counts against the visitor's quota (serving/zero.py).
    work = partial(copy_context().run, decode, engine, lanes, record.stop, items)
    worker = threading.Thread(target=work, name="nemodiff-run", daemon=True)
    writer = Writer(record)
    worker.start()
    try:
        yield from _messages(items, writer, 1.0 / rate_hz, account)
    finally:
        if account is not None:
            account.lost("cancelled")
        record.stop.set()
        record.ended = True
        worker.join(timeout=60)


def _decode(
    engine: Any, lanes: Sequence[Lane], stop: threading.Event, items: queue.SimpleQueue[_Item | None]
) -> None:
    lane, finished = 0, []
    try:
        for lane, start in enumerate(lanes):
            run = start(engine, stop)
            try:
                piece = getattr(run, "piece", None) or engine.checkpoint.tokenizer.piece
                items.put(("open", lane, (run.trace(), piece, isinstance(run, Recorded))))
                for step in run:
                    items.put(("step", lane, step))
                finished.append(run.trace())
            finally:
                run.close()
            items.put(("end", lane, list(finished)))
            if stop.is_set():
                if lane + 1 < len(lanes) and finished[-1].stop_reason != "cancelled":
                    items.put(("fault", lane + 1, "The race was stopped before every lane had its turn."))
                break
    except Exception as error:  # the page must hear of it whatever it was, and the process lives on
        items.put(("fault", lane, _sentence(error)))
    finally:
        items.put(None)


def _decode_together(
    engine: Any, lanes: Together, stop: threading.Event, items: queue.SimpleQueue[_Item | None]
) -> None:
    try:
        batch = lanes.start(engine, stop)
        try:
            for lane, row in enumerate(batch.rows):
                items.put(("open", lane, (row.trace(), engine.checkpoint.tokenizer.piece, False)))
            for lane, step in batch:
                items.put(("step", lane, step))
        finally:
            batch.close()
        finished = [row.trace() for row in batch.rows]
        for lane in range(len(finished)):
            items.put(("end", lane, finished[: lane + 1]))
    except Exception as error:  # as above
        items.put(("fault", 0, _sentence(error)))
    finally:
        items.put(None)


def _sentence(error: Exception) -> str:
    if isinstance(error, NemodiffError):
        return str(error)
    return f"The run failed ({type(error).__name__}: {error}); change a setting or run it again."


def _messages(
    items: queue.SimpleQueue[_Item | None], writer: Writer, gap: float, account: Account | None
) -> Iterator[str]:
    pending: dict[int, list[dict[str, Any]]] = {}  # by lane
    sent = float("-inf")
    while True:
        try:
            # With steps in hand, wait only until they are due; with none, wait for the decoder.
            item = items.get(timeout=max(0.0, sent + gap - time.monotonic()) if pending else None)
        except queue.Empty:
            for lane, steps in pending.items():
                yield writer.steps(lane, steps)
            pending, sent = {}, time.monotonic()
            continue
        if item is not None and item[0] == "step":
            pending.setdefault(item[1], []).append(item[2].to_dict())
            continue
        for lane, steps in pending.items():
            yield writer.steps(lane, steps)
        pending = {}
        if item is None:
            return
        what, lane, content = item
        if account is not None:
            _note(account, what, lane, content)
        if what == "fault":
            yield writer.fault(lane, content)
        elif what == "open":
            trace, piece, opened = content
            yield writer.open(lane, trace.to_dict(), piece, opened)
        else:
            yield writer.end(lane, content, content[-1].to_dict())
        sent = time.monotonic()


def _note(account: Account, what: str, lane: int, content: Any) -> None:
    if what == "fault":
        account.lost("error")
    elif what == "end":
        account.end(lane, content[-1])
    elif not content[2]:
        account.begin(lane, content[0])
