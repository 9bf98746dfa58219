"""What happens to the artifact when a DatabaseBackup with `deletionPolicy: Delete` is deleted. It
never delays the object's deletion for long."""

from __future__ import annotations

from datetime import timedelta

from dbbackup.api import targets
from dbbackup.api.conditions import instant
from dbbackup.api.metadata import FINALIZER
from dbbackup.api.objects import DELETED
from dbbackup.api.specs import SpecError, parse_backup, parse_storage
from dbbackup.contract.run import CleanupOptions, RunSpec
from dbbackup.plan import status as statuses
from dbbackup.plan.facts import Decision, Facts, Note
from dbbackup.plan.jobs import SMALL_RUN_SECONDS, job_manifest
from dbbackup.plan.lifecycle import overrides_of
from dbbackup.plan.observe import observe, of_run, pods_of_run


def delete_backup(facts: Facts) -> Decision:
    """The next step of a DatabaseBackup that is being deleted. Without our finalizer there is
    nothing to do: Kubernetes deletes its Job with it."""
    metadata = facts.obj["metadata"]
    if FINALIZER not in (metadata.get("finalizers") or ()):
        return Decision()
    if (facts.obj.get("spec") or {}).get("deletionPolicy") != "Delete" or facts.status.get("phase") == "Expired":
        return Decision(remove_finalizer=True)
    runs = [job for kind in ("backup", "check") for job in of_run(facts.jobs, facts.uid, kind)]
    live = [
        pod
        for kind in ("backup", "check")
        for pod in pods_of_run(facts.pods, facts.name, facts.uid, kind)
        if not pod.get(DELETED) and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    ]
    left = _left(facts)
    if runs or live:
        if left.total_seconds() <= 0:
            return _give_up(facts, "the run's pod did not end in time")
        return Decision(status=statuses.deleting(facts, "the run is being stopped"), delete=tuple(runs), requeue=left)
    if not _may_have_stored(facts):
        return Decision(remove_finalizer=True)
    return _cleaning(facts, left)


def _left(facts: Facts) -> timedelta:
    return (instant(facts.obj["metadata"]["deletionTimestamp"]) or facts.now) + facts.settings.cleanup_deadline - facts.now


def _cleaning(facts: Facts, left: timedelta) -> Decision:
    cleanup = observe(facts.jobs, facts.pods, facts.name, facts.uid, "cleanup", facts.now)
    if cleanup.phase == "Reported" and cleanup.report is not None:
        if cleanup.report.failure is None:
            return _done(facts)
        return _give_up(facts, f"{cleanup.report.failure.reason}: {cleanup.report.failure.message}")
    if cleanup.phase == "Lost":
        return _give_up(facts, cleanup.message)
    if left.total_seconds() <= 0:
        return _give_up(facts, "the cleanup Job did not end in time")
    message = "a cleanup Job deletes the artifact"
    if facts.refusal is not None:
        if facts.refusal.kind == "Terminating":
            return _give_up(facts, "the namespace is being deleted, no Job can be created in it")
        message = f"the cleanup Job cannot be created: {facts.refusal.message}"
        return Decision(status=statuses.deleting(facts, message), requeue=min(left, statuses.LOOK_AGAIN))
    if cleanup.phase != "Absent":
        return Decision(status=statuses.deleting(facts, message), requeue=left)
    return _clean_up(facts, message)


def _may_have_stored(facts: Facts) -> bool:
    # The finalizer is added in the pass that creates the Job, so only a run that never started has
    # stored nothing.
    status = facts.status
    unknown = (status.get("failure") or {}).get("reason") == "OutcomeUnknown"
    return bool(status.get("jobName")) and not (status.get("phase") == "Failed" and "startTime" not in status and not unknown)


def _clean_up(facts: Facts, message: str) -> Decision:
    try:
        spec = parse_backup(facts.obj)
        if facts.storage is None:
            return _give_up(facts, f"BackupStorage {spec.storage_ref.name} is gone")
        storage = parse_storage(facts.storage)
    except SpecError as error:
        return _give_up(facts, error.message)
    key = (facts.status.get("artifact") or {}).get("key")
    run = RunSpec(
        run="cleanup",
        owner=targets.owner(facts.obj),
        storage=targets.storage_target(spec.storage_ref.name, storage),
        timeout_seconds=SMALL_RUN_SECONDS,
        cleanup=CleanupOptions(key=key),
    )
    manifest = job_manifest(facts.obj, run, facts.settings, facts.settings.cleanup_deadline, overrides_of(spec.job, "cleanup"))
    return Decision(create=manifest, status=statuses.deleting(facts, message), requeue=_left(facts))


def _done(facts: Facts) -> Decision:
    key = (facts.status.get("artifact") or {}).get("key")
    note = Note("ArtifactDeleted", f"deleted {key}" if key else "deleted what the run had stored")
    return Decision(remove_finalizer=True, notes=(note,), delete=tuple(facts.jobs))


def _give_up(facts: Facts, why: str) -> Decision:
    artifact = facts.status.get("artifact") or {}
    where = f"{artifact.get('bucket', '')}/{artifact['key']}".lstrip("/") if artifact.get("key") else "what the run had stored"
    note = Note("ArtifactRetained", f"{where} stays in the bucket: {why}", warning=True)
    return Decision(remove_finalizer=True, notes=(note,), delete=tuple(facts.jobs))
