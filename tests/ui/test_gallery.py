"""The gallery: its cards point at what they speak of, and the recorded runs are few, small and ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nemodiff_core.analysis.example import Example
from nemodiff_core.analysis.tasks import split_of
from ui import files, gallery, lessons, opening
from ui.lessons import Library, describe, facts
from ui.messages import resync
from ui.runs import RunStore

LIBRARY = Library()
CARDS = {card["name"]: card for card in LIBRARY.gallery["cards"]}
MOST_BYTES = 1_500_000


def test_every_card_is_recorded_and_no_other():
    assert list(CARDS) == [card.name for card in gallery.CARDS]
    words = json.loads((lessons.FOLDER / "en" / "gallery.json").read_text("utf-8"))
    assert set(words) == set(CARDS)


@pytest.mark.parametrize("card", gallery.CARDS, ids=lambda card: card.name)
def test_a_card_says_what_its_trace_shows(card: gallery.Card):
    words = json.loads((lessons.FOLDER / "en" / "gallery.json").read_text("utf-8"))[card.name]
    run = LIBRARY.run(f"{card.trace}/{card.lane}")
    assert gallery._card(card, LIBRARY) == CARDS[card.name]
    assert describe(words, run, LIBRARY).items() <= CARDS[card.name].items()
    assert 0 <= CARDS[card.name]["step"] <= len(run.trace.steps)


def test_the_moments_are_what_they_are_called():
    exact = {name: facts.exact(LIBRARY.run(name)) for name in LIBRARY.gallery["problems"]}
    assert not exact["sum-careless"] and exact["sum-careful"] and exact["sum-ar"] and exact["sum-spec"] and exact["sum-revised"]
    assert not exact["list-careless"] and exact["list-careful"]
    assert not exact["story-careless"] and exact["story-revised"]
    assert exact["reopened"] and exact["draft"] and exact["infill"] and exact["code"]
    assert not exact["surprise"] and facts.exact(LIBRARY.run("surprise/diffusion"))
    sampled = {mode: facts.value("tokens per second", LIBRARY.run(f"sampled/{mode}")) for mode in ("ar", "linear_spec")}
    assert sampled["linear_spec"] < sampled["ar"]
    lanes = LIBRARY.lanes("story")
    assert lanes[0].output.ids == lanes[1].output.ids == lanes[2].output.ids


def test_all_problems_are_held_out():
    for name, problem in LIBRARY.gallery["problems"].items():
        assert split_of(Example(**problem)) == "test", name
        assert LIBRARY.run(name).trace.request["prompt"] == problem["prompt"]


def test_the_recorded_files_are_small_and_no_stranger_is_among_them():
    found = {path.name.removesuffix(".json.gz"): path for path in Path(opening.FOLDER).glob("*.json.gz")}
    assert set(found) >= set(LIBRARY.gallery["problems"])
    assert sum(path.stat().st_size for path in Path(opening.FOLDER).iterdir()) < MOST_BYTES


def test_recorded_runs_are_fetched_when_they_are_asked_for():
    store = RunStore()
    opened = opening.load(store)
    assert len(store._runs) == len(opened), "opening the page reads nothing else"
    record = store.get("recorded-sum-careless")
    assert record.owner is None and record.ended and resync(record)["messages"]
    assert store.get("recorded-sum-careless") is record
    for name in ("recorded-../refine", "recorded-nothing", "sum-careless", "recorded-", 7):
        with pytest.raises(files.NemodiffError):
            store.get(name)
