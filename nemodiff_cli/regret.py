"""`nemodiff regret`: commits that would have come out otherwise, and tokens the causal pass would not have written."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from nemodiff_cli.traces import console_for, progress, save
from nemodiff_core.trace import Trace

if TYPE_CHECKING:  # torch is imported only when there is something to look at
    from nemodiff_core.engine import Engine

SHOWN = 12  # rows of each table; the saved trace has all of them


def run_regret(trace: Trace, load: Callable[[], Engine], json_path: str | None) -> None:
    """Analyse a recorded run and print what stands out. Raises NemodiffError."""
    from nemodiff_core.analysis.regret import regret

    engine = load()
    with progress("steps") as listen:
        found = regret(engine.checkpoint, trace, listen)
    wrong = [note for note in found.annotations if note["kind"] == "wrong_commit"]
    regrets = [note for note in found.annotations if note["kind"] == "regret"]
    doubted = [note for note in regrets if note["nats"] > 0]
    console = console_for(json_path)
    console.print(f"{len(wrong)} of the commits would have come out otherwise one at a time.")
    if wrong:
        worst = sorted(wrong, key=lambda note: note["probability"] - note["alternative_probability"])[:SHOWN]
        console.print(table(found, worst, "alternative", "alternative_probability", {"step": str}))
    total = sum(note["nats"] for note in regrets)
    console.print(f"\n{len(doubted)} of {len(regrets)} tokens are not the causal pass's choice; regret {total:.2f} nats in all.")
    if doubted:
        worst = sorted(doubted, key=lambda note: -note["nats"])[:SHOWN]
        console.print(table(found, worst, "best", "best_probability", {"nats": "{:.2f}".format}))
    save(found, json_path, console)


def table(
    trace: Trace, notes: list[dict[str, Any]], other: str, other_probability: str, extra: dict[str, Callable[[Any], str]]
) -> Table:
    """Position, token and what would stand there instead, with both probabilities; `extra` columns first."""
    columns = (*extra, "position", "written", "p", "instead", "p")
    rows = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns:
        rows.add_column(name, justify="left" if name in ("written", "instead") else "right")
    first = len(trace.prompt.ids)
    for note in notes:
        token = note["token"] if "token" in note else trace.output.ids[note["position"] - first]
        rows.add_row(
            *(form(note[name]) for name, form in extra.items()),
            str(note["position"]),
            _quoted(trace, token),
            f"{note['probability']:.3f}",
            _quoted(trace, note[other]),
            f"{note[other_probability]:.3f}",
        )
    return rows


def _quoted(trace: Trace, token: int) -> Text:
    # Token text is data: `repr` keeps control characters from the terminal, `Text` markup from rich.
    return Text(repr(trace.vocabulary[str(token)]))
