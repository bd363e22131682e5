"""Putting a recorded answer through its model again: what the analyses of a Trace share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from nemodiff_core.cache import KVCache
from nemodiff_core.checkpoint import Checkpoint
from nemodiff_core.errors import NemodiffError, TraceError
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import DecodeRequest, parse_request
from nemodiff_core.trace import REMOTE, Trace

# Mean relative difference of recorded and recomputed probabilities: more than lower precision, less than other weights.
TOLERANCE = 0.2
RECORDED = 1e-3  # below this, the five decimals of a trace are too coarse to compare
CHUNK = 512  # rows of logits at a time; a large vocabulary makes a row half a megabyte
LAST = slice(-1, None)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one forward thinks of a token at one position, and what it would have written itself."""

    probability: float
    nats: float  # log-probability by which its own choice leads the token; 0 where they are the same
    best: int
    best_probability: float
    entropy: float  # nats
    ids: tuple[int, ...] = ()  # candidates, best first
    probabilities: tuple[float, ...] = ()


def opinions(
    logits: torch.Tensor,
    tokens: Sequence[int],
    mask_id: int,
    *,
    banned: torch.Tensor | None = None,
    candidates: int = 0,
) -> list[Opinion]:
    """Opinions of rows [rows, vocab] on `tokens`, one a row.

    The mask, and what `banned` [rows, vocab] bool marks, is nobody's choice but keeps its share of the
    probability, as in the decoders. Raises NemodiffError for NaN logits.
    """
    log_p = logits.log_softmax(-1, dtype=torch.float32)
    own = log_p.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0]
    entropy = -torch.linalg.vecdot(log_p.exp(), log_p.clamp_min(-1e4))
    log_p[:, mask_id] = -torch.inf
    if banned is not None:
        log_p.masked_fill_(banned, -torch.inf)
    # Not the first of `topk`: between equals, which low precision makes common, decoders take argmax's choice.
    best = log_p.argmax(-1)
    best_log_p = log_p.gather(-1, best[:, None])[:, 0]
    k = min(candidates, log_p.shape[-1] - 1)
    top = log_p.topk(k, dim=-1)
    columns = (own.exp(), (best_log_p - own).clamp_min(0), best, best_log_p.exp(), entropy)
    # Float64, so that one transfer carries token ids as exactly as probabilities.
    table = torch.cat((torch.stack([column.double() for column in columns], -1), top.indices, top.values.exp()), -1)
    read = []
    for own_p, nats, choice, choice_p, spread, *rest in table.tolist():
        if spread != spread:
            raise NemodiffError(
                "the model computed values that are not numbers; load it in float32 or bfloat16, or check its weights."
            )
        shown = tuple(map(int, rest[:k])), tuple(min(p, 1.0) for p in rest[k:])
        read.append(Opinion(min(own_p, 1.0), nats, int(choice), min(choice_p, 1.0), max(spread, 0.0), *shown))
    return read


class Context:
    """A KV cache that follows a text: it keeps what two texts begin with and writes only the rest."""

    def __init__(self, model: TriModeModel, capacity: int) -> None:
        self.model = model
        self.cache: KVCache = model.new_cache(capacity)
        self.ids: list[int] = []

    def hold(self, ids: Sequence[int]) -> KVCache:
        """The cache with exactly `ids` in it, after the causal forwards that this takes."""
        same = 0
        while same < min(len(ids), len(self.ids)) and ids[same] == self.ids[same]:
            same += 1
        self.cache.crop(same)
        for low in range(same, len(ids), CHUNK):
            self.extend(ids[low : low + CHUNK], LAST)
        self.ids = list(ids)
        return self.cache

    def extend(self, ids: Sequence[int], rows: slice) -> torch.Tensor:
        """Write `ids` behind the text; logits [rows, vocab] of what comes behind each of `rows`."""
        self.ids = [*self.ids[: self.cache.length], *ids]
        tokens = torch.tensor([list(ids)], device=self.model.device)
        return self.model(tokens, pattern="causal", cache=self.cache, write=True, rows=rows)[0]


