"""The page that /metrics answers with, in Prometheus' text format."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import datetime
from typing import Generic, TypeVar

from prometheus_client import disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

from dbbackup.api.objects import Raw
from dbbackup.metrics import catalog, families
from dbbackup.metrics.process import ProcessMetrics
from dbbackup.metrics.records import Record, record

__all__ = ["CONTENT_TYPE", "MetricsPage"]

AT_ONCE = 50
"""Objects that are read before other tasks get their turn: some milliseconds."""

Key = TypeVar("Key", bound=Hashable)

disable_created_metrics()  # type: ignore[no-untyped-call]


def text(series: Mapping[str, families.Series]) -> bytes:
    """Series in the text format. prometheus-client's own writer takes ten times as long, which
    matters with thousands of databases."""
    lines: list[str] = []
    for name, rows in series.items():
        metric = catalog.ALL[name]
        lines.append(f"# HELP {name} {_escape(metric.help)}\n# TYPE {name} {metric.type}\n")
        places = ",".join(f'{label}="%s"' for label in metric.labels)
        form = f"{name}{{{places}}} %s\n"
        lines += [form % (*map(_quote, labels), _number(value)) for labels, value in rows.items()]
    return "".join(lines).encode()


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n")


def _quote(value: str) -> str:
    return _escape(value).replace('"', r"\"")


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else repr(float(value))


class MetricsPage(Generic[Key]):
    """`keys()` lists the objects that are known now; `get(key)` returns one, or None if it is gone.
    `refresh()` brings the gauges of `process` up to date and returns whether all objects are known.
    """

    def __init__(
        self,
        process: ProcessMetrics,
        limit: int,
        keys: Callable[[], Sequence[Key]],
        get: Callable[[Key], Raw | None],
        now: Callable[[], datetime],
        refresh: Callable[[], bool],
    ) -> None:
        self._process = process
        self._limit = limit
        self._keys, self._get, self._now, self._refresh = keys, get, now, refresh
        self._read: dict[Key, tuple[Raw, Record]] = {}
        self._lock = asyncio.Lock()

    async def __call__(self) -> bytes:
        """The whole page. It leaves out the metrics of objects until all objects are known: half of
        them would look like a loss."""
        async with self._lock:
            started = time.monotonic()
            whole = self._refresh()
            records = await self._records() if whole else []
            self._process.namespaces(sorted({found.namespace for found in records}))
            page = await asyncio.to_thread(self._write, records if whole else None, self._now().timestamp())
            self._process.scrape.set(time.monotonic() - started)
            return page

    async def _records(self) -> list[Record]:
        """Reads the objects that have changed since the last time, some at a time, so that the
        queue goes on meanwhile."""
        before, after = self._read, dict[Key, tuple[Raw, Record]]()
        for number, key in enumerate(self._keys(), 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            obj = self._get(key)
            if obj is None:
                continue
            known = before.get(key)
            after[key] = known if known is not None and known[0] is obj else (obj, record(obj))
        self._read = after
        return [found for _, found in after.values()]

    def _write(self, records: list[Record] | None, now: float) -> bytes:
        page = generate_latest(self._process.registry)
        if records is None:
            return page
        return page + text(families.collect(records, now, self._limit))
