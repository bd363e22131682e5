"""From generated examples to joint batches: a noisy half for diffusion beside a clean half for AR (facts §5).

The clean half is the whole conversation. The noisy half holds only the blocks that cover the answer: the
prompt is never masked, so its noisy copy would cost compute and teach nothing. Blocks may start anywhere
around the answer's first token, because self-speculation drafts from wherever the last cycle ended.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from nemodiff_core.analysis.tasks import stream
from nemodiff_core.tokenizer import Tokenizer

PAST_END_WEIGHT = 0.1  # cells after the end token: easy, but a draft must know that the text is over


@dataclass(frozen=True)
class NoiseSettings:
    """Shares of the block noise patterns; what is left over masks every token with one probability."""

    full: float = 0.35  # every cell but the seed: what a draft starts from
    span: float = 0.2  # one contiguous span with a visible suffix: what infill sees
    aligned: float = 0.5  # blocks that start exactly at the answer, as block diffusion does
    seed_visible: float = 0.9  # first cell of a block known, as decoding has it
    floor: float = 0.15  # smallest masking probability; bounds the 1/p weight


@dataclass(frozen=True)
class JointBatch:
    """One step's tensors. N noisy and L clean positions stand side by side on the sequence axis."""

    tokens: torch.Tensor  # [batch, N + L]
    positions: torch.Tensor  # [batch, N + L]
    mask: torch.Tensor  # [batch, 1, N + L, N + L] bool, True = visible
    ar_rows: torch.Tensor  # [a] flat indices into batch x (N + L)
    ar_targets: torch.Tensor  # [a]
    noisy_rows: torch.Tensor  # [d]
    noisy_targets: torch.Tensor  # [d]
    noisy_weights: torch.Tensor  # [d] float32
    clean_tokens: int  # conversation tokens in the batch, without padding

    def to(self, device: str) -> JointBatch:
        """The same batch with its tensors on `device`."""
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved)


def conversation(tokenizer: Tokenizer, prompt: str, answer: str) -> tuple[list[int], int]:
    """Ids of one supervised conversation, end token included, and where its answer starts."""
    ids = tokenizer.chat([{"role": "user", "content": prompt}])
    return ids + tokenizer.encode_plain(answer) + [tokenizer.eos_id], len(ids)


