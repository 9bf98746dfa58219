"""What backups and restores have in common, from the request for a Job to the end of the run. What
comes before differs (`PlannedRun`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from pydantic import ValidationError

from dbbackup.api.conditions import instant, timestamp
from dbbackup.api.objects import DELETED, Raw
from dbbackup.api.specs import JobSettings
from dbbackup.contract.errors import ReasonName
from dbbackup.contract.mounts import CONTAINER, ENVIRONMENT
from dbbackup.contract.report import Report
from dbbackup.contract.run import CheckOptions, RunKind, RunSpec
from dbbackup.plan import pending_reason
from dbbackup.plan import status as statuses
from dbbackup.plan.facts import Decision, Facts, Note
from dbbackup.plan.jobs import SMALL_RUN_SECONDS, job_manifest
from dbbackup.plan.observe import RunState, observe, of_run, pods_of_run
from dbbackup.text import cut

QUIET_START = 3.0
"""Seconds that a pod may take to start before Events are read for the reason. With the image on the
node it starts in about one."""
CHECKED_LIMIT = 1000
"""Characters of a lost run's message that its check gets and repeats in its report, which has room
for 4 KiB."""
UNSEEN_BACKUP = (
    "Once the storage answers, look for manifest.json in the backup's directory (docs/bucket.md): with it the artifact is whole and can be restored"
    " by `source.artifact`; without it delete the directory, and create a new backup."
)


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One object's run as its spec wants it. `spec` is None if it cannot be built, because what the
    object refers to does not exist."""

    kind: Literal["backup", "restore"]
    spec: RunSpec | None
    start_deadline: timedelta
    job: JobSettings
    retries: int = 0
    source: str = ""
    """For a restore: `status.source`."""
    keeps_artifact: bool = True
    """False with deletionPolicy Delete: then the finalizer must be added before the Job."""

    def manifest(self, facts: Facts, spec: RunSpec) -> dict[str, Any]:
        return job_manifest(facts.obj, spec, facts.settings, self.start_deadline, overrides_of(self.job, spec.run), self.retries)


def overrides_of(job: JobSettings, run: RunKind) -> dict[str, Any]:
    """`spec.job` as it is applied to a Job. Its resources are for the run itself: a check must not
    die of the memory limit that killed the run."""
    overrides = job.model_dump(mode="json", by_alias=True, exclude_none=True)
    resources = {key: value for key, value in overrides.pop("resources", {}).items() if value}
    return overrides if run in ("check", "cleanup") else {**overrides, "resources": resources}


def ended(facts: Facts) -> Decision:
    """Completed and Failed are final; Jobs that are left are deleted, since the status has their
    report."""
    return Decision(delete=tuple(facts.jobs))


def fail(facts: Facts, reason: ReasonName, message: str) -> Decision:
    """Failed before anything has run."""
    failure = statuses.failure(reason, message)
    note = Note("Failed", f"{reason}: {message}", warning=True)
    return Decision(status=statuses.failed(facts, RunState("Absent"), failure), notes=(note,), delete=tuple(facts.jobs))


def wait(facts: Facts, reason: str, message: str, *, deadline: timedelta, failure: ReasonName) -> Decision:
    """Pending for something that may still appear; Failed with `failure` once the object has waited
    for this reason until the deadline."""
    since = statuses.waiting_since(facts, reason)
    left = deadline - (facts.now - since)
    if left <= timedelta(0):
        return fail(facts, failure, message)
    return Decision(status=statuses.pending(facts, reason, message, waitingSince=timestamp(since)), requeue=left)


