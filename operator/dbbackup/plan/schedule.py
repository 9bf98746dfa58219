"""DatabaseBackupSchedule: makes DatabaseBackups when they are due. What is made and when follows
from the spec, the clock and what is there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dbbackup.api import conditions, targets
from dbbackup.api.conditions import timestamp
from dbbackup.api.metadata import REQUESTED_BY, RUN_NOW, SCHEDULE, SCHEDULED_AT, SUSPEND
from dbbackup.api.objects import TERMINAL, Raw, annotation, expiring
from dbbackup.api.specs import API_VERSION, Databases, ScheduleSpec, SpecError, parse_schedule
from dbbackup.contract.report import DiscoveredItem
from dbbackup.contract.run import NO_STORAGE, RunSpec
from dbbackup.plan import candidates, cron, pruning, retention
from dbbackup.plan import status as statuses
from dbbackup.plan.artifact_check import MISSING
from dbbackup.plan.auxiliary_run import SideRun, read_items, side_job, side_runs
from dbbackup.plan.cron import Cron, CronError
from dbbackup.plan.facts import Decision, Effect, Facts, Note, Refusal
from dbbackup.plan.jobs import SMALL_RUN_SECONDS, job_name
from dbbackup.plan.names import matches
from dbbackup.plan.observe import instant

LONGEST_WAIT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Schedule:
    """An object whose spec can be used. `considered`: due times up to it have been dealt with.
    `offset`: how much later than due it starts runs."""

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
        """When a run starts next, as far as is known now."""
        return self.cron.next(max(self.facts.now - self.offset, self.considered)) + self.offset


@dataclass(frozen=True, slots=True)
class Due:
    """A run that is to be made. `stem` begins the names of its backups; `token` is that of a run
    asked for by hand; `missed` counts due times before it that no run was made for."""

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
        # Remembered before anything is made: an operator that is killed half-way must find the same
        # due time again.
        return Decision(status=_told(schedule), requeue=timedelta(0))
    due = _due(schedule)
    if due is None:
        return _idle(schedule)
    if facts.refusal is not None:
        return _refused(schedule, due, facts.refusal)
    return _run(schedule, due)


def _schedule(facts: Facts, spec: ScheduleSpec, clock: Cron) -> Schedule:
    own = [obj for obj in facts.related.backups if not obj["metadata"].get("deletionTimestamp")]
    considered = instant(facts.status.get("consideredUntil"))
    if considered is None:
        # The status is new, or was lost: what was made last tells. With `immediate` its own
        # creation is a due time.
        created = facts.created - timedelta(seconds=1) if spec.immediate else facts.created
        considered = max((created, *(_scheduled_at(obj) for obj in own if not _discovered(obj))))
    elif facts.status.get("effectiveSchedule") != _effective(spec):
        considered = facts.now
    return Schedule(facts, spec, clock, own, considered, cron.jitter(facts.obj["metadata"]["namespace"], facts.name, spec.jitter))


def _discovered(obj: Raw) -> bool:
    """Whether it stands for an artifact that was found in the bucket: it is no run."""
    return (obj.get("spec") or {}).get("origin") == "Discovered"


def _effective(spec: ScheduleSpec) -> str:
    return f"{spec.schedule} ({spec.time_zone})"


def _scheduled_at(obj: Raw) -> datetime:
    created = datetime.fromisoformat(obj["metadata"]["creationTimestamp"])
    try:
        told = instant(annotation(obj, SCHEDULED_AT))
    except ValueError:
        return created
    return told if told is not None and told.tzinfo is not None else created


# What is due


def _due(schedule: Schedule) -> Due | None:
    facts, spec = schedule.facts, schedule.spec
    token = annotation(facts.obj, RUN_NOW)
    if token and token != facts.status.get("lastRunNow"):
        digest = hashlib.sha256(f"{facts.uid}/{token}".encode()).hexdigest()[:8]
        return Due(f"{schedule.name}-now-{digest}", facts.now, token)
    if schedule.suspended:
        return None
    if spec.immediate and schedule.considered < facts.created:
        return Due(cron.run_name(schedule.name, facts.created), facts.created)
    latest = schedule.cron.latest(schedule.considered, facts.now - schedule.offset)
    if latest is None:
        return None
    return Due(cron.run_name(schedule.name, latest), latest, missed=schedule.cron.count(schedule.considered, latest) - 1)


def _run(schedule: Schedule, due: Due) -> Decision:
    facts, spec = schedule.facts, schedule.spec
    late = facts.now - due.at - schedule.offset
    if due.token is None and spec.starting_deadline is not None and late > timedelta(seconds=spec.starting_deadline):
        message = f"no run was made for {timestamp(due.at)}: startingDeadline has passed" + (f", nor for {due.missed} before" if due.missed else "")
        status = _told(schedule, considered=due.at, missed=due.missed + 1)
        return Decision(status=status, notes=(Note("RunMissed", message, warning=True, key=due.stem),), requeue=timedelta(0))
    active = _others(schedule, due)
    if active and spec.concurrency_policy == "Forbid":
        names = ", ".join(obj["metadata"]["name"] for obj in active[:3])
        which = "asked for by hand" if due.token else f"due at {timestamp(due.at)}"
        message = f"the run that was {which} starts when {names} has ended (concurrencyPolicy Forbid)"
        wait = min(schedule.next - facts.now, LONGEST_WAIT)
        if due.token is None and spec.starting_deadline is not None:
            wait = min(wait, timedelta(seconds=spec.starting_deadline + 1) - late)
        return Decision(status=_told(schedule, reason="WaitingForPreviousRun", message=message), requeue=wait)
    if spec.databases is None:
        return _make(schedule, due, [None])
    if spec.databases.discovers:
        return _discover(schedule, due, spec.databases)
    chosen = _chosen(spec.databases, spec.databases.include)
    return _make(schedule, due, chosen) if chosen else _nothing_made(schedule, due, "`databases` excludes all that it includes")


def _others(schedule: Schedule, due: Due) -> list[Raw]:
    """Backups of other runs that go on. Of the due run itself an operator that was killed may have
    made some."""
    return [obj for obj in schedule.active if not f"{obj['metadata']['name']}-".startswith(f"{due.stem}-")]


def _chosen(databases: Databases, names: Sequence[str]) -> list[str | None]:
    included = (name for name in dict.fromkeys(names) if any(matches(pattern, name) for pattern in databases.include))
    return [name for name in included if not any(matches(pattern, name) for pattern in databases.exclude)]


# Databases of a server


def _discover(schedule: Schedule, due: Due, databases: Databases) -> Decision:
    facts = schedule.facts
    wanted = job_name("discover", facts.name, facts.uid, due.stem)
    run = next((run for run in side_runs(facts, "discover") if run.name == wanted), None)
    if run is None:
        told = _told(schedule, reason="Discovering", message=_asking(wanted))
        return Decision(create=_discover_job(schedule, due), status=told, requeue=statuses.LOOK_AGAIN)
    if run.trouble is not None:
        return _nothing_made(schedule, due, f"{run.trouble.reason}: {run.trouble.message}", run)
    if run.report is None:
        return Decision(status=_told(schedule, reason="Discovering", message=_asking(wanted)), requeue=statuses.LOOK_AGAIN)
    if facts.items is None:
        return read_items(run, DiscoveredItem)
    if facts.items.problem is not None:
        return _nothing_made(schedule, due, f"the list of databases could not be read: {facts.items.problem}", run)
    names = [item.name for item in facts.items.values if isinstance(item, DiscoveredItem)]
    chosen = _chosen(databases, names)
    if not chosen:
        return _nothing_made(schedule, due, f"none of the {len(names)} databases of the server is chosen by `databases`", run)
    return _make(schedule, due, chosen, run)


def _asking(job: str) -> str:
    return f"Job {job} asks the server for its databases"


def _discover_job(schedule: Schedule, due: Due) -> Mapping[str, Any]:
    facts, template = schedule.facts, schedule.spec.template.spec
    assert template.database is not None  # noqa: S101
    run = RunSpec(
        run="discover",
        owner=targets.owner(facts.obj),
        storage=NO_STORAGE,
        database=targets.database_target(template.database),
        timeout_seconds=SMALL_RUN_SECONDS,
    )
    return side_job(facts, run, template.job, due.stem)


def _nothing_made(schedule: Schedule, due: Due, why: str, run: SideRun | None = None) -> Decision:
    """A run that failed before there was a backup."""
    note = Note("DiscoveryFailed", f"the run of {timestamp(due.at)} made no backups: {why}", warning=True, key=due.stem)
    status = _told(schedule, considered=None if due.token else due.at, missed=due.missed, failed_at=due.at, token=due.token)
    return Decision(status=status, notes=(note,), delete=(run.job,) if run is not None else (), requeue=timedelta(0))


# Making the backups


def _make(schedule: Schedule, due: Due, databases: Sequence[str | None], run: SideRun | None = None) -> Decision:
    facts = schedule.facts
    effects = [Effect("create", _backup(schedule, due, database)) for database in databases]
    notes = []
    if schedule.spec.concurrency_policy == "Replace":
        for obj in _others(schedule, due):
            effects.append(Effect("delete", obj))
            notes.append(Note("RunReplaced", f"DatabaseBackup {obj['metadata']['name']} was still running and gives way to {due.stem}", key=due.stem))
    first = effects[0].obj["metadata"]["name"]
    made = f"DatabaseBackup {first}" if len(databases) == 1 else f"{len(databases)} DatabaseBackups, {first} and so on"
    notes.append(Note("RunCreated", f"made {made}" + (" as was asked by hand" if due.token else f", due at {timestamp(due.at)}"), key=due.stem))
    if due.missed:
        message = f"{due.missed} due times before {timestamp(due.at)} had no run of their own; this one makes up for them"
        notes.append(Note("RunMissed", message, warning=True, key=due.stem))
    status = _told(schedule, considered=None if due.token else due.at, missed=due.missed, token=due.token)
    status |= {"lastScheduleTime": timestamp(due.at), "lastBackupRef": {"name": first}, "databases": len(databases)}
    delete = (run.job,) if run is not None else tuple(other.job for other in side_runs(facts, "discover"))
    return Decision(effects=tuple(effects), status=status, notes=tuple(notes), delete=delete, requeue=timedelta(0))


def _backup(schedule: Schedule, due: Due, database: str | None) -> dict[str, Any]:
    template = schedule.facts.obj["spec"]["template"]
    metadata = template.get("metadata") or {}
    # The operator may write whom it likes: a template that names a person would forge that person's
    # wish.
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


def _refused(schedule: Schedule, due: Due, refusal: Refusal) -> Decision:
    """Kubernetes did not take a backup or a Job: a quota, a policy."""
    if refusal.kind == "Terminating":
        return Decision()
    message = f"Kubernetes refused what the run needs: {refusal.message}"
    note = Note("RunRefused", f"{message}; it is tried again every minute", warning=True, key=due.stem)
    status = _told(schedule, state="progressing", reason="RunRefused", message=message)
    return Decision(status=status, notes=(note,), requeue=timedelta(minutes=1))


# Between runs, and the status


def _idle(schedule: Schedule) -> Decision:
    facts = schedule.facts
    considered = schedule.considered
    if schedule.suspended:
        # What was due while it was suspended is not made up for, nor its first run.
        considered = max(schedule.cron.latest(considered, facts.now) or considered, facts.created)
    history = retention.failed_history(_candidates(schedule), schedule.name, schedule.spec.failed_history_limit)
    # One that was good, and whose artifact is gone, is no failed run: it is told of until a person
    # has seen it.
    by_uid = {obj["metadata"]["uid"]: obj for obj in schedule.own if ((obj.get("status") or {}).get("failure") or {}).get("reason") != MISSING}
    effects = tuple(Effect("delete", by_uid[found.uid]) for found in history if found.uid in by_uid)
    leftover = tuple(run.job for run in side_runs(facts, "discover"))
    wait = min(max(schedule.next - facts.now, timedelta(0)), LONGEST_WAIT)
    return Decision(status=_told(schedule, considered=considered), effects=effects, delete=leftover, requeue=wait)


def _candidates(schedule: Schedule) -> list[retention.Candidate]:
    return [found for obj in schedule.own if (found := candidates.of_backup(obj, {})) is not None]


def _told(
    schedule: Schedule,
    *,
    state: conditions.State = "done",
    reason: str = "",
    message: str = "",
    considered: datetime | None = None,
    missed: int = 0,
    failed_at: datetime | None = None,
    token: str | None = None,
) -> dict[str, Any]:
    """The whole status. `failed_at`: a run failed before it made a backup."""
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


def _streak(schedule: Schedule, failed_at: datetime | None) -> dict[str, Any]:
    """Runs that failed one after the other up to now. Counted on, since the history of failed runs
    is limited."""
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
