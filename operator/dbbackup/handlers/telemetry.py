"""What /metrics is made from, in the operator: the cache, and how queue and watches are when
somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from dbbackup.handlers.cache import Cache, Key
from dbbackup.handlers.queue import Queue
from dbbackup.handlers.watch import WATCHED, Watch
from dbbackup.metrics.page import MetricsPage
from dbbackup.metrics.process import ProcessMetrics


class Telemetry:
    """`limit`: series of one metric at most."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.process = ProcessMetrics(limit)

    def worked(self, key: Key, seconds: float, failed: bool) -> None:
        """The queue is done with a piece of work."""
        self.process.worked(key.kind, seconds, failed)

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
