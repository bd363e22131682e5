"""The forms ask for exactly what acts in a mode, and show exactly that."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from nemodiff_core.errors import NemodiffError, RequestError
from nemodiff_core.request import Limits
from ui import race
from ui.controls import General, general_fields, sampling
from ui.mode_form import DEFAULTS, MODES, RULES, ModeForm, form_values, request_fields, shown
from ui.refine import Refine, request

GENERAL = {"temperature": 0.0, "top_p": 0.5, "seed": 7, "max_new_tokens": 20.0, "stop_at_eos": True, "candidates": 3.0}


def general(prompt: Any = "hi", **change: Any) -> dict[str, Any]:
    values = {**GENERAL, **change}
    return general_fields(prompt, [values[name] for name in General.FIELDS])


def form(**change: Any) -> dict[str, Any]:
    return {**DEFAULTS, "block_length": 8.0, "threshold": 0.7, "steps": 4.0, **change}


def visible(**change: Any) -> set[str]:
    values = form(**change)
    updates = dict(zip(ModeForm.FIELDS[1:], shown(*(values[name] for name in ModeForm.FIELDS)), strict=True))
    return {name for name, update in updates.items() if update["visible"]}


def test_only_knobs_that_act_are_shown():
    fills = {"block_length", "rule", "revise", "remask"}
    speculates = {"block_length", "draft", "verification", "adaptive_block", "adapter"}
    assert visible(mode="ar") == set()
    assert visible() == fills | {"threshold"}
    assert visible(rule="schedule") == fills | {"steps"}
    assert visible(rule="entropy_budget") == fills | {"entropy_bound"}
    assert visible(rule="margin") == fills | {"margin_bound"}
    assert visible(rule="sampler") == fills | {"sampler_bound"}
    assert visible(revise=True, remask=True) == fills | {"threshold", "revise_bound", "remask_bound"}
    assert visible(mode="linear_spec") == speculates
    assert visible(mode="linear_spec", draft="threshold") == speculates | {"draft_threshold"}
    assert visible(mode="quadratic_spec") == {"block_length"}


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_sampling_knobs_turn_only_where_sampling_happens(temperature: float):
    assert [update["interactive"] for update in sampling(temperature)] == [temperature > 0] * 2


def test_a_request_carries_only_what_acts():
    assert request_fields(form(mode="ar")) == {"mode": "ar"}
    assert not {"top_p", "seed"} & general().keys()
    sampled = general(temperature=1)
    assert sampled["seed"] == 7 and sampled["top_p"] == 0.5
    assert request_fields(form()) == {"mode": "diffusion", "block_length": 8, "threshold": 0.7}
    assert request_fields(form(rule="schedule"))["steps"] == 4
    assert request_fields(form(rule="margin", margin_bound=0.6)) == {"mode": "diffusion", "block_length": 8, "policy": "margin", "margin_bound": 0.6}
    assert "threshold" not in request_fields(form(mode="linear_spec"))
    assert request_fields(form(mode="linear_spec", draft="threshold", draft_threshold=0.6))["threshold"] == 0.6
    assert request_fields(form(revise=True))["revise_rounds"] > 0


@given(
    st.sampled_from([mode for _, mode in MODES]), st.sampled_from([rule for _, rule in RULES]), st.booleans(), st.booleans(),
    st.sampled_from(["one", "threshold"]), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans(),
)  # fmt: skip
def test_every_form_makes_a_valid_request_and_is_found_again_from_it(mode, rule, revise, remask, draft, bound, adapter):
    values = form(
        mode=mode, rule=rule, revise=revise, remask=remask, draft=draft, adapter=adapter, threshold=bound, sampler_bound=bound,
        margin_bound=bound, revise_bound=bound, remask_bound=bound,
    )  # fmt: skip
    asked = request(general(), values)
    asked.check(Limits())
    assert (asked.mode, asked.max_new_tokens, asked.candidates) == (mode, 20, 3)
    again = form_values(asked.model_dump())
    assert request(general(), again) == asked


def test_a_race_asks_for_the_modes_in_their_order():
    assert [r.mode for r in race.requests(general())] == ["ar", "diffusion", "linear_spec"]


@pytest.mark.parametrize("change", [{"block_length": 1}, {"steps": 0, "rule": "schedule"}, {"mode": "nonsense"}, {"revise": True, "revise_bound": 2}])
def test_absurd_forms_are_refused_with_a_sentence(change):
    with pytest.raises(RequestError, match=r"\.$"):
        request(general(), form(**change))


@pytest.mark.parametrize("change", [{"temperature": 9}, {"max_new_tokens": None}, {"prompt": ""}])
def test_absurd_settings_are_refused_with_a_sentence(change):
    prompt = change.pop("prompt", "hi")
    with pytest.raises(RequestError, match=r"\.$"):
        request(general(prompt, **change), form())


def test_a_host_that_allows_less_refuses_the_job():
    view = Refine()
    with pytest.raises(NemodiffError, match="at most 10"):
        view.job(general(), [form()[name] for name in ModeForm.FIELDS], Limits(max_new_tokens=10))
