"""Auxiliary runs: the inventory and prune Jobs of a BackupStorage, the discover Job of a schedule.
An object has many of them in its life; each has a token of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dbbackup.api.conditions import instant
from dbbackup.api.objects import Raw
from dbbackup.api.specs import JobSettings
from dbbackup.contract.errors import REASONS
from dbbackup.contract.model import Model
from dbbackup.contract.report import Report
from dbbackup.contract.run import RunKind, RunSpec
from dbbackup.plan import pending_reason
from dbbackup.plan.facts import Decision, Facts, Read
from dbbackup.plan.jobs import job_manifest
from dbbackup.plan.lifecycle import overrides_of
from dbbackup.plan.observe import RunState, observe, of_run, pods_of_run

START_DEADLINE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why an auxiliary run brought no result."""

    reason: str
    message: str
    hint: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class AuxiliaryRun:
    """A Job that exists, and how its run ended. Without `report` and `trouble`, it is still going
    on."""

    job: Raw
    state: RunState
    report: Report | None = None
    trouble: Trouble | None = None

    @property
    def name(self) -> str:
        return str(self.job["metadata"]["name"])


def trouble(reason: str, message: str, hint: str | None = None) -> Trouble:
    known = REASONS.get(reason)
    return Trouble(reason, message, hint or (known.hint if known else ""), bool(known and known.retryable))


def auxiliary_runs(facts: Facts, run: RunKind) -> list[AuxiliaryRun]:
    """Runs of that kind, oldest first, without those whose Job is being deleted: they have been
    dealt with."""
    jobs = [job for job in of_run(facts.jobs, facts.uid, run) if not job["metadata"].get("deletionTimestamp")]
    jobs.sort(key=lambda job: (job["metadata"].get("creationTimestamp") or "", job["metadata"]["name"]))
    return [_observed(facts, run, job) for job in jobs]


def _observed(facts: Facts, run: RunKind, job: Raw) -> AuxiliaryRun:
    name = job["metadata"]["name"]
    # By the Job's UID: an earlier Job may have had the same name, and its pods are kept with their
    # last report.
    pods = [pod for pod in facts.pods if _owned_by(pod, job)]
    state = observe(facts.jobs, pods, facts.name, facts.uid, run, facts.now, named=name)
    if state.phase == "Reported" and state.report is not None:
        failure = state.report.failure
        if failure is None:
            return AuxiliaryRun(job, state, report=state.report)
        return AuxiliaryRun(job, state, trouble=Trouble(failure.reason, failure.message, failure.hint, failure.retryable))
    if state.phase == "Lost":
        return AuxiliaryRun(job, state, trouble=trouble(state.reason, state.message))
    age = facts.now - (instant(job["metadata"].get("creationTimestamp")) or facts.now)
    if state.phase == "Starting" and age >= START_DEADLINE:
        pending = pending_reason.from_pod(pods_of_run(pods, facts.name, facts.uid, run, name))
        detail = f": {pending.detail}" if pending and pending.detail else f"; its Events say why (kubectl describe job {name})"
        message = f"Job {name} did not start within {int(START_DEADLINE.total_seconds())} s{detail}"
        return AuxiliaryRun(job, state, trouble=trouble(pending.reason if pending else "StartDeadlineExceeded", message))
    return AuxiliaryRun(job, state)


def _owned_by(pod: Raw, job: Raw) -> bool:
    return any(owner.get("uid") == job["metadata"]["uid"] for owner in pod["metadata"].get("ownerReferences") or ())


def auxiliary_job(facts: Facts, spec: RunSpec, job: JobSettings, token: str) -> Mapping[str, Any]:
    """The Job of an auxiliary run. The same token gives the same Job."""
    return job_manifest(facts.obj, spec, facts.settings, START_DEADLINE, overrides_of(job, spec.run), token=token)


def read_items(run: AuxiliaryRun, model: type[Model]) -> Decision:
    """Asks for the items that the run wrote to its log."""
    assert run.report is not None  # noqa: S101
    assert run.state.pod is not None  # noqa: S101
    return Decision(want=frozenset({"items"}), read=Read(run.state.pod, run.report, model))
