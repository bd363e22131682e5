"""`nemodiff train-adapter`: a draft adapter for a checkpoint, with its acceptance before and after."""

from __future__ import annotations

import math
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from nemodiff_core.analysis.example import Example
from nemodiff_core.analysis.tasks import examples_for, stream
from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError
from nemodiff_core.files import write_json
from nemodiff_core.lora import DraftAdapter, LowRank, load_adapter, save_adapter
from nemodiff_core.metrics import acceptance_lengths
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest
from nemodiff_core.tokenizer import Tokenizer
from nemodiff_core.training.batches import conversation
from nemodiff_core.training.draft_objective import draft_batch, draft_loss
from nemodiff_core.training.optimizer import schedule

RECORD = "adapter_training.json"
MAX_NEW_TOKENS = 256


@dataclass(frozen=True)
class AdapterSettings:
    """Everything that decides the result, but for the hardware's speed."""

    minutes: float = 10.0  # wall-clock budget of the training itself, without the two measurements
    seed: int = 0
    rank: int = 16
    alpha: float = 32.0
    block: int = 16
    rows: int = 16  # conversations per step
    slots: int = 4  # drafted blocks per conversation
    longest: int = 512  # tokens of a conversation
    lr: float = 2e-3
    hold: float = 0.5  # share of the time before the learning rate begins to fall
    clip: float = 1.0
    prompts: int = 12  # held-out prompts per task family for the measurements

    def __post_init__(self) -> None:
        if min(self.rank, self.rows, self.slots, self.prompts) < 1 or not 2 <= self.block <= 64:
            raise NemodiffError("rank, rows and prompts must be at least 1, and the block length 2 to 64; change them.")
        if not (self.minutes > 0 and self.lr > 0 and math.isfinite(self.minutes * self.lr * self.alpha)):
            raise NemodiffError("minutes and learning rate must be above 0 and finite; change them.")


@dataclass(frozen=True)
class Progress:
    """What a listener learns after every step."""

    step: int
    elapsed: float  # seconds of training
    budget: float  # seconds
    examples: int
    loss: float  # running means
    accepted: float  # tokens per verification of sampled drafts, the bonus included


def new_adapter(model: TriModeModel, rank: int, alpha: float, seed: int) -> DraftAdapter:
    """A float32 adapter that changes nothing yet: A uniform as in PEFT, B zero; both ask for gradients."""
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for layer in model.encoder.layers:
        out, into = layer.self_attn.o_proj.weight.shape
        a = (torch.rand(rank, into, generator=generator) * 2 - 1) * into**-0.5
        a, b = (half.to(model.device).requires_grad_() for half in (a, torch.zeros(out, rank)))
        layers.append(LowRank(a, b, alpha / rank))
    return DraftAdapter(tuple(layers))


