"""Many decoders on one model: what they ask for at the same time is computed together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from nemodiff_core.cache import KVCache
from nemodiff_core.decode.calls import Call, Decoding, Forward, NewCache, Read
from nemodiff_core.decode.compiled import Compiled
from nemodiff_core.decode.graphs import Graphs
from nemodiff_core.decode.sampling import fetch
from nemodiff_core.model import TriModeModel
from nemodiff_core.packed import Packed, Part
from nemodiff_core.trace import Step

Fast = Compiled | Graphs  # what may answer forwards in the model's place


def fast_for(model: TriModeModel) -> Fast | None:
    """The fast loop of this model where it is; None where forwards run eagerly."""
    for kind in (Compiled, Graphs):
        if kind.serve(model):
            return kind(model)
    return None


@torch.inference_mode()
def together(
    model: TriModeModel, decoders: Sequence[Decoding[None]], live: set[int] | None = None, fast: Fast | None = None
) -> Iterator[tuple[int, Step | None]]:
    """Drive the decoders, a row each, and yield (row, Step) as they come; (row, None) says that a row has ended.

    Every round answers what all rows wait for: their forwards run as one (those with and those without the draft
    adapter apart), whatever their modes and widths, and one transfer reads what all of them chose. What `fast`
    serves is computed there. Rows that ended cost nothing; the caller may take rows out of `live` to give them up. Each row's Steps are those it would yield alone, up to the rounding of sums. An error ends all rows.
    """
    live = set(range(len(decoders))) if live is None else live
    batch = _Batch(model, len(decoders), fast)
    waiting: dict[int, Call] = {}
    answers: dict[int, object] = dict.fromkeys(live)
    try:
        while live:
            for row, answer in answers.items():
                while row in live:
                    try:
                        said = decoders[row].send(answer)
                    except StopIteration:
                        live.discard(row)
                        yield row, None
                        break
                    if not isinstance(said, Step):
                        waiting[row] = said
                        break
                    yield row, said
                    answer = None
            waiting = {row: call for row, call in waiting.items() if row in live}
            answers = batch.answer(waiting)
            for row in answers:
                del waiting[row]
    finally:
        for decoder in decoders:
            decoder.close()


def alone(model: TriModeModel, decoder: Decoding[None], fast: Fast | None = None) -> Iterator[Step]:
    """The Steps of one decoder."""
    return (step for _, step in together(model, [decoder], fast=fast) if step is not None)


class _Batch:
    """Answers the calls of rows that share a cache."""

    def __init__(self, model: TriModeModel, rows: int, fast: Fast | None) -> None:
        self.model, self.rows = model, rows
        self.fast = fast if fast is not None and (rows == 1 or fast.many) else None
        self.cache: KVCache | None = None  # made once, for the row that needs most

    def answer(self, waiting: Mapping[int, Call]) -> dict[int, object]:
        """Answers by row, for all calls of one kind.

        Caches and reads go first, so that rows wait for one another at the next forward.
        """
        for kind, answers in ((Read, self._read), (NewCache, self._new_caches), (Forward, self._forwards)):
            if calls := {row: call for row, call in waiting.items() if isinstance(call, kind)}:
                return answers(calls)
        return {}

    def _read(self, calls: Mapping[int, Read]) -> dict[int, object]:
        rows = iter(fetch([table for call in calls.values() for table in call.tables]))
        return {row: [next(rows) for _ in call.tables] for row, call in calls.items()}

    def _new_caches(self, calls: Mapping[int, NewCache]) -> dict[int, object]:
        capacity = max(call.capacity for call in calls.values())
        if self.fast is None:
            self.cache = self.model.new_cache(capacity, self.rows)
        else:
            self.cache = self.fast.new_cache(capacity, self.rows, max(call.widest for call in calls.values()))
        return {row: self.cache.row(row) if self.rows > 1 else self.cache for row in calls}

    def _forwards(self, calls: Mapping[int, Forward]) -> dict[int, object]:
        answers: dict[int, object] = self.fast.together(calls, self.cache) if self.fast is not None else {}
        if eager := {row: call for row, call in calls.items() if row not in answers}:
            answers |= self._eagerly(eager)
        return {row: answers[row] for row in calls}

    def _eagerly(self, calls: Mapping[int, Forward]) -> dict[int, object]:
        if len(calls) == 1:
            ((row, call),) = calls.items()
            return {row: call.run(self.model)}
        drafts = {row for row, call in calls.items() if call.draft and self.model.draft_adapter is not None}
        if not drafts or len(drafts) == len(calls):
            return dict(zip(calls, self._forward(calls, bool(drafts))))
        answers: dict[int, object] = {}
        for draft in (False, True):
            answers |= self._eagerly({row: call for row, call in calls.items() if (row in drafts) == draft})
        return answers

    def _forward(self, calls: Mapping[int, Forward], draft: bool) -> Sequence[torch.Tensor]:
        """One forward for all rows; each call's answer."""
        model = self.model
        parts = [Part(row, c.cache.length, c.tokens.shape[1], c.kept, c.pattern) for row, c in calls.items()]
        packed = Packed(self.cache, parts, model.device)
        tokens = torch.cat([call.tokens for call in calls.values()], dim=1)
        x = model.hidden(tokens, packed.positions(), packed.limit, mask=packed.mask(), draft=draft, packed=packed)[0]
        for call in calls.values():
            call.cache.advance(call.kept)
        states = [call.chosen(own) for call, own in zip(calls.values(), x.split([part.width for part in parts]))]
        headed = [state for call, state in zip(calls.values(), states) if call.head]
        logits = iter(model.head(torch.cat(headed)).split([len(state) for state in headed]) if headed else ())
        return [call.answered(next(logits)) if call.head else state for call, state in zip(calls.values(), states)]
