"""What a scrape of /metrics costs beside many finished backups, and how long it keeps the
operator's event loop from everything else."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tests.bench import finished
from tests.bench.output import Output, save

from dbbackup.handlers.cache import Cache, Key
from dbbackup.metrics.page import MetricsPage
from dbbackup.metrics.process import ProcessMetrics

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TARGET = 100
"""Milliseconds of a scrape after the first."""
DATABASES = (200, 2000)
TIMES = 7
LIMIT = 10_000
TICK = 0.0005


@dataclass(frozen=True, slots=True)
class Scrape:
    """Seconds: on the clock, of CPU, and the longest pause between two turns of the event loop."""

    wall: float
    cpu: float
    stall: float
    size: int


def scrapes(output: Output, count: int) -> bool:
    """Whether a scrape beside `count` backups keeps within the target; 200 databases are what it is
    set for."""
    rows, results, slowest = [], {}, 0.0
    for databases in DATABASES:
        first, *later = asyncio.run(_scrape(_world(count, databases)))
        wall, cpu, stall = (min(getattr(found, name) for found in later) for name in ("wall", "cpu", "stall"))
        usual = Scrape(wall, cpu, stall, later[-1].size)
        slowest = slowest or usual.wall
        results[databases] = {"first": first.wall, "wall": usual.wall, "cpu": usual.cpu, "stall": usual.stall, "bytes": usual.size}
        figures = (first.wall, first.stall, usual.wall, usual.cpu, usual.stall)
        rows.append((f"{databases} databases", *(f"{1000 * seconds:.0f}" for seconds in figures), f"{usual.size / 1e6:.1f}"))
    columns = ("", "first scrape", "longest pause in it", f"later ones, least of {TIMES - 1}", "of it CPU", "longest pause", "MB")
    output.grid(f"A scrape beside {count} finished backups, milliseconds", columns, rows)
    save("scrape", {"backups": count, "databases": results})
    return output.verdict(f"scrape beside {count} backups of {DATABASES[0]} databases", 1000 * slowest, TARGET, unit=" ms")


def _world(count: int, databases: int) -> Cache:
    storage = {"metadata": {"name": "default", "namespace": "bench", "uid": "1"}, "spec": {"s3": {"bucket": "backups"}}}
    cache = Cache()
    for obj in finished.stored(finished.effects(storage, range(count), databases, NOW, timedelta(days=1))):
        cache.put(obj)
    spec = {"schedule": "0 12 * * *", "template": {"spec": {"database": {"secretRef": {"name": "db"}}}}}
    moment = NOW.isoformat()
    for number in range(databases):
        made = finished.schedule(number, "bench", spec)
        made["metadata"] |= {"uid": f"schedule {number}", "resourceVersion": "1", "creationTimestamp": moment}
        made["status"] = {"consideredUntil": moment, "effectiveSchedule": "0 12 * * * (Etc/UTC)"}
        cache.put(made)
    return cache


async def _scrape(cache: Cache) -> list[Scrape]:
    page: MetricsPage[Key] = MetricsPage(ProcessMetrics(LIMIT), LIMIT, cache.all_keys, cache.get, lambda: NOW, lambda: True)
    found = []
    for _ in range(TIMES):
        stalls = [0.0]
        ticker = asyncio.create_task(_ticks(stalls))
        await asyncio.sleep(10 * TICK)
        stalls.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        text = await page()
        found.append(Scrape(time.perf_counter() - wall, time.process_time() - cpu, max(stalls, default=0.0), len(text)))
        ticker.cancel()
    return found


async def _ticks(stalls: list[float]) -> None:
    """What every other task of the loop sees: how much later than asked it has its turn."""
    while True:
        last = time.perf_counter()
        await asyncio.sleep(TICK)
        stalls.append(time.perf_counter() - last - TICK)
