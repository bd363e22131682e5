"""The Speculate view: which lanes stand beside one another."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ui.controls import GENERAL, general_fields
from ui.mode_form import DEFAULTS
from ui.speculate import AR, PLAIN, QUADRATIC, Speculate, offered, requests

ASKED = general_fields("Hello", list(GENERAL.values()))


def engine(has_adapter: bool) -> SimpleNamespace:
    return SimpleNamespace(checkpoint=SimpleNamespace(has_adapter=has_adapter))


def test_a_lane_without_the_adapter_is_offered_only_where_there_is_one():
    beside, adapter = offered(engine(True))
    assert beside["choices"] == [QUADRATIC, PLAIN, AR] and "interactive" not in adapter
    beside, adapter = offered(engine(False))
    assert "choices" not in beside and adapter["interactive"] is False and "has none" in adapter["info"]


def test_before_the_model_is_there_nothing_is_said_of_its_adapter():
    assert all("choices" not in update and "info" not in update for update in offered(None))


@pytest.mark.parametrize(("beside", "modes"), [((), ["linear_spec"]), ((AR, QUADRATIC), ["linear_spec", "ar", "quadratic_spec"])])
def test_lanes_stand_beside_the_one_of_the_form(beside: tuple[str, ...], modes: list[str]):
    assert [lane.mode for lane in requests(ASKED, DEFAULTS | {"mode": "linear_spec"}, beside)] == modes


def test_the_form_begins_with_the_lanes_of_the_recorded_run():
    import gradio as gr

    from nemodiff_core.request import Limits

    view = Speculate()
    with gr.Blocks():
        view.build(Limits())
    values = [part.value for part in view.inputs]
    assert view.job(ASKED, values, Limits()) and len(requests(ASKED)) == 1 + len(values[0])


def test_the_same_lane_is_never_run_twice():
    lanes = requests(ASKED, DEFAULTS | {"mode": "quadratic_spec"}, (QUADRATIC, AR))
    assert [lane.mode for lane in lanes] == ["quadratic_spec", "ar"]


def test_with_and_without_the_adapter_differ_in_nothing_else():
    with_it, without = requests(ASKED, DEFAULTS | {"mode": "linear_spec"}, (PLAIN,))
    assert (with_it.adapter, without.adapter) == (True, False)
    assert with_it.model_copy(update={"adapter": False}) == without
