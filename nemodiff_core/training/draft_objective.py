"""What a draft adapter learns from: drafts of its own, judged by the causal pass (facts §5, "LoRA drafter").

A batch is whole conversations and, in each, a few slots: places in the answer where a cycle of linear
self-speculation could begin. One causal pass fills a cache for all slots; then every slot drafts its block
(bidirectional, adapter on) and has it verified (causal, adapter off) over its own part of that cache. Only
the draft pass has a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from nemodiff_core.model import TriModeModel

# The paper's constants.
TOP = 200  # candidates of either side that make up the support
TEMPERATURE = 3.0  # of both sides in the hybrid
SAMPLED_SHARE = 0.9  # of the slots sample their drafts at temperature 1; the others take the best
DECAY = 0.5  # how fast KL gives way to the total variation as the two sides come to overlap
NEVER = -1e9  # a logit that is finite, so that 0 * log 0 stays 0


@dataclass(frozen=True)
class DraftBatch:
    """Conversations, padded on the right, and the slots in each."""

    tokens: torch.Tensor  # [rows, length] int64
    starts: torch.Tensor  # [rows, slots] position of each slot's first cell, a token of the answer
    sampled: torch.Tensor  # [rows, slots] bool

    def to(self, device: torch.device) -> DraftBatch:
        """The same batch on `device`."""
        return DraftBatch(self.tokens.to(device), self.starts.to(device), self.sampled.to(device))


@dataclass(frozen=True)
class DraftLoss:
    """The loss in nats (TV counts as it is) and what the drafts were worth."""

    total: torch.Tensor  # [] with gradient: hybrid + cross-entropy, mean over active positions
    hybrid: torch.Tensor  # [] detached
    cross_entropy: torch.Tensor  # [] detached
    accepted: torch.Tensor  # [] tokens a verification would have yielded, the bonus included


def draft_batch(rows: list[tuple[list[int], int]], slots: int, pad: int, rng: np.random.Generator) -> DraftBatch:
    """Choose `slots` places in every row (ids, answer start), anywhere in the answer before its end token."""
    tokens = np.full((len(rows), max(len(ids) for ids, _ in rows)), pad, dtype=np.int64)
    starts = np.empty((len(rows), slots), dtype=np.int64)
    for n, (ids, answer) in enumerate(rows):
        tokens[n, : len(ids)] = ids
        starts[n] = rng.integers(answer, len(ids) - 1, slots)
    sampled = rng.random(starts.shape) < SAMPLED_SHARE
    return DraftBatch(torch.from_numpy(tokens), torch.from_numpy(starts), torch.from_numpy(sampled))


def slot_mask(starts: torch.Tensor, block: int, length: int, causal: bool) -> torch.Tensor:
    """Who sees whom [rows, 1, slots * block, length + slots * block]: the text before the slot, and its own block.

    `starts` [rows, slots]; `length` is the number of cached positions. Causal: a cell sees no later cell.
    """
    rows, slots = starts.shape
    before = torch.arange(length, device=starts.device) < starts.repeat_interleave(block, 1)[..., None]
    own = torch.ones(block, block, dtype=torch.bool, device=starts.device)
    own = torch.block_diag(*[own.tril() if causal else own] * slots).bool()
    return torch.cat((before, own.expand(rows, -1, -1)), dim=-1)[:, None]


def draft_loss(
    model: TriModeModel, batch: DraftBatch, block: int, mask_id: int, eos_id: int, generator: torch.Generator
) -> DraftLoss:
    """Draft and verify every slot once; the gradient reaches `model.draft_adapter` alone.

    Drafts are sampled at temperature 1 and kept with probability min(1, p / q), or greedy and kept where they are
    the verifier's best. Active positions: those kept, and the first that is not; nothing counts behind an end
    token.
    """
    rows, slots = batch.starts.shape
    length, width = batch.tokens.shape[1], slots * block
    positions = (batch.starts[..., None] + torch.arange(block, device=batch.starts.device)).view(rows, width)
    limit = int(positions.max()) + 1
    cells = torch.full((rows, slots, block), mask_id, device=batch.tokens.device)
    cells[..., 0] = batch.tokens.gather(1, batch.starts)
    cache = model.new_cache(length, rows)
    with torch.no_grad():
        model(batch.tokens, pattern="causal", cache=cache, write=True, rows=slice(0))

    def hidden(causal: bool) -> torch.Tensor:  # [rows, slots, block, hidden]
        mask = slot_mask(batch.starts, block, length, causal)
        x = model.hidden(cells.view(rows, width), positions, limit, mask=mask, cache=cache, draft=not causal)
        return x.view(rows, slots, block, -1)

    def logits(x: torch.Tensor) -> torch.Tensor:  # neither side may choose the mask
        return model.head(x).float().index_fill(-1, torch.tensor([mask_id], device=x.device), NEVER)

    drafter = hidden(causal=False)[:, :, 1:]  # a bidirectional logit predicts its own cell
    with torch.no_grad():
        q = logits(drafter)
        q_share = q.softmax(-1)
        drawn = torch.multinomial(q_share.flatten(0, 2), 1, generator=generator).view(q.shape[:-1])
        drafts = torch.where(batch.sampled[..., None], drawn, q.argmax(-1))
        cells[..., 1:] = drafts
        p = logits(hidden(causal=True)[:, :, :-1])  # a causal logit predicts the next one
        chosen = drafts[..., None]
        ratio = (p.softmax(-1).gather(-1, chosen) / q_share.gather(-1, chosen))[..., 0]
        chance = torch.rand(ratio.shape, generator=generator, device=ratio.device)
        kept = torch.where(batch.sampled[..., None], chance < ratio, drafts == p.argmax(-1)).int().cumprod(-1)
        on = kept * (drafts != eos_id).int().cumprod(-1)
        active = torch.cat((torch.ones_like(on[..., :1]), on[..., :-1]), dim=-1).bool()
        accepted = (kept * active).sum(-1).float().mean() + 1
        p = p[active]
    # The head runs again, with a gradient, on the few rows that count.
    hybrid, cross_entropy = (part.mean() for part in lk_hybrid(p, logits(drafter[active])))
    return DraftLoss(hybrid + cross_entropy, hybrid.detach(), cross_entropy.detach(), accepted)


def lk_hybrid(verifier: torch.Tensor, drafter: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hybrid loss and cross-entropy [n] each, of logits [n, vocab] of both sides (facts §5).

    Hybrid: w KL(p‖q) + (1 - w) TV(p, q) at temperature 3, w = exp(-sum(min(p, q)) / 2) without gradient.
    Cross-entropy: of the drafter, at temperature 1, to the verifier's best. All on the union of both top 200.
    """
    top = min(TOP, verifier.shape[-1])
    ours, theirs = verifier.topk(top).indices, drafter.detach().topk(top).indices
    twice = (theirs[:, :, None] == ours[:, None, :]).any(-1)  # already there as one of `ours`
    support = torch.cat((ours, theirs), dim=-1)
    unused = torch.cat((torch.zeros_like(twice), twice), dim=-1)
    p, q = (side.gather(-1, support).masked_fill(unused, NEVER) for side in (verifier, drafter))
    log_p, log_q = (p / TEMPERATURE).log_softmax(-1), (q / TEMPERATURE).log_softmax(-1)
    shares, overlap = log_p.exp(), torch.minimum(log_p.exp(), log_q.exp()).sum(-1)
    divergence = (shares * (log_p - log_q)).sum(-1)
    weight = (-DECAY * overlap.detach()).exp()
    # Column 0 of the support is the verifier's best; the total variation is what does not overlap.
    return weight * divergence + (1 - weight) * (1 - overlap), -q.log_softmax(-1)[:, 0]
