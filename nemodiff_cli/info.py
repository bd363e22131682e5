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


def run_info(source: str | None, revision: str | None, dtype: str | None) -> None:
    """Print geometry, parameters, size and fit. Raises NemodiffError."""
    import torch

    from nemodiff_core.checkpoint import bundled_path, find, read_config, survey
    from nemodiff_core.model import TriModeModel
    from nemodiff_core.placement import free_memory, parse_dtype

    # What a model is and whether it fits should be known before its weights are downloaded.
    found = find(source or bundled_path(), revision, weights=False)
    config = read_config(found.path)
    stored = survey(found.path) if any(found.path.glob("*.safetensors")) else {}
    with torch.device("meta"):
        parameters = TriModeModel(config).parameter_count()
    kind = parse_dtype(dtype or config.torch_dtype)
    need = parameters * kind.itemsize
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * kind.itemsize
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
        f"weights as {str(kind).removeprefix('torch.')}": _bytes(need),
        "KV cache": f"{_bytes(1024 * cache)} for 1,024 positions",
    }
    for place, free in free_memory().items():
        name = "processor memory" if place == "cpu" else f"GPU {place}"
        verdict = "fits" if need <= free else "does not fit as a whole; use --device auto"
        rows[name] = f"room for {_bytes(free)} of weights: {verdict}"
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    Console(highlight=False).print(table)


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
