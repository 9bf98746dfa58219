"""Artifacts in the bucket whose DatabaseBackup is gone, and the objects that an import creates for
them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dbbackup.api import conditions
from dbbackup.api.conditions import timestamp
from dbbackup.api.metadata import SCHEDULE
from dbbackup.api.objects import Raw, artifact_key
from dbbackup.api.specs import API_VERSION
from dbbackup.api.units import duration_text, size_text
from dbbackup.contract.report import InventoryItem, ManifestSummary
from dbbackup.plan.facts import Effect, Facts, Related
from dbbackup.plan.status import expires_text

NAME_LIMIT = 253
LABEL_LIMIT = 63


@dataclass(frozen=True, slots=True)
class Found:
    """Artifacts that an inventory found and that no object of the namespace has made or names. The
    objects of all storages count, since two storages may be one bucket. `unusable`: the manifest
    cannot be used, `problem` says why. `claimed`: keys that discovered backups name, found or
    not."""

    orphans: Sequence[InventoryItem]
    unusable: Sequence[InventoryItem]
    claimed: frozenset[str]

    @classmethod
    def of(cls, items: Sequence[InventoryItem], related: Related) -> Found:
        backups = (*related.backups, *related.elsewhere)
        owners = {obj["metadata"]["uid"] for obj in (*backups, *related.restores)}
        kept = {key for obj in backups if (key := artifact_key(obj))}
        unknown = [item for item in items if item.key not in kept]
        usable = [item for item in unknown if item.manifest is not None and item.problem is None]
        orphans = [item for item in usable if item.manifest is not None and item.manifest.owner.uid not in owners]
        claimed = frozenset(key for obj in backups if (key := _claim(obj)))
        return cls(orphans, [item for item in unknown if item.problem is not None], claimed)

    def without(self, taken: Iterable[Raw]) -> list[InventoryItem]:
        """The orphans that no discovered backup names, those in `taken` included."""
        claimed = self.claimed | {_claim(obj) for obj in taken}
        return [item for item in self.orphans if item.key not in claimed]


def _claim(obj: Raw) -> str | None:
    key = (obj.get("spec") or {}).get("artifactKey")
    return str(key) if key else None


def waits_for_inventory(obj: Raw) -> bool:
    """Whether a DatabaseBackup names an artifact that no inventory has found yet."""
    return (obj.get("spec") or {}).get("origin") == "Discovered" and (obj.get("status") or {}).get("phase") not in (
        "Completed",
        "Expired",
        "Deleting",
    )


def adopt(found: Found, facts: Facts) -> list[Effect]:
    """Effects on objects that wait for an inventory: the status of those whose artifact was
    found."""
    by_key = {item.key: item for item in found.orphans}
    effects = []
    for obj in facts.related.backups:
        item = by_key.get(_claim(obj) or "") if waits_for_inventory(obj) else None
        if item is not None and item.manifest is not None:
            effects.append(Effect("status", obj, status=_status(facts, obj, item, item.manifest)))
    return effects


def new_backups(found: Found, facts: Facts) -> list[Effect]:
    """Creates a DatabaseBackup for each artifact of a backup, under its old name if that is free.
    Safety backups get none: they are restored by their key."""
    taken = {obj["metadata"]["name"] for obj in (*facts.related.backups, *facts.related.elsewhere)}
    effects = []
    for item in found.orphans:
        summary = item.manifest
        if summary is None or summary.safety or item.key in found.claimed:
            continue
        name = summary.owner.name
        if name in taken:
            name = f"{name[: NAME_LIMIT - 9]}-{summary.owner.uid[:8]}"
        if name in taken:
            continue
        taken.add(name)
        obj = _object(facts, name, item.key, summary)
        effects.append(Effect("create", obj, status=_status(facts, obj, item, summary)))
    return effects


def _object(facts: Facts, name: str, key: str, summary: ManifestSummary) -> dict[str, Any]:
    labels = {SCHEDULE: summary.schedule} if summary.schedule and len(summary.schedule) <= LABEL_LIMIT else {}
    return {
        "apiVersion": API_VERSION,
        "kind": "DatabaseBackup",
        "metadata": {"name": name, "namespace": facts.obj["metadata"]["namespace"], "labels": labels},
        "spec": {
            "origin": "Discovered",
            "artifactKey": key,
            "storageRef": {"name": facts.name},
            "format": summary.artifact.format,
            "deletionPolicy": "Retain",
        },
    }


def _status(facts: Facts, obj: Raw, item: InventoryItem, summary: ManifestSummary) -> dict[str, Any]:
    """The status as the backup's own run would have left it."""
    s3 = facts.obj["spec"]["s3"]
    artifact = {
        "storage": facts.name,
        **{field: s3[field] for field in ("bucket", "prefix", "endpoint") if s3.get(field)},
        **summary.artifact.model_dump(mode="json", by_alias=True, exclude={"size_bytes"}, exclude_none=True),
        "key": item.key,
        "ownerUid": summary.owner.uid,
    }
    size = summary.artifact.size_bytes
    message = f"found in the bucket: {item.key}"
    generation = obj["metadata"].get("generation", 1)
    status: dict[str, Any] = {
        "phase": "Completed",
        "origin": "Discovered",
        "observedGeneration": generation,
        "conditions": conditions.build((), "done", "Discovered", message, generation=generation, now=facts.now),
        "startTime": timestamp(summary.started_at),
        "completionTime": timestamp(summary.finished_at),
        "duration": duration_text((summary.finished_at - summary.started_at).total_seconds()),
        "size": size_text(size),
        "sizeBytes": size,
        "artifact": artifact,
        "database": summary.database.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    if summary.expires_at is not None:
        status["expirationTime"] = timestamp(summary.expires_at)
    return {**status, "expires": expires_text(obj, status)}
