"""`nemodiff serve --cluster`: the app here, its engine on Ray Serve replicas."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace

from nemodiff_core.serving.manifest import this_host

from ui.app import ServeSettings, launch


def run_cluster(settings: ServeSettings, replicas: str | None, address: str | None) -> None:
    """Serve the page until it is stopped, then leave the cluster. Raises NemodiffError."""
    from nemodiff_core.serving.ray_node import join

    most = re.fullmatch(r"(?:\d+-)?(\d{1,3})", replicas or "")
    join(address, int(most[1]) if most else 2)
    from nemodiff_core.serving.cluster import Cluster  # Ray first has to know what it is to listen on

    choice = settings.model
    model = {
        "model": choice.source or "tiny", "revision": choice.revision, "dtype": choice.dtype, "device": choice.device,
        "adapter": choice.adapter, "limits": (settings.preset or this_host()).limits.model_dump(),
    }  # fmt: skip
    with closing(Cluster(model, replicas)) as cluster:
        launch(replace(settings, maker=cluster.start))
