"""The fuzz target itself: seeds pass, damage is refused or harmless, and nothing else comes out of it."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from nemodiff_core import trace_reader
from tests.fuzz import trace_fuzz
from tests.fuzz.trace_fuzz import CUT, DAMAGED, PACKED, RAW, TestOneInput, sources, upload

TestOneInput.__test__ = False
MOST = 2**20


def test_sound_traces_pass():
    assert len(sources()) >= 4
    for document in sources():
        assert upload(json.dumps(document).encode()) is not None
    for kind in (DAMAGED, PACKED):
        assert TestOneInput(bytes([kind, 0, 1])) is not None


@given(st.binary(max_size=60))
@example(bytes([CUT, 0, 0]))
@example(bytes([RAW]) + b"\x1f\x8b" + b"\0" * 30)
@example(bytes([RAW]) + b"[" * 100_000)
@example(bytes([RAW]) + b'{"schema":' + b"9" * 5000 + b"}")
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_input_is_read_or_refused(data: bytes):
    TestOneInput(data)


@given(kind=st.sampled_from([DAMAGED, PACKED]), recipe=st.binary(min_size=6, max_size=60))
@settings(max_examples=350, deadline=None, suppress_health_check=list(HealthCheck))
def test_damaged_traces_are_read_or_refused(kind: int, recipe: bytes):
    TestOneInput(bytes([kind]) + recipe)


def test_damage_is_not_always_refused_before_anything_is_looked_at():
    """The recipes reach beyond the first check: some damaged traces are sound, and refusals name many places."""
    taken = [TestOneInput(bytes([DAMAGED, 0, at % 5, *(at * k % 251 for k in range(1, 12))])) for at in range(120)]
    assert 0 < sum(trace is not None for trace in taken) < 120


def test_a_bomb_takes_no_more_memory_than_a_trace_may(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trace_reader, "MAX_TEXT_BYTES", MOST)
    bomb = gzip.compress(b" " * (32 * MOST), 9, mtime=0)
    tracemalloc.start()
    try:
        assert upload(bomb) is None
        assert tracemalloc.get_traced_memory()[1] < 3 * MOST
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(find_spec("atheris") is not None, reason="atheris is here: run the script itself")
def test_without_atheris_the_script_says_what_to_do():
    done = subprocess.run([sys.executable, str(Path(trace_fuzz.__file__))], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "pip install atheris" in done.stderr
