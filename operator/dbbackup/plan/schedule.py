"""DatabaseBackupSchedule: creates DatabaseBackups when they are due. Which and when depends on the
spec, the clock and the existing backups."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dbbackup.api import conditions, targets
from dbbackup.api.conditions import instant, timestamp
from dbbackup.api.metadata import REQUESTED_BY, RUN_NOW, SCHEDULE, SCHEDULED_AT, SUSPEND
from dbbackup.api.objects import TERMINAL, Raw, annotation, expiring
from dbbackup.api.specs import API_VERSION, Databases, ScheduleSpec, SpecError, parse_schedule
from dbbackup.contract.report import DiscoveredItem
from dbbackup.contract.run import NO_STORAGE, RunSpec
from dbbackup.plan import candidates, cron, pruning, retention
from dbbackup.plan import status as statuses
from dbbackup.plan.artifact_check import MISSING
from dbbackup.plan.auxiliary_run import AuxiliaryRun, auxiliary_job, auxiliary_runs, read_items
from dbbackup.plan.cron import Cron, CronError
from dbbackup.plan.facts import Decision, Effect, Facts, Note, Refusal
from dbbackup.plan.jobs import SMALL_RUN_SECONDS, job_name
from dbbackup.plan.names import matches

LONGEST_WAIT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class ScheduleFacts:
    """The facts of a schedule whose spec can be used. `own`: its backups. `considered`: due times
    up to it have been handled. `offset`: the jitter, how much later than due its runs start."""

    facts: Facts
    spec: ScheduleSpec
    cron: Cron
    own: Sequence[Raw]
    considered: datetime
    offset: timedelta

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def suspended(self) -> bool:
        return self.spec.suspend or annotation(self.facts.obj, SUSPEND) == "true"

    @property
    def active(self) -> list[Raw]:
        running = (obj for obj in self.own if (obj.get("status") or {}).get("phase") not in TERMINAL and not _discovered(obj))
        return [obj for obj in running if not expiring(obj)]

    @property
    def next(self) -> datetime:
        """When the next run starts, as far as is known now."""
        return self.cron.next(max(self.facts.now - self.offset, self.considered)) + self.offset


@dataclass(frozen=True, slots=True)
class DueRun:
    """A run to create now. `stem` begins the names of its backups; `token` is the value of
    `run-now` if a person asked for it; `missed` counts earlier due times without a run."""

    stem: str
    at: datetime
    token: str | None = None
    missed: int = 0


def decide(facts: Facts) -> Decision:
    """The next step of a DatabaseBackupSchedule."""
    if facts.obj["metadata"].get("deletionTimestamp"):
        return Decision()
    try:
        spec = parse_schedule(facts.obj)
        clock = cron.parse(spec.schedule, spec.time_zone)
    except (SpecError, CronError) as error:
        message = error.message if isinstance(error, SpecError) else f"spec: {error}"
        status = {key: value for key, value in facts.status.items() if key != "nextScheduleTime"}
        return Decision(
            status=statuses.stated(facts.obj, facts.now, status, "failed", "InvalidSpec", message, finishes=False), delete=tuple(facts.jobs)
        )
    schedule = _schedule(facts, spec, clock)
    if not facts.status.get("consideredUntil"):
        # Recorded before anything is created: an operator that is killed half-way must find the
        # same due time again.
        return Decision(status=_status(schedule), requeue=timedelta(0))
    due = _due(schedule)
    if due is None:
        return _idle(schedule)
    if facts.refusal is not None:
        return _refused(schedule, due, facts.refusal)
    return _start_run(schedule, due)


def _schedule(facts: Facts, spec: ScheduleSpec, clock: Cron) -> ScheduleFacts:
    own = [obj for obj in facts.related.backups if not obj["metadata"].get("deletionTimestamp")]
    considered = instant(facts.status.get("consideredUntil"))
    if considered is None:
        # The status is new, or was lost: the newest backup says it. With `immediate` the schedule's
        # own creation is a due time.
        created = facts.created - timedelta(seconds=1) if spec.immediate else facts.created
        considered = max((created, *(_scheduled_at(obj) for obj in own if not _discovered(obj))))
    elif facts.status.get("effectiveSchedule") != _effective(spec):
        considered = facts.now
    return ScheduleFacts(facts, spec, clock, own, considered, cron.jitter(facts.obj["metadata"]["namespace"], facts.name, spec.jitter))


def _discovered(obj: Raw) -> bool:
    """Whether the backup stands for an artifact that was found in the bucket: it is not a run."""
    return (obj.get("spec") or {}).get("origin") == "Discovered"


def _effective(spec: ScheduleSpec) -> str:
    return f"{spec.schedule} ({spec.time_zone})"


def _scheduled_at(obj: Raw) -> datetime:
    return instant(annotation(obj, SCHEDULED_AT)) or datetime.fromisoformat(obj["metadata"]["creationTimestamp"])


# What is due


def _due(schedule: ScheduleFacts) -> DueRun | None:
    facts, spec = schedule.facts, schedule.spec
    token = annotation(facts.obj, RUN_NOW)
    if token and token != facts.status.get("lastRunNow"):
        digest = hashlib.sha256(f"{facts.uid}/{token}".encode()).hexdigest()[:8]
        return DueRun(f"{schedule.name}-now-{digest}", facts.now, token)
    if schedule.suspended:
        return None
    if spec.immediate and schedule.considered < facts.created:
        return DueRun(cron.run_name(schedule.name, facts.created), facts.created)
    latest = schedule.cron.latest(schedule.considered, facts.now - schedule.offset)
    if latest is None:
        return None
    return DueRun(cron.run_name(schedule.name, latest), latest, missed=schedule.cron.count(schedule.considered, latest) - 1)


def _start_run(schedule: ScheduleFacts, due: DueRun) -> Decision:
    facts, spec = schedule.facts, schedule.spec
    late = facts.now - due.at - schedule.offset
    if due.token is None and spec.starting_deadline is not None and late > timedelta(seconds=spec.starting_deadline):
        message = f"no run was made for {timestamp(due.at)}: startingDeadline has passed" + (f", nor for {due.missed} before" if due.missed else "")
        status = _status(schedule, considered=due.at, missed=due.missed + 1)
        return Decision(status=status, notes=(Note("RunMissed", message, warning=True, key=due.stem),), requeue=timedelta(0))
    active = _others(schedule, due)
    if active and spec.concurrency_policy == "Forbid":
        names = ", ".join(obj["metadata"]["name"] for obj in active[:3])
        which = "requested by annotation" if due.token else f"due at {timestamp(due.at)}"
        message = f"the run that was {which} starts when {names} has ended (concurrencyPolicy Forbid)"
        wait = min(schedule.next - facts.now, LONGEST_WAIT)
        if due.token is None and spec.starting_deadline is not None:
            wait = min(wait, timedelta(seconds=spec.starting_deadline + 1) - late)
        return Decision(status=_status(schedule, reason="WaitingForPreviousRun", message=message), requeue=wait)
    if spec.databases is None:
        return _make(schedule, due, [None])
    if spec.databases.discovers:
        return _discover(schedule, due, spec.databases)
    selected = _selected(spec.databases, spec.databases.include)
    return _make(schedule, due, selected) if selected else _nothing_made(schedule, due, "`databases` excludes all that it includes")


def _others(schedule: ScheduleFacts, due: DueRun) -> list[Raw]:
    """Backups of other runs that are still running. Those of the due run itself do not count: an
    operator that was killed may have created some of them."""
    return [obj for obj in schedule.active if not f"{obj['metadata']['name']}-".startswith(f"{due.stem}-")]


def _selected(databases: Databases, names: Sequence[str]) -> list[str | None]:
    included = (name for name in dict.fromkeys(names) if any(matches(pattern, name) for pattern in databases.include))
    return [name for name in included if not any(matches(pattern, name) for pattern in databases.exclude)]


# Databases of a server


def _discover(schedule: ScheduleFacts, due: DueRun, databases: Databases) -> Decision:
    facts = schedule.facts
    wanted = job_name("discover", facts.name, facts.uid, due.stem)
    run = next((run for run in auxiliary_runs(facts, "discover") if run.name == wanted), None)
    if run is None:
        status = _status(schedule, reason="Discovering", message=_asking(wanted))
        return Decision(create=_discover_job(schedule, due), status=status, requeue=statuses.LOOK_AGAIN)
    if run.trouble is not None:
        return _nothing_made(schedule, due, f"{run.trouble.reason}: {run.trouble.message}", run)
    if run.report is None:
        return Decision(status=_status(schedule, reason="Discovering", message=_asking(wanted)), requeue=statuses.LOOK_AGAIN)
    if facts.items is None:
        return read_items(run, DiscoveredItem)
    if facts.items.problem is not None:
        return _nothing_made(schedule, due, f"the list of databases could not be read: {facts.items.problem}", run)
    names = [item.name for item in facts.items.values if isinstance(item, DiscoveredItem)]
    selected = _selected(databases, names)
    if not selected:
        return _nothing_made(schedule, due, f"`databases` selects none of the server's {len(names)} databases", run)
    return _make(schedule, due, selected, run)


def _asking(job: str) -> str:
    return f"Job {job} asks the server for its databases"


def _discover_job(schedule: ScheduleFacts, due: DueRun) -> Mapping[str, Any]:
    facts, template = schedule.facts, schedule.spec.template.spec
    assert template.database is not None  # noqa: S101
    run = RunSpec(
        run="discover",
        owner=targets.owner(facts.obj),
        storage=NO_STORAGE,
        database=targets.database_target(template.database),
        timeout_seconds=SMALL_RUN_SECONDS,
    )
    return auxiliary_job(facts, run, template.job, due.stem)


def _nothing_made(schedule: ScheduleFacts, due: DueRun, why: str, run: AuxiliaryRun | None = None) -> Decision:
    """The run has failed before it created a backup."""
    note = Note("DiscoveryFailed", f"the run of {timestamp(due.at)} made no backups: {why}", warning=True, key=due.stem)
    status = _status(schedule, considered=None if due.token else due.at, missed=due.missed, failed_at=due.at, token=due.token)
    return Decision(status=status, notes=(note,), delete=(run.job,) if run is not None else (), requeue=timedelta(0))


# Creating the backups


def _make(schedule: ScheduleFacts, due: DueRun, databases: Sequence[str | None], run: AuxiliaryRun | None = None) -> Decision:
    facts = schedule.facts
    effects = [Effect("create", _backup(schedule, due, database)) for database in databases]
    notes = []
    if schedule.spec.concurrency_policy == "Replace":
        for obj in _others(schedule, due):
            effects.append(Effect("delete", obj))
            message = f"DatabaseBackup {obj['metadata']['name']} was still running and is replaced by {due.stem}"
            notes.append(Note("RunReplaced", message, key=due.stem))
    first = effects[0].obj["metadata"]["name"]
    made = f"DatabaseBackup {first}" if len(databases) == 1 else f"{len(databases)} DatabaseBackups, {first} and so on"
    why = " as requested by annotation" if due.token else f", due at {timestamp(due.at)}"
    notes.append(Note("RunCreated", f"created {made}{why}", key=due.stem))
    if due.missed:
        message = f"{due.missed} due times before {timestamp(due.at)} had no run of their own; this one makes up for them"
        notes.append(Note("RunMissed", message, warning=True, key=due.stem))
    status = _status(schedule, considered=None if due.token else due.at, missed=due.missed, token=due.token)
    status |= {"lastScheduleTime": timestamp(due.at), "lastBackupRef": {"name": first}, "databases": len(databases)}
    delete = (run.job,) if run is not None else tuple(other.job for other in auxiliary_runs(facts, "discover"))
    return Decision(effects=tuple(effects), status=status, notes=tuple(notes), delete=delete, requeue=timedelta(0))


def _backup(schedule: ScheduleFacts, due: DueRun, database: str | None) -> dict[str, Any]:
    template = schedule.facts.obj["spec"]["template"]
    metadata = template.get("metadata") or {}
    # The admission policy trusts the operator: with a template that names a person, anyone could
    # forge that person's request.
    annotations = {name: value for name, value in (metadata.get("annotations") or {}).items() if name != REQUESTED_BY}
    spec: dict[str, Any] = {**template["spec"]}
    if database is not None:
        spec["database"] = {**spec["database"], "name": database}
    if schedule.spec.retention.keeps and "ttl" not in spec:
        spec["ttl"] = "never"  # the keep rules decide
    return {
        "apiVersion": API_VERSION,
        "kind": "DatabaseBackup",
        "metadata": {
            "name": due.stem if database is None else cron.member_name(due.stem, database),
            "namespace": schedule.facts.obj["metadata"]["namespace"],
            "labels": {**(metadata.get("labels") or {}), SCHEDULE: schedule.name},
            "annotations": {**annotations, SCHEDULED_AT: timestamp(due.at)},
        },
        "spec": spec,
    }


def _refused(schedule: ScheduleFacts, due: DueRun, refusal: Refusal) -> Decision:
    """Kubernetes refused a backup or a Job: a quota, an admission policy."""
    if refusal.kind == "Terminating":
        return Decision()
    message = f"Kubernetes refused what the run needs: {refusal.message}"
    note = Note("RunRefused", f"{message}; it is tried again every minute", warning=True, key=due.stem)
    status = _status(schedule, state="progressing", reason="RunRefused", message=message)
    return Decision(status=status, notes=(note,), requeue=timedelta(minutes=1))


# Between runs, and the status


def _idle(schedule: ScheduleFacts) -> Decision:
    facts = schedule.facts
    considered = schedule.considered
    if schedule.suspended:
        # Runs that were due while it was suspended are not made up for, its first run included.
        considered = max(schedule.cron.latest(considered, facts.now) or considered, facts.created)
    history = retention.failed_history(_candidates(schedule), schedule.name, schedule.spec.failed_history_limit)
    # A good backup whose artifact is gone is not a failed run: it stays until a person has seen it.
    by_uid = {obj["metadata"]["uid"]: obj for obj in schedule.own if ((obj.get("status") or {}).get("failure") or {}).get("reason") != MISSING}
    effects = tuple(Effect("delete", by_uid[found.uid]) for found in history if found.uid in by_uid)
    leftover = tuple(run.job for run in auxiliary_runs(facts, "discover"))
    wait = min(max(schedule.next - facts.now, timedelta(0)), LONGEST_WAIT)
    return Decision(status=_status(schedule, considered=considered), effects=effects, delete=leftover, requeue=wait)


def _candidates(schedule: ScheduleFacts) -> list[retention.Candidate]:
    return [found for obj in schedule.own if (found := candidates.of_backup(obj, {})) is not None]


def _status(
    schedule: ScheduleFacts,
    *,
    state: conditions.State = "done",
    reason: str = "",
    message: str = "",
    considered: datetime | None = None,
    missed: int = 0,
    failed_at: datetime | None = None,
    token: str | None = None,
) -> dict[str, Any]:
    """The whole status. `failed_at`: due time of a run that failed before it created a backup."""
    facts = schedule.facts
    status: dict[str, Any] = {
        **facts.status,
        "effectiveSchedule": _effective(schedule.spec),
        "consideredUntil": timestamp(considered or schedule.considered),
        "suspended": schedule.suspended,
        "active": [{"name": obj["metadata"]["name"]} for obj in schedule.active[:100]],
        "missedRuns": int(facts.status.get("missedRuns") or 0) + missed,
        **_streak(schedule, failed_at),
    }
    if token is not None:
        status["lastRunNow"] = token
    succeeded = [obj["status"]["completionTime"] for obj in schedule.own if (obj.get("status") or {}).get("phase") == "Completed"]
    if succeeded:
        status["lastSuccessfulTime"] = max(succeeded)
    following = schedule.next
    if schedule.suspended:
        status.pop("nextScheduleTime", None)
    else:
        status["nextScheduleTime"] = timestamp(following)
    if not reason and schedule.suspended:
        reason, message = "Suspended", "no runs are made while it is suspended"
    elif not reason:
        reason, message = "Scheduled", f"runs next at {timestamp(following)}"
    due = None if schedule.suspended else following
    status = statuses.stated(facts.obj, facts.now, status, state, reason, message, finishes=False)
    return pruning.with_preview(facts, _candidates(schedule), due, status)


def _streak(schedule: ScheduleFacts, failed_at: datetime | None) -> dict[str, Any]:
    """How many runs have failed in a row up to now. The status keeps the count, since only some
    failed runs are kept."""
    status = schedule.facts.status
    counted, streak = instant(status.get("failuresCountedUntil")), int(status.get("consecutiveFailures") or 0)
    runs: dict[datetime, set[str]] = {}
    for obj in schedule.own:
        if _discovered(obj):
            continue
        runs.setdefault(_scheduled_at(obj), set()).add(str((obj.get("status") or {}).get("phase") or "Pending"))
    ended = [(moment, "Failed" in phases) for moment, phases in sorted(runs.items()) if phases <= set(TERMINAL)]
    if failed_at is not None:
        ended.append((failed_at, True))
    for moment, failed in ended:
        if counted is None or moment > counted:
            counted, streak = moment, streak + 1 if failed else 0
    return {"consecutiveFailures": streak} | ({"failuresCountedUntil": timestamp(counted)} if counted is not None else {})
