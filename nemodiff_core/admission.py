"""Whether a request fits a model and a host, and what its decoder starts from: the same checks wherever it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from nemodiff_core.decode.infill import Gap
from nemodiff_core.errors import RequestError
from nemodiff_core.request import DecodeRequest, Limits
from nemodiff_core.skeleton import parts_for


class Host(Protocol):
    """What the checks ask about: an Engine, or what stands for one elsewhere."""

    checkpoint: Any  # a Checkpoint, or its Outline (serving/outline.py)
    limits: Limits
    end_think_id: int | None


def admit_batch(host: Host, requests: Sequence[DecodeRequest]) -> None:
    """Check how many requests are to be decoded together. Raises RequestError."""
    if not 1 <= len(requests) <= host.limits.max_batch:
        raise RequestError(
            f"{len(requests)} requests were given, but this host decodes 1 to {host.limits.max_batch} together; give so many."
        )


def admit(host: Host, request: DecodeRequest) -> tuple[list[int], list[Any]]:
    """The prompt's ids, and what stands in the answer from the start. Raises RequestError."""
    limits, checkpoint = host.limits, host.checkpoint
    request.check(limits)
    tokenizer = checkpoint.tokenizer
    if request.chat:
        prompt = tokenizer.chat([{"role": "user", "content": request.prompt}])
    else:
        prompt = tokenizer.encode_plain(request.prompt)
    if not prompt:
        raise RequestError("the prompt is empty; write something for the model to answer.")
    if len(prompt) > limits.max_prompt_tokens:
        raise RequestError(
            f"the prompt has {len(prompt)} tokens, but this host allows at most {limits.max_prompt_tokens}; shorten it."
        )
    if request.max_thinking_tokens is not None and host.end_think_id is None:
        raise RequestError("this model has no token that ends its thinking; leave max_thinking_tokens out.")
    given = _given(checkpoint, request)
    context = checkpoint.config.max_position_embeddings
    need = len(prompt) + request.max_new_tokens + request.block_length
    if need > context:
        raise RequestError(
            f"prompt, answer and one block need {need} positions, but the model has {context}; "
            "shorten the prompt or lower max_new_tokens."
        )
    _check_fit(checkpoint, request, given)
    return prompt, given


def _given(checkpoint: Any, request: DecodeRequest) -> list[Any]:
    """What stands in the answer from the start: the draft's ids, or the template's text and gaps."""
    if request.mode == "infill":
        vocabulary = checkpoint.config.vocab_size
        given = parts_for(request.template, checkpoint.tokenizer, vocabulary, request.block_length, checkpoint.device)
        length = sum(part.longest if isinstance(part, Gap) else len(part) for part in given)
    elif request.mode == "refine":
        given = checkpoint.tokenizer.encode_plain(request.draft)
        length = len(given)
    else:
        return []
    if length > request.max_new_tokens:
        raise RequestError(f"the text has {length} tokens, but max_new_tokens is {request.max_new_tokens}; raise it.")
    return given


def _check_fit(checkpoint: Any, request: DecodeRequest, given: Sequence[Any]) -> None:
    """Refuse a policy, pins or budgets that this checkpoint or this text cannot serve. Raises RequestError."""
    if request.policy == "sampler" and not checkpoint.has_sampler:
        raise RequestError("this checkpoint has no learned sampler; train one with nemodiff train-sampler or choose another policy.")
    vocabulary, mask = checkpoint.config.vocab_size, checkpoint.tokenizer.mask_id
    for offset, token in request.pins:
        if token >= vocabulary or token == mask:
            raise RequestError(f"the pin at {offset} has token {token}, which this checkpoint cannot write; choose another.")
        if request.mode == "refine" and offset >= len(given):
            raise RequestError(f"the pin at {offset} lies behind the draft's {len(given)} tokens; move it.")
    blocks = -(-request.max_new_tokens // request.block_length)
    if request.max_forwards is not None and request.max_forwards < 2 * blocks:
        raise RequestError(
            f"{request.max_forwards} forwards cannot write {blocks} blocks, which need two each; "
            f"raise max_forwards to {2 * blocks} or lower max_new_tokens."
        )
