"""Votes are kept once, without prompts, and leave as figures and as CSV."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from nemodiff_core.errors import NemodiffError
from ui.ballot import table
from ui.votes import COLUMNS, Score, Votes, data_folder

SECRET = "What is my sister's name?"
AR = {"model": {"id": "tiny"}, "request": {"mode": "ar", "prompt": SECRET, "seed": 3, "candidates": 5}}
FAST = {"model": {"id": "tiny"}, "request": {"mode": "diffusion", "prompt": SECRET, "threshold": 0.7, "block_length": 16}}
FAST_NAME = "Block diffusion · threshold 0.7 · block 16"


@pytest.fixture
def votes(tmp_path: Path) -> Votes:
    return Votes(tmp_path / "data")


def rows(votes: Votes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(votes.csv())))


def test_nothing_is_written_before_somebody_votes_or_looks(votes: Votes):
    assert not votes.folder.exists()
    votes.add("run-1", SECRET, [AR, FAST], [1])
    assert [path.name for path in votes.folder.iterdir()] == ["votes.sqlite3"]
    assert votes.problem is None


def test_scores_count_wins_ties_and_refusals_by_setting(votes: Votes):
    votes.add("run-1", SECRET, [AR, FAST], [1])
    votes.add("run-2", "another", [FAST, {**AR, "request": {**AR["request"], "seed": 8}}], [0, 1])
    votes.add("run-3", "a third", [AR, FAST], [])
    assert votes.scores() == [Score(FAST_NAME, 3, 1, 1, 1), Score("Autoregressive", 3, 0, 1, 1)]
    assert [row["verdict"] for row in rows(votes)] == ["not chosen", "best", "tied", "tied", "all bad", "all bad"]


def test_the_same_setting_of_another_model_is_another_line(votes: Votes):
    votes.add("run-1", SECRET, [AR, {**AR, "model": {"id": "nvidia/big"}}], [1])
    assert [score.setting for score in votes.scores()] == ["Autoregressive · nvidia/big", "Autoregressive · tiny"]


def test_prompts_are_neither_stored_nor_exported(votes: Votes):
    votes.add("run-1", SECRET, [AR, FAST], [0])
    votes.add("run-2", SECRET, [AR, FAST], [0])
    assert SECRET.encode() not in (votes.folder / "votes.sqlite3").read_bytes()
    assert SECRET not in votes.csv()
    assert list(rows(votes)[0]) == list(COLUMNS)
    assert len({row["prompt_hash"] for row in rows(votes)}) == 1


def test_hashes_of_two_hosts_cannot_be_compared(votes: Votes, tmp_path: Path):
    other = Votes(tmp_path / "other")
    for each in (votes, other):
        each.add("run-1", SECRET, [AR, FAST], [0])
    assert rows(votes)[0]["prompt_hash"] != rows(other)[0]["prompt_hash"]


def test_a_host_may_keep_prompts_but_the_csv_never_has_them(tmp_path: Path):
    votes = Votes(tmp_path, keep_prompts=True)
    votes.add("run-1", SECRET, [AR, FAST], [0])
    (kept,) = sqlite3.connect(tmp_path / "votes.sqlite3").execute("SELECT prompt FROM votes").fetchone()
    assert kept == SECRET and SECRET not in votes.csv()


def test_a_run_is_voted_on_once(votes: Votes):
    votes.add("run-1", SECRET, [AR, FAST], [0])
    with pytest.raises(NemodiffError, match="voted on already"):
        votes.add("run-1", SECRET, [AR, FAST], [1])
    assert len(rows(votes)) == 2


def test_votes_survive_the_app(votes: Votes):
    votes.add("run-1", SECRET, [AR, FAST], [0])
    again = Votes(votes.folder)
    again.add("run-2", SECRET, [AR, FAST], [0])
    assert len({row["prompt_hash"] for row in rows(again)}) == 1 and len(rows(again)) == 4


def test_where_nothing_can_be_written_votes_live_in_memory_and_the_page_says_so(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder", "utf-8")
    votes = Votes(blocked)
    votes.add("run-1", SECRET, [AR, FAST], [0])
    assert len(rows(votes)) == 2
    assert "until the app stops" in votes.problem and "NEMODIFF_DATA" in table(votes)


def test_the_page_escapes_what_files_say(votes: Votes):
    evil = {"model": {"id": "<img src=x>"}, "request": {"mode": "<script>", "block_length": 16}}
    votes.add("run-1", SECRET, [evil, AR], [0])
    shown = table(votes)
    assert "<script>" not in shown and "<img" not in shown and "&lt;script&gt;" in shown


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum"])
def test_no_cell_of_the_csv_is_a_formula(votes: Votes, name: str):
    votes.add("run-1", SECRET, [{**AR, "model": {"id": name}}, FAST], [0])
    assert rows(votes)[0]["model"] == f"'{name}"


def test_before_the_first_vote_the_page_says_so(votes: Votes):
    assert "No votes yet" in table(votes)
    assert rows(votes) == []


def test_the_data_folder_is_the_operators_choice_or_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("NEMODIFF_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.delenv("NEMODIFF_DATA")
    assert data_folder().name == "nemodiff" and os.path.expanduser("~") in str(data_folder())


def test_requests_are_kept_as_json(votes: Votes):
    votes.add("run-1", SECRET, [AR, FAST], [0])
    kept: list[Any] = [json.loads(row["request"]) for row in rows(votes)]
    assert kept == [{"mode": "ar", "seed": 3, "candidates": 5}, {"mode": "diffusion", "threshold": 0.7, "block_length": 16}]
