"""A run as one page that plays it anywhere: from a file, without a network, without a server."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nemodiff_core
from nemodiff_core.errors import NemodiffError
from nemodiff_core.metrics import summary
from nemodiff_core.trace import Trace

from ui.export.bundle import bundle
from ui.export.words import prompt_of, shorten
from ui.lossless import identity
from ui.naming import name

PLAYER = Path(__file__).parents[1] / "player"
MAX_BYTES = 64 * 2**20

_START = """
const { mount } = $use('player.js');
const { traces, tails } = JSON.parse(document.getElementById('nemodiff-run').textContent);
const player = mount(document.getElementById('player'), { id: 'exported', exports: false });
if (traces.length > 1) player.loadRace(traces, tails, { play: true });
else player.load(traces[0], { play: true, tail: tails[0] });
"""

_PAGE_CSS = """
:root { color-scheme: light dark; }
body { margin: 0; padding: clamp(6px, 2vw, 24px); background: light-dark(#f4f6f9, #0b1017); }
main, footer { max-width: 1200px; margin: 0 auto; }
footer, noscript { display: block; padding: 10px 4px; font: 13px/1.5 ui-sans-serif, system-ui, sans-serif; color: light-dark(#556170, #a3afbd); overflow-wrap: anywhere; }
"""

# Nothing is fetched, sent or framed. Styles may be inline because the player sets some on its elements; without a
# source to load from they can reach nothing.
_POLICY = "default-src 'none'; script-src '{script}'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<meta name="generator" content="nemodiff {version}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style data-nemodiff="player">{css}</style>
</head>
<body>
<main id="player"></main>
<noscript>This page plays a recorded run and needs JavaScript for it. It loads nothing from anywhere.</noscript>
<footer>{footer}</footer>
<script type="application/json" id="nemodiff-run">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def player_html(traces: Sequence[Trace], apart: bool = False) -> str:
    """One self-contained page that opens on the recorded run, several traces as a race. Raises NemodiffError.

    `apart`: the lanes were recorded at different times, and the page must not say otherwise.
    """
    script = bundle(PLAYER, ["player.js"], _START)
    data = script_json({"traces": [trace.to_dict() for trace in traces], "tails": [_tail(traces, lane, apart) for lane in range(len(traces))]})
    if len(data) > MAX_BYTES:
        raise NemodiffError(f"The run is larger than {MAX_BYTES >> 20} MB as a page; record fewer candidates, or save it as JSON.")
    css = "\n".join([_PAGE_CSS, *(path.read_text("utf-8") for path in sorted(PLAYER.glob("*.css")))])
    return _PAGE.format(
        policy=html.escape(_POLICY.format(script=_digest(script))),
        version=html.escape(nemodiff_core.__version__),
        title=html.escape(_title(traces)),
        footer=html.escape(_footer(traces[0])),
        css=css,
        data=data,
        script=script,
    )


def script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in, nor the line of a script."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _tail(traces: Sequence[Trace], lane: int, apart: bool) -> dict[str, Any]:
    # The player takes output, stop reason and environment from the trace itself.
    return {"metrics": summary(traces[lane]), "identical": identity(traces, lane), "opened": apart}


def _title(traces: Sequence[Trace]) -> str:
    what = "Race" if len(traces) > 1 else name(traces[0].request)
    return f"{what}: {shorten(prompt_of(traces[0]), 60)} · nemodiff"


def _footer(trace: Trace) -> str:
    return f"Recorded {trace.created[:16].replace('T', ' ')} with {shorten(trace.model['id'], 80)} on {shorten(trace.model['device'], 40)}. Made with nemodiff; this page loads nothing and sends nothing."


def _digest(script: str) -> str:
    # The browser hashes what it has parsed, in which every line ends with \n alone.
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
