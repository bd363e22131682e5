"""The engine as Ray Serve replicas, one a GPU, and the front end's way to them.

A replica does one piece of work at a time and streams its packets back; what waits, waits in front of the replicas.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ray import serve
from ray.exceptions import RayError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import RayServeException, RequestCancelledError

from nemodiff_core.errors import ConfigError, NemodiffError
from nemodiff_core.request import DecodeRequest, Limits
from nemodiff_core.serving.distant import Distant, Send
from nemodiff_core.serving.ray_node import keep_inside
from nemodiff_core.serving.restart import Lost, restarting
from nemodiff_core.serving.work import Packet, perform

NAME = "nemodiff"  # of the application
LOCAL_REPLICAS = 2
START_S = 1800.0  # for the first replica, which may have to download its model
ANSWER_S = 120.0  # for a replica that may be busy with another front end's run
RUNS = ("decode", "batch", "fork")  # work that is heard from at every step
_POLL_S = 0.05
_REPORT_S = 0.5
_QUIET = {"log_level": "WARNING", "enable_access_log": False}
# Why a replica could not start, in the traceback that Serve passes on.
_SENTENCE = re.compile(r"^nemodiff_core\.errors\.\w+: (.+)$", re.MULTILINE)


class Arguments(BaseModel):
    """What the replicas run and how many there are; also the `args` of the application in a Serve config file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "tiny"  # a folder on every machine, a hub id, or "tiny", the bundled model
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    adapter: bool = True  # draft with its adapter, where it has one
    limits: Limits = Limits()
    replicas: int = Field(1, ge=1, le=1000)
    max_replicas: int | None = Field(None, ge=1, le=1000)  # more than `replicas`: as many as the runs that wait ask for
    gpus: float = Field(0, ge=0, le=1)  # of each replica
    cpus: float = Field(1, gt=0)  # of each replica; also its threads

    @model_validator(mode="after")
    def _fits_together(self) -> Arguments:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}, fewer than the {self.replicas} replicas; raise it")
        return self

    @property
    def most(self) -> int:
        """Replicas that there may be."""
        return self.max_replicas or self.replicas


class Replica:
    """One model on one device, behind Ray Serve."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        # torch and the weights belong to this process alone.
        import torch

        from nemodiff_core.checkpoint import bundled_path, load
        from nemodiff_core.engine import Engine

        self._arguments = arguments
        keep_inside()
        given = Arguments.model_validate(arguments)
        torch.set_num_threads(max(1, int(given.cpus)))
        source = bundled_path() if given.model == "tiny" else given.model
        checkpoint = load(source, dtype=given.dtype, device=given.device, revision=given.revision, adapter=given.adapter)
        self.engine = Engine(checkpoint, given.limits)
        self._patience_s = given.limits.max_seconds + 60
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="nemodiff-work")  # the next work begins when the last has ended
        self._due: float | None = None  # when the next packets have to be there; None while idle
        for mode in ("ar", "diffusion", "linear_spec"):  # first forwards are slow
            self._decode(mode, 4)
        self._sound = self._decode("ar", 1)

    async def perform(self, work: dict[str, Any]) -> AsyncGenerator[list[Packet], None]:
        """The packets of a piece of work, those of this replica's name first. Cancelling ends it between two steps."""
        loop, stop = asyncio.get_running_loop(), threading.Event()
        batches = perform(self.engine, work, stop)
        patience_s = self._patience_s if work.get("do") in RUNS else float("inf")  # an analysis is silent until its end
        self._due = time.monotonic() + patience_s
        try:
            yield [{"type": "replica", "pid": os.getpid(), "host": socket.gethostname()}]
            while (batch := await loop.run_in_executor(self._pool, next, batches, None)) is not None:
                self._due = time.monotonic() + patience_s
                yield batch
        finally:
            stop.set()
            self._pool.submit(batches.close)
            self._due = None

    def arguments(self) -> dict[str, Any]:
        """What it was started with."""
        return self._arguments

    async def check_health(self) -> None:
        """Decode a token while idle; while busy, hear from the work. What is raised has Ray replace this replica."""
        if self._due is not None:
            if time.monotonic() > self._due:
                raise RuntimeError(f"a forward has not come back for {self._patience_s:.0f} s")
        elif await asyncio.get_running_loop().run_in_executor(self._pool, self._decode, "ar", 1) != self._sound:
            raise RuntimeError("the model writes another token than when it was loaded")

    def _decode(self, mode: str, tokens: int) -> list[int]:
        limits = self.engine.limits
        size, tokens = min(16, limits.max_block_length), min(tokens, limits.max_new_tokens)
        run = self.engine.run(DecodeRequest(prompt="Hello", chat=False, mode=mode, block_length=size, max_new_tokens=tokens))
        try:
            for _ in run:
                pass
            return run.trace().output.ids
        finally:
            run.close()


def parse_arguments(given: Mapping[str, Any]) -> Arguments:
    """Arguments from plain data. Raises ConfigError."""
    try:
        return Arguments.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}; mend the cluster's arguments.") from error


def application(args: dict[str, Any]) -> serve.Application:
    """The Serve application; a Serve config file names it as `nemodiff_core.serving.cluster:application`. Raises ConfigError."""
    arguments = parse_arguments(args)
    limits = arguments.limits
    count: dict[str, Any] = {"num_replicas": arguments.replicas}
    if arguments.most > arguments.replicas:
        count = {
            "autoscaling_config": {
                "min_replicas": arguments.replicas, "max_replicas": arguments.most, "target_ongoing_requests": 1,
            }
        }  # fmt: skip
    deployment = serve.deployment(
        Replica,
        name="Replica",
        max_ongoing_requests=1,
        health_check_period_s=10,
        health_check_timeout_s=60,
        graceful_shutdown_timeout_s=limits.max_seconds + 10,  # running answers finish
        max_constructor_retry_count=3,
        logging_config=_QUIET,
        ray_actor_options={"num_cpus": arguments.cpus, "num_gpus": arguments.gpus},
        **count,
    )
    return deployment.bind(arguments.model_dump(mode="json"))


