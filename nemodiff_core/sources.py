"""Where a checkpoint is: a folder, the bundled model, or a model of the Hugging Face hub."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import yaml
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from nemodiff_core.config import ModelConfig
from nemodiff_core.errors import CheckpointError, NemodiffError
from nemodiff_core.hub import Progress, check_id, fetch, is_id
from nemodiff_core.tokenizer import FILES as TOKENIZER_FILES

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# The folder inside a checkpoint that holds its draft adapter, and the adapter's files.
ADAPTER, ADAPTER_CONFIG, ADAPTER_WEIGHTS = "linear_spec_lora", "adapter_config.json", "adapter_model.safetensors"
WANTED_FILES = [
    CONFIG, WEIGHTS, INDEX, "model-*.safetensors", *TOKENIZER_FILES,
    f"{ADAPTER}/{ADAPTER_CONFIG}", f"{ADAPTER}/{ADAPTER_WEIGHTS}",
]  # fmt: skip
CARD = "README.md"  # the model card, which names the licence
BUNDLED_NAME = "tiny"
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Found(NamedTuple):
    """A checkpoint's folder on this machine, the name to show for it and its hub commit."""

    path: Path
    id: str
    revision: str | None


def bundled_path() -> Path:
    """Folder of the checkpoint that ships with nemodiff."""
    return Path(__file__).parent / "models" / BUNDLED_NAME


def find(
    source: str | os.PathLike[str],
    revision: str | None = None,
    progress: Progress | None = None,
    weights: bool = True,
) -> Found:
    """The folder of `source`, downloading only the files that are read. Raises CheckpointError.

    Without `weights` a hub id brings its config alone, which is enough to say what it is.

    An existing folder wins over "tiny" and over a hub id. HF_HUB_OFFLINE and the hub's cache are respected.
    """
    text = os.fspath(source)
    try:
        path = Path(text).expanduser()
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, or nobody's home
        path, is_folder, exists = Path(), False, False
    if text == BUNDLED_NAME and not is_folder:
        path, is_folder = bundled_path(), bundled_path().is_dir()
        if not is_folder:
            raise CheckpointError("the bundled model is missing from this installation; reinstall nemodiff.")
    if is_folder:
        if revision is not None:
            raise CheckpointError(f"{text!r} is a folder, which has no revisions; leave the revision out.")
        path = Path(os.path.abspath(path))
        return Found(path, path.name, None)
    if exists:
        raise CheckpointError(f"{text!r} is a file; give the folder that holds it.")
    if not is_id(text):
        raise CheckpointError(
            f"there is no folder {text!r}, and it is no hub id either; give a folder, an id such as "
            f"nvidia/Nemotron-Labs-Diffusion-3B, or {BUNDLED_NAME!r} for the bundled model."
        )
    return find_on_hub(text, revision, progress, weights)


def find_on_hub(
    hub_id: str,
    revision: str | None = None,
    progress: Progress | None = None,
    weights: bool = True,
    token: bool | None = None,
) -> Found:
    """As `find`, for text that must be a hub id and is never taken for a folder of this machine. Raises CheckpointError.

    `token` False leaves this machine's login to the hub out, for strangers who must not see what its owner may.
    """
    hub_id = check_id(hub_id)
    progress = progress or (lambda what, share: None)
    progress(f"finding {hub_id}", 0.0)
    try:
        # The config alone first: whoever names another kind of model learns it before a long download.
        folder = fetch(hub_id, [CONFIG, CARD], revision, lambda what, share: progress(f"finding {hub_id}", 0.0), token)
        read_config(folder)
        commit = folder.name if _COMMIT.fullmatch(folder.name) else revision
        if weights:
            folder = fetch(hub_id, [*WANTED_FILES, CARD], commit, progress, token)
    except GatedRepoError as error:
        raise CheckpointError(
            f"{hub_id} asks for its licence to be accepted; do so on its hub page and run `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"the hub has no public model {hub_id}; check the spelling, or run `hf auth login` if it is private."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{hub_id} has no revision {revision!r}; leave it out for the newest.") from error
    except LocalEntryNotFoundError as error:
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            cure = "unset HF_HUB_OFFLINE to download it"
        else:
            cure = "check the connection or give a folder"
        raise CheckpointError(f"{hub_id} is not on this machine and the hub cannot be reached; {cure}.") from error
    except NemodiffError:
        raise
    except Exception as error:  # disk, proxy, certificate, server: for the reader one thing went wrong
        raise CheckpointError(f"{hub_id} could not be downloaded ({one_line(error)}); try again.") from error
    return Found(folder, hub_id, commit)


def licence(folder: Path) -> str | None:
    """The licence that a checkpoint's model card states; None where it says nothing that can be read."""
    try:
        stated = huggingface_hub.metadata_load(folder / CARD) or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    names = [stated.get(key) for key in ("license_name", "license")]
    return next((name[:80] for name in names if isinstance(name, str) and name), None)


def read_config(folder: Path) -> ModelConfig:
    """The config of a checkpoint folder. Raises CheckpointError, or ConfigError for what it says."""
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{folder} is no checkpoint: it has no config.json; give the folder that holds one.")
    return ModelConfig.from_dict(read_json(path))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} is not readable JSON ({one_line(error)}); download it again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} is no JSON object; download it again.")
    return content


def one_line(error: BaseException) -> str:
    """A library's message as part of one sentence."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "…"
