"""TriModeModel: one stack of weights that reads a sequence causally or bidirectionally.

Ministral-3-style decoder layers (RMSNorm, grouped-query attention with YaRN rotary embeddings and the
Llama-4 query scale, SwiGLU), an untied head and no biases. Whether a pass is causal or bidirectional is
an argument of the forward; no layer remembers it. Module names follow the checkpoint's tensor names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import nn

from nemodiff_core.cache import KVCache
from nemodiff_core.config import ModelConfig, RopeConfig

if TYPE_CHECKING:  # plain data to the model: reading and writing adapters is not its concern
    from nemodiff_core.lora import DraftAdapter, LowRank
    from nemodiff_core.packed import Packed

Pattern = Literal["causal", "bidirectional"]


@dataclass(frozen=True)
class Layout:
    """An input that is neither plainly causal nor plainly bidirectional; the cached prefix is visible to all of it."""

    offsets: torch.Tensor  # [q] positions, counted from the end of the cached prefix
    visible: torch.Tensor  # [q, q] bool, True = the query (row) sees the key
    reach: int  # every offset is below it
    causal: int = 0  # so many first inputs are a plain causal chain, which the cache may keep


def rope_inverse_frequencies(rope: RopeConfig, head_dim: int) -> torch.Tensor:
    """Inverse frequencies [head_dim / 2], float32, with YaRN's blend of extrapolation and interpolation.

    YaRN (Peng et al. 2023, §3.2): fast dimensions keep their frequency, slow ones are divided by the factor,
    a linear ramp between the two correction dimensions joins them.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies = rope.theta**exponents
    if rope.rope_type == "default":
        return 1.0 / frequencies

    def correction_dim(rotations: float) -> float:
        window = rope.original_max_position_embeddings
        return head_dim * math.log(window / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low = max(math.floor(correction_dim(rope.beta_fast)), 0)
    high = min(math.ceil(correction_dim(rope.beta_slow)), head_dim - 1)
    # Written as transformers has it, so that even a window of a few tokens gives the same frequencies.
    span = high - low or 1e-3
    interpolated = ((torch.arange(head_dim // 2).float() - low) / span).clamp(0, 1)
    return interpolated / (rope.factor * frequencies) + (1 - interpolated) / frequencies


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last dimension, computed in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.float32:
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        # The reference normalises in float32 and scales after the cast back.
        return self.weight * F.rms_norm(x.float(), self.weight.shape, None, self.eps).to(x.dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """NeoX-style half rotation of [batch, heads, q, head_dim] by angles that broadcast to it."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Grouped-query attention over [cached prefix ‖ this input]."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        queries, pairs = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.groups = config.num_attention_heads // config.num_key_value_heads
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, pairs, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, pairs, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)

    def forward(
        self,
        x: torch.Tensor,  # [batch, q, hidden]
        cos: torch.Tensor,  # [q, head_dim]
        sin: torch.Tensor,
        query_scale: torch.Tensor | None,  # [q, 1]; None where it is exactly 1 everywhere
        mask: torch.Tensor | None,  # [q, kv] bool, True = visible; None = everything is visible
        causal: bool,  # a plain square causal pass, for which no mask has to be built
        cache: KVCache | None,
        write: int,  # how many of the first inputs the cache keeps
        update: LowRank | None,  # the draft adapter's part of this layer; None = the base weights alone
        packed: Packed | None,  # the rows that stand in this input one after another, each with a cache of its own
    ) -> torch.Tensor:
        batch, count, _ = x.shape
        shape = (batch, count, -1, self.head_dim)
        q = rotate(self.q_proj(x).view(shape).transpose(1, 2), cos, sin)
        k = rotate(self.k_proj(x).view(shape).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(shape).transpose(1, 2)
        if query_scale is not None:
            q = q * query_scale
        if packed is not None:
            q, k, v = packed.spread(self.layer, q, k, v)
        elif cache is not None:
            if write:
                cache.write(self.layer, k[:, :, :write], v[:, :, :write])
            known_k, known_v = cache.read(self.layer, cache.length + write)
            if write == count:
                k, v = known_k, known_v
            else:
                k, v = torch.cat((known_k, k[:, :, write:]), dim=2), torch.cat((known_v, v[:, :, write:]), dim=2)
        if self.groups > 1 and x.device.type == "cpu":
            # The CPU kernel is fast only with equal head counts; on a GPU the fused kernels share heads.
            k, v = k.repeat_interleave(self.groups, dim=1), v.repeat_interleave(self.groups, dim=1)
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=self.head_dim**-0.5, enable_gqa=k.shape[1] != q.shape[1]
        )
        out = out.transpose(1, 2).flatten(2)
        if packed is not None:
            out = packed.collect(out)
        return self.o_proj(out) if update is None else self.o_proj(out) + update(out)


class MLP(nn.Module):
    """SwiGLU feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Pre-norm attention and feed-forward with residuals."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: torch.Tensor, *attention_arguments) -> torch.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), *attention_arguments)
        return x + self.mlp(self.post_attention_layernorm(x))


class Encoder(nn.Module):
    """Embeddings, layers and the last norm (`encoder.` in the checkpoint)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, n) for n in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class TriModeModel(nn.Module):
    """The family's model: causal logits predict the next token, bidirectional logits the token itself (facts §3.7)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.diffusion_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        # cos and sin for the positions seen so far, [positions, head_dim] each; grown by `_angles`.
        self._rope: tuple[torch.Tensor, torch.Tensor] | None = None
        # Where each layer computes, when placement.py spread the model; None = everything on one device.
        self.layer_devices: tuple[torch.device, ...] | None = None
        # Past nn.Module's bookkeeping: the sampler is no part of the model's weights.
        self.__dict__["commit_sampler"] = None
        # Read by passes that ask for it with `draft=True` and by no other; never part of the model's own weights.
        self.draft_adapter: DraftAdapter | None = None

    @property
    def device(self) -> torch.device:
        """Where tokens go in and logits come out."""
        return self.layer_devices[0] if self.layer_devices else self.encoder.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.encoder.embed_tokens.weight.dtype

    def parameter_count(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.parameters())

    def new_cache(self, capacity: int, batch: int = 1) -> KVCache:
        """An empty cache for `capacity` positions where this model's layers are, in its dtype."""
        return KVCache(self.config, batch, capacity, self.layer_devices or self.device, self.dtype)

    def forward(
        self,
        tokens: torch.Tensor,  # [batch, q] int64
        *,
        pattern: Pattern,
        cache: KVCache | None = None,
        write: bool = False,
        rows: slice | torch.Tensor | None = None,
        draft: bool = False,
    ) -> torch.Tensor:
        """Logits [batch, rows, vocab] of `tokens`, which stand right after the cached prefix.

        `pattern` says what a query sees of its own input: `causal` (itself and what is before it) or
        `bidirectional` (all of it); the cached prefix is always visible. `write` appends the keys and values
        to the cache and is allowed for causal passes only. `rows` limits the head to the queries somebody
        reads. `draft` adds the draft adapter, where one is attached, to this pass only. Raises ValueError for a
        bidirectional or adapted write, a cache without room or one of another batch size.
        """
        count = tokens.shape[1]
        prefix = cache.length if cache is not None else 0
        if write and (cache is None or pattern != "causal"):
            raise ValueError("only a causal pass may write, and only into a cache")
        if write and draft:
            raise ValueError("a draft pass may not write: the cache holds keys and values of the base weights only")
        if write and not cache.room_for(count):
            raise ValueError(f"the cache holds {cache.capacity} positions; {prefix} + {count} do not fit")
        if cache is not None and cache.batch != tokens.shape[0]:
            raise ValueError(f"the cache holds {cache.batch} rows, the input has {tokens.shape[0]}")
        mask, square = None, False
        if pattern == "causal" and count > 1:
            square = prefix == 0
            if not square:
                # Bottom-right aligned: query i sees the prefix and inputs 0..i (facts §3.2).
                mask = torch.ones(count, prefix + count, dtype=torch.bool, device=tokens.device).tril(prefix)
        elif pattern not in ("causal", "bidirectional"):
            raise ValueError(f"unknown attention pattern {pattern!r}")
        positions = torch.arange(prefix, prefix + count, device=tokens.device)
        kept = count if write else 0
        x = self.hidden(
            tokens, positions, prefix + count, mask=mask, causal=square, cache=cache, write=kept, draft=draft
        )
        if write:
            cache.advance(count)
        if isinstance(rows, torch.Tensor):
            rows = rows.to(x.device)
        return self.head(x if rows is None else x[:, rows])

    def hidden(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        limit: int,
        *,
        mask: torch.Tensor | None,
        causal: bool = False,
        cache: KVCache | None = None,
        write: int = 0,
        draft: bool = False,
        packed: Packed | None = None,
    ) -> torch.Tensor:
        """Normalised last hidden states [batch, q, hidden] of tokens at `positions` [q] or [batch, q], below `limit`.

        The level at which training works: it passes the noisy ‖ clean mask (facts §5), [batch, 1, q, kv], and
        positions of its own for every row. The cache receives the keys and values of the first `write` tokens,
        which must see nothing but the prefix and one another, causally; advancing it is the caller's. With `packed`,
        tokens [1, total] are several rows one after another, and `mask` is theirs ([rows, 1, width, kv]).
        """
        x = self.encoder.embed_tokens(tokens)
        cos, sin = self._angles(limit, x.dtype, x.device)
        cos, sin = cos[positions], sin[positions]
        scale = self._query_scale(positions, limit, x.dtype)
        if positions.dim() == 2:  # one head axis for [batch, heads, q, head_dim]
            cos, sin, scale = cos[:, None], sin[:, None], None if scale is None else scale[:, None]
        adapter = self.draft_adapter if draft else None
        for n, layer in enumerate(self.encoder.layers):
            update = None if adapter is None else adapter.layers[n]
            x = layer(x, cos, sin, scale, mask, causal, cache, write, update, packed)
        return self.encoder.norm(x)

    def head(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [..., vocab] of hidden states [..., hidden]."""
        return self.diffusion_head(x)

    def _angles(self, limit: int, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        # Angles are computed in float32 and cached; growing by doubling keeps decoding free of recomputation.
        ready = self._rope
        if ready is None or ready[0].shape[0] < limit or ready[0].dtype != dtype or ready[0].device != device:
            size = 256
            while size < limit:
                size *= 2
            # Made outside inference mode: a table first needed while decoding must still serve training.
            with torch.inference_mode(False):
                frequencies = rope_inverse_frequencies(self.config.rope, self.config.head_dim).to(device)
                angles = torch.outer(torch.arange(size, device=device).float(), frequencies)
                angles = torch.cat((angles, angles), dim=-1)
                factor = self.config.rope.attention_factor
                self._rope = ready = ((angles.cos() * factor).to(dtype), (angles.sin() * factor).to(dtype))
        return ready

    def _query_scale(self, positions: torch.Tensor, limit: int, dtype: torch.dtype) -> torch.Tensor | None:
        # Llama-4 scaling (facts §3.6): exactly 1 inside the original window, so most passes skip it.
        rope = self.config.rope
        window = rope.original_max_position_embeddings
        if limit <= window or rope.llama_4_scaling_beta == 0:
            return None
        steps = torch.floor(positions.float() / window)
        return (1 + rope.llama_4_scaling_beta * torch.log1p(steps)).to(dtype)[..., None]
