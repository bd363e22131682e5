"""The app as a process of its own: SIGTERM lets answers finish, and what visitors type is written nowhere."""

from __future__ import annotations

import io
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
from tests.ui.ops.conftest import Live, Visitor
from ui.ops import logs

ROOT = Path(__file__).parents[3]
SECRET = "quokka-7f3a-hides-the-marmalade"
LONG = {"length": 900, "eos": False, "mode": "ar"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(url + "readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("the app did not become ready")


def everything_written(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_sigterm_lets_a_running_answer_finish_and_nothing_typed_is_left_behind(small: Path, tmp_path: Path):
    url = f"http://127.0.0.1:{(port := free_port())}/"
    written = tmp_path / "written"
    for folder in ("data", "tmp", "home"):
        (written / folder).mkdir(parents=True)
    environment = {**os.environ, "NEMODIFF_LOG": "json", "NEMODIFF_DATA": str(written / "data"), "TMPDIR": str(written / "tmp"),
                   "HOME": str(written / "home"), "GRADIO_TEMP_DIR": str(written / "tmp" / "gradio"), "OMP_NUM_THREADS": "1"}  # fmt: skip
    command = [sys.executable, "app.py", "--model", str(small), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    with open(written / "out", "wb") as out, subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            until_ready(url, process)
            visitor = Visitor(url)
            assert SECRET in visitor.run(prompt=f"Tell me about {SECRET}", length=6)
            assert "shorten it" in visitor.run(prompt=SECRET * 2000)
            visitor.call(visitor.handlers("estimate")[0], [SECRET] * 8)
            visitor.client.post("gradio_api/component_server", json={"data": {"ask": "schema", "text": SECRET}, "component_id": 1, "session_hash": SECRET, "fn_name": SECRET})
            figures = visitor.client.get("metrics").text
            assert SECRET not in figures and 'nemodiff_runs_started_total{mode="diffusion"} 1.0' in figures

            assert visitor.prepare("patient", prompt=f"Count. {SECRET}", **LONG).status_code == 200
            ended: queue.Queue[str] = queue.Queue()
            runner = threading.Thread(target=lambda: ended.put(json.dumps(visitor.stream(visitor.handlers("run")[0], [None], None, "patient"))))
            runner.start()
            while 'nemodiff_runs_in_progress 1.0' not in (figures := visitor.client.get("metrics").text) or 'started_total{mode="ar"} 1.0' not in figures:
                assert ended.empty(), "the run was over before it could be interrupted"
            process.send_signal(signal.SIGTERM)
            while visitor.client.get("readyz").status_code == 200:
                pass
            assert visitor.client.get("healthz").status_code == 200
            assert ended.empty(), "it should still run"
            assert "takes no more runs" in visitor.prepare("late", prompt="Hello").text
            told = ended.get(timeout=90)
            runner.join()
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    assert re.search(r'stop_reason[\\":]+length', told), "the answer came to its own end"
    found = everything_written(written)
    assert SECRET.encode() not in found
    events = [json.loads(line) for line in (written / "out").read_text("utf-8").splitlines() if line.startswith("{")]
    ends = [line for line in events if line["event"] == "run ended"]
    assert [(line["mode"], line["stop_reason"]) for line in ends] == [("diffusion", ends[0]["stop_reason"]), ("ar", "length")]
    assert ends[1]["tokens"] == LONG["length"] and events[-1]["event"] == "stopped" and events[-1]["cut"] == 0
    assert b"patient" not in found and b"127.0.0.1:" not in found.replace(url.rstrip("/").encode(), b""), "neither sessions nor addresses"


def test_a_failure_that_quotes_the_prompt_does_not_put_it_into_the_log(live: Live):
    def fail(*_: object, **__: object) -> None:
        raise ValueError(f"cannot decode {SECRET}")

    hook = live.app.loader.engine.checkpoint.model.register_forward_pre_hook(fail)
    written = io.StringIO()
    logs.configure("json", written)
    try:
        said = live.run(prompt=SECRET)
    finally:
        hook.remove()
        logs.configure()
    assert "the run failed" in said
    failure = next(json.loads(line) for line in written.getvalue().splitlines() if '"error"' in line)
    assert (failure["event"], failure["error"]) == ("a run failed", "ValueError") and "test_process.py" in failure["place"]
    assert SECRET not in written.getvalue()
