"""The status of a run, phase by phase. Each function takes the status as it stands and returns it
as it should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from dbbackup.api import conditions
from dbbackup.api.conditions import timestamp
from dbbackup.api.metadata import PIN
from dbbackup.api.objects import annotation
from dbbackup.api.units import duration_text, size_text
from dbbackup.contract.errors import REASONS
from dbbackup.contract.model import Model
from dbbackup.contract.report import LogEvent, Report
from dbbackup.contract.run import RunSpec
from dbbackup.plan.facts import Facts
from dbbackup.plan.observe import RunState, instant, of_run
from dbbackup.text import cut, few

Status = dict[str, Any]

LOOK_AGAIN = timedelta(seconds=5)
"""After which something that no watch tells is looked at again."""
TAIL_LINES = 20
TAIL_LIMIT = 8000
# What follows keeps within the CRDs: a status that breaks one limit is refused whole, and the run's
# end would never be told.
MESSAGE_LIMIT = 4000
WARNING_LIMIT = 2000
WARNINGS = 16
_READ = {"database.identity": 512, "database.name": 255, "database.serverVersion": 128, "progress.phase": 64}
_LOOKED_UP = {
    "artifact.key": 1024,
    "artifact.sha256": 64,
    "artifact.manifestSha256": 64,
    "safetyBackup.key": 1024,
    "safetyBackup.sha256": 64,
    "safetyBackup.manifestSha256": 64,
    "transactionID": 32,
}


def capped(warnings: Sequence[str]) -> list[str]:
    """At most WARNINGS, each cut; the last one then says how many more there are."""
    return few((cut(warning, WARNING_LIMIT) for warning in warnings), WARNINGS)


def bounded(value: Any, path: str = "") -> Any:
    """A status with its texts within the CRDs' limits: what people read is cut, what is looked up
    is left out, as half a key leads nowhere."""
    if isinstance(value, Mapping):
        inner = {key: bounded(child, f"{path}.{key}" if path else key) for key, child in value.items()}
        return {key: child for key, child in inner.items() if child is not None}
    if path in _LOOKED_UP:
        return value if len(value) <= _LOOKED_UP[path] else None
    return cut(value, _READ[path]) if path in _READ else value


def _dump(model: Model, **more: Any) -> dict[str, Any]:
    return {**model.model_dump(mode="json", by_alias=True, exclude_none=True), **more}


def _before(facts: Facts) -> Status:
    """The status as it stands, without what holds only as long as it is said again."""
    return {key: value for key, value in facts.status.items() if key != "waitingSince"}


def stated(
    obj: Mapping[str, Any], now: datetime, status: Mapping[str, Any], state: conditions.State, reason: str, message: str, *, finishes: bool = True
) -> Status:
    """The status of `obj` with the conditions of that state; `finishes` as for
    `conditions.build`."""
    generation = obj["metadata"].get("generation", 1)
    built = conditions.build(status.get("conditions") or (), state, reason, message, generation=generation, now=now, finishes=finishes)
    return {**status, "observedGeneration": generation, "conditions": built}


def observed(obj: Mapping[str, Any], status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same status, seen to be that of the object's present spec: who waits for it (kstatus,
    Argo CD) takes an older one for work in progress."""
    generation = obj["metadata"].get("generation", 1)
    if status.get("observedGeneration", generation) == generation:
        return status
    told = [{**condition, "observedGeneration": generation} for condition in status.get("conditions") or ()]
    return {**status, "observedGeneration": generation, "conditions": told}


def _with(facts: Facts, phase: str, state: conditions.State, reason: str, message: str, status: Status) -> Status:
    told = {**bounded(status), **_job_name(facts, status), "phase": phase, "conditions": status.get("conditions") or ()}
    return stated(facts.obj, facts.now, told, state, reason, message)


def _job_name(facts: Facts, status: Status) -> Status:
    """The Job's name where the status lacks it: an operator that is killed between the Job and the
    status leaves it to the next one."""
    if "jobName" in status:
        return {}
    jobs = of_run(facts.jobs, facts.uid, "backup" if facts.obj["kind"] == "DatabaseBackup" else "restore")
    return {"jobName": jobs[0]["metadata"]["name"]} if jobs else {}


