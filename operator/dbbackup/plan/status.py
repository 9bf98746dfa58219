"""The status of a run, phase by phase. Each function takes the present status and returns the one
to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from dbbackup.api import conditions
from dbbackup.api.conditions import instant, timestamp
from dbbackup.api.metadata import PIN
from dbbackup.api.objects import annotation
from dbbackup.api.units import duration_text, size_text
from dbbackup.contract.errors import REASONS
from dbbackup.contract.model import Model
from dbbackup.contract.report import LogEvent, Report
from dbbackup.contract.run import RunSpec
from dbbackup.plan.facts import Facts
from dbbackup.plan.observe import RunState, of_run
from dbbackup.text import cut, few

Status = dict[str, Any]

LOOK_AGAIN = timedelta(seconds=5)
"""When to look again at something that no watch reports."""
TAIL_LINES = 20
TAIL_LIMIT = 8000
# The limits below are those of the CRDs: the API server refuses a status that breaks one of them,
# and the end of the run would never be recorded.
MESSAGE_LIMIT = 4000
WARNING_LIMIT = 2000
WARNINGS = 16
_CUT = {"database.identity": 512, "database.name": 255, "database.serverVersion": 128, "progress.phase": 64}
_OMITTED = {
    "artifact.key": 1024,
    "artifact.sha256": 64,
    "artifact.manifestSha256": 64,
    "safetyBackup.key": 1024,
    "safetyBackup.sha256": 64,
    "safetyBackup.manifestSha256": 64,
    "transactionID": 32,
}


def capped(warnings: Sequence[str]) -> list[str]:
    """At most WARNINGS warnings, each cut; the last one then says how many more there are."""
    return few((cut(warning, WARNING_LIMIT) for warning in warnings), WARNINGS)


def bounded(value: Any, path: str = "") -> Any:
    """The status with its texts within the CRDs' limits: a text that people read is cut, a key or
    digest is left out, since half of one is of no use."""
    if isinstance(value, Mapping):
        inner = {key: bounded(child, f"{path}.{key}" if path else key) for key, child in value.items()}
        return {key: child for key, child in inner.items() if child is not None}
    if path in _OMITTED:
        return value if len(value) <= _OMITTED[path] else None
    return cut(value, _CUT[path]) if path in _CUT else value


def _dump(model: Model, **more: Any) -> dict[str, Any]:
    return {**model.model_dump(mode="json", by_alias=True, exclude_none=True), **more}


def _present(facts: Facts) -> Status:
    """The present status, without the field that holds only as long as it is written again."""
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
    """The same status, marked as observed for the present spec: kstatus and Argo CD take an older
    `observedGeneration` for work in progress."""
    generation = obj["metadata"].get("generation", 1)
    if status.get("observedGeneration", generation) == generation:
        return status
    marked = [{**condition, "observedGeneration": generation} for condition in status.get("conditions") or ()]
    return {**status, "observedGeneration": generation, "conditions": marked}


def _with(facts: Facts, phase: str, state: conditions.State, reason: str, message: str, status: Status) -> Status:
    new = {**bounded(status), **_job_name(facts, status), "phase": phase, "conditions": status.get("conditions") or ()}
    return stated(facts.obj, facts.now, new, state, reason, message)


def _job_name(facts: Facts, status: Status) -> Status:
    """The Job's name if the status lacks it: an operator may have been killed after it created the
    Job and before it wrote the status."""
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
    return _with(facts, "Pending", "progressing", reason, message, {**_present(facts), **more})


def waiting_since(facts: Facts, reason: str) -> datetime:
    """When the object began to wait for that reason; now if it does not wait for it yet. Time
    without an operator does not count."""
    ready = conditions.find(facts.status.get("conditions") or (), "Ready") or {}
    since = instant(facts.status.get("waitingSince")) if ready.get("reason") == reason else None
    return max(since, facts.settings.started_at) if since else facts.now


def running(facts: Facts, run: RunState, reason: str, message: str) -> Status:
    """The run is going on, or waits between two attempts."""
    status = {**_present(facts), **_tries(facts, run)}
    if run.started_at and "startTime" not in status:
        status["startTime"] = timestamp(run.started_at)
    if facts.log.xid and facts.obj["kind"] == "DatabaseRestore":
        status["transactionID"] = facts.log.xid
    return _with(facts, "Running", "progressing", reason, message, {**status, **_live(facts, status)})


def _live(facts: Facts, status: Status) -> Status:
    """Progress and key from the log, at most once in `settings.progress_interval`."""
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
    status = {key: value for key, value in _present(facts).items() if key not in ("progress", "failure")}
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
    """`report` says Succeeded. `spec` is the run's own."""
    status = _ended(facts, run, report)
    reported = {key: value for key, value in _dump(report.artifact).items() if key != "sizeBytes"} if report.artifact else {}
    if artifact := {**(status.get("artifact") or {}), **(artifact_fields(spec) if spec else {}), **reported}:
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
    """The artifact, which was missing, is in the bucket again."""
    return _with(facts, "Completed", "done", "Completed", message, status)


def expires_text(obj: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    """status.expires, for people: when the artifact is removed, as far as the backup itself
    says."""
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
    """Where an artifact lies, so that the status alone is enough to find it; for a restore also its
    key and the pinned digest of its manifest."""
    storage, source = spec.storage, spec.restore
    fields = {"storage": storage.name, "bucket": storage.bucket, "prefix": storage.prefix, "endpoint": storage.endpoint}
    if source is not None:
        fields.update(key=source.key, manifestSha256=source.manifest_sha256)
    return {key: value for key, value in fields.items() if value}


def failure(reason: str, message: str, hint: str | None = None, tail: Sequence[str] | None = None) -> dict[str, Any]:
    """status.failure. A reason that this version does not know (an older Job's) is kept as it
    is."""
    known = REASONS.get(reason)
    found = {
        "reason": cut(reason, 64) or "InternalError",
        "message": cut(message, MESSAGE_LIMIT),
        "hint": cut(hint or (known.hint if known else ""), MESSAGE_LIMIT),
        "retryable": bool(known and known.retryable),
    }
    text = "\n".join([text for line in tail or () if (text := readable(line))][-TAIL_LINES:])
    return {**found, "logTail": text[-TAIL_LIMIT:]} if text else found


def failed(facts: Facts, run: RunState, failure_status: Mapping[str, Any], report: Report | None = None) -> Status:
    """Failed for good; `failure_status` comes from `failure`."""
    status = {**_ended(facts, run, report), "failure": dict(failure_status)}
    return _with(facts, "Failed", "failed", str(failure_status["reason"]), str(failure_status["message"]), status)


def put_condition(existing: Sequence[Mapping[str, Any]], kind: str, holds: bool, reason: str, message: str, facts: Facts) -> list[dict[str, Any]]:
    """The conditions with that one set, outside of those that `conditions.build` makes."""
    before = conditions.find(existing, kind)
    status = "True" if holds else "False"
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
    return _with(facts, "Deleting", "progressing", "Deleting", message, _present(facts))


def readable(line: str) -> str:
    """A log line as a person reads it: the Job logs JSON, other programs don't. Empty for a line
    without a message, such as bare progress."""
    try:
        event = LogEvent.model_validate_json(line)
    except ValueError:
        return cut(line, 500)
    if not event.message:
        return ""
    return cut(f"{event.ts:%H:%M:%S} {event.level} {event.message}", 500)


def seconds_since(moment: datetime | None, now: datetime) -> float:
    """Seconds since `moment`; 0 if it is None."""
    return 0.0 if moment is None else (now - moment).total_seconds()
