"""Whether the artifact of a Completed backup still exists and is whole: an inventory finds
artifacts that were deleted or damaged, and those that have come back."""

from __future__ import annotations

from collections.abc import Sequence

from dbbackup.api.conditions import timestamp
from dbbackup.api.objects import Raw, artifact_key
from dbbackup.contract.keys import parse_leaf
from dbbackup.contract.report import InventoryItem
from dbbackup.plan import status as statuses
from dbbackup.plan.candidates import lies_in
from dbbackup.plan.facts import Effect, Facts, Note
from dbbackup.plan.observe import RunState

MISSING = "ArtifactMissing"


def changes(facts: Facts, items: Sequence[InventoryItem], known: str) -> list[Effect]:
    """Effects on the storage's backups of what an inventory has found of their artifacts. `known`
    is from its run spec: the short UIDs of artifacts that were sealed before it began, so one of
    them that it did not find is gone.

    Completed becomes Failed if the artifact is not whole any more, and Completed again once it is.
    The dump itself is not read.
    """
    sealed_before = {known[at : at + 8] for at in range(0, len(known), 8)}
    found = {item.key: item for item in items}
    effects = []
    for obj in facts.related.backups:
        status, key = obj.get("status") or {}, artifact_key(obj)
        if key is None or obj["metadata"].get("deletionTimestamp") or not lies_in(facts.obj, obj):
            continue
        item = found.get(key)
        whole = item is not None and item.problem is None
        leaf = parse_leaf(key.rpartition("/")[2])
        if status.get("phase") == "Completed" and not whole and leaf is not None and leaf.short_uid in sealed_before:
            effects.append(_lost(facts, obj, key, item.problem if item is not None else None))
        elif whole and status.get("phase") == "Failed" and (status.get("failure") or {}).get("reason") == MISSING:
            effects.append(_found_again(facts, obj, key))
    return effects


def _facts_of(facts: Facts, obj: Raw) -> Facts:
    return Facts(obj=obj, now=facts.now, settings=facts.settings)


def _lost(facts: Facts, obj: Raw, key: str, problem: str | None) -> Effect:
    found = problem or "it has no manifest there any more"
    message = f"the artifact {key} was whole when the backup was completed; an inventory on {timestamp(facts.now)} found: {found}"
    failure = statuses.failure(MISSING, message)
    done = obj["status"]
    status = {**statuses.failed(_facts_of(facts, obj), RunState("Absent"), failure), "completionTime": done["completionTime"]}
    if "duration" in done:
        status["duration"] = done["duration"]
    return Effect("status", obj, status=status, notes=(Note(MISSING, message, warning=True, key=timestamp(facts.now)),))


def _found_again(facts: Facts, obj: Raw, key: str) -> Effect:
    status = {name: value for name, value in obj["status"].items() if name != "failure"}
    message = f"the artifact {key} is in the bucket again"
    return Effect("status", obj, status=statuses.completed_again(_facts_of(facts, obj), status, message), notes=(Note("ArtifactFound", message),))
