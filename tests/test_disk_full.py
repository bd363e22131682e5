"""A full disk costs what was being written, with a sentence, and nothing that was saved before."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from nemodiff_core.analysis.sweep import read_rows
from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Trace
from tests.conftest import Command
from ui.votes import Votes

LANES = [{"model": {"id": "tiny"}, "request": {"mode": mode, "block_length": 16}} for mode in ("ar", "diffusion")]


class Disk:
    """Lets so many files of bytes be written; of the next it takes the half."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self._write = room, Path.write_bytes
        disk = self

        def write(path: Path, data: Any) -> int:
            if disk.room == 0:
                disk._write(path, data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            disk.room -= 1
            return disk._write(path, data)

        monkeypatch.setattr(Path, "write_bytes", write)


def test_a_trace_that_finds_no_room_leaves_the_old_one(tiny_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = tiny_engine.run(DecodeRequest(prompt="Hello", mode="ar", max_new_tokens=4, stop_at_eos=False))
    for _ in run:
        pass
    path = tmp_path / "run.json.gz"
    run.trace().save(path)
    before = path.read_bytes()
    Disk(monkeypatch, 0)
    with pytest.raises(OSError, match="No space left"):
        run.trace().save(path)
    assert path.read_bytes() == before and Trace.load(path).id == run.id
    assert [file.name for file in tmp_path.iterdir()] == ["run.json.gz"], "a half written file takes room that is needed"


def test_a_sweep_goes_on_where_the_disk_was_full(nemodiff: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    command = ["sweep", "--out", out, "--model", model, "--mode", "ar", "-n", 4, "--prompts", 3, "--families", "qa", "--knob", "stop_at_eos=false"]
    with monkeypatch.context() as patch:
        Disk(patch, 2)
        status, _, error = nemodiff(*command)
    assert status == 2 and "the disk is full; free some space" in error and "\n" not in error.strip().splitlines()[-1]
    kept = read_rows(out / "runs.csv")
    assert len(kept) == 2 and all(Trace.load(out / row["trace"]).stop_reason for row in kept)
    status, _, error = nemodiff(*command)
    assert status == 0 and "2 of 3 runs are done already" in error
    assert read_rows(out / "runs.csv")[:2] == kept


def test_votes_that_find_no_room_are_refused_and_the_others_stay(tmp_path: Path):
    votes = Votes(tmp_path)
    votes.add("first", "Hello", LANES, [0])
    database = votes._database()
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then says itself that the disk is full
    kept = 1
    with pytest.raises(NemodiffError, match=r"could not be kept \(database or disk is full\); try again") as refusal:
        for kept in range(1, 2000):
            votes.add(f"vote {kept}", "Hello", LANES, [1])
    assert "\n" not in str(refusal.value)
    assert sum(score.shown for score in votes.scores()) == 2 * kept
    database.execute("PRAGMA max_page_count = 100000")
    votes.add("last", "Hello", LANES, [0, 1])
    assert sum(score.shown for score in Votes(tmp_path).scores()) == 2 * (kept + 1)
