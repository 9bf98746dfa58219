"""What Argo CD and Flux make of every status that the operator writes: the shipped script and
expressions, in real interpreters, on statuses of the simulated world and of a life that passes
every phase."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import yaml
from tests.health import ARGO_KEY, GITOPS, Health, argo, expressions, flux, kstatus, scripts
from tests.unit.support.plan_world import T0, Raw
from tests.unit.support.simulation import World, quota

from dbbackup.contract.run import RunSpec

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
KINDS = {"BackupStorage", "DatabaseBackup", "DatabaseBackupSchedule", "DatabaseRestore"}
Told = dict[tuple[str, str, str], list[Raw]]
"""Kind, phase (empty where the kind has none), and the reason of Ready (empty before there is one)
-> objects."""


def ready(obj: Raw) -> Raw:
    found: Raw = next((item for item in obj["status"].get("conditions") or () if item["type"] == "Ready"), {})
    return found


def failing(spec: RunSpec, *, away: bool = False) -> tuple[str, bool] | None:
    if spec.owner.name in ("bad", "worse") or spec.owner.name.startswith("broken"):
        return "DatabaseUnreachable", False
    if spec.storage.name == "wrong":
        return "BucketNotFound", False
    return ("StorageUnavailable", True) if away else None


@pytest.fixture(scope="module")
def told() -> Told:
    """Whatever the operator told in a world in which everything happens once."""
    world = World(failing=failing)
    world.storage(capacity="1000")
    world.good("old", T0 - DAY, expires=T0 - HOUR)
    world.storage("wrong")
    lives: dict[str, dict[str, Any]] = {
        "one": {},
        "bad": {},
        "lost": {},
        "gone": {"deletionPolicy": "Delete"},
        "lonely": {"storageRef": {"name": "none"}},
    }
    for name, spec in lives.items():
        world.apply("DatabaseBackup", name, {"database": {"secretRef": {"name": "app-db"}}, **spec})
    world.restore("back", {"backupRef": {"name": "one"}})
    world.restore("worse", {"backupRef": {"name": "one"}})
    world.schedule("nightly", schedule="0 * * * *", immediate=True)
    world.schedule("broken", schedule="30 * * * *", immediate=True)
    world.schedule("nonsense", schedule="99 * * * *")
    world.schedule("paused", metadata={"annotations": {"dbbackup.io/suspend": "true"}})
    world.run(timedelta(minutes=5))
    world.server.delete(("DatabaseBackup", "gone"))
    del world.bucket[world.status("DatabaseBackup", "lost")["artifact"]["key"]]
    world.annotate("BackupStorage", "default", "check-now", "1")
    world.run(2 * HOUR)
    world.failing = functools.partial(failing, away=True)
    world.annotate("BackupStorage", "default", "check-now", "2")
    world.storage("late")
    world.run(2 * HOUR)
    world.failing = failing
    world.run(HOUR)
    world.server.refuse = quota("DatabaseBackup")
    world.run(HOUR)
    found: Told = {}
    for _, obj in world.server.watch_events:
        if obj["kind"] in KINDS:
            key = obj["kind"], obj["status"].get("phase", ""), ready(obj).get("reason", "")
            found.setdefault(key, []).append(obj)
    return found


EXPECTED: dict[tuple[str, str, str], tuple[str, str]] = {
    # A kind's own phase and reason -> Argo CD, Flux
    ("DatabaseBackup", "", ""): ("Progressing", "InProgress"),
    ("DatabaseBackup", "Pending", "Starting"): ("Progressing", "InProgress"),
    ("DatabaseBackup", "Pending", "WaitingForStorage"): ("Progressing", "InProgress"),
    ("DatabaseBackup", "Running", "Running"): ("Progressing", "InProgress"),
    ("DatabaseBackup", "Completed", "Completed"): ("Healthy", "Current"),
    ("DatabaseBackup", "Failed", "DatabaseUnreachable"): ("Degraded", "Failed"),
    ("DatabaseBackup", "Failed", "StorageUnavailable"): ("Degraded", "Failed"),
    ("DatabaseBackup", "Failed", "StorageNotFound"): ("Degraded", "Failed"),
    ("DatabaseBackup", "Failed", "ArtifactMissing"): ("Degraded", "Failed"),
    ("DatabaseBackup", "Deleting", "Expiring"): ("Healthy", "Current"),
    ("DatabaseBackup", "Deleting", "Deleting"): ("Progressing", "InProgress"),
    ("DatabaseBackup", "Expired", "Expired"): ("Healthy", "Current"),
    ("DatabaseRestore", "", ""): ("Progressing", "InProgress"),
    ("DatabaseRestore", "Pending", "WaitingForBackup"): ("Progressing", "InProgress"),
    ("DatabaseRestore", "Pending", "Starting"): ("Progressing", "InProgress"),
    ("DatabaseRestore", "Running", "Running"): ("Progressing", "InProgress"),
    ("DatabaseRestore", "Completed", "Completed"): ("Healthy", "Current"),
    ("DatabaseRestore", "Failed", "DatabaseUnreachable"): ("Degraded", "Failed"),
    ("DatabaseBackupSchedule", "", ""): ("Progressing", "InProgress"),
    ("DatabaseBackupSchedule", "", "Suspended"): ("Suspended", "Current"),
    ("DatabaseBackupSchedule", "", "InvalidSpec"): ("Degraded", "Failed"),
    ("DatabaseBackupSchedule", "", "RunRefused"): ("Progressing", "InProgress"),
    ("BackupStorage", "", ""): ("Progressing", "InProgress"),
    ("BackupStorage", "", "Checking"): ("Progressing", "InProgress"),
    ("BackupStorage", "", "Available"): ("Healthy", "Current"),
    ("BackupStorage", "", "BucketNotFound"): ("Degraded", "Failed"),
}
"""Of Scheduled and StorageUnavailable more than the reason decides: they have tests of their
own."""


def test_each_status_has_its_health(told: Told) -> None:
    for key, (shown, waited) in EXPECTED.items():
        assert key in told, f"the world never showed {key}; it showed {sorted(told)}"
        for obj in staying(told[key]):
            streak = shown == "Progressing" and obj["status"].get("consecutiveFailures")
            assert argo(obj).status == ("Degraded" if streak else shown), (key, argo(obj))
            assert flux(obj) == waited, key


def test_nothing_was_told_that_this_page_does_not_expect(told: Told) -> None:
    more = {
        ("DatabaseBackupSchedule", "", "Scheduled"),
        ("DatabaseBackupSchedule", "", "WaitingForPreviousRun"),
        ("BackupStorage", "", "StorageUnavailable"),
    }
    assert set(told) - set(EXPECTED) <= more | {("DatabaseBackup", "Pending", "Stopping"), ("DatabaseBackup", "Running", "Retrying")}
    assert {phase for kind, phase, _ in told if kind == "DatabaseBackup"} == {"", "Pending", "Running", "Completed", "Failed", "Deleting", "Expired"}


def test_the_expressions_differ_from_kstatus_in_one_thing(told: Told) -> None:
    """That retention removes an artifact: by kstatus alone a Kustomization would wait for it, for
    ever where the bucket lets nothing be deleted."""
    differ = {key for key, objects in told.items() for obj in objects if flux(obj) != kstatus(obj)}
    assert differ == {("DatabaseBackup", "Deleting", "Expiring")}


def test_a_schedule_whose_runs_fail_is_degraded_and_holds_up_no_kustomization(told: Told) -> None:
    by_streak: dict[bool, set[str]] = {}
    for obj in told["DatabaseBackupSchedule", "", "Scheduled"]:
        by_streak.setdefault(obj["status"]["consecutiveFailures"] > 0, set()).add(argo(obj).status)
        assert flux(obj) == "Current"
    assert by_streak == {True: {"Degraded"}, False: {"Healthy"}}
    failed = [obj for obj in told["DatabaseBackupSchedule", "", "Scheduled"] if obj["status"]["consecutiveFailures"] == 2]
    messages = {argo(obj).message for obj in failed}
    assert any(message.startswith("runs that failed, one after the other: 2; the last good one ended at 2026-11-23T") for message in messages)
    assert "runs that failed, one after the other: 2; none has succeeded yet" in messages


def test_a_storage_that_is_away_is_degraded_unless_it_never_was_there(told: Told) -> None:
    away = {obj["metadata"]["name"]: argo(obj) for obj in told["BackupStorage", "", "StorageUnavailable"]}
    assert {name: health.status for name, health in away.items()} == {"default": "Degraded", "late": "Progressing"}
    assert away["default"].message.startswith("StorageUnavailable: ")
    assert {flux(obj) for obj in told["BackupStorage", "", "StorageUnavailable"]} == {"InProgress"}


def test_a_failure_says_what_and_what_to_do(told: Told) -> None:
    [failed] = [obj for obj in told["DatabaseBackup", "Failed", "DatabaseUnreachable"] if obj["metadata"]["name"] == "bad"][:1]
    assert argo(failed) == Health("Degraded", "DatabaseUnreachable: DatabaseUnreachable happened (do something)")


def test_a_storage_that_fills_up_is_healthy_and_says_so(told: Told) -> None:
    near = [
        obj
        for obj in told["BackupStorage", "", "Available"]
        if any(c["type"] == "NearCapacity" and c["status"] == "True" for c in obj["status"]["conditions"])
    ]
    assert near
    assert argo(near[-1]).status == "Healthy"
    assert "% " in argo(near[-1]).message or argo(near[-1]).message.endswith("%")


def staying(objects: list[Raw]) -> list[Raw]:
    """Without those that were being deleted, unless their phase says so."""
    return [obj for obj in objects if "deletionTimestamp" not in obj["metadata"] or obj["status"].get("phase") == "Deleting"]


def changed(obj: Raw) -> Iterator[tuple[str, Raw]]:
    newer = copy.deepcopy(obj)
    newer["metadata"]["generation"] += 1
    yield "changed since", newer
    unseen = copy.deepcopy(obj)
    unseen["status"] = {"observedGeneration": -1}
    yield "new", unseen
    yield "no status at all", {**unseen, "status": {}}
    half = copy.deepcopy(obj)
    half["status"] = {"observedGeneration": obj["metadata"]["generation"], "phase": obj["status"].get("phase", "Pending")}
    yield "no conditions", half


def test_what_the_operator_has_not_seen_is_never_well(told: Told) -> None:
    for objects in told.values():
        for name, obj in changed(objects[-1]):
            assert argo(obj).status == "Progressing", (name, obj["kind"], obj["status"])
            assert flux(obj) == "InProgress", (name, obj["kind"], obj["status"])


def test_what_is_being_deleted_is_never_well(told: Told) -> None:
    for objects in told.values():
        obj = copy.deepcopy(objects[-1])
        obj["metadata"]["deletionTimestamp"] = "2026-11-23T01:00:00Z"
        assert argo(obj).status == "Progressing"
        assert flux(obj) == "InProgress"


def test_each_kind_has_its_script_and_its_expressions() -> None:
    assert set(scripts()) == {ARGO_KEY.format(kind) for kind in KINDS}
    assert set(expressions()) == KINDS
    for entry in expressions().values():
        assert set(entry) == {"apiVersion", "kind", "current", "inProgress", "failed"}
        assert entry["apiVersion"] == "dbbackup.io/v1"


def test_the_script_uses_nothing_that_argo_cd_withholds() -> None:
    """`argo` takes away what Argo CD does not give: a script that uses it fails there, as it would
    here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(scripts(), ARGO_KEY.format("DatabaseBackup"), "return {status = string.upper('healthy'), message = ''}")
        with pytest.raises(Exception, match="string"):
            argo({"kind": "DatabaseBackup", "metadata": {}})


