"""`nemodiff info`: what a checkpoint is, and whether it fits here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # torch is imported only when there is something to describe
    from pathlib import Path

    from nemodiff_core.checkpoint import StoredTensor
    from nemodiff_core.config import ModelConfig


def run_info(source: str | None, revision: str | None) -> None:
    """Print geometry, parameters, size, and where it fits in which format. Raises NemodiffError."""
    import torch

    from nemodiff_core.checkpoint import bundled_path, find, read_config, survey
    from nemodiff_core.model import TriModeModel
    from nemodiff_core.placement import free_memory

    # What a model is and whether it fits should be known before its weights are downloaded.
    found = find(source or bundled_path(), revision, weights=False)
    config = read_config(found.path)
    stored = survey(found.path) if any(found.path.glob("*.safetensors")) else {}
    with torch.device("meta"):
        parameters = TriModeModel(config).parameter_count()
    rows = {
        "checkpoint": found.id,
        "revision": found.revision or "(a folder)",
        **_storage(stored),
        "parameters": f"{parameters:,}",
        "layers": str(config.num_hidden_layers),
        "hidden, feed-forward": f"{config.hidden_size}, {config.intermediate_size}",
        "heads": f"{config.num_attention_heads} query, {config.num_key_value_heads} key-value, of {config.head_dim}",
        "vocabulary": f"{config.vocab_size:,}",
        "context": f"{config.max_position_embeddings:,} positions (trained on {config.rope.original_max_position_embeddings:,})",
        "block": str(config.block_size),
        "draft adapter": _adapter(found.path, config) if stored else "not downloaded",
    }
    room = free_memory()
    for place, free in room.items():
        rows[_place(place)] = f"room for {_bytes(free)}"
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    console = Console(highlight=False)
    console.print(table, "", _formats(config, room), sep="\n")


def _formats(config: ModelConfig, room: Mapping[int | str, int]) -> Table:
    """A row for every `--dtype`: what it needs, the smallest card that it fits, and where it fits here."""
    from nemodiff_core.fit import FORMATS, POSITIONS, need

    table = Table(box=None, pad_edge=False)
    for title in ("--dtype", "weights", f"KV cache, {POSITIONS:,} positions", "fits a card of", "fits here"):
        table.add_column(title, header_style="dim", justify="left" if title in ("--dtype", "fits here") else "right")
    for form in FORMATS:
        there = need(config, form)
        here = [place for place in room if need(config, form, "cpu" if place == "cpu" else "cuda").fits({place: room[place]})]
        card = f"{there.card} GB" if there.card else "none"
        table.add_row(form, _bytes(there.weights), _bytes(there.cache), card, ", ".join(map(_place, here)) or _spread(room))
    return table


def _place(place: int | str) -> str:
    return "processor memory" if place == "cpu" else f"GPU {place}"


def _spread(room: Mapping[int | str, int]) -> str:
    return "not as a whole; try --device auto" if len(room) > 1 else "no"


def _adapter(folder: Path, config: ModelConfig) -> str:
    from nemodiff_core.lora import has_adapter, load_adapter
    from nemodiff_core.sources import ADAPTER

    if not has_adapter(folder / ADAPTER):
        return "none"
    adapter = load_adapter(folder / ADAPTER, config)
    return f"rank {adapter.rank}, {adapter.parameter_count():,} parameters"


def _storage(stored: Mapping[str, StoredTensor]) -> dict[str, str]:
    if not stored:
        return {"files": "not downloaded"}
    size = sum(file.stat().st_size for file in {tensor.file for tensor in stored.values()})
    kinds = ", ".join(sorted({tensor.dtype for tensor in stored.values()}))
    return {"files": f"{_bytes(size)} in {len(stored)} tensors", "stored as": kinds}


def _bytes(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return ""
