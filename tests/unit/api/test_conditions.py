"""Conditions, as kstatus and people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from dbbackup.api import conditions

NOW = datetime(2026, 11, 22, 10, 0, 0, 999_999, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


def statuses(found: list[conditions.Condition]) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in found}


def test_states() -> None:
    assert statuses(conditions.build([], "progressing", "JobRunning", "runs", generation=1, now=NOW)) == {
        "Ready": "False",
        "Reconciling": "True",
        "Stalled": "False",
        "Finished": "False",
    }
    assert statuses(conditions.build([], "done", "Completed", "", generation=1, now=NOW)) == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "Finished": "True",
    }
    assert statuses(conditions.build([], "failed", "Timeout", "", generation=1, now=NOW)) == {
        "Ready": "False",
        "Reconciling": "False",
        "Stalled": "True",
        "Finished": "True",
    }


def test_a_storage_is_never_finished() -> None:
    assert "Finished" not in statuses(conditions.build([], "done", "Valid", "", generation=1, now=NOW, finishes=False))


def test_transition_time_changes_with_the_status_only() -> None:
    first = conditions.build([], "progressing", "Pending", "waits", generation=1, now=NOW)
    same = conditions.build(first, "progressing", "JobRunning", "runs", generation=1, now=LATER)
    assert {c["lastTransitionTime"] for c in same} == {"2026-11-22T10:00:00Z"}
    assert {c["reason"] for c in same} == {"JobRunning"}
    done = {c["type"]: c for c in conditions.build(same, "done", "Completed", "", generation=1, now=LATER)}
    assert done["Ready"]["lastTransitionTime"] == "2026-11-22T10:05:00Z"
    assert done["Stalled"]["lastTransitionTime"] == "2026-11-22T10:00:00Z"


def test_building_twice_changes_nothing() -> None:
    first = conditions.build([], "failed", "Timeout", "too slow", generation=3, now=NOW)
    assert conditions.build(first, "failed", "Timeout", "too slow", generation=3, now=LATER) == first


def test_conditions_of_others_stay() -> None:
    foreign = {"type": "Audited", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "X", "message": ""}
    assert foreign in conditions.build([foreign], "done", "Completed", "", generation=1, now=NOW)


def test_long_messages_are_cut() -> None:
    found = conditions.build([], "failed", "DumpFailed", "x" * 9000, generation=1, now=NOW)
    assert len(found[0]["message"]) == conditions.MESSAGE_LIMIT
    assert found[0]["message"].endswith("…")


def test_times_are_utc() -> None:
    assert conditions.timestamp(datetime(2026, 11, 22, 12, tzinfo=timezone(timedelta(hours=2)))) == "2026-11-22T10:00:00Z"


def test_lookup() -> None:
    found = conditions.build([], "done", "Completed", "", generation=1, now=NOW)
    assert conditions.is_true(found, "Ready")
    assert not conditions.is_true(found, "Stalled")
    assert not conditions.is_true([], "Ready")
    assert conditions.find(found, "Nothing") is None
