"""The line before the device: fair, bounded, and honest about the waiting."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemodiff_core.errors import RequestError
from nemodiff_core.request import Limits
from ui.line import Line, Place


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def line(clock: Clock | None = None, capacity: int = 1, **limits: int) -> Line:
    usual = {"max_waiting": 100, "max_waiting_per_visitor": 100, "max_runs_per_minute": 1000}
    return Line(Limits(**{**usual, **limits}), lambda: capacity, clock or Clock())


def serve(device: Line, places: list[Place], clock: Clock, seconds: float = 1.0) -> list[Place]:
    """Let every place run for as long, in the order in which they get their turns."""
    order, left = [], list(places)
    while left:
        (place,) = [place for place in left if place.wait(0)]
        clock.now += seconds
        order.append(place)
        left.remove(place)
        place.leave()
    return order


def test_the_first_one_runs_at_once_and_the_second_waits_for_it():
    device = line()
    first, second = device.join("a"), device.join("b")
    assert first.wait(0) and not second.wait(0)
    assert (first.ahead, second.ahead) == (0, 1)
    first.leave()
    assert second.wait(0)


def test_a_newcomer_passes_the_second_run_of_somebody_else():
    clock = Clock()
    device = line(clock)
    greedy = [device.join("greedy") for _ in range(3)]
    new = device.join("new")
    assert [place.visitor for place in serve(device, [*greedy, new], clock)] == ["greedy", "new", "greedy", "greedy"]


def test_who_had_the_device_for_long_waits_longer():
    clock = Clock()
    device = line(clock)
    long = device.join("long")
    clock.now = 60.0
    holds = device.join("holds")
    long.leave()
    again, other = device.join("long"), device.join("other")
    assert serve(device, [holds, again, other], clock) == [holds, other, again]


def test_a_place_that_is_given_up_leaves_no_gap():
    device = line()
    first, second, third = (device.join(name) for name in "abc")
    second.leave()
    second.leave()
    assert third.ahead == 1
    first.leave()
    assert third.wait(0)


def test_several_run_at_once_where_the_device_takes_several():
    places = [(device := line(capacity=2)).join("a"), device.join("b"), device.join("c")]
    assert [place.wait(0) for place in places] == [True, True, False]


def test_a_device_that_grows_serves_those_who_wait():
    size = [1]
    device = Line(Limits(), lambda: size[0])
    device.join("a")
    waits = device.join("b")
    assert not waits.wait(0)
    size[0] = 2
    assert waits.wait(0)


def test_the_expected_wait_follows_the_runs_there_were():
    clock = Clock()
    device = line(clock)
    serve(device, [device.join("a")], clock, seconds=20.0)
    device.join("a")
    waits, last = device.join("b"), device.join("c")
    assert (waits.expected_s, last.expected_s) == (20.0, 40.0)
    clock.now += 15.0
    assert waits.expected_s == 5.0
    assert next(last.told(lambda: False)) == "2 runs are ahead on this device; yours starts by itself in about 25 s."


def test_what_is_said_changes_with_the_place_and_ends_with_the_turn():
    device = line()
    first, second, third = (device.join(name) for name in "abc")
    told = third.told(lambda: False, every_s=0.01)
    assert next(told).startswith("2 runs are ahead")
    second.leave()
    assert next(told).startswith("1 run is ahead")
    first.leave()
    assert list(told) == []
    assert third.wait(0)


def test_giving_up_ends_the_waiting():
    device, gone = line(), threading.Event()
    device.join("a")
    told = device.join("b").told(gone.is_set)
    next(told)
    gone.set()
    assert list(told) == []


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"max_waiting_per_visitor": 1}, "still waits for its turn"),
        ({"max_runs_per_minute": 2}, "2 runs a minute; run again in 60 s"),
        ({"max_waiting": 1}, "1 runs already wait for this device"),
    ],
)
def test_limits_are_told_in_a_sentence(limits: dict[str, int], sentence: str):
    device = line(**limits)
    device.join("a")
    device.join("a")
    with pytest.raises(RequestError, match=sentence):
        device.join("a")
    with pytest.raises(RequestError, match=sentence):
        device.check("a")


def test_a_visitors_limits_are_no_others():
    device = line(max_waiting_per_visitor=1, max_runs_per_minute=2)
    device.join("a")
    device.join("a")
    device.check("b")


def test_the_minute_passes():
    clock = Clock()
    device = line(clock, max_runs_per_minute=1)
    device.join("a").leave()
    clock.now = 61.0
    device.check("a")


def test_the_parts_of_a_longer_work_are_not_counted():
    device = line(max_runs_per_minute=1)
    for _ in range(5):
        with device.turn("a", counted=False):
            assert device.running == 1
    assert device.running == 0


def test_a_turn_is_given_back_when_the_work_fails():
    device = line()
    with pytest.raises(ZeroDivisionError), device.turn("a"):
        raise ZeroDivisionError
    assert device.running == 0


def test_a_turn_that_is_given_up_takes_no_place():
    device = line()
    device.join("a")
    with pytest.raises(RequestError, match="stopped before its turn"), device.turn("b", give_up=lambda: True):
        pass
    assert device.waiting == 0


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0.1, 50)), min_size=1, max_size=30), st.integers(1, 3))
def test_everybody_gets_a_turn_and_never_more_than_the_device_takes(runs: list[tuple[str, float]], capacity: int):
    clock = Clock()
    device = line(clock, capacity)
    left = [(device.join(visitor), seconds) for visitor, seconds in runs]
    while left:
        going = [(place, seconds) for place, seconds in left if place.wait(0)]
        assert 1 <= len(going) <= capacity
        assert device.running == len(going) and device.waiting == len(left) - len(going)
        place, seconds = going[0]
        clock.now += seconds
        place.leave()
        left.remove((place, seconds))
    assert device.running == device.waiting == 0


@given(st.floats(0.5, 20), st.floats(0.5, 20))
def test_two_who_always_want_more_get_as_much_of_the_device(long: float, short: float):
    """However long the runs of each are, the seconds of both differ by no more than a few runs."""
    clock = Clock()
    device = line(clock)
    lengths = {"long": long, "short": short}
    used, waiting = {"long": 0.0, "short": 0.0}, []
    for _ in range(200):
        for visitor in lengths:
            while sum(place.visitor == visitor for place in waiting) < 2:
                waiting.append(device.join(visitor))
        (place,) = [place for place in waiting if place.wait(0)]
        clock.now += lengths[place.visitor]
        used[place.visitor] += lengths[place.visitor]
        place.leave()
        waiting.remove(place)
    assert abs(used["long"] - used["short"]) <= 3 * max(long, short)