def start(facts: Facts, run: PlannedRun) -> Decision:
    """Nothing prevents the run any more: takes a slot and creates the Job."""
    assert run.spec is not None  # noqa: S101
    if facts.refusal is not None:
        if facts.refusal.kind == "Terminating":
            return Decision()
        if facts.refusal.kind == "Invalid":
            return fail(facts, "InvalidSpec", f"spec.job: Kubernetes does not accept the Job: {facts.refusal.message}")
        decision = wait(facts, "PodRefused", f"the Job cannot be created: {facts.refusal.message}", deadline=run.start_deadline, failure="PodRefused")
        return decision if decision.requeue is None else Decision(status=decision.status, requeue=min(decision.requeue, statuses.LOOK_AGAIN))
    if facts.slot is None:
        return Decision(want=frozenset({"slot"}))
    if not facts.slot.granted:
        return Decision(status=statuses.pending(facts, "WaitingForTurn", facts.slot.message))
    manifest = run.manifest(facts, run.spec)
    name = manifest["metadata"]["name"]
    more: dict[str, Any] = {"jobName": name}
    if run.spec.restore is not None:
        more["artifact"] = statuses.artifact_fields(run.spec)
        more["source"] = run.source
    return Decision(
        add_finalizer=not run.keeps_artifact,
        create=manifest,
        status=statuses.pending(facts, "Starting", f"Job {name} is starting", **more),
        notes=(Note("JobCreated", f"created Job {name}"),),
        holds_slot=True,
        requeue=timedelta(seconds=QUIET_START),
    )


def follow(facts: Facts, run: PlannedRun) -> Decision | None:
    """The decision for a Job that exists or has existed; None if there was never one."""
    state = observe(facts.jobs, facts.pods, facts.name, facts.uid, run.kind, facts.now)
    if state.phase == "Reported" and state.report is not None:
        return finish(facts, state, state.report, run.spec)
    check = observe(facts.jobs, facts.pods, facts.name, facts.uid, "check", facts.now)
    if check.phase != "Absent":
        return _checking(facts, run, state, check)
    match state.phase:
        case "Running":
            return _running(facts, state)
        case "Retrying":
            return _retrying(facts, state)
        case "Starting":
            return _starting(facts, run)
        case "Lost":
            return _lost(facts, run, state)
        case _:
            return _absent(facts, run, state)


def _absent(facts: Facts, run: PlannedRun, state: RunState) -> Decision | None:
    name = facts.status.get("jobName")
    if not name:
        return None
    if stopped := facts.status.get("failure"):
        return _stopped(facts, state, stopped)
    if facts.job_gone is None:
        return Decision(want=frozenset({"job"}))
    if not facts.job_gone:
        return Decision(holds_slot=True, requeue=timedelta(seconds=1))
    message = f"Job {name} was deleted before it could report"
    lost = RunState("Lost", facts.status.get("attempts", 0), "startTime" in facts.status, reason="RunLost", message=message)
    return _lost(facts, run, lost)


def _running(facts: Facts, state: RunState) -> Decision:
    reason, message = ("WaitingForDatabase", facts.log.waiting) if facts.log.waiting else ("Running", f"pod {state.pod} is running")
    if state.attempts > 1:
        message += f" (attempt {state.attempts})"
    return Decision(
        status=statuses.running(facts, state, reason, message), follow=state.pod, holds_slot=True, requeue=facts.settings.progress_interval
    )


def _retrying(facts: Facts, state: RunState) -> Decision:
    why = "its pod went away"
    if state.report is not None and state.report.failure is not None:
        why = f"{state.report.failure.reason}: {state.report.failure.message}"
    message = f"attempt {state.attempts} failed and will be repeated: {why}"
    note = Note("Retrying", cut(message, 900), warning=True, key=str(state.attempts))
    return Decision(
        status=statuses.running(facts, state, "Retrying", message), notes=(note,), holds_slot=True, requeue=facts.settings.progress_interval
    )


