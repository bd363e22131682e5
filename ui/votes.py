"""Votes of blind races, kept in SQLite. Prompts are not stored unless the host was told to: a keyed hash groups the
votes on one prompt, and the key never leaves the database."""

from __future__ import annotations

import csv
import hmac
import io
import json
import logging
import os
import secrets
import sqlite3
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nemodiff_core.errors import NemodiffError

from ui.naming import model_name, title

CSV_ROUTE = "/nemodiff/votes.csv"
LETTERS = "ABCD"  # lanes of a blind race, in the order shown
COLUMNS = ("vote", "at", "prompt_hash", "lane", "setting", "model", "verdict", "request")
_log = logging.getLogger(__name__)
_PRIVATE = ("prompt", "draft", "template")  # what visitors wrote
_INCIDENTAL = (*_PRIVATE, "seed", "candidates", "deadline_s")  # what makes no other setting
_SCHEMA = """
CREATE TABLE IF NOT EXISTS key (value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS votes (
  id INTEGER PRIMARY KEY, at TEXT NOT NULL, run TEXT NOT NULL UNIQUE, prompt_hash TEXT NOT NULL, prompt TEXT,
  lanes TEXT NOT NULL,  -- JSON, in the order shown: [{"model": {…}, "request": {…}}]
  best TEXT NOT NULL    -- JSON: lanes that were called best; several are tied, none: all bad
);
"""


@dataclass(frozen=True)
class Score:
    """How often a setting was shown, and what became of it."""

    setting: str
    shown: int
    best: int  # alone
    tied: int
    all_bad: int


class Votes:
    """The votes of one host. Nothing is opened or written before the first vote or the first look at them."""

    def __init__(self, folder: Path | None = None, keep_prompts: bool = False) -> None:
        self.folder = folder or data_folder()
        self.keep_prompts = keep_prompts
        self.problem: str | None = None  # why votes are lost when the app stops, as a sentence
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None

    def add(self, run: str, prompt: str, lanes: Sequence[Mapping[str, Any]], best: Sequence[int]) -> None:
        """Keep one vote: `lanes` are {"model", "request"} in the order shown, `best` the numbers of those called best.

        Raises NemodiffError where this run has been voted on already.
        """
        kept = [{"model": lane["model"], "request": _without(lane["request"], _PRIVATE)} for lane in lanes]
        row = (
            datetime.now(UTC).isoformat(timespec="seconds"), run, self._hash(prompt), prompt if self.keep_prompts else None,
            json.dumps(kept), json.dumps(sorted(best)),
        )  # fmt: skip
        try:
            with self._lock, self._database() as database:
                database.execute("INSERT INTO votes (at, run, prompt_hash, prompt, lanes, best) VALUES (?, ?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise NemodiffError("This comparison has been voted on already; run the next one.") from None
        except sqlite3.Error as error:
            raise NemodiffError(f"The vote could not be kept ({error}); try again.") from error

    def scores(self) -> list[Score]:
        """One line a setting, the most often preferred first."""
        counts: dict[str, dict[str, Any]] = {}
        votes = self._rows()
        several = len({lane["model"].get("id") for vote in votes for lane in vote["lanes"]}) > 1
        for vote in votes:
            for number, lane in enumerate(vote["lanes"]):
                key = json.dumps([lane["model"].get("id"), _without(lane["request"], _INCIDENTAL)], sort_keys=True)
                name = title(_without(lane["request"], ("seed",))) + (f" · {model_name(lane['model'])}" if several else "")
                line = counts.setdefault(key, {"setting": name, "shown": 0, "best": 0, "tied": 0, "all bad": 0, "not chosen": 0})
                line["shown"] += 1
                line[_verdict(vote["best"], number)] += 1
        scores = [Score(c["setting"], c["shown"], c["best"], c["tied"], c["all bad"]) for c in counts.values()]
        return sorted(scores, key=lambda s: (-(s.best + s.tied) / s.shown, -s.shown, s.setting))

    def csv(self) -> str:
        """One line a vote and lane, without prompts."""
        text = io.StringIO()
        sheet = csv.writer(text, lineterminator="\r\n")
        sheet.writerow(COLUMNS)
        for vote in self._rows():
            for number, lane in enumerate(vote["lanes"]):
                request = lane["request"]
                fields = (
                    vote["id"], vote["at"], vote["prompt_hash"], LETTERS[number], title(request), lane["model"].get("id"),
                    _verdict(vote["best"], number), json.dumps(request, sort_keys=True),
                )  # fmt: skip
                sheet.writerow([_inert(field) for field in fields])
        return text.getvalue()

    def _rows(self) -> list[dict[str, Any]]:
        with self._lock:
            rows = self._database().execute("SELECT id, at, prompt_hash, lanes, best FROM votes ORDER BY id").fetchall()
        names = ("id", "at", "prompt_hash", "lanes", "best")
        return [{**dict(zip(names, row)), "lanes": json.loads(row[3]), "best": json.loads(row[4])} for row in rows]

    def _hash(self, prompt: str) -> str:
        with self._lock:
            (key,) = self._database().execute("SELECT value FROM key").fetchone()
        return hmac.digest(key.encode(), prompt.encode(), "sha256").hex()[:16]

    def _database(self) -> sqlite3.Connection:
        if self._opened is None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._opened = _open(str(self.folder / "votes.sqlite3"))
            except (OSError, sqlite3.Error):
                self.problem = (
                    f"Votes are kept only until the app stops, because {self.folder} cannot be written; "
                    "set NEMODIFF_DATA to a folder that can."
                )
                _log.warning("%s", self.problem)
                self._opened = _open(":memory:")
        return self._opened


def data_folder() -> Path:
    """Where the host keeps data: NEMODIFF_DATA, else the user's own data folder on this system."""
    if given := os.environ.get("NEMODIFF_DATA"):
        return Path(given)
    home = Path(os.path.expanduser("~"))
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "nemodiff"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "nemodiff"
    return Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "nemodiff"


def _open(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=10, check_same_thread=False)
    try:
        database.executescript(_SCHEMA)
        with database:
            # Two processes may open a new file at once: only the first key counts.
            database.execute(
                "INSERT INTO key SELECT ? WHERE NOT EXISTS (SELECT 1 FROM key)", (secrets.token_hex(32),)
            )
    except BaseException:
        database.close()
        raise
    return database


def _verdict(best: Sequence[int], lane: int) -> str:
    if not best:
        return "all bad"
    if lane not in best:
        return "not chosen"
    return "best" if len(best) == 1 else "tied"


def _without(request: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in request.items() if key not in names and value is not None}


def _inert(value: Any) -> Any:
    """Spreadsheets run what begins like a formula; model names come from other people's files."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
