"""Every benchmark runs at its smallest and says what it should; no time is ever asserted."""

from __future__ import annotations

from typing import Any

import pytest

from nemodiff_core.bench import decode, forward, recording, scale
from nemodiff_core.bench.report import Spread, Table
from nemodiff_core.bench.stopwatch import HOST, Stopwatch
from nemodiff_core.errors import NemodiffError
from nemodiff_core.metrics import seconds
from nemodiff_core.request import Limits, parse_request


def rows(table: Table) -> dict[Any, dict[str, Any]]:
    return {table.key(row): row for row in table.rows}


@pytest.fixture
def one_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of one kind of task only."""
    for module in (decode, recording):
        plenty = module.task_prompts
        monkeypatch.setattr(module, "task_prompts", lambda per_family, plenty=plenty: plenty(per_family, 0, ["arithmetic"]))


def test_decode_compares_every_mode_that_has_a_loop(tiny_engine: Any, one_family: None):
    heard: list[tuple[int, int, str]] = []
    rates, split = decode.measure(tiny_engine, rounds=2, max_new_tokens=6, listen=lambda *said: heard.append(said))
    found = rows(rates)
    assert list(found) == [(mode,) for mode in decode.MODES]
    for mode in ("ar", "diffusion", "linear_spec"):
        row = found[(mode,)]
        assert row["same tokens"] == "1 of 1" and row["forwards"] == row["loop forwards"] and isinstance(row["× loop"], Spread)
    assert found[("quadratic_spec",)]["note"] == decode.NO_LOOP
    for row in split.rows:
        assert sum(value for name, value in row.items() if name.endswith("%")) == pytest.approx(100)
    assert heard[-1][0] == heard[-1][1] and [done for done, _, _ in heard] == sorted(done for done, _, _ in heard)


def test_without_transformers_the_loop_is_unmeasured(tiny_engine: Any, one_family: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nemodiff_core.bench.plain.find_spec", lambda name: None)
    (row,) = decode.measure(tiny_engine, rounds=1, max_new_tokens=3, modes=("ar",))[0].rows
    assert "transformers is not installed" in row["note"] and "loop tokens/s" not in row


@pytest.mark.parametrize("mode", decode.MODES)
def test_the_stopwatch_accounts_for_the_whole_run(mode: str, tiny_engine: Any):
    watch = Stopwatch(tiny_engine.checkpoint, Limits())
    split = watch.run(parse_request({"prompt": "1 + 1", "mode": mode, "max_new_tokens": 9, "block_length": 4}))
    spent = split.seconds()
    assert sum(spent.values()) == pytest.approx(seconds(split.trace)) and spent[HOST] > 0
    assert all(took > 0 for took in split.in_forwards)  # no forward escapes it
    assert spent.keys() == {step.phase for step in split.trace.steps} | {HOST}


def test_recording_is_weighed_in_time_and_bytes(tiny_engine: Any, one_family: None):
    times, sizes = recording.measure(tiny_engine, rounds=1, max_new_tokens=5)
    assert all(row["same tokens"] and isinstance(row["recorded %"], Spread) for row in times.rows)
    found = rows(sizes)
    assert found.keys() == {(mode, count) for mode in ("ar", "diffusion", "linear_spec") for count in (0, 8)}
    for row in sizes.rows:
        assert 0 < row["of which steps"] < row["bytes/commit"] and row["events/commit"] >= 1
    assert found[("ar", 0)]["of which steps"] < found[("ar", 8)]["of which steps"]


def test_forwards_name_their_bytes_and_what_does_not_fit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forward, "_MOST", 2)
    monkeypatch.setattr(forward, "free_memory", lambda: {"cpu": 2e9})
    (table,) = forward.measure(["tiny", "3B"], "cpu", rows=(1, 4), prefix=16, seconds=1.0)
    found = rows(table)
    tiny = found[("tiny", "float32", 1, 16)]
    assert tiny["MB"] > 10 and isinstance(tiny["ms"], Spread) and tiny["× floor"] > 0 and tiny["× transformers"] > 0
    assert "needs 7.7 GB" in found[("3B", "bfloat16", 4, 16)]["note"]
    with pytest.raises(NemodiffError, match="no geometry"):
        forward.measure(["70B"])


def test_growth_is_read_off_one_run_and_ends_with_the_time(tiny_engine: Any):
    by_length, by_batch, by_block = scale.measure(
        tiny_engine, lengths=(8, 16, 2048), batches=(1, 3), blocks=(2, 8), modes=("ar", "linear_spec"), short=4, seconds=1.0
    )
    found = rows(by_length)
    assert found[("ar", 16)]["cache MB"] > found[("ar", 8)]["cache MB"] and found[("ar", 8)]["host ms/forward"] > 0
    measured = [row for row in by_length.rows if row["mode"] == "ar" and "note" not in row]
    assert measured[-1]["bytes/commit"] > 0 and "bytes/commit" not in measured[0]
    assert rows(by_batch)[("ar", 1)]["tokens/s"] > 0
    assert [row["block"] for row in by_block.rows] == [2, 8] and all(row["mode"] == "linear_spec" for row in by_block.rows)
