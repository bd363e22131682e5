"""Benchmark reports in the Budget view: those that come with nemodiff, and any that `nemodiff bench --out` wrote."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from nemodiff_core.bench.report import Report, read
from nemodiff_core.errors import NemodiffError

from ui import bench_charts
from ui.chart_component import Chart, message
from ui.files import uploaded
from ui.parts import QUIET, notice

FOLDER = Path(__file__).parent / "reports"
_NONE = "No report is here yet; `nemodiff bench --out report.json` writes one, which can be opened here."


class Benchmarks:
    """A card of the Budget view."""

    def board(self) -> None:
        """Make the components, filled with the newest report that is here."""
        known = shipped()
        report = next(iter(known.values()), None)
        charts = drawn(report)
        with gr.Column(elem_id="nd-bench-card", elem_classes="nd-card"):
            gr.HTML("<h2>Measured speed</h2>", elem_classes="nd-card-title")
            with gr.Row(elem_id="nd-bench-row"):
                choices = [(f"{each.date}, {each.machine}", name) for name, each in known.items()]
                self.choice = gr.Dropdown(choices, value=next(iter(known), None), label="Report", filterable=False, elem_id="nd-bench-report")
                self.upload = gr.UploadButton("Open report", size="sm", elem_id="nd-bench-open", file_types=[".json"])
            self.about = gr.HTML(_about(report), elem_id="nd-bench-about")
            self.content = gr.State(None if report is None else report.to_json())
            with gr.Row(elem_id="nd-bench-charts"):
                self.charts = [Chart(chart, elem_id=f"nd-bench-{name}") for name, chart in zip(("speed", "split", "growth"), charts)]
            self.which = gr.Dropdown(_tables(report), value=_first(report), label="Table", filterable=False, elem_id="nd-bench-which")
            self.table = Chart(_table(report, _first(report)), elem_id="nd-bench-table")

    def connect(self, shell: Any) -> None:
        """Wire the card; what is wrong with a file is said in the page's notice."""
        shown = [self.content, self.about, *self.charts, self.which, self.table, shell.notice]
        self.choice.input(self.choose, self.choice, shown, **QUIET)
        self.upload.upload(self.open, self.upload, shown, **QUIET)
        self.which.input(self.turn, [self.content, self.which], self.table, **QUIET)

    def choose(self, name: str) -> list[Any]:
        """Show a report that is here."""
        report = shipped().get(name) if isinstance(name, str) else None
        return [gr.skip()] * 7 + [notice("This report is no longer here; reload the page.")] if report is None else _show(report)

    def open(self, path: str) -> list[Any]:
        """Show a report of the visitor's own, or say why not."""
        try:
            with uploaded(path) as file:
                return _show(read(file))
        except NemodiffError as error:
            return [gr.skip()] * 7 + [notice(str(error))]

    def turn(self, content: str | None, name: str) -> str:
        """Another table of the report that is shown."""
        return _table(None if content is None else Report.model_validate_json(content), name)


def shipped(folder: Path = FOLDER) -> dict[str, Report]:
    """The reports that come with nemodiff by file name, the newest first. Raises NemodiffError for a damaged one."""
    found = {path.name: read(path) for path in sorted(folder.glob("*.json"))}
    return dict(sorted(found.items(), key=lambda item: item[1].date, reverse=True))


def drawn(report: Report | None) -> list[str]:
    """The three charts' messages."""
    if report is None:
        return [message({"note": _NONE}), message({}), message({})]
    return [message(make(report)) for make in (bench_charts.speed, bench_charts.split, bench_charts.growth)]


def _show(report: Report) -> list[Any]:
    first = _first(report)
    tables = gr.update(choices=_tables(report), value=first)
    return [report.to_json(), _about(report), *drawn(report), tables, _table(report, first), ""]


def _tables(report: Report | None) -> list[tuple[str, str]]:
    return [] if report is None else [(table.title, table.name) for table in report.tables]


def _first(report: Report | None) -> str | None:
    names = [name for _, name in _tables(report)]
    return "decode" if "decode" in names else next(iter(names), None)


def _table(report: Report | None, name: str | None) -> str:
    return message({} if report is None or name is None else bench_charts.table(report, name))


def _about(report: Report | None) -> str:
    return "" if report is None else f"<p>{html.escape(bench_charts.about(report))}</p>"
