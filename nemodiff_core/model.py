"""TriModeModel: one stack of weights that reads a sequence causally or bidirectionally.

Ministral-3-style decoder layers (RMSNorm, grouped-query attention with YaRN rotary embeddings and the
Llama-4 query scale, SwiGLU), an untied head and no biases. Whether a pass is causal or bidirectional is
an argument of the forward; no layer remembers it. Module names follow the checkpoint's tensor names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
    """NeoX-style half rotation of [batch, heads, q, head_dim] by angles that broadcast to it.

    The first half of `sin` carries the rotation's minus sign, so that the two halves only change places.
    """
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


class Joined:
    """Linear maps of one input, their outputs side by side; one product, once `join` has put their weights together.

    No module: the weights belong to the maps, under the checkpoint's names, and become views of what is joined.
    """

    def __init__(self, *maps: nn.Linear) -> None:
        self.maps = maps
        self.weight: torch.Tensor | None = None  # [outputs of all, inputs]

    def join(self) -> None:
        """Put the weights together as they are now; what changes them in place changes both."""
        weights = [linear.weight.detach() for linear in self.maps]
        joined = torch.cat(weights)
        if joined.device.type == "cpu" and joined.dtype == torch.float32:
            # Inputs outermost: faster for a single row, where rows a power of two apart share cache lines. In bfloat16
            # the CPU has no kernel for that order, and takes forty times as long.
            joined = joined.t().contiguous().t()
        for linear, own in zip(self.maps, joined.split([len(weight) for weight in weights])):
            linear.weight = nn.Parameter(own, requires_grad=linear.weight.requires_grad)
        self.weight = joined

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.weight is not None and not torch.is_grad_enabled():
            return F.linear(x, self.weight)
        return torch.cat([linear(x) for linear in self.maps], dim=-1)


class Attention(nn.Module):
    """Grouped-query attention over [cached prefix ‖ this input]."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        queries, pairs = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.heads, self.pairs = config.num_attention_heads, config.num_key_value_heads
        self.groups = self.heads // self.pairs
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, pairs, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, pairs, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)
        self.qkv = Joined(self.q_proj, self.k_proj, self.v_proj)

    def forward(
        self,
        x: torch.Tensor,  # [batch, q, hidden]
        cos: torch.Tensor,  # [q, head_dim]
        sin: torch.Tensor,
        query_scale: torch.Tensor | None,  # [q, 1]; None where it is exactly 1 everywhere
        mask: torch.Tensor | None,  # [groups * q, kv] where heads share a product, else [q, kv]; None = everything is visible
        causal: bool,  # a plain square causal pass, for which no mask has to be built
        cache: KVCache | None,
        update: LowRank | None,  # the draft adapter's part of this layer; None = the base weights alone
        packed: Packed | None,  # the rows that stand in this input one after another, each with a cache of its own
    ) -> torch.Tensor:
        batch, count, _ = x.shape
        qkv = self.qkv(x).view(batch, count, -1, self.head_dim).transpose(1, 2)
        qk, v = qkv.split((self.heads + self.pairs, self.pairs), dim=1)
        q, k = rotate(qk, cos, sin).split((self.heads, self.pairs), dim=1)
        if query_scale is not None:
            q = q * query_scale
        if packed is not None:
            q, k, v = packed.spread(self.layer, q, k, v)
        elif cache is not None:
            k, v = cache.put(self.layer, k, v)
        shape, shares = q.shape, self.groups > 1
        if shares and x.device.type == "cpu":
            # The CPU kernel is fast only with equal head counts; on a GPU the fused kernels share heads.
            shares = False
            if causal:
                k, v = k.repeat_interleave(self.groups, dim=1), v.repeat_interleave(self.groups, dim=1)
            else:  # the heads that share keys are more rows of one head
                q = q.reshape(shape[0], self.pairs, -1, self.head_dim)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=self.head_dim**-0.5, enable_gqa=shares)
        out = out.reshape(shape).transpose(1, 2).flatten(2)
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
        self.gate_up = Joined(self.gate_proj, self.up_proj)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


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


