"""BackupStorage: what to do next. An inventory Job, which has the credentials, checks the storage
and lists its artifacts; retention removes backups; an import creates missing DatabaseBackups."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from dbbackup import __version__
from dbbackup.api import conditions, targets
from dbbackup.api.conditions import instant, timestamp
from dbbackup.api.metadata import CHECK_NOW, IMPORT
from dbbackup.api.objects import TERMINAL, Raw, annotation, artifact_key
from dbbackup.api.specs import SpecError, StorageSpec, parse_storage
from dbbackup.api.units import size_text
from dbbackup.contract.keys import parse_leaf
from dbbackup.contract.report import InventoryItem, InventoryReport
from dbbackup.contract.run import InventoryOptions, RunSpec, ServeOptions
from dbbackup.plan import artifact_check, discovered, pruning
from dbbackup.plan import status as statuses
from dbbackup.plan.auxiliary_run import AuxiliaryRun, Trouble, auxiliary_job, auxiliary_runs, read_items, trouble
from dbbackup.plan.facts import Decision, Facts, Note
from dbbackup.plan.jobs import job_name, pod_template
from dbbackup.plan.lifecycle import overrides_of, spec_of
from dbbackup.plan.retention import Pruning
from dbbackup.plan.settings import Settings

TIMEOUT_SECONDS = 3600
SERVE_SECONDS = 6 * 3600
"""How long a person's pod may read the storage at most; without requests it ends much earlier."""
FIRST_BACK_OFF = timedelta(minutes=1)
LAST_BACK_OFF = timedelta(minutes=30)
KNOWN_LIMIT = 10_000
"""UIDs in the run spec of an inventory: 80 KB of the 128 KiB that one variable of an environment
may hold. It reads the manifests of further backups again."""
BUSY_LIMIT = 2_000
NEAR = 80
"""Per cent of `capacity` from which the condition NearCapacity is True."""


def decide(facts: Facts) -> Decision:
    """The next step of a BackupStorage."""
    decision = _decide(facts)
    return decision if decision.status is None else replace(decision, status={**decision.status, **published(facts.obj, facts.settings)})


def published(obj: Raw, settings: Settings) -> dict[str, Any]:
    """Fields of the status that the kubectl plugin needs, so that its pods are like the
    operator's: the image, and the template of a pod that reads this storage."""
    fields: dict[str, Any] = {"image": settings.image, "operatorVersion": __version__}
    try:
        spec = parse_storage(obj)
    except SpecError:
        return fields
    run = RunSpec(
        run="serve",
        owner=targets.owner(obj),
        storage=targets.storage_target(obj["metadata"]["name"], spec),
        timeout_seconds=SERVE_SECONDS,
        serve=ServeOptions(token_sha256=""),
    )
    return {**fields, "podTemplate": pod_template(run, settings, overrides_of(spec.job, run.run))}


def _decide(facts: Facts) -> Decision:
    if facts.obj["metadata"].get("deletionTimestamp"):
        return Decision()
    try:
        spec = parse_storage(facts.obj)
    except SpecError as error:
        status = _ready(facts, facts.status, "failed", error.reason.name, error.message)
        return Decision(status=status, delete=tuple(facts.jobs))
    runs, prunes = auxiliary_runs(facts, "inventory"), auxiliary_runs(facts, "prune")
    wanted = job_name("inventory", facts.name, facts.uid, _look_token(facts))
    # Dealt with already, or spec and annotations ask for another one now. An inventory beside a
    # prune has seen artifacts that the prune removes.
    outdated = tuple(run.job for run in runs if run.name != wanted or prunes)
    if outdated:
        return Decision(delete=outdated, requeue=timedelta(0))
    for run in runs:
        if run.trouble is not None:
            return _failed(facts, run, run.trouble)
        if run.report is not None:
            return _inventory_done(facts, spec, run)
        return Decision(status=_waiting(facts, run), requeue=statuses.LOOK_AGAIN)
    if (step := pruning.outcome(facts, prunes)) is not None:
        return step
    judged = pruning.judged(facts)
    if prunes:
        return Decision(status=_settled(facts, spec, judged), requeue=statuses.LOOK_AGAIN)
    if (step := pruning.next_step(facts, spec, judged)) is not None:
        return step
    left = _due_in(facts, spec)
    if left <= timedelta(0):
        return _start_inventory(facts, spec)
    after = pruning.next_due(facts)
    return Decision(status=_settled(facts, spec, judged), requeue=left if after is None else min(left, after))


def _ready(facts: Facts, status: Mapping[str, Any], state: conditions.State, reason: str, message: str) -> dict[str, Any]:
    return statuses.stated(facts.obj, facts.now, status, state, reason, message, finishes=False)


def _settled(facts: Facts, spec: StorageSpec, judged: Pruning) -> dict[str, Any]:
    """The status with the parts that follow from spec and retention alone."""
    return pruning.with_held(facts, _near_capacity(facts, spec, dict(facts.status)), judged)


# When an inventory is due


