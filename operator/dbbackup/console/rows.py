"""The fields of an object that lists show, and no more: 10,000 objects are kept in memory. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from sys import intern
from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from dbbackup.api import conditions
from dbbackup.api.conditions import instant
from dbbackup.api.metadata import PIN, REQUESTED_BY, SCHEDULE, SUSPEND
from dbbackup.api.objects import Raw, annotation
from dbbackup.api.specs import SpecError, parse_storage
from dbbackup.text import cut

Tone = Literal["good", "busy", "warn", "bad", "off", "pin"]

SOON = timedelta(days=2)
"""How long before its expiry a backup has the badge Expiring."""
TEXT_LIMIT = 300
"""Characters of a message that are kept."""


@dataclass(frozen=True, slots=True)
class Badge:
    """A mark in lists; `text` is also what the filter `state` compares."""

    text: str
    tone: Tone
    title: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """The fields of every kind. `reason` and `message` are from the failure or the Ready
    condition."""

    __pydantic_config__ = ConfigDict(alias_generator=to_camel)  # the API's names

    kind: str
    namespace: str
    name: str
    uid: str
    created: datetime
    phase: str
    reason: str
    message: str
    database: str

    @property
    def active(self) -> bool:
        """Whether it will change soon by itself."""
        return self.phase in ("", "Pending", "Running", "Deleting")


@dataclass(frozen=True, slots=True)
class BackupRow(Row):
    size: str
    size_bytes: int
    duration: str
    expires: str
    expiration: datetime | None
    pinned: bool
    storage: str
    format: str
    percent: int | None
    schedule: str
    requested_by: str
    secret: str


@dataclass(frozen=True, slots=True)
class RestoreRow(Row):
    source: str
    rows: int | None
    duration: str
    percent: int | None
    requested_by: str


@dataclass(frozen=True, slots=True)
class ScheduleRow(Row):
    schedule: str
    zone: str
    suspended: bool
    suspended_by_spec: bool
    last_success: datetime | None
    next_run: datetime | None
    failures: int
    missed: int
    active_runs: int
    good: int
    held: str

    @property
    def active(self) -> bool:
        return self.active_runs > 0


@dataclass(frozen=True, slots=True)
class StorageRow(Row):
    bucket: str
    endpoint: str
    prefix: str
    used: int | None
    capacity: int | None
    artifacts: int | None
    orphans: int
    checked: datetime | None

    @property
    def active(self) -> bool:
        return self.phase == "Checking"


AnyRow = BackupRow | RestoreRow | ScheduleRow | StorageRow


def _text(value: Any, limit: int = TEXT_LIMIT) -> str:
    return "" if value is None else cut(str(value), limit)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def row_of(obj: Raw) -> AnyRow:
    """The row of an object from the API server; a field that is missing or has an unexpected type
    is left empty."""
    kind, meta, status, spec = obj["kind"], obj["metadata"], obj.get("status") or {}, obj.get("spec") or {}
    ready = conditions.find(status.get("conditions") or (), "Ready") or {}
    failure = status.get("failure") or {}
    phase = "Deleting" if meta.get("deletionTimestamp") else _text(status.get("phase"))
    common = {
        "kind": kind,
        "namespace": intern(meta["namespace"]),
        "name": meta["name"],
        "uid": meta["uid"],
        "created": instant(meta.get("creationTimestamp")) or datetime.fromtimestamp(0, UTC),
        "phase": intern(phase),
        "reason": intern(_text(failure.get("reason") or ready.get("reason"), 64)),
        "message": _text(failure.get("message") or ("" if phase == "Completed" else ready.get("message"))),
        "database": intern(_text((status.get("database") or {}).get("name") or (spec.get("database") or {}).get("name"))),
    }
    return _ROW_OF[kind](obj, meta, spec, status, common)


def _percent(status: Raw) -> int | None:
    return _whole((status.get("progress") or {}).get("percent"))


def _backup(obj: Raw, meta: Raw, spec: Raw, status: Raw, common: dict[str, Any]) -> BackupRow:
    return BackupRow(
        **common,
        size=_text(status.get("size"), 32),
        size_bytes=_whole(status.get("sizeBytes")) or 0,
        duration=_text(status.get("duration"), 32),
        expires=_text(status.get("expires"), 32),
        expiration=instant(status.get("expirationTime")),
        pinned=annotation(obj, PIN) == "true",
        storage=intern(_text((spec.get("storageRef") or {}).get("name") or "default")),
        format=intern(_text(spec.get("format") or "plain", 16)),
        percent=_percent(status),
        schedule=intern(_text((meta.get("labels") or {}).get(SCHEDULE))),
        requested_by=intern(_text(annotation(obj, REQUESTED_BY))),
        secret=intern(_text(((spec.get("database") or {}).get("secretRef") or {}).get("name"), 253)),
    )


def _restore(obj: Raw, _meta: Raw, spec: Raw, status: Raw, common: dict[str, Any]) -> RestoreRow:
    source = spec.get("source") or {}
    named = (source.get("backupRef") or {}).get("name") or (source.get("scheduleRef") or {}).get("name") or (source.get("artifact") or {}).get("key")
    return RestoreRow(
        **common,
        source=_text(status.get("source") or named),
        rows=_whole((status.get("restored") or {}).get("rows")),
        duration=_text(status.get("duration"), 32),
        percent=_percent(status),
        requested_by=_text(annotation(obj, REQUESTED_BY)),
    )


def _schedule(obj: Raw, _meta: Raw, spec: Raw, status: Raw, common: dict[str, Any]) -> ScheduleRow:
    retention = status.get("retention") or {}
    database = ((spec.get("template") or {}).get("spec") or {}).get("database") or {}
    several = spec.get("databases")
    name = "several" if several is not None else _text(database.get("name"))
    return ScheduleRow(
        **{**common, "phase": "", "database": name},
        schedule=_text(spec.get("schedule")),
        zone=_text(spec.get("timeZone") or "Etc/UTC", 64),
        suspended=bool(spec.get("suspend")) or annotation(obj, SUSPEND) == "true",  # as requested: the status follows later
        suspended_by_spec=bool(spec.get("suspend")),
        last_success=instant(status.get("lastSuccessfulTime")),
        next_run=instant(status.get("nextScheduleTime")),
        failures=_whole(status.get("consecutiveFailures")) or 0,
        missed=_whole(status.get("missedRuns")) or 0,
        active_runs=len(status.get("active") or ()),
        good=_whole(retention.get("good")) or 0,
        held=_text((retention.get("held") or {}).get("message")),
    )


def _storage(obj: Raw, _meta: Raw, spec: Raw, status: Raw, common: dict[str, Any]) -> StorageRow:
    s3, usage = spec.get("s3") or {}, status.get("usage") or {}
    ready = conditions.find(status.get("conditions") or (), "Ready") or {}
    try:
        capacity = parse_storage(obj).capacity
    except SpecError:
        capacity = None
    phase = {"True": "Ready", "False": "NotReady"}.get(str(ready.get("status")), "Checking")
    return StorageRow(
        **{**common, "phase": phase if ready.get("reason") != "Checking" else "Checking"},
        bucket=_text(s3.get("bucket"), 255),
        endpoint=_text(s3.get("endpoint")),
        prefix=_text(s3.get("prefix")),
        used=_whole(usage.get("bytes")),
        capacity=capacity,
        artifacts=_whole(usage.get("artifacts")),
        orphans=_whole(usage.get("orphans")) or 0,
        checked=instant(status.get("checkedAt")),
    )


_ROW_OF: Mapping[str, Callable[..., AnyRow]] = {
    "DatabaseBackup": _backup,
    "DatabaseRestore": _restore,
    "DatabaseBackupSchedule": _schedule,
    "BackupStorage": _storage,
}


def badges(row: AnyRow, now: datetime) -> tuple[Badge, ...]:
    """The first badge is the object's state; others add to it."""
    if isinstance(row, StorageRow):
        return ({"Ready": Badge("Ready", "good"), "NotReady": Badge("Not ready", "bad", row.message)}.get(row.phase, Badge("Checking", "busy")),)
    if isinstance(row, ScheduleRow):
        return _schedule_badges(row)
    main = _phase_badge(row)
    if not isinstance(row, BackupRow):
        return (main,)
    more = []
    if row.pinned:
        more.append(Badge("Pinned", "pin", "Kept until it is unpinned, whatever its time to live"))
    elif row.phase == "Completed" and row.expiration is not None and row.expiration <= now + SOON:
        more.append(Badge("Expiring", "warn", f"Expires {row.expires}"))
    return (main, *more)


def _phase_badge(row: BackupRow | RestoreRow) -> Badge:
    tones: dict[str, Tone] = {"Completed": "good", "Failed": "bad", "Expired": "off", "Deleting": "off", "Running": "busy"}
    if row.phase == "Running" and row.percent is not None:
        return Badge("Running", "busy", f"{row.percent} % done")
    title = row.message if row.phase != "Completed" else ""
    return Badge(row.phase or "Pending", tones.get(row.phase, "busy"), title)


def _schedule_badges(row: ScheduleRow) -> tuple[Badge, ...]:
    more = []
    if row.failures:
        more.append(Badge("Failing", "bad", f"{row.failures} failed since the last good backup"))
    if row.held:
        more.append(Badge("Prune held", "warn", row.held))
    if row.active_runs:
        more.append(Badge("Running", "busy", f"{row.active_runs} running"))
    return (Badge("Suspended", "off", "Starts no runs") if row.suspended else Badge("Active", "good"), *more)
