"""The image: an ordinary user, nothing fetched but what is pinned, a health check, and only files that are here."""

from __future__ import annotations

import ast
import fnmatch
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from ui.ops.health import READY

ROOT = Path(__file__).parents[1]
Instruction = tuple[str, str]


@pytest.fixture(scope="module")
def instructions() -> list[Instruction]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Containerfile").read_text("utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [(name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def all_of(instructions: list[Instruction], name: str) -> list[str]:
    return [rest for found, rest in instructions if found == name]


def left_out(path: str) -> bool:
    """As the builder reads the ignore file: the last pattern that fits decides, for the path or a folder above it."""
    out = False
    parts = path.split("/")
    above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    for line in (ROOT / ".containerignore").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").removeprefix("**/")
            if any(fnmatch.fnmatchcase(name, pattern) for name in (*above, *(parts if "**/" in line else ()))):
                out = not line.startswith("!")
    return out


def test_it_runs_as_an_ordinary_user_who_owns_the_data_alone(instructions: list[Instruction]):
    (user,) = all_of(instructions, "USER")
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", user), "a number, so that a cluster can see that it is not root"
    assert all_of(instructions, "VOLUME") == ["/data"]
    order = [name for name, _ in instructions]
    assert order.index("USER") > max(at for at, name in enumerate(order) if name in ("RUN", "COPY")), "the app's files are not its own"
    environment = dict(pair.split("=", 1) for text in all_of(instructions, "ENV") for pair in shlex.split(text))
    assert environment["NEMODIFF_DATA"] == "/data" and all(environment[name].startswith("/data") for name in ("HOME", "HF_HOME"))


def test_nothing_is_fetched_but_pinned_packages(instructions: list[Instruction]):
    assert not all_of(instructions, "ADD")
    text = (ROOT / "Containerfile").read_text("utf-8")
    assert not re.search(r"https?://(?!127\.0\.0\.1)|curl|wget|apt-get|git clone|--index-url", text)
    (base,) = all_of(instructions, "FROM")
    assert re.fullmatch(r"python:3\.\d+-slim", base), "no registry is named"
    assert "pip install -r requirements.txt" in all_of(instructions, "RUN")


def test_what_is_copied_is_here_and_reaches_the_builder(instructions: list[Instruction]):
    sources = [source for rest in all_of(instructions, "COPY") for source in rest.split()[:-1]]
    assert set(sources) >= {"app.py", "nemodiff_core", "ui", "kernels", "requirements.txt", "spaces.yml"}
    for source in sources:
        assert (ROOT / source).exists() and not left_out(source), source
    for kept in ("nemodiff_core/models/tiny/model.safetensors", "ui/player/player.js", "ui/recorded/refine.json.gz"):
        assert (ROOT / kept).is_file() and not left_out(kept)
    for other in (".git", ".venv", "tests", "votes.sqlite3", "ui/app.pyi", "ui/__pycache__/app.cpython-312.pyc", ".env", "checkpoints"):
        assert left_out(other), other
    assert (ROOT / ".dockerignore").read_text("utf-8") == (ROOT / ".containerignore").read_text("utf-8")


def test_it_starts_stops_and_is_looked_after(instructions: list[Instruction]):
    (port,) = all_of(instructions, "EXPOSE")
    (command,) = map(json.loads, all_of(instructions, "CMD"))
    assert command[:2] == ["python", "app.py"] and command[command.index("--port") + 1] == port
    assert all_of(instructions, "STOPSIGNAL") == ["SIGTERM"], "in the form of a list it reaches Python itself"
    (check,) = all_of(instructions, "HEALTHCHECK")
    probe = json.loads(check.partition("CMD ")[2])
    assert probe[:2] == ["python", "-c"] and f":{port}{READY}'" in probe[2]
    ast.parse(probe[2])


@pytest.mark.skipif(
    not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, timeout=30).returncode != 0,
    reason="nothing here builds images",
)
def test_the_builder_accepts_it():
    done = subprocess.run(["docker", "build", "--check", "-f", "Containerfile", "."], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
