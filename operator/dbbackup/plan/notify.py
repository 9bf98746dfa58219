"""Which notifications are sent, and when: failures, the first success after one, successes.

A notification that is owed is recorded on the object: the status that says how a run ended contains
condition `Notified` with status Unknown, in the same write. So an operator that was killed before a
receiver answered finds it again, and sends it once more with the same id.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from dbbackup.api import conditions
from dbbackup.api.conditions import instant, timestamp
from dbbackup.api.metadata import REQUESTED_BY, SCHEDULE, SUSPEND
from dbbackup.api.objects import TERMINAL, Raw, annotation, artifact_key
from dbbackup.contract.model import Model
from dbbackup.plan.facts import Note
from dbbackup.plan.sinks import EventName, Sink
from dbbackup.text import cut

NOTIFIED = "Notified"
TEXT_LIMIT = 2000
STORAGE_TRIES = 2
"""Failed checks of a storage in a row before a notification is sent: a single one may be a server
that restarts."""
SCHEDULE_NOTES = ("DiscoveryFailed", "RunMissed", "RunRefused")
"""Events of a schedule that no failed backup shows."""
RUNS = ("DatabaseBackup", "DatabaseRestore")


@dataclass(frozen=True, slots=True)
class Notification:
    """What to tell people about an object."""

    event: EventName
    reason: str
    message: str


class ObjectRef(Model):
    """The object of the message."""

    kind: Annotated[str, Field(description="BackupStorage, DatabaseBackup, DatabaseBackupSchedule or DatabaseRestore.")]
    namespace: Annotated[str, Field(description="Its namespace.")]
    name: Annotated[str, Field(description="Its name.")]
    uid: Annotated[str, Field(description="Its UID: another object of the same name has another.")]


class ArtifactRef(Model):
    """The artifact that a backup has stored, or that a restore restores."""

    storage: Annotated[str | None, Field(description="Name of the BackupStorage.")] = None
    bucket: Annotated[str | None, Field(description="Bucket.")] = None
    key: Annotated[str | None, Field(description="Directory of the artifact in the bucket.")] = None
    size_bytes: Annotated[int | None, Field(description="Size as it is stored, in bytes.")] = None


class Payload(Model):
    """What a webhook receives. It contains no rows of a database and no secret: messages are those
    of the object's status."""

    version: Annotated[Literal[1], Field(description="Version of this format. Fields may be added; the meaning of a field never changes.")] = 1
    id: Annotated[str, Field(description="The same each time that this event is sent: a receiver ignores an id that it has seen.")]
    event: Annotated[EventName, Field(description="What has happened: `recovery` is the first success after a failure.")]
    time: Annotated[str, Field(description="When it happened, RFC 3339 in UTC.")]
    sink: Annotated[str, Field(description="Name of the sink in the chart's values.")]
    object: Annotated[ObjectRef, Field(description="What it happened to.")]
    reason: Annotated[str, Field(description="Why, as one CamelCase word; for a failed run one of docs/failure-reasons.md.")]
    message: Annotated[str, Field(description="Why, for people.")]
    hint: Annotated[str | None, Field(description="What to do, for a run that failed.")] = None
    schedule: Annotated[str | None, Field(description="The schedule that created the backup.")] = None
    database: Annotated[str | None, Field(description="Identity of the database, host:port/name, once the run has found it.")] = None
    requested_by: Annotated[str | None, Field(description="Who asked for the object, if that is known: see docs/audit.md.")] = None
    artifact: Annotated[ArtifactRef | None, Field(description="Where the artifact lies.")] = None
    start_time: Annotated[str | None, Field(description="When the run began.")] = None
    completion_time: Annotated[str | None, Field(description="When the run ended.")] = None
    duration: Annotated[str | None, Field(description="How long it took, such as 4s or 1m 5s.")] = None


# Which changes are notified


def notification(obj: Raw, status: Raw, notes: Sequence[Note] = (), others: Callable[[], Iterable[Raw]] = tuple) -> Notification | None:
    """The notification for the step from `obj` as it is to `status`, or None. `others()` gathers
    the objects of its kind in its namespace."""
    if obj["kind"] in RUNS:
        return _run(obj, status, others)
    return _storage(obj, status) if obj["kind"] == "BackupStorage" else _schedule(obj, status, notes)


def _run(obj: Raw, status: Raw, others: Callable[[], Iterable[Raw]]) -> Notification | None:
    before, phase = (obj.get("status") or {}).get("phase"), status.get("phase")
    if phase == before or phase not in ("Completed", "Failed"):
        return None
    ready = conditions.find(status.get("conditions") or (), "Ready") or {}
    message = str(ready.get("message") or "")
    if phase == "Failed":
        failure = status.get("failure") or {}
        return Notification("failure", str(failure.get("reason") or "Failed"), str(failure.get("message") or message))
    if before == "Failed":
        return Notification("recovery", "ArtifactFound", message)
    if (obj.get("spec") or {}).get("origin") == "Discovered":
        return None  # an import, not a run
    return Notification("recovery" if _failed_before(obj, others()) else "success", "Completed", message)


