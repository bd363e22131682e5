"""`nemodiff train`: make the bundled model from nothing, within a time budget."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from nemodiff_core.checkpoint import load, save
from nemodiff_core.config import ModelConfig, RopeConfig
from nemodiff_core.errors import NemodiffError
from nemodiff_core.model import TriModeModel
from nemodiff_core.tokenizer import Tokenizer
from nemodiff_core.training.batches import BatchStream, NoiseSettings
from nemodiff_core.training.objective import joint_loss
from nemodiff_core.training.optimizer import build_optimizers, schedule
from nemodiff_core.training.vocabulary import EOS, MASK, carry_rows, train_vocabulary


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides the result, but for the hardware's speed."""

    minutes: float = 100.0  # wall-clock budget over all resumed runs; the schedule follows it
    seed: int = 0
    vocabulary: int = 2048
    hidden: int = 256
    layers: int = 6
    intermediate: int = 704
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    block: int = 16
    positions: int = 1024  # of one batch, whose rows are of similar length: noisy and clean, padding included
    batches_per_step: int = 3  # of different lengths, and so of different families
    joint_share: float = 0.5  # of the batches, until `joint_from` of the time; then all have their noisy half
    joint_from: float = 0.5
    hold: float = 0.4  # share of the time before the learning rate begins to fall
    lr: float = 3e-3
    weight_decay: float = 0.05
    alpha: float = 0.5  # weight of the diffusion loss; the family uses 0.3 at a million times more data
    clip: float = 1.0
    device: str = "cpu"
    autocast: bool = False  # bfloat16 matrix products; pays only where the processor has them

    @classmethod
    def preset(cls, name: str, **changes) -> TrainSettings:
        """`cpu`: two cores in under two hours. `gpu`: the same model on far more text, in minutes."""
        presets = {
            "cpu": {"autocast": _has_bfloat16()},
            "gpu": {"minutes": 20.0, "positions": 32_768, "lr": 6e-3, "device": "cuda", "autocast": True},
        }
        if name not in presets:
            raise NemodiffError(f"there is no training preset {name!r}; choose cpu or gpu.")
        return cls(**{**presets[name], **{k: v for k, v in changes.items() if v is not None}})


def _has_bfloat16() -> bool:
    # Emulated bfloat16 products were nine times slower than float32 on a processor with AVX2 alone.
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


@dataclass(frozen=True)
class Progress:
    """What a listener learns after every step."""

    step: int
    elapsed: float  # seconds of training, over all resumed runs
    budget: float  # seconds
    tokens: int  # conversation tokens seen
    examples: int
    ar_loss: float
    masked_loss: float
    lr: float


def model_config(settings: TrainSettings, vocabulary: int) -> ModelConfig:
    """Geometry of the model to train, in the family's format."""
    return ModelConfig(
        vocab_size=vocabulary,
        hidden_size=settings.hidden,
        intermediate_size=settings.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        head_dim=settings.head_dim,
        max_position_embeddings=2048,
        eos_token_id=EOS,
        mask_token_id=MASK,
        block_size=settings.block,
        rope=RopeConfig(theta=10_000.0, factor=2.0, original_max_position_embeddings=1024, beta_fast=32.0),
    )