def test_the_config_map_is_what_argo_cd_reads() -> None:
    patch: dict[str, Any] = yaml.safe_load((GITOPS / "argocd" / "argocd-cm.yaml").read_text())
    assert (patch["kind"], patch["metadata"]["name"]) == ("ConfigMap", "argocd-cm")
    source = (GITOPS / "argocd" / "health.lua").read_text()
    assert set(patch["data"].values()) == {source}


@pytest.mark.parametrize("phase", ["Completed", "Failed", "Deleting", "Expired"])
def test_a_change_after_the_run_is_seen(phase: str) -> None:
    """A tool that changes the deletion policy of a backup that is over must not wait for it for
    ever."""
    world = World(failing=failing)
    world.ready_storage()
    if phase in ("Deleting", "Expired"):
        world.good("old", T0 - DAY, expires=T0 - HOUR)
    name = {"Completed": "one", "Failed": "bad"}.get(phase, "old")
    for made in {"one", name} - {"old"}:
        world.apply("DatabaseBackup", made, {"database": {"secretRef": {"name": "app-db"}}})
    if phase == "Deleting":
        world.bucket[world.status("DatabaseBackup", "old")["artifact"]["key"]].stuck = "it is under an object lock"
    world.run(HOUR)
    before = copy.deepcopy(world.get("DatabaseBackup", name))
    assert before["status"]["phase"] == phase
    world.edit("DatabaseBackup", name, deletionPolicy="Delete")
    world.run(timedelta(minutes=1))
    after = world.get("DatabaseBackup", name)
    assert after["metadata"]["generation"] == after["status"]["observedGeneration"] == 2
    assert argo(after) == argo(before)
    assert flux(after) == flux(before)


