"""What a Job and its pods say about a run.

The end of container `main` and the report that it left decide; the Job only says when no more
attempts come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import ValidationError

from dbbackup.api.conditions import instant
from dbbackup.api.metadata import OWNER_UID, RUN
from dbbackup.api.objects import DELETED, Raw, condition
from dbbackup.contract.errors import FINAL_EXIT_CODES, ReasonName
from dbbackup.contract.mounts import CONTAINER
from dbbackup.contract.report import Report
from dbbackup.contract.run import RunKind
from dbbackup.plan.jobs import job_name

LOST_POD_AFTER = timedelta(minutes=5)
"""A pod that should have ended so long ago is on a node that is gone."""
HELD_AFTER = timedelta(minutes=1)
"""A pod that runs for so long after container `main` has ended is kept alive by a sidecar, and the
Job controller starts no other pod beside it."""


def parse_report(text: str | None, uid: str, run: RunKind) -> Report | None:
    """The report in a termination message; None if it is not one, or is not about this object and
    run."""
    if not text:
        return None
    try:
        report = Report.model_validate_json(text)
    except ValidationError:
        return None
    if report.uid != uid or report.run != run:
        return None
    if report.outcome == "Failed":
        return report if report.failure else None
    promised = {
        "backup": report.artifact,
        "restore": report.restored,
        "inventory": report.inventory and report.pages,
        "prune": report.pages,
        "discover": report.pages,
    }.get(run, report)
    return report if promised else None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One pod of the run. `started`: its container has run. `live`: its container may still run."""

    pod: str
    started_at: datetime | None
    started: bool
    live: bool
    report: Report | None
    disruption: str | None
    exit_code: int | None
    out_of_memory: bool
    held: bool = False
    """Kept alive by a sidecar that does not end."""


def _attempt(pod: Raw, uid: str, run: RunKind, now: datetime) -> Attempt:
    metadata, status = pod["metadata"], pod.get("status") or {}
    state: Raw = {}
    for container in status.get("containerStatuses") or ():
        if container.get("name") == CONTAINER:
            state = container.get("state") or {}
    terminated, running = state.get("terminated"), state.get("running")
    deletion = instant(metadata.get("deletionTimestamp"))
    gone = bool(pod.get(DELETED)) or (deletion is not None and now > deletion + LOST_POD_AFTER)
    over = gone or terminated is not None or status.get("phase") in ("Succeeded", "Failed")
    disrupted = condition(pod, "DisruptionTarget")
    disruption = None
    if disrupted:
        disruption = disrupted.get("message") or disrupted.get("reason") or "disrupted"
    elif status.get("reason") == "Evicted":
        disruption = status.get("message") or "evicted"
    ended = terminated or {}
    return Attempt(
        pod=metadata["name"],
        started_at=instant((running or ended).get("startedAt")),
        started=terminated is not None or running is not None,
        live=not over,
        report=parse_report(ended.get("message"), uid, run),
        disruption=disruption,
        exit_code=ended.get("exitCode"),
        out_of_memory=ended.get("reason") == "OOMKilled",
        held=not gone and status.get("phase") == "Running" and now > (instant(ended.get("finishedAt")) or now) + HELD_AFTER,
    )


RunPhase = Literal["Absent", "Starting", "Running", "Retrying", "Reported", "Lost"]


@dataclass(frozen=True, slots=True)
class RunState:
    """Absent: neither Job nor pod. Starting: nothing has run yet. Retrying: between attempts;
    `report` is that of the last one. Reported: `report` is final.

    Lost: over, and a check must look: `reason` and `message` say what is known; `started` whether a
    container is known to have run. If there is a `report`, the outcome is known, and only what the
    run had stored could not be removed.
    """

    phase: RunPhase
    attempts: int = 0
    started: bool = False
    started_at: datetime | None = None
    pod: str | None = None
    report: Report | None = None
    reason: str = ""
    message: str = ""


def of_run(items: Sequence[Raw], uid: str, run: RunKind) -> list[Raw]:
    """The Jobs (or pods) of that run of the object, by their labels."""
    return [item for item in items if (labels := item["metadata"].get("labels") or {}).get(OWNER_UID) == uid and labels.get(RUN) == run]


def pods_of_run(pods: Sequence[Raw], name: str, uid: str, run: RunKind, named: str = "") -> list[Raw]:
    """The pods that the Job of that run of the object created, also after the Job is gone. By
    owner: any pod may have the labels."""
    expected = named or job_name(run, name, uid)
    return [pod for pod in of_run(pods, uid, run) if _made_by(pod, expected)]