class Cluster:
    """The way to an application's replicas, through which they are one engine. Close it to end what it has started."""

    def __init__(self, model: Mapping[str, Any], replicas: str | None = None) -> None:
        """For a process that has joined a Ray cluster (ray_node.py).

        `model` holds the Arguments that are not about numbers. `replicas` is how many there are to be: "2"; "1-8" for
        as many as are needed; "0" for those that a Serve config file has deployed; None for one a GPU, without any two
        on the CPU. Raises ConfigError.
        """
        self._arguments: Arguments | None = None
        least, most = count_of(replicas)
        if least or not replicas:
            graphics = int(ray.cluster_resources().get("GPU", 0))
            on_gpu = graphics > 0 and not str(model.get("device") or "cuda").startswith("cpu")
            if not replicas:
                least, most = (1, graphics) if on_gpu else (LOCAL_REPLICAS, LOCAL_REPLICAS)
            self._arguments = parse_arguments({**model, "replicas": least, "max_replicas": most, "gpus": int(on_gpu)})

    def start(self, tell: Callable[[str, float], None] = lambda what, share: None) -> Distant:
        """Deploy the replicas and wait until the first answers; `tell(what, share)` hears of it. Raises NemodiffError."""
        if self._arguments is not None:
            self.delete()  # what has failed would be remembered
            serve.start(proxy_location="Disabled", logging_config=_QUIET)  # the replicas answer the front end alone
            serve.run_many(
                [serve.RunTarget(application(self._arguments.model_dump(mode="json")), name=NAME, route_prefix=None)],
                wait_for_ingress_deployment_creation=True,
                wait_for_applications_running=False,
            )
        self._wait(tell)
        handle = serve.get_app_handle(NAME)
        try:
            arguments = parse_arguments(handle.arguments.remote().result(timeout_s=ANSWER_S))
        except (RayError, RayServeException, TimeoutError) as error:
            raise NemodiffError(f"no replica answered ({_line(error) or 'all are busy'}); start the app again in a moment.") from error
        return Distant.meet(restarting(sender(handle)), arguments.limits, lambda: arguments.most)

    def _wait(self, tell: Callable[[str, float], None]) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            found = serve.status().applications.get(NAME)
            states = [deployment.replica_states for deployment in found.deployments.values()] if found else []
            ready = sum(state.get("RUNNING", 0) for state in states)
            if ready:
                return
            said = "\n".join([found.message, *(deployment.message for deployment in found.deployments.values())]) if found else ""
            if reason := _SENTENCE.findall(said):
                raise NemodiffError(reason[-1].strip())
            if found and found.status in ("DEPLOY_FAILED", "UNHEALTHY", "DELETING"):
                raise NemodiffError(f"the replicas could not start ({_line(said)}); look into Ray's logs on their machines.")
            tell("starting replicas" if found else "waiting for the replicas to be deployed", 0.0)
            time.sleep(_REPORT_S)
        raise NemodiffError("the replicas did not start in time; see with ray status whether the cluster has room for them.")

    def delete(self) -> None:
        """End the replicas that were started here, each with what it is doing."""
        if self._arguments is not None and ray.is_initialized():
            with suppress(RayError, RayServeException):
                serve.delete(NAME)

    def close(self) -> None:
        """Leave the cluster, and take away what was brought to it."""
        self.delete()
        ray.shutdown()


def sender(handle: Any, taken: Callable[[int, str], None] = lambda pid, host: None) -> Send:
    """The transport to whichever replica is free; `taken` hears which one it was. It raises Lost when that goes away."""

    def send(work: dict[str, Any], stop: threading.Event) -> Generator[list[Packet], None, None]:
        replica, ended = "a replica", threading.Event()
        answer = handle.options(stream=True).perform.remote(work)

        def watch() -> None:
            while not ended.wait(_POLL_S):
                if stop.is_set():
                    answer.cancel()
                    return

        threading.Thread(target=watch, name="nemodiff-stop", daemon=True).start()
        try:
            for batch in answer:
                if batch and batch[0].get("type") == "replica":
                    replica = f"replica {batch[0]['pid']} on {batch[0]['host']}"
                    taken(batch[0]["pid"], batch[0]["host"])
                else:
                    yield batch
        except (RequestCancelledError, TaskCancelledError) as error:
            if not stop.is_set():
                raise Lost(f"{replica} was shut down") from error
        except RayTaskError as error:
            raise NemodiffError(f"the replica failed ({_line(error.cause or error)}); run it again.") from error
        except (RayError, RayServeException) as error:
            raise Lost(f"{replica}: {_line(error)}") from error
        finally:
            ended.set()
            answer.cancel()

    return send


def count_of(replicas: str | None) -> tuple[int, int]:
    """The fewest and the most of "2" or "1-8"; (0, 0) for "0" and for None. Raises ConfigError."""
    if replicas is None:
        return 0, 0
    found = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", replicas)
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)  # what no number is, is refused below
    if high < low or (low == 0 and high):
        raise ConfigError(f"{replicas!r} is no number of replicas; write 2, or 1-8 for as many as are needed, or 0 for those that run already.")
    return low, high


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200]
