"""`nemodiff oracle`: how few forwards an answer could have taken, block by block."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.table import Table

from nemodiff_cli.traces import console_for, progress, save
from nemodiff_core.metrics import nfe, tpf
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Trace

if TYPE_CHECKING:  # torch is imported only when there is something to decode
    from nemodiff_core.engine import Engine


def run_oracle(source: DecodeRequest | Trace, load: Callable[[], Engine], budget: int, json_path: str | None) -> None:
    """Find and print the schedule for a recorded run, or for a request decoded first. Raises NemodiffError."""
    from nemodiff_core.analysis.oracle import one_at_a_time, speed_of_light

    engine = load()
    if isinstance(source, Trace):
        reference = source
    else:
        run = engine.run(one_at_a_time(source))
        with progress("tokens, one a forward") as listen:
            for _ in run:
                listen(len(run.steps), source.max_new_tokens)
        reference = run.trace()
    with progress("blocks") as listen:
        found = speed_of_light(engine.checkpoint, reference, budget, listen)
    console = console_for(json_path)
    console.print(blocks(found))
    console.print("", totals(reference, found))
    save(found, json_path, console)


def blocks(found: Trace) -> Table:
    """One row a block: denoise forwards of the reference, of the greedy oracle and of the best schedule."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("block", "cells", "one at a time", "greedy oracle", "oracle", "is", "searched"):
        table.add_column(name, justify="left" if name == "is" else "right")
    for note in found.annotations:
        greedy = "dead end" if note["greedy"] is None else str(note["greedy"])
        verdict = "minimal" if note["found"] == "exact" else "best found"
        figures = (note["block"], note["cells"], note["reference"], greedy, note["forwards"], verdict, note["searched"])
        table.add_row(*map(str, figures))
    return table


def totals(reference: Trace, found: Trace) -> Table:
    """Both runs in the figures used everywhere: denoise and commit passes."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "tokens", "NFE", "TPF"):
        table.add_column(name, justify="right" if name else "left")
    for name, trace in (("one at a time", reference), ("speed of light", found)):
        rate = tpf(trace)
        table.add_row(name, str(len(trace.output.ids)), str(nfe(trace)), "" if rate is None else f"{rate:.2f}")
    return table
