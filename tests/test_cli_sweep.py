"""`nemodiff sweep` and `nemodiff roofline`: what they print and leave behind, and one line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemodiff_core.analysis.sweep import Sweep, read_rows
from tests.conftest import Command


def grid(out: Path, model: Path, *more: object) -> list[object]:
    return ["sweep", "--out", out, "--model", model, "--mode", "ar", "--mode", "diffusion", "-b", 4, "-n", 6,
            "--threshold", 0.2, "--threshold", 0.9, "--knob", "stop_at_eos=false", *more]  # fmt: skip


def test_a_sweep_prints_its_front_and_continues(nemodiff: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    command = grid(out, model, "--prompts", 1, "--families", "qa,list")
    append = Sweep._append

    def interrupted(sweep: Sweep, row: dict) -> None:
        if len(sweep.rows) == 3:
            raise KeyboardInterrupt
        append(sweep, row)

    monkeypatch.setattr(Sweep, "_append", interrupted)
    status, _, error = nemodiff(*command)
    assert status == 130 and "3 of 6 runs are done; the same command continues" in error
    monkeypatch.setattr(Sweep, "_append", append)

    status, table, error = nemodiff(*command)
    assert status == 0 and "3 of 6 runs are done already" in error, error
    rows = read_rows(out / "runs.csv")
    assert len(rows) == 6 and all((out / row["trace"]).is_file() and row["stop_at_eos"] is False for row in rows)
    assert "●" in table and all(word in table for word in ("diffusion", "0.9", "TPF", "correct"))
    assert len([line for line in table.splitlines() if " ar " in line or " diffusion " in line]) == 3

    status, _, error = nemodiff(*grid(out, model, "--prompts", 2, "--families", "qa,list"))
    assert status == 2 and "other settings or prompts" in error


def test_a_sweep_over_a_file_of_prompts_is_not_graded(nemodiff: Command, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("Hello\nGood morning\n", "utf-8")
    status, table, error = nemodiff(*grid(tmp_path / "out", model, "--prompts-file", file))
    assert status == 0, error
    assert {row["prompt_id"] for row in read_rows(tmp_path / "out" / "runs.csv")} == {"line-0001", "line-0002"}
    assert "tokens_per_second" in table and "●" in table and "%" not in table


def test_a_roofline_of_a_known_device_and_of_recorded_runs(nemodiff: Command, model: Path, tmp_path: Path) -> None:
    status, table, error = nemodiff(
        "roofline", "--model", model, "--device", "h200", "--tpf", 2.5, "--acceptance", 6, "--concurrency", 1, "--concurrency", 32
    )
    assert status == 0, error
    for text in ("NVIDIA H200 SXM (vendor)", "4,800 GB/s", "ar", "2.50", "quadratic_spec", "tokens/s at 32", "no gain from"):
        assert text in table
    nemodiff(*grid(tmp_path / "out", model, "--prompts", 1, "--families", "qa"))
    status, table, error = nemodiff(
        "roofline", "--model", model, "--device", "h200", "--dtype", "float32", "--traces", tmp_path / "out" / "traces"
    )
    assert status == 0, error
    assert all(word in table for word in ("prefill", "denoise", "commit", "ratio"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sweep", "--out", "OUT", "--mode", "telepathy"], "telepathy"),
        (["sweep", "--out", "OUT", "--threshold", "2"], "threshold"),
        (["sweep", "--out", "OUT", "--knob", "speed=1"], "speed"),
        (["sweep", "--out", "OUT", "--knob", "speed"], "NAME=VALUE"),
        (["sweep", "--out", "OUT", "--prompts", "0"], "--prompts"),
        (["sweep", "--out", "OUT", "--families", "chess"], "chess"),
        (["sweep", "--out", "OUT", "--families", "qa", "--prompts-file", "x"], "--families"),
        (["sweep", "--out", "OUT", "--prompts", "1", "--families", "qa", "--workers", "0"], "workers"),
        (["sweep", "--out", "OUT", "--prompts", "1", "--families", "qa", "--model", "/nowhere/at/all"], "/nowhere/at/all"),
        (["sweep"], "--out"),
        (["roofline", "--device", "abacus"], "abacus"),
        (["roofline", "--device", "h200", "--model", "/nowhere/at/all"], "/nowhere/at/all"),
        (["roofline", "--device", "h200", "--tpf", "0"], "--tpf"),
        (["roofline", "--device", "h200", "--concurrency", "0"], "--concurrency"),
        (["roofline", "--device", "h200", "--acceptance", "99"], "--acceptance"),
        (["roofline", "--device", "t4", "--dtype", "bfloat16"], "bfloat16"),
        (["roofline", "--device", "h200", "--traces", "/nowhere/at/all.json"], "all.json"),
    ],
)
def test_mistakes_are_one_line_and_status_2(nemodiff: Command, tmp_path: Path, arguments: list[str], says: str) -> None:
    status, output, error = nemodiff(*(str(tmp_path / "out") if word == "OUT" else word for word in arguments))
    assert status == 2 and output == ""
    assert len(error.strip().splitlines()) == 1 and says in error, error