def _failed_before(obj: Raw, others: Iterable[Raw]) -> bool:
    """Whether the last run of the same database, by the same schedule if one made it, failed."""
    subject, uid = _subject(obj), obj["metadata"]["uid"]
    ended = [
        other
        for other in others
        if other["metadata"]["uid"] != uid and (other.get("status") or {}).get("phase") in TERMINAL and _subject(other) == subject
    ]
    newest = max(ended, key=lambda other: (str(other["status"].get("completionTime") or ""), other["metadata"]["creationTimestamp"]), default=None)
    return newest is not None and newest["status"]["phase"] == "Failed"


def _subject(obj: Raw) -> tuple[str, str, str]:
    database = (obj.get("spec") or {}).get("database") or {}
    return obj["kind"], _schedule_of(obj) or "", json.dumps(database, sort_keys=True)


def _schedule_of(obj: Raw) -> str | None:
    return (obj["metadata"].get("labels") or {}).get(SCHEDULE)


def _storage(obj: Raw, status: Raw) -> Notification | None:
    before = obj.get("status") or {}
    ready = conditions.find(status.get("conditions") or (), "Ready") or {}
    if _unusable(status) != _unusable(before):
        event: EventName = "failure" if _unusable(status) else "recovery"
        return Notification(event, str(ready.get("reason") or "NotReady"), str(ready.get("message") or ""))
    full = conditions.find(status.get("conditions") or (), "NearCapacity") or {}
    if _near_capacity(status) != _near_capacity(before):
        return Notification("failure" if _near_capacity(status) else "recovery", "NearCapacity", str(full.get("message") or ""))
    return None


def _unusable(status: Raw) -> bool:
    return conditions.is_true(status.get("conditions") or (), "Stalled") or int(status.get("checkFailures") or 0) >= STORAGE_TRIES


def _near_capacity(status: Raw) -> bool:
    return conditions.is_true(status.get("conditions") or (), "NearCapacity")


def _schedule(obj: Raw, status: Raw, notes: Sequence[Note]) -> Notification | None:
    before = obj.get("status") or {}
    old, new = (conditions.find(item.get("conditions") or (), "Ready") or {} for item in (before, status))
    reasons = (str(old.get("reason") or ""), str(new.get("reason") or ""))
    for note in notes:
        if note.reason in SCHEDULE_NOTES and not (note.reason == "RunRefused" == reasons[0]):
            return Notification("failure", note.reason, note.message)
    broken = [conditions.is_true(item.get("conditions") or (), "Stalled") for item in (before, status)]
    if broken[0] != broken[1]:
        return Notification("failure" if broken[1] else "recovery", reasons[1], str(new.get("message") or ""))
    mark = conditions.find(before.get("conditions") or (), NOTIFIED)
    succeeded = status.get("lastSuccessfulTime")
    if mark is not None and mark.get("reason") == "Failure" and succeeded and succeeded != before.get("lastSuccessfulTime"):
        return Notification("recovery", "RunSucceeded", f"a run has succeeded at {succeeded}")
    return None


# What is owed, as the object's status records it


def with_owed(status: Raw, what: Notification, obj: Raw, now: datetime) -> dict[str, Any]:
    """The status with the mark that the notification has not been sent yet."""
    message = cut(f"{what.reason}: {what.message}", TEXT_LIMIT)
    return _with_mark(status, obj, now, "Unknown", what.event.capitalize(), message)


def owed(obj: Raw) -> Notification | None:
    """The notification that the object still owes, or None."""
    mark = conditions.find((obj.get("status") or {}).get("conditions") or (), NOTIFIED)
    if mark is None or mark.get("status") != "Unknown":
        return None
    event = str(mark.get("reason") or "").lower()
    if event not in ("failure", "recovery", "success"):
        return None
    reason, _, message = str(mark.get("message") or "").partition(": ")
    return Notification(event, reason, message)  # type: ignore[arg-type]


def settled(obj: Raw, what: Notification, given_up: Mapping[str, str], sinks: Sequence[str], now: datetime) -> dict[str, Any]:
    """The status once every sink has taken the notification or was given up (sink -> why)."""
    if given_up:
        message = "; ".join(f"{name}: {why}" for name, why in given_up.items())
        return _with_mark(obj["status"], obj, now, "False", what.event.capitalize(), cut(f"not delivered to {message}", TEXT_LIMIT))
    return _with_mark(obj["status"], obj, now, "True", what.event.capitalize(), cut(f"delivered to {', '.join(sinks)}", TEXT_LIMIT))


