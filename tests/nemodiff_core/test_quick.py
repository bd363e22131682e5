"""The short way for scripts: cheap to import, and the same runs as the engine's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import nemodiff_core
from nemodiff_core import Model, Trace, load
from nemodiff_core.engine import Engine
from nemodiff_core.errors import CheckpointError, RequestError
from nemodiff_core.metrics import summary
from nemodiff_core.request import Limits, parse_request

REPOSITORY = Path(__file__).parents[2]


def python(*arguments: str, **more: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=True, env=environment, cwd=more.get("cwd"))
    return ran.stdout


def test_importing_the_package_loads_no_library():
    said = python("-c", "import sys, nemodiff_core; from nemodiff_core import load, parse_request; print([m for m in ('torch', 'transformers', 'gradio') if m in sys.modules])")
    assert said.strip() == "[]"


def test_every_name_is_there_and_no_other():
    assert all(getattr(nemodiff_core, name) is not None for name in nemodiff_core.__all__) and set(nemodiff_core.__all__) <= set(dir(nemodiff_core))
    with pytest.raises(AttributeError, match="nonsense"):
        nemodiff_core.nonsense  # noqa: B018


@pytest.mark.parametrize("mode", ["ar", "diffusion", "linear_spec"])
def test_runs_are_the_engines_own(tiny_engine: Engine, mode: str):
    asked = {"mode": mode, "max_new_tokens": 12, "temperature": 0.5, "seed": 3}
    expected = tiny_engine.run(parse_request({"prompt": "hello", **asked}))
    steps = list(expected)
    run, texts = Model(tiny_engine).run("hello", **asked), []
    for _ in run:
        texts.append(run.text)
    assert [s.events for s in run.trace.steps] == [s.events for s in steps]
    assert run.text == texts[-1] == tiny_engine.text(expected.trace().output.ids)
    assert run.metrics["nfe"] == summary(expected.trace())["nfe"] and Trace.from_json(run.trace.to_json())


def test_a_run_may_be_left_and_limits_count(tiny_engine: Engine):
    model = Model(tiny_engine)
    run = model.run("hello", mode="ar", max_new_tokens=50)
    next(iter(run))
    run.close()
    assert len(run.trace.steps) == 1 and model.write("hello", mode="ar", max_new_tokens=4)
    with pytest.raises(RequestError, match="nonsense is no setting"):
        model.run("hello", nonsense=1)


def test_models_are_loaded_from_folders(model: Path):
    loaded = load(model, device="cpu", dtype="float32", limits=Limits(max_new_tokens=5))
    assert "float32" in repr(loaded) and loaded.write("hello", max_new_tokens=5) == loaded.run("hello", max_new_tokens=5).finish().text
    with pytest.raises(RequestError, match="at most 5"):
        loaded.run("hello", max_new_tokens=6)
    with pytest.raises(CheckpointError):
        load(model / "nowhere")


def test_the_example_runs(tmp_path: Path):
    said = python(str(REPOSITORY / "examples" / "quick_start.py"), cwd=str(tmp_path))
    assert "tokens per forward" in said and "identical to autoregressive decoding: True" in said
    assert Trace.load(tmp_path / "run.json.gz").request["mode"] == "diffusion"
