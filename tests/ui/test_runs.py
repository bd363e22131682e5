"""The run store: bounded, aged, and closed to guesses."""

from __future__ import annotations

import pytest

from nemodiff_core.errors import NemodiffError
from ui.runs import RunStore


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_ids_are_long_and_never_repeat():
    store = RunStore(max_runs=1000, max_per_owner=1000)
    ids = {store.create("visitor").id for _ in range(500)}
    assert len(ids) == 500
    assert min(map(len, ids)) >= 24


@pytest.mark.parametrize("guess", ["", "nope", None, 0, {"run": 1}, ["a"]])
def test_an_unknown_id_is_refused_with_a_sentence(guess):
    with pytest.raises(NemodiffError, match="run the prompt again"):
        RunStore().get(guess)


def test_each_visitor_keeps_only_the_last_runs_of_their_own():
    store = RunStore(max_per_owner=2)
    other = store.create("other")
    mine = [store.create("me") for _ in range(3)]
    with pytest.raises(NemodiffError):
        store.get(mine[0].id)
    assert mine[0].stop.is_set()  # what is forgotten must not go on computing
    assert store.get(mine[1].id) is mine[1]
    assert store.get(other.id) is other


def test_the_oldest_go_first_when_there_are_too_many():
    store = RunStore(max_runs=2)
    records = [store.create(f"visitor {n}") for n in range(3)]
    with pytest.raises(NemodiffError):
        store.get(records[0].id)
    assert store.get(records[2].id) is records[2]


def test_the_oldest_go_first_when_they_hold_too_much():
    store = RunStore(max_characters=100)
    big = store.create("a")
    big.add("x" * 99)
    small = store.create("b")
    small.add("y" * 50)
    with pytest.raises(NemodiffError):
        store.get(big.id)
    assert store.get(small.id) is small


def test_old_runs_are_forgotten_and_recorded_ones_stay():
    clock = Clock()
    store = RunStore(max_age_s=10, clock=clock)
    recorded = store.create(None, run_id="recorded-refine")
    ended, never_started = store.create("me"), store.create("me")
    ended.ended = True
    clock.now = 11.0
    for record in (ended, never_started):
        with pytest.raises(NemodiffError):
            store.get(record.id)
    assert store.get("recorded-refine") is recorded


def test_stop_reaches_the_visitors_own_unfinished_runs_only():
    store = RunStore()
    mine, done, other = store.create("me"), store.create("me"), store.create("other")
    done.ended = True
    assert store.stop("me") == 1
    assert mine.stop.is_set()
    assert not done.stop.is_set() and not other.stop.is_set()


def test_leaving_drops_everything_of_one_visitor():
    store = RunStore()
    mine, other = store.create("me"), store.create("other")
    store.forget("me")
    assert mine.stop.is_set()
    with pytest.raises(NemodiffError):
        store.get(mine.id)
    assert store.get(other.id) is other
