"""Metrics of the operator: counts what happens as an observer, and reads cache, queue and watches
when /metrics is asked for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from dbbackup.api.objects import Raw
from dbbackup.handlers.cache import Cache, Key
from dbbackup.handlers.observers import Observer
from dbbackup.handlers.queue import Queue
from dbbackup.handlers.watch import WATCHED, Watch
from dbbackup.metrics.page import MetricsPage
from dbbackup.metrics.process import ProcessMetrics


class Telemetry(Observer):
    """`limit`: most series of one metric."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.process = ProcessMetrics(limit)

    def status_written(self, before: Raw, after: Raw) -> None:
        self.process.phase_changed(after, (before.get("status") or {}).get("phase"), after["status"])

    def reconciled(self, key: Key, seconds: float, failed: bool) -> None:
        self.process.reconciled(key.kind, seconds, failed)

    def answered(self, verb: str, resource: str, code: int, seconds: float) -> None:
        self.process.answered(verb, resource, code, seconds)

    def page(
        self, cache: Cache, queue: Queue[Key], watch: Watch, now: Callable[[], datetime], ready: Callable[[], str | None], whole: Callable[[], bool]
    ) -> MetricsPage[Key]:
        """`whole`: whether the first list is done."""
        process = self.process

        def refresh() -> bool:
            depth, oldest = queue.waiting
            process.depth.set(depth)
            process.oldest.set(oldest)
            process.busy.set(queue.longest)
            process.failing.set(queue.failing)
            process.ready.set(ready() is None)
            for kind in WATCHED:
                process.watch_synced.labels(kind).set(kind in watch.synced)
            return whole()

        return MetricsPage(process, self._limit, cache.all_keys, cache.get, now, refresh)
