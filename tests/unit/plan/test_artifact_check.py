"""What Completed promises is looked after: artifacts that are gone, damaged, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.support.crds import problems
from tests.unit.support.plan_world import T0, Raw, backup_obj, facts, storage_obj

from dbbackup.contract.report import InventoryItem
from dbbackup.plan import artifact_check
from dbbackup.plan.facts import Facts, Related

KEY = "team/ns/h_5432/d/20261123T010000Z-nightly-0b1c2d3e"
KNOWN = "0b1c2d3e"
DONE = {
    "observedGeneration": 1,
    "phase": "Completed",
    "artifact": {"key": KEY},
    "startTime": "2026-11-23T01:00:00Z",
    "completionTime": "2026-11-23T01:00:09Z",
    "duration": "9s",
    "conditions": [],
}


def world(status: Raw) -> Facts:
    return replace(facts(storage_obj(), after=100), related=Related(backups=[backup_obj(status)]))


def item(**more: Any) -> InventoryItem:
    return InventoryItem(key=KEY, size_bytes=1, modified=T0, **more)


def phase_of(status: Raw, items: list[InventoryItem], known: str = KNOWN) -> str | None:
    effects = artifact_check.changes(world(status), items, known)
    if not effects:
        return None
    (effect,) = effects
    assert problems("DatabaseBackup", effect.status or {}) == []
    return str((effect.status or {})["phase"])


def test_an_artifact_that_is_there_changes_nothing() -> None:
    assert phase_of(DONE, [item()]) is None


def test_an_artifact_that_is_gone_or_not_whole_is_no_backup_any_more() -> None:
    (effect,) = artifact_check.changes(world(DONE), [], KNOWN)
    lost = dict(effect.status or {})
    assert (lost["phase"], lost["failure"]["reason"], lost["completionTime"]) == ("Failed", "ArtifactMissing", DONE["completionTime"])
    assert KEY in lost["failure"]["message"]
    assert effect.notes[0].warning
    (effect,) = artifact_check.changes(world(DONE), [item(problem="its dump is missing")], KNOWN)
    assert "its dump is missing" in (effect.status or {})["failure"]["message"]


def test_a_backup_sealed_while_the_inventory_ran_is_not_missed() -> None:
    assert phase_of(DONE, [], known="") is None
    assert phase_of({**DONE, "phase": "Running"}, []) is None
    assert phase_of({**DONE, "phase": "Deleting"}, []) is None


def test_a_storage_that_was_made_again_for_another_bucket_knows_nothing_of_it() -> None:
    elsewhere = {**DONE, "artifact": {"key": KEY, "bucket": "another", "endpoint": "http://s3:7070"}}
    assert phase_of(elsewhere, []) is None
    here = {**DONE, "artifact": {"key": KEY, "bucket": "backups", "endpoint": "http://s3:7070"}}
    assert phase_of(here, []) == "Failed"


def test_what_is_back_is_completed_again() -> None:
    (effect,) = artifact_check.changes(world(DONE), [], KNOWN)
    lost = dict(effect.status or {})
    assert phase_of(lost, []) is None, "reported once"
    assert phase_of(lost, [item(problem="its dump is missing")]) is None
    (back,) = artifact_check.changes(world(lost), [item()], KNOWN)
    status = dict(back.status or {})
    assert (status["phase"], "failure" in status, status["duration"]) == ("Completed", False, "9s")


def test_another_failure_is_not_undone() -> None:
    failed = {**DONE, "phase": "Failed", "failure": {"reason": "OutcomeUnknown", "message": "m", "hint": "h", "retryable": False}}
    assert phase_of(failed, [item()]) is None
