"""This process as part of a Ray cluster: the one at an address, or one of its own that nobody else can reach."""

from __future__ import annotations

import os
import secrets
from importlib.util import find_spec
from typing import Any

from nemodiff_core.errors import NemodiffError

_LOOPBACK = "127.0.0.1"
_OBJECTS = 100 * 2**20  # bytes of shared memory of a cluster of one's own; packets are small


def join(address: str | None, cpus: int) -> None:
    """Connect to the cluster at `address`; without one, start a cluster of this machine, with room for `cpus` at least.

    Ray runs whatever code it is sent. So a cluster of one's own listens on the loopback interface alone, has no
    dashboard, and takes work only with a token that this process keeps. Raises NemodiffError.
    """
    if find_spec("ray") is None:
        raise _missing()
    # Ray reads these when it is imported.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would report to its makers
    if address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # its switch for 127.0.0.1, on Linux too
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
        import ray.serve
        from ray._private import ray_constants
    except ImportError as error:
        raise _missing() from error
    if ray.is_initialized():
        return
    ray_constants.ENABLE_RAY_CLUSTER = address is not None  # where it had been imported before
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    own: dict[str, Any] = {
        "num_cpus": max(cpus, os.cpu_count() or 1),
        "include_dashboard": False,
        "object_store_memory": _OBJECTS,
        "_node_ip_address": _LOOPBACK,
        "_system_config": {"worker_niceness": 0},  # decoding is what this machine is for
    }
    try:
        ray.init(address=address or "local", **quiet, **(own if address is None else {}))
    except (ray.exceptions.RayError, ConnectionError, OSError, RuntimeError, ValueError) as error:
        where = f"at {address}" if address else "of this machine"
        reason = " ".join(str(error).split())[:200]
        raise NemodiffError(
            f"the Ray cluster {where} cannot be reached ({reason}); start this machine's node first, with ray start and the cluster's RAY_AUTH_TOKEN."
        ) from error
    if address is None and (host := ray.util.get_node_ip_address()) != _LOOPBACK:
        ray.shutdown()
        raise NemodiffError(f"Ray would listen on {host}, for whoever reaches it there; install the version in requirements.txt.")


def keep_inside() -> None:
    """In a replica's process, before Serve opens the port on which replicas may be called: not on every interface.

    Nobody calls this port here. Where the nodes of a cluster are several machines it stays as it is.
    """
    import ray
    from ray.serve._private import replica

    if ray.util.get_node_ip_address() == _LOOPBACK and (plain := getattr(replica, "add_port_to_grpc_server", None)) is not None:
        replica.add_port_to_grpc_server = lambda server, address: plain(server, address.replace("[::]", _LOOPBACK))


def _missing() -> NemodiffError:
    return NemodiffError("Ray Serve is not installed; install it with pip install 'nemodiff[cluster]'.")
