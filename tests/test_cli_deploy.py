"""nemodiff deploy: the files that spaces.yml decides about, and what goes to a Space."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import huggingface_hub
import pytest
import yaml
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from nemodiff_cli import deploy
from nemodiff_core.errors import ConfigError
from nemodiff_core.serving import pins
from nemodiff_core.serving.space import SHIPPED
from tests.conftest import Command

ROOT = Path(__file__).parents[1]
MADE = ("README.md", "requirements.txt")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of the project as it would be uploaded, without its code; the command works on it."""
    root = tmp_path / "checkout"
    for name in (*SHIPPED, *MADE):
        target = root / name
        if (ROOT / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
        else:
            target.mkdir(parents=True)
            (target / "__init__.py").write_text("", "utf-8")
    (root / "tests").mkdir()
    (root / "tests" / "test_it.py").write_text("", "utf-8")
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / "ui" / "notes.txt").write_text("a secret", "utf-8")
    for run in (deploy.run_deploy, deploy.run_write, deploy.run_check):
        monkeypatch.setattr(run, "__defaults__", (root,))
    return root


class Hub:
    """Stands in for the hub: writes down what it is asked, and fails where it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.fails: dict[str, Exception] = {}
        self.files: dict[str, bytes] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*positional: Any, **named: Any) -> Any:
            self.asked.append((name, {"": positional, **named}))
            if name in self.fails:
                raise self.fails[name]
            if name == "upload_folder":
                folder = Path(named["folder_path"])
                self.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            return SimpleNamespace(requested_hardware="cpu-basic") if name == "get_space_runtime" else "the address of the Space"

        return call


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    return made


def refused(status: int) -> HfHubHTTPError:
    request = httpx.Request("POST", "http://127.0.0.1/")
    return HfHubHTTPError("no", response=httpx.Response(status, request=request))


def test_the_repository_agrees_with_its_manifest(nemodiff: Command):
    answer = nemodiff("deploy", "--check")
    assert answer.status == 0, answer.err


def test_what_disagrees_is_told_and_written(checkout: Path, nemodiff: Command):
    manifest, readme, pinned = checkout / "spaces.yml", checkout / "README.md", checkout / "requirements.txt"
    manifest.write_text(manifest.read_text("utf-8").replace("title: nemodiff", "title: mine", 1), "utf-8")
    body = readme.read_text("utf-8").partition("\n---\n")[2]
    answer = nemodiff("deploy", "--check")
    assert answer.status == 2 and "README.md's front matter does not agree with spaces.yml; run nemodiff deploy --write." in answer.err
    assert nemodiff("deploy", "--write").out.split() == ["README.md:", "written", "requirements.txt:", "unchanged"]
    assert readme.read_text("utf-8").startswith("---\ntitle: mine\n") and readme.read_text("utf-8").endswith(body)
    assert nemodiff("deploy", "--check").status == 0

    pinned.write_text(pinned.read_text("utf-8").replace("pillow==", "pillow==0.", 1), "utf-8")
    answer = nemodiff("deploy", "--check")
    assert answer.status == 2 and "- pillow==0." in answer.err and "+ pillow==" in answer.err and answer.err.count("\n") == 1
    nemodiff("deploy", "--write")
    assert nemodiff("deploy", "--check").status == 0

    readme.write_text("# bare\n", "utf-8")
    nemodiff("deploy", "--write")
    assert readme.read_text("utf-8").endswith("---\n\n# bare\n")

    manifest.write_text(manifest.read_text("utf-8").replace("sdk_version: 6.", "sdk_version: 5.", 1), "utf-8")
    answer = nemodiff("deploy", "--write")
    assert answer.status == 2 and "but gradio 6." in answer.err


def test_pins_follow_extras_and_markers_and_name_what_does_not_fit():
    bare, extra = pins.pinned(["gradio"], "3.12"), pins.pinned(["gradio[mcp]"], "3.12")
    assert "mcp" in extra and "mcp" not in bare and bare.items() <= extra.items()
    assert "+" not in pins.pinned(["torch"], "3.12")["torch"]
    assert pins.pinned(["numpy; sys_platform == 'win32'", "numpy; python_version < '3'"], "3.12") == {}
    with pytest.raises(ConfigError, match="nemodiff needs numpy<1, but .* is installed"):
        pins.pinned(["numpy<1"], "3.12")
    with pytest.raises(ConfigError, match="which is not installed here"):
        pins.pinned(["no-such-package-anywhere"], "3.12")


def test_a_dry_run_lists_what_would_be_uploaded_and_uploads_nothing(checkout: Path, hub: Hub, nemodiff: Command):
    out = checkout.parent / "out"
    answer = nemodiff("deploy", "--space", "me/demo", "--preset", "zero-gpu", "--dry-run", "--out", out)
    assert answer.status == 0, answer.err
    assert hub.asked == []
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert all(name in answer.out for name in files)
    assert {"app.py", "spaces.yml", "README.md", "requirements.txt", "ui/__init__.py", "nemodiff_core/__init__.py"} <= files
    assert not any(name.startswith(("tests", ".git", ".ci")) for name in files)
    assert "ui/notes.txt" not in files and "Left out, because git does not keep them: ui/notes.txt" in answer.out
    assert "zero-a10g" in answer.out and "NEMODIFF_PRESET=zero-gpu" in answer.out
    card = yaml.safe_load((out / "README.md").read_text("utf-8").split("---\n")[1])
    assert card["suggested_hardware"] == "zero-a10g" and card["preload_from_hub"] == ["nvidia/Nemotron-Labs-Diffusion-8B"]
    ours = {line for line in (checkout / "requirements.txt").read_text("utf-8").splitlines() if "==" in line}
    theirs = {line for line in (out / "requirements.txt").read_text("utf-8").splitlines() if "==" in line}
    assert ours < theirs and any(line.startswith("spaces==") for line in theirs - ours)


def test_the_space_is_made_in_an_order_that_costs_nothing_while_it_uploads(checkout: Path, hub: Hub, nemodiff: Command):
    answer = nemodiff("deploy", "--space", "me/demo", "--preset", "a10g", "--private")
    assert answer.status == 0, answer.err
    assert "the address of the Space" in answer.out
    names = [name for name, _ in hub.asked]
    assert names == ["whoami", "create_repo", "add_space_variable", "upload_folder", "get_space_runtime", "request_space_hardware"]
    asked = dict(hub.asked)
    assert asked["create_repo"] == {"": ("me/demo",), "repo_type": "space", "space_sdk": "gradio", "private": True, "exist_ok": True}
    assert asked["add_space_variable"][""] == ("me/demo", "NEMODIFF_PRESET", "a10g")
    assert asked["request_space_hardware"][""] == ("me/demo", "a10g-small")
    assert asked["upload_folder"]["repo_type"] == "space" and asked["upload_folder"]["delete_patterns"] == "*"
    assert hub.files["README.md"].startswith(b"---\n") and "ui/notes.txt" not in hub.files


def test_hardware_that_is_there_is_not_asked_for_again(checkout: Path, hub: Hub, nemodiff: Command):
    assert nemodiff("deploy", "--space", "me/demo").status == 0
    assert "request_space_hardware" not in [name for name, _ in hub.asked]
    assert dict(hub.asked)["create_repo"]["private"] is None


@pytest.mark.parametrize(
    ("where", "error", "says"),
    [
        ("whoami", LocalTokenNotFoundError("no token"), "me/demo could not be uploaded: no token is on this machine; run `hf auth login`"),
        ("whoami", refused(401), "does not accept the token; run `hf auth login` again"),
        ("create_repo", refused(403), "the token has no right to do that there"),
        ("create_repo", refused(404), "there is no such owner"),
        ("upload_folder", OSError("the line went dead."), "could not be uploaded: the line went dead; try again"),
        ("request_space_hardware", refused(402), "me/demo is uploaded, but the hub did not give it l4x1: it has to be paid for"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(where: str, error: Exception, says: str, checkout: Path, hub: Hub, nemodiff: Command):
    hub.fails[where] = error
    answer = nemodiff("deploy", "--space", "me/demo", "--preset", "l4")
    assert answer.status == 2 and says in answer.err and answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give one of --space OWNER/NAME, --write and --check"),
        (["--write", "--check"], "give one of"),
        (["--check", "--dry-run"], "belong to --space"),
        (["--space", "demo"], "names no Space; give owner/name"),
        (["--space", "me/../demo"], "names no Space"),
        (["--space", "me/demo", "--preset", "h200"], "the preset h200 is for no Space; choose one of cpu-basic"),
        (["--space", "me/demo", "--preset", "tpu"], "has no preset 'tpu'"),
    ],
)
def test_mistakes_are_told_before_anything_is_asked(arguments: list[str], says: str, checkout: Path, hub: Hub, nemodiff: Command):
    answer = nemodiff("deploy", *arguments)
    assert answer.status == 2 and says in answer.err and hub.asked == []


def test_a_folder_with_something_in_it_is_left_alone(checkout: Path, hub: Hub, nemodiff: Command):
    answer = nemodiff("deploy", "--space", "me/demo", "--out", checkout)
    assert answer.status == 2 and "is not empty; give a new folder" in answer.err and hub.asked == []


def test_what_git_does_not_know_is_not_deployed(checkout: Path, hub: Hub, nemodiff: Command):
    subprocess.run(["git", "rm", "--quiet", "--cached", "spaces.yml"], cwd=checkout, check=True)
    answer = nemodiff("deploy", "--space", "me/demo")
    assert answer.status == 2 and "git keeps no spaces.yml" in answer.err
    shutil.rmtree(checkout / ".git")
    answer = nemodiff("deploy", "--space", "me/demo")
    assert answer.status == 2 and "git does not know the files of" in answer.err and hub.asked == []