MEANING = {"waits": "InProgress", "ready": "Current", "fails at once": "Failed"}


def shown(told: Told) -> dict[str, Raw]:
    """An object for each row of the table in docs/gitops.md."""
    schedules = [*told["DatabaseBackupSchedule", "", "Scheduled"], *told["DatabaseBackupSchedule", "", "RunRefused"]]
    away = {obj["metadata"]["name"]: obj for obj in told["BackupStorage", "", "StorageUnavailable"]}
    going = copy.deepcopy(told["DatabaseBackup", "Completed", "Completed"][0])
    going["metadata"]["deletionTimestamp"] = "2026-11-23T01:00:00Z"

    def schedule(reason: str, *, failing: bool) -> Raw:
        return next(obj for obj in schedules if ready(obj)["reason"] == reason and bool(obj["status"]["consecutiveFailures"]) == failing)

    def available(*, near: bool) -> Raw:
        found = {
            any(c["type"] == "NearCapacity" and c["status"] == "True" for c in obj["status"]["conditions"]): obj
            for obj in told["BackupStorage", "", "Available"]
        }
        return found[near]

    return {
        "not seen yet, or changed since": told["DatabaseBackup", "", ""][0],
        "backup or restore `Pending`, `Running`": told["DatabaseRestore", "Running", "Running"][0],
        "`Completed`": told["DatabaseBackup", "Completed", "Completed"][0],
        "`Failed` (also by a later `ArtifactMissing`)": told["DatabaseBackup", "Failed", "ArtifactMissing"][0],
        "retention removes the artifact (`Deleting`)": told["DatabaseBackup", "Deleting", "Expiring"][0],
        "`Expired`": told["DatabaseBackup", "Expired", "Expired"][0],
        "object being deleted": going,
        "schedule: next run planned, or running": schedule("Scheduled", failing=False),
        "schedule whose last run failed": schedule("Scheduled", failing=True),
        "schedule suspended": told["DatabaseBackupSchedule", "", "Suspended"][0],
        "schedule that Kubernetes refuses a backup (quota, policy)": schedule("RunRefused", failing=False),
        "spec that cannot be carried out": told["DatabaseBackupSchedule", "", "InvalidSpec"][0],
        "storage tried and usable": available(near=False),
        "storage that was usable and is unreachable now": away["default"],
        "new storage that is not reachable yet": away["late"],
        "storage that is wrong (no such bucket, access denied)": told["BackupStorage", "", "BucketNotFound"][0],
        "storage near its `capacity`, or with a prune that waits for approval": available(near=True),
    }