def _starting(facts: Facts, run: PlannedRun) -> Decision:
    jobs = of_run(facts.jobs, facts.uid, run.kind)
    stopped = facts.status.get("failure")
    if stopped or not jobs:
        # The run is being stopped, or its Job was deleted: nothing is certain before its pods are
        # gone.
        message = str(stopped["message"]) if stopped else "the Job was deleted; waiting for its pod to be gone"
        return Decision(status=statuses.pending(facts, "Stopping", message), delete=jobs, holds_slot=True, requeue=statuses.LOOK_AGAIN)
    job = jobs[0]
    age = statuses.seconds_since(instant(job["metadata"].get("creationTimestamp")), facts.now)
    pending = pending_reason.from_pod(pods_of_run(facts.pods, facts.name, facts.uid, run.kind))
    if pending is None and age >= QUIET_START:
        if facts.events is None:
            return Decision(want=frozenset({"events"}), holds_slot=True)
        pending = pending_reason.from_events(facts.events)
    name = job["metadata"]["name"]
    detail = pending.detail if pending else None
    message = f"Job {name} is starting" + (f": {detail}" if detail else "")
    if pending and age >= run.start_deadline.total_seconds():
        message = f"Job {name} did not start within {int(run.start_deadline.total_seconds())} s" + (f": {detail}" if detail else "")
        stopping = statuses.pending(facts, "Stopping", message, jobName=name, failure=statuses.failure(pending.reason, message))
        return Decision(status=stopping, delete=jobs, holds_slot=True, requeue=statuses.LOOK_AGAIN)
    reason = pending.reason if pending and detail and pending.reason != "StartDeadlineExceeded" else "Starting"
    return Decision(
        status=statuses.pending(facts, reason, cut(message, 1000), jobName=name),
        holds_slot=True,
        requeue=timedelta(seconds=QUIET_START) if pending is None else statuses.LOOK_AGAIN,
    )


def _stopped(facts: Facts, state: RunState, failure: Mapping[str, Any]) -> Decision:
    note = Note("Failed", f"{failure['reason']}: {failure['message']}", warning=True)
    return Decision(status=statuses.failed(facts, state, failure), notes=(note,), delete=tuple(facts.jobs))


def _lost(facts: Facts, run: PlannedRun, state: RunState) -> Decision:
    stopped = facts.status.get("failure")
    if stopped and not state.started:
        return _stopped(facts, state, stopped)
    if facts.refusal is not None and facts.refusal.kind == "Terminating":
        return Decision()
    reason, message = (str(stopped["reason"]), str(stopped["message"])) if stopped else (state.reason, state.message)
    if run.spec is None:
        return _unsettled(facts, run, state, reason, message, "what the run refers to is gone")
    if facts.refusal is not None:
        problem, since = f"the check Job cannot be created: {facts.refusal.message}", statuses.waiting_since(facts, "Checking")
        if facts.refusal.kind == "Invalid" or facts.now - since >= run.start_deadline:
            return _unsettled(facts, run, state, reason, message, problem)
        status = {**_uncertain(facts, state, f"{message}; {problem}"), "waitingSince": timestamp(since)}
        return Decision(status=status, requeue=statuses.LOOK_AGAIN)
    message = cut(message, CHECKED_LIMIT)
    xid = facts.log.xid or facts.status.get("transactionID")
    check = CheckOptions(run=run.kind, lost_reason=reason, lost_message=message, xid=xid)
    spec = run.spec.model_copy(update={"run": "check", "check": check, "timeout_seconds": SMALL_RUN_SECONDS})
    manifest = run.manifest(facts, spec)
    return Decision(
        create=manifest,
        status=_uncertain(facts, state, message),
        notes=(Note("Checking", f"{message}; Job {manifest['metadata']['name']} {_task(state)}", warning=True),),
        holds_slot=True,
        requeue=statuses.LOOK_AGAIN,
    )


def _uncertain(facts: Facts, state: RunState, message: str) -> dict[str, Any]:
    return statuses.running(facts, state, "Checking", f"{message}; a check Job {_task(state)}")


def _task(state: RunState) -> str:
    return "removes what the run has left" if state.report is not None else "finds out what became of the run"


