"""`nemodiff oracle` and `nemodiff regret`: what they print and save, and one line with status 2 for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemodiff_core.trace import Trace
from tests.conftest import Command
from tests.test_cli import MODEL


def test_the_oracles_schedule_can_be_saved_and_looked_at_for_regret(tmp_path: Path, nemodiff: Command):
    path, looked_at = tmp_path / "oracle.json.gz", tmp_path / "regret.json"
    answer = nemodiff("oracle", "Tell a story.", "-n", "8", "-b", "4", "--budget", "20", "--json", str(path), *MODEL)
    assert answer.status == 0, answer.err
    for word in ("one at a time", "speed of light", "NFE", "TPF"):
        assert word in answer.out
    found = Trace.load(path)
    assert found.request["mode"] == "diffusion" and found.parent["intervention"]["kind"] == "oracle"
    assert [note["kind"] for note in found.annotations] == ["oracle"] * 2

    answer = nemodiff("regret", str(path), "--json", str(looked_at), *MODEL)
    assert answer.status == 0, answer.err
    assert "nats" in answer.out
    annotated = Trace.load(looked_at)
    assert annotated.steps == found.steps
    assert {note["kind"] for note in annotated.annotations} >= {"oracle", "regret"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["oracle"], "--trace"),
        (["oracle", "hello", "--trace", "run.json"], "one of them"),
        (["oracle", "--trace", "/nowhere/run.json"], "run.json"),
        (["oracle", "--trace", "run.json", "-b", "8"], "keeps its settings"),
        (["oracle", "hello", "-b", "1"], "block_length"),
        (["oracle", "hello", "--budget", "-1"], "budget"),
        (["oracle", "hello", "--json", "/nowhere/at/all/out.json"], "/nowhere/at/all"),
        (["regret", "/nowhere/run.json"], "run.json"),
        (["regret", "pyproject.toml"], "JSON"),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments: list[str], says: str, nemodiff: Command):
    answer = nemodiff(*arguments)
    assert answer.status == 2
    assert says in answer.err
    assert len(answer.err.strip().splitlines()) == 1, answer.err
    assert answer.out == ""
