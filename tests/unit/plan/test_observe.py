"""What a Job and its pods say about a run: every situation, and what may never be concluded."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support.plan_world import RUNNING, T0, UID, backup_obj, job_of, pod, report, restore_obj

from dbbackup.plan.observe import RunState, observe

WAITING = {"waiting": {"reason": "ContainerCreating"}}
DONE = report()
TRANSIENT = report(outcome="Failed", failure=("DatabaseUnreachable", True))
PERMANENT = report(outcome="Failed", failure=("AuthenticationFailed", False))


def seen(jobs: list[Any], pods: list[Any], run: Any = "backup", after: float = 0) -> RunState:
    return observe(jobs, pods, "nightly", UID, run, T0 + timedelta(seconds=after))


LEFT = report(outcome="Failed", failure=("StorageUnavailable", True), uncleared=True)
JOB = job_of(backup_obj(retries=1))
FAILED = job_of(backup_obj(retries=1), conditions={"Failed": "BackoffLimitExceeded"}, failed=2)
FAILED_ONCE = job_of(backup_obj(retries=0), conditions={"Failed": "BackoffLimitExceeded"}, failed=1)
DEADLINE = job_of(backup_obj(retries=1), conditions={"FailureTarget": "DeadlineExceeded"})
COMPLETE = job_of(backup_obj(), conditions={"Complete": "CompletionsReached"}, succeeded=1)
FIRST_FAILED = pod(code=10, message=TRANSIENT)


def with_sidecar(found: Any) -> Any:
    """The pod as a mesh leaves it: its other container goes on, and so it is Running."""
    found["status"]["phase"] = "Running"
    found["status"]["containerStatuses"].append({"name": "proxy", "state": RUNNING})
    return found


CASES: list[tuple[str, list[Any], list[Any], str, str]] = [
    ("nothing", [], [], "Absent", ""),
    ("no pod yet", [JOB], [], "Starting", ""),
    ("container creating", [JOB], [pod(state=WAITING)], "Starting", ""),
    ("running", [JOB], [pod(state=RUNNING)], "Running", ""),
    ("success before the Job says so", [JOB], [pod(code=0, message=DONE)], "Reported", ""),
    ("success, and a sidecar still runs", [JOB], [with_sidecar(pod(code=0, message=DONE))], "Reported", ""),
    ("success of a deleted pod", [], [pod(code=0, message=DONE, deleted=True)], "Reported", ""),
    ("success reported before a kill", [JOB], [pod(code=137, message=DONE)], "Reported", ""),
    ("permanent failure", [JOB], [pod(code=21, message=PERMANENT)], "Reported", ""),
    ("first of two attempts failed", [JOB], [pod(code=10, message=TRANSIENT)], "Retrying", ""),
    ("second attempt runs", [JOB], [pod(code=10, message=TRANSIENT), pod(number=2, state=RUNNING)], "Running", ""),
    ("second attempt starts", [JOB], [pod(code=10, message=TRANSIENT), pod(number=2, state=WAITING)], "Retrying", ""),
    ("both attempts failed", [JOB], [pod(code=10, message=TRANSIENT), pod(number=2, code=10, message=TRANSIENT)], "Reported", ""),
    ("second attempt succeeded", [JOB], [pod(code=10, message=TRANSIENT), pod(number=2, code=0, message=DONE)], "Reported", ""),
    ("failed, and the Job is over", [FAILED_ONCE], [pod(code=10, message=TRANSIENT)], "Reported", ""),
    ("failed, and an attempt was not seen", [FAILED], [pod(code=10, message=TRANSIENT)], "Lost", "DatabaseUnreachable"),
    ("failed after an attempt without a report", [FAILED], [pod(code=10), pod(number=2, code=10, message=TRANSIENT)], "Lost", "DatabaseUnreachable"),
    ("failed for good after one", [JOB], [pod(code=10), pod(number=2, code=20, message=PERMANENT)], "Lost", "AuthenticationFailed"),
    ("failed after a pod that never started", [JOB], [pod(state=WAITING, deleted=True), pod(number=2, code=21, message=PERMANENT)], "Reported", ""),
    ("an earlier one left something", [JOB], [pod(code=10, message=LEFT), pod(number=2, code=21, message=PERMANENT)], "Lost", "AuthenticationFailed"),
    ("left something, and comes again", [JOB], [pod(code=10, message=LEFT)], "Retrying", ""),
    ("failed, and the Job is gone", [], [pod(code=10, message=TRANSIENT, deleted=True)], "Reported", ""),
    ("a disruption does not count", [JOB], [FIRST_FAILED, pod(number=2, code=10, message=TRANSIENT, disrupted=True)], "Retrying", ""),
    ("no report, attempts left", [JOB], [pod(code=1)], "Retrying", ""),
    ("no report, Job over", [FAILED], [pod(code=1)], "Lost", "RunLost"),
    ("report cut short", [FAILED], [pod(code=0, message=DONE[:100])], "Lost", "RunLost"),
    ("report of another object", [FAILED], [pod(code=0, message=report(uid="other"))], "Lost", "RunLost"),
    ("report of another run", [FAILED], [pod(code=0, message=report("cleanup"))], "Lost", "RunLost"),
    ("out of memory", [FAILED], [pod(code=137)], "Lost", "OutOfMemory"),
    ("evicted", [FAILED], [pod(state=RUNNING, deleted=True, disrupted=True)], "Lost", "Evicted"),
    ("deadline, pod gone", [DEADLINE], [pod(state=RUNNING, deleted=True)], "Lost", "DeadlineExceeded"),
    ("deadline, pod still ends", [DEADLINE], [pod(state=RUNNING)], "Running", ""),
    ("complete without a pod", [COMPLETE], [], "Lost", "RunLost"),
    ("Job deleted, pod still ends", [], [pod(state=RUNNING, deletionTimestamp="2026-11-23T01:00:30Z")], "Running", ""),
    ("Job deleted, pod gone", [], [pod(state=RUNNING, deleted=True)], "Lost", "RunLost"),
    ("a pod without a report was deleted, attempts left", [JOB], [pod(state=RUNNING, deleted=True)], "Retrying", ""),
]


@pytest.mark.parametrize(("jobs", "pods", "phase", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_situations(jobs: list[Any], pods: list[Any], phase: str, reason: str) -> None:
    state = seen(jobs, pods)
    assert (state.phase, state.reason) == (phase, reason)
    assert (state.phase == "Reported") <= (state.report is not None)


@pytest.mark.parametrize(("code", "phase"), [(19, "Retrying"), (20, "Lost"), (29, "Lost"), (30, "Retrying")])
def test_codes_from_20_to_29_end_the_job_and_no_others(code: int, phase: str) -> None:
    """The Job's own policy says the same: with another bound the operator would wait for a pod that
    never comes, or give up one that runs."""
    [rule] = [rule for rule in JOB["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert (code in rule["onExitCodes"]["values"]) == (phase == "Lost")
    assert seen([JOB], [pod(code=code)]).phase == phase


RESTORE = job_of(restore_obj())


@pytest.mark.parametrize(
    ("pods", "phase"),
    [
        ([pod("restore", code=10, message=report("restore", "Failed", failure=("ConnectionLost", True)))], "Reported"),
        ([pod("restore", code=10, message=report("restore", "Failed", failure=("Terminated", True)), disrupted=True)], "Reported"),
        ([pod("restore", code=1)], "Lost"),
        ([pod("restore", state=RUNNING, deleted=True)], "Lost"),
        ([pod("restore", state=RUNNING, deleted=True, disrupted=True)], "Lost"),
        ([pod("restore", code=0, message=report("restore"))], "Reported"),
    ],
    ids=["failed", "failed by a drain", "no report", "pod deleted", "evicted", "succeeded"],
)
def test_a_restore_has_one_attempt(pods: list[Any], phase: str) -> None:
    assert seen([RESTORE], pods, "restore").phase == phase


def test_a_pod_on_a_dead_node_is_given_up() -> None:
    stuck = pod("restore", state=RUNNING, deletionTimestamp="2026-11-23T01:00:30Z")
    assert seen([RESTORE], [stuck], "restore", after=60).phase == "Running"
    assert seen([RESTORE], [stuck], "restore", after=600).phase == "Lost"


@pytest.mark.parametrize(("message", "phase"), [(TRANSIENT, "Reported"), ("", "Lost")])
def test_a_failed_attempt_whose_sidecar_goes_on_is_the_last(message: str, phase: str) -> None:
    """The Job controller waits for the pod, and would until the deadline."""
    held = with_sidecar(pod(code=10, message=message))
    held["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = "2026-11-23T01:00:10Z"
    assert [seen([JOB], [held], after=seconds).phase for seconds in (11, 60, 75)] == ["Retrying", "Retrying", phase]
    held["status"]["phase"] = "Failed"
    assert seen([JOB], [held], after=75).phase == "Retrying"


def test_success_without_its_facts_is_no_success() -> None:
    bare = json.loads(DONE)
    del bare["artifact"]
    assert seen([FAILED], [pod(code=0, message=json.dumps(bare))]).phase == "Lost"
    bare = json.loads(report("restore"))
    del bare["restored"]
    assert seen([RESTORE], [pod("restore", code=0, message=json.dumps(bare))], "restore").phase == "Lost"


def test_attempts_are_counted_and_the_first_start_is_kept() -> None:
    state = seen([JOB], [pod(code=10, message=TRANSIENT), pod(number=2, state=RUNNING)])
    assert (state.attempts, state.started_at, state.pod) == (2, T0, "backup-pod-2")


messages = st.sampled_from(
    [None, "", "{}", "null", DONE[:50], DONE, TRANSIENT, PERMANENT, report(uid="other"), report("restore"), report("check"), report("cleanup")]
)
pods_of_any_kind = st.lists(
    st.builds(
        lambda number, message, code, deleted, disrupted: pod(
            number=number, message=message, code=code, state=RUNNING, deleted=deleted, disrupted=disrupted
        ),
        st.integers(1, 9),
        messages,
        st.sampled_from([None, 0, 1, 10, 11, 20, 25, 70, 137, 143]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=4,
)


@given(st.sampled_from([[], [JOB], [FAILED], [DEADLINE], [COMPLETE]]), pods_of_any_kind)
def test_success_comes_only_from_a_report_of_this_object(jobs: list[Any], pods: list[Any]) -> None:
    messages = [item["status"]["containerStatuses"][0]["state"].get("terminated", {}).get("message") for item in pods]
    state = seen(jobs, pods)
    succeeded = state.report is not None and state.phase == "Reported" and state.report.outcome == "Succeeded"
    assert succeeded == (DONE in messages)


OWNER = {"apiVersion": "batch/v1", "kind": "Job", "name": JOB["metadata"]["name"], "uid": "gone", "controller": True}


@pytest.mark.parametrize(
    ("references", "believed"),
    [
        ([OWNER], True),
        ([{**OWNER, "kind": "ConfigMap", "controller": False}, OWNER], True),
        ([], False),
        ([{**OWNER, "name": "backup-other-0123456789"}], False),
        ([{**OWNER, "kind": "ReplicaSet"}], False),
        ([{**OWNER, "controller": False}], False),
    ],
)
@pytest.mark.parametrize("jobs", [[JOB], []])
def test_only_a_pod_of_the_runs_own_job_is_believed(jobs: list[Any], references: list[Any], believed: bool) -> None:
    stranger = pod(code=0, message=DONE, ownerReferences=references)
    expected = "Reported" if believed else "Starting" if jobs else "Absent"
    assert seen(jobs, [stranger]).phase == expected


def test_a_pod_without_an_owner_is_not_believed() -> None:
    stranger = pod(code=0, message=DONE)
    del stranger["metadata"]["ownerReferences"]
    assert seen([JOB], [stranger]).phase == "Starting"
