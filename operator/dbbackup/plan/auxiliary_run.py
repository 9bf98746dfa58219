"""Runs that are no backup and no restore: of a BackupStorage or a schedule. An object has many of
them in its life; a token tells them apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

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
from dbbackup.plan.observe import RunState, instant, observe, of_run, pods_of_run

START_DEADLINE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a side run brought nothing."""

    reason: str
    message: str
    hint: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class SideRun:
    """A Job that is there, and what is known of it. Neither `report` nor `trouble`: it goes on."""

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


def side_runs(facts: Facts, run: RunKind) -> list[SideRun]:
    """Those of that kind, oldest first; what is being deleted has been dealt with."""
    jobs = [job for job in of_run(facts.jobs, facts.uid, run) if not job["metadata"].get("deletionTimestamp")]
    jobs.sort(key=lambda job: (job["metadata"].get("creationTimestamp") or "", job["metadata"]["name"]))
    return [_look(facts, run, job) for job in jobs]


def _look(facts: Facts, run: RunKind, job: Raw) -> SideRun:
    name = job["metadata"]["name"]
    # By the Job's UID: one of the same name may have been there before, and its pods are remembered
    # with what they said last.
    pods = [pod for pod in facts.pods if _owned_by(pod, job)]
    state = observe(facts.jobs, pods, facts.name, facts.uid, run, facts.now, named=name)
    if state.phase == "Reported" and state.report is not None:
        failure = state.report.failure
        if failure is None:
            return SideRun(job, state, report=state.report)
        return SideRun(job, state, trouble=Trouble(failure.reason, failure.message, failure.hint, failure.retryable))
    if state.phase == "Lost":
        return SideRun(job, state, trouble=trouble(state.reason, state.message))
    age = facts.now - (instant(job["metadata"].get("creationTimestamp")) or facts.now)
    if state.phase == "Starting" and age >= START_DEADLINE:
        hindrance = pending_reason.from_pod(pods_of_run(pods, facts.name, facts.uid, run, name))
        detail = f": {hindrance.detail}" if hindrance and hindrance.detail else f"; its Events tell why (kubectl describe job {name})"
        message = f"Job {name} did not start within {int(START_DEADLINE.total_seconds())} s{detail}"
        return SideRun(job, state, trouble=trouble(hindrance.reason if hindrance else "StartDeadlineExceeded", message))
    return SideRun(job, state)


def _owned_by(pod: Raw, job: Raw) -> bool:
    return any(owner.get("uid") == job["metadata"]["uid"] for owner in pod["metadata"].get("ownerReferences") or ())


def side_job(facts: Facts, spec: RunSpec, job: JobSettings, token: str) -> Mapping[str, Any]:
    """The Job of a side run. The same token makes the same Job."""
    return job_manifest(facts.obj, spec, facts.settings, START_DEADLINE, overrides_of(job, spec.run), token=token)


def read_items(run: SideRun, model: type[Model]) -> Decision:
    """Asks for what the run told in its log."""
    assert run.report is not None  # noqa: S101
    assert run.state.pod is not None  # noqa: S101
    return Decision(want=frozenset({"items"}), read=Read(run.state.pod, run.report, model))
