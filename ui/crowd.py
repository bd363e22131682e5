"""A crowd of visitors on one server, and a long day of runs: what they wait for, and whether anybody loses or sees anything.

The server is a process of its own, so that its memory is its own; visitors are clients of the named endpoints and a few
real browser pages. Every visitor has a prompt of their own, whose only right answer is known beforehand.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

from nemodiff_core.analysis.tasks import FAMILIES, examples_for
from nemodiff_core.bench.report import Listen, Spread, Table, unheard
from nemodiff_core.errors import NemodiffError
from nemodiff_core.request import parse_request

from ui.bench import free_port
from ui.opening import decode

SEED = 5
TOKENS = 64  # the longest answer of a visitor in a crowd
SOAK_TOKENS = 8  # and of a run in a soak, where the number of runs counts
SESSION_RUNS = 40  # before a soaking visitor leaves and another one comes
_START_S = 300.0
_ANSWER_S = 900.0
_MB = 2**20


@dataclass
class Visit:
    """What one visitor asked, what they should have got, and what came when."""

    prompt: str
    right: str
    ids: list[int]  # of the right answer
    text: str = ""
    first_s: float | None = None  # from asking to the first visible token
    done_s: float | None = None
    problem: str = ""

    @property
    def whole(self) -> bool:
        """Whether the whole right answer came."""
        return not self.problem and self.text == self.right


@dataclass
class Server:
    """A served app in a process of its own."""

    url: str
    process: psutil.Process
    highest: int = 0  # bytes of memory seen
    _over: threading.Event = field(default_factory=threading.Event)

    def memory(self) -> int:
        """Bytes that the process and its children hold now."""
        total = 0
        for part in (self.process, *self.process.children(recursive=True)):
            try:
                total += part.memory_info().rss
            except psutil.Error:  # it ended meanwhile
                continue
        self.highest = max(self.highest, total)
        return total

    def watch(self) -> None:
        """Look at the memory until the server is over."""
        while not self._over.wait(0.2):
            self.memory()


@contextmanager
def server(model: str | None = None) -> Iterator[Server]:
    """`nemodiff serve` on a free port of this machine, ready to answer. Raises NemodiffError where it does not start."""
    port = free_port()
    command = [sys.executable, "-m", "nemodiff_cli.main", "serve", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "NEMODIFF_PRESET": "local"}
    running = subprocess.Popen([*command, *(["--model", model] if model else [])], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    served = Server(f"http://127.0.0.1:{port}/", psutil.Process(running.pid))
    try:
        end = time.monotonic() + _START_S
        while not _ready(served.url):
            if running.poll() is not None or time.monotonic() > end:
                raise NemodiffError("the server of the benchmark did not start; try `nemodiff serve` to see why.")
            time.sleep(0.2)
        threading.Thread(target=served.watch, daemon=True).start()
        yield served
    finally:
        served._over.set()
        running.terminate()
        try:
            running.wait(60)
        except subprocess.TimeoutExpired:
            running.kill()


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "readyz", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def visits(engine: Any, count: int) -> list[Visit]:
    """As many different prompts, with the texts that this engine writes to them alone."""
    each = -(-count // len(FAMILIES))
    found: dict[str, Visit] = {}
    while len(found) < count:
        for example in examples_for("test", each, SEED, tuple(FAMILIES)):
            if example.prompt not in found and len(found) < count:
                trace = decode(engine, parse_request(_request(example.prompt, TOKENS)))
                found[example.prompt] = Visit(example.prompt, engine.text(trace.output.ids), trace.output.ids)
        each *= 2
    return list(found.values())


def _request(prompt: str, tokens: int) -> dict[str, Any]:
    return {"prompt": prompt, "mode": "linear_spec", "max_new_tokens": tokens}


def measure_crowd(engine: Any, browser: Any = None, visitors: int = 50, pages: int = 4, model: str | None = None, listen: Listen = unheard) -> list[Table]:
    """Everybody asks at once, `pages` of them in `browser`: none lost, none mixed up, the waiting, the memory."""
    crowd = visits(engine, visitors)
    with server(model) as served:
        idle = served.memory()
        in_pages, by_client = (crowd[:pages], crowd[pages:]) if browser is not None else ([], crowd)
        ready = threading.Barrier(len(by_client) + 1)
        done = _Counter(len(crowd), listen)
        threads = [threading.Thread(target=_ask, args=(served.url, visit, ready, done), daemon=True) for visit in by_client]
        for thread in threads:
            thread.start()
        opened = [_page(browser, served.url) for _ in in_pages]
        ready.wait(_START_S)
        for page, visit in zip(opened, in_pages):
            _press(page, visit)
        for page, visit in zip(opened, in_pages):
            _read(page, visit)
            done()
            page.context.close()
        for thread in threads:
            thread.join(_ANSWER_S)
        highest, after = served.highest, served.memory()
    rows = [_crowd_row("named endpoint", by_client, crowd)]
    rows += [_crowd_row("browser page", in_pages, crowd)] if in_pages else []
    memory = {"what": "server", "idle_mb": idle / _MB, "highest_mb": highest / _MB, "after_mb": after / _MB}
    note = f"All ask in the same moment; answers of up to {TOKENS} tokens by self-speculation. Times from asking, waiting in the line included."
    return [
        Table(name="crowd", title=f"{visitors} visitors at once", keys=("by",), rows=rows, note=note),
        Table(name="crowd_memory", title="Memory of the server", keys=("what",), rows=[memory]),
    ]


def _crowd_row(by: str, some: Sequence[Visit], everybody: Sequence[Visit]) -> dict[str, Any]:
    firsts, ends = ([value for visit in some if (value := getattr(visit, name)) is not None] for name in ("first_s", "done_s"))
    others = {visit.right for visit in everybody}
    mixed = sum(visit.text != visit.right and visit.text in others for visit in some)
    return {
        "by": by, "visitors": len(some), "answered": sum(visit.whole for visit in some), "lost": sum(not visit.text for visit in some),
        "another's text": mixed, "first_s": Spread.of(firsts) if firsts else None, "first_p95_s": _share(firsts, 0.95),
        "done_s": Spread.of(ends) if ends else None, "done_p95_s": _share(ends, 0.95),
        "problem": next((visit.problem[:150] for visit in some if visit.problem), None),
    }  # fmt: skip


def _share(values: Sequence[float], share: float) -> float | None:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else None


def _ask(url: str, visit: Visit, ready: threading.Barrier, done: Callable[[], None]) -> None:
    from gradio_client import Client

    try:
        try:
            client = Client(url, verbose=False)
        finally:
            ready.wait(_START_S)  # nobody waits for one who could not come
        began = time.monotonic()
        for told in client.submit(**_request(visit.prompt, TOKENS), api_name="/decode"):
            if told["text"] and visit.first_s is None:
                visit.first_s = time.monotonic() - began
            visit.text = told["text"]
        visit.done_s = time.monotonic() - began
    except Exception as error:  # a visitor who fails is what this looks for
        visit.problem = f"{type(error).__name__}: {error}"
    finally:
        done()


class _Counter:
    """Tells how many have finished."""

    def __init__(self, total: int, listen: Listen) -> None:
        self._total, self._listen, self._done, self._lock = total, listen, 0, threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._done += 1
            self._listen(self._done, self._total, "visitors have their answer")


# -- browser pages ------------------------------------------------------------------------------------


def _page(browser: Any, url: str) -> Any:
    page = browser.new_context().new_page()
    page.goto(url)
    page.wait_for_function("window.__nemodiff?.players?.['nd-player']?.complete", timeout=_START_S * 1000)
    return page


def _press(page: Any, visit: Visit) -> None:
    page.fill("#nd-prompt textarea", visit.prompt)
    page.locator("#nd-mode").get_by_text("Self-speculation", exact=True).click()
    page.fill("#nd-length input[type=number]", str(TOKENS))
    # The page itself notes when the first cell of its own run is there: asking from outside would add the asking.
    page.evaluate(_NOTE)
    page.click("#nd-run")


def _read(page: Any, visit: Visit) -> None:
    try:
        page.wait_for_function("window.__visit.done !== null", timeout=_ANSWER_S * 1000)
        told = page.evaluate("window.__visit")
        visit.first_s, visit.done_s = told["first"] / 1000, told["done"] / 1000
        visit.text = visit.right if told["output"] == visit.ids else told["text"]
    except Exception as error:  # as above
        visit.problem = f"{type(error).__name__}: {error}"


_NOTE = """
() => {
  const player = () => window.__nemodiff.players['nd-player'];
  const before = player().run;
  const began = performance.now();
  window.__visit = { first: null, done: null, text: '', output: [] };
  const look = () => {
    const now = player();
    if (now.run !== before) {
      if (window.__visit.first === null && now.steps > 0) window.__visit.first = performance.now() - began;
      if (now.complete) {
        window.__visit = { ...window.__visit, text: now.text, output: now.output, done: performance.now() - began };
        return;
      }
    }
    setTimeout(look, 20);
  };
  look();
}
"""


# -- a long day ---------------------------------------------------------------------------------------


def measure_soak(runs: int = 2000, visitors: int = 4, model: str | None = None, listen: Listen = unheard) -> list[Table]:
    """Short runs one after another, by visitors who come and go: the memory as the runs add up."""
    prompts = [example.prompt for example in examples_for("test", 20, SEED, tuple(FAMILIES))]
    with server(model) as served:
        left, lock, problems = iter(range(runs)), threading.Lock(), []
        rows = [{"runs": 0, "memory_mb": served.memory() / _MB}]
        done = 0

        def take() -> int | None:
            with lock:
                return next(left, None)

        def finished() -> None:
            nonlocal done
            with lock:
                done += 1
                listen(done, runs, "runs")
                if done % max(1, runs // 20) == 0:
                    rows.append({"runs": done, "memory_mb": served.memory() / _MB})

        threads = [threading.Thread(target=_soak, args=(served.url, prompts, take, finished, problems), daemon=True) for _ in range(visitors)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - began
    note = f"{runs} runs of up to {SOAK_TOKENS} tokens by {visitors} visitors in {seconds:.0f} s, {len(problems)} failed; after {SESSION_RUNS} runs a visitor leaves and another comes."
    return [Table(name="soak", title="Memory over a long day", keys=("runs",), rows=rows, note=note + (f" First: {problems[0][:200]}" if problems else ""))]


def _soak(url: str, prompts: Sequence[str], take: Callable[[], int | None], finished: Callable[[], None], problems: list[str]) -> None:
    from gradio_client import Client

    client, count = None, 0
    while (number := take()) is not None:
        try:
            if client is None or count == SESSION_RUNS:
                client, count = Client(url, verbose=False), 0
            count += 1
            client.predict(**_request(prompts[number % len(prompts)], SOAK_TOKENS), api_name="/decode")
        except Exception as error:  # as above
            problems.append(f"{type(error).__name__}: {error}")
        finished()
