"""Which rows a list shows, and how times, logs and file names are written. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Generic, TypeVar
from urllib.parse import urlencode

from dbbackup.api.units import duration_text
from dbbackup.console.rows import AnyRow, BackupRow, RestoreRow, ScheduleRow, StorageRow, badges

PAGE_SIZE = 50
MOST = 500
"""Rows in one answer at most."""
TEXT = 200
"""Characters of a filter at most."""
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
STATES: Mapping[str, Sequence[str]] = {
    "DatabaseBackup": ("Completed", "Running", "Pending", "Failed", "Pinned", "Expiring", "Expired", "Deleting"),
    "DatabaseRestore": ("Completed", "Running", "Pending", "Failed"),
    "DatabaseBackupSchedule": ("Active", "Suspended", "Failing", "Running", "Prune held"),
    "BackupStorage": ("Ready", "Not ready", "Checking"),
}

_R = TypeVar("_R", bound=AnyRow)


@dataclass(frozen=True, slots=True)
class Query:
    """The filters of a list. Empty means all; `state` is a badge; `page` counts from 1."""

    namespace: str = ""
    state: str = ""
    database: str = ""
    text: str = ""
    page: int = 1
    size: int = PAGE_SIZE

    @classmethod
    def read(cls, parameters: Mapping[str, str]) -> Query:
        """From a query string. Values that make no sense are ignored, except a namespace: an
        invalid one is refused later."""

        def number(name: str, default: int, most: int) -> int:
            text = parameters.get(name, "")
            return min(max(int(text), 1), most) if text.isascii() and text.isdigit() and len(text) < 10 else default

        def word(name: str) -> str:
            return parameters.get(name, "").strip()[:TEXT]

        return cls(word("namespace"), word("state"), word("database"), word("q"), number("page", 1, 10_000_000), number("size", PAGE_SIZE, MOST))

    @property
    def filtered(self) -> bool:
        return bool(self.state or self.database or self.text)

    def link(self, **change: str | int) -> str:
        """The query string with `change` applied; any change but that of the page leads to page
        1."""
        other = replace(self, **({} if "page" in change else {"page": 1}), **change)  # type: ignore[arg-type]
        known = {"namespace": other.namespace, "state": other.state, "database": other.database, "q": other.text}
        pairs = {key: value for key, value in known.items() if value}
        if other.page > 1:
            pairs["page"] = str(other.page)
        if other.size != PAGE_SIZE:
            pairs["size"] = str(other.size)
        return "?" + urlencode(pairs)


@dataclass(frozen=True, slots=True)
class RowPage(Generic[_R]):
    """One page of a list. `total` counts the rows that match, `all` those that the person may see;
    `number` is the page shown, at most the last. `states` counts the badges of the rows that match
    all filters but the state."""

    rows: Sequence[_R]
    total: int
    all: int
    number: int
    pages: int
    active: bool
    states: Mapping[str, int]


def _searched(row: AnyRow) -> str:
    more = ""
    if isinstance(row, BackupRow):
        more = f"{row.schedule}\n{row.storage}\n{row.requested_by}"
    elif isinstance(row, RestoreRow):
        more = f"{row.source}\n{row.requested_by}"
    elif isinstance(row, StorageRow):
        more = f"{row.bucket}\n{row.endpoint}"
    elif isinstance(row, ScheduleRow):
        more = row.schedule
    return f"{row.name}\n{row.namespace}\n{row.database}\n{row.reason}\n{more}".lower()


def select(rows: Iterable[_R], query: Query, namespaces: Collection[str] | None, now: datetime) -> RowPage[_R]:
    """The requested page of `rows`, which are in the order of the list. `namespaces` are those that
    the person may see; None for all."""
    seen = [row for row in rows if (not query.namespace or row.namespace == query.namespace) and (namespaces is None or row.namespace in namespaces)]
    found = seen
    if query.database:
        found = [row for row in found if row.database == query.database]
    if query.text:
        words = query.text.lower().split()
        found = [row for row in found if all(word in _searched(row) for word in words)]
    marked = [(row, [badge.text for badge in badges(row, now)]) for row in found]
    states = Counter(text for _, texts in marked for text in texts)
    if query.state:
        found = [row for row, texts in marked if query.state in texts]
    pages = max(1, -(-len(found) // query.size))
    number = min(query.page, pages)
    shown = found[(number - 1) * query.size : number * query.size]
    return RowPage(shown, len(found), len(seen), number, pages, any(row.active for row in shown), states)


def age_text(then: datetime | None, now: datetime) -> str:
    """How long ago, in one unit: 4s, 12m, 3h, 5d; `now` for a moment ago."""
    if then is None:
        return ""
    seconds = (now - then).total_seconds()
    return "now" if seconds < 1 else duration_text(seconds).split()[0]


def until_text(then: datetime | None, now: datetime) -> str:
    """How long until then: `in 5h`, or `due` if it has passed."""
    if then is None:
        return ""
    seconds = (then - now).total_seconds()
    return f"in {duration_text(seconds).split()[0]}" if seconds >= 1 else "due"


def time_text(then: datetime | None) -> str:
    """To the second, in UTC."""
    return "" if then is None else then.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def log_text(tail: str) -> str:
    """A Job's log for people: for each line of our JSON the time of day, the level, the message and
    the other fields."""
    lines = []
    for line in tail.splitlines():
        try:
            entry = json.loads(line)
            words = [str(entry.pop("ts"))[11:19], f"{entry.pop('level'):<7}", str(entry.pop("message"))]
        except (ValueError, KeyError, TypeError, AttributeError):
            lines.append(line)
            continue
        entry.pop("logger", None)
        lines.append(" ".join([*words, *(f"{key}={value}" for key, value in entry.items())]))
    return "\n".join(lines)


def safe_filename(name: str, extension: str) -> str:
    """A file's name without any character that is special in a header, shell or file system."""
    kept = re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip(".-")[:200]
    return (kept or "backup") + extension


def local_path(path: str) -> str:
    """`path` if it stays on this server, else `/`: a link must not make our sign-in lead to another
    site."""
    return path if re.fullmatch(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,1000}", path) else "/"