def _made_by(pod: Raw, job: str) -> bool:
    return any(
        owner.get("controller") is True and owner.get("kind") == "Job" and owner.get("name") == job
        for owner in pod["metadata"].get("ownerReferences") or ()
    )


def job_over(job: Raw | None) -> Raw | None:
    """The condition after which the Job starts no more pods."""
    return condition(job, "Failed") or condition(job, "FailureTarget") or condition(job, "Complete") or condition(job, "SuccessCriteriaMet")


def observe(jobs: Sequence[Raw], pods: Sequence[Raw], name: str, uid: str, run: RunKind, now: datetime, named: str = "") -> RunState:
    """What is known about the run of that kind of the object with that name and UID. `named` is the
    Job's name, if the object has several such runs."""
    own = of_run(jobs, uid, run)
    if named:
        own = [job for job in own if job["metadata"]["name"] == named]
    job = own[0] if own else None
    made = pods_of_run(pods, name, uid, run, named)
    in_order = sorted(made, key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]))
    attempts = [_attempt(pod, uid, run, now) for pod in in_order]
    started = [attempt for attempt in attempts if attempt.started]
    status: Raw = (job or {}).get("status") or {}
    count = max(len(started), (status.get("failed") or 0) + (status.get("succeeded") or 0))
    relevant = started or attempts
    last = relevant[-1] if relevant else None
    first = min((a.started_at for a in started if a.started_at), default=None)

    def state(phase: RunPhase, **more: Any) -> RunState:
        return RunState(phase, count, bool(started), first, last.pod if last is not None else None, **more)

    for attempt in attempts:
        if attempt.report and attempt.report.outcome == "Succeeded":
            return state("Reported", report=attempt.report)
    if any(attempt.live and attempt.started for attempt in attempts):
        return state("Running")
    reported = last.report if last is not None else None
    if any(attempt.live for attempt in attempts):
        return state("Retrying" if started else "Starting", report=reported)
    over = job_over(job)
    if job is not None and job["metadata"].get("deletionTimestamp") and not over:
        over = {"reason": "Deleted"}
    if last is None and job is not None and not over:
        return state("Starting")
    if last is None and job is None:
        return state("Absent")
    again = _comes_again(job, over, attempts, run)
    if reported is not None and reported.failure is not None and not (reported.failure.retryable and again):
        return state(**_failed(run, reported, [attempt.report for attempt in started if attempt.report], count))
    if again:
        return state("Retrying" if started else "Starting", report=reported)
    reason, message = _why_lost(job, over, last)
    return state("Lost", reason=reason, message=message)


def _failed(run: RunKind, last: Report, reports: Sequence[Report], count: int) -> dict[str, Any]:
    """Phase, reason, message and report after the last of `count` attempts has failed for good;
    `reports` are of those attempts that left one."""
    lost = {"phase": "Lost", "reason": last.failure.reason, "message": last.failure.message} if last.failure else {}
    if run == "backup" and len(reports) < count:
        # An attempt without a report may have sealed an artifact, and a later one that failed may
        # not have seen the bucket.
        return lost
    if run in ("backup", "restore") and any(report.uncleared for report in reports):
        return {**lost, "report": last}
    return {"phase": "Reported", "report": last}


def _comes_again(job: Raw | None, over: Raw | None, attempts: Sequence[Attempt], run: RunKind) -> bool:
    """Whether the Job controller will start another pod, as far as this is known before it acts."""
    if job is None or over or (attempts and attempts[-1].held):
        return False
    counted = [attempt for attempt in attempts if not attempt.disruption or run == "restore"]
    if counted and counted[-1].exit_code in FINAL_EXIT_CODES:
        return False
    return len(counted) <= int(job["spec"].get("backoffLimit", 0))


def _why_lost(job: Raw | None, over: Raw | None, last: Attempt | None) -> tuple[ReasonName, str]:
    if last is not None and last.out_of_memory:
        return "OutOfMemory", f"pod {last.pod}: the container was killed for using more memory than its limit"
    if last is not None and last.disruption:
        return "Evicted", f"pod {last.pod}: {last.disruption}"
    if over and over.get("reason") == "DeadlineExceeded":
        return "DeadlineExceeded", f"the Job was stopped at its deadline: {over.get('message') or 'DeadlineExceeded'}"
    if last is not None and last.exit_code is not None:
        return "RunLost", f"pod {last.pod}: the container ended with exit code {last.exit_code} and left no report"
    if job is None or (over and over.get("reason") == "Deleted"):
        return "RunLost", "the Job was deleted before it could report"
    return "RunLost", f"the Job's pod was deleted before it could report ({(over or {}).get('reason') or 'no condition'})"
