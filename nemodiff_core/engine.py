"""The engine: one checkpoint, many isolated runs, each a stream of Steps that can be stopped between any two."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import platform
import secrets
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nemodiff_core import __version__
from nemodiff_core.admission import admit, admit_batch
from nemodiff_core.checkpoint import Checkpoint
from nemodiff_core.decode import GIVEN, MODES
from nemodiff_core.decode.batch import fast_for, together
from nemodiff_core.decode.calls import Decoding
from nemodiff_core.decode.canvas import Clock
from nemodiff_core.errors import NemodiffError
from nemodiff_core.request import DecodeRequest, Limits
from nemodiff_core.trace import Step, TokenText, Trace, fold

if TYPE_CHECKING:
    from nemodiff_core.analysis.devices import Device
    from nemodiff_core.fork import Intervention

# How often a run that waits for the device looks at its stop flag, in seconds.
_POLL = 0.05
_log = logging.getLogger(__name__)


class _Turns:
    """A lock that goes round in the order of asking, and whose waiters may give up."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets: deque[object] = deque()  # the first one has the turn

    def acquire(self, give_up: Callable[[], bool]) -> bool:
        """Wait for the turn; False when `give_up` said so first."""
        ticket = object()
        with self._changed:
            self._tickets.append(ticket)
            try:
                while self._tickets[0] is not ticket:
                    if give_up():
                        self._tickets.remove(ticket)
                        return False
                    self._changed.wait(_POLL)
            except BaseException:  # an interrupt while waiting must not leave a ticket that nobody holds
                self._tickets.remove(ticket)
                self._changed.notify_all()
                raise
        return True

    def release(self) -> None:
        """Hand the turn to whoever asked next; any thread may do it."""
        with self._changed:
            self._tickets.popleft()
            self._changed.notify_all()

    def locked(self) -> bool:
        """Whether somebody has the turn."""
        return bool(self._tickets)


