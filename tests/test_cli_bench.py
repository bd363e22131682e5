"""`nemodiff bench`: reports name the machine and the date, are compared, and say what could not be measured."""

from __future__ import annotations

from pathlib import Path

from nemodiff_cli.bench import TARGETS
from nemodiff_core.bench.report import read


def test_a_report_holds_every_mode_with_its_machine_date_and_command(nemodiff, model: Path, tmp_path: Path):
    out = tmp_path / "report.json"
    code, said, _ = nemodiff("bench", "trace", "--model", model, "--rounds", 1, "--max-new-tokens", 4, "--out", out)
    assert code == 0 and "Recording" in said
    report = read(out)
    assert [row["mode"] for row in report.table("trace").rows] == ["ar", "diffusion", "linear_spec"]
    assert report.hardware["processor"] in said and report.date in said
    assert report.command.startswith("nemodiff bench trace --model")
    assert report.machine in out.with_suffix(".md").read_text("utf-8")


def test_an_older_report_is_compared_row_by_row(nemodiff, tmp_path: Path):
    out = tmp_path / "old.json"
    assert nemodiff("bench", "kernels", "--out", out)[0] == 0
    code, said, _ = nemodiff("bench", "kernels", "--compare", out)
    assert code == 0 and "against" in said
    code, _, said = nemodiff("bench", "kernels", "--compare", tmp_path / "none.json")
    assert code != 0 and "cannot be read" in said


def test_kernels_without_a_gpu_are_reported_as_unmeasured(nemodiff, tmp_path: Path):
    import torch

    out = tmp_path / "report.json"
    assert nemodiff("bench", "kernels", "--out", out)[0] == 0
    rows = read(out).table("kernels").rows
    assert {row["kernel"] for row in rows} >= {"commit_stats", "block_attention", "add_rmsnorm"}
    if not torch.cuda.is_available():
        assert all(row["ms"] is None and "unmeasured" in row["note"] for row in rows)


def test_unknown_benchmarks_and_geometries_are_refused_with_those_there_are(nemodiff):
    code, _, said = nemodiff("bench", "everything")
    assert code != 0 and all(name in said for name in TARGETS)
    code, _, said = nemodiff("bench", "forward", "--geometry", "70B")
    assert code != 0 and "14B" in said
