"""`nemodiff bench`: reports name the machine and the date, and say what could not be measured."""

from __future__ import annotations

import json
from pathlib import Path

from nemodiff_cli.bench import TARGETS


def test_a_report_holds_every_mode_with_its_machine_and_date(nemodiff, model: Path, tmp_path: Path):
    out = tmp_path / "report.json"
    code, said, _ = nemodiff("bench", "trace", "--model", model, "--json", out)
    assert code == 0 and "with 8 candidates" in said
    report = json.loads(out.read_text("utf-8"))
    assert [row["mode"] for row in report["trace"]] == ["ar", "diffusion", "linear_spec"]
    assert all(row["ratio"] > 0 and row["ms"] > 0 for row in report["trace"])
    assert report["hardware"]["processor"] in said and report["date"] in said


def test_kernels_without_a_gpu_are_reported_as_unmeasured(nemodiff, tmp_path: Path):
    import torch

    out = tmp_path / "report.json"
    assert nemodiff("bench", "kernels", "--json", out)[0] == 0
    rows = json.loads(out.read_text("utf-8"))["kernels"]
    assert {row["kernel"] for row in rows} >= {"commit_stats", "block_attention", "add_rmsnorm"}
    if not torch.cuda.is_available():
        assert all(row["ms"] is None and "unmeasured" in row["note"] for row in rows)


def test_an_unknown_benchmark_is_refused_with_those_there_are(nemodiff):
    code, _, said = nemodiff("bench", "everything")
    assert code != 0 and all(name in said for name in TARGETS)