class Embedding(nn.Embedding):
    """As torch's, but for the start: random numbers on the meta device import torch's compiler, which takes seconds."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class Encoder(nn.Module):
    """Embeddings, layers and the last norm (`encoder.` in the checkpoint)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, n) for n in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class TriModeModel(nn.Module):
    """The family's model: causal logits predict the next token, bidirectional logits the token itself (facts §3.7)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.diffusion_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        # quantized.py may hold the weights in other shapes: they are counted before, and it says here in what format.
        self._count = sum(p.numel() for p in self.parameters())
        self.quantized: str | None = None
        # cos and sin for the positions seen so far, [positions, head_dim] each; grown by `angles`.
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
        return self.encoder.norm.weight.dtype

    @property
    def format(self) -> str:
        """How the weights are held: int8, int4, or the name of the dtype."""
        return self.quantized or str(self.dtype).removeprefix("torch.")

    def join(self) -> None:
        """Make one product of what reads one input, for inference; see `Joined`. Weights move, their values stay."""
        for part in self.joined():
            part.join()

    def joined(self) -> Iterator[Joined]:
        """The products that `join` makes."""
        for layer in self.encoder.layers:
            yield layer.self_attn.qkv
            yield layer.mlp.gate_up

    def _apply(self, *arguments, **named) -> TriModeModel:
        super()._apply(*arguments, **named)  # to another device or dtype
        for part in self.joined():
            if part.weight is not None:
                part.join()
        return self

    def parameter_count(self) -> int:
        """Number of weights."""
        return self._count

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
        x = self.hidden(tokens, slice(prefix, prefix + count), prefix + count, mask=mask, causal=square, cache=cache, draft=draft)
        if write:
            cache.advance(count)
        if isinstance(rows, torch.Tensor):
            rows = rows.to(x.device)
        return self.head(x if rows is None else x[:, rows])

    def hidden(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor | slice,
        limit: int,
        *,
        mask: torch.Tensor | None,
        causal: bool = False,
        cache: KVCache | None = None,
        draft: bool = False,
        packed: Packed | None = None,
    ) -> torch.Tensor:
        """Normalised last hidden states [batch, q, hidden] of tokens at `positions` [q] or [batch, q], below `limit`.

        The level at which training works: it passes the noisy ‖ clean mask (facts §5), [batch, 1, q, kv], and
        positions of its own for every row. Keys and values are put behind the cache's prefix; the caller advances it
        over those that are to stay, which must have seen nothing but the prefix and one another, causally. With `packed`,
        tokens [1, total] are several rows one after another, and `mask` is theirs ([rows, 1, width, kv]).
        """
        x = self.encoder.embed_tokens(tokens)
        cos, sin = self.angles(limit, x.dtype, x.device)
        cos, sin = cos[positions], sin[positions]
        scale = self.query_scale(positions, limit, x.dtype, x.device)
        if isinstance(positions, torch.Tensor) and positions.dim() == 2:  # one head axis for [batch, heads, q, head_dim]
            cos, sin, scale = cos[:, None], sin[:, None], None if scale is None else scale[:, None]
        if mask is not None and x.device.type == "cpu":
            # As the CPU kernel wants it, once and not in every layer: added to the scores, a row for every head that shares keys.
            mask = torch.zeros_like(mask, dtype=x.dtype).masked_fill_(~mask, -torch.inf)
            groups = self.config.num_attention_heads // self.config.num_key_value_heads
            mask = mask.repeat(*[1] * (mask.dim() - 2), groups, 1)
        adapter = self.draft_adapter if draft else None
        for n, layer in enumerate(self.encoder.layers):
            update = None if adapter is None else adapter.layers[n]
            x = layer(x, cos, sin, scale, mask, causal, cache, update, packed)
        return self.encoder.norm(x)

    def head(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [..., vocab] of hidden states [..., hidden]."""
        return self.diffusion_head(x)

    def angles(
        self, limit: int, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin [positions, head_dim] of at least `limit` positions, sin as `rotate` wants it."""
        dtype, device = dtype or self.dtype, device or self.device
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
                sin = angles.sin() * factor
                sin[:, : sin.shape[1] // 2].neg_()  # see `rotate`
                self._rope = ready = ((angles.cos() * factor).to(dtype), sin.to(dtype))
        return ready

    def query_scale(
        self, positions: torch.Tensor | slice, limit: int, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor | None:
        """What multiplies queries at these positions, [..., 1]; None where all are below `limit` and it is 1 everywhere."""
        # Llama-4 scaling (facts §3.6): exactly 1 inside the original window, so most passes skip it.
        rope = self.config.rope
        window = rope.original_max_position_embeddings
        if limit <= window or rope.llama_4_scaling_beta == 0:
            return None
        if isinstance(positions, slice):
            positions = torch.arange(positions.start, positions.stop, device=device)
        steps = torch.floor(positions.float() / window)
        return (1 + rope.llama_4_scaling_beta * torch.log1p(steps)).to(dtype)[..., None]
