"""What every kind of run gets, what it finds, and how it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dbbackup.contract.errors import Failure
from dbbackup.contract.report import ArtifactReport, DatabaseReport, Finding, InventoryReport, PagesReport, RestoredReport, SafetyBackupReport
from dbbackup.contract.run import RunSpec
from dbbackup.dataplane.paths import Paths

if TYPE_CHECKING:
    from dbbackup.dataplane.logs import Reporter


class Stop:
    """Why the run must end early: SIGTERM or its timeout. It is set at most once, from any thread.
    Everything that waits or moves data asks it.

    Callbacks run at once in the thread that sets it: they end child processes and cancel queries,
    so that no wait outlives the run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self.failure: Failure | None = None
        self.since: float | None = None
        """time.monotonic() of when it was set."""

    def set(self, failure: Failure) -> None:
        with self._lock:
            if self.failure:
                return
            self.failure = failure
            self.since = time.monotonic()
            callbacks = list(self._callbacks)
        self._event.set()
        for callback in callbacks:
            with suppress(Exception):  # each must be called, whatever the others do
                callback()

    def check(self) -> None:
        if self.failure:
            raise self.failure

    def wait(self, seconds: float) -> None:
        """Sleeps, but not past the end of the run: raises its failure then."""
        self._event.wait(seconds)
        self.check()

    def on_stop(self, callback: Callable[[], None]) -> None:
        """`callback` is called if the run must stop, at once if it must already. It must not
        raise."""
        with self._lock:
            if not self.failure:
                self._callbacks.append(callback)
                return
        callback()

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """`on_stop` for the length of a block."""
        self.on_stop(callback)
        try:
            yield
        finally:
            with self._lock, suppress(ValueError):
                self._callbacks.remove(callback)


@dataclass(slots=True)
class Facts:
    """What the run has found or made, as its report says it, whatever the outcome."""

    artifact: ArtifactReport | None = None
    database: DatabaseReport | None = None
    restored: RestoredReport | None = None
    safety_backup: SafetyBackupReport | None = None
    inventory: InventoryReport | None = None
    pages: PagesReport | None = None
    bytes_read: int | None = None
    finding: Finding | None = None


@dataclass(slots=True)
class Run:
    """One Job's run: its spec, its surroundings, and what its report will say.

    `committing` is true while a COMMIT, or the write of a backup's manifest, is under way whose end
    is not known. If the process must end then, it leaves no report, and a check Job settles it.

    `uncleared` names what the run has made and not removed again. Where the run fails with
    something left, a check Job clears up.
    """

    spec: RunSpec
    paths: Paths
    reporter: Reporter
    stop: Stop
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    facts: Facts = field(default_factory=Facts)
    warnings: list[str] = field(default_factory=list)
    committing: bool = False
    uncleared: set[str] = field(default_factory=set)

    def warn(self, message: str) -> None:
        """Once, however often it is said: what is tried again warns again."""
        if message not in self.warnings:
            self.warnings.append(message)
            self.reporter.warn(message)
