"""The environment is read once, and what cannot be meant is refused with a sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nemodiff_core.errors import ConfigError
from ui.ops.settings import ELSEWHERE, HUB_FRAMES, Operation

ROOT = Path(__file__).parents[3]


def test_an_empty_environment_is_a_machine_of_ones_own():
    assert Operation.read({}) == Operation(log="text", grace_s=30.0, metrics=True, metrics_token=None, frames=())


def test_a_space_is_shown_in_the_hubs_frames_and_keeps_its_figures_to_itself():
    space = Operation.read({"SPACE_ID": "me/nemodiff"})
    assert space.frames == HUB_FRAMES and not space.metrics
    assert Operation.read({"SPACE_ID": "me/nemodiff", "NEMODIFF_METRICS_TOKEN": "secret"}).metrics
    assert Operation.read({"SPACE_ID": "me/nemodiff", "NEMODIFF_METRICS": "on"}).metrics


def test_everything_can_be_said():
    said = {"NEMODIFF_LOG": "json", "NEMODIFF_GRACE_SECONDS": "5", "NEMODIFF_METRICS": "off", "NEMODIFF_FRAMES": "https://a.org http://b.org:80"}
    assert Operation.read(said) == Operation("json", 5.0, False, None, ("https://a.org", "http://b.org:80"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NEMODIFF_LOG", "xml"), ("NEMODIFF_GRACE_SECONDS", "soon"), ("NEMODIFF_GRACE_SECONDS", "-1"), ("NEMODIFF_GRACE_SECONDS", "nan"),
        ("NEMODIFF_GRACE_SECONDS", "1e9"), ("NEMODIFF_METRICS", "yes"), ("NEMODIFF_METRICS_TOKEN", "two words"),
        ("NEMODIFF_METRICS_TOKEN", "a\nb"), ("NEMODIFF_FRAMES", "*"), ("NEMODIFF_FRAMES", "https://a.org; script-src *"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(name: str, value: str):
    with pytest.raises(ConfigError, match=name) as refusal:
        Operation.read({name: value})
    assert "\n" not in str(refusal.value)


def test_every_variable_that_the_code_reads_is_listed():
    listed = set(re.findall(r"NEMODIFF_[A-Z_]+", (ROOT / "ui/ops/settings.py").read_text("utf-8")))
    read: set[str] = set()
    for package in ("nemodiff_core", "nemodiff_cli", "ui", "kernels"):
        for path in (ROOT / package).rglob("*.py"):
            read |= set(re.findall(r"\bNEMODIFF_[A-Z_]+\b", path.read_text("utf-8")))
    assert read and read <= listed, read - listed
    assert set(ELSEWHERE) <= read