def _tokens(facts: Facts) -> tuple[str | None, str | None]:
    return annotation(facts.obj, CHECK_NOW), annotation(facts.obj, IMPORT)


def _asked(facts: Facts) -> bool:
    """Whether the spec has changed since the last inventory, or a person has asked for one."""
    check, wanted = _tokens(facts)
    status = facts.status
    changed = status.get("checkedGeneration") != facts.obj["metadata"].get("generation", 1)
    imports = wanted is not None and wanted != (status.get("lastImport") or {}).get("token")
    return changed or imports or pruning.orphans_approved(facts) or (check is not None and check != status.get("lastCheck"))


def _due_in(facts: Facts, spec: StorageSpec) -> timedelta:
    status = facts.status
    failures = int(status.get("checkFailures") or 0)
    if failures:
        tried = instant(status.get("checkTriedAt")) or facts.now
        return timedelta(0) if _changed_since_try(facts) else tried + _back_off(failures) - facts.now
    checked = instant(status.get("checkedAt"))
    if checked is None or _asked(facts) or _unfound(facts):
        return timedelta(0)
    return checked + timedelta(seconds=spec.inventory_interval) - facts.now


def _back_off(failures: int) -> timedelta:
    return min(FIRST_BACK_OFF * float(2 ** min(failures - 1, 10)), LAST_BACK_OFF)


def _changed_since_try(facts: Facts) -> bool:
    return facts.status.get("checkTried") != _token(facts)


def _unfound(facts: Facts) -> bool:
    """Whether a DatabaseBackup waits for an inventory to find its artifact, and there was none
    since it was created."""
    checked = instant(facts.status.get("checkedAt"))
    return any(
        discovered.waits_for_inventory(obj) and (checked is None or (instant(obj["metadata"]["creationTimestamp"]) or facts.now) >= checked)
        for obj in facts.related.backups
    )


def _token(facts: Facts) -> str:
    """The token of the present spec and annotations: if one of them changes, the pause after a
    failed inventory ends."""
    text = "\n".join((str(facts.obj["metadata"].get("generation", 1)), *(token or "" for token in _tokens(facts))))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _look_token(facts: Facts) -> str:
    """The token of the inventory that is wanted now."""
    status = facts.status
    return "\n".join((_token(facts), str(status.get("checkedAt")), str(status.get("checkFailures")), str(status.get("checkTriedAt"))))


# The Job


def _start_inventory(facts: Facts, spec: StorageSpec) -> Decision:
    if facts.refusal is not None:
        if facts.refusal.kind == "Terminating":
            return Decision()
        message = f"the inventory Job cannot be created: {facts.refusal.message}"
        state: conditions.State = "failed" if facts.refusal.kind == "Invalid" else "progressing"
        return Decision(status=_ready(facts, facts.status, state, "PodRefused", message), requeue=FIRST_BACK_OFF)
    run = RunSpec(
        run="inventory",
        owner=targets.owner(facts.obj),
        storage=targets.storage_target(facts.name, spec),
        timeout_seconds=TIMEOUT_SECONDS,
        inventory=InventoryOptions(
            known="".join(_known(facts.related.backups)),
            busy=tuple(_busy((*facts.related.backups, *facts.related.restores))),
            sweep_after_seconds=int(facts.settings.sweep_after.total_seconds()),
        ),
    )
    status = facts.status
    if not status.get("checkedAt") and not status.get("checkFailures"):
        status = _ready(facts, status, "progressing", "Checking", "a Job checks the storage and lists its artifacts")
    return Decision(create=auxiliary_job(facts, run, spec.job, _look_token(facts)), status=status, requeue=statuses.LOOK_AGAIN)


def _known(backups: Sequence[Raw]) -> list[str]:
    """Short UIDs of the artifacts whose object exists and whose run is over; the newest ones if
    there are too many."""
    over = [obj for obj in backups if (obj.get("status") or {}).get("phase") in (*TERMINAL, "Deleting")]
    leaves = [leaf for obj in over if (key := artifact_key(obj)) and (leaf := parse_leaf(key.rsplit("/", 1)[-1])) is not None]
    leaves.sort(key=lambda leaf: leaf.time, reverse=True)
    return sorted({leaf.short_uid for leaf in leaves[:KNOWN_LIMIT]})


def _busy(objects: Sequence[Raw]) -> list[str]:
    """Short UIDs of runs that may be storing something."""
    return sorted({str(obj["metadata"]["uid"])[:8] for obj in objects if (obj.get("status") or {}).get("phase") not in TERMINAL})[:BUSY_LIMIT]


def _waiting(facts: Facts, run: AuxiliaryRun) -> dict[str, Any]:
    if facts.status.get("checkedAt") or facts.status.get("checkFailures"):
        return facts.status
    return _ready(facts, facts.status, "progressing", "Checking", f"Job {run.name} checks the storage and lists its artifacts")


# Its outcome