def noise_block(visible_from: int, size: int, noise: NoiseSettings, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Which cells of one block are masked [size] bool, and the 1/p weight of each (facts §5).

    Cells before `visible_from` belong to the prompt and stay. At least one cell is masked.
    """
    masked = np.zeros(size, dtype=bool)
    first = max(visible_from, 1 if rng.random() < noise.seed_visible else 0)
    first = min(first, size - 1)
    kind, weight = rng.random(), 1.0
    if kind < noise.full:
        masked[first:] = True
    elif kind < noise.full + noise.span and size - first > 2:
        length = int(rng.integers(1, size - first))
        start = int(rng.integers(first, size - length))
        masked[start : start + length] = True
    else:
        p = float(rng.uniform(noise.floor, 1.0))
        masked[first:] = rng.random(size - first) < p
        weight = 1.0 / p
    if not masked.any():
        masked[int(rng.integers(first, size))] = True
    return masked, weight


def collate(
    rows: list[tuple[list[int], int]],
    block: int,
    mask_id: int,
    eos_id: int,
    noise: NoiseSettings,
    rng: np.random.Generator,
    joint: bool = True,
) -> JointBatch:
    """Build the batch of (ids, answer start) rows; without its noisy half where `joint` is false."""
    batch, clean = len(rows), max(len(ids) for ids, _ in rows)
    starts, counts = [], []
    for ids, answer in rows:
        back = 0 if rng.random() < noise.aligned else int(rng.integers(0, block))
        start = max(answer - back, 1)
        starts.append(start)
        counts.append(-(-(len(ids) - start) // block) if joint else 0)
    width = max(counts) * block
    total = width + clean
    tokens = np.full((batch, total), eos_id, dtype=np.int64)
    positions = np.zeros((batch, total), dtype=np.int64)
    positions[:, width:] = np.arange(clean)
    ar_rows, ar_targets, noisy_rows, noisy_targets, noisy_weights = [], [], [], [], []
    for n, (ids, answer) in enumerate(rows):
        start, count = starts[n], counts[n]
        row = np.asarray(ids, dtype=np.int64)
        tokens[n, width : width + len(ids)] = row
        positions[n, :width] = start + np.arange(width)
        filled = np.full(width, eos_id, dtype=np.int64)
        if joint:
            filled[: len(ids) - start] = row[start:]
        tokens[n, :width] = filled
        offset = n * total
        ar_rows.append(offset + width + np.arange(answer - 1, len(ids) - 1))
        ar_targets.append(row[answer:])
        for b in range(count):
            low = b * block
            masked, weight = noise_block(max(answer - start - low, 0), block, noise, rng)
            cells = low + np.flatnonzero(masked)
            noisy_rows.append(offset + cells)
            noisy_targets.append(filled[cells])
            noisy_weights.append(np.where(start + cells < len(ids), weight, weight * PAST_END_WEIGHT))
            tokens[n, cells] = mask_id
    return JointBatch(
        tokens=torch.from_numpy(tokens),
        positions=torch.from_numpy(positions),
        mask=joint_mask(torch.tensor(starts), width, clean, block),
        ar_rows=torch.from_numpy(np.concatenate(ar_rows)),
        ar_targets=torch.from_numpy(np.concatenate(ar_targets)),
        noisy_rows=torch.from_numpy(_joined(noisy_rows, np.int64)),
        noisy_targets=torch.from_numpy(_joined(noisy_targets, np.int64)),
        noisy_weights=torch.from_numpy(_joined(noisy_weights, np.float32)),
        clean_tokens=sum(len(ids) for ids, _ in rows),
    )


def _joined(parts: list[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate(parts).astype(kind) if parts else np.empty(0, kind)


def joint_mask(starts: torch.Tensor, width: int, clean: int, block: int) -> torch.Tensor:
    """Who sees whom [batch, 1, width + clean, width + clean] (facts §5, `block_diff`).

    noisy→noisy in the same block, noisy→clean before the block, clean→clean causally, clean→noisy never.
    `starts` [batch] is the absolute position of the first noisy cell.
    """
    index = torch.arange(width) // block
    mask = torch.zeros(len(starts), 1, width + clean, width + clean, dtype=torch.bool)
    mask[:, 0, :width, :width] = index[:, None] == index[None, :]
    block_starts = starts[:, None] + index * block  # [batch, width]
    mask[:, 0, :width, width:] = torch.arange(clean) < block_starts[..., None]
    mask[:, 0, width:, width:] = torch.ones(clean, clean, dtype=torch.bool).tril()
    return mask


class BatchStream:
    """Endless joint batches of about `budget` positions, rows of similar length together.

    Deterministic for a seed; `skip` examples are passed over so that a resumed run sees new ones.
    """

    def __init__(
        self, tokenizer: Tokenizer, block: int, budget: int, noise: NoiseSettings, seed: int, skip: int = 0, longest: int = 512
    ) -> None:
        self.tokenizer, self.block, self.budget, self.noise = tokenizer, block, budget, noise
        self.longest = longest
        self.joint_share = 1.0  # of the batches; the others train the causal half alone, at about half the price
        # A resumed run draws from a fresh seed instead of replaying what it has already seen.
        self.examples = stream("train", seed * 1_000_003 + skip)
        self.rng = np.random.default_rng([seed, skip])
        self.order = random.Random(seed + skip)
        self.drawn = skip

    def __iter__(self) -> Iterator[JointBatch]:
        while True:
            # A pool large enough that sorting by length wastes little padding, shuffled batch by batch.
            pool = sorted((self._draw() for _ in range(384)), key=lambda row: len(row[0]))
            groups: list[list[tuple[list[int], int]]] = [[]]
            for row in pool:
                group = groups[-1]
                cost = len(row[0]) + (len(row[0]) - row[1]) + self.block
                if group and (len(group) + 1) * cost > self.budget:
                    groups.append([])
                groups[-1].append(row)
            self.order.shuffle(groups)
            for group in groups:
                joint = self.rng.random() < self.joint_share
                yield collate(group, self.block, self.tokenizer.mask_id, self.tokenizer.eos_id, self.noise, self.rng, joint)

    def _draw(self) -> tuple[list[int], int]:
        while True:
            example = next(self.examples)
            self.drawn += 1
            ids, answer = conversation(self.tokenizer, example.prompt, example.answer)
            if len(ids) <= self.longest:
                return ids, answer