def _with_mark(status: Raw, obj: Raw, now: datetime, value: str, reason: str, message: str) -> dict[str, Any]:
    """The mark's time is always the time of this write: it is part of the id."""
    mark = {
        "type": NOTIFIED,
        "status": value,
        "observedGeneration": obj["metadata"].get("generation", 1),
        "lastTransitionTime": timestamp(now),
        "reason": reason,
        "message": message,
    }
    others = [dict(item) for item in status.get("conditions") or () if item.get("type") != NOTIFIED]
    return {**status, "conditions": [*others, mark][-conditions.CONDITIONS :]}


def event_id(obj: Raw, what: Notification) -> str:
    """The id of the event: the same each time, in every operator."""
    mark = conditions.find((obj.get("status") or {}).get("conditions") or (), NOTIFIED) or {}
    moment = instant(mark.get("lastTransitionTime"))
    phase = (obj.get("status") or {}).get("phase") or what.reason
    return f"{obj['metadata']['uid']}-{phase.lower()}-{int(moment.timestamp()) if moment else 0}"


# Messages


def payload(obj: Raw, what: Notification, sink: str) -> Payload:
    """The message about the object, whose status says that it owes the notification."""
    status, metadata = obj.get("status") or {}, obj["metadata"]
    mark = conditions.find(status.get("conditions") or (), NOTIFIED) or {}
    database = status.get("database") or {}
    return Payload(
        id=event_id(obj, what),
        event=what.event,
        time=str(mark.get("lastTransitionTime") or ""),
        sink=sink,
        object=ObjectRef(kind=obj["kind"], namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"]),
        reason=what.reason,
        message=cut(what.message, TEXT_LIMIT),
        hint=(status.get("failure") or {}).get("hint") or None if what.event == "failure" else None,
        schedule=_schedule_of(obj),
        database=database.get("identity") or database.get("name"),
        requested_by=annotation(obj, REQUESTED_BY),
        artifact=_artifact_ref(obj, status),
        start_time=status.get("startTime"),
        completion_time=status.get("completionTime"),
        duration=status.get("duration"),
    )


def _artifact_ref(obj: Raw, status: Raw) -> ArtifactRef | None:
    artifact = status.get("artifact")
    if not artifact:
        return None
    return ArtifactRef(storage=artifact.get("storage"), bucket=artifact.get("bucket"), key=artifact_key(obj), size_bytes=status.get("sizeBytes"))


_HEADLINES = {
    ("failure", True): ":x: *{kind} {where} failed*",
    ("recovery", True): ":white_check_mark: *{kind} {where} works again*",
    ("success", True): ":white_check_mark: *{kind} {where} completed*",
    ("failure", False): ":warning: *{kind} {where} needs attention*",
    ("recovery", False): ":white_check_mark: *{kind} {where} recovered*",
}


def slack(message: Payload) -> dict[str, str]:
    """The message in the format of Slack's incoming webhooks, which Mattermost, Rocket.Chat and
    Discord's `/slack` accept too."""
    about = message.object
    headline = _HEADLINES[message.event, about.kind in RUNS].format(kind=about.kind, where=_escaped(f"{about.namespace}/{about.name}"))
    lines = [f"{headline}: {_escaped(message.reason)}", _escaped(message.message)]
    if message.hint:
        lines.append(f"_{_escaped(message.hint)}_")
    facts = [("database", message.database), ("duration", message.duration), ("requested by", message.requested_by)]
    if known := [f"{name}: {_escaped(value)}" for name, value in facts if value]:
        lines.append(" · ".join(known))
    return {"text": "\n".join(line for line in lines if line)}


def _escaped(text: str) -> str:
    """Escaped as Slack requires: otherwise a name could ping a whole channel, or show a link that
    leads elsewhere."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# Heartbeats


def missing_beat(schedules: Iterable[Raw], sink: Sink, now: datetime) -> str | None:
    """Why no heartbeat must be sent, or None: a schedule that the sink serves fails or is
    overdue."""
    for obj in schedules:
        if sink.serves(obj["metadata"]["namespace"]) and (why := overdue(obj, now, sink.patience)) is not None:
            return f"DatabaseBackupSchedule {obj['metadata']['namespace']}/{obj['metadata']['name']} {why}"
    return None


def overdue(obj: Raw, now: datetime, grace: timedelta) -> str | None:
    """What is wrong with a schedule's runs, or None; always None while it is suspended or being
    deleted."""
    status = obj.get("status") or {}
    if obj["metadata"].get("deletionTimestamp") or (obj.get("spec") or {}).get("suspend") or annotation(obj, SUSPEND) == "true":
        return None
    if conditions.is_true(status.get("conditions") or (), "Stalled"):
        return "cannot be used"
    if failures := int(status.get("consecutiveFailures") or 0):
        return f"has failed {failures} times in a row" if failures > 1 else "has failed"
    following, last, succeeded = (instant(status.get(name)) for name in ("nextScheduleTime", "lastScheduleTime", "lastSuccessfulTime"))
    if following is not None and now - following > grace:
        return f"has not created the run that was due at {timestamp(following)}"
    if last is not None and now - last > grace and (succeeded is None or succeeded < last):
        return f"has no good backup from its run of {timestamp(last)}"
    return None
