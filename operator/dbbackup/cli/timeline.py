"""What happened to a backup or restore, in order of time: from its status, its conditions and its
Events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dbbackup.api.conditions import instant
from dbbackup.api.metadata import REQUESTED_BY, SCHEDULE
from dbbackup.api.units import duration_text
from dbbackup.cli.output import count, size


@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """`at` is RFC 3339 in UTC, so moments sort by time."""

    at: str
    order: int
    text: str
    kind: str = "own"


def timeline(obj: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> list[Moment]:
    """Oldest first."""
    status, metadata = obj.get("status") or {}, obj["metadata"]
    found = [Moment(metadata["creationTimestamp"], 0, _created(obj))]
    if status.get("startTime") and (obj.get("spec") or {}).get("origin") != "Discovered":
        waited = _between(metadata["creationTimestamp"], status["startTime"])
        found.append(Moment(status["startTime"], 1, "the run began" + (f", after waiting {waited}" if waited else "")))
    if status.get("completionTime"):
        found.append(Moment(status["completionTime"], 8, _ended(obj)))
    progress = status.get("progress") or {}
    if status.get("phase") == "Running" and progress.get("updatedAt"):
        share = f", {progress['percent']} %" if "percent" in progress else ""
        found.append(Moment(progress["updatedAt"], 7, f"now {progress.get('phase', 'running')}{share}"))
    if metadata.get("deletionTimestamp"):
        found.append(Moment(metadata["deletionTimestamp"], 9, "its deletion was requested"))
    if status.get("expirationTime") and status.get("phase") == "Completed":
        found.append(Moment(status["expirationTime"], 9, "its time to live ends", "future"))
    for event in events:
        at = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
        times = f" ({event['count']} times)" if event.get("count", 1) > 1 else ""
        kind = "warning" if event.get("type") == "Warning" else "event"
        found.append(
            Moment(str(at).split(".", maxsplit=1)[0].rstrip("Z") + "Z", 5, f"{event.get('reason', '')}: {event.get('message', '')}{times}", kind)
        )
    return sorted(found)


def _created(obj: Mapping[str, Any]) -> str:
    metadata = obj["metadata"]
    by = (metadata.get("annotations") or {}).get(REQUESTED_BY)
    schedule = (metadata.get("labels") or {}).get(SCHEDULE)
    if (obj.get("spec") or {}).get("origin") == "Discovered":
        return "created from an artifact in the bucket"
    who = f" by schedule {schedule}" if schedule else f" by {by}" if by else ""
    return "created" + who


def _ended(obj: Mapping[str, Any]) -> str:
    status = obj["status"]
    took = f" after {status['duration']}" if status.get("duration") else ""
    if status.get("phase") == "Failed":
        return f"failed{took}: {(status.get('failure') or {}).get('reason', '')}"
    attempts = f", in attempt {status['attempts']}" if (status.get("attempts") or 1) > 1 else ""
    stored = f", {status.get('size') or size(status['sizeBytes'])} stored" if status.get("sizeBytes") else ""
    restored = status.get("restored") or {}
    taken = f", {count(restored['tables'], 'table')} restored" if "tables" in restored else ""
    return f"done{took}{attempts}{stored}{taken}"


def _between(first: str, second: str) -> str:
    start, end = instant(first), instant(second)
    seconds = (end - start).total_seconds() if start and end else 0.0
    return duration_text(seconds) if seconds >= 1 else ""


def summary_fields(obj: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines above the timeline, as (name, value)."""
    status, spec = obj.get("status") or {}, obj.get("spec") or {}
    artifact, database = status.get("artifact") or {}, status.get("database") or {}
    found: list[tuple[str, object]] = [
        ("Phase", status.get("phase") or "Pending"),
        ("Database", database.get("identity") or (spec.get("database") or {}).get("name")),
        ("Server", database.get("serverVersion")),
        ("TLS", None if "tls" not in database else "yes" if database["tls"] else "no"),
    ]
    if obj["kind"] == "DatabaseRestore":
        restored, safety = status.get("restored") or {}, status.get("safetyBackup") or {}
        found += [
            ("Source", status.get("source")),
            ("On existing", spec.get("onExisting")),
            ("Restored", f"{count(restored['tables'], 'table')}, {restored.get('rows', 'uncounted')} rows" if restored else None),
            ("Safety backup", f"{safety['key']} (storage {safety.get('storage')})" if safety else None),
        ]
    else:
        contents = f"{count(database['tables'], 'table')}, {database.get('rows', 'uncounted')} rows" if "tables" in database else None
        found += [
            ("Contents", contents),
            ("Size", f"{status['size']} ({status.get('sizeBytes')} bytes)" if status.get("size") else None),
            ("Format", " ".join(str(artifact[key]) for key in ("format", "compression") if artifact.get(key)) or spec.get("format")),
            ("Expires", status.get("expires")),
            ("When deleted", {"Retain": "the artifact is kept", "Delete": "the artifact is deleted too"}.get(spec.get("deletionPolicy", ""))),
        ]
    storage = artifact.get("storage") or (spec.get("storageRef") or {}).get("name")
    found += [("Storage", storage), ("Key", artifact.get("key")), ("SHA-256", artifact.get("sha256")), ("Job", status.get("jobName"))]
    return [(name, str(value)) for name, value in found if value]
