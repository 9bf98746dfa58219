"""One Job's run: `main()` reads the spec, runs it and writes the report. The only place that writes the termination message.

The exit code follows from the report's reason; the operator's retries follow from the exit code.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING

from dbbackup.dataplane.paths import Paths
from dbbackup.errors import ExitCode, Failure
from dbbackup.run import ENVIRONMENT, FailureReport, Report, RunSpec

if TYPE_CHECKING:
    from dbbackup.dataplane.logs import Reporter


def main() -> int:
    """The exit code of the run that the environment asks for."""
    try:
        spec = RunSpec.model_validate_json(os.environ.get(ENVIRONMENT, ""))
    except ValueError as error:
        sys.stderr.write(f"{ENVIRONMENT} does not hold a run: {error}\n")
        return ExitCode.INTERNAL
    return run(spec)


@dataclass(frozen=True, slots=True)
class Run:
    """What every kind of run is given."""

    spec: RunSpec
    paths: Paths
    reporter: Reporter
    stop: Stop
    started_at: datetime


class Stop:
    """Why the run must end early: a SIGTERM or its timeout. Set once, by a signal or a timer; whoever waits or moves data calls `check`.

    `on_stop` callbacks run at once in the thread that noticed: they end child processes and cancel queries, so that no wait outlives the run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failure: Failure | None = None
        self._callbacks: list[Callable[[], None]] = []

    def set(self, failure: Failure) -> None:
        with self._lock:
            if self._failure:
                return
            self._failure = failure
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def check(self) -> None:
        if self._failure:
            raise self._failure

    @property
    def failure(self) -> Failure | None:
        return self._failure

    def on_stop(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if not self._failure:
                self._callbacks.append(callback)
                return
        callback()


def run(spec: RunSpec, paths: Paths | None = None, reporter: Reporter | None = None) -> int:
    """Runs `spec` and writes its report; returns the exit code. Never raises."""
    raise NotImplementedError
