"""`nemodiff serve --cluster`, as far as it needs no cluster: what is refused, and what a page with such an engine does."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from nemodiff_core.errors import NemodiffError
from nemodiff_core.serving.distant import Distant
from nemodiff_core.serving.outline import Outline
from nemodiff_core.serving.work import perform

from tests.conftest import Command
from ui.loader import ModelChoice
from ui.models import Models


@pytest.mark.parametrize("option", [["--replicas", "2"], ["--ray-address", "auto"]])
def test_options_of_the_cluster_belong_to_it(nemodiff: Command, option: list[str]) -> None:
    answer = nemodiff("serve", *option)
    assert answer.status != 0 and "belong to --cluster" in answer.err


def test_without_ray_one_sentence_says_how_to_install_it(nemodiff: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    answer = nemodiff("serve", "--cluster")
    assert answer.status != 0 and "pip install 'nemodiff[cluster]'" in answer.err and len(answer.err.strip().splitlines()) == 1


def test_a_page_takes_its_engine_from_where_it_is(tiny_engine: Any) -> None:
    def maker(tell: Any) -> Distant:
        tell("starting replicas", 0.0)
        return Distant(lambda work, stop: perform(tiny_engine, work, stop), Outline.of(tiny_engine), capacity=lambda: 2)

    own = Models((ModelChoice("elsewhere/model"),), maker=maker).start().own
    assert own.wait(60) and own.state == "ready" and own.engine.capacity == 2
    assert own.status().startswith("random · ")


def test_a_cluster_that_does_not_start_is_said_on_the_page() -> None:
    def maker(tell: Any) -> Distant:
        raise NemodiffError("the replicas could not start; look into Ray's logs.")

    own = Models((ModelChoice(),), maker=maker).start().own
    assert own.wait(60) and own.state == "failed" and own.status() == "the replicas could not start; look into Ray's logs."
