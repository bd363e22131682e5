"""What-ifs: a run goes on from a step of a recorded one, with something changed (a child trace, DESIGN §4).

The child begins with its parent's steps up to that point, so it replays as one run. Then the text that stands is
put through the model again (a prefill), and the decoder goes on from there: in block diffusion with the open
block as it stood, in `refine` and `infill` with what is left of the given text, in the other modes behind the
text's last settled token.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from nemodiff_core import remains
from nemodiff_core.admission import Host
from nemodiff_core.decode import MODES
from nemodiff_core.decode.calls import Call, Decoding, NewCache, prefill, read
from nemodiff_core.decode.canvas import Clock, Recorder, event
from nemodiff_core.decode.diffusion import Standing
from nemodiff_core.decode.sampling import Sampler
from nemodiff_core.engine import Engine, Run
from nemodiff_core.errors import RequestError
from nemodiff_core.request import DecodeRequest, changed_request
from nemodiff_core.trace import EMITTED, REMOTE, Step, TokenEvent, Trace

Action = Literal["none", "pin", "remask", "ban", "force"]
_ONWARDS = ("ar", "linear_spec", "quadratic_spec")  # modes that know nothing behind the text
_FILLING = ("denoise", "revise", "commit")


@dataclass(frozen=True)
class Intervention:
    """What changes after step `step` of the parent (-1: before its first).

    `position` is absolute. `pin` keeps the token that stands there, `force` writes `token` there, either for good;
    `remask` opens the cell; `ban` opens it for anything but `token`. `changes` are knobs of the request.
    """

    step: int
    action: Action = "none"
    position: int | None = None
    token: int | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


def fork(engine: Engine, parent: Trace, what: Intervention, stop: threading.Event | None = None) -> Run:
    """Prepare the child's run; nothing is computed until it is iterated. Raises RequestError."""
    return _Child(engine, plan(engine, parent, what), stop or threading.Event())


def plan(host: Host, parent: Trace, what: Intervention) -> Plan:
    """Where the child begins and with what. Raises RequestError."""
    _check_parent(host, parent, what)
    request = changed_request(parent.request, what.changes)
    request.check(host.limits)
    return Plan(host, parent, what, request)


def _check_parent(engine: Host, parent: Trace, what: Intervention) -> None:
    checkpoint = engine.checkpoint
    if parent.request["mode"] == REMOTE:
        raise RequestError("the run is a server's answer, which cannot be gone on with here; run its prompt on this host instead.")
    if parent.model["id"] != checkpoint.id:
        raise RequestError(f"the run was made by {parent.model['id']}, but {checkpoint.id} is loaded; run its prompt again here.")
    if not -1 <= what.step < len(parent.steps):
        raise RequestError(f"there is no step {what.step + 1} in a run of {len(parent.steps)}; choose one of its steps.")
    used = {*parent.prompt.ids, *(e.token for step in parent.steps for e in step.events)} | ({what.token} - {None})
    if any(not 0 <= token < checkpoint.config.vocab_size for token in used):
        raise RequestError("the run holds tokens that this checkpoint does not have; run its prompt again here.")
    if checkpoint.tokenizer.mask_id == what.token:
        raise RequestError("the mask cannot be written or banned; remask the cell instead.")
    if len(parent.prompt.ids) > engine.limits.max_prompt_tokens:
        raise RequestError(f"the prompt has {len(parent.prompt.ids)} tokens, but this host allows at most {engine.limits.max_prompt_tokens}.")
    if (what.action == "none") != (what.position is None):
        raise RequestError("choose a cell for what is to be done to it, or neither.")
    if what.action in ("force", "ban") and what.token is None:
        raise RequestError(f"choose the token to {what.action}.")


