"""JSON lines on stdout (`contract.report.LogEvent`): the operator follows them, people read them.
Nothing secret passes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal, TextIO

from dbbackup.contract.report import LogEvent, Progress, Report
from dbbackup.dataplane.redaction import Redactor

Level = Literal["debug", "info", "warning", "error"]

PROGRESS_SECONDS = 1.0
"""Between two lines of progress, and before the first."""


class Reporter:
    """Thread-safe. Messages and extra fields pass the redactor; `key`, `xid` and figures are
    written as they are, since they are built from names."""

    def __init__(self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream or sys.stdout, clock
        self._lock = threading.Lock()
        self._started = self._last = clock()
        self.redact = Redactor()

    def secret(self, *values: str | None) -> None:
        """Registers values that must never appear in a line."""
        self.redact.add(*values)

    def log(self, level: Level, message: str, **extra: str | int | float | bool | None) -> None:
        safe = {name: self.redact(value) if isinstance(value, str) else value for name, value in extra.items()}
        self._write(LogEvent.model_validate({"ts": datetime.now(UTC), "level": level, "message": self.redact(message), **safe}))

    def debug(self, message: str, **extra: str | int | float | bool | None) -> None:
        self.log("debug", message, **extra)

    def info(self, message: str, **extra: str | int | float | bool | None) -> None:
        self.log("info", message, **extra)

    def warn(self, message: str, **extra: str | int | float | bool | None) -> None:
        self.log("warning", message, **extra)

    def error(self, message: str, **extra: str | int | float | bool | None) -> None:
        self.log("error", message, **extra)

    def key(self, key: str) -> None:
        """The artifact's directory, logged before its first upload."""
        self._write(LogEvent(ts=datetime.now(UTC), event="key", message=f"the artifact's key is {key}", key=key))

    def waiting(self, message: str) -> None:
        """For another run on the same database."""
        self._write(LogEvent(ts=datetime.now(UTC), event="waiting", message=self.redact(message)))

    def transaction(self, xid: str) -> None:
        """A restore's transaction ID, logged before anything is restored."""
        self._write(LogEvent(ts=datetime.now(UTC), event="transaction", message=f"restoring in transaction {xid}", xid=xid))

    def page(self, number: int, items: str) -> None:
        """One page of a bulk result, packed: see `dbbackup.pages`. Names and figures, so nothing of
        it is redacted."""
        self._write(LogEvent.model_validate({"ts": datetime.now(UTC), "event": "page", "page": number, "items": items}))

    def progress(self, progress: Progress, *, last: bool = False) -> None:
        """At most one line a PROGRESS_SECONDS, none in the first: call it as often as you like.
        `last` writes a line if any was written before."""
        with self._lock:
            now = self._clock()
            due = now - self._last >= PROGRESS_SECONDS
            if not (due or (last and self._last != self._started)):
                return
            self._last = now
        self._write(LogEvent(ts=datetime.now(UTC), event="progress", progress=progress))

    def report(self, report: Report, message: str) -> None:
        """The last line: the run's report, whole, as the termination message may cut it."""
        level: Level = "error" if report.failure else "info"
        document = report.model_dump(mode="json", by_alias=True, exclude_none=True)
        self._write(LogEvent.model_validate({"ts": datetime.now(UTC), "level": level, "event": "report", "message": message, "report": document}))

    def _write(self, event: LogEvent) -> None:
        line = event.model_dump_json(by_alias=True, exclude_none=True)
        # A log that cannot be written never decides a run. Missing pages are noticed by digest.
        with self._lock, suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()
