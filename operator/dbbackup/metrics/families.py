"""Records -> series. The same records give the same series in every process, before and after a
restart."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from dbbackup.metrics import catalog
from dbbackup.metrics.catalog import Metric
from dbbackup.metrics.records import BackupRecord, Record, RestoreRecord, ScheduleRecord, StorageRecord

HISTORY = 10
"""Good backups before the newest that a median is made from."""

Labels = tuple[str, ...]
Series = Mapping[Labels, float]
Groups = Mapping[tuple[str, str, str], "_Group"]
Schedules = Mapping[tuple[str, str], ScheduleRecord]


class Table:
    """Series of all metrics computed from objects, in the order in which they are put in."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[Labels, float]] = {metric.name: {} for metric in catalog.ALL.values() if metric.objects}

    def put(self, metric: Metric, labels: Labels, value: float | None) -> None:
        if value is not None:
            self._rows[metric.name][labels] = value

    def cut(self, limit: int) -> Mapping[str, Series]:
        """The first `limit` series of each metric, and a metric that counts those left out."""
        dropped = {name: len(rows) - limit for name, rows in self._rows.items() if len(rows) > limit}
        for name, count in dropped.items():
            self.put(catalog.DROPPED, (name,), count)
            self._rows[name] = dict(list(self._rows[name].items())[:limit])
        return self._rows


def collect(records: Iterable[Record], now: float, limit: int) -> Mapping[str, Series]:
    """Name of each metric computed from objects -> its series, at most `limit` of each: backups of
    schedules come before those created by hand."""
    backups: list[BackupRecord] = []
    restores: list[RestoreRecord] = []
    schedules: list[ScheduleRecord] = []
    storages: list[StorageRecord] = []
    for record in records:
        match record:
            case BackupRecord():
                backups.append(record)
            case RestoreRecord():
                restores.append(record)
            case ScheduleRecord():
                schedules.append(record)
            case StorageRecord():
                storages.append(record)
    table = Table()
    schedules.sort(key=lambda found: (found.namespace, found.name))
    _backups(table, backups, schedules)
    _restores(table, restores)
    for schedule in schedules:
        _schedule(table, schedule, now)
    for storage in sorted(storages, key=lambda found: (found.namespace, found.name)):
        _storage(table, storage)
    counts: dict[str, Sequence[Record]] = {
        "DatabaseBackup": backups,
        "DatabaseRestore": restores,
        "DatabaseBackupSchedule": schedules,
        "BackupStorage": storages,
    }
    for kind, found in counts.items():
        table.put(catalog.OBJECTS, (kind,), len(found))
    return table.cut(limit)


# Backups


@dataclass(slots=True)
class _Group:
    """Backups of one database by one schedule, the oldest first."""

    backups: list[BackupRecord]
    good: list[BackupRecord]

    @property
    def newest(self) -> BackupRecord | None:
        return self.good[-1] if self.good else None


def _backups(table: Table, backups: list[BackupRecord], schedules: Sequence[ScheduleRecord]) -> None:
    backups.sort(key=lambda found: found.run)
    groups = _groups(backups)
    made_by = {(schedule.namespace, schedule.name): schedule for schedule in schedules}
    since = _current_since(groups, made_by)
    # Leftovers of a deleted schedule would be reported forever.
    current = {key: group for key, group in groups.items() if not key[1] or group.backups[-1].run >= since.get((key[0], key[1]), math.inf)}
    for key in sorted(current, key=lambda found: (not found[1], found)):
        _group(table, key, current[key])
    _expected(table, current, made_by)
    _protection(table, groups, current, made_by)
    for (namespace, phase), count in sorted(Counter((found.namespace, found.phase) for found in backups).items()):
        table.put(catalog.BACKUPS, (namespace, phase), count)
    failed = Counter((found.namespace, found.schedule, found.reason) for found in backups if found.phase == "Failed")
    for labels, count in sorted(failed.items()):
        table.put(catalog.FAILED_BACKUPS, labels, count)


def _groups(backups: Sequence[BackupRecord]) -> dict[tuple[str, str, str], _Group]:
    """Backups by namespace, schedule and database. A backup that failed before it knew its database
    counts for the one that its schedule found last under that name."""
    known = {(found.namespace, found.schedule, found.target): found.identity for found in backups if found.identity and found.schedule}
    groups: dict[tuple[str, str, str], _Group] = {}
    for found in backups:
        identity = found.identity or known.get((found.namespace, found.schedule, found.target)) or found.target
        group = groups.setdefault((found.namespace, found.schedule, identity), _Group([], []))
        group.backups.append(found)
        if found.good:
            group.good.append(found)
    return groups


def _current_since(groups: Groups, made_by: Schedules) -> dict[tuple[str, str], float]:
    """Schedule -> time of its newest run, or of the one before while not all backups of the newest
    exist. A database that is in no run since then is no longer backed up by the schedule: the age
    of its last success would only grow."""
    runs: dict[tuple[str, str], set[float]] = defaultdict(set)
    for (namespace, name, _), group in groups.items():
        if (namespace, name) in made_by:
            runs[namespace, name].update(found.run for found in group.backups)
    found = {}
    for key, times in runs.items():
        newest = max(times)
        considered = made_by[key].considered
        whole = considered is not None and considered >= newest
        found[key] = newest if whole else max((time for time in times if time < newest), default=newest)
    return found