def check_model(checkpoint: Checkpoint, trace: Trace) -> DecodeRequest:
    """The request of a trace that this checkpoint recorded. Raises TraceError or RequestError.

    A checkpoint may have been moved, so of its id only the last part counts; its weights are held against the
    trace by `check_weights`.
    """
    if trace.request["mode"] == REMOTE:
        raise TraceError("the run is a server's answer, whose forwards nobody has seen; run its prompt on this host instead.")
    request = parse_request(trace.request)
    theirs, ours = trace.model["id"], checkpoint.id
    size, revision = trace.model.get("parameters"), trace.model.get("revision")
    same_size = size in (None, checkpoint.model.parameter_count())
    same_revision = None in (revision, checkpoint.revision) or revision == checkpoint.revision
    if _name(theirs) != _name(ours) or not same_size or not same_revision:
        wrote = _label(theirs, revision, size)
        raise TraceError(f"the trace was recorded with {wrote} and this is {ours}; give the model that wrote it.")
    ids = {*trace.prompt.ids, *trace.output.ids, *(event.token for step in trace.steps for event in step.events)}
    if not trace.prompt.ids or not trace.output.ids:
        raise TraceError("the trace has no answer to look at; record a run that wrote something.")
    if max(ids) >= checkpoint.config.vocab_size:
        raise TraceError(f"the trace holds token {max(ids)}, which {ours} does not have; give the model that wrote it.")
    reach = max(step.span[1] for step in trace.steps)
    if reach > checkpoint.config.max_position_embeddings:
        raise TraceError(f"the trace reaches position {reach}, but {ours} ends at {checkpoint.config.max_position_embeddings}; "
                         "give the model that wrote it.")  # fmt: skip
    return request


def causal_opinions(checkpoint: Checkpoint, trace: Trace, context: Context) -> list[Opinion]:
    """What a causal pass over prompt and answer thinks of each token of the answer. Raises TraceError (`check_weights`).

    One pass, run in pieces so that the logits of a long answer need not exist at once. `context` must be empty.
    """
    mask_id = checkpoint.tokenizer.mask_id
    read, output = [], trace.output.ids
    context.hold(trace.prompt.ids[:-1])
    feed = [trace.prompt.ids[-1], *output[:-1]]
    for low in range(0, len(feed), CHUNK):
        piece = feed[low : low + CHUNK]
        read += opinions(context.extend(piece, slice(None)), output[low : low + CHUNK], mask_id)
    check_weights(trace, read)
    return read


def check_weights(trace: Trace, causal: Sequence[Opinion]) -> None:
    """Refuse a trace whose causal confidences are not this model's, whatever its name. Raises TraceError.

    A model that was trained on keeps its name and its size. Tokens that a causal pass chose (`seed`, `accept`,
    `bonus`, and all of mode ar) carry the confidence it had in them then.
    """
    chosen = {"seed", "accept", "bonus"} | ({"commit"} if trace.request["mode"] == "ar" else set())
    first, gaps = len(trace.prompt.ids), []
    for step in trace.steps:
        for event in step.events:
            at = event.position - first
            if event.kind not in chosen or at >= len(causal) or trace.output.ids[at] != event.token:
                continue
            if (then := event.confidence or 0.0) >= RECORDED:
                now = causal[at].probability
                gaps.append(abs(now - then) / max(now, then))
    if gaps and fmean(gaps) > TOLERANCE:
        raise TraceError(
            f"the trace was recorded with other weights of {trace.model['id'][:100]}: its tokens have other probabilities now; "
            "record the run again."
        )


def _name(model_id: str) -> str:
    return model_id.rstrip("/").rpartition("/")[2]


def _label(model_id: str, revision: object, size: object) -> str:
    known = [f"revision {revision[:12]}"] if isinstance(revision, str) else []
    known += [f"{size:,} parameters"] if type(size) is int else []
    return model_id[:100] + (f" ({', '.join(known)})" if known else "")
