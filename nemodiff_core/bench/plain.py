"""The decoders as people write them: a loop around a model, and nothing kept but the tokens.

On transformers' own model with its growing cache this is what nemodiff's speed is compared with; on nemodiff's
model it is decoding without a record, from which the cost of recording follows. Greedy, batch 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import torch

from nemodiff_core.decode.batch import Fast
from nemodiff_core.decode.calls import LAST, Forward
from nemodiff_core.errors import NemodiffError
from nemodiff_core.model import TriModeModel


class Passes(Protocol):
    """A model with a cache of its own, for one answer."""

    device: torch.device
    length: int  # cached positions
    forwards: int  # run so far

    def causal(self, tokens: torch.Tensor, last: bool = False) -> torch.Tensor:
        """Logits [q, vocab] of tokens [q], which the cache keeps; `last`: of the last one only."""

    def open(self, tokens: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Logits [rows, vocab] of some of the tokens [q], which see one another; the cache stays as it is."""

    def crop(self, length: int) -> None:
        """Forget what is cached from `length` on."""


class TransformersPasses:
    """Passes of transformers' model: `DynamicCache`, a mask of zeros where a block may see all of itself."""

    def __init__(self, model: Any) -> None:
        from transformers import DynamicCache

        self.model, self.cache, self.device, self.forwards = model, DynamicCache(config=model.config), model.device, 0

    @property
    def length(self) -> int:
        return self.cache.get_seq_length()

    def causal(self, tokens: torch.Tensor, last: bool = False) -> torch.Tensor:
        self.forwards += 1
        return self.model(tokens[None], past_key_values=self.cache, use_cache=True, logits_to_keep=int(last)).logits[0]

    def open(self, tokens: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        self.forwards += 1
        count, known = len(tokens), self.length
        mask = torch.zeros((1, 1, count, known + count), dtype=self.model.dtype, device=self.device)
        logits = self.model(tokens[None], attention_mask=mask, past_key_values=self.cache, use_cache=True).logits[0]
        self.crop(known)
        return logits[rows]

    def crop(self, length: int) -> None:
        if excess := self.length - length:
            self.cache.crop(-excess)


class OwnPasses:
    """Passes of nemodiff's model, without adapter; by its fast loop where one is given."""

    def __init__(self, model: TriModeModel, capacity: int, fast: Fast | None = None) -> None:
        self.model, self.fast, self.device, self.forwards = model, fast, model.device, 0
        self.cache = (fast or model).new_cache(capacity)

    @property
    def length(self) -> int:
        return self.cache.length

    def causal(self, tokens: torch.Tensor, last: bool = False) -> torch.Tensor:
        self.forwards += 1
        return self._run(Forward(tokens[None], "causal", self.cache, write=True, rows=LAST if last else None))

    def open(self, tokens: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        self.forwards += 1
        return self._run(Forward(tokens[None], "bidirectional", self.cache, rows=rows))

    def crop(self, length: int) -> None:
        self.cache.crop(length)

    def _run(self, call: Forward) -> torch.Tensor:
        answer = None if self.fast is None else self.fast.answer(call)
        return call.run(self.model) if answer is None else answer


@dataclass(frozen=True)
class Task:
    """What a loop is asked: the prompt's ids, the answer's longest length, and the special ids."""

    prompt: Sequence[int]
    max_new_tokens: int
    eos_id: int
    mask_id: int
    block_length: int = 16
    threshold: float = 0.9


def ar(passes: Passes, task: Task) -> list[int]:
    """One token a forward."""
    ids = [_first(passes, task)]
    while len(ids) < task.max_new_tokens and ids[-1] != task.eos_id:
        logits = passes.causal(torch.tensor(ids[-1:], device=passes.device))
        ids.append(_best(logits, task)[-1].item())
    return ids


def diffusion(passes: Passes, task: Task) -> list[int]:
    """Blocks of masks; a forward commits every cell that is sure enough and the surest, then a causal one keeps the block."""
    ids: list[int] = []
    seed = _first(passes, task)
    while seed != task.eos_id:
        block = _masks(passes, task, seed)
        kept = room = min(task.block_length, task.max_new_tokens - len(ids))
        while task.mask_id in block[:kept].tolist():
            masked = (block == task.mask_id).nonzero()[:, 0]
            p = passes.open(block, masked).float().softmax(-1)
            p[:, task.mask_id] = 0
            sure, best = p.max(-1)
            chosen = sure >= task.threshold
            chosen[sure.argmax()] = True
            block[masked[chosen]] = best[chosen]
            kept = _ended(block[:room].tolist(), task)
        logits = passes.causal(block[:kept], last=True)
        ids += block[:kept].tolist()
        if ids[-1] == task.eos_id or len(ids) >= task.max_new_tokens:
            return ids
        seed = _best(logits, task)[-1].item()
    return [*ids, seed]


def linear_spec(passes: Passes, task: Task) -> list[int]:
    """A block drafted by one open forward, verified by one causal forward, and the cache cropped to what was right."""
    ids = [_first(passes, task)]
    while len(ids) < task.max_new_tokens and ids[-1] != task.eos_id:
        start = passes.length
        block = _masks(passes, task, ids[-1])
        block[1:] = _best(passes.open(block, torch.arange(1, len(block), device=passes.device)), task)
        picks = _best(passes.causal(block), task)
        right = (picks[:-1] == block[1:]).long().cumprod(0).sum().item()
        written = picks[: right + 1].tolist()[: task.max_new_tokens - len(ids)]
        if task.eos_id in written:
            written = written[: written.index(task.eos_id) + 1]
        ids += written
        passes.crop(start + len(written))
    return ids


LOOPS: dict[str, Callable[[Passes, Task], list[int]]] = {"ar": ar, "diffusion": diffusion, "linear_spec": linear_spec}


def _first(passes: Passes, task: Task) -> int:
    return _best(passes.causal(torch.tensor(task.prompt, device=passes.device), last=True), task)[-1].item()


def _best(logits: torch.Tensor, task: Task) -> torch.Tensor:
    """The most likely token of each row [rows, vocab], which is never the mask."""
    logits[:, task.mask_id] = -torch.inf
    return logits.argmax(-1)


def _masks(passes: Passes, task: Task, seed: int) -> torch.Tensor:
    block = torch.full((task.block_length,), task.mask_id, device=passes.device)
    block[0] = seed
    return block


def _ended(cells: list[int], task: Task) -> int:
    """How many cells belong to the text: up to an end token that has no mask before it."""
    if task.eos_id in cells:
        first = cells.index(task.eos_id)
        if task.mask_id not in cells[:first]:
            return first + 1
    return len(cells)


def missing(model: TriModeModel) -> str | None:
    """Why there can be no transformers model beside this one; None where there can."""
    if find_spec("transformers") is None:
        return "unmeasured: transformers is not installed; pip install 'nemodiff[cluster]' brings it"
    return "unmeasured: the model is spread over several devices" if model.layer_devices else None


def transformers_model(model: TriModeModel) -> Any:
    """transformers' Ministral-3 with the same weights: shared, but for those that our model lays out in its own way.

    Everybody else's lie as they come from a file, row by row. Raises NemodiffError where `missing` says why.
    """
    if reason := missing(model):
        raise NemodiffError(f"{reason.removeprefix('unmeasured: ')}.")
    from transformers import Ministral3Config, Ministral3ForCausalLM

    raw = model.config.to_dict()
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "rms_norm_eps", "max_position_embeddings", "rope_parameters", "sliding_window",
    )  # fmt: skip
    with torch.device("meta"):
        theirs = Ministral3ForCausalLM(Ministral3Config(attn_implementation="sdpa", **{name: raw[name] for name in names}))
    weights = {
        key.replace("encoder.", "model.").replace("diffusion_head", "lm_head"): value.contiguous()
        for key, value in model.state_dict().items()
    }
    theirs.load_state_dict(weights, strict=True, assign=True)
    # Its frequencies are no weights, so they are still on the meta device.
    theirs.model.rotary_emb = type(theirs.model.rotary_emb)(theirs.config).to(model.device)
    return theirs.eval().requires_grad_(False)
