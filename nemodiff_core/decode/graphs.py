"""The fast loop: forwards of one row as CUDA graphs over a cache whose length lies on the device.

A graph holds a whole step, from the tokens to the table of what was chosen, so that a step costs the host one
launch, one small transfer to the device and one back. Decoders know nothing of it: `together` asks here first.
Shapes are few (the causal step of one token, the open and the causal pass over a block), each captured when it is
first asked for; a crop writes one integer. Everything else (prompts, layouts, sampling) runs eagerly on the same cache.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

import kernels
from nemodiff_core.cache import KVCache
from nemodiff_core.decode.calls import Forward
from nemodiff_core.decode.sampling import Choice
from nemodiff_core.model import TriModeModel

WIDEST = 64  # inputs of a captured forward: the longest block
_SMALLEST = 1024  # positions of the first cache

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Step:
    """A captured forward: write its inputs, replay, read `out`."""

    tokens: torch.Tensor  # [1, q] int64
    out: torch.Tensor  # [q, vocab] logits or [q, columns] of a choice
    replay: Callable[[], None]


class Graphs:
    """Answers Forwards of one row on `model`; holds the one cache that its graphs read and write.

    Not for several threads: whoever decodes has the device to itself. `capture` False computes the same step
    without a graph, which is how a machine without a GPU tests it.
    """

    many = False  # rows in a cache

    def __init__(self, model: TriModeModel, capture: bool = True, ops: kernels.Ops | None = None) -> None:
        self.model = model
        self.capture = capture
        self.ops = ops or kernels.use(model.device, waits=False)
        self._length = torch.zeros(1, dtype=torch.int64, device=model.device)
        self._steps: dict[tuple, _Step] = {}
        self._storage: KVCache | None = None
        self._cache: KVCache | None = None
        self._pool = None
        self._broken = False

    @staticmethod
    def serve(model: TriModeModel) -> bool:
        """Whether graphs are possible and wanted: one CUDA device holds the whole model, NEMODIFF_GRAPHS is not 0."""
        return model.device.type == "cuda" and model.layer_devices is None and os.environ.get("NEMODIFF_GRAPHS") != "0"

    @torch.inference_mode()
    def new_cache(self, capacity: int, rows: int = 1, spare: int = 0) -> KVCache:
        """An empty cache of one row for a new run; it takes the place of the last one's."""
        needed = capacity + WIDEST  # a step may always borrow the room for its block
        if self._storage is None or self._storage.capacity < needed:
            size = max(_SMALLEST, 1 << (needed - 1).bit_length())
            size = max(needed, min(size, self.model.config.max_position_embeddings + WIDEST))
            self._steps.clear()  # they read and write the old storage
            self._storage = self._cache = None
            self._storage = self.model.new_cache(size)
            self._tables = self._angles(size)
        else:
            # What a run left behind is masked, but a mask does not help against what is not a number.
            self._storage.keys.zero_()
            self._storage.values.zero_()
        self._cache = copy.copy(self._storage)
        self._cache.capacity = capacity
        return self._cache

    def together(self, calls: Mapping[int, Forward], cache: KVCache) -> dict[int, torch.Tensor]:
        """What `answer` answers to the call of the one row there is, by row; nothing where it has to run eagerly."""
        ((row, call),) = calls.items()
        answer = self.answer(call)
        return {} if answer is None else {row: answer}

    def answer(self, call: Forward) -> torch.Tensor | None:
        """What `Forward.run` answers; None where this forward has to run eagerly."""
        width, choice = call.tokens.shape[1], call.choice
        served = (
            not self._broken
            and call.cache is self._cache
            and isinstance(call.pattern, str)
            and width <= WIDEST
            and call.cache.length > 0  # a prompt comes once, whatever its length
            and (choice is None or choice.by_row)
            and (not call.write or call.cache.room_for(width))
        )
        if not served:
            return None
        draft = call.draft and self.model.draft_adapter is not None
        asked = None if choice is None else (choice.sampler.mask_id, choice.sampler.candidates, choice.sampler.margins)
        key = (call.pattern, width, draft, asked)
        self._length.fill_(call.cache.length)
        try:
            step = self._steps.get(key) or self._make(key, call)
        except RuntimeError as error:  # a driver that cannot capture must not cost anybody the run
            _log.warning("CUDA graphs are off: %s", error)
            self._broken = True
            return None
        step.tokens.copy_(call.tokens)
        step.replay()
        if call.write:
            call.cache.advance(width)
        # The next step writes over `out`; a choice is read at once, logits may be kept.
        return call.chosen(step.out) if choice is not None else call.chosen(step.out).clone()

    def _make(self, key: tuple, call: Forward) -> _Step:
        tokens = call.tokens.clone()
        pattern, _, draft, _ = key
        compute = partial(self._forward, tokens, pattern == "causal", draft, call.choice)
        if not self.capture:
            step = _Step(tokens, compute(), lambda: step.out.copy_(compute()))
        else:
            aside = torch.cuda.Stream(self.model.device)
            aside.wait_stream(torch.cuda.current_stream(self.model.device))
            with torch.cuda.stream(aside):  # kernels compile and libraries find their workspaces before the capture
                for _ in range(2):
                    compute()
            torch.cuda.current_stream(self.model.device).wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                out = compute()
            self._pool = self._pool or graph.pool()
            step = _Step(tokens, out, graph.replay)
        self._steps[key] = step
        return step

    def _forward(self, tokens: torch.Tensor, causal: bool, draft: bool, choice: Choice | None) -> torch.Tensor:
        """`TriModeModel.forward` in the operations of `kernels`, behind a length that the host need not know."""
        model, ops, config = self.model, self.ops, self.model.config
        cos, sin = self._tables
        rope, eps, width = config.rope, config.rms_norm_eps, tokens.shape[1]
        scaling = {"window": rope.original_max_position_embeddings, "beta": rope.llama_4_scaling_beta}
        adapter = model.draft_adapter if draft else None
        x, update = model.encoder.embed_tokens(tokens), None
        for n, layer in enumerate(model.encoder.layers):
            x, normed = ops.add_rmsnorm(x, update, layer.input_layernorm.weight, eps)
            attention = layer.self_attn
            keys, values = self._storage.keys[n], self._storage.values[n]
            qkv = attention.qkv(normed).unflatten(-1, (-1, config.head_dim))  # [1, q, heads + 2 kv_heads, head_dim]
            q, k, v = qkv.split((attention.heads, attention.pairs, attention.pairs), dim=2)
            q, k = ops.rope_qscale_kvstore(q, k, v, cos, sin, self._length, **scaling, keys=keys, values=values, keep=width)
            seen = ops.block_attention(q, k, v.transpose(1, 2), keys, values, self._length, causal=causal)
            seen = seen.transpose(1, 2).flatten(2)
            update = attention.o_proj(seen)
            if adapter is not None:
                update = update + adapter.layers[n](seen)
            x, normed = ops.add_rmsnorm(x, update, layer.post_attention_layernorm.weight, eps)
            update = layer.mlp(normed)
        _, normed = ops.add_rmsnorm(x, update, model.encoder.norm.weight, eps)
        if choice is None:
            return model.head(normed[0])
        sampler, head = choice.sampler, model.diffusion_head
        asked = {"candidates": sampler.candidates, "margin": sampler.margins}
        if "head_stats" in ops.kernels and isinstance(head, nn.Linear):
            return ops.head_stats(normed[0], head.weight, sampler.mask_id, **asked)
        return ops.commit_stats(model.head(normed[0]), sampler.mask_id, **asked)

    def _angles(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin [size, head_dim] as the operations want them: both halves equal."""
        cos, sin = (table[:size] for table in self.model.angles(size))
        half = sin.shape[1] // 2
        return cos.contiguous(), torch.cat((sin[:, half:], sin[:, half:]), dim=-1)
