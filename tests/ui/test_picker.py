"""The model picker's answers to the browser: what is shown, what becomes a visitor's model, and what is said when it does not."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from ui.loader import ModelChoice
from ui.models import Models
from ui.picker import OTHER, Picker, about

ME, YOU = SimpleNamespace(session_hash="me"), SimpleNamespace(session_hash="you")
CHOICE, WANTED, TIMER, USE, CANCEL, ABOUT, SAID, STATUS = range(8)


@pytest.fixture
def models(model: Path) -> Models:
    shutil.copytree(model, model.parent / "second")
    damaged = Path(shutil.copytree(model, model.parent / "damaged"))
    (damaged / "model.safetensors").write_bytes(b"no weights")
    choices = [ModelChoice(str(model.parent / name), device="cpu", title=name) for name in (model.name, "second", "damaged")]
    return Models(choices, any_model=True).start()


@pytest.fixture
def picker(models: Models) -> Picker:
    with gr.Blocks() as page:
        made = Picker(models)
        made.button()
        made.panel()
        made.connect(page, lambda name: f"status of {name}", gr.HTML())
    return made


def settled(picker: Picker, name: str, choice: str, outcome: list[Any], who: Any = ME) -> list[Any]:
    """What the timer brings until nothing is waited for."""
    while outcome[WANTED]:
        picker.models.loader(outcome[WANTED]).wait(60)
        outcome = picker.follow(name, choice, outcome[WANTED], who)
    return outcome


def test_a_model_becomes_the_visitors_once_it_is_there(picker: Picker, models: Models):
    first = picker.ask("second", "", "small", "", ME)
    assert first[CHOICE] == "small" and first[WANTED] == "second" and first[TIMER].active and first[CANCEL]["interactive"]
    last = settled(picker, "second", "small", first)
    assert (last[CHOICE], last[WANTED], last[STATUS]) == ("second", "", "status of second") and not last[TIMER].active
    assert "Second answers your runs from now on." in last[SAID] and not last[USE]["interactive"]
    assert "in memory" in last[ABOUT] and models.loader("second").waiting == set()
    again = picker.ask("second", "", "small", "", YOU)  # it is there: no waiting
    assert (again[CHOICE], again[WANTED]) == ("second", "")


def test_a_failure_leaves_the_choice_and_says_why(picker: Picker):
    last = settled(picker, "damaged", "small", picker.ask("damaged", "", "small", "", ME))
    assert last[CHOICE] == "small" and last[USE]["interactive"]
    assert 'role="alert"' in last[SAID] and "damaged: model.safetensors is damaged or cut off" in last[SAID]
    assert "download it again. Small goes on answering." in last[SAID]


@pytest.mark.parametrize("text", ["", None, "../../etc", "<b>x</b>", "/tmp/second"])
def test_what_is_no_id_is_refused_and_escaped(picker: Picker, text: str | None):
    last = picker.ask(OTHER, text, "small", "", ME)
    assert (last[CHOICE], last[WANTED]) == ("small", "") and "is no Hugging Face id" in last[SAID] and "<b>" not in last[SAID]


def test_names_that_no_page_offers_are_refused(picker: Picker):
    last = picker.ask("nobody/nothing", "", "small", "", ME)
    assert last[CHOICE] == "small" and "does not offer that model" in last[SAID]
    assert "does not offer that model" in about(picker.models, "nobody/nothing")


def test_giving_up_leaves_the_other_visitors_load_alone(picker: Picker, models: Models):
    mine = picker.ask("second", "", "small", "", ME)
    yours = picker.ask("second", "", "small", "", YOU)
    last = picker.give_up("second", "small", mine[WANTED], ME)
    assert (last[CHOICE], last[WANTED]) == ("small", "") and "it was cancelled. Small goes on answering." in last[SAID]
    assert settled(picker, "second", "small", yours, YOU)[CHOICE] == "second"


def test_a_host_with_one_model_shows_no_picker(model: Path):
    with gr.Blocks() as page:
        made = Picker(Models((ModelChoice(str(model), title="small"),)))
        made.button()
        made.panel()
        made.connect(page, lambda name: "", gr.HTML())
    kinds = {type(block).__name__ for block in page.blocks.values()}
    assert not kinds & {"Button", "Dropdown", "Textbox", "Timer"} and made.choice.value == "small"


def test_only_a_host_that_allows_it_has_the_free_field(picker: Picker, models: Models):
    assert (OTHER, OTHER) in picker.name.choices
    assert picker.look(OTHER, "small", "")[0]["visible"] and not picker.look("second", "small", "")[0]["visible"]
    models.any_model = False
    with gr.Blocks():
        closed = Picker(models)
        closed.panel()
    assert (OTHER, OTHER) not in closed.name.choices
    closed.status = lambda name: ""
    assert "its own models only" in closed.ask(OTHER, "a/b", "small", "", ME)[SAID]
