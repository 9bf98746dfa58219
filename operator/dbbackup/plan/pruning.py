"""Carries out retention: backups are marked first, then one Job deletes the artifacts of many, then
their objects are deleted or become Expired.

A marked backup stays marked until its artifact is known to be gone: it never becomes Completed
again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from dbbackup.api import conditions, targets
from dbbackup.api.conditions import instant, timestamp
from dbbackup.api.metadata import APPROVE_PRUNE
from dbbackup.api.objects import EXPIRING, Raw, annotation, artifact_key, artifact_uid, expiring, schedule_name
from dbbackup.api.specs import StorageSpec
from dbbackup.contract.report import InventoryItem, PrunedItem
from dbbackup.contract.run import PruneItem, PruneOptions, RunSpec
from dbbackup.plan import candidates, retention
from dbbackup.plan import status as statuses
from dbbackup.plan.auxiliary_run import AuxiliaryRun, auxiliary_job, auxiliary_runs, read_items
from dbbackup.plan.candidates import lies_in
from dbbackup.plan.facts import Decision, Effect, Facts, Note
from dbbackup.text import cut

BATCH = 250
BATCH_BYTES = 90_000
"""Bytes of keys in one Job: a variable of its environment holds 128 KiB."""
MARK_AT_ONCE = 1_000
TIMEOUT_SECONDS = 1800
TRY_AGAIN = timedelta(minutes=10)
HELD_ORPHANS = "TooManyOrphans"


def outcome(facts: Facts, runs: Sequence[AuxiliaryRun]) -> Decision | None:
    """The decision after a prune Job has ended; None if none has."""
    for run in runs:
        if run.trouble is not None:
            return _failed(facts, run, f"{run.trouble.reason}: {run.trouble.message}")
        if run.report is not None:
            return _pruned(facts, run)
    return None


def next_step(facts: Facts, spec: StorageSpec, judged: retention.Pruning) -> Decision | None:
    """The next step of retention in this storage while no prune runs; None if there is none."""
    if (step := _clear_up(facts) or _mark(facts, judged)) is not None:
        return step  # all are marked before any is deleted: an approval is for all
    marked = [obj for obj in facts.related.backups if expiring(obj) and not obj["metadata"].get("deletionTimestamp")]
    return _delete_artifacts(facts, spec, marked) if marked else None


# Which backups go


def judged(facts: Facts, orphans: Sequence[InventoryItem] = ()) -> retention.Pruning:
    """What retention decides about the namespace's backups, and about artifacts without an object.
    Costly with many of them: call it once in each pass."""
    reading = candidates.readers(facts.related.restores)
    # Backups in other storages too: the rules of a schedule that has changed its storage count
    # them.
    everywhere = (*facts.related.backups, *facts.related.elsewhere)
    known = [found for obj in everywhere if (found := candidates.of_backup(obj, reading)) is not None]
    approvals = candidates.approvals(facts.related.schedules)
    if token := annotation(facts.obj, APPROVE_PRUNE):
        approvals[retention.Group(storage=facts.name)] = token
    more = [candidates.of_artifact(item.key, item.manifest, facts.name, reading) for item in orphans if item.manifest is not None]
    policies, everything = candidates.policies(facts.related.schedules), [*known, *more]
    return retention.prune(everything, retention.decide(everything, policies, facts.now), policies, approvals)


def _clear_up(facts: Facts) -> Decision | None:
    """Deletes Expired objects that a schedule created. Those that a person or Git created stay:
    Git would create them again."""
    left = [obj for obj in facts.related.backups if (obj.get("status") or {}).get("phase") == "Expired" and schedule_name(obj)]
    effects = [Effect("delete", obj) for obj in left if not obj["metadata"].get("deletionTimestamp")]
    return Decision(effects=tuple(effects), requeue=timedelta(0)) if effects else None


def _mark(facts: Facts, judged: retention.Pruning) -> Decision | None:
    by_uid = {obj["metadata"]["uid"]: obj for obj in facts.related.backups}
    effects: list[Effect] = []
    for verdict in judged.removals:
        obj = by_uid.get(verdict.candidate.uid)
        if obj is not None and artifact_key(obj) and lies_in(facts.obj, obj) and len(effects) < MARK_AT_ONCE:
            why = "; ".join(verdict.reasons)
            note = Note(EXPIRING, f"the artifact {artifact_key(obj)} is removed: {why}", key=artifact_key(obj) or "")
            effects.append(Effect("status", obj, status=_marked(facts, obj, why), notes=(note,)))
    return Decision(effects=tuple(effects), requeue=timedelta(0)) if effects else None


def _marked(facts: Facts, obj: Raw, why: str) -> dict[str, Any]:
    return _phase(facts, obj, "Deleting", "progressing", EXPIRING, f"retention removes the artifact: {why}")


def _phase(facts: Facts, obj: Raw, phase: str, state: conditions.State, reason: str, message: str) -> dict[str, Any]:
    return {**statuses.stated(obj, facts.now, obj.get("status") or {}, state, reason, message), "phase": phase}


def next_due(facts: Facts) -> timedelta | None:
    """The time until the next recorded expiry, or until a failed prune is tried again."""
    moments = [
        moment
        for obj in facts.related.backups
        if (obj.get("status") or {}).get("phase") == "Completed" and (moment := instant(obj["status"].get("expirationTime"))) is not None
    ]
    if (failed := instant(facts.status.get("pruneFailedAt"))) is not None and any(expiring(obj) for obj in facts.related.backups):
        moments.append(failed + TRY_AGAIN)
    ahead = [moment for moment in moments if moment > facts.now]
    return min(ahead) - facts.now if ahead else None


# The Job


def _job(facts: Facts, spec: StorageSpec, items: Sequence[PruneItem]) -> Mapping[str, Any]:
    token = hashlib.sha256("\n".join((str(facts.status.get("pruneFailedAt")), *(item.key for item in items))).encode()).hexdigest()
    run = RunSpec(
        run="prune",
        owner=targets.owner(facts.obj),
        storage=targets.storage_target(facts.name, spec),
        timeout_seconds=TIMEOUT_SECONDS,
        prune=PruneOptions(items=tuple(items)),
    )
    return auxiliary_job(facts, run, spec.job, token)


def _batch(wanted: Sequence[PruneItem]) -> list[PruneItem]:
    batch: list[PruneItem] = []
    size = 0
    for item in wanted:
        size += len(item.to_json()) + 1
        if len(batch) == BATCH or size > BATCH_BYTES:
            break
        batch.append(item)
    return batch


def _delete_artifacts(facts: Facts, spec: StorageSpec, marked: Sequence[Raw]) -> Decision | None:
    failed = instant(facts.status.get("pruneFailedAt"))
    if failed is not None and facts.now < failed + TRY_AGAIN:
        return None
    if facts.refusal is not None:
        if facts.refusal.kind == "Terminating":
            return Decision()
        return Decision(status=_held_up(facts, facts.status, f"the prune Job cannot be created: {facts.refusal.message}"), requeue=TRY_AGAIN)
    items = [PruneItem(key=key, uid=artifact_uid(obj)) for obj in marked if (key := artifact_key(obj))]
    return Decision(create=_job(facts, spec, _batch(items)), status=facts.status, requeue=statuses.LOOK_AGAIN)


def orphans_job(facts: Facts, spec: StorageSpec, judged: retention.Pruning) -> Mapping[str, Any] | None:
    """The Job that deletes a batch of the artifacts in `judged` whose object is gone and whose
    manifest says that they have expired."""
    if auxiliary_runs(facts, "prune"):
        return None
    removals = [verdict.candidate for verdict in judged.removals if verdict.candidate.orphan]
    batch = _batch([PruneItem(key=candidate.name, uid=candidate.uid) for candidate in removals])
    return _job(facts, spec, batch) if batch else None


# Its outcome


def _failed(facts: Facts, run: AuxiliaryRun, why: str) -> Decision:
    note = Note("PruneFailed", f"artifacts that have expired could not be deleted: {why}", warning=True, key=run.name)
    return Decision(status=_held_up(facts, facts.status, why), notes=(note,), delete=(run.job,), requeue=TRY_AGAIN)


def _held_up(facts: Facts, status: Mapping[str, Any], why: str) -> dict[str, Any]:
    message = cut(f"{why}; it is tried again", 1000)
    return {**status, "pruneFailedAt": timestamp(facts.now), "pruneMessage": message}


def _pruned(facts: Facts, run: AuxiliaryRun) -> Decision:
    if facts.items is None:
        return read_items(run, PrunedItem)
    if facts.items.problem is not None:
        return _failed(facts, run, f"the Job's result could not be read: {facts.items.problem}")
    items = [item for item in facts.items.values if isinstance(item, PrunedItem)]
    failed = [item for item in items if item.problem is not None]
    gone = {item.uid for item in items if item.problem is None}
    effects = [_expired(facts, obj) for obj in facts.related.backups if expiring(obj) and artifact_uid(obj) in gone]
    count = len(items) - len(failed)
    notes = [Note("Pruned", f"deleted {count} artifacts that had expired", key=run.name)] if count else []
    notes += [Note("PruneFailed", f"{item.key} could not be deleted: {item.problem}", warning=True, key=item.key) for item in failed[:10]]
    status = {key: value for key, value in facts.status.items() if key not in ("pruneFailedAt", "pruneMessage")}
    orphans = gone - {artifact_uid(obj) for obj in facts.related.backups}
    if orphans and len(_batch([PruneItem(key=item.key, uid=item.uid) for item in (*items, items[0])])) == len(items):
        status.pop("checkedGeneration", None)  # The Job was full: the next inventory finds the rest, and comes at once.
    if failed:
        status = _held_up(facts, status, f"{len(failed)} artifacts could not be deleted, the first {failed[0].key}: {failed[0].problem}")
    return Decision(effects=tuple(effects), status=status, notes=tuple(notes), delete=(run.job,), requeue=timedelta(0))


def _expired(facts: Facts, obj: Raw) -> Effect:
    why = next((item["message"] for item in obj["status"]["conditions"] if item.get("type") == "Ready"), "")
    status = {**_phase(facts, obj, "Expired", "done", "Expired", f"the artifact was deleted on {timestamp(facts.now)}; {why}"), "expires": "expired"}
    note = Note("Expired", f"deleted {artifact_key(obj)}; {why}")
    return Effect("status", obj, status=status, notes=(note,))


# What the status says beforehand


def with_held(facts: Facts, status: dict[str, Any], objects: retention.Pruning, orphans: retention.Pruning | None = None) -> dict[str, Any]:
    """The storage's status with what waits for an approval: `objects` that no schedule made, or
    orphans. Orphans are known at an inventory only (else None): what the status says of them then
    stays until the next one.
    """
    mine = retention.Group(storage=facts.name)
    for found in objects.stopped:
        if found.group == mine:
            return _with_held(facts, status, found)
    if orphans is None:
        return status if _orphans_held(status) else _with_held(facts, status, None)
    for found in orphans.stopped:
        if found.group == mine:
            return _with_held(facts, status, found, HELD_ORPHANS)
    return _with_held(facts, status, None)


def _orphans_held(status: Mapping[str, Any]) -> bool:
    held = conditions.find(status.get("conditions") or (), "PruneHeld")
    return held is not None and held.get("reason") == HELD_ORPHANS


def orphans_approved(facts: Facts) -> bool:
    """Whether a person has approved the removal of orphans that the last inventory held back: the
    next one carries it out."""
    held = (facts.status.get("retention") or {}).get("held") or {}
    return _orphans_held(facts.status) and annotation(facts.obj, APPROVE_PRUNE) == held.get("token")


def with_preview(facts: Facts, own: Sequence[retention.Candidate], due: datetime | None, status: dict[str, Any]) -> dict[str, Any]:
    """A schedule's status with what retention removes next, and with what waits for an approval.
    `due`: the time of its next run."""
    schedule = facts.name
    policies = candidates.policies([facts.obj])
    verdicts = retention.decide(own, policies, facts.now)
    pruning = retention.prune(own, verdicts, policies, candidates.approvals([facts.obj]))
    stopped = [found for found in pruning.stopped if found.group.schedule == schedule]
    good = [verdict for verdict in verdicts if verdict.candidate.outcome == "good"]
    preview = {
        "good": len(good),
        "pinned": sum(verdict.candidate.pinned for verdict in good),
        "next": [
            {
                "name": coming.candidate.name,
                "reason": cut(coming.reason, 500),
                # No time for what goes now: it would change with each pass for as long as the
                # approval of a person is missing.
                **({"time": timestamp(coming.when)} if coming.when is not None and coming.when > facts.now else {}),
            }
            for coming in retention.next_removals(own, policies, schedule, facts.now, due)
        ],
    }
    return _with_held(facts, {**status, "retention": preview}, stopped[0] if stopped else None)


def _with_held(facts: Facts, status: dict[str, Any], held: retention.Stopped | None, reason: str = "TooManyAtOnce") -> dict[str, Any]:
    existing = status.get("conditions") or ()
    kept = {key: value for key, value in (status.get("retention") or {}).items() if key != "held"}
    if held is None:
        rest = [dict(item) for item in existing if item.get("type") != "PruneHeld"]
        return {key: value for key, value in {**status, "conditions": rest, "retention": kept}.items() if key != "retention" or kept}
    retention_status = {**kept, "held": {"token": held.token, "count": len(held.names), "message": cut(held.message, 1000)}}
    return {**status, "retention": retention_status, "conditions": statuses.put_condition(existing, "PruneHeld", True, reason, held.message, facts)}
