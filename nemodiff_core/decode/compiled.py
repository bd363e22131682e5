"""The fast loop on a CPU: forwards of a small model as one compiled function (kernels/cpu_forward.py).

Decoders know nothing of it: `together` asks here first, and what is not served (draft adapters, quantized weights,
other dtypes) runs eagerly on the same cache. Several rows are one forward here, too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

import kernels
from nemodiff_core.cache import KVCache
from nemodiff_core.decode.calls import Forward
from nemodiff_core.decode.graphs import WIDEST
from nemodiff_core.model import Layout, TriModeModel
from nemodiff_core.placement import SINGLE_THREAD_PARAMETERS, forward_threads

if TYPE_CHECKING:  # importing it takes Numba, which takes most of a second
    from kernels.cpu_forward import Program

_log = logging.getLogger(__name__)


class Compiled:
    """Answers Forwards on `model`, which it packs when it is first asked, and again when the weights were changed.

    For one run at a time: what a thread gets is its own, but weights must not change meanwhile.
    """

    many = True  # rows in a cache

    def __init__(self, model: TriModeModel) -> None:
        self.model = model
        self._program: Program | None = None
        self._packed_from: Sequence[tuple[int, int]] = ()
        # Every run looks at all weights, and walking through the modules takes longer than some forwards.
        self._held = [module._parameters for module in model.modules() if module._parameters]
        self._tables = (np.empty(0, np.float32),) * 3
        self._counting = np.arange(1024)

    @staticmethod
    def serve(model: TriModeModel) -> bool:
        """Whether it is possible and wanted: a small float32 model on the CPU, Numba, and no wish against it."""
        config = model.config
        return (
            kernels.compiles_cpu()
            and type(model) is TriModeModel
            and model.device.type == "cpu"
            and model.layer_devices is None
            and model.dtype == torch.float32
            and model.quantized is None
            # For larger ones the second, packed copy of the weights would be much memory, and they wait for theirs anyway.
            and model.parameter_count() <= SINGLE_THREAD_PARAMETERS
            and config.head_dim % 16 == 0
        )

    @torch.inference_mode()
    def new_cache(self, capacity: int, rows: int = 1, spare: int = 0) -> KVCache:
        """An empty cache for a new run, whose widest pass has `spare` inputs."""
        cache = self.model.new_cache(capacity + max(spare, WIDEST), rows)
        cache.capacity = capacity
        cache.arrays = cache.keys.numpy(), cache.values.numpy()
        self._pack()
        return cache

    def answer(self, call: Forward) -> torch.Tensor | None:
        """What `Forward.run` answers on a cache of one row; None where this forward has to run eagerly."""
        return self.together({0: call}, call.cache).get(0)

    def together(self, calls: Mapping[int, Forward], cache: KVCache) -> dict[int, torch.Tensor]:
        """Answers by row of `cache`, for those that do not have to run eagerly; one forward computes them."""
        served = {row: call for row, call in calls.items() if self._serves(call, cache)}
        answers: dict[int, torch.Tensor] = {}
        for head in (True, False):
            if alike := {row: call for row, call in served.items() if call.head == head}:
                answers |= self._forward(alike, cache, head)
        return answers

    def _forward(self, calls: Mapping[int, Forward], cache: KVCache, head: bool) -> dict[int, torch.Tensor]:
        from kernels.cpu_forward import BIDIRECTIONAL, CAUSAL, MASKED

        parts, positions, rows, visible, counts, limit, total = [], [], [], [], [], 0, 0
        for row, call in calls.items():
            prefix, width, plan = call.cache.length, call.tokens.shape[1], call.pattern
            if isinstance(plan, Layout):
                pattern, reach = MASKED, plan.reach
                visible.append((total, plan.visible.numpy()))
                positions.append(plan.offsets.numpy() + prefix)
            else:
                pattern, reach = CAUSAL if plan == "causal" else BIDIRECTIONAL, width
                positions.append(self._count(prefix, prefix + width))
            limit = max(limit, prefix + reach)
            asked = self._count(total, total + width)
            if call.rows is not None:
                asked = asked[call.rows.numpy() if isinstance(call.rows, torch.Tensor) else call.rows]
            rows.append(asked)
            counts.append(len(asked))
            parts.append((row, prefix, total, width, pattern))
            total += width
        arrays = getattr(cache, "arrays", None) or (cache.keys.numpy(), cache.values.numpy())
        out = self._program(
            _joined([call.tokens.numpy()[0] for call in calls.values()]), _joined(positions), parts, *self._tables_for(limit), *arrays,
            _joined(rows), _stacked(visible, total), head,
        )  # fmt: skip
        for call in calls.values():
            call.cache.advance(call.kept)
        outs = (out,) if len(counts) == 1 else out.split(counts)
        return {row: _answer(call, own) for (row, call), own in zip(calls.items(), outs)}

    def _serves(self, call: Forward, cache: KVCache) -> bool:
        end = call.cache.length + call.tokens.shape[1]
        return (
            self._program is not None
            and not self.model._forward_pre_hooks  # whoever hooked the model wants to see its forwards
            and not self.model._forward_hooks
            and isinstance(cache.keys, torch.Tensor)
            and end <= cache.keys.shape[3]
            and (not call.write or call.cache.room_for(call.kept))
            and not (call.draft and self.model.draft_adapter is not None)
        )

    def _pack(self) -> None:
        """Pack the weights, unless they are those that are packed or something stands in for a part of the model."""
        if not {"forward", "hidden", "head"}.isdisjoint(vars(self.model)):
            self._program, self._packed_from = None, ()
            return
        stand = [
            (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
            for held in self._held
            for weight in held.values()
            if weight is not None  # a bias that there is not
        ]
        if stand == self._packed_from:
            return
        self._packed_from = stand
        try:
            self._program = self._made()
        except Exception as error:  # a compiler that does not work here must not cost anybody the run
            hint = "; set NUMBA_CACHE_DIR to a folder that can be written" if "cache" in str(error) else ""
            _log.warning("forwards are not compiled: %s%s", " ".join(str(error).split())[:300], hint)
            self._program = None

    def _made(self) -> Program:
        """The weights packed, and the forward compiled by a first one."""
        from kernels.cpu_forward import CAUSAL, Layer, Program

        model, config = self.model, self.model.config
        program = Program(
            model.encoder.embed_tokens.weight,
            [
                Layer(
                    layer.input_layernorm.weight,
                    torch.cat([each.weight for each in layer.self_attn.qkv.maps]),
                    layer.self_attn.o_proj.weight,
                    layer.post_attention_layernorm.weight,
                    layer.mlp.gate_proj.weight,
                    layer.mlp.up_proj.weight,
                    layer.mlp.down_proj.weight,
                )
                for layer in model.encoder.layers
            ],
            model.encoder.norm.weight, model.diffusion_head.weight,
            config.num_attention_heads, config.num_key_value_heads, config.rms_norm_eps, forward_threads(),
        )  # fmt: skip
        two, cache = self._count(0, 2), model.new_cache(2)
        with torch.inference_mode():
            program(two, two, [(0, 0, 0, 2, CAUSAL)], *self._tables_for(2), cache.keys.numpy(), cache.values.numpy(), two)
        return program

    def _tables_for(self, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """cos and sin [positions, head_dim] and the queries' scales [positions], for so many positions and more."""
        if len(self._tables[2]) < limit:
            cos, sin = self.model.angles(limit)
            scales = self.model.query_scale(slice(0, len(cos)), len(cos), torch.float32, self.model.device)
            scales = torch.ones(len(cos)) if scales is None else scales[:, 0].contiguous()
            self._tables = cos.numpy(), sin.numpy(), scales.numpy()
        return self._tables

    def _count(self, start: int, end: int) -> np.ndarray:
        """The numbers from start to end, of which nothing has to be made."""
        if end > len(self._counting):
            self._counting = np.arange(2 * end)
        return self._counting[start:end]


def _answer(call: Forward, out: torch.Tensor) -> torch.Tensor:
    choice = call.choice
    if not call.head or choice is None or not choice.by_row:
        return call.answered(out) if call.head else out
    from kernels.cpu_forward import commit_stats

    sampler = choice.sampler
    return commit_stats(out, sampler.mask_id, candidates=sampler.candidates, margin=sampler.margins)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _stacked(layouts: Sequence[tuple[int, np.ndarray]], total: int) -> np.ndarray | None:
    """What each input of a forward sees of its own part, [total, q]; layouts come with their first input."""
    if not layouts or len(layouts[0][1]) == total:
        return layouts[0][1] if layouts else None
    every = np.zeros((total, max(len(visible) for _, visible in layouts)), np.bool_)
    for start, visible in layouts:
        every[start : start + len(visible), : len(visible)] = visible
    return every
