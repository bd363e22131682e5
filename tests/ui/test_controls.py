"""The form asks for exactly what acts in a mode, and shows exactly that."""

from __future__ import annotations

import pytest

from nemodiff_core.errors import RequestError
from nemodiff_core.request import Limits
from ui import race, refine
from ui.controls import RACE, REFINE, Controls, request_fields, shown

FORM = {
    "prompt": "hi", "mode": "diffusion", "block_length": 8.0, "rule": "threshold", "draft": "one", "threshold": 0.7, "steps": 4.0,
    "temperature": 0.0, "top_p": 0.5, "seed": 7, "max_new_tokens": 20.0, "stop_at_eos": True, "candidates": 3.0,
}  # fmt: skip


def visible(view: str, mode: str, rule: str = "threshold", draft: str = "one") -> set[str]:
    updates = dict(zip(Controls.DEPENDENT, shown(view, mode, rule, draft, 0.0)))
    return {name for name, update in updates.items() if update.get("visible", False)}


def test_only_knobs_that_act_are_shown():
    assert visible(REFINE, "ar") == {"mode"}
    assert visible(REFINE, "diffusion") == {"mode", "block_length", "rule", "threshold"}
    assert visible(REFINE, "diffusion", rule="steps") == {"mode", "block_length", "rule", "steps"}
    assert visible(REFINE, "linear_spec") == {"mode", "block_length", "draft"}
    assert visible(REFINE, "linear_spec", draft="threshold") == {"mode", "block_length", "draft", "threshold"}
    assert visible(RACE, "ar") == {"block_length", "rule", "threshold"}


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_sampling_knobs_turn_only_where_sampling_happens(temperature: float):
    updates = dict(zip(Controls.DEPENDENT, shown(REFINE, "ar", "threshold", "one", temperature)))
    assert updates["seed"]["interactive"] == updates["top_p"]["interactive"] == (temperature > 0)


def test_a_request_carries_only_what_acts():
    assert not {"block_length", "threshold", "steps", "top_p", "seed"} & request_fields("ar", FORM).keys()
    diffusion = request_fields("diffusion", FORM)
    assert diffusion["threshold"] == 0.7 and "steps" not in diffusion
    scheduled = request_fields("diffusion", {**FORM, "rule": "steps"})
    assert scheduled["steps"] == 4 and "threshold" not in scheduled
    assert "threshold" not in request_fields("linear_spec", FORM)
    assert request_fields("linear_spec", {**FORM, "draft": "threshold"})["threshold"] == 0.7
    sampled = request_fields("ar", {**FORM, "temperature": 1})
    assert sampled["seed"] == 7 and sampled["top_p"] == 0.5


def test_the_form_makes_valid_requests_in_every_mode():
    for mode in ("ar", "diffusion", "linear_spec"):
        (request,) = refine.requests({**FORM, "mode": mode})
        request.check(Limits())
        assert (request.mode, request.max_new_tokens, request.candidates) == (mode, 20, 3)
    assert [r.mode for r in race.requests({**FORM, "draft": "threshold"})] == ["ar", "diffusion", "linear_spec"]
    assert race.requests({**FORM, "draft": "threshold"})[2].threshold is None


@pytest.mark.parametrize("change", [{"prompt": ""}, {"block_length": 1}, {"steps": 0, "rule": "steps"}, {"temperature": 9}, {"max_new_tokens": None}])
def test_absurd_values_are_refused_with_a_sentence(change):
    with pytest.raises(RequestError):
        refine.requests({**FORM, **change})