class Plan:
    """Where the child begins and with what."""

    def __init__(self, engine: Host, parent: Trace, what: Intervention, request: DecodeRequest) -> None:
        self.prompt = list(parent.prompt.ids)
        self.origin = len(self.prompt)
        self.copied = parent.steps[: what.step + 1]
        self.canvas = parent.canvas_at(what.step)
        self.request, self.what = request, what
        if what.position is not None and what.position < self.origin:
            raise RequestError("only the answer can be changed; choose one of its cells.")
        if what.action in ("pin", "remask") and (standing := self._standing(what.position)) is None:
            raise RequestError(f"there is no token to {what.action} in this cell yet; choose another cell or a later step.")
        elif what.action == "pin":
            self.what = what = replace(what, token=standing)
        self.block, self.more = 0, {}
        self.begin, self.reach = self._reach(engine, parent)
        self.written = self._text(self.begin)
        end = self.origin + request.max_new_tokens
        if what.position is not None and what.position >= end:
            raise RequestError(f"the cell lies behind the longest answer of {request.max_new_tokens} tokens; raise max_new_tokens.")
        eos = engine.checkpoint.tokenizer.eos_id
        if self.begin >= end or (request.stop_at_eos and self.written[-1:] == [eos]):
            raise RequestError("the run is over at this step; go back a step, or remask, ban or force one of its cells.")
        context = engine.checkpoint.config.max_position_embeddings
        if end + request.block_length > context:
            raise RequestError(f"prompt, answer and one block do not fit the model's {context} positions; lower max_new_tokens.")
        if request.mode == "diffusion":
            self._open_block()
        elif request.mode in _ONWARDS and what.action in ("pin", "force"):
            self.written = [*self.written, what.token]
        if what.position is not None:
            self._repin()
        # What the child's trace says of its parent.
        self.parent = {
            "trace": parent.id,
            "step": what.step,
            "label": _label(self, engine.checkpoint.tokenizer.piece, parent.request),
            "intervention": {
                "action": what.action, "position": what.position, "token": self.what.token, "changes": dict(what.changes),
            },
        }  # fmt: skip

    def _standing(self, position: int) -> int | None:
        cell = self.canvas.cells.get(position)
        # A draft that is revised is text, although it is not settled; one that is to be verified is none.
        stands = (*EMITTED, "draft") if self.request.mode == "refine" else EMITTED
        return cell.token if cell is not None and cell.status in stands else None

    def _text(self, end: int) -> list[int]:
        """Tokens from the prompt's end to `end`. Raises RequestError where one is open."""
        tokens = [self._standing(position) for position in range(self.origin, end)]
        if None in tokens:
            raise RequestError("a cell before this one is still open; choose a later step, or a cell further left.")
        return tokens

    def _reach(self, engine: Host, parent: Trace) -> tuple[int, int]:
        """Where the child begins, and from where on its canvas is empty."""
        mode, steps = self.request.mode, parent.steps[: self.what.step + 1]
        if mode == "diffusion":
            begin = self._begin_of_block(parent)
            return begin, begin + self.request.block_length
        if mode in _ONWARDS:
            return (begin := self._begin_of_text()), begin
        change = remains.Change(self.what.action, self.what.position, self.what.token)
        if mode == "refine":
            rest = remains.of_draft(engine.checkpoint, parent, steps, self.canvas, change)
        else:
            rest = remains.of_template(engine.checkpoint, parent, self.request, steps, self.canvas, change)
        self.block, self.more = rest.block, {"given": rest.given, **rest.more}
        return rest.begin, rest.reach

    def _begin_of_text(self) -> int:
        if self.what.position is not None:
            return self.what.position
        return self.origin + len(self.canvas.output())

    def _begin_of_block(self, parent: Trace) -> int:
        """Start of the block that holds the position, or of the one in progress."""
        position = self.what.position
        for step in reversed(parent.steps[: self.what.step + 1]):
            if step.phase == "prefill" and position is None and parent.request["mode"] == "diffusion":
                self.block = step.block  # what a child's parent did behind it is no more
                return step.span[1]
            if step.phase not in _FILLING:
                continue
            if position is None and remains.closes(parent, step):
                self.block = step.block + 1
                return step.span[1]
            if position is None or step.span[0] <= position < step.span[0] + parent.request["block_length"]:
                self.block = step.block
                return step.span[0]
        if position is None and parent.request["mode"] != "diffusion":
            return self._begin_of_text()
        begin = self.origin if position is None or parent.request["mode"] == "diffusion" else position
        if position is not None and position >= begin + self.request.block_length:
            raise RequestError("this cell has not been reached yet; choose a later step.")
        return begin

    def _open_block(self) -> None:
        """The cells of the open block as they stand, without the one that is opened, and what it may not become."""
        size, opened = self.request.block_length, self.what.position if self.what.action in ("remask", "ban") else None
        cells = {p - self.begin: self._standing(p) for p in range(self.begin, self.begin + size)}
        kept = {offset: token for offset, token in cells.items() if token is not None and self.begin + offset != opened}
        bans = {opened - self.begin: frozenset((self.what.token,))} if self.what.action == "ban" else {}
        self.more = {"standing": Standing(kept, bans)}

    def _repin(self) -> None:
        """The cell of the change is pinned, or no longer."""
        offset = self.what.position - self.origin
        pins = tuple(pin for pin in self.request.pins if pin[0] != offset)
        if self.what.action in ("pin", "force"):
            pins = (*pins, (offset, self.what.token))
        if self.request.mode in ("diffusion", "refine"):
            self.request = changed_request(self.request.model_dump(), {"pins": pins})

    def inner(self) -> DecodeRequest:
        """The request as the decoder sees it, for which the text so far is part of the prompt."""
        taken, request = len(self.written), self.request
        thinking = request.max_thinking_tokens
        return request.model_copy(
            update={
                "max_new_tokens": request.max_new_tokens - taken,
                "pins": tuple((offset - taken, token) for offset, token in request.pins if offset >= taken),
                "max_thinking_tokens": None if thinking is None else max(0, thinking - taken),
            }
        )

    def events(self) -> tuple[TokenEvent, ...]:
        """What the intervention does to the canvas: the child's first forward carries it."""
        what, made = self.what, []
        reach = self.reach
        if what.action in ("remask", "ban") and self._standing(what.position) is not None:
            made.append(TokenEvent(what.position, self._standing(what.position), "remask"))
        if what.action in ("pin", "force"):
            reach = max(reach, what.position + 1)
            if self.request.mode in _ONWARDS:  # the others show their pins themselves
                made.append(TokenEvent(what.position, what.token, "pin"))
        dropped = sorted(p for p, cell in self.canvas.cells.items() if p >= reach and cell.token is not None and cell.status != "rejected")
        return (*made, *(TokenEvent(p, self.canvas.cells[p].token, "reject") for p in dropped))


