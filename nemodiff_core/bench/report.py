"""A benchmark report: tables of what was measured, with the machine, the versions, the date and the command.

The same document is written as JSON and as Markdown, read back by `--compare` and by the app's charts. Knows no
torch, so that opening the page needs none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nemodiff_core.errors import NemodiffError
from nemodiff_core.trace_reader import read_within

SCHEMA = "nemodiff.bench/1"
MAX_FILE_BYTES = 2 * 2**20

Listen = Callable[[int, int, str], None]  # (done, of how many, what comes next)


def unheard(done: int, total: int, words: str) -> None:
    """A `Listen` that does nothing."""


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Spread(_Plain):
    """Repeated measurements of one thing: their median, the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Raises ValueError for no values."""
        found = sorted(values)
        return cls(median=median(found), low=found[0], high=found[-1])


Short = Annotated[str, Field(max_length=200)]
Value = Spread | bool | int | float | Short | None


class Table(_Plain):
    """One benchmark's rows. The columns in `keys` say what a row is; the others were measured, None where not."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z_]{0,30}$")]
    title: Short
    keys: Annotated[tuple[Short, ...], Field(min_length=1, max_length=8)]
    rows: Annotated[list[dict[Short, Value]], Field(max_length=1000)]
    note: Annotated[str, Field(max_length=2000)] = ""

    @model_validator(mode="after")
    def _rows_are_named(self) -> Table:
        for row in self.rows:
            if len(row) > 40:
                raise ValueError("a row has more than 40 columns")
            for key in self.keys:
                if not isinstance(row.get(key), (str, int, float)):
                    raise ValueError(f"a row of {self.name} does not say its {key}")
        return self

    def columns(self) -> list[str]:
        """Every column that some row has, the keys first."""
        return list(dict.fromkeys((*self.keys, *(name for row in self.rows for name in row))))

    def key(self, row: Mapping[str, Value]) -> tuple[Value, ...]:
        """What tells this row from the others."""
        return tuple(row[name] for name in self.keys)


class Report(_Plain):
    """Everything one command measured."""

    format: Literal["nemodiff.bench/1"] = Field(SCHEMA, alias="schema")
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    command: Annotated[str, Field(max_length=500)]
    versions: dict[Short, Short]
    hardware: dict[Short, Short | int]
    tables: Annotated[list[Table], Field(max_length=32)]

    def table(self, name: str) -> Table | None:
        """The table of that name, if it was measured."""
        return next((table for table in self.tables if table.name == name), None)

    @property
    def machine(self) -> str:
        """Hardware in a few words."""
        threads = self.hardware.get("threads", 1)
        processor = f"{self.hardware.get('processor', 'CPU')}, {threads} {'thread' if threads == 1 else 'threads'}"
        return str(self.hardware.get("gpu", processor))

    def to_json(self) -> str:
        """Indented, since reports are kept in the repository."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """The tables with the machine, the versions, the date and the command."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        lines = ["# nemodiff bench", "", f"`{self.command}`, {self.date}, on {self.machine}; {versions}.", ""]
        for table in self.tables:
            lines += [f"## {table.title}", ""]
            if table.note:
                lines += [table.note, ""]
            columns = table.columns()
            lines.append("| " + " | ".join(columns) + " |")
            lines.append("| " + " | ".join("---" if name in table.keys else "---:" for name in columns) + " |")
            lines += ["| " + " | ".join(shown(row.get(name)).replace("|", "\\|") for name in columns) + " |" for row in table.rows]
            lines.append("")
        return "\n".join(lines)

    def save(self, path: Path) -> Path:
        """Write JSON to `path` and Markdown beside it; the Markdown's path. Raises NemodiffError."""
        beside = path.with_suffix(".md")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.to_json(), "utf-8")
            beside.write_text(self.to_markdown(), "utf-8")
        except OSError as error:
            raise NemodiffError(f"{path} cannot be written ({error.strerror}); choose another place.") from error
        return beside


def read(path: Path) -> Report:
    """A saved report. Raises NemodiffError with one sentence about what is wrong with the file."""
    raw = read_within(path, MAX_FILE_BYTES, ", which no report is; choose another file.", NemodiffError)
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise NemodiffError(f"{path.name} is not JSON, so it is no report; choose one that nemodiff bench wrote.") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise NemodiffError(f"{path.name} does not say that it is a {SCHEMA} report; choose one that nemodiff bench wrote.")
    try:
        return Report.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"][:4]) or "its content"
        raise NemodiffError(f"{path.name} is damaged at {where[:120]} ({first['msg'][:120]}); write it again with nemodiff bench.") from error


def compare(old: Report, new: Report) -> list[Table]:
    """Ratios new / old of every figure that both have, row by row."""
    found = []
    for table in new.tables:
        before = old.table(table.name)
        if before is None or before.keys != table.keys:
            continue
        known = {before.key(row): row for row in before.rows}
        rows = []
        for row in table.rows:
            ratios = {}
            for name, value in row.items():
                now, then = number(value), number(known.get(table.key(row), {}).get(name))
                if name not in table.keys and now is not None and then:
                    ratios[f"{name}, new / old"] = now / then
            if ratios:
                rows.append({name: row[name] for name in table.keys} | ratios)
        if rows:
            found.append(Table(name=table.name, title=f"{table.title}: against {old.date}, {old.machine}"[:200], keys=table.keys, rows=rows))
    return found


def number(value: Value) -> float | None:
    """The figure behind a value: a spread's median; None for what is no number."""
    if isinstance(value, Spread):
        return value.median
    return None if isinstance(value, (str, bool)) or value is None else float(value)


def shown(value: Value) -> str:
    """A value as people read it, to three digits; a spread with its ends."""
    if isinstance(value, Spread):
        return f"{_digits(value.median)} ({_digits(value.low)}–{_digits(value.high)})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _digits(value)
    return "" if value is None else str(value)


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
