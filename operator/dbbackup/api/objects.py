"""What plan, handlers, plugin, console and metrics ask of an object as Kubernetes stores it. It
imports no models, so that all of them can use it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dbbackup.api.metadata import SCHEDULE
from dbbackup.contract.keys import parse_leaf

Raw = Mapping[str, Any]
"""An object, or a part of one, as the API server returns it. It is never changed in place."""
Draft = dict[str, Any]
"""An object, or a part of one, that is being built."""

TERMINAL = ("Completed", "Failed", "Expired")
"""Phases of backups and restores whose run is over."""
DELETED = "dbbackup.io/deleted"
"""The cache sets this key at the top of a deleted pod, whose last report still counts."""
EXPIRING = "Expiring"
"""Reason in the conditions of a backup that retention is removing."""


def artifact_key(obj: Raw) -> str | None:
    """The artifact's directory, as the status of a backup or restore records it."""
    key = ((obj.get("status") or {}).get("artifact") or {}).get("key")
    return str(key) if key else None


def annotation(obj: Raw, name: str) -> str | None:
    value = (obj["metadata"].get("annotations") or {}).get(name)
    return None if value is None else str(value)


def condition(obj: Raw | None, kind: str) -> Raw | None:
    """The condition of that type, if its status is True."""
    for item in ((obj or {}).get("status") or {}).get("conditions") or ():
        if item.get("type") == kind and item.get("status") == "True":
            return item  # type: ignore[no-any-return]
    return None


def storage_name(obj: Raw) -> str:
    """The BackupStorage that the object refers to."""
    return str(((obj.get("spec") or {}).get("storageRef") or {}).get("name") or "default")


def schedule_name(obj: Raw) -> str | None:
    """The schedule that created the backup."""
    name = (obj["metadata"].get("labels") or {}).get(SCHEDULE)
    return str(name) if name else None


def expiring(obj: Raw) -> bool:
    """Whether retention has marked the backup for removal: a prune Job may be deleting its artifact
    already."""
    status = obj.get("status") or {}
    return status.get("phase") == "Deleting" and any(
        item.get("type") == "Ready" and item.get("reason") == EXPIRING for item in status.get("conditions") or ()
    )


def source_name(obj: Raw) -> str | None:
    """The DatabaseBackup that the restore names, if it names one."""
    reference = ((obj.get("spec") or {}).get("source") or {}).get("backupRef") or {}
    return reference.get("name")


def source_schedule(obj: Raw) -> str | None:
    """The DatabaseBackupSchedule whose newest good backup the restore wants."""
    reference = ((obj.get("spec") or {}).get("source") or {}).get("scheduleRef") or {}
    return reference.get("name")


def artifact_uid(obj: Raw) -> str:
    """The owner's UID in the artifact's manifest: for a discovered backup, that of its first
    object."""
    recorded = ((obj.get("status") or {}).get("artifact") or {}).get("ownerUid")
    return str(recorded or obj["metadata"]["uid"])


def made_at(obj: Raw) -> datetime:
    """When the backup was requested: its creationTimestamp, or for a discovered one the time in its
    artifact's key."""
    key = artifact_key(obj) if (obj.get("spec") or {}).get("origin") == "Discovered" else None
    leaf = parse_leaf(key.rsplit("/", 1)[-1]) if key else None
    return leaf.time if leaf else datetime.fromisoformat(obj["metadata"]["creationTimestamp"])
