"""Decisions for backups and restores, situation by situation. `now` is an argument: nothing here
waits."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support.plan_world import (
    RUNNING,
    SETTINGS,
    T0,
    UID,
    Raw,
    backup_obj,
    decide,
    facts,
    job,
    job_of,
    pod,
    report,
    restore_obj,
    seen,
    storage_obj,
)

from dbbackup.api.metadata import FINALIZER
from dbbackup.contract.report import Progress
from dbbackup.contract.run import RunSpec
from dbbackup.plan import backup, restore
from dbbackup.plan.facts import Decision, LogView, Refusal, Slot, merge_patch

DONE = report()
PENDING = {"phase": "Pending", "jobName": "backup-nightly-x"}
RUN = {"phase": "Running", "jobName": "backup-nightly-x", "startTime": "2026-11-23T01:00:00Z", "attempts": 1}


def state_of(decision: Decision) -> tuple[str, dict[str, str]]:
    assert decision.status is not None
    return decision.status["phase"], {item["type"]: item["status"] for item in decision.status["conditions"]}


def reason_of(decision: Decision) -> str:
    assert decision.status is not None
    return str(next(item["reason"] for item in decision.status["conditions"] if item["type"] == "Ready"))


def created_spec(decision: Decision) -> RunSpec:
    assert decision.create is not None
    return RunSpec.model_validate_json(decision.create["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"])


# The wish for a Job


def test_a_new_backup_takes_a_slot_and_makes_its_job() -> None:
    known = facts(backup_obj())
    assert backup.decide(known).want == {"slot"}
    decision = backup.decide(replace(known, slot=Slot(granted=True)))
    assert created_spec(decision).run == "backup"
    assert (state_of(decision)[0], reason_of(decision), decision.holds_slot, decision.add_finalizer) == ("Pending", "Starting", True, False)
    assert state_of(decision)[1] == {"Ready": "False", "Reconciling": "True", "Stalled": "False", "Finished": "False"}


def test_no_slot_is_pending_with_the_reason_and_without_a_deadline() -> None:
    decision = backup.decide(replace(facts(backup_obj(), after=100_000), slot=Slot(granted=False, message="waits for its turn")))
    assert (state_of(decision)[0], reason_of(decision), decision.create, decision.holds_slot) == ("Pending", "WaitingForTurn", None, False)


def test_a_finalizer_only_with_deletion_policy_delete() -> None:
    assert decide(facts(backup_obj(deletionPolicy="Delete"))).add_finalizer
    assert not decide(facts(backup_obj(deletionPolicy="Retain"))).add_finalizer


@pytest.mark.parametrize(
    ("after", "phase", "reason"), [(0, "Pending", "WaitingForStorage"), (599, "Pending", "WaitingForStorage"), (601, "Failed", "StorageNotFound")]
)
def test_a_storage_may_come_later(after: float, phase: str, reason: str) -> None:
    decision = decide(facts(seen(backup_obj(), no_storage=True), after=after, no_storage=True))
    assert (state_of(decision)[0], reason_of(decision), decision.create) == (phase, reason, None)
    if phase == "Pending":
        assert decision.requeue == timedelta(seconds=600 - after)


def test_time_without_an_operator_does_not_count() -> None:
    waiting = seen(backup_obj(), no_storage=True)
    late = replace(facts(waiting, after=7200, no_storage=True), settings=replace(SETTINGS, started_at=T0 + timedelta(seconds=7190)))
    assert (reason_of(decide(late)), decide(late).requeue) == ("WaitingForStorage", timedelta(seconds=590))
    assert reason_of(decide(facts(backup_obj(), after=7200, no_storage=True))) == "WaitingForStorage", "nobody has looked before"


QUOTA_USED = Refusal("Refused", "exceeded quota: q")


@pytest.mark.parametrize("before", ["turn", "storage"])
def test_a_deadline_counts_from_when_its_own_hindrance_began(before: str) -> None:
    """Who waited for a turn for twenty minutes has not waited for a quota."""
    queued = Slot(granted=False, message="waits for its turn")
    if before == "turn":
        waiting = {**backup_obj(), "status": dict(backup.decide(replace(facts(backup_obj()), slot=queued)).status or {})}
    else:
        waiting = seen(backup_obj(), no_storage=True)
    refused = seen(waiting, at=1200 if before == "turn" else 500, refusal=QUOTA_USED)
    assert refused["status"]["phase"] == "Pending"
    began = 1200 if before == "turn" else 500
    assert reason_of(decide(facts(refused, after=began + 599, refusal=QUOTA_USED))) == "PodRefused"
    ended = decide(facts(refused, after=began + 601, refusal=QUOTA_USED))
    assert (state_of(ended)[0], reason_of(ended), "waitingSince" in (ended.status or {})) == ("Failed", "PodRefused", False)
    turn = backup.decide(replace(facts(refused, after=began + 550), slot=queued))
    again = seen({**refused, "status": dict(turn.status or {})}, at=began + 900, refusal=QUOTA_USED)
    assert again["status"]["phase"] == "Pending", "another turn, another measure"


def test_a_storage_that_cannot_be_used_says_why() -> None:
    broken = storage_obj(maxConcurrent=0)
    assert "maxConcurrent" in decide(facts(backup_obj(), storage=broken)).status["conditions"][0]["message"]  # type: ignore[index]
    assert reason_of(decide(facts(seen(backup_obj(), storage=broken), storage=broken, after=601))) == "InvalidSpec"


def test_a_spec_that_cannot_be_carried_out_fails_at_once() -> None:
    decision = decide(facts(backup_obj(timeout="soon")))
    assert (state_of(decision)[0], reason_of(decision)) == ("Failed", "InvalidSpec")
    assert state_of(decision)[1] == {"Ready": "False", "Reconciling": "False", "Stalled": "True", "Finished": "True"}
    assert "spec.timeout" in decision.status["failure"]["message"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "after", "phase", "reason"),
    [("Refused", 5, "Pending", "PodRefused"), ("Refused", 601, "Failed", "PodRefused"), ("Invalid", 5, "Failed", "InvalidSpec")],
)
def test_a_job_that_the_api_server_refuses(kind: Any, after: float, phase: str, reason: str) -> None:
    refusal = Refusal(kind, "exceeded quota: q")
    decision = decide(facts(seen(backup_obj(), refusal=QUOTA_USED), after=after, refusal=refusal))
    assert (state_of(decision)[0], reason_of(decision), decision.create) == (phase, reason, None)
    assert "exceeded quota" in decision.status["conditions"][0]["message"]  # type: ignore[index]


def test_nothing_is_done_in_a_namespace_that_goes_away() -> None:
    decision = decide(facts(backup_obj(), refusal=Refusal("Terminating", "being terminated")))
    assert decision == Decision()


# A Job that does not start


def unscheduled() -> Raw:
    waiting = pod(state=None)
    waiting["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]
    return waiting


PULL = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
CREATING = {"waiting": {"reason": "ContainerCreating"}}
QUOTA = {"reason": "FailedCreate", "message": "exceeded quota"}
MOUNT = {"reason": "FailedMount", "message": "no such volume"}


@pytest.mark.parametrize(
    ("pods", "events", "says", "failure"),
    [
        ([unscheduled()], None, "0/1 nodes", "StartDeadlineExceeded"),
        ([pod(state=PULL)], None, "no such image", "ImagePullFailed"),
        ([pod(state=CREATING)], [MOUNT], "no such volume", "StartDeadlineExceeded"),
        ([], [QUOTA], "exceeded quota", "PodRefused"),
        ([], [], "", "StartDeadlineExceeded"),
    ],
    ids=["unschedulable", "image", "volume", "quota", "unknown"],
)
def test_a_pod_that_does_not_start(pods: list[Raw], events: list[Raw] | None, says: str, failure: str) -> None:
    held = job_of(backup_obj())
    early = facts(backup_obj(PENDING), after=30, jobs=[held], pods=pods)
    if events is not None:
        assert decide(early).want == {"events"}
        early = replace(early, events=events)
    decision = decide(early)
    assert state_of(decision)[0] == "Pending"
    assert says in decision.status["conditions"][0]["message"]  # type: ignore[index]
    assert not decision.delete
    late = decide(replace(early, now=T0 + timedelta(seconds=601)))
    # Not Failed yet: until its pods are gone, something might still start.
    assert (state_of(late)[0], late.status["failure"]["reason"], list(late.delete)) == ("Pending", failure, [held])  # type: ignore[index]
    gone = decide(facts(backup_obj(dict(late.status or {})), after=605))
    assert (state_of(gone)[0], reason_of(gone)) == ("Failed", failure)


def test_a_pod_that_started_while_it_was_being_stopped_is_looked_at() -> None:
    stopping = {**PENDING, "failure": {"reason": "StartDeadlineExceeded", "message": "too late", "hint": "", "retryable": True}}
    decision = decide(facts(backup_obj(stopping), after=605, pods=[pod(state=RUNNING, deleted=True)]))
    assert created_spec(decision).run == "check"


# Going on


def test_running_says_so_and_follows_the_log() -> None:
    decision = decide(facts(backup_obj(PENDING), after=5, jobs=[job_of(backup_obj())], pods=[pod(state=RUNNING)]))
    assert (state_of(decision)[0], decision.follow, decision.holds_slot) == ("Running", "backup-pod-1", True)
    assert decision.status["startTime"] == "2026-11-23T01:00:00Z"  # type: ignore[index]


def test_progress_is_written_at_most_every_ten_seconds_and_never_for_a_short_run() -> None:
    log = LogView(key="team/k", progress=Progress(phase="dump", bytes_read=5, percent=40))
    status: Raw = dict(RUN)
    written = []
    for second in range(35):
        known = facts(backup_obj(status), after=second, jobs=[job_of(backup_obj())], pods=[pod(state=RUNNING)])
        moving = replace(log, progress=Progress(phase="dump", bytes_read=second))
        decision = decide(replace(known, log=moving))
        assert decision.status is not None
        if second and merge_patch(status, decision.status):
            written.append(second)
        status = dict(decision.status)
    assert written == [10, 20, 30]
    assert status["artifact"]["key"] == "team/k"


def test_a_run_that_waits_for_another_says_so() -> None:
    known = facts(backup_obj(RUN), after=2, jobs=[job_of(backup_obj())], pods=[pod(state=RUNNING)], log=LogView(waiting="a restore holds h:5432/d"))
    assert (reason_of(decide(known)), decide(known).status["conditions"][0]["message"]) == ("WaitingForDatabase", "a restore holds h:5432/d")  # type: ignore[index]


def test_between_attempts() -> None:
    failed = report(outcome="Failed", failure=("DatabaseUnreachable", True))
    decision = decide(facts(backup_obj(RUN), after=12, jobs=[job_of(backup_obj())], pods=[pod(code=10, message=failed)]))
    assert (state_of(decision)[0], reason_of(decision), decision.holds_slot) == ("Running", "Retrying", True)
    assert decision.notes[0].key == "1"
    assert not decision.delete


# The end


def test_completed_takes_over_the_report_and_only_then_the_job_goes() -> None:
    held = job_of(backup_obj())
    decision = decide(facts(backup_obj(RUN), after=10, jobs=[held], pods=[pod(code=0, message=DONE)]))
    status = decision.status or {}
    assert state_of(decision) == ("Completed", {"Ready": "True", "Reconciling": "False", "Stalled": "False", "Finished": "True"})
    assert (status["size"], status["sizeBytes"], status["duration"]) == ("384 KiB", 393216, "9s")
    assert status["artifact"]["bucket"] == "backups"
    assert status["artifact"]["manifestSha256"] == "b" * 64
    assert list(decision.delete) == [held]
    assert not decision.holds_slot


def test_a_job_whose_maker_died_before_it_wrote_the_status_is_named_all_the_same() -> None:
    """Else the object would seem never to have run, and its artifact would outlive a deletion that
    should remove it."""
    held = job_of(backup_obj())
    for known in (
        facts(backup_obj(), after=10, jobs=[held], pods=[pod(code=0, message=DONE)]),
        facts(backup_obj(), after=10, jobs=[held], pods=[pod(state=RUNNING)]),
        facts(deleted({"observedGeneration": -1}), after=10, jobs=[held]),
    ):
        assert (decide(known).status or {})["jobName"] == held["metadata"]["name"]


def test_failed_keeps_the_end_of_the_log() -> None:
    failed = report(outcome="Failed", failure=("AuthenticationFailed", False))
    known = facts(backup_obj(RUN), after=10, jobs=[job_of(backup_obj())], pods=[pod(code=21, message=failed)])
    assert decide(known).want == {"tail"}
    lines = ['{"ts":"2026-11-23T01:00:00Z","level":"error","message":"password authentication failed"}', *["raw"] * 30]
    lines[1:1] = ['{"ts":"2026-11-23T01:00:00Z","event":"progress","progress":{"phase":"Dumping"}}'] * 30
    decision = decide(replace(known, tail=[*lines[::-1]]))
    failure = (decision.status or {})["failure"]
    assert (state_of(decision)[0], failure["reason"], failure["message"], failure["hint"]) == (
        "Failed",
        "AuthenticationFailed",
        "AuthenticationFailed happened",
        "do something",
    )
    assert failure["logTail"].endswith("01:00:00 error password authentication failed")
    assert failure["logTail"].count("raw") == 19, "progress is for status.progress, not for the log"


def test_a_lost_run_is_settled_by_a_check_and_never_guessed() -> None:
    over = job_of(backup_obj(), conditions={"Failed": "BackoffLimitExceeded"}, failed=3)
    lost = decide(facts(backup_obj(RUN), after=10, jobs=[over], pods=[pod(code=137)]))
    spec = created_spec(lost)
    assert spec.check is not None
    assert (spec.run, spec.check.run, spec.check.lost_reason) == ("check", "backup", "OutOfMemory")
    assert (state_of(lost)[0], reason_of(lost)) == ("Running", "Checking")
    check = job(dict(lost.create or {}))
    busy = decide(facts(backup_obj(dict(lost.status or {})), after=12, jobs=[over, check], pods=[pod(code=137), pod("check", state=RUNNING)]))
    assert (state_of(busy)[0], busy.create) == ("Running", None)
    found = decide(facts(backup_obj(RUN), after=14, jobs=[over, check], pods=[pod(code=137), pod("check", code=0, message=report("check"))]))
    assert (state_of(found)[0], {j["metadata"]["name"] for j in found.delete}) == ("Completed", {over["metadata"]["name"], check["metadata"]["name"]})
    nothing = report("check", "Failed", failure=("OutOfMemory", True), finding="NoEffect")
    ended = decide(facts(backup_obj(RUN), after=14, jobs=[over, check], pods=[pod(code=137), pod("check", code=10, message=nothing)], tail=[]))
    assert (state_of(ended)[0], reason_of(ended)) == ("Failed", "OutOfMemory")


@pytest.mark.parametrize(
    ("finding", "reason", "wanted"),
    [
        ("NoEffect", "RunLost", "RunLost"),
        ("TookEffect", "Timeout", "OutcomeUnknown"),  # a contradiction: no restore that happened is called Failed
        ("Unknown", "OutcomeUnknown", "OutcomeUnknown"),
        (None, "StorageUnavailable", "OutcomeUnknown"),
        (None, "RunLost", "OutcomeUnknown"),  # of before 0.2, or a check that was lost in the same way
    ],
)
def test_the_verdict_of_a_check_is_its_finding_and_not_a_text(finding: str | None, reason: str, wanted: str) -> None:
    """Its message may be masked: a password can be any word."""
    over = job_of(restore_obj(), conditions={"Failed": "BackoffLimitExceeded"}, failed=1)
    lost = decide(facts(restore_obj(RUN), after=10, jobs=[over], pods=[pod("restore", code=137)]))
    check = job(dict(lost.create or {}), conditions={"Failed": "BackoffLimitExceeded"})
    more = {"finding": finding} if finding else {}
    message = report("check", "Failed", failure=(reason, True), **more).replace("happened", "*** was ***")
    ended = decide(
        facts(restore_obj(RUN), after=99, jobs=[over, check], pods=[pod("restore", code=137), pod("check", code=10, message=message)], tail=[])
    )
    assert (state_of(ended)[0], reason_of(ended)) == ("Failed", wanted)


def test_a_check_has_other_limits_than_the_run_that_died_of_them() -> None:
    placed = {"resources": {"limits": {"memory": "16Mi"}}, "nodeSelector": {"disk": "ssd"}}
    over = job_of(backup_obj(job=placed), conditions={"Failed": "BackoffLimitExceeded"}, failed=3)
    pod_spec = (decide(facts(backup_obj(RUN, job=placed), jobs=[over], pods=[pod(code=137)])).create or {})["spec"]["template"]["spec"]
    assert over["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] == {"memory": "16Mi"}
    assert pod_spec["containers"][0]["resources"]["limits"] == {"memory": "512Mi"}
    assert pod_spec["nodeSelector"] == {"disk": "ssd"}


def test_a_job_that_is_missing_is_asked_for_before_it_counts_as_lost() -> None:
    known = facts(backup_obj(RUN), after=10)
    assert decide(known).want == {"job"}
    assert decide(replace(known, job_gone=False)).create is None
    assert created_spec(decide(replace(known, job_gone=True))).run == "check"


@pytest.mark.parametrize("kind", ["backup", "restore"])
def test_a_check_that_finds_no_outcome(kind: str) -> None:
    obj = backup_obj(RUN) if kind == "backup" else restore_obj({**RUN, "transactionID": "77"})
    over = job_of(backup_obj() if kind == "backup" else restore_obj(), conditions={"Failed": "BackoffLimitExceeded"})
    lost = decide(facts(obj, after=10, jobs=[over], pods=[pod(kind, code=1)]))
    assert created_spec(lost).check is not None
    check = job(dict(lost.create or {}), conditions={"Failed": "BackoffLimitExceeded"})
    unreachable = report("check", "Failed", failure=("StorageUnavailable", True))
    ended = decide(facts(obj, after=99, jobs=[over, check], pods=[pod(kind, code=1), pod("check", code=10, message=unreachable)], tail=[]))
    failure = (ended.status or {})["failure"]
    assert (state_of(ended)[0], reason_of(ended), failure["reason"]) == ("Failed", "OutcomeUnknown", "OutcomeUnknown")
    assert "RunLost" in failure["message"]
    assert "StorageUnavailable" in failure["message"]
    assert ("the artifact is whole" in failure["hint"]) is (kind == "backup")
    if kind == "restore":
        assert created_spec(lost).check.xid == "77"  # type: ignore[union-attr]


def test_a_check_that_kubernetes_refuses_is_waited_for_until_the_start_deadline() -> None:
    over = job_of(backup_obj(), conditions={"Failed": "BackoffLimitExceeded"}, failed=3)
    known: Raw = {"jobs": [over], "pods": [pod(code=1)], "refusal": QUOTA_USED}
    waiting = seen(backup_obj(RUN), at=5000, **known)
    assert (waiting["status"]["phase"], "exceeded quota" in waiting["status"]["conditions"][0]["message"]) == ("Running", True)
    waiting = seen(waiting, at=5300, **known)
    assert waiting["status"]["phase"] == "Running"
    assert created_spec(decide(facts(waiting, after=5301, jobs=[over], pods=[pod(code=1)]))).run == "check"
    assert reason_of(decide(facts(waiting, after=5601, **known))) == "OutcomeUnknown"


AWAY = report(outcome="Failed", failure=("StorageUnavailable", True))


def test_an_unseen_seal_is_looked_for_whatever_later_attempts_say() -> None:
    """The first attempt's manifest took effect, its answer was lost, and the storage has been away
    since."""
    over = job_of(backup_obj(), conditions={"Failed": "BackoffLimitExceeded"}, failed=3)
    pods = [pod(code=10), pod(number=2, code=10, message=AWAY), pod(number=3, code=10, message=AWAY)]
    lost = decide(facts(backup_obj(RUN), after=10, jobs=[over], pods=pods))
    options = created_spec(lost).check
    assert options is not None
    assert (options.lost_reason, options.lost_message, state_of(lost)[0]) == ("StorageUnavailable", "StorageUnavailable happened", "Running")
    check = job(dict(lost.create or {}))

    def after_check(code: int, message: str, **conditions: str) -> Decision:
        jobs = [over, {**check, "status": job(check, conditions=conditions)["status"]}]
        return decide(facts(backup_obj(RUN), after=60, jobs=jobs, pods=[*pods, pod("check", code=code, message=message)], tail=[]))

    assert state_of(after_check(0, report("check")))[0] == "Completed"
    nothing = report("check", "Failed", failure=("StorageUnavailable", True), finding="NoEffect")
    assert reason_of(after_check(10, nothing)) == "StorageUnavailable"
    still_away = report("check", "Failed", failure=("StorageUnavailable", True))
    assert state_of(after_check(10, still_away))[0] == "Running", "the check is tried again"
    assert reason_of(after_check(10, still_away, Failed="BackoffLimitExceeded")) == "OutcomeUnknown"


@pytest.mark.parametrize("kind", ["backup", "restore"])
def test_what_a_run_could_not_clear_away_is_removed_by_a_check(kind: str) -> None:
    """How the run ended is known, and the status says so even if the storage stays away."""
    obj = backup_obj(RUN) if kind == "backup" else restore_obj(RUN)
    over = job_of(backup_obj() if kind == "backup" else restore_obj(), conditions={"Failed": "BackoffLimitExceeded"}, failed=1)
    left = report(kind, "Failed", failure=("StorageUnavailable", True), uncleared=True, warnings=["w"])
    pods = [pod(kind, code=10, message=left.replace("do something", "a rare hint"))]
    lost = decide(facts(obj, after=10, jobs=[over], pods=pods))
    assert created_spec(lost).check is not None
    assert "removes what the run has left" in lost.notes[0].message
    check = job(dict(lost.create or {}), conditions={"Failed": "BackoffLimitExceeded"})
    for reason, says in (("StorageUnavailable", "could not be removed"), ("OutcomeUnknown", "could not be removed"), ("", "happened")):
        message = report("check", "Failed", failure=(reason or "StorageUnavailable", bool(reason)))
        if reason == "StorageUnavailable":
            message = message.replace("StorageUnavailable happened", "GET failed")
        ended = decide(facts(obj, after=99, jobs=[over, check], pods=[*pods, pod("check", code=10, message=message)], tail=[]))
        assert (state_of(ended)[0], reason_of(ended)) == ("Failed", "StorageUnavailable")
        failure = (ended.status or {})["failure"]
        assert (says in failure["message"], failure["hint"], (ended.status or {})["warnings"]) == (True, "a rare hint", ["w"])
        assert {item["metadata"]["name"] for item in ended.delete} == {over["metadata"]["name"], check["metadata"]["name"]}


# Restores


def backup_source(phase: str, **artifact: Any) -> Raw:
    return backup_obj({"phase": phase, "artifact": {"key": "team/ns/h/d/x", "manifestSha256": "b" * 64, "storage": "default", **artifact}})


def by_backup(status: Raw | None = None, **spec: Any) -> Raw:
    return restore_obj(status, source={"backupRef": {"name": "nightly"}}, **spec)


def test_a_restore_pins_the_manifest_that_the_backup_recorded() -> None:
    decision = decide(facts(by_backup(), source=backup_source("Completed")))
    options = created_spec(decision).restore
    assert options is not None
    assert (options.key, options.manifest_sha256) == ("team/ns/h/d/x", "b" * 64)
    assert (decision.status or {})["artifact"]["manifestSha256"] == "b" * 64
    assert (decision.status or {})["source"] == "nightly"


@pytest.mark.parametrize(
    ("source", "after", "phase", "reason"),
    [
        (None, 5, "Pending", "WaitingForBackup"),
        (None, 601, "Failed", "BackupNotFound"),
        (backup_source("Running"), 5, "Pending", "WaitingForBackup"),
        (backup_source("Running"), 100_000, "Pending", "WaitingForBackup"),
        (backup_source("Pending"), 100_000, "Pending", "WaitingForBackup"),
        (backup_source("Failed"), 5, "Failed", "BackupNotCompleted"),
        (backup_source("Deleting"), 5, "Failed", "BackupNotCompleted"),
    ],
)
def test_a_source_that_is_not_there_or_not_good(source: Raw | None, after: float, phase: str, reason: str) -> None:
    waiting = seen(by_backup(), source=None if source is None else backup_source("Running"))
    decision = decide(facts(waiting, source=source, after=after))
    assert (state_of(decision)[0], reason_of(decision), decision.create) == (phase, reason, None)


def test_a_backup_that_goes_after_it_was_waited_for_is_waited_for_anew() -> None:
    waiting = seen(by_backup(), source=backup_source("Running"))
    gone = seen(waiting, at=1200)
    assert gone["status"]["phase"] == "Pending"
    assert reason_of(decide(facts(gone, after=1801))) == "BackupNotFound"


def test_a_restore_first_seen_too_late_is_refused() -> None:
    late = decide(facts(restore_obj(startBefore="2026-11-23T00:59:00Z")))
    assert (state_of(late)[0], reason_of(late), late.create) == ("Failed", "StartBeforePassed", None)
    waiting = restore_obj({"phase": "Pending"}, startBefore="2026-11-23T01:00:30Z")
    assert decide(facts(waiting, after=60)).create is not None, "it was seen in time"


def test_a_restore_that_failed_for_a_moment_is_not_tried_again() -> None:
    failed = report("restore", "Failed", failure=("ConnectionLost", True))
    known = facts(restore_obj(RUN), after=5, jobs=[job_of(restore_obj())], pods=[pod("restore", code=10, message=failed)], tail=[])
    assert (state_of(decide(known))[0], reason_of(decide(known))) == ("Failed", "ConnectionLost")


# Deletion


def deleted(status: Raw | None, finalizers: list[str] | None = None, **spec: Any) -> Raw:
    marks = {"deletionTimestamp": "2026-11-23T01:00:00Z", "finalizers": [FINALIZER] if finalizers is None else finalizers}
    return backup_obj(status, metadata=marks, **{"deletionPolicy": "Delete", **spec})


COMPLETED = {"phase": "Completed", "jobName": "j", "startTime": "2026-11-23T00:00:00Z", "artifact": {"key": "team/k", "bucket": "backups"}}


def test_deletion_without_our_finalizer_needs_nothing() -> None:
    assert decide(facts(deleted(COMPLETED, []))) == Decision()
    assert decide(facts(restore_obj(RUN, metadata={"deletionTimestamp": "2026-11-23T01:00:00Z"}))) == Decision()


def test_the_policy_at_the_time_of_deletion_counts() -> None:
    decision = decide(facts(deleted(COMPLETED, deletionPolicy="Retain")))
    assert (decision.remove_finalizer, decision.create) == (True, None)


@pytest.mark.parametrize("phase", ["Pending", "Running", "Completed", "Failed"])
def test_the_finalizer_follows_a_policy_that_is_changed_later(phase: str) -> None:
    later = decide(facts(backup_obj({"phase": phase, "jobName": "j"}, deletionPolicy="Delete")))
    assert (later.add_finalizer, later.remove_finalizer, later.holds_slot) == (True, False, phase in ("Pending", "Running"))
    back = decide(facts(backup_obj({"phase": phase, "jobName": "j"}, metadata={"finalizers": [FINALIZER]}, deletionPolicy="Retain")))
    assert (back.add_finalizer, back.remove_finalizer) == (False, True)
    guarded = decide(facts(backup_obj({"phase": "Completed", "jobName": "j"}, metadata={"finalizers": [FINALIZER, "x"]}, deletionPolicy="Delete")))
    assert (guarded.add_finalizer, guarded.remove_finalizer) == (False, False)


def test_the_artifact_is_deleted_by_a_job_that_outlives_its_owner() -> None:
    decision = decide(facts(deleted(COMPLETED)))
    assert created_spec(decision).cleanup.key == "team/k"  # type: ignore[union-attr]
    assert "ownerReferences" not in (decision.create or {})["metadata"]
    assert (decision.create or {})["spec"]["ttlSecondsAfterFinished"] > 600
    assert (state_of(decision)[0], decision.remove_finalizer) == ("Deleting", False)
    cleanup = job(dict(decision.create or {}))
    done = decide(facts(deleted(COMPLETED), after=3, jobs=[cleanup], pods=[pod("cleanup", code=0, message=report("cleanup"))]))
    assert (done.remove_finalizer, list(done.delete), done.notes[0].reason) == (True, [cleanup], "ArtifactDeleted")


def test_cleanup_starts_only_when_the_run_is_gone() -> None:
    held = job_of(backup_obj())
    stopping = decide(facts(deleted(RUN), jobs=[held], pods=[pod(state=RUNNING)]))
    assert (stopping.create, list(stopping.delete)) == (None, [held])
    assert decide(facts(deleted(RUN), pods=[pod(state=RUNNING)])).create is None
    assert decide(facts(deleted(RUN), pods=[pod(state=RUNNING, deleted=True)])).create is not None


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"no_storage": True}, "BackupStorage default is gone"),
        ({"after": 601}, "did not end in time"),
        ({"refusal": Refusal("Terminating", "")}, "namespace is being deleted"),
        ({"after": 601, "pods": [pod(state=RUNNING)]}, "did not end in time"),
    ],
    ids=["storage gone", "too long", "namespace going", "pod stays"],
)
def test_deletion_never_hangs(more: dict[str, Any], why: str) -> None:
    decision = decide(facts(deleted(COMPLETED), **more))
    assert (decision.remove_finalizer, decision.create) == (True, None)
    assert why in decision.notes[0].message
    assert "backups/team/k stays in the bucket" in decision.notes[0].message


def test_a_backup_of_unknown_outcome_is_cleaned_up_too() -> None:
    """Nobody saw it start, and nobody could look into the bucket."""
    unseen = {"phase": "Failed", "jobName": "j", "failure": {"reason": "OutcomeUnknown"}}
    assert decide(facts(deleted(unseen))).create is not None
    assert decide(facts(deleted({**unseen, "failure": {"reason": "StartDeadlineExceeded"}}))).create is None


def test_a_cleanup_that_failed_for_good_gives_up() -> None:
    made = decide(facts(deleted(COMPLETED))).create or {}
    failed = report("cleanup", "Failed", failure=("SecretMissing", False))
    decision = decide(facts(deleted(COMPLETED), after=3, jobs=[job(dict(made))], pods=[pod("cleanup", code=20, message=failed)]))
    assert (decision.remove_finalizer, decision.notes[0].warning) == (True, True)
    assert "SecretMissing" in decision.notes[0].message


def test_a_backup_that_never_ran_leaves_nothing_to_clean_up() -> None:
    decision = decide(facts(deleted({"phase": "Pending"})))
    assert (decision.remove_finalizer, decision.create) == (True, None)


# What holds in every situation

MESSAGES = [None, "{}", DONE[:40], DONE, report(uid="other"), report("check"), report(outcome="Failed", failure=("DumpFailed", True))]
JOBS: list[list[Raw]] = [[], [job_of(backup_obj())], [job_of(backup_obj(), conditions={"Failed": "BackoffLimitExceeded"})]]
STATUSES: list[Raw | None] = [None, PENDING, RUN, {"phase": "Pending"}, {**PENDING, "failure": {"reason": "PodRefused", "message": "m", "hint": "h"}}]
any_pod = st.builds(
    lambda number, message, code, gone: pod(number=number, message=message, code=code, state=RUNNING, deleted=gone),
    st.integers(1, 5),
    st.sampled_from(MESSAGES),
    st.sampled_from([None, 0, 10, 21, 137]),
    st.booleans(),
)


@given(
    st.sampled_from(STATUSES),
    st.sampled_from(JOBS),
    st.lists(any_pod, max_size=3),
    st.sampled_from([0.0, 30.0, 700.0]),
    st.sampled_from([None, True, False]),
    st.booleans(),
)
def test_never_completed_without_a_good_report(
    status: Raw | None, jobs: list[Raw], pods: list[Raw], after: float, job_gone: bool | None, no_storage: bool
) -> None:
    known = facts(backup_obj(status), after=after, jobs=jobs, pods=pods, job_gone=job_gone, no_storage=no_storage, events=[], tail=[])
    decision = decide(known)
    good = any(item["status"]["containerStatuses"][0]["state"].get("terminated", {}).get("message") == DONE for item in pods)
    phase = (decision.status or {}).get("phase")
    assert (phase == "Completed") == good
    if phase == "Failed":
        assert not decision.create
    if decision.delete:
        # A Job goes only when the status is written that holds its report, or says why it is
        # stopped.
        assert (decision.status or {}).get("phase") in ("Completed", "Failed") or (decision.status or {}).get("failure")


@given(st.sampled_from(["Completed", "Failed"]), st.sampled_from(JOBS), st.lists(any_pod, max_size=3), st.floats(0, 1e6))
def test_terminal_stays_terminal(phase: str, jobs: list[Raw], pods: list[Raw], after: float) -> None:
    for obj, module in ((backup_obj({"phase": phase}), backup), (restore_obj({"phase": phase}), restore)):
        decision = module.decide(facts(obj, after=after, jobs=jobs, pods=pods))
        assert (decision.status, decision.create, decision.want) == (None, None, frozenset())
        assert list(decision.delete) == jobs


def test_a_decision_is_stable() -> None:
    """What was written is not written again: a status that changes itself would never come to
    rest."""
    obj = backup_obj()
    for known in (
        facts(obj, no_storage=True),
        facts(obj, jobs=[job_of(obj)], pods=[pod(state=RUNNING)]),
        facts(obj, jobs=[job_of(obj)], pods=[pod(code=10, message=report(outcome="Failed", failure=("DumpFailed", True)))]),
    ):
        first = decide(known).status
        assert first is not None
        again = decide(replace(known, obj=backup_obj(dict(first)))).status
        assert merge_patch(first, again) == {}
    assert obj["metadata"]["uid"] == UID
