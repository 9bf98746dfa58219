"""DatabaseRestore: what to do next. A restore runs once; nothing starts it again."""

from __future__ import annotations

from datetime import timedelta

from dbbackup.api import targets
from dbbackup.api.conditions import timestamp
from dbbackup.api.specs import RestoreSpec, SpecError, parse_restore, parse_storage
from dbbackup.plan import lifecycle
from dbbackup.plan.backup import no_storage
from dbbackup.plan.facts import Decision, Facts, Raw
from dbbackup.run import RunSpec


def source_name(obj: Raw) -> str | None:
    """The DatabaseBackup that the restore refers to, where it does."""
    reference = ((obj.get("spec") or {}).get("source") or {}).get("backupRef") or {}
    return reference.get("name")


def storage_name(obj: Raw, source: Raw | None) -> str | None:
    """The BackupStorage of the artifact: where the status already says it, that one; None while the source is not there."""
    told = ((obj.get("status") or {}).get("artifact") or {}).get("storage")
    if told:
        return str(told)
    artifact = ((obj.get("spec") or {}).get("source") or {}).get("artifact")
    if artifact is not None:
        return str((artifact.get("storageRef") or {}).get("name") or "default")
    if source is None:
        return None
    recorded = ((source.get("status") or {}).get("artifact") or {}).get("storage")
    return str(recorded or ((source.get("spec") or {}).get("storageRef") or {}).get("name") or "default")


def _artifact(facts: Facts, spec: RestoreSpec) -> tuple[str, str | None] | None:
    """Key and manifest digest of the artifact, None while the source does not tell them. What the status recorded at the start counts first."""
    recorded = facts.status.get("artifact") or {}
    if recorded.get("key"):
        return recorded["key"], recorded.get("manifestSha256")
    if spec.source.artifact is not None:
        return spec.source.artifact.key.strip("/"), None
    status = (facts.source or {}).get("status") or {}
    artifact = status.get("artifact") or {}
    if status.get("phase") == "Completed" and artifact.get("key"):
        return artifact["key"], artifact.get("manifestSha256")
    return None


def _run(facts: Facts, spec: RestoreSpec) -> lifecycle.Run:
    run_spec, artifact, name = None, _artifact(facts, spec), storage_name(facts.obj, facts.source)
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
        )
    return lifecycle.Run(kind="restore", spec=run_spec, start_deadline=timedelta(seconds=spec.start_deadline), job=spec.job, source=spec.source.text)


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
    run = _run(facts, spec)
    if (decision := lifecycle.follow(facts, run)) is not None:
        return decision
    if not phase and spec.start_before is not None and spec.too_late(facts.now):
        seen, limit = timestamp(facts.now), timestamp(spec.start_before)
        return lifecycle.fail(facts, "StartBeforePassed", f"first seen at {seen}, after startBefore {limit}")
    if (waiting := _source_missing(facts, spec, run)) is not None:
        return waiting
    if run.spec is None:
        return no_storage(facts, storage_name(facts.obj, facts.source) or "default", run.start_deadline)
    return lifecycle.start(facts, run)


def _source_missing(facts: Facts, spec: RestoreSpec, run: lifecycle.Run) -> Decision | None:
    if spec.source.backup_ref is None or _artifact(facts, spec) is not None:
        return None
    name, namespace = spec.source.backup_ref.name, facts.obj["metadata"]["namespace"]
    if facts.source is None:
        message = f"DatabaseBackup {name} does not exist in namespace {namespace}"
        return lifecycle.wait(facts, "WaitingForBackup", message, deadline=run.start_deadline, failure="BackupNotFound")
    phase = (facts.source.get("status") or {}).get("phase") or "Pending"
    message = f"DatabaseBackup {name} is {phase}"
    if phase in ("Failed", "Deleting", "Completed"):
        return lifecycle.fail(facts, "BackupNotCompleted", message if phase != "Completed" else f"DatabaseBackup {name} names no artifact")
    # However long: a backup that is there ends by its own deadlines.
    return lifecycle.wait(facts, "WaitingForBackup", message, deadline=None, failure="")
