"""Files of a checkpoint: written whole or not at all, and what to say of a damaged one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nemodiff_core.errors import CheckpointError
from nemodiff_core.sources import one_line


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` make the file beside its place, then move it there: readers keep the old one they have mapped."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(fresh)
        fresh.chmod(0o644)  # safetensors writes for its owner alone, but a checkpoint is there to be served
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    text = json.dumps(content, indent=2) + "\n"
    replace_file(path, lambda fresh: fresh.write_text(text, "utf-8"))


def damaged(file: Path, error: Exception) -> CheckpointError:
    """The sentence for a safetensors file that could not be opened or read."""
    try:
        with open(file, "rb") as start:
            if start.read(64).startswith(b"version https://git-lfs"):
                return CheckpointError(f"{file.name} is only a Git LFS pointer; run `git lfs pull`.")
    except OSError:
        pass
    return CheckpointError(f"{file.name} is damaged or cut off ({one_line(error)}); download it again.")