def initialise(model: TriModeModel, seed: int) -> None:
    """Fan-in scaled weights; projections that write to the residual stream and the head start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() < 2:
                continue
            if name.endswith(("o_proj.weight", "down_proj.weight", "diffusion_head.weight")):
                p.zero_()
            else:
                std = 0.5 if "embed" in name else p.shape[1] ** -0.5
                p.copy_(torch.randn(p.shape, generator=generator) * std)


def _running(mean: float, seen: list[torch.Tensor], weight: float = 0.01) -> float:
    """A running mean over about a hundred batches; single ones are of one length and so of one family."""
    for loss in torch.stack(seen).tolist() if seen else ():
        mean = loss if math.isnan(mean) else mean + weight * (loss - mean)
    return mean


def train(
    settings: TrainSettings,
    out: str | Path,
    *,
    resume: bool = False,
    start: str | Path | None = None,
    new_vocabulary: bool = False,
    listen: Callable[[Progress], None] | None = None,
    save_every: float = 180.0,
    max_steps: int | None = None,
) -> Progress:
    """Train until the time budget is spent and write the checkpoint folder `out`.

    The run's own state is kept in `out`/training.pt and removed when the run is complete; `resume`
    continues from it. `start` is a finished checkpoint whose tokenizer and weights a new run begins with;
    `new_vocabulary` learns the tokenizer anew and carries the rows of its tokens over (`carry_rows`).
    Raises NemodiffError where there is nothing to resume or the device is missing.
    """
    out = Path(out)
    state_file = out / "training.pt"
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise NemodiffError("there is no CUDA device here; train with the cpu preset.")
    if resume and not state_file.is_file():
        raise NemodiffError(f"{out} holds no interrupted training run; start one without resuming.")
    out.mkdir(parents=True, exist_ok=True)
    if start is not None and not resume:
        source = load(start, dtype=torch.float32, device="cpu")
        tokenizer, config, weights = source.tokenizer, source.config, source.model.state_dict()
        if new_vocabulary:
            tokenizer = train_vocabulary(settings.vocabulary, seed=settings.seed)
            config = replace(config, vocab_size=tokenizer.vocab_size)
            for name in ("encoder.embed_tokens.weight", "diffusion_head.weight"):
                weights[name] = carry_rows(weights[name], source.tokenizer, tokenizer)
        model = TriModeModel(config)
        model.load_state_dict(weights)
    else:
        tokenizer = (
            Tokenizer.from_folder(out, mask_id=MASK, eos_id=EOS)
            if resume
            else train_vocabulary(settings.vocabulary, seed=settings.seed)
        )
        model = TriModeModel(model_config(settings, tokenizer.vocab_size))
        initialise(model, settings.seed)
    model.to(settings.device)
    optimizers = build_optimizers(model, settings.lr, settings.weight_decay)
    # Taken before a saved state is loaded: its groups carry the rate of the moment, not the full one.
    base_rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
    step = tokens = examples = 0
    before = 0.0
    if resume:
        state = torch.load(state_file, map_location=settings.device, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        step, tokens, examples, before = state["step"], state["tokens"], state["examples"], state["elapsed"]
    tokenizer.save(out)
    batches = BatchStream(tokenizer, settings.block, settings.positions, NoiseSettings(), settings.seed, examples)
    budget = settings.minutes * 60
    began = last_save = time.monotonic()
    ar_loss = masked_loss = math.nan
    compute = torch.autocast(settings.device.split(":")[0], torch.bfloat16, enabled=settings.autocast)

    def report() -> Progress:
        elapsed = before + time.monotonic() - began
        return Progress(step, elapsed, budget, tokens, batches.drawn, ar_loss, masked_loss, optimizers[0].param_groups[0]["lr"])

    def save_state() -> None:
        state = {
            "model": model.state_dict(),
            "optimizers": [o.state_dict() for o in optimizers],
            "step": step,
            "tokens": tokens,
            "examples": batches.drawn,
            "elapsed": before + time.monotonic() - began,
        }
        partial = state_file.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, state_file)

    stream = iter(batches)
    while True:
        elapsed = before + time.monotonic() - began
        if elapsed >= budget or (max_steps is not None and step >= max_steps):
            break
        factor = schedule(elapsed / budget, step, hold=settings.hold)
        for optimizer, rates in zip(optimizers, base_rates):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * factor
        batches.joint_share = settings.joint_share if elapsed < settings.joint_from * budget else 1.0
        losses = []
        for _ in range(settings.batches_per_step):
            batch = next(stream)
            with compute:
                loss = joint_loss(model, batch.to(settings.device), settings.alpha)
            (loss.total / settings.batches_per_step).backward()
            losses.append(loss)
            tokens += batch.clean_tokens
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        ar_loss = _running(ar_loss, [loss.ar for loss in losses])
        masked_loss = _running(masked_loss, [loss.masked for loss in losses if loss.masked is not None])
        if listen is not None:
            listen(report())
        if time.monotonic() - last_save > save_every:
            save_state()
            save(model, tokenizer, out)
            last_save = time.monotonic()
    progress = report()
    save(model, tokenizer, out)
    record = {
        "settings": asdict(settings),
        "result": asdict(progress),
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "finished": time.strftime("%Y-%m-%d"),
    }
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    if max_steps is None:
        state_file.unlink(missing_ok=True)
    else:
        save_state()
    return progress
