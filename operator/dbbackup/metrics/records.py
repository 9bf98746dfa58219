"""Objects -> records: the few values of an object that metrics are computed from. An object is read
once for each of its versions, not at each scrape."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise

from dbbackup.api import conditions
from dbbackup.api.conditions import instant
from dbbackup.api.metadata import RPO, SCHEDULED_AT, SUSPEND
from dbbackup.api.objects import Raw, annotation, made_at, schedule_name
from dbbackup.api.specs import SpecError, parse_schedule
from dbbackup.api.units import parse_quantity, parse_ttl
from dbbackup.contract.errors import REASONS
from dbbackup.plan import cron
from dbbackup.plan.cron import Cron, CronError

PHASES = frozenset({"Pending", "Running", "Completed", "Failed", "Deleting", "Expired"})
OTHER = "Other"
"""Label value for a word that this version does not know: labels never come from free text."""
DUE_TIMES = 8
"""How many due times the longest pause is taken from: enough for a schedule of working days to show
its weekend."""
IDENTITY_LIMIT = 400


@dataclass(frozen=True, slots=True)
class BackupRecord:
    """Times are Unix seconds, here and in the other records. `run` is the due time of the
    schedule's run, else when the backup was created; `target` is the database name in its spec."""

    namespace: str
    schedule: str
    target: str
    identity: str
    phase: str
    run: float
    started: float | None
    completed: float | None
    size: int | None
    reason: str

    @property
    def good(self) -> bool:
        return self.phase == "Completed"

    @property
    def duration(self) -> float | None:
        return None if self.started is None or self.completed is None else max(self.completed - self.started, 0.0)


@dataclass(frozen=True, slots=True)
class RestoreRecord:
    namespace: str
    phase: str
    started: float | None
    completed: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class ScheduleRecord:
    """`considered`: due times up to then have been handled; `due`: the first one after it, jitter
    included. `rpo`: infinite for `never`, None if not set. `failed_limit`: how many failed backups
    of a database are kept; the newest one always is."""

    namespace: str
    name: str
    created: float
    suspended: bool
    stalled: bool
    consecutive: int
    missed: int
    last_run: float | None
    considered: float | None
    due: float | None
    interval: float | None
    rpo: float | None
    failed_limit: int


@dataclass(frozen=True, slots=True)
class StorageRecord:
    namespace: str
    name: str
    ready: bool
    near_capacity: bool
    checked: float | None
    failures: int
    capacity: int | None
    usage: Mapping[str, int]


Record = BackupRecord | RestoreRecord | ScheduleRecord | StorageRecord


def _seconds(text: object) -> float | None:
    """A Kubernetes timestamp as Unix seconds; None if it is absent or cannot be read."""
    found = instant(text)
    return found.timestamp() if found else None


def _status(obj: Raw) -> Raw:
    return obj.get("status") or {}


def _phase(obj: Raw) -> str:
    phase = str(_status(obj).get("phase") or "Pending")
    return phase if phase in PHASES else OTHER


def reason_of(status: Raw) -> str:
    """Why a run has failed: a reason in REASONS, or OTHER; empty if it has not failed."""
    reason = (status.get("failure") or {}).get("reason")
    return "" if not reason else str(reason) if reason in REASONS else OTHER


def record(obj: Raw) -> Record:
    """The record of an object of one of our kinds."""
    return _READ[obj["kind"]](obj)


def backup(obj: Raw) -> BackupRecord:
    status = _status(obj)
    schedule = schedule_name(obj) or ""
    return BackupRecord(
        namespace=obj["metadata"]["namespace"],
        schedule=schedule,
        target=str(((obj.get("spec") or {}).get("database") or {}).get("name") or ""),
        identity=str((status.get("database") or {}).get("identity") or "")[:IDENTITY_LIMIT],
        phase=_phase(obj),
        run=_run_time(obj, schedule),
        started=_seconds(status.get("startTime")),
        completed=_seconds(status.get("completionTime")),
        size=status.get("sizeBytes"),
        reason=reason_of(status),
    )