def _failed(facts: Facts, run: AuxiliaryRun, why: Trouble) -> Decision:
    """The storage cannot be used now. Stalled only if trying again cannot help: a server that
    starts later than its BackupStorage must not make `helm --wait` fail."""
    failures = int(facts.status.get("checkFailures") or 0) + 1
    status = {**facts.status, "checkFailures": failures, "checkTriedAt": timestamp(facts.now), "checkTried": _token(facts)}
    message = f"{why.message.rstrip('.')}. {why.hint}"
    state: conditions.State = "progressing" if why.retryable else "failed"
    note = Note("StorageCheckFailed", f"{why.reason}: {message}", warning=True, key=f"{why.reason}/{facts.status.get('checkedAt')}")
    return Decision(
        status=_ready(facts, status, state, why.reason, message),
        notes=(note,),
        delete=(run.job,),
        requeue=_back_off(failures),
    )


def _inventory_done(facts: Facts, spec: StorageSpec, run: AuxiliaryRun) -> Decision:
    if facts.items is None:
        return read_items(run, InventoryItem)
    if facts.items.problem is not None or run.report is None or run.report.inventory is None:
        return _failed(facts, run, trouble("RunLost", f"the inventory's result could not be read: {facts.items.problem}"))
    items = [item for item in facts.items.values if isinstance(item, InventoryItem)]
    return _recorded(facts, spec, run, run.report.inventory, items)


def _recorded(facts: Facts, spec: StorageSpec, run: AuxiliaryRun, inventory: InventoryReport, items: Sequence[InventoryItem]) -> Decision:
    check, wanted = _tokens(facts)
    found = discovered.Found.of(items, facts.related)
    status: dict[str, Any] = {key: value for key, value in facts.status.items() if key not in ("checkFailures", "checkTriedAt", "checkTried")}
    status["checkedAt"] = timestamp(facts.now)
    status["checkedGeneration"] = facts.obj["metadata"].get("generation", 1)
    status["capabilities"] = {"conditionalWrites": inventory.conditional_writes}
    if check is not None:
        status["lastCheck"] = check
    run_spec = spec_of([run.job])
    known = run_spec.inventory.known if run_spec is not None and run_spec.inventory is not None else ""
    effects = [*discovered.adopt(found, facts), *artifact_check.changes(facts, items, known)]
    notes: list[Note] = []
    if wanted is not None and wanted != (status.get("lastImport") or {}).get("token"):
        made = discovered.new_backups(found, facts)
        effects += made
        status["lastImport"] = {"token": wanted, "time": timestamp(facts.now), "imported": len(made), "skipped": len(found.unusable)}
        notes.append(Note("Imported", f"created {len(made)} DatabaseBackups for artifacts in the bucket, skipped {len(found.unusable)}", key=wanted))
    if inventory.swept:
        notes.append(Note("Swept", f"removed {inventory.swept} unfinished uploads and directories without a manifest", key=status["checkedAt"]))
    notes += [Note("ArtifactUnusable", f"{item.key}: {item.problem}", warning=True, key=item.key) for item in found.unusable[:10]]
    orphans = found.without(effect.obj for effect in effects)
    status["usage"] = _usage(inventory, len(orphans))
    status = _near_capacity(facts, spec, _ready(facts, status, "done", "Available", _summary(inventory)))
    with_orphans = pruning.judged(facts, orphans)
    status = pruning.with_held(facts, status, pruning.judged(facts), with_orphans)
    create = pruning.orphans_job(facts, spec, with_orphans) if facts.refusal is None else None
    return Decision(create=create, status=status, effects=tuple(effects), notes=tuple(notes), delete=(run.job,), requeue=timedelta(0))


def _usage(inventory: InventoryReport, orphans: int) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "artifacts": inventory.artifacts,
        "bytes": inventory.bytes,
        "size": size_text(inventory.bytes),
        "orphans": orphans,
        "debris": inventory.debris,
        "uploads": inventory.uploads,
        "foreign": inventory.foreign,
    }
    if inventory.oldest is not None and inventory.newest is not None:
        usage |= {"oldest": timestamp(inventory.oldest), "newest": timestamp(inventory.newest)}
    return usage


def _summary(inventory: InventoryReport) -> str:
    return f"a write, a read and a delete succeeded; {inventory.artifacts} artifacts, {size_text(inventory.bytes)}"


def _near_capacity(facts: Facts, spec: StorageSpec, status: dict[str, Any]) -> dict[str, Any]:
    existing = status.get("conditions") or ()
    used = (status.get("usage") or {}).get("bytes")
    if spec.capacity is None or used is None:
        return {**status, "conditions": [dict(item) for item in existing if item.get("type") != "NearCapacity"]}
    share = 100 * used // spec.capacity
    message = f"{size_text(used)} of {size_text(spec.capacity)} are used, {share} %"
    near = 100 * used >= NEAR * spec.capacity
    reason = "NearCapacity" if near else "EnoughRoom"
    return {**status, "conditions": statuses.put_condition(existing, "NearCapacity", near, reason, message, facts)}
