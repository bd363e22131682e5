"""Saved runs come back as they were; files that are none are refused with one sentence."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from nemodiff_core import trace_reader
from nemodiff_core.errors import NemodiffError, TraceError
from ui import files
from ui.messages import write_traces
from ui.runs import RunStore


@pytest.mark.parametrize("modes", [["ar"], ["ar", "linear_spec"]])
def test_what_is_saved_can_be_opened(modes, traces, tmp_path: Path):
    record = RunStore().create("me", lanes=len(modes))
    write_traces(record, [traces[mode] for mode in modes])
    path = tmp_path / files.file_name(record)
    path.write_bytes(files.pack(record))
    again = files.read(path)
    assert [json.loads(t.to_json()) for t in again] == [json.loads(traces[mode].to_json()) for mode in modes]


@pytest.mark.parametrize("name", ["race.json", "race.json.gz"])
def test_written_files_can_be_opened(name, traces, tmp_path: Path):
    files.write([traces["ar"], traces["linear_spec"]], tmp_path / name)
    assert [t.request["mode"] for t in files.read(tmp_path / name)] == ["ar", "linear_spec"]


def test_there_is_nothing_to_save_before_a_lane_is_finished():
    with pytest.raises(NemodiffError, match="nothing to save yet"):
        files.pack(RunStore().create("me"))


def test_the_file_name_does_not_give_the_id_away():
    record = RunStore().create("me")
    assert record.id not in files.file_name(record)


def test_hostile_and_broken_files_are_refused(hand_made, tmp_path: Path):
    whole = json.dumps(hand_made["ar"]).encode()
    race = {"schema": files.RACE_SCHEMA, "traces": [hand_made["ar"]]}
    packed = gzip.compress(whole)
    cases = {
        "empty": b"",
        "picture": b"\x89PNG\r\n\x1a\n",
        "text": b"hello",
        "cut": whole[:-20],
        "cut gzip": packed[:-20],
        "damaged gzip": packed[:30] + b"\0\0\0\0" + packed[34:],
        "deep": b"[" * 200_000,
        "list": b"[]",
        "number": b"1",
        "another schema": whole.replace(b"nemodiff.trace/1", b"nemodiff.trace/9"),
        "race of one": json.dumps(race).encode(),
        "race of strangers": json.dumps({**race, "traces": [1, 2]}).encode(),
        "race of many": json.dumps({**race, "traces": [hand_made["ar"]] * 5}).encode(),
        "lying output": json.dumps({**hand_made["ar"], "output": {"ids": [50], "pieces": ["<50>"]}}).encode(),
    }
    for name, content in cases.items():
        path = tmp_path / "trace.json.gz"
        path.write_bytes(content)
        with pytest.raises(TraceError) as refusal:
            files.read(path)
        assert "\n" not in str(refusal.value), name
    with pytest.raises(TraceError):
        files.read(tmp_path / "missing.json")


def test_a_gzip_bomb_is_not_unpacked(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(trace_reader, "MAX_TEXT_BYTES", 2**20)
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * 2**24))
    with pytest.raises(TraceError, match="unpacks to more than 1 MB"):
        files.read(path)


def test_a_huge_file_is_not_read(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(trace_reader, "MAX_FILE_BYTES", 100)
    path = tmp_path / "huge.json"
    path.write_bytes(b" " * 1000)
    with pytest.raises(TraceError, match="larger than"):
        files.read(path)