def test_the_documentation_tells_the_same(told: Told) -> None:
    page = (GITOPS.parents[1] / "docs" / "gitops.md").read_text()
    table = page.partition("| | Argo CD | Flux |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = {name: cells for name, *cells in ([cell.strip() for cell in row.strip("|").split("|")] for row in table)}
    examples = shown(told)
    assert set(rows) == set(examples)
    for row, obj in examples.items():
        argo_says, flux_says, helm_says = rows[row]
        assert argo(obj).status == argo_says.partition(",")[0], row
        assert flux(obj) == MEANING[flux_says], row
        assert kstatus(obj) == MEANING[helm_says], row


def test_a_prune_that_asks_a_person_is_healthy_and_says_so(told: Told) -> None:
    for key in (("BackupStorage", "", "Available"), ("DatabaseBackupSchedule", "", "Scheduled")):
        obj = copy.deepcopy(next(obj for obj in told[key] if not obj["status"].get("consecutiveFailures")))
        conditions = [item for item in obj["status"]["conditions"] if item["type"] != "NearCapacity"]
        obj["status"]["conditions"] = [*conditions, {"type": "PruneHeld", "status": "True", "reason": "TooManyAtOnce", "message": "9 would go"}]
        assert argo(obj) == Health("Healthy", f"{ready(obj)['message']}; 9 would go")
        assert flux(obj) == "Current"