def _run_time(obj: Raw, schedule: str) -> float:
    """The same time for all databases of a schedule's run. A backup that an import has recreated
    has the due time only in its name."""
    time = _seconds(annotation(obj, SCHEDULED_AT))
    if time is None and schedule and (match := re.match(r"-(\d{8}-\d{4})(?:-|$)", obj["metadata"]["name"].removeprefix(schedule))):
        try:
            time = datetime.strptime(match[1], "%Y%m%d-%H%M").replace(tzinfo=UTC).timestamp()
        except ValueError:
            time = None
    return made_at(obj).timestamp() if time is None else time


def restore(obj: Raw) -> RestoreRecord:
    status = _status(obj)
    return RestoreRecord(
        obj["metadata"]["namespace"], _phase(obj), _seconds(status.get("startTime")), _seconds(status.get("completionTime")), reason_of(status)
    )


def schedule(obj: Raw) -> ScheduleRecord:
    metadata, status = obj["metadata"], _status(obj)
    found, failed_limit = _cron(obj), 3
    considered = _seconds(status.get("consideredUntil"))
    suspended = bool((obj.get("spec") or {}).get("suspend")) or annotation(obj, SUSPEND) == "true"
    due = interval = None
    if found is not None:
        clock, jitter, effective, failed_limit = found
        # Until the operator has seen a new schedule, nothing is due by it.
        if considered is not None and status.get("effectiveSchedule") == effective and not suspended:
            due = clock.next(datetime.fromtimestamp(considered, UTC)).timestamp() + jitter
        since = datetime.fromtimestamp(considered or _seconds(metadata["creationTimestamp"]) or 0.0, UTC)
        interval = _longest_pause(clock, since.replace(hour=0, minute=0, second=0))
    return ScheduleRecord(
        namespace=metadata["namespace"],
        name=metadata["name"],
        created=_seconds(metadata["creationTimestamp"]) or 0.0,
        suspended=suspended,
        stalled=conditions.is_true(status.get("conditions") or (), "Stalled"),
        consecutive=int(status.get("consecutiveFailures") or 0),
        missed=int(status.get("missedRuns") or 0),
        last_run=_seconds(status.get("lastScheduleTime")),
        considered=considered,
        due=due,
        interval=interval,
        rpo=_rpo(obj),
        failed_limit=max(failed_limit, 1),
    )


def _cron(obj: Raw) -> tuple[Cron, float, str, int] | None:
    """The cron expression, the jitter in seconds, the text of status.effectiveSchedule, and how
    many failed backups are kept; None if the spec cannot be used."""
    try:
        spec = parse_schedule(obj)
        clock = cron.parse(spec.schedule, spec.time_zone)
    except (SpecError, CronError):
        return None
    jitter: timedelta = cron.jitter(obj["metadata"]["namespace"], obj["metadata"]["name"], spec.jitter)
    return clock, jitter.total_seconds(), f"{spec.schedule} ({spec.time_zone})", spec.failed_history_limit


@lru_cache(maxsize=4096)
def _longest_pause(clock: Cron, after: datetime) -> float:
    dues = [clock.next(after)]
    while len(dues) <= DUE_TIMES:
        dues.append(clock.next(dues[-1]))
    return max((later - earlier).total_seconds() for earlier, later in pairwise(dues))


def _rpo(obj: Raw) -> float | None:
    """A value that cannot be read counts as not set: then the alert's default applies, which never
    hides a problem."""
    try:
        found = parse_ttl(annotation(obj, RPO) or "")
    except ValueError:
        return None
    return math.inf if found == "never" else float(found)


def storage(obj: Raw) -> StorageRecord:
    status = _status(obj)
    found = status.get("conditions") or ()
    capacity = (obj.get("spec") or {}).get("capacity")
    try:
        room = None if capacity is None else parse_quantity(capacity)
    except ValueError:
        room = None
    return StorageRecord(
        namespace=obj["metadata"]["namespace"],
        name=obj["metadata"]["name"],
        ready=conditions.is_true(found, "Ready"),
        near_capacity=conditions.is_true(found, "NearCapacity"),
        checked=_seconds(status.get("checkedAt")),
        failures=int(status.get("checkFailures") or 0),
        capacity=room,
        usage={name: int(value) for name, value in (status.get("usage") or {}).items() if isinstance(value, int)},
    )


_READ: dict[str, Callable[[Raw], Record]] = {
    "DatabaseBackup": backup,
    "DatabaseRestore": restore,
    "DatabaseBackupSchedule": schedule,
    "BackupStorage": storage,
}
