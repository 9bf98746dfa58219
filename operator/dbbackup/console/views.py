"""Which rows are shown, in which order, and in which words. Pure."""

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
"""Rows of one answer at most."""
TEXT = 200
"""Characters that are searched for at most."""
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
    """What a person asks to see. Empty means all; `state` is a badge; `page` counts from 1."""

    namespace: str = ""
    state: str = ""
    database: str = ""
    text: str = ""
    page: int = 1
    size: int = PAGE_SIZE

    @classmethod
    def read(cls, asked: Mapping[str, str]) -> Query:
        """From a query string; what makes no sense is as if it were not there, but a namespace that
        can be none finds nothing."""

        def number(name: str, default: int, most: int) -> int:
            text = asked.get(name, "")
            return min(max(int(text), 1), most) if text.isascii() and text.isdigit() and len(text) < 10 else default

        def word(name: str) -> str:
            return asked.get(name, "").strip()[:TEXT]

        return cls(word("namespace"), word("state"), word("database"), word("q"), number("page", 1, 10_000_000), number("size", PAGE_SIZE, MOST))

    @property
    def filtered(self) -> bool:
        return bool(self.state or self.database or self.text)

    def link(self, **change: str | int) -> str:
        """The query string of this with `change`; a change of anything but the page goes to the
        first."""
        other = replace(self, **({} if "page" in change else {"page": 1}), **change)  # type: ignore[arg-type]
        known = {"namespace": other.namespace, "state": other.state, "database": other.database, "q": other.text}
        pairs = {key: value for key, value in known.items() if value}
        if other.page > 1:
            pairs["page"] = str(other.page)
        if other.size != PAGE_SIZE:
            pairs["size"] = str(other.size)
        return "?" + urlencode(pairs)


@dataclass(frozen=True, slots=True)
class Page(Generic[_R]):
    """`total` counts what matches, `all` what the person may see there; `number` is that of the
    page shown, at most the last. `states` counts the badges of what matches but for the state."""

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


def select(rows: Iterable[_R], query: Query, namespaces: Collection[str] | None, now: datetime) -> Page[_R]:
    """The page of `rows` (in the order of the list) that is asked for. `namespaces` are those that
    may be seen; None for all."""
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
    return Page(shown, len(found), len(seen), number, pages, any(row.active for row in shown), states)


def age_text(then: datetime | None, now: datetime) -> str:
    """How long ago, in one unit: 4s, 12m, 3h, 5d; `now` for a moment ago."""
    if then is None:
        return ""
    seconds = (now - then).total_seconds()
    return "now" if seconds < 1 else duration_text(seconds).split()[0]


def until_text(then: datetime | None, now: datetime) -> str:
    """How long until: `in 5h`, or `due` where it has passed."""
    if then is None:
        return ""
    seconds = (then - now).total_seconds()
    return f"in {duration_text(seconds).split()[0]}" if seconds >= 1 else "due"


def time_text(then: datetime | None) -> str:
    """To the second, in UTC."""
    return "" if then is None else then.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def log_text(tail: str) -> str:
    """A Job's log for people: of each line that is one of our JSON objects the time of day, the
    level, the message, and what it says besides."""
    told = []
    for line in tail.splitlines():
        try:
            entry = json.loads(line)
            words = [str(entry.pop("ts"))[11:19], f"{entry.pop('level'):<7}", str(entry.pop("message"))]
        except (ValueError, KeyError, TypeError, AttributeError):
            told.append(line)
            continue
        entry.pop("logger", None)
        told.append(" ".join([*words, *(f"{key}={value}" for key, value in entry.items())]))
    return "\n".join(told)


def safe_filename(name: str, extension: str) -> str:
    """A file's name that no header, shell or file system takes for anything else, whatever `name`
    holds."""
    kept = re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip(".-")[:200]
    return (kept or "backup") + extension


def local_path(path: str) -> str:
    """`path` where it stays on this server, else `/`: where a sign-in leads to is for nobody else
    to say."""
    return path if re.fullmatch(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,1000}", path) else "/"
