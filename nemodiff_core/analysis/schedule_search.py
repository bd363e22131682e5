"""The fewest forwards that fill a block with given tokens, when every forward may commit what it predicts rightly.

A state is the set of cells that hold their token. One forward looks at a state and says which of the others it
predicts rightly; any of these may be committed, and the next forward sees them. Committing all of them is not
always best: a token can lead the model astray about the others. The number of subsets has no bound worth the
name, so the search is best first and stops at a budget of forwards; where it ends before, the count is exact.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

State = frozenset[int]
Schedule = tuple[State, ...]  # what each forward commits
Predict = Callable[[State], Sequence[int]]  # one forward: cells it predicts rightly, the surest first


@dataclass(frozen=True)
class Found:
    """The shortest schedule found for one block."""

    schedule: Schedule
    minimal: bool  # no schedule is shorter
    greedy: int | None  # forwards of committing every right cell at once; None where that leads into a dead end
    spent: int  # forwards of the search


def fewest_forwards(predict: Predict, order: Sequence[int], needed: State, budget: int) -> Found:
    """The shortest schedule that commits all of `needed`, found within about `budget` forwards.

    `order` are the cells in the order of the reference, which committed one a forward; those outside `needed`
    may help and may be left out. A cell that the reference's own forward did not predict, because it sampled,
    may be committed in any state on the reference's word, but alone and in its order: so there always is a
    schedule. The greedy one and, where needed, the reference's own are looked at in any case (at most two
    forwards a cell), and the result is never longer than either.
    """
    return _Search(predict, order, needed, budget).run()


class _Search:
    def __init__(self, predict: Predict, order: Sequence[int], needed: State, budget: int) -> None:
        self.predict, self.order, self.needed, self.budget = predict, tuple(order), needed, budget
        self.seen: dict[State, tuple[int, ...]] = {}
        self.reached: dict[State, int] = {}  # forwards after which a state was expanded
        self.queue: list[tuple] = []
        self.ticket = itertools.count()
        self._walk: tuple[Schedule, State] | None = None

    def run(self) -> Found:
        greedy = self.greedy()
        self.best = self.walk()[0] if greedy is None else greedy
        # One forward cannot be beaten. Nor can two where the first state does not show all that is needed, unless
        # that is a single cell, which may be given on the reference's word at once.
        minimal = len(self.best) <= (2 if len(self.needed) > 1 else 1) or self.improve()
        return Found(self.best, minimal, None if greedy is None else len(greedy), len(self.seen))

    def look(self, state: State) -> tuple[int, ...]:
        if state not in self.seen:
            self.seen[state] = tuple(self.predict(state))
        return self.seen[state]

    def done(self, state: State) -> bool:
        return self.needed <= state

    def walk(self) -> tuple[Schedule, State]:
        """The reference's own schedule, and the cells that its own forwards did not predict."""
        if self._walk is None:
            state: State = frozenset()
            schedule, given = [], set()
            for cell in self.order:
                if self.done(state):
                    break
                if cell not in self.look(state):
                    given.add(cell)
                schedule.append(frozenset((cell,)))
                state |= schedule[-1]
            self._walk = tuple(schedule), frozenset(given)
        return self._walk

    def next_given(self, state: State) -> int | None:
        """The cell that may be committed on the reference's word, in its order."""
        given = self.walk()[1]
        return next((cell for cell in self.order if cell in given and cell not in state), None)

    def greedy(self) -> Schedule | None:
        state: State = frozenset()
        schedule: list[State] = []
        while not self.done(state):
            right = frozenset(self.look(state))
            if not right:
                cell = self.next_given(state)
                if cell is None:
                    return None
                right = frozenset((cell,))
            schedule.append(right)
            state |= right
        return tuple(schedule)

    def improve(self) -> bool:
        """Shorten `best`; whether every schedule that could be shorter was ruled out.

        Limited discrepancy search (Harvey & Ginsberg 1995): first schedules that leave out no right cell anywhere,
        then those that leave out one, the least sure first, and so on.
        """
        self.expand((), frozenset(), 0)
        while self.queue:
            cost, _, _, path, state, right, left = heapq.heappop(self.queue)
            move = frozenset(right) - {right[i] for i in left}
            child, depth = state | move, len(path) + 1
            # What is not done needs one more forward. All subsets of `right` are as deep, so none of them is tried.
            if depth + (not self.done(child)) >= len(self.best):
                continue
            for more, rest in _leave_out(left, len(right)):
                self.push(cost + more, path, state, right, rest)
            if self.done(child):
                self.best = (*path, move)
            elif child not in self.seen and len(self.seen) >= self.budget:
                return False
            else:
                self.expand((*path, move), child, cost)
        return True

    def expand(self, path: Schedule, state: State, cost: int) -> None:
        """Queue what can follow a state, unless it was reached as early before."""
        if self.reached.get(state, len(path) + 1) <= len(path):
            return
        self.reached[state] = len(path)
        right = tuple(reversed(self.look(state)))  # the least sure are left out first
        if right:
            self.push(cost, path, state, right, ())
        cell = self.next_given(state)
        if cell is not None and cell not in right:
            self.push(cost + len(right), path, state, (cell,), ())

    def push(self, cost: int, path: Schedule, state: State, right: tuple[int, ...], left: tuple[int, ...]) -> None:
        # Among equals the deepest first, so that each variation is followed to its end.
        heapq.heappush(self.queue, (cost, -len(path), next(self.ticket), path, state, right, left))


def _leave_out(left: tuple[int, ...], count: int) -> list[tuple[int, tuple[int, ...]]]:
    """What to leave out next, with what it costs more: reaches every proper subset of `count` cells exactly once."""
    after = left[-1] + 1 if left else 0
    if after >= count:
        return []
    beside = [(0, (*left[:-1], after))] if left else []
    return beside + ([(1, (*left, after))] if len(left) + 1 < count else [])
