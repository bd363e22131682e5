"""What is uploaded to a Space runs there by itself: its own files, the hub's variables, a home that cannot be written."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest
from playwright.sync_api import Page, expect

from nemodiff_core.serving import manifest
from nemodiff_core.serving.space import SHIPPED, Space
from tests.e2e.test_app import Screen

ROOT = Path(__file__).parents[2]
UNDER = "/here"  # where a proxy shows it
PATIENCE_S = 120
MARK = "of-this-space"  # its own version, which no other copy on this machine has


class Running(NamedTuple):
    """The Space's process, where it answers, and what it writes."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """The folder that `nemodiff deploy --space me/demo` uploads, made from the working tree as if it were committed."""
    root = tmp_path / "checkout"
    kept = ("README.md", "requirements.txt", ".gitignore")
    for name in (*SHIPPED, *kept):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    Space("me/demo", manifest.SPACE, root, manifest.read(root / manifest.FILE)).build(root.parent / "built")
    built = root.parent / "built"
    with (built / "nemodiff_core" / "__init__.py").open("a", encoding="utf-8") as package:
        package.write(f'\n__version__ = "{MARK}"\n')
    return built


@pytest.fixture
def running(built: Path) -> Iterator[Running]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NEMODIFF_", "PYTHON", "GRADIO_", "XDG_"))}
    environment |= {
        "SYSTEM": "spaces", "SPACE_ID": "me/demo", "NEMODIFF_PRESET": manifest.SPACE,
        "NEMODIFF_METRICS": "on", "HOME": os.devnull, "HF_HOME": f"{os.devnull}/huggingface", "PYTHONDONTWRITEBYTECODE": "1",
        "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port), "GRADIO_ROOT_PATH": UNDER,
    }  # fmt: skip
    log = built.parent / "log"
    with log.open("wb") as lines:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=built, env=environment, stdout=lines, stderr=lines)
    url = f"http://127.0.0.1:{port}{UNDER}/"
    try:
        end = time.monotonic() + PATIENCE_S
        while not _ready(url):
            assert process.poll() is None and time.monotonic() < end, log.read_text("utf-8")
            time.sleep(0.2)
        yield Running(process, url, log)
    finally:
        process.kill()
        process.wait()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_what_is_uploaded_runs_on_a_space_by_itself(running: Running, new_page: Callable[..., Page]):
    """One test, because starting the process is most of its time."""
    # A visitor gets an answer; `new_page` fails where another host is asked for anything.
    screen = Screen(new_page(), running.url)
    screen.ask("diffusion", tokens=12)
    screen.begin()
    screen.finish()
    screen.wait("p => p.complete && p.output.length > 0")
    assert screen.page.evaluate("window.gradio_config.root").endswith(UNDER)
    expect(screen.page.locator("#huggingface-space-header")).to_have_count(0)

    # The host's limits are those of its preset.
    limit = manifest.read(ROOT / manifest.FILE).preset(manifest.SPACE).limits.max_new_tokens
    expect(screen.page.locator("#nd-length input[type=number]").first).to_have_attribute("max", str(limit))

    # It runs from its own files, and opens one door.
    assert f'version="{MARK}"' in httpx.get(f"{running.url}metrics").text
    doors = [found.laddr.port for found in psutil.Process(running.process.pid).net_connections() if found.status == psutil.CONN_LISTEN]
    assert doors == [httpx.URL(running.url).port]

    # A home that cannot be written costs a line in the log.
    assert httpx.get(f"{running.url}nemodiff/votes.csv").status_code == 200
    said = [line for line in running.log.read_text("utf-8").splitlines() if "Votes are kept only until the app stops" in line]
    assert len(said) == 1 and "set NEMODIFF_DATA to a folder that can" in said[0]

    # It leaves in order when the Space is stopped.
    running.process.terminate()
    assert running.process.wait(PATIENCE_S) == 0
    log = running.log.read_text("utf-8")
    assert re.search("^stopped ", log, re.MULTILINE) and not re.search("Traceback|Error", log)