def train_adapter(
    engine: Engine,
    settings: AdapterSettings,
    out: str | Path,
    *,
    listen: Callable[[Progress], None] | None = None,
    measured: Callable[[str, int, int], None] | None = None,
    save_every: float = 60.0,
    max_steps: int | None = None,
) -> dict[str, Any]:
    """Train an adapter for the engine's checkpoint until the time is spent; write folder `out` and attach it.

    The weights of the model are not touched. Returns what is stored as adapter_training.json: settings, result,
    and the acceptance on held-out prompts without and with the adapter as stored. `measured(which, done, total)`
    hears about every prompt of the two measurements. Raises NemodiffError, also for a model that is spread over devices or quantised.
    """
    checkpoint, out = engine.checkpoint, Path(out)
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    if model.layer_devices is not None:
        raise NemodiffError("an adapter is trained on one device; choose a device that holds the whole model.")
    if model.quantized:
        raise NemodiffError(f"an adapter is trained on weights in floating point, not in {model.quantized}; leave --dtype out.")
    stored = getattr(torch, checkpoint.config.torch_dtype)
    examples = examples_for("test", settings.prompts)
    before = acceptance(engine, examples, settings.block, adapter=False, listen=measured)

    model.requires_grad_(False)
    adapter = new_adapter(model, settings.rank, settings.alpha, settings.seed)
    # Written once before the work, so that a folder that cannot be written to is known now.
    save_adapter(adapter, out, stored)
    weights = [half for layer in adapter.layers for half in (layer.a, layer.b)]
    optimizer = torch.optim.AdamW(weights, lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.0)
    generator = torch.Generator(device=model.device).manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    groups = conversations(tokenizer, settings)
    budget, step, loss_mean, accepted = settings.minutes * 60, 0, math.nan, math.nan
    began = saved = time.monotonic()

    def report() -> Progress:
        return Progress(step, time.monotonic() - began, budget, step * settings.rows, loss_mean, accepted)

    while (elapsed := time.monotonic() - began) < budget and step != max_steps:
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * schedule(elapsed / budget, step, hold=settings.hold)
        batch = draft_batch(next(groups), settings.slots, tokenizer.eos_id, rng).to(model.device)
        model.draft_adapter = adapter.to(model.dtype)
        loss = draft_loss(model, batch, settings.block, tokenizer.mask_id, tokenizer.eos_id, generator)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        loss_mean, accepted = _running(loss_mean, loss.total), _running(accepted, loss.accepted)
        if listen is not None:
            listen(report())
        if time.monotonic() - saved > save_every:
            save_adapter(adapter, out, stored)
            saved = time.monotonic()
    result = report()
    save_adapter(adapter, out, stored)
    model.draft_adapter = load_adapter(out, checkpoint.config, model.dtype, model.device)
    record = {
        "model": engine.describe(),
        "settings": asdict(settings),
        "result": {name: None if value != value else value for name, value in asdict(result).items()},
        "acceptance": {
            "before": before,
            "after": acceptance(engine, examples, settings.block, adapter=True, listen=measured),
        },
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "finished": time.strftime("%Y-%m-%d"),
    }
    write_json(out / RECORD, record)
    return record


def _running(mean: float, value: torch.Tensor, weight: float = 0.02) -> float:
    return value.item() if math.isnan(mean) else mean + weight * (value.item() - mean)


def conversations(tokenizer: Tokenizer, settings: AdapterSettings) -> Iterator[list[tuple[list[int], int]]]:
    """Endless groups of `rows` conversations (ids, answer start) of similar length."""
    examples, order = stream("train", settings.seed), np.random.default_rng(settings.seed)
    while True:
        pool: list[tuple[list[int], int]] = []
        while len(pool) < 16 * settings.rows:
            example = next(examples)
            ids, answer = conversation(tokenizer, example.prompt, example.answer)
            if len(ids) <= settings.longest:
                pool.append((ids, answer))
        pool.sort(key=lambda row: len(row[0]))
        for start in order.permutation(range(0, len(pool), settings.rows)):
            yield pool[start : start + settings.rows]


def acceptance(
    engine: Engine,
    examples: Sequence[Example],
    block: int,
    *,
    adapter: bool,
    listen: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Mean acceptance length of greedy linear self-speculation over all verifications, whole and by family."""
    lengths: dict[str, list[int]] = defaultdict(list)
    for n, example in enumerate(examples):
        run = engine.run(
            DecodeRequest(
                prompt=example.prompt, mode="linear_spec", block_length=block, max_new_tokens=MAX_NEW_TOKENS, adapter=adapter
            )
        )
        for _ in run:
            pass
        lengths[example.family] += acceptance_lengths(run.trace())
        if listen is not None:
            listen("with adapter" if adapter else "without adapter", n + 1, len(examples))
    every = [length for family in lengths.values() for length in family]
    return {
        "acceptance_length": fmean(every) if every else None,
        "families": {name: fmean(family) for name, family in lengths.items() if family},
        "prompts": len(examples),
        "verifications": len(every),
    }