def _checking(facts: Facts, run: PlannedRun, state: RunState, check: RunState) -> Decision:
    spec = spec_of(of_run(facts.jobs, facts.uid, "check"))
    options = spec.check if spec is not None else None
    reason, message = (options.lost_reason, options.lost_message) if options else ("RunLost", "the run left no report")
    if check.phase == "Reported" and check.report is not None:
        if _settles(check.report, state.report):
            return finish(facts, state, _merged(check.report, state.report), spec or run.spec)
        failure = check.report.failure
        assert failure is not None  # noqa: S101
        return _unsettled(facts, run, state, reason, message, f"the check failed: {failure.reason}: {failure.message}")
    if check.phase == "Lost":
        return _unsettled(facts, run, state, reason, message, f"the check was lost: {check.message}")
    if check.phase == "Starting":
        jobs = of_run(facts.jobs, facts.uid, "check")
        made = instant(jobs[0]["metadata"].get("creationTimestamp")) if jobs else None
        if statuses.seconds_since(made, facts.now) >= run.start_deadline.total_seconds():
            return _unsettled(facts, run, state, reason, message, "the check Job did not start in time")
        return Decision(status=_uncertain(facts, state, message), holds_slot=True, requeue=statuses.LOOK_AGAIN)
    if check.report is not None and check.report.finding == "NoEffect":
        return finish(facts, state, _merged(check.report, state.report), spec or run.spec)
    return Decision(status=_uncertain(facts, state, message), holds_slot=True, requeue=statuses.LOOK_AGAIN)


def _settles(check: Report, known: Report | None) -> bool:
    """Whether the check's report says how the run ended.

    A check from before 0.2 put its finding into the message, so its failure proves nothing. If the
    run itself has reported a failure, a check that could not look does not make it unknown.
    """
    if check.failure is None or check.finding == "NoEffect":
        return True
    return check.failure.reason == "OutcomeUnknown" and known is None


def _merged(check: Report, known: Report | None) -> Report:
    """The check's report merged with the run's own, if the run left one."""
    if check.failure is None or known is None or known.failure is None:
        return check
    failure = check.failure.model_copy(update={"hint": known.failure.hint})
    warnings = (*known.warnings, *check.warnings)
    return check.model_copy(update={"failure": failure, "database": check.database or known.database, "warnings": warnings})


def _unsettled(facts: Facts, run: PlannedRun, state: RunState, reason: str, message: str, problem: str) -> Decision:
    """No check could look: a backup may be sealed, a restore may have happened, and the status says
    so. A failure that the run has reported still counts."""
    if state.report is not None and state.report.failure is not None:
        failure = state.report.failure
        text = f"{failure.message}; the files of the run could not be removed: {problem}"
        report = state.report.model_copy(update={"failure": failure.model_copy(update={"message": text})})
        return finish(facts, state, report, run.spec)
    text = f"{reason}: {message}; no check could find out whether the run took effect: {problem}"
    unknown = statuses.failure("OutcomeUnknown", text, UNSEEN_BACKUP if run.kind == "backup" else None)
    note = Note("Failed", f"OutcomeUnknown: {text}", warning=True)
    return Decision(status=statuses.failed(facts, state, unknown), notes=(note,), delete=tuple(facts.jobs))


def finish(facts: Facts, state: RunState, report: Report, spec: RunSpec | None) -> Decision:
    """The report is final: it goes into the status, then the Jobs are deleted."""
    spec = spec_of(of_run(facts.jobs, facts.uid, report.run)) or spec
    jobs = tuple(facts.jobs)
    if report.failure is None:
        done = statuses.completed(facts, state, report, spec)
        return Decision(status=done, notes=(Note("Completed", statuses.success_message(report)),), delete=jobs)
    if facts.tail is None and state.pod is not None and any(pod["metadata"]["name"] == state.pod and not pod.get(DELETED) for pod in facts.pods):
        return Decision(want=frozenset({"tail"}), follow=state.pod)
    failure = statuses.failure(report.failure.reason, report.failure.message, report.failure.hint, facts.tail)
    failure["retryable"] = report.failure.retryable
    note = Note("Failed", f"{failure['reason']}: {str(failure['message']).rstrip('.')}. {failure['hint']}", warning=True)
    return Decision(status=statuses.failed(facts, state, failure, report), notes=(note,), delete=jobs)


def spec_of(jobs: list[Raw]) -> RunSpec | None:
    """The run spec in the Job: it stays true after the objects that it was made from have
    changed."""
    for job in jobs:
        for container in job["spec"]["template"]["spec"]["containers"]:
            for variable in container.get("env") or ():
                if container["name"] == CONTAINER and variable["name"] == ENVIRONMENT:
                    try:
                        return RunSpec.model_validate_json(variable.get("value") or "")
                    except ValidationError:
                        return None
    return None