class Engine:
    """Runs requests on one model. Any thread may call `run`; runs take the device one after another, in turn.

    A run has the device from its first step until it ends or is closed, also while its reader pauses.
    Nothing is shared between runs but the weights: each has its own cache, random generator and record.
    """

    capacity = 1  # runs that go on at once

    def __init__(self, checkpoint: Checkpoint, limits: Limits | None = None) -> None:
        self.checkpoint = checkpoint
        self.limits = limits or Limits()
        self.end_think_id = checkpoint.tokenizer.end_think_id
        self.fast = fast_for(checkpoint.model)
        self._device = _Turns()

    def run(self, request: DecodeRequest, stop: threading.Event | None = None) -> Run:
        """Check the request and prepare its run; nothing is computed until it is iterated.

        Raises RequestError where the request does not fit the host's limits or the model's context.
        """
        return Run(self, request, *admit(self, request), stop or threading.Event())

    def run_batch(self, requests: Sequence[DecodeRequest], stop: threading.Event | None = None) -> BatchRun:
        """Check the requests and prepare a run in which they share their forwards, whatever their modes.

        Every row writes what it would write alone. Raises RequestError as `run` does, and for none or too many.
        """
        admit_batch(self, requests)
        rows = [Recording(self, request, *admit(self, request), batch=len(requests)) for request in requests]
        return BatchRun(rows, stop or threading.Event())

    def fork(self, parent: Trace, what: Intervention, stop: threading.Event | None = None) -> Run:
        """A run that goes on from a step of `parent` (fork.py); nothing is computed until it is iterated. Raises RequestError."""
        from nemodiff_core.fork import fork

        return fork(self, parent, what, stop)

    def regret(self, trace: Trace, stop: threading.Event | None = None) -> Trace:
        """The trace with its wrong commits and its regret (analysis/regret.py). Raises NemodiffError, also for `stop`."""
        from nemodiff_core.analysis.regret import regret

        stop = stop or threading.Event()
        with self.turn(stop.is_set):
            return regret(self.checkpoint, trace, lambda done, all: _go_on(stop))

    def oracle(self, trace: Trace, budget: int, stop: threading.Event | None = None) -> Trace:
        """The speed of light for a run (analysis/oracle.py); other runs pass between its blocks. Raises NemodiffError."""
        from nemodiff_core.analysis.oracle import speed_of_light

        stop = stop or threading.Event()
        with self.turn(stop.is_set) as pass_on:

            def listen(done: int, blocks: int) -> None:
                _go_on(stop)
                pass_on()

            return speed_of_light(self.checkpoint, trace, budget, listen)

    def probe(self, working_set: int, patience_s: float) -> Device:
        """The device, measured for `working_set` bytes a forward while no run has it. Raises NemodiffError where none pauses."""
        from nemodiff_core.analysis.probe import measure_device

        about, end = self.describe(), time.monotonic() + patience_s
        with self.turn(lambda: time.monotonic() > end):
            return measure_device(about["dtype"], about["device"], working_set)

    @contextlib.contextmanager
    def turn(self, give_up: Callable[[], bool]) -> Iterator[Callable[[], None]]:
        """The device's turn for work on the model that is no run; raises NemodiffError when `give_up` says so first.

        Yields a function that lets whoever waits go first, to be called now and then by long work.
        """
        held = False

        def take() -> None:
            nonlocal held
            held = self._device.acquire(give_up)
            if not held:
                raise NemodiffError("It was stopped while another run had the device; start it again.")

        def pass_on() -> None:
            nonlocal held
            self._device.release()
            held = False
            take()

        take()
        try:
            yield pass_on
        finally:
            if held:
                self._device.release()

    def describe(self) -> dict[str, Any]:
        """What a trace says about the model, and its longest context."""
        return {**self.checkpoint.describe(), "max_context": self.checkpoint.config.max_position_embeddings}

    def text(self, ids: Sequence[int]) -> str:
        """Readable text of ids, special tokens left out."""
        return self.checkpoint.tokenizer.decode(ids)

    def environment(self) -> dict[str, Any]:
        """Versions and hardware where runs are computed."""
        return environment()

    def identity(self) -> dict[str, Any]:
        """What must be the same for runs to be compared by their requests alone."""
        # A folder has no revision and may be trained further under its name, so some of its weights stand for all.
        head = self.checkpoint.model.diffusion_head.weight
        digest = None
        if not head.is_meta:
            sample = head[:: max(1, head.shape[0] // 64)].float().cpu().numpy()
            digest = hashlib.blake2b(sample.tobytes(), digest_size=8).hexdigest()
        return {**self.describe(), "weights": digest}


class Recording:
    """One request and what its decoder has done so far; `trace()` is valid at any time."""

    parent: dict[str, Any] | None = None  # of a run that goes on from another

    def __init__(self, engine: Any, request: DecodeRequest, prompt: list[int], given: Sequence[Any], batch: int = 1) -> None:
        """`batch` is how many requests share the forwards."""
        self.engine = engine
        self.request = request
        self.prompt_ids = prompt
        self.batch = batch
        self.id = secrets.token_hex(8)
        self.created = datetime.now(UTC).isoformat(timespec="seconds")
        self.steps: list[Step] = []
        self.stop_reason = "cancelled"  # until a run comes to its own end, leaving it is what ended it
        self._given = given

    def decoder(self, clock: Clock) -> Decoding[None]:
        """A fresh decoder for the request; `clock` counts from the start of the run."""
        checkpoint = self.engine.checkpoint
        device = checkpoint.model.device
        generator = torch.Generator(device=device).manual_seed(self.request.seed)
        return MODES[self.request.mode](
            checkpoint.model,
            self.prompt_ids,
            self.request,
            eos_id=checkpoint.tokenizer.eos_id,
            mask_id=checkpoint.tokenizer.mask_id,
            generator=generator,
            clock=clock,
            end_think_id=self.engine.end_think_id,
            **({"given": self._given} if self.request.mode in GIVEN else {}),
        )

    def end(self) -> None:
        """The decoder came to its own end."""
        output = fold(len(self.prompt_ids), self.steps).output()
        ended = self.request.stop_at_eos and output and output[-1] == self.engine.checkpoint.tokenizer.eos_id
        self.stop_reason = "eos" if ended else "length"

    def trace(self) -> Trace:
        """The run as recorded so far; any thread may ask, also while another one decodes."""
        piece = self.engine.checkpoint.tokenizer.piece
        reason, steps = self.stop_reason, list(self.steps)
        model, where = self.origin()
        output = fold(len(self.prompt_ids), steps).output()
        mentioned = {*self.prompt_ids, *output}
        for step in steps:
            mentioned.update(event.token for event in step.events)
            mentioned.update(score.token for score in step.scores)
            for cell in step.candidates:
                mentioned.update(cell.ids)
        return Trace(
            id=self.id,
            created=self.created,
            model=model,
            request=self.request.model_dump(),
            prompt=TokenText(list(self.prompt_ids), [piece(i) for i in self.prompt_ids]),
            output=TokenText(output, [piece(i) for i in output]),
            vocabulary={str(i): piece(i) for i in sorted(mentioned)},
            steps=steps,
            stop_reason=reason,
            parent=self.parent,
            environment=where | ({"batch": self.batch} if self.batch > 1 else {}),
        )

    def origin(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The model and the environment that a trace names."""
        return self.engine.checkpoint.describe(), self.engine.environment()


class Run(Recording):
    """One decoding run. Iterate it once for its Steps; `trace()` is valid at any time, also in mid-run."""

    def __init__(
        self, engine: Engine, request: DecodeRequest, prompt: list[int], given: Sequence[Any], stop: threading.Event
    ) -> None:
        super().__init__(engine, request, prompt, given)
        self._alone = BatchRun([self], stop)

    def __iter__(self) -> Iterator[Step]:
        return (step for _, step in self._alone)

    def close(self) -> None:
        """End the run now: its cache and the device are free when this returns.

        Where another thread is inside a step, they are free when that step ends.
        """
        self._alone.close()


class BatchRun:
    """Requests that are decoded together. Iterate it once for (row, Step); `rows` hold the records and their traces.

    They share the device's turn and one clock, so a Step's time is that of the batch and not of its row. A row
    that ends, or whose deadline passes, leaves the others to go on.
    """

    def __init__(self, rows: Sequence[Recording], stop: threading.Event) -> None:
        self.engine = rows[0].engine
        self.rows = rows
        self.stop = stop
        self._closed = False
        self._steps = self._run()

    def __iter__(self) -> Iterator[tuple[int, Step]]:
        return self._steps

    def close(self) -> None:
        """End the run now; see `Run.close`."""
        self._closed = True
        try:
            self._steps.close()
        except ValueError:  # "generator already executing": that thread meets the flag before the next step
            pass

    def _run(self) -> Iterator[tuple[int, Step]]:
        longest, began = self.engine.limits.max_seconds, time.monotonic()
        deadlines = [began + min(longest, row.request.deadline_s or longest) for row in self.rows]
        live = set(range(len(self.rows)))

        def over() -> bool:
            if self.stop.is_set() or self._closed:
                return True
            for row in [row for row in live if time.monotonic() > deadlines[row]]:
                self.rows[row].stop_reason = "deadline"
                live.discard(row)
            return not live

        turns = self.engine._device
        if not turns.acquire(give_up=over):
            return
        steps = None
        try:
            began_ns = time.perf_counter_ns()
            # Whole microseconds: finer than any forward, and a tenth of a saved trace less.
            decoders = [row.decoder(lambda: (time.perf_counter_ns() - began_ns) // 1000 * 1000) for row in self.rows]
            steps = together(self.engine.checkpoint.model, decoders, live, self.engine.fast)
            while not over():
                row, step = next(steps)
                if step is None:
                    self.rows[row].end()
                else:
                    self.rows[row].steps.append(step)
                    yield row, step
        except Exception as error:
            for row in live:
                self.rows[row].stop_reason = "error"
            if isinstance(error, NemodiffError):
                raise
            raise _explained(error) from error
        finally:
            if steps is not None:
                steps.close()  # drops the cache
            turns.release()


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise NemodiffError("It was stopped; start it again.")


def _explained(error: Exception) -> NemodiffError:
    """What went wrong inside a run, as one sentence; what is no known condition is logged whole."""
    if isinstance(error, torch.OutOfMemoryError):
        sentence = "the device ran out of memory; lower max_new_tokens or the block length."
    else:
        _log.error("a run failed", exc_info=error)
        first = (str(error).splitlines() or [""])[0][:200]
        sentence = f"the run failed ({type(error).__name__}: {first}); change a setting or run it again."
    traceback.clear_frames(error.__traceback__)  # whoever keeps the error must not keep the cache with it
    return NemodiffError(sentence)


@lru_cache(maxsize=1)
def _machine() -> dict[str, Any]:
    processor = platform.processor() or platform.machine()
    try:  # Linux says more than platform does
        for line in Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    hardware: dict[str, Any] = {"processor": processor, "system": platform.system()}
    if torch.cuda.is_available():
        hardware["gpu"] = torch.cuda.get_device_name()
    return hardware


def environment() -> dict[str, Any]:
    """Versions and hardware, as a trace records them."""
    return {
        "versions": {"nemodiff": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "hardware": {**_machine(), "threads": torch.get_num_threads()},
    }