class _Child(Run):
    """The run of a child trace."""

    def __init__(self, engine: Engine, plan: Plan, stop: threading.Event) -> None:
        super().__init__(engine, plan.request, plan.prompt, [], stop)
        self._plan, self.parent, self.steps = plan, plan.parent, list(plan.copied)

    def __iter__(self) -> Iterator[Step]:
        """The steps of the whole run: its parent's up to the change, then its own."""
        yield from self._plan.copied
        yield from super().__iter__()

    def decoder(self, clock: Clock) -> Decoding[None]:
        """The decoder's calls as they are, and its Steps as steps of the whole run."""
        plan, copied = self._plan, len(self._plan.copied)
        before = plan.copied[-1].elapsed_ns if copied else 0
        inner, answer = self._continued(clock), None
        shown = plan.events()
        while True:
            try:
                said: Step | Call = inner.send(answer)
            except StopIteration:
                return
            if not isinstance(said, Step):
                answer = yield said
                continue
            answer = None
            copied += 1
            yield replace(
                said,
                index=copied - 1,
                block=said.block + plan.block,
                elapsed_ns=said.elapsed_ns + before,
                events=(*shown, *said.events),
            )
            shown = ()

    def _continued(self, clock: Clock) -> Decoding[None]:
        plan, checkpoint = self._plan, self.engine.checkpoint
        request, text = plan.inner(), [*self.prompt_ids, *plan.written]
        tokenizer, model = checkpoint.tokenizer, checkpoint.model
        generator = torch.Generator(device=model.device).manual_seed(request.seed)
        if request.max_new_tokens < 1 or (request.stop_at_eos and plan.written[-1:] == [tokenizer.eos_id]):
            # What was forced ends the text. One forward shows it, so that the child has a step of its own.
            cache = yield NewCache(len(text))
            logits = yield prefill(model, text, cache)
            yield from read(Sampler(tokenizer.mask_id).choose(logits))
            yield Recorder(clock).step("prefill", 0, len(text), 0)
            return
        if plan.what.action == "ban" and request.mode in _ONWARDS:
            sampler = Sampler(tokenizer.mask_id, request.temperature, request.top_p, request.candidates, generator=generator)
            chosen = yield from _anything_but(model, text, plan.what.token, sampler, Recorder(clock, request.candidates))
            text.append(chosen)
            request = request.model_copy(update={"max_new_tokens": request.max_new_tokens - 1})
            if request.max_new_tokens < 1 or (request.stop_at_eos and chosen == tokenizer.eos_id):
                return
        yield from MODES[request.mode](
            model, text, request, eos_id=tokenizer.eos_id, mask_id=tokenizer.mask_id, generator=generator, clock=clock,
            end_think_id=self.engine.end_think_id, **plan.more,
        )  # fmt: skip


def _anything_but(model: Any, text: list[int], token: int, sampler: Sampler, record: Recorder) -> Decoding[int]:
    """One causal choice behind `text` that is not `token`, as a Step."""
    cache = yield NewCache(len(text))
    banned = torch.zeros(model.config.vocab_size, dtype=torch.bool, device=model.device)
    banned[token] = True
    logits = yield prefill(model, text, cache)
    (look,) = yield from read(sampler.choose(logits, banned=banned))
    yield record.step("prefill", 0, len(text), 0, [event("commit", len(text), look)], [(len(text), look)])
    return look.token


def _label(plan: Plan, piece: Any, before: Mapping[str, Any]) -> str:
    """The intervention in a few words."""
    what = plan.what
    cell = "" if what.position is None else f"cell {what.position - plan.origin + 1}"
    parts = {
        "none": [],
        "pin": [f"{cell} pinned"],
        "remask": [f"{cell} remasked"],
        "ban": [f"{cell} not “{piece(what.token)}”"] if what.token is not None else [],
        "force": [f"{cell} “{piece(what.token)}”"] if what.token is not None else [],
    }[what.action]
    now = plan.request.model_dump()
    parts += [f"{name} {now[name]}" for name in what.changes if name in now and now[name] != before.get(name)]
    return ", ".join(parts) or "written again"

