"""What fits where: the bytes are those that loading takes, and the released models fit the cards they should."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemodiff_core.analysis.released import RELEASED
from nemodiff_core.checkpoint import load, read_config
from nemodiff_core.errors import CheckpointError
from nemodiff_core.fit import CARDS, FORMATS, POSITIONS, Need, need, need_of


@pytest.mark.parametrize("form", FORMATS)
def test_the_bytes_are_those_of_a_loaded_model(model: Path, form: str):
    loaded, said = load(model, device="cpu", dtype=form).model, need(read_config(model), form, "cpu")
    cache = loaded.new_cache(POSITIONS)
    assert said.weights == sum(weight.nbytes for weight in loaded.parameters())
    assert said.cache == cache.keys.nbytes + cache.values.nbytes


@pytest.mark.parametrize(("dtype", "form"), [(None, "float32"), ("bfloat16", "bfloat16"), ("float16", "float16"), ("int4", "int4")])
def test_what_load_will_need_is_known_from_its_arguments(model: Path, dtype: str | None, form: str):
    assert need_of(read_config(model), dtype, "cpu") == need(read_config(model), form, "cpu")
    with pytest.raises(CheckpointError, match="use one of"):
        need_of(read_config(model), "complex64", "cpu")


@pytest.mark.parametrize(
    ("size", "cards"),
    [("3B", (24, 12, 8, 8)), ("8B", (40, 24, 12, 8)), ("14B", (80, 40, 16, 12))],
)
def test_the_cards_of_the_released_models(size: str, cards: tuple[int, ...]):
    config = RELEASED[f"Nemotron-Labs-Diffusion-{size}"]
    assert tuple(need(config, form).card for form in FORMATS) == cards


def test_what_fits_nowhere():
    assert Need("float32", 200 * 2**30, 0).card is None and Need("float32", 1, 0).card == CARDS[0]
    assert Need("int8", 70, 30).fits({0: 99, 1: 100, "cpu": 1000}) == [1, "cpu"]
