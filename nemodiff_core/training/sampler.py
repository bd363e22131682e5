"""Training of the learned sampler on trajectories of the model itself (facts §5, "Trained sampler").

The model writes answers one commit a forward. Every cell that such a forward looked at is an example: what the
forward said about it, and whether its first candidate is the token that stood there in the end. The runs are
ordinary traces, so the network learns from exactly what a decoder can see.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from nemodiff_core.analysis.tasks import stream
from nemodiff_core.decode.learned import TOP, CommitSampler, save_sampler
from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError
from nemodiff_core.request import parse_request
from nemodiff_core.trace import Trace


@dataclass(frozen=True)
class SamplerSettings:
    """Everything that decides the result."""

    prompts: int = 600
    minutes: float = 2.0  # of training, after the trajectories were written
    block: int = 16
    batch: int = 256  # forwards
    lr: float = 1e-3
    weight_decay: float = 0.05
    held_out: float = 0.1  # share of the prompts that only measures, and as much again that says when to stop
    every: int = 50  # updates between two looks at the latter
    seed: int = 0


@dataclass(frozen=True)
class Examples:
    """What n forwards said about their masked cells, padded to the longest."""

    ids: torch.Tensor  # [n, cells, TOP]
    probabilities: torch.Tensor  # [n, cells, TOP]
    entropy: torch.Tensor  # [n, cells]
    offsets: torch.Tensor  # [n, cells]
    absent: torch.Tensor  # [n, cells] bool
    final: torch.Tensor  # [n, cells] 1.0 where the first candidate stood there in the end

    def rows(self, index: torch.Tensor) -> Examples:
        """Some of the forwards."""
        return Examples(**{name: tensor[index] for name, tensor in vars(self).items()})


@dataclass(frozen=True)
class SamplerResult:
    """How well the network tells final candidates, on prompts it never saw."""

    forwards: int
    cells: int
    loss: float  # binary cross-entropy, nats
    accuracy: float
    baseline_loss: float  # of the first candidate's own probability taken as the answer


def examples_of(traces: Iterable[Trace]) -> Examples:
    """The masked cells of every denoising forward, with what became of them. Raises NemodiffError for none."""
    rows = []
    for trace in traces:
        start, output = len(trace.prompt.ids), trace.output.ids
        cells: dict[int, int] = {}
        for step in trace.steps:
            if step.phase == "denoise":
                cells_now = [
                    (list(c.ids[:TOP]), list(c.probabilities[:TOP]), c.entropy, c.position - step.span[0], output[c.position - start])
                    for c in step.candidates
                    if c.position not in cells and c.position - start < len(output)
                ]
                if cells_now:
                    rows.append(cells_now)
            cells.update((event.position, event.token) for event in step.events)
    if not rows:
        raise NemodiffError("the runs hold no denoising forward with candidates; give longer answers.")
    width = max(map(len, rows))
    count = len(rows)
    made = Examples(
        torch.zeros(count, width, TOP, dtype=torch.long),
        torch.zeros(count, width, TOP),
        torch.zeros(count, width),
        torch.zeros(count, width, dtype=torch.long),
        torch.ones(count, width, dtype=torch.bool),
        torch.zeros(count, width),
    )
    for n, row in enumerate(rows):
        size = len(row)
        ids, probabilities, entropy, offsets, final = zip(*row)
        made.ids[n, :size], made.probabilities[n, :size] = torch.tensor(ids), torch.tensor(probabilities)
        made.entropy[n, :size], made.offsets[n, :size] = torch.tensor(entropy), torch.tensor(offsets)
        made.absent[n, :size] = False
        made.final[n, :size] = (torch.tensor(ids)[:, 0] == torch.tensor(final)).float()
    return made


def trajectories(engine: Engine, settings: SamplerSettings, listen: Callable[[int, int], None] | None = None) -> list[Trace]:
    """Answers to training prompts, one commit a forward, with the candidates of every cell."""
    prompts, traces = stream("train", settings.seed + 77_000_001), []
    for n in range(settings.prompts):
        request = parse_request(
            {
                "prompt": next(prompts).prompt,
                "mode": "diffusion",
                "block_length": settings.block,
                "steps": settings.block,
                "candidates": TOP,
                "max_new_tokens": min(192, engine.limits.max_new_tokens),
            }
        )
        run = engine.run(request)
        for _ in run:
            pass
        traces.append(run.trace())
        if listen is not None:
            listen(n + 1, settings.prompts)
    return traces


def loss_of(net: CommitSampler, part: Examples) -> tuple[torch.Tensor, torch.Tensor]:
    """Binary cross-entropy over the cells (scalar), and which cells are told right [cells] bool."""
    here = ~part.absent
    logits = net(part.ids, part.probabilities, part.entropy, part.offsets, part.absent)[here]
    target = part.final[here]
    return F.binary_cross_entropy_with_logits(logits, target), (logits > 0) == (target > 0.5)


def measure(net: CommitSampler, part: Examples, rows: int = 1024) -> tuple[float, float]:
    """Mean cross-entropy (nats) over the cells, and the share of cells told right. Leaves `net` in its mode."""
    was, total, right, cells = net.training, 0.0, 0, 0
    net.eval()
    with torch.inference_mode():
        for index in torch.arange(len(part.final)).split(rows):
            loss, told = loss_of(net, part.rows(index))
            total, right, cells = total + loss.item() * len(told), right + int(told.sum()), cells + len(told)
    net.train(was)
    return total / cells, right / cells


def train_sampler(
    engine: Engine,
    settings: SamplerSettings,
    folder: Path,
    listen: Callable[[str, int, int], None] | None = None,
) -> SamplerResult:
    """Write trajectories, train the network, save it in `folder`. `listen` hears (what, done, of).

    Raises NemodiffError, also for a quantised model.
    """
    tell = listen or (lambda what, done, of: None)
    if (form := engine.checkpoint.model.quantized):
        raise NemodiffError(f"a sampler is trained for weights in floating point, not in {form}; leave --dtype out.")
    traces = trajectories(engine, settings, lambda done, of: tell("writing answers", done, of))
    cut = max(1, int(len(traces) * settings.held_out))
    if len(traces) <= 2 * cut:
        raise NemodiffError("a prompt cannot both teach and measure; give at least three.")
    held, watched, taught = examples_of(traces[:cut]), examples_of(traces[cut : 2 * cut]), examples_of(traces[2 * cut :])
    torch.manual_seed(settings.seed)
    net = CommitSampler.for_embeddings(engine.checkpoint.model.encoder.embed_tokens.weight.detach().cpu())
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    began, budget = time.monotonic(), settings.minutes * 60
    generator = torch.Generator().manual_seed(settings.seed)
    best, kept, update = measure(net, watched)[0], copy.deepcopy(net.state_dict()), 0
    while (share := (time.monotonic() - began) / budget) < 1:
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * max(1 - share, 0.02)
        index = torch.randint(len(taught.final), (settings.batch,), generator=generator)
        loss, _ = loss_of(net, taught.rows(index))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        update += 1
        # Forwards of one answer repeat each other, so the network soon knows its prompts by heart: what is kept is
        # what did best on others.
        if update % settings.every == 0 and (now := measure(net, watched)[0]) < best:
            best, kept = now, copy.deepcopy(net.state_dict())
        tell("training", min(int(share * 1000), 1000), 1000)
    net.load_state_dict(kept)
    loss, accuracy = measure(net, held)
    here = ~held.absent
    plain = F.binary_cross_entropy(held.probabilities[here][:, 0].clamp(1e-4, 1 - 1e-4), held.final[here])
    result = SamplerResult(len(held.final), int(here.sum()), loss, accuracy, plain.item())
    save_sampler(net, folder)
    record = {"settings": asdict(settings), "held_out": asdict(result), "finished": time.strftime("%Y-%m-%d")}
    (folder / "sampler_training.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return result
