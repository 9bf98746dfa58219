"""DatabaseRestore: what to do next. A restore runs once; it is never started again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from dbbackup.api import targets
from dbbackup.api.conditions import timestamp
from dbbackup.api.objects import Raw, artifact_key
from dbbackup.api.specs import RestoreSpec, ScheduleSource, SpecError, parse_restore, parse_storage
from dbbackup.contract.run import Lifetime, RunSpec
from dbbackup.plan import lifecycle
from dbbackup.plan import status as statuses
from dbbackup.plan.backup import no_storage
from dbbackup.plan.facts import Decision, Facts
from dbbackup.plan.observe import of_run


def newest_of(backups: Sequence[Raw], source: ScheduleSource) -> Raw | None:
    """The newest good backup among those of a schedule that match `source`. SpecError if they are
    of several databases and `source` names none; a database that it names may have moved from one
    host to another."""
    good = [obj for obj in backups if (obj.get("status") or {}).get("phase") == "Completed" and (obj["status"].get("artifact") or {}).get("key")]
    if source.database is not None:
        good = [obj for obj in good if (obj["status"].get("database") or {}).get("name") == source.database]
    if source.before is not None:
        good = [obj for obj in good if _snapshot(obj) < source.before]
    databases = sorted({str((obj["status"].get("database") or {}).get("identity") or "") for obj in good})
    if len(databases) > 1 and source.database is None:
        names = ", ".join(databases[:10])
        raise SpecError("spec.source.scheduleRef", f"schedule {source.name} has good backups of several databases, set `database`: {names}")
    return max(good, key=lambda obj: (_snapshot(obj), obj["metadata"]["name"]), default=None)


def backup_by_schedule(obj: Raw, backups: Sequence[Raw]) -> Raw | None:
    """The backup that a restore by schedule would restore now; None if there is none, or if the
    choice is not clear."""
    try:
        source = parse_restore(obj).source.schedule_ref
        return newest_of(backups, source) if source is not None else None
    except SpecError:
        return None


def _snapshot(obj: Raw) -> datetime:
    """When the backup's run ended, which is never before its snapshot: a run that ended before
    `before` contains nothing later."""
    return datetime.fromisoformat(obj["status"].get("completionTime") or obj["metadata"]["creationTimestamp"])


def source_storage_name(obj: Raw, source: Raw | None) -> str | None:
    """The BackupStorage of the artifact: the one in the status if it is recorded already; None
    while the source does not exist."""
    recorded = ((obj.get("status") or {}).get("artifact") or {}).get("storage")
    if recorded:
        return str(recorded)
    artifact = ((obj.get("spec") or {}).get("source") or {}).get("artifact")
    if artifact is not None:
        return str((artifact.get("storageRef") or {}).get("name") or "default")
    if source is None:
        return None
    recorded = ((source.get("status") or {}).get("artifact") or {}).get("storage")
    return str(recorded or ((source.get("spec") or {}).get("storageRef") or {}).get("name") or "default")


def _artifact(facts: Facts, spec: RestoreSpec) -> tuple[str, str | None] | None:
    """Key and manifest digest of the artifact; None while the source does not have them. What was
    recorded at the start counts first."""
    recorded = facts.status.get("artifact") or {}
    if recorded.get("key"):
        return recorded["key"], recorded.get("manifestSha256")
    if (made := _spec_of_unrecorded_job(facts)) is not None and made.restore is not None:
        return made.restore.key, made.restore.manifest_sha256
    if spec.source.artifact is not None:
        return spec.source.artifact.key.strip("/"), None
    status = (facts.source or {}).get("status") or {}
    artifact = status.get("artifact") or {}
    if status.get("phase") == "Completed" and artifact.get("key"):
        return artifact["key"], artifact.get("manifestSha256")
    return None


def _spec_of_unrecorded_job(facts: Facts) -> RunSpec | None:
    """The run spec of a Job that exists although the status does not name it: an operator was
    killed in between."""
    return None if facts.status.get("jobName") else lifecycle.spec_of(of_run(facts.jobs, facts.uid, "restore"))


def _with_source_of_job(facts: Facts, decision: Decision) -> Decision:
    """The decision, its status completed by the artifact that an unrecorded Job restores."""
    made = _spec_of_unrecorded_job(facts)
    if made is None or made.restore is None or decision.status is None:
        return decision
    key = made.restore.key
    known = (obj for obj in (*facts.related.backups, facts.source) if obj is not None and artifact_key(obj) == key)
    source = next((str(obj["metadata"]["name"]) for obj in known), key)
    return replace(decision, status={"artifact": statuses.artifact_fields(made), "source": source, **decision.status})


def _planned_run(facts: Facts, spec: RestoreSpec) -> lifecycle.PlannedRun:
    """The run; its `spec` is None while source or BackupStorage are missing."""
    run_spec, artifact, name = None, _artifact(facts, spec), source_storage_name(facts.obj, facts.source)
    storage = None
    if facts.storage is not None:
        try:
            storage = parse_storage(facts.storage)
        except SpecError:
            storage = None
    if artifact is not None and name is not None and storage is not None:
        run_spec = RunSpec(
            run="restore",
            owner=targets.owner(facts.obj),
            storage=targets.storage_target(name, storage),
            database=targets.database_target(spec.database),
            timeout_seconds=spec.timeout,
            restore=targets.restore_options(spec, *artifact),
            lifetime=Lifetime(expires_at=targets.expiry(facts.created, None, storage)),
        )
    return lifecycle.PlannedRun(
        kind="restore",
        spec=run_spec,
        start_deadline=timedelta(seconds=spec.start_deadline),
        job=spec.job,
        source=spec.source.artifact.key if spec.source.artifact else str((facts.source or {"metadata": {"name": ""}})["metadata"]["name"]),
    )


def decide(facts: Facts) -> Decision:
    """The next step of a DatabaseRestore."""
    if facts.obj["metadata"].get("deletionTimestamp"):
        return Decision()
    phase = facts.status.get("phase")
    if phase in ("Completed", "Failed"):
        return lifecycle.ended(facts)
    try:
        spec = parse_restore(facts.obj)
    except SpecError as error:
        return lifecycle.fail(facts, "InvalidSpec", error.message)
    if spec.source.schedule_ref is not None and not facts.status.get("jobName") and _spec_of_unrecorded_job(facts) is None:
        try:
            newest_of(facts.related.backups, spec.source.schedule_ref)
        except SpecError as error:
            return lifecycle.fail(facts, "InvalidSpec", error.message)
    run = _planned_run(facts, spec)
    if (decision := lifecycle.follow(facts, run)) is not None:
        return _with_source_of_job(facts, decision)
    if not phase and spec.start_before is not None and spec.too_late(facts.now):
        seen, limit = timestamp(facts.now), timestamp(spec.start_before)
        return lifecycle.fail(facts, "StartBeforePassed", f"first seen at {seen}, after startBefore {limit}")
    if (waiting := _source_missing(facts, spec, run)) is not None:
        return waiting
    if run.spec is None:
        return no_storage(facts, source_storage_name(facts.obj, facts.source) or "default", run.start_deadline)
    return lifecycle.start(facts, run)


def _source_missing(facts: Facts, spec: RestoreSpec, run: lifecycle.PlannedRun) -> Decision | None:
    if spec.source.artifact is not None or _artifact(facts, spec) is not None:
        return None
    if spec.source.schedule_ref is not None:
        return _no_backup_of_schedule(facts, spec.source.schedule_ref, run)
    assert spec.source.backup_ref is not None  # noqa: S101
    name, namespace = spec.source.backup_ref.name, facts.obj["metadata"]["namespace"]
    if facts.source is None:
        message = f"DatabaseBackup {name} does not exist in namespace {namespace}"
        return lifecycle.wait(facts, "WaitingForBackup", message, deadline=run.start_deadline, failure="BackupNotFound")
    phase = (facts.source.get("status") or {}).get("phase") or "Pending"
    message = f"DatabaseBackup {name} is {phase}"
    if phase in ("Failed", "Deleting", "Expired", "Completed"):
        return lifecycle.fail(facts, "BackupNotCompleted", message if phase != "Completed" else f"DatabaseBackup {name} names no artifact")
    # Without a deadline: a backup that exists ends by its own deadlines.
    return Decision(status=statuses.pending(facts, "WaitingForBackup", message))


def _no_backup_of_schedule(facts: Facts, source: ScheduleSource, run: lifecycle.PlannedRun) -> Decision:
    message = f"schedule {source.name} in namespace {facts.obj['metadata']['namespace']} has no good backup"
    message += f" of database {source.database}" if source.database else ""
    message += f" from before {timestamp(source.before)}" if source.before else ""
    return lifecycle.wait(facts, "WaitingForBackup", message, deadline=run.start_deadline, failure="BackupNotFound")