def _group(table: Table, key: Labels, group: _Group) -> None:
    running = [found.started for found in group.backups if found.phase == "Running" and found.started is not None]
    table.put(catalog.RUNNING_SINCE, key, min(running, default=None))
    newest = group.newest
    if newest is None:
        return
    before = group.good[-1 - HISTORY : -1]
    table.put(catalog.LAST_SUCCESS, key, newest.completed)
    table.put(catalog.LAST_SIZE, key, newest.size)
    table.put(catalog.LAST_DURATION, key, newest.duration)
    table.put(catalog.HISTORY, key, len(before))
    table.put(catalog.TYPICAL_SIZE, key, _median(found.size for found in before))
    table.put(catalog.TYPICAL_DURATION, key, _median(found.duration for found in before))


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _expected(table: Table, current: Groups, made_by: Schedules) -> None:
    has_backups = set()
    for key in sorted(current):
        schedule = made_by.get((key[0], key[1]))
        if schedule is not None:
            has_backups.add((key[0], key[1]))
            table.put(catalog.EXPECTED_SINCE, key, _since(schedule, current[key]))
    for name, schedule in made_by.items():
        if name not in has_backups:
            table.put(catalog.EXPECTED_SINCE, (*name, ""), schedule.created)


def _since(schedule: ScheduleRecord, group: _Group) -> float:
    """Since when good backups of the group should exist: from its first backup on, unless failed
    ones before it may have been removed already."""
    failed = sum(found.phase == "Failed" for found in group.backups)
    return schedule.created if failed >= schedule.failed_limit else max(schedule.created, group.backups[0].run)


def _protection(table: Table, groups: Groups, current: Groups, made_by: Schedules) -> None:
    """For databases that a schedule backs up; a good backup counts whatever created it."""
    recovery: dict[tuple[str, str], float] = {}
    for (namespace, _, database), group in groups.items():
        if group.newest is not None:
            began = group.newest.started or group.newest.completed or group.newest.run
            recovery[namespace, database] = max(recovery.get((namespace, database), 0.0), began)
    expected: dict[tuple[str, str], float] = {}
    allowed: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (namespace, name, database), group in current.items():
        schedule = made_by.get((namespace, name))
        if schedule is None:
            continue
        expected[namespace, database] = min(expected.get((namespace, database), math.inf), _since(schedule, group))
        if schedule.rpo is not None:
            allowed[namespace, database].append(schedule.rpo)
    for key in sorted(expected):
        table.put(catalog.UNPROTECTED_SINCE, key, recovery.get(key, expected[key]))
        table.put(catalog.RPO, key, min(allowed[key]) if key in allowed else None)


# Restores, schedules, storages


def _restores(table: Table, restores: Sequence[RestoreRecord]) -> None:
    for labels, count in sorted(Counter((found.namespace, found.phase) for found in restores).items()):
        table.put(catalog.RESTORES, labels, count)
    failed = [found for found in restores if found.phase == "Failed"]
    for labels, count in sorted(Counter((found.namespace, found.reason) for found in failed).items()):
        table.put(catalog.FAILED_RESTORES, labels, count)
    for namespace, newest in _newest(failed):
        table.put(catalog.RESTORE_FAILURE, (namespace, newest.reason), newest.completed)
    for namespace, newest in _newest(found for found in restores if found.phase == "Completed"):
        table.put(catalog.RESTORE_SUCCESS, (namespace,), newest.completed)
        if newest.started is not None and newest.completed is not None:
            table.put(catalog.RESTORE_DURATION, (namespace,), max(newest.completed - newest.started, 0.0))


def _newest(restores: Iterable[RestoreRecord]) -> Iterator[tuple[str, RestoreRecord]]:
    """For each namespace, the restore that ended last."""
    found: dict[str, RestoreRecord] = {}
    for restore in restores:
        if restore.completed is not None and (restore.namespace not in found or restore.completed > (found[restore.namespace].completed or 0.0)):
            found[restore.namespace] = restore
    yield from sorted(found.items(), key=lambda item: item[0])


def _schedule(table: Table, schedule: ScheduleRecord, now: float) -> None:
    key = (schedule.namespace, schedule.name)
    table.put(catalog.NEXT_RUN, key, schedule.due)
    table.put(catalog.LAST_RUN, key, schedule.last_run)
    table.put(catalog.DELAY, key, 0.0 if schedule.due is None else max(now - schedule.due, 0.0))
    table.put(catalog.INTERVAL, key, schedule.interval)
    table.put(catalog.SUSPENDED, key, schedule.suspended)
    table.put(catalog.STALLED, key, schedule.stalled)
    table.put(catalog.CONSECUTIVE, key, schedule.consecutive)
    table.put(catalog.MISSED, key, schedule.missed)


_STORAGE_METRICS: tuple[tuple[Metric, Callable[[StorageRecord], float | None]], ...] = (
    (catalog.STORAGE_READY, lambda found: found.ready),
    (catalog.STORAGE_CHECKED, lambda found: found.checked),
    (catalog.STORAGE_FAILURES, lambda found: found.failures),
    (catalog.STORAGE_USED, lambda found: found.usage.get("bytes")),
    (catalog.STORAGE_CAPACITY, lambda found: found.capacity),
    (catalog.STORAGE_NEAR, lambda found: found.near_capacity),
    (catalog.STORAGE_ARTIFACTS, lambda found: found.usage.get("artifacts")),
    (catalog.STORAGE_ORPHANS, lambda found: found.usage.get("orphans")),
    (catalog.STORAGE_DEBRIS, lambda found: found.usage["debris"] + found.usage.get("uploads", 0) if "debris" in found.usage else None),
)


def _storage(table: Table, storage: StorageRecord) -> None:
    for metric, value in _STORAGE_METRICS:
        table.put(metric, (storage.namespace, storage.name), value(storage))
