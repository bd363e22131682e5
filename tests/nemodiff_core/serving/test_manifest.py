"""spaces.yml: what it may say, what it says, and that every model on offer fits the machine it is offered on."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import huggingface_hub
import pytest
import yaml

from nemodiff_core.analysis.released import RELEASED
from nemodiff_core.checkpoint import bundled_path, read_config
from nemodiff_core.config import ModelConfig
from nemodiff_core.errors import ConfigError
from nemodiff_core.fit import need
from nemodiff_core.placement import WEIGHTS_SHARE
from nemodiff_core.request import Limits
from nemodiff_core.serving.manifest import FILE, Offer, Preset, chosen, read, this_host

OWN = Path(__file__).parents[3] / FILE
PRESETS = read(OWN).presets


@cache
def geometry(source: str) -> ModelConfig:
    return read_config(bundled_path()) if source == "tiny" else RELEASED[source.rpartition("/")[2]]


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.gpu_gb or preset.ram_gb])
def test_every_model_on_offer_fits_the_machine(name: str):
    preset = PRESETS[name]
    device, room = ("cuda", preset.gpu_gb) if preset.gpu_gb else ("cpu", preset.ram_gb)
    for offer in preset.models:
        form = offer.dtype or ("bfloat16" if device == "cuda" else "float32")
        asked = need(geometry(offer.source), form, device)
        assert asked.total <= WEIGHTS_SHARE * room * 2**30, f"{offer.title} in {form} does not fit {name}"


def test_the_presets_that_people_ask_for_are_there_and_name_hardware_of_the_hub():
    assert {"local", "cpu-basic", "zero-gpu", "a10g", "h200"} <= set(PRESETS)
    flavours = {flavour.value for flavour in huggingface_hub.SpaceHardware}
    assert {preset.hardware for preset in PRESETS.values()} - {None} <= flavours
    assert [name for name, preset in PRESETS.items() if preset.zero_gpu] == ["zero-gpu"]


def test_every_checkpoint_of_others_says_its_licence():
    for preset in PRESETS.values():
        assert all(offer.licence and offer.title and offer.about for offer in preset.models)


def test_strangers_hosts_are_tighter_than_ones_own():
    own = PRESETS["local"]
    assert own.features.any_model and own.limits == Limits()
    for name in ("cpu-basic", "zero-gpu", "l4", "a10g", "h200"):
        assert not PRESETS[name].features.any_model
    assert PRESETS["cpu-basic"].limits.max_seconds < own.limits.max_seconds
    assert PRESETS["cpu-basic"].limits.max_new_tokens < own.limits.max_new_tokens


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "local"),
        ({"SPACE_ID": "me/app"}, "cpu-basic"),
        ({"SPACE_ID": "me/app", "SPACES_ZERO_GPU": "true"}, "zero-gpu"),
        ({"SPACE_ID": "me/app", "NEMODIFF_PRESET": "a10g"}, "a10g"),
    ],
)
def test_a_host_knows_its_preset(environment: dict[str, str], name: str):
    assert chosen(environment) == name
    assert this_host(environment) == PRESETS[name]


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="has no preset 'tpu'; choose one of local, cpu-basic"):
        this_host({"NEMODIFF_PRESET": "tpu"})


def test_a_manifest_of_ones_own_is_read_instead(tmp_path: Path):
    content = yaml.safe_load(OWN.read_text("utf-8"))
    content["presets"]["local"]["limits"] = {"max_new_tokens": 7}
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(content), "utf-8")
    assert this_host({"NEMODIFF_MANIFEST": str(tmp_path / "mine.yml")}).limits.max_new_tokens == 7


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.update(schema="nemodiff.spaces/9"), "schema: input should be"),
        (lambda c: c["presets"]["local"].update(colour="red"), "presets.local.colour: extra inputs"),
        (lambda c: c["presets"]["local"].update(limits={"max_new_tokens": 0}), "presets.local.limits.max_new_tokens: "),
        (lambda c: c["presets"]["local"].update(models=[]), "presets.local.models: "),
        (lambda c: c["presets"]["local"].update(models=[{"source": "a/b"}, {"source": "a/b"}]), "two models are called 'a/b'"),
        (lambda c: c["presets"]["zero-gpu"].update(models=[{"source": "a/b"}, {"source": "tiny"}]), "ZeroGPU loads weights at the start"),
        (lambda c: c["presets"]["zero-gpu"].update(features={"any_model": True}), "ZeroGPU loads weights at the start"),
        (lambda c: c["space"].update(colorFrom="mauve"), "a Space's colours are red"),
        (lambda c: c["space"].update(short_description="x" * 61), "space.short_description: "),
        (lambda c: c.pop("space"), "space: field required"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_that_says_where(change, says: str, tmp_path: Path):
    content = yaml.safe_load(OWN.read_text("utf-8"))
    change(content)
    path = tmp_path / FILE
    path.write_text(yaml.safe_dump(content), "utf-8")
    with pytest.raises(ConfigError) as refused:
        read(path)
    assert says in str(refused.value) and str(refused.value).startswith(f"{FILE}: ") and str(refused.value).count("\n") == 0


@pytest.mark.parametrize("text", ["{", "!!python/object/apply:os.getcwd []", "[" * 500])
def test_what_is_no_yaml_or_more_than_data_is_refused(text: str, tmp_path: Path):
    (tmp_path / FILE).write_text(text, "utf-8")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / FILE)
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "nowhere.yml")


def test_front_matter_follows_the_preset():
    manifest = read(OWN)
    card = manifest.front_matter(manifest.preset("a10g"))
    assert card["suggested_hardware"] == "a10g-small" and card["preload_from_hub"] == ["nvidia/Nemotron-Labs-Diffusion-8B"]
    assert card["colorFrom"] == "blue" and card["app_file"] == "app.py" and card["python_version"] == "3.12"
    assert "preload_from_hub" not in manifest.front_matter(manifest.preset("cpu-basic"))
    assert "suggested_hardware" not in manifest.front_matter(Preset(models=(Offer(),)))
