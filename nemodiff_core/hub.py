"""Files of the Hugging Face hub: what they weigh, whether the disk takes them, and how far their download is."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import DryRunError
from huggingface_hub.utils import tqdm

from nemodiff_core.errors import CheckpointError

Progress = Callable[[str, float], None]  # what is happening, and the share of it that is done (0..1)

MARGIN_BYTES = 10**9  # that a download leaves free on its disk: logs, traces and other programs need some
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_LISTEN_S = 0.2  # between two reports of a download


def is_id(text: str) -> bool:
    """Whether the text is written as the hub writes its ids."""
    return len(text) <= 96 and _ID.fullmatch(text) is not None


def check_id(text: str) -> str:
    """The text, where it is written as a hub id. Raises CheckpointError."""
    if not is_id(text):
        raise CheckpointError(f"{text[:100]!r} is no Hugging Face id; give one such as nvidia/Nemotron-Labs-Diffusion-3B.")
    return text


def fetch(hub_id: str, files: Sequence[str], revision: str | None, progress: Progress, token: bool | None = None) -> Path:
    """The folder with those of `files` that the model has; what the hub's cache holds is not fetched again.

    `progress` is called a few times a second while bytes come, and ends the download by raising: files that are
    complete stay in the cache. `token` False asks as a stranger does. Raises CheckpointError where the disk is too
    small, before anything is fetched, and whatever huggingface_hub raises.
    """
    wanted = {"revision": revision, "allow_patterns": list(files), "token": token}
    try:
        found = huggingface_hub.snapshot_download(hub_id, **wanted, dry_run=True, tqdm_class=_Silent)
        size = sum(file.file_size or 0 for file in found if file.will_download)
    except DryRunError:  # the hub is out of reach or refuses: the cache may have everything, else the next call says why
        size = 0
    check_disk(hub_id, size)
    with _followed(f"downloading {hub_id}", size, progress) as bar:
        return Path(huggingface_hub.snapshot_download(hub_id, **wanted, tqdm_class=bar))


def check_disk(name: str, size: int) -> None:
    """Refuse a download of `size` bytes that the disk of the hub's cache cannot take. Raises CheckpointError."""
    folder = Path(huggingface_hub.constants.HF_HUB_CACHE).absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if size and size + MARGIN_BYTES > free:
        raise CheckpointError(
            f"{name} is a download of {gigabytes(size)}, but the disk of the models has {gigabytes(free)} free and "
            f"{gigabytes(MARGIN_BYTES)} of it must stay so; delete models that are not needed, or set HF_HOME to a larger disk."
        )


def gigabytes(size: float) -> str:
    """6_430_000_000 -> '6.4 GB'; small sizes in MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


class _Silent(tqdm):
    """A progress bar that prints nothing."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{**settings, "disable": True})


@contextmanager
def _followed(what: str, total: int, progress: Progress) -> Iterator[type[tqdm]]:
    """A class of progress bars that report to `progress`, and stop the download once that has raised."""
    stopped, ended, refusal = threading.Event(), threading.Event(), []
    counts: dict[int, float] = {}  # bytes by bar: one counts what came, another what was written

    class Bar(_Silent):
        def __init__(self, *args: Any, **settings: Any) -> None:
            self._bytes = settings.get("unit") == "B"
            super().__init__(*args, **settings)

        def update(self, n: float | None = 1) -> None:
            if stopped.is_set():
                raise CheckpointError(f"{what} was stopped.")
            self.n += n or 0
            if self._bytes:
                counts[id(self)] = self.n

    def tell() -> None:
        done = min(max(counts.values(), default=0), total)
        progress(f"{what}, {gigabytes(done)} of {gigabytes(total)}" if total else what, done / total if total else 0.0)

    def listen() -> None:
        try:
            tell()
            while not ended.wait(_LISTEN_S):
                tell()
        except BaseException as error:  # handed to the caller below, who is in another thread
            refusal.append(error)
            stopped.set()
            if not ended.is_set():
                _abort()

    listener = threading.Thread(target=listen, name="nemodiff-download", daemon=True)
    listener.start()
    try:
        yield Bar
    finally:
        ended.set()
        listener.join()
        if refusal:
            raise refusal[0]


def _abort() -> None:
    """End a transfer through Xet, which goes on whatever its progress bar raises; plain ones end with their bar."""
    with contextlib.suppress(ImportError):
        from huggingface_hub.utils._xet import abort_xet_session  # as huggingface_hub does on an interrupt

        abort_xet_session()