def _tries(facts: Facts, run: RunState) -> Status:
    # Only backups are tried more than once.
    if facts.obj["kind"] != "DatabaseBackup" or not run.attempts:
        return {}
    return {"attempts": max(run.attempts, facts.status.get("attempts", 0))}


def pending(facts: Facts, reason: str, message: str, **more: Any) -> Status:
    return _with(facts, "Pending", "progressing", reason, message, {**_before(facts), **more})


def waiting_since(facts: Facts, reason: str) -> datetime:
    """When the object began to wait for that reason; now where it did not before. Time without an
    operator does not count."""
    ready = conditions.find(facts.status.get("conditions") or (), "Ready") or {}
    since = instant(facts.status.get("waitingSince")) if ready.get("reason") == reason else None
    return max(since, facts.settings.started_at) if since else facts.now


def running(facts: Facts, run: RunState, reason: str, message: str) -> Status:
    """Going on, or between attempts."""
    status = {**_before(facts), **_tries(facts, run)}
    if run.started_at and "startTime" not in status:
        status["startTime"] = timestamp(run.started_at)
    if facts.log.xid and facts.obj["kind"] == "DatabaseRestore":
        status["transactionID"] = facts.log.xid
    return _with(facts, "Running", "progressing", reason, message, {**status, **_live(facts, status)})


def _live(facts: Facts, status: Status) -> Status:
    """Progress and key as the log tells them, at most once in `settings.progress_interval`."""
    began = instant(status.get("startTime")) or facts.now
    shown = instant((status.get("progress") or {}).get("updatedAt"))
    interval = facts.settings.progress_interval
    if facts.now - began < interval or (shown is not None and facts.now - shown < interval):
        return {}
    live: Status = {}
    if facts.log.key and facts.obj["kind"] == "DatabaseBackup":
        live["artifact"] = {**(status.get("artifact") or {}), "key": facts.log.key}
    if facts.log.progress:
        progress = _dump(facts.log.progress)
        before = {key: value for key, value in (status.get("progress") or {}).items() if key != "updatedAt"}
        if progress != before:
            live["progress"] = {**progress, "updatedAt": timestamp(facts.now)}
    return live


def _ended(facts: Facts, run: RunState, report: Report | None) -> Status:
    status = {key: value for key, value in _before(facts).items() if key not in ("progress", "failure")}
    status.update(_tries(facts, run))
    began = instant(status.get("startTime")) or run.started_at or (report.started_at if report else None)
    ended = report.finished_at if report else facts.now
    if began:
        status["startTime"] = timestamp(began)
        status["duration"] = duration_text(max((ended - began).total_seconds(), 0))
    status["completionTime"] = timestamp(ended)
    if report and report.database:
        status["database"] = _dump(report.database)
    if report and report.warnings:
        status["warnings"] = capped(report.warnings)
    if report and report.safety_backup:
        status["safetyBackup"] = {**(status.get("safetyBackup") or {}), **_dump(report.safety_backup)}
    return status


def completed(facts: Facts, run: RunState, report: Report, spec: RunSpec | None) -> Status:
    """`report` says Succeeded. `spec` is what the run was told."""
    status = _ended(facts, run, report)
    told = {key: value for key, value in _dump(report.artifact).items() if key != "sizeBytes"} if report.artifact else {}
    if artifact := {**(status.get("artifact") or {}), **(artifact_fields(spec) if spec else {}), **told}:
        status["artifact"] = artifact
    if facts.obj["kind"] == "DatabaseBackup" and report.artifact:
        status["sizeBytes"], status["size"] = report.artifact.size_bytes, size_text(report.artifact.size_bytes)
    if spec is not None and spec.run in ("backup", "check") and spec.lifetime is not None and spec.lifetime.expires_at is not None:
        status["expirationTime"] = timestamp(spec.lifetime.expires_at)
    if facts.obj["kind"] == "DatabaseBackup":
        status["expires"] = expires_text(facts.obj, status)
    if report.restored:
        status["restored"] = _dump(report.restored)
    if report.safety_backup and spec is not None:
        status["safetyBackup"] = {**status["safetyBackup"], "storage": spec.storage.name}
    return _with(facts, "Completed", "done", "Completed", success_message(report), status)


