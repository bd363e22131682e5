"""Runs to export, one of them by somebody who means harm."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nemodiff_core.trace import Trace
from tests.ui.player.traces import Maker

HOSTILE = [
    "<img src=x onerror='window.hacked=1'>", "</script><script>window.hacked=1</script>", "<!--<script>", "=1+1", "+1", "-1", "@SUM(A1)",
    "\u202eabc\u202c", "\u200b", "\x00\x07\x1b[31m", "\u2028\u2029", "\n\n\n", "\t", " ", "", "\u4f60\u597d", "\U0001f680", "\uffff",
    "x" * 400, "\u5b57" * 400, "a" + "\u0301" * 300, "\u0627\u0644\u0633\u0644\u0627\u0645", '";,\r\n"', "``${window.hacked=1}``",
]  # fmt: skip


@pytest.fixture
def hostile() -> Trace:
    """A sound trace whose tokens, prompt and model are called names that nobody should obey."""
    maker = Maker("w " * len(HOSTILE), seed=4)
    ids = [5000 + i for i in range(len(HOSTILE))]
    maker.words.pieces |= dict(zip(ids, HOSTILE))
    maker.answer = [*ids, maker.answer[-1]]
    trace = maker.diffusion(size=8, mistakes=0.2)
    evil = "".join(HOSTILE)
    return replace(
        trace,
        id="</script>",
        model={**trace.model, "id": evil, "device": evil},
        request={**trace.request, "prompt": "=" + evil},
        environment={"python": evil},
    )
