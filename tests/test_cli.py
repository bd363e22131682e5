"""The command line: what it prints, what it saves, and one line with status 2 for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from nemodiff_core.checkpoint import bundled_path
from nemodiff_core.trace import Trace
from tests.conftest import Command

ROOT = Path(__file__).parents[1]
# The bundled model, unless NEMODIFF_TEST_MODEL asks for the same tests against another checkpoint.
OTHER = os.environ.get("NEMODIFF_TEST_MODEL")
MODEL = ["--model", OTHER] if OTHER else []


def test_help_names_the_commands():
    answer = subprocess.run([sys.executable, "-m", "nemodiff_cli.main", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0
    for command in ("serve", "decode", "train", "eval", "info"):
        assert command in answer.stdout


@pytest.mark.parametrize("mode", ["ar", "diffusion", "linear_spec"])
def test_decode_saves_a_sound_trace_and_prints_its_text(mode: str, tmp_path: Path, nemodiff: Command):
    path = tmp_path / "run.json.gz"
    answer = nemodiff("decode", "Sort these numbers: 3 1 2", "--mode", mode, "-n", "12", "--candidates", "2", "--json", str(path), *MODEL)
    assert answer.status == 0, answer.err
    trace = Trace.load(path)
    assert trace.request["mode"] == mode
    assert 0 < len(trace.output.ids) <= 12
    for figure in ("tokens", "NFE", "TPF"):
        assert figure in answer.out
    assert ("acceptance" in answer.out) == (mode == "linear_spec")


def test_several_prompts_are_one_batch_with_a_trace_each(tmp_path: Path, nemodiff: Command):
    prompts = ["Sort these numbers: 3 1 2", "Tell a story about a fox.", "-"]
    answer = nemodiff("decode", *prompts, "--mode", "linear_spec", "-n", "8", "--json", str(tmp_path / "run.json.gz"), *MODEL, stdin="What is 1 + 2?")
    assert answer.status == 0, answer.err
    assert "One batch of 3" in answer.out and "acceptance" in answer.out
    traces = [Trace.load(tmp_path / f"run-{n}.json.gz") for n in (1, 2, 3)]
    assert [trace.request["prompt"] for trace in traces] == [*prompts[:2], "What is 1 + 2?"]
    assert all(trace.environment["batch"] == 3 and 0 < len(trace.output.ids) <= 8 for trace in traces)


def test_decode_prints_nothing_but_the_trace_when_asked(nemodiff: Command):
    answer = nemodiff("decode", "-", "--mode", "ar", "-n", "4", "--json", "-", *MODEL, stdin="Tell a story about a fox.")
    assert answer.status == 0, answer.err
    trace = Trace.from_json(answer.out)
    assert trace.request["prompt"] == "Tell a story about a fox."
    assert "tokens" in answer.err


def test_info_describes_the_bundled_model(nemodiff: Command):
    answer = nemodiff("info", *MODEL[1:])
    assert answer.status == 0, answer.err
    folder = Path(OTHER) if OTHER else bundled_path()
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert folder.name in answer.out
    assert f"{config['vocab_size']:,}" in answer.out
    assert "fits a card of" in answer.out
    for form in ("float32", "bfloat16", "int8", "int4"):
        assert f"\n{form} " in answer.out


def test_info_says_what_fits_where_before_anything_is_downloaded(nemodiff: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from nemodiff_core.analysis.released import RELEASED

    folder = tmp_path / "8B"
    folder.mkdir()
    asked = []

    def download(hub_id, revision=None, allow_patterns=None, **how):
        if how.get("dry_run"):
            return []
        asked.append(list(allow_patterns))
        (folder / "config.json").write_text(json.dumps(RELEASED["Nemotron-Labs-Diffusion-8B"].to_dict()))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    status, printed, _ = nemodiff("info", "nvidia/Nemotron-Labs-Diffusion-8B")
    assert status == 0 and asked == [["config.json", "README.md"]] and "not downloaded" in printed
    rows = {line.split()[0]: line for line in printed.splitlines() if line.strip()}
    assert "31.6 GB" in rows["float32"] and " 40 GB" in rows["float32"]
    assert "15.8 GB" in rows["bfloat16"] and " 24 GB" in rows["bfloat16"]
    assert "7.9 GB" in rows["int8"] and " 12 GB" in rows["int8"]
    assert "4.9 GB" in rows["int4"] and " 8 GB" in rows["int4"]


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_a_trace_of_quantised_weights_says_so(form: str, tmp_path: Path, nemodiff: Command):
    path = tmp_path / "run.json"
    answer = nemodiff("decode", "Sort these numbers: 3 1 2", "-n", "8", "--dtype", form, "--json", str(path), *MODEL)
    assert answer.status == 0, answer.err
    assert Trace.load(path).model["dtype"] == form


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["decode", "hello", "--model", "/nowhere/at/all"], "/nowhere/at/all"),
        (["decode", "hello", "--block-length", "1"], "block_length"),
        (["decode", *["hello"] * 9, *MODEL], "1 to 8 together"),
        (["decode", "hello", "--threshold", "2"], "threshold"),
        (["decode", "hello", "--steps", "4", "--threshold", "0.5"], "steps"),
        (["decode", "", "--mode", "ar"], "prompt"),
        (["decode", "hello", *MODEL, "--device", "abacus"], "abacus"),
        (["decode", "hello", *MODEL, "--dtype", "int3"], "int8, int4"),
        (["decode", "hello", "--json", "/nowhere/at/all/trace.json"], "/nowhere/at/all"),
        (["info", "/nowhere/at/all"], "/nowhere/at/all"),
        (["eval", "--prompts", "0"], "--prompts"),
        (["train", "--preset", "abacus"], "abacus"),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments: list[str], says: str, nemodiff: Command):
    answer = nemodiff(*arguments)
    assert answer.status == 2
    assert says in answer.err
    assert len(answer.err.strip().splitlines()) == 1, answer.err
    assert answer.out == ""


@pytest.mark.parametrize("arguments", [["nonsense"], ["decode", "hello", "--mode", "telepathy"], ["serve", "--port", "x"]])
def test_misspelt_arguments_are_status_2(arguments: list[str], nemodiff: Command):
    answer = nemodiff(*arguments)
    assert answer.status == 2
    assert "Traceback" not in answer.err
