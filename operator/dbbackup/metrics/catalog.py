"""Every metric, once: name, type, help, labels. docs/monitoring.md is generated from it; tests
check that alerts and dashboards use only what is here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Type = Literal["gauge", "counter", "histogram"]

GROUP = ("namespace", "schedule", "database")
"""Backups of one database by one schedule; `schedule` is empty for those that were made by hand,
`database` is the identity host:port/name."""


@dataclass(frozen=True, slots=True)
class Metric:
    """`objects`: computed from the objects at each scrape; otherwise counted by this process, from
    0 at its start."""

    name: str
    type: Type
    help: str
    labels: tuple[str, ...] = ()
    objects: bool = True
    buckets: tuple[float, ...] = ()


ALL: dict[str, Metric] = {}


def _metric(name: str, kind: Type, text: str, *labels: str, objects: bool = True, buckets: tuple[float, ...] = ()) -> Metric:
    ALL[name] = found = Metric(name, kind, text, labels, objects, buckets)
    return found


# Backups of one database by one schedule

LAST_SUCCESS = _metric(
    "dbbackup_last_success_timestamp_seconds",
    "gauge",
    "When the newest good backup was completed. Absent if there is none.",
    *GROUP,
)
EXPECTED_SINCE = _metric(
    "dbbackup_expected_since_timestamp_seconds",
    "gauge",
    "Since when good backups should exist: when the schedule was created, or its first backup of that database, if that came later and is still"
    " known. For schedules only; before the first backup `database` is empty.",
    *GROUP,
)
LAST_SIZE = _metric("dbbackup_last_backup_size_bytes", "gauge", "Size of the newest good backup as it is stored.", *GROUP)
LAST_DURATION = _metric("dbbackup_last_backup_duration_seconds", "gauge", "How long the newest good backup took.", *GROUP)
TYPICAL_SIZE = _metric(
    "dbbackup_typical_backup_size_bytes",
    "gauge",
    "Median size of the good backups before the newest, ten at most. Absent if there is none.",
    *GROUP,
)
TYPICAL_DURATION = _metric(
    "dbbackup_typical_backup_duration_seconds",
    "gauge",
    "Median time that the good backups before the newest took, ten at most. Absent if there is none.",
    *GROUP,
)
HISTORY = _metric("dbbackup_history_backups", "gauge", "Good backups before the newest, ten at most: the medians are taken from them.", *GROUP)
RUNNING_SINCE = _metric(
    "dbbackup_backup_running_since_timestamp_seconds", "gauge", "When the backup that runs now was started. Absent while none runs.", *GROUP
)

# Databases that a schedule backs up

UNPROTECTED_SINCE = _metric(
    "dbbackup_unprotected_since_timestamp_seconds",
    "gauge",
    "What the database has committed since then is in no good backup: when its newest good backup began, whatever created it;"
    " without a good backup, since when one should exist. Only for databases that a schedule backs up.",
    "namespace",
    "database",
)
RPO = _metric(
    "dbbackup_rpo_seconds",
    "gauge",
    "What annotation `dbbackup.io/rpo` of the database's schedules allows, the shortest of several; +Inf for `never`. Absent if it is not set.",
    "namespace",
    "database",
)

# Backups and restores as objects

BACKUPS = _metric("dbbackup_backups", "gauge", "DatabaseBackup objects.", "namespace", "phase")
RESTORES = _metric("dbbackup_restores", "gauge", "DatabaseRestore objects.", "namespace", "phase")
FAILED_BACKUPS = _metric(
    "dbbackup_failed_backups",
    "gauge",
    "DatabaseBackup objects whose phase is Failed, by reason. A schedule keeps only so many (`failedHistoryLimit`).",
    "namespace",
    "schedule",
    "reason",
)
FAILED_RESTORES = _metric("dbbackup_failed_restores", "gauge", "DatabaseRestore objects whose phase is Failed, by reason.", "namespace", "reason")
RESTORE_FAILURE = _metric(
    "dbbackup_last_restore_failure_timestamp_seconds", "gauge", "When the newest failed restore ended, and why.", "namespace", "reason"
)
RESTORE_SUCCESS = _metric("dbbackup_last_restore_success_timestamp_seconds", "gauge", "When the newest good restore was completed.", "namespace")
RESTORE_DURATION = _metric("dbbackup_last_restore_duration_seconds", "gauge", "How long the newest good restore took.", "namespace")

# Schedules

SCHEDULE = ("namespace", "schedule")
NEXT_RUN = _metric(
    "dbbackup_schedule_next_run_timestamp_seconds",
    "gauge",
    "When the next run starts, jitter included; in the past where one that is due waits. Absent while suspended.",
    *SCHEDULE,
)
LAST_RUN = _metric("dbbackup_schedule_last_run_timestamp_seconds", "gauge", "Due time of the run that was started last.", *SCHEDULE)
DELAY = _metric(
    "dbbackup_schedule_delay_seconds",
    "gauge",
    "How long a run has been due that is not created yet; 0 if none is due. It may wait for the previous run (`concurrencyPolicy`), for a quota, or"
    " for the operator.",
    *SCHEDULE,
)
INTERVAL = _metric(
    "dbbackup_schedule_interval_seconds", "gauge", "The longest pause between two due times, of the next eight: of a daily schedule 86400.", *SCHEDULE
)
SUSPENDED = _metric("dbbackup_schedule_suspended", "gauge", "1 while the schedule is suspended, by its spec or by annotation, else 0.", *SCHEDULE)
STALLED = _metric("dbbackup_schedule_stalled", "gauge", "1 where the schedule's spec cannot be used, else 0.", *SCHEDULE)
CONSECUTIVE = _metric("dbbackup_schedule_consecutive_failures", "gauge", "Runs that failed one after the other up to now.", *SCHEDULE)
MISSED = _metric(
    "dbbackup_schedule_missed_runs_total",
    "counter",
    "Due times without a run of their own since the schedule was created, from its status.",
    *SCHEDULE,
)

# Storages

STORAGE = ("namespace", "storage")
STORAGE_READY = _metric(
    "dbbackup_storage_ready", "gauge", "1 where the last check could write, read and delete an object in the storage, else 0.", *STORAGE
)
STORAGE_CHECKED = _metric(
    "dbbackup_storage_inventory_timestamp_seconds", "gauge", "When the bucket was last checked and listed with success. Absent: never.", *STORAGE
)
STORAGE_FAILURES = _metric("dbbackup_storage_check_failures", "gauge", "How often in a row the storage could not be used.", *STORAGE)
STORAGE_USED = _metric("dbbackup_storage_used_bytes", "gauge", "Bytes stored there, as the last inventory found them.", *STORAGE)
STORAGE_CAPACITY = _metric("dbbackup_storage_capacity_bytes", "gauge", "`spec.capacity`. Absent if it is not set.", *STORAGE)
STORAGE_NEAR = _metric("dbbackup_storage_near_capacity", "gauge", "1 while the condition NearCapacity is True, else 0.", *STORAGE)
STORAGE_ARTIFACTS = _metric("dbbackup_storage_artifacts", "gauge", "Artifacts there, as the last inventory found them.", *STORAGE)
STORAGE_ORPHANS = _metric("dbbackup_storage_orphans", "gauge", "Artifacts there without a DatabaseBackup.", *STORAGE)
STORAGE_DEBRIS = _metric(
    "dbbackup_storage_debris", "gauge", "Leftovers of broken runs: directories without a manifest, and unfinished uploads.", *STORAGE
)

# The operator

OBJECTS = _metric("dbbackup_objects", "gauge", "Objects that the operator knows, by kind.", "kind")
DROPPED = _metric(
    "dbbackup_metrics_dropped_series",
    "gauge",
    "Series that a metric does not show because there are more than the chart's `metrics.maxSeries`.",
    "metric",
)
BUILD = _metric("dbbackup_build_info", "gauge", "1; the operator's version.", "version", objects=False)
READY = _metric(
    "dbbackup_operator_ready",
    "gauge",
    "1 where the first list is done and every watch has delivered its objects, else 0: the same as /readyz.",
    objects=False,
)
WATCH_SYNCED = _metric(
    "dbbackup_operator_watch_synced", "gauge", "1 once the watch of that kind has delivered an object, else 0.", "kind", objects=False
)
RUNS = ("namespace", "outcome")
BACKUPS_FINISHED = _metric(
    "dbbackup_backups_finished_total", "counter", "Backups that ended while this process watched; outcome Completed or Failed.", *RUNS, objects=False
)
RESTORES_FINISHED = _metric(
    "dbbackup_restores_finished_total",
    "counter",
    "Restores that ended while this process watched; outcome Completed or Failed.",
    *RUNS,
    objects=False,
)
FAILURES = _metric(
    "dbbackup_failures_total", "counter", "Backups and restores that failed while this process watched, by reason.", "kind", "reason", objects=False
)
QUEUE_DEPTH = _metric("dbbackup_queue_depth", "gauge", "Objects that wait for a worker.", objects=False)
QUEUE_OLDEST = _metric("dbbackup_queue_oldest_seconds", "gauge", "How long the first of them has waited; 0 if none waits.", objects=False)
QUEUE_BUSY = _metric(
    "dbbackup_queue_longest_running_seconds",
    "gauge",
    "How long the reconciliation that has run longest has been going on; 0 if none runs.",
    objects=False,
)
QUEUE_FAILING = _metric("dbbackup_queue_failing", "gauge", "Objects whose last reconciliation failed, and which are tried again.", objects=False)
SECONDS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
WORK_DURATION = _metric(
    "dbbackup_reconcile_duration_seconds", "histogram", "How long a reconciliation takes.", "kind", objects=False, buckets=SECONDS
)
WORK_ERRORS = _metric("dbbackup_reconcile_errors_total", "counter", "Reconciliations that failed and are tried again.", "kind", objects=False)
API_DURATION = _metric(
    "dbbackup_api_request_duration_seconds", "histogram", "How long the API server takes to answer.", "verb", objects=False, buckets=SECONDS
)
API_REQUESTS = _metric(
    "dbbackup_api_requests_total",
    "counter",
    "Requests to the API server, without those of the watches; code 0: it could not be reached.",
    "verb",
    "resource",
    "code",
    objects=False,
)
SCRAPE = _metric("dbbackup_scrape_duration_seconds", "gauge", "How long it took to produce the previous scrape.", objects=False)
