"""`nemodiff export`: what it writes, and one line with status 2 for every mistake."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from nemodiff_core.trace import Trace
from ui.export.plan import make_plan


@pytest.fixture
def saved(traces_on_disk: dict[str, Path]) -> Path:
    return traces_on_disk["linear_spec"]


@pytest.fixture
def traces_on_disk(tmp_path: Path) -> dict[str, Path]:
    from tests.ui.player.traces import race

    paths = {}
    for trace in race():
        paths[trace.request["mode"]] = tmp_path / f"{trace.request['mode']}.json.gz"
        trace.save(paths[trace.request["mode"]])
    return paths


def test_one_run_in_every_format(nemodiff: Any, saved: Path, tmp_path: Path):
    for ending in (".html", ".gif", ".mp4", ".csv"):
        out = tmp_path / f"out{ending}"
        status, _, said = nemodiff("export", saved, "--to", out)
        assert status == 0 and out.name in said and " KB in " in " ".join(said.split())
    assert (tmp_path / "out.html").read_text("utf-8").startswith("<!doctype html>")
    frames = len(make_plan([Trace.load(saved)]).moments)
    with Image.open(tmp_path / "out.gif") as image:
        assert image.n_frames == frames
    with av.open(str(tmp_path / "out.mp4")) as film:
        assert film.streams.video[0].frames > frames
    assert not list(tmp_path.glob("*.partial"))


def test_several_runs_are_a_race_and_tables_can_be_chosen(nemodiff: Any, traces_on_disk: dict[str, Path], tmp_path: Path):
    out = tmp_path / "race.csv"
    for table, column in (("metrics", "tpf"), ("tokens", "confidence"), ("cycles", "acceptance_length"), ("steps", "phase")):
        status, _, _ = nemodiff("export", *traces_on_disk.values(), "--to", out, "--table", table)
        rows = list(csv.DictReader(io.StringIO(out.read_text("utf-8-sig"))))
        assert status == 0 and column in rows[0]
        assert {row["mode"] for row in rows} == ({"linear_spec"} if table == "cycles" else set(traces_on_disk))


def test_mistakes_are_one_line(nemodiff: Any, saved: Path, tmp_path: Path):
    cases = [
        ((tmp_path / "out.png",), ".png"),
        ((tmp_path / "out",), "nothing"),
        ((tmp_path / "out.gif", "--theme", "pink"), "--theme"),
        ((tmp_path / "out.gif", "--table", "steps"), "--table"),
        ((tmp_path / "out.csv", "--table", "prices"), "--table"),
        ((tmp_path / "nowhere" / "out.gif",), "nowhere"),
    ]
    for arguments, says in cases:
        status, _, error = nemodiff("export", saved, "--to", *arguments)
        assert status == 2 and says in error and error.count("\n") == 1, arguments
    status, _, error = nemodiff("export", tmp_path / "gone.json", "--to", tmp_path / "out.gif")
    assert status == 2 and "gone.json" in error
    assert not list(tmp_path.glob("out*"))
