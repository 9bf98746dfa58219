"""Retries for a time, not for a number of attempts: a server that restarts is away for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from dbbackup.contract.errors import Failure
from dbbackup.storage.faults import Fault, explain

PATIENCE = 75.0
"""Seconds for which a server that has answered before may be unreachable."""
FIRST_PATIENCE = 15.0
"""Seconds in which a server must answer for the first time: a mistyped endpoint fails soon."""

T = TypeVar("T")


class StoppedError(Exception):
    """The caller's `stopped` was set before an attempt succeeded."""


class Retries:
    """The retries of one client: its requests share what one of them learns about an unreachable
    server. Thread-safe. `where` names bucket and endpoint."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._reached = False
        self._down_since: float | None = None
        self._lock = threading.Lock()

    def attempt(
        self,
        action: str,
        call: Callable[[], T],
        *,
        accept: Callable[[Fault, int], T | None] | None = None,
        stopped: threading.Event | None = None,
    ) -> T:
        """`call()`, repeated after transient faults, for at most PATIENCE seconds without an
        answer. `accept` may turn a fault into a result. It gets the number of attempts that failed
        before: after a lost reply the next attempt fails because the first one took effect."""
        started, delay, tries = time.monotonic(), 0.1, 0
        while True:
            if stopped is not None and stopped.is_set():
                raise StoppedError
            began = time.monotonic()
            try:
                result = call()
            except Failure:
                raise
            except Exception as error:  # noqa: BLE001 - `explain` knows them all
                fault = explain(error, action, self._where)
                give_up = self._give_up(began, started) if fault.transient else self._answered()
                if accept is not None and (accepted := accept(fault, tries)) is not None:
                    return accepted
                if give_up:
                    raise fault.failure from None
            else:
                self._answered()
                return result
            tries += 1
            if stopped is None:
                time.sleep(delay)
            else:
                stopped.wait(delay)
            delay = min(delay * 2, 5.0)

    def _answered(self) -> bool:
        with self._lock:
            self._reached, self._down_since = True, None
        return True

    def _give_up(self, began: float, started: float) -> bool:
        with self._lock:
            if self._down_since is None:
                self._down_since = began
            since = min(self._down_since, started)
        return time.monotonic() - since > (PATIENCE if self._reached else FIRST_PATIENCE)
