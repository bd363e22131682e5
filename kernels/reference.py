"""The six operations in plain PyTorch: what the kernels must equal, and what runs wherever they do not.

Every kernel file holds the equation and a wrapper with the signature found here. Lengths of a KV cache are
integers on the device, [1] or [batch]. A reference has to wait for them unless the host `knows` the one length of
all rows and says so; a kernel never waits and takes no notice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def commit_stats(
    logits: torch.Tensor,
    mask_id: int,
    *,
    candidates: int = 0,
    margin: bool = False,
    banned: torch.Tensor | None = None,
) -> torch.Tensor:
    """What a greedy step needs to know of its rows [rows, vocab]: [rows, 3 + 2k (+ 1)] float32.

    Columns: token, its probability, entropy (nats), k candidate ids, k candidate probabilities, the first
    candidate's lead over the second if `margin`; k = min(candidates, vocab - 1). The mask token and what
    `banned` ([rows, vocab] or [vocab], bool) marks are never chosen but keep their share of the probability.
    The token is the largest logit, ties to the lowest id; equal candidates come in any order. A row with a
    NaN, or without a finite logit, has a NaN entropy and some valid id.
    """
    log_p = logits.log_softmax(-1, dtype=torch.float32)
    # The bound only matters for tokens of probability 0, whose share would be 0 times minus infinity.
    entropy = -torch.linalg.vecdot(log_p.exp(), log_p.clamp_min(-1e4))
    # Chosen by logit: subtracting the normaliser can make two different logits equal.
    allowed = logits.clone()
    for table in (allowed, log_p):
        table[:, mask_id] = -torch.inf
        if banned is not None:
            table.masked_fill_(banned, -torch.inf)
    token = allowed.argmax(-1)
    columns = [torch.stack((token.float(), log_p.gather(-1, token[:, None])[:, 0].exp(), entropy), -1)]
    k = min(candidates, logits.shape[-1] - 1)
    if k:
        ids = allowed.topk(k, dim=-1).indices
        columns += [ids.float(), log_p.gather(-1, ids).exp()]
    if margin:
        first, second = log_p.topk(2, dim=-1).values.exp().unbind(-1)
        columns.append((first - second)[:, None])
    return torch.cat(columns, -1)


def head_stats(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    mask_id: int,
    *,
    candidates: int = 0,
    margin: bool = False,
    banned: torch.Tensor | None = None,
) -> torch.Tensor:
    """`commit_stats` of the logits of hidden states [rows, hidden] under a head [vocab, hidden]."""
    return commit_stats(F.linear(hidden, weight), mask_id, candidates=candidates, margin=margin, banned=banned)


def block_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    length: torch.Tensor,
    *,
    causal: bool,
    known: int | None = None,
) -> torch.Tensor:
    """Grouped-query attention of a block over [cached prefix ‖ itself]; [batch, heads, n, head_dim].

    q [batch, heads, n, head_dim], k and v [batch, kv_heads, n, head_dim], `keys` and `values` the cache's
    [batch, kv_heads, capacity, head_dim], of which the first `length` positions are read and nothing else.
    The prefix is visible to every query; of the block a query sees itself and what is before it if `causal`,
    else all of it. Scores are scaled by head_dim^-0.5.
    """
    batch, heads, count, size = q.shape
    groups = heads // k.shape[1]
    prefixes = length.tolist() if known is None else [known]
    if len(set(prefixes)) > 1:  # rows of different lengths go one by one
        rows = [
            block_attention(*(t[b : b + 1] for t in (q, k, v, keys, values)), length[b : b + 1], causal=causal)
            for b in range(batch)
        ]
        return torch.cat(rows)
    prefix = prefixes[0]
    if prefix:
        k, v = torch.cat((keys[:, :, :prefix], k), dim=2), torch.cat((values[:, :, :prefix], v), dim=2)
    if groups > 1 and q.device.type == "cpu":
        # The CPU's fused attention is fast only with equal head counts.
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    mask, square = None, causal and count > 1 and not prefix
    if causal and count > 1 and prefix:
        mask = torch.ones(count, prefix + count, dtype=torch.bool, device=q.device).tril(prefix)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=square, scale=size**-0.5, enable_gqa=k.shape[1] != heads
    )


def verify_commit(
    block: torch.Tensor,
    picks: torch.Tensor,
    length: torch.Tensor,
    *,
    end: int,
    stop_id: int = -1,
    due: int = -1,
    forced_id: int = -1,
) -> torch.Tensor:
    """Settle a causal pass over pending tokens and their drafts; [batch, 4 + n] int32 and a new `length`.

    block [batch, n] is the pending token and n-1 drafts behind `length` [batch] cached positions, picks
    [batch, n] the causal choice behind each of them (any dtype that holds ids exactly). Drafts are kept up to
    the first that was not picked, and one pick more; nothing is emitted at position `end` or later, or behind
    `stop_id`. The token at position `due` becomes `forced_id`, unless that was emitted just before; no draft
    may be kept there. A row that has reached its end or its stop token emits nothing.

    Columns: drafts kept, tokens emitted, new length, pending token, then the n emitted tokens, -1 behind the
    last. `length` is changed in place. (Greedy self-speculation, facts §4.3 steps 4-6.)
    """
    settled = torch.full((block.shape[0], 4 + block.shape[1]), -1, dtype=torch.int32, device=block.device)
    for row, (cells, chosen, start) in enumerate(zip(block.tolist(), picks.tolist(), length.tolist())):
        written: list[int] = []
        kept = 0
        while cells[0] != stop_id and len(written) < min(len(cells), end - start - 1):
            i = len(written)
            forced = start + 1 + i == due and forced_id not in written
            written.append(forced_id if forced else int(chosen[i]))
            matched = i + 1 < len(cells) and int(chosen[i]) == cells[i + 1] and not forced
            kept += matched
            if not matched or written[-1] == stop_id:
                break
        pending = written[-1] if written else cells[0]
        record = [kept, len(written), start + len(written), pending, *written]
        settled[row, : len(record)] = torch.tensor(record, dtype=torch.int32)
        length[row] = start + len(written)
    return settled


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """NeoX-style half rotation of [batch, heads, n, head_dim] by angles that broadcast to it."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def rope_qscale_kvstore(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    length: torch.Tensor,
    *,
    offsets: torch.Tensor | None = None,
    window: int = 1,
    beta: float = 0.0,
    keys: torch.Tensor | None = None,
    values: torch.Tensor | None = None,
    keep: int = 0,
    known: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate queries and keys to their positions, scale the queries, put the first `keep` pairs into the cache.

    q [batch, n, heads, head_dim], k and v [batch, n, kv_heads, head_dim], cos and sin [positions, head_dim]
    whose halves are equal. Input i stands at length + offsets[i] (offsets [n]; i itself without), and queries
    are multiplied by 1 + beta·ln(1 + floor(position / window)) (facts §3.6). The cache ([batch, kv_heads,
    capacity, head_dim]) is written at length + i; its length is not changed.
    Returns q [batch, heads, n, head_dim] and k [batch, kv_heads, n, head_dim].
    """
    steps = torch.arange(q.shape[1], device=q.device) if offsets is None else offsets
    positions = (length.long()[:, None] if known is None else known) + steps  # [n], or [1 or batch, n]
    c, s = cos[positions], sin[positions]
    scale = (1 + beta * torch.log1p(torch.floor(positions.float() / window))).to(q.dtype)[..., None] if beta else None
    if positions.dim() == 2:  # one head axis for [batch, heads, n, head_dim]
        c, s, scale = c[:, None], s[:, None], None if scale is None else scale[:, None]
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    q, k = rotate(q, c, s), rotate(k, c, s)
    if scale is not None:
        q = q * scale
    if keep:
        starts = length.tolist() if known is None else [known]
        for row, start in enumerate(starts) if len(starts) > 1 else [(slice(None), starts[0])]:
            keys[row, ..., start : start + keep, :] = k[row, ..., :keep, :]
            values[row, ..., start : start + keep, :] = v[row, ..., :keep, :]
    return q, k


def add_rmsnorm(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """x + residual (x itself without), and its RMS norm times `weight` [size]; both [..., size] in x's dtype.

    Normalised in float32, cast back, then scaled, as the family's reference does.
    """
    total = x if residual is None else x + residual
    if x.dtype == torch.float32:
        return total, F.rms_norm(total, weight.shape, weight, eps)
    return total, weight * F.rms_norm(total.float(), weight.shape, None, eps).to(x.dtype)
