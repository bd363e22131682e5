"""The oracle's search against exhaustive enumeration, on invented predictions."""

from __future__ import annotations

from itertools import chain, combinations

from hypothesis import given, settings, strategies as st

from nemodiff_core.analysis.schedule_search import Found, State, fewest_forwards

quick = settings(max_examples=150, deadline=None)


class Table:
    """Predictions by state: every state has its own set of cells that come out right."""

    def __init__(self, right: dict[State, tuple[int, ...]]) -> None:
        self.right, self.asked = right, []

    def __call__(self, state: State) -> tuple[int, ...]:
        self.asked.append(state)
        return tuple(cell for cell in self.right.get(state, ()) if cell not in state)


def subsets(cells) -> list[State]:
    ordered = sorted(cells)
    return [frozenset(s) for s in chain.from_iterable(combinations(ordered, n) for n in range(len(ordered) + 1))]


@st.composite
def tables(draw: st.DrawFn) -> tuple[Table, tuple[int, ...], State]:
    count = draw(st.integers(1, 5))
    order = tuple(draw(st.permutations(range(1, count + 1))))
    needed = frozenset(draw(st.sets(st.sampled_from(order)))) | {order[-1]}
    right = {s: tuple(draw(st.permutations(sorted(draw(st.sets(st.sampled_from(order))))))) for s in subsets(order)}
    sampled = draw(st.sets(st.sampled_from(order))) if draw(st.booleans()) else set()
    for n, cell in enumerate(order):
        before = frozenset(order[:n])
        if cell not in sampled and cell not in right[before]:
            right[before] = (*right[before], cell)
    return Table(right), order, needed


def shortest(table: Table, order: tuple[int, ...], needed: State) -> int:
    """By trying everything, one forward after another."""
    given = [c for n, c in enumerate(order) if c not in table(frozenset(order[:n]))]
    reached = {frozenset()}
    for count in range(len(order) + 1):
        if any(needed <= state for state in reached):
            return count
        following = {state | move for state in reached for move in subsets(table(state)) if move}
        for state in reached:
            following |= {state | {c} for c in [c for c in given if c not in state][:1]}
        reached = following
    raise AssertionError("the reference's own order is a schedule")


def check(found: Found, table: Table, order: tuple[int, ...], needed: State) -> None:
    given = [c for n, c in enumerate(order) if c not in table(frozenset(order[:n]))]
    state: State = frozenset()
    for move in found.schedule:
        waiting = [c for c in given if c not in state]
        assert move and not move & state
        assert move <= set(table(state)) or move == frozenset(waiting[:1])
        state |= move
    assert needed <= state
    assert len(found.schedule) <= len(order)
    assert found.greedy is None or len(found.schedule) <= found.greedy


@given(case=tables())
@quick
def test_an_exhausted_search_is_minimal(case) -> None:
    table, order, needed = case
    found = fewest_forwards(table, order, needed, budget=1000)
    asked = list(table.asked)
    check(found, table, order, needed)
    assert found.minimal and len(found.schedule) == shortest(table, order, needed)
    assert found.spent == len(asked) == len(set(asked)), "no state is put through the model twice"


@given(case=tables(), budget=st.integers(0, 6))
@quick
def test_a_small_budget_gives_a_sound_schedule(case, budget: int) -> None:
    table, order, needed = case
    found = fewest_forwards(table, order, needed, budget)
    check(found, table, order, needed)
    assert found.spent <= max(budget, 2 * len(order))
    if found.minimal:
        assert len(found.schedule) == shortest(table, order, needed)


def test_everything_at_once_takes_one_forward_to_find() -> None:
    found = fewest_forwards(lambda state: (1, 2, 3), (2, 1, 3), frozenset((1, 2, 3)), budget=300)
    assert found == Found((frozenset((1, 2, 3)),), True, 1, 1)


def test_a_single_sampled_cell_is_given_at_once() -> None:
    # What is needed is the cell that the reference sampled; the one before it in its order may be left out.
    found = fewest_forwards(lambda state: () if state else (1,), (1, 2), frozenset((2,)), budget=300)
    assert found.schedule == (frozenset((2,)),) and found.minimal and found.greedy == 2


def test_nothing_to_fill_takes_no_forward() -> None:
    assert fewest_forwards(lambda state: (), (), frozenset(), budget=300) == Found((), True, 0, 0)


def test_greed_that_misleads_is_beaten() -> None:
    right = {
        frozenset(): (1, 2),
        frozenset((1,)): (2, 3, 4, 5),
        frozenset((2,)): (),
        frozenset((1, 2)): (3,),
        frozenset((1, 2, 3)): (4,),
        frozenset((1, 2, 3, 4)): (5,),
    }
    found = fewest_forwards(Table(right), (1, 2, 3, 4, 5), frozenset(range(1, 6)), budget=300)
    assert found.greedy == 4 and found.minimal
    assert found.schedule == (frozenset((1,)), frozenset((2, 3, 4, 5)))


def test_greed_that_ends_in_a_dead_end_is_told() -> None:
    right = {frozenset(): (1, 2), frozenset((1,)): (2,), frozenset((1, 2)): (), frozenset((2,)): (3,), frozenset((2, 3)): (1,)}
    found = fewest_forwards(Table(right), (2, 3, 1), frozenset((1, 2, 3)), budget=300)
    assert found.greedy is None and found.minimal and len(found.schedule) == 3
