"""BackupStorage: tried and looked through by an inventory Job, which holds the credentials; what
retention removes; what an import makes again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from dbbackup import __version__
from dbbackup.api import conditions, targets
from dbbackup.api.conditions import timestamp
from dbbackup.api.metadata import CHECK_NOW, IMPORT
from dbbackup.api.objects import TERMINAL, Raw, annotation, artifact_key
from dbbackup.api.specs import SpecError, StorageSpec, parse_storage
from dbbackup.api.units import size_text
from dbbackup.contract.keys import parse_leaf
from dbbackup.contract.report import InventoryItem, InventoryReport
from dbbackup.contract.run import InventoryOptions, RunSpec, ServeOptions
from dbbackup.plan import artifact_check, discovered, pruning
from dbbackup.plan import status as statuses
from dbbackup.plan.auxiliary_run import SideRun, Trouble, read_items, side_job, side_runs, trouble
from dbbackup.plan.facts import Decision, Facts, Note
from dbbackup.plan.jobs import job_name, pod_template
from dbbackup.plan.lifecycle import overrides_of, spec_of
from dbbackup.plan.observe import instant
from dbbackup.plan.retention import Pruning
from dbbackup.plan.settings import Settings

TIMEOUT_SECONDS = 3600
SERVE_SECONDS = 6 * 3600
"""The longest that a person's pod may read the storage; without requests it ends much earlier."""
FIRST_BACK_OFF = timedelta(minutes=1)
LAST_BACK_OFF = timedelta(minutes=30)
KNOWN_LIMIT = 10_000
"""UIDs that an inventory is told: 80 KB of the 128 KiB that one variable of an environment may
hold. Of more backups it reads the manifests again."""
BUSY_LIMIT = 2_000
NEAR = 80
"""Per cent of `capacity` from which the condition NearCapacity is True."""


def decide(facts: Facts) -> Decision:
    """The next step of a BackupStorage."""
    decision = _decide(facts)
    return decision if decision.status is None else replace(decision, status={**decision.status, **published(facts.obj, facts.settings)})


def published(obj: Raw, settings: Settings) -> dict[str, Any]:
    """Fields of the status that people's own tools need, so that their pods are like the
    operator's: the image, and a pod that reads this storage."""
    told: dict[str, Any] = {"image": settings.image, "operatorVersion": __version__}
    try:
        spec = parse_storage(obj)
    except SpecError:
        return told
    run = RunSpec(
        run="serve",
        owner=targets.owner(obj),
        storage=targets.storage_target(obj["metadata"]["name"], spec),
        timeout_seconds=SERVE_SECONDS,
        serve=ServeOptions(token_sha256=""),
    )
    return {**told, "podTemplate": pod_template(run, settings, overrides_of(spec.job, run.run))}


def _decide(facts: Facts) -> Decision:
    if facts.obj["metadata"].get("deletionTimestamp"):
        return Decision()
    try:
        spec = parse_storage(facts.obj)
    except SpecError as error:
        status = _ready(facts, facts.status, "failed", error.reason.name, error.message)
        return Decision(status=status, delete=tuple(facts.jobs))
    runs, prunes = side_runs(facts, "inventory"), side_runs(facts, "prune")
    wanted = job_name("inventory", facts.name, facts.uid, _look_token(facts))
    # Dealt with already, or spec and annotations ask for another now. One beside a prune has seen
    # what that removes.
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
        return _look(facts, spec)
    after = pruning.next_due(facts)
    return Decision(status=_settled(facts, spec, judged), requeue=left if after is None else min(left, after))


def _ready(facts: Facts, status: Mapping[str, Any], state: conditions.State, reason: str, message: str) -> dict[str, Any]:
    return statuses.stated(facts.obj, facts.now, status, state, reason, message, finishes=False)


def _settled(facts: Facts, spec: StorageSpec, judged: Pruning) -> dict[str, Any]:
    """The status with what follows from the spec and from retention alone."""
    return pruning.with_held(facts, _near_capacity(facts, spec, dict(facts.status)), judged)


# When to look


def _tokens(facts: Facts) -> tuple[str | None, str | None]:
    return annotation(facts.obj, CHECK_NOW), annotation(facts.obj, IMPORT)


def _asked(facts: Facts) -> bool:
    """Whether the spec has changed since the last look, or a person wants one."""
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
    """Whether a DatabaseBackup waits for an inventory to find its artifact, and none has looked
    since it was made."""
    checked = instant(facts.status.get("checkedAt"))
    return any(
        discovered.waits(obj) and (checked is None or (instant(obj["metadata"]["creationTimestamp"]) or facts.now) >= checked)
        for obj in facts.related.backups
    )


def _token(facts: Facts) -> str:
    """Of a look that is wanted for these reasons: a change of spec or annotations ends the back-off
    after a failure."""
    text = "\n".join((str(facts.obj["metadata"].get("generation", 1)), *(token or "" for token in _tokens(facts))))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _look_token(facts: Facts) -> str:
    """Of the look that is wanted as things stand."""
    status = facts.status
    return "\n".join((_token(facts), str(status.get("checkedAt")), str(status.get("checkFailures")), str(status.get("checkTriedAt"))))


# The Job


def _look(facts: Facts, spec: StorageSpec) -> Decision:
    if facts.refusal is not None:
        if facts.refusal.kind == "Terminating":
            return Decision()
        message = f"the inventory Job cannot be made: {facts.refusal.message}"
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
        status = _ready(facts, status, "progressing", "Checking", "a Job tries the storage and looks at what is there")
    return Decision(create=side_job(facts, run, spec.job, _look_token(facts)), status=status, requeue=statuses.LOOK_AGAIN)


