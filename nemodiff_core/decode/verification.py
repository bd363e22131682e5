"""What a causal pass over a pending token and its drafts settles (facts §4.3 steps 4-6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nemodiff_core.decode.sampling import Look
from nemodiff_core.decode.thinking import ThinkingBudget
from nemodiff_core.trace import TokenEvent


@dataclass(frozen=True)
class Verdict:
    """The outcome of one verification."""

    events: tuple[TokenEvent, ...]  # accepted drafts, refused drafts, the bonus
    emitted: int  # tokens behind the pending one that now belong to the text, at least 1
    pending: int  # the last of them, which is not cached yet


def verify(
    start: int,
    drafts: Sequence[int],
    picks: Sequence[Look],
    end: int,
    stop_id: int | None,
    thinking: ThinkingBudget,
) -> Verdict:
    """Keep the drafts behind `start` up to the first that the causal pass did not pick, and one pick more.

    `start` is the position of the pending token, `drafts[i]` and `picks[i]` belong to position start+1+i, and
    there is one pick more than drafts. Nothing is emitted from `end` on or behind `stop_id`. No draft may
    stand where the thinking budget forces a token, since what follows it was picked without that token.
    """
    matched = next((i for i, draft in enumerate(drafts) if picks[i].token != draft), len(drafts))
    written: list[TokenEvent] = []
    for i in range(min(matched + 1, end - start - 1)):
        written.append(thinking.event("accept" if i < matched else "bonus", start + 1 + i, picks[i]))
        if written[-1].token == stop_id:
            break
    kept = min(len(written), matched)
    refused = (TokenEvent(start + 1 + i, drafts[i], "reject") for i in range(kept, len(drafts)))
    return Verdict((*written[:kept], *refused, *written[kept:]), len(written), written[-1].token)
