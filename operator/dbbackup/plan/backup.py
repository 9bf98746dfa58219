"""DatabaseBackup: what to do next."""

from __future__ import annotations

from datetime import timedelta

from dbbackup.api import targets
from dbbackup.api.metadata import FINALIZER
from dbbackup.api.objects import TERMINAL, Raw, expiring, schedule_name
from dbbackup.api.specs import BackupSpec, SpecError, parse_backup, parse_storage
from dbbackup.contract.run import Lifetime, RunSpec
from dbbackup.plan import lifecycle
from dbbackup.plan import status as statuses
from dbbackup.plan.deletion import delete_backup
from dbbackup.plan.facts import Decision, Facts


def _planned_run(facts: Facts, spec: BackupSpec) -> lifecycle.PlannedRun:
    """The run; its `spec` is None while the BackupStorage does not exist or cannot be used."""
    run_spec = None
    if facts.storage is not None:
        try:
            storage = parse_storage(facts.storage)
        except SpecError:
            storage = None
        if storage is not None and spec.database is not None:
            run_spec = RunSpec(
                run="backup",
                owner=targets.owner(facts.obj),
                storage=targets.storage_target(spec.storage_ref.name, storage),
                database=targets.database_target(spec.database),
                timeout_seconds=spec.timeout,
                backup=targets.backup_options(spec),
                lifetime=Lifetime(expires_at=targets.expiry(facts.created, spec.ttl, storage), schedule=schedule_name(facts.obj)),
            )
    return lifecycle.PlannedRun(
        kind="backup",
        spec=run_spec,
        start_deadline=timedelta(seconds=spec.start_deadline),
        job=spec.job,
        retries=spec.retries,
        keeps_artifact=spec.deletion_policy == "Retain",
    )


def decide(facts: Facts) -> Decision:
    """The next step of a DatabaseBackup."""
    if facts.obj["metadata"].get("deletionTimestamp"):
        return delete_backup(facts)
    if (change := _finalizer_change(facts)) is not None:
        return change
    phase = facts.status.get("phase")
    if phase == "Completed":
        text = statuses.expires_text(facts.obj, facts.status)
        return _over(facts, facts.status if facts.status.get("expires", "never") == text else {**facts.status, "expires": text})
    if phase in ("Failed", "Expired") or expiring(facts.obj):
        return _over(facts, facts.status)
    try:
        spec = parse_backup(facts.obj)
    except SpecError as error:
        return lifecycle.fail(facts, "InvalidSpec", error.message)
    if spec.origin == "Discovered":
        message = f"an inventory of BackupStorage {spec.storage_ref.name} looks for {spec.artifact_key}"
        return Decision(status=statuses.pending(facts, "WaitingForInventory", message))
    run = _planned_run(facts, spec)
    if (decision := lifecycle.follow(facts, run)) is not None:
        return decision
    if run.spec is None:
        return no_storage(facts, spec.storage_ref.name, run.start_deadline)
    return lifecycle.start(facts, run)


def _over(facts: Facts, status: Raw) -> Decision:
    """The run has ended: Jobs that are left are deleted, and the status records that a later change
    of the deletion policy has been observed."""
    observed = statuses.observed(facts.obj, status)
    return Decision(status=None if observed == facts.status else observed, delete=tuple(facts.jobs))


def _finalizer_change(facts: Facts) -> Decision | None:
    """The deletion policy is the one field that may be changed later; the finalizer follows it. It
    is not needed before the first Job: nothing is stored yet."""
    held = FINALIZER in (facts.obj["metadata"].get("finalizers") or ())
    wanted = (facts.obj.get("spec") or {}).get("deletionPolicy") == "Delete" and facts.status.get("phase") != "Expired"
    if held == wanted or (wanted and "jobName" not in facts.status):
        return None
    runs = facts.status.get("phase") not in TERMINAL and "jobName" in facts.status
    return Decision(add_finalizer=wanted, remove_finalizer=held, holds_slot=runs, requeue=timedelta(0))


def no_storage(facts: Facts, name: str, deadline: timedelta) -> Decision:
    """Pending until the BackupStorage exists and can be used: objects may be applied in any
    order."""
    namespace = facts.obj["metadata"]["namespace"]
    if facts.storage is not None:
        try:
            parse_storage(facts.storage)
        except SpecError as error:
            message = f"BackupStorage {name} in namespace {namespace} cannot be used: {error.message}"
            return lifecycle.wait(facts, "WaitingForStorage", message, deadline=deadline, failure="InvalidSpec")
    message = f"BackupStorage {name} does not exist in namespace {namespace}"
    return lifecycle.wait(facts, "WaitingForStorage", message, deadline=deadline, failure="StorageNotFound")