def _known(backups: Sequence[Raw]) -> list[str]:
    """Short UIDs of the artifacts whose object is there and whose run is over, the newest where
    there are too many."""
    over = [obj for obj in backups if (obj.get("status") or {}).get("phase") in (*TERMINAL, "Deleting")]
    leaves = [leaf for obj in over if (key := artifact_key(obj)) and (leaf := parse_leaf(key.rsplit("/", 1)[-1])) is not None]
    leaves.sort(key=lambda leaf: leaf.time, reverse=True)
    return sorted({leaf.short_uid for leaf in leaves[:KNOWN_LIMIT]})


def _busy(objects: Sequence[Raw]) -> list[str]:
    """Short UIDs of runs that may be storing something."""
    return sorted({str(obj["metadata"]["uid"])[:8] for obj in objects if (obj.get("status") or {}).get("phase") not in TERMINAL})[:BUSY_LIMIT]


def _waiting(facts: Facts, run: SideRun) -> dict[str, Any]:
    if facts.status.get("checkedAt") or facts.status.get("checkFailures"):
        return facts.status
    return _ready(facts, facts.status, "progressing", "Checking", f"Job {run.name} tries the storage and looks at what is there")


# Its outcome


def _failed(facts: Facts, run: SideRun, told: Trouble) -> Decision:
    """Not usable now. Stalled only where trying again cannot help: a server that comes up later
    than its BackupStorage stops no `helm --wait`."""
    failures = int(facts.status.get("checkFailures") or 0) + 1
    status = {**facts.status, "checkFailures": failures, "checkTriedAt": timestamp(facts.now), "checkTried": _token(facts)}
    message = f"{told.message.rstrip('.')}. {told.hint}"
    state: conditions.State = "progressing" if told.retryable else "failed"
    note = Note("StorageCheckFailed", f"{told.reason}: {message}", warning=True, key=f"{told.reason}/{facts.status.get('checkedAt')}")
    return Decision(
        status=_ready(facts, status, state, told.reason, message),
        notes=(note,),
        delete=(run.job,),
        requeue=_back_off(failures),
    )


def _inventory_done(facts: Facts, spec: StorageSpec, run: SideRun) -> Decision:
    if facts.items is None:
        return read_items(run, InventoryItem)
    if facts.items.problem is not None or run.report is None or run.report.inventory is None:
        return _failed(facts, run, trouble("RunLost", f"the inventory's result could not be read: {facts.items.problem}"))
    items = [item for item in facts.items.values if isinstance(item, InventoryItem)]
    return _taken_in(facts, spec, run, run.report.inventory, items)


def _taken_in(facts: Facts, spec: StorageSpec, run: SideRun, told: InventoryReport, items: Sequence[InventoryItem]) -> Decision:
    check, wanted = _tokens(facts)
    found = discovered.Found.of(items, facts.related)
    status: dict[str, Any] = {key: value for key, value in facts.status.items() if key not in ("checkFailures", "checkTriedAt", "checkTried")}
    status["checkedAt"] = timestamp(facts.now)
    status["checkedGeneration"] = facts.obj["metadata"].get("generation", 1)
    status["capabilities"] = {"conditionalWrites": told.conditional_writes}
    if check is not None:
        status["lastCheck"] = check
    spec_told = spec_of([run.job])
    known = spec_told.inventory.known if spec_told is not None and spec_told.inventory is not None else ""
    effects = [*discovered.adopt(found, facts), *artifact_check.changes(facts, items, known)]
    notes: list[Note] = []
    if wanted is not None and wanted != (status.get("lastImport") or {}).get("token"):
        made = discovered.objects(found, facts)
        effects += made
        status["lastImport"] = {"token": wanted, "time": timestamp(facts.now), "imported": len(made), "skipped": len(found.unusable)}
        notes.append(Note("Imported", f"made {len(made)} DatabaseBackups of artifacts in the bucket, skipped {len(found.unusable)}", key=wanted))
    if told.swept:
        notes.append(Note("Swept", f"removed {told.swept} unfinished uploads and directories without a manifest", key=status["checkedAt"]))
    notes += [Note("ArtifactUnusable", f"{item.key}: {item.problem}", warning=True, key=item.key) for item in found.unusable[:10]]
    orphans = found.without(effect.obj for effect in effects)
    status["usage"] = _usage(told, len(orphans))
    status = _near_capacity(facts, spec, _ready(facts, status, "done", "Available", _summary(told)))
    with_orphans = pruning.judged(facts, orphans)
    status = pruning.with_held(facts, status, pruning.judged(facts), with_orphans)
    create = pruning.orphans_job(facts, spec, with_orphans) if facts.refusal is None else None
    return Decision(create=create, status=status, effects=tuple(effects), notes=tuple(notes), delete=(run.job,), requeue=timedelta(0))


def _usage(told: InventoryReport, orphans: int) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "artifacts": told.artifacts,
        "bytes": told.bytes,
        "size": size_text(told.bytes),
        "orphans": orphans,
        "debris": told.debris,
        "uploads": told.uploads,
        "foreign": told.foreign,
    }
    if told.oldest is not None and told.newest is not None:
        usage |= {"oldest": timestamp(told.oldest), "newest": timestamp(told.newest)}
    return usage


def _summary(told: InventoryReport) -> str:
    return f"a write, a read and a delete succeeded; {told.artifacts} artifacts, {size_text(told.bytes)}"


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