def completed_again(facts: Facts, status: Status, message: str) -> Status:
    """Of an artifact that was taken for lost."""
    return _with(facts, "Completed", "done", "Completed", message, status)


def expires_text(obj: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    """status.expires, for people: when the artifact goes, as far as the backup itself knows."""
    if annotation(obj, PIN) == "true":
        return "pinned"
    moment = status.get("expirationTime")
    return str(moment)[:16].replace("T", " ") if moment else "never"


def success_message(report: Report) -> str:
    if report.restored:
        rows = report.restored.rows
        return f"restored {report.restored.tables} tables" if rows is None else f"restored {rows} rows of {report.restored.tables} tables"
    if report.artifact:
        return f"stored {size_text(report.artifact.size_bytes)} at {report.artifact.key}"
    return "settled by a check: the run had succeeded"


def artifact_fields(spec: RunSpec) -> Status:
    """Where an artifact lies, so that its status alone is enough to find it; of a restore also its
    key, and its manifest's pinned digest."""
    storage, source = spec.storage, spec.restore
    fields = {"storage": storage.name, "bucket": storage.bucket, "prefix": storage.prefix, "endpoint": storage.endpoint}
    if source is not None:
        fields.update(key=source.key, manifestSha256=source.manifest_sha256)
    return {key: value for key, value in fields.items() if value}


def failure(reason: str, message: str, hint: str | None = None, tail: Sequence[str] | None = None) -> dict[str, Any]:
    """status.failure. A reason that this version does not know (an older Job's) is told as it
    is."""
    known = REASONS.get(reason)
    told = {
        "reason": cut(reason, 64) or "InternalError",
        "message": cut(message, MESSAGE_LIMIT),
        "hint": cut(hint or (known.hint if known else ""), MESSAGE_LIMIT),
        "retryable": bool(known and known.retryable),
    }
    text = "\n".join([text for line in tail or () if (text := readable(line))][-TAIL_LINES:])
    return {**told, "logTail": text[-TAIL_LIMIT:]} if text else told


def failed(facts: Facts, run: RunState, told: Mapping[str, Any], report: Report | None = None) -> Status:
    """Failed for good; `told` is from `failure`."""
    status = {**_ended(facts, run, report), "failure": dict(told)}
    return _with(facts, "Failed", "failed", str(told["reason"]), str(told["message"]), status)


def put_condition(existing: Sequence[Mapping[str, Any]], kind: str, told: bool, reason: str, message: str, facts: Facts) -> list[dict[str, Any]]:
    """The conditions with one of a type of its own set."""
    before = conditions.find(existing, kind)
    status = "True" if told else "False"
    since = before["lastTransitionTime"] if before is not None and before.get("status") == status else timestamp(facts.now)
    own = {
        "type": kind,
        "status": status,
        "observedGeneration": facts.obj["metadata"].get("generation", 1),
        "lastTransitionTime": since,
        "reason": reason,
        "message": cut(message, MESSAGE_LIMIT),
    }
    return [*(dict(item) for item in existing if item.get("type") != kind), own]


def deleting(facts: Facts, message: str) -> Status:
    return _with(facts, "Deleting", "progressing", "Deleting", message, _before(facts))


def readable(line: str) -> str:
    """A log line as a person reads it: the Job logs JSON, other programs don't. Empty for one that
    says nothing to people, such as bare progress."""
    try:
        event = LogEvent.model_validate_json(line)
    except ValueError:
        return cut(line, 500)
    if not event.message:
        return ""
    return cut(f"{event.ts:%H:%M:%S} {event.level} {event.message}", 500)


def since(moment: datetime | None, now: datetime) -> float:
    """Seconds since then; 0 where there is no such time."""
    return 0.0 if moment is None else (now - moment).total_seconds()
