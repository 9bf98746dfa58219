"""Candidates for retention, from DatabaseBackup objects and from artifacts without one; and the
policies and approvals of schedules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from dbbackup.api.conditions import instant
from dbbackup.api.metadata import APPROVE_PRUNE, PIN
from dbbackup.api.objects import TERMINAL, Raw, annotation, artifact_key, expiring, made_at, schedule_name, source_name, storage_name
from dbbackup.api.specs import SpecError, parse_schedule
from dbbackup.contract.report import ManifestSummary
from dbbackup.plan.retention import Candidate, Group, Policy

UNREADABLE = Policy(min_keep=1 << 30)


def lies_in(storage: Raw, obj: Raw) -> bool:
    """Whether the artifact lies in that BackupStorage's bucket: a BackupStorage that was created
    again under the same name may name another bucket."""
    artifact, s3 = (obj.get("status") or {}).get("artifact") or {}, storage["spec"]["s3"]
    return "bucket" not in artifact or (artifact["bucket"], artifact.get("endpoint")) == (s3.get("bucket"), s3.get("endpoint"))


def readers(restores: Iterable[Raw]) -> dict[str, str]:
    """What restores that are not over may read: key of an artifact, or `=` and the name of a backup
    -> the restore."""
    found: dict[str, str] = {}
    for obj in restores:
        status = obj.get("status") or {}
        if status.get("phase") in TERMINAL:
            continue
        reader = f"DatabaseRestore {obj['metadata']['name']}"
        source = (obj.get("spec") or {}).get("source") or {}
        for key in (artifact_key(obj), (source.get("artifact") or {}).get("key")):
            if key:
                found[str(key).strip("/")] = reader
        if name := source_name(obj):
            found[f"={name}"] = reader
    return found


def of_backup(obj: Raw, reading: Mapping[str, str]) -> Candidate | None:
    """The candidate of a backup; None if its artifact is gone, or the object is being deleted."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    phase = status.get("phase")
    if phase == "Expired" or metadata.get("deletionTimestamp"):
        return None
    outcome: Literal["good", "failed", "running", "going"] = (
        "going" if expiring(obj) else "good" if phase == "Completed" else "failed" if phase == "Failed" else "running"
    )
    key = artifact_key(obj)
    name = str(metadata["name"])
    return Candidate(
        name=name,
        uid=str(metadata["uid"]),
        storage=storage_name(obj),
        identity=(status.get("database") or {}).get("identity"),
        database=((obj.get("spec") or {}).get("database") or {}).get("name"),
        time=made_at(obj),
        outcome=outcome,
        schedule=schedule_name(obj),
        pinned=annotation(obj, PIN) == "true",
        in_use=reading.get(f"={name}") or (reading.get(key) if key else None),
        expires_at=instant(status.get("expirationTime")),
    )


def of_artifact(key: str, summary: ManifestSummary, storage: str, reading: Mapping[str, str]) -> Candidate:
    """The candidate of an artifact whose object is gone, named by its key."""
    return Candidate(
        name=key,
        uid=summary.owner.uid,
        storage=storage,
        identity=summary.database.identity,
        database=summary.database.name,
        time=summary.owner.created_at,
        outcome="good",
        schedule=summary.schedule,
        pinned=False,
        in_use=reading.get(key),
        expires_at=summary.expires_at,
        orphan=True,
    )


def policies(schedules: Sequence[Raw]) -> dict[str, Policy]:
    """Retention of each schedule. If its spec cannot be read, nothing is removed."""
    found: dict[str, Policy] = {}
    for obj in schedules:
        try:
            spec = parse_schedule(obj)
        except SpecError:
            found[str(obj["metadata"]["name"])] = UNREADABLE
            continue
        found[str(obj["metadata"]["name"])] = Policy.of(spec.retention, spec.time_zone)
    return found


def approvals(schedules: Sequence[Raw]) -> dict[Group, str]:
    """The token of the prune that a person has approved, for each schedule."""
    return {Group(schedule=str(obj["metadata"]["name"])): token for obj in schedules if (token := annotation(obj, APPROVE_PRUNE))}
