"""Artifacts without an object: imported, found again by their key, or expired by their
manifests."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.support.plan_world import T0, Raw
from tests.unit.support.simulation import Operator, World, again_and_again, everywhere

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
KIND = "BackupStorage"
NIGHT = "nightly-20261101-0300"


def at(day: int, hour: int = 3) -> datetime:
    """In November 2026; T0 is the 23rd, 01:00."""
    return datetime(2026, 11, day, hour, tzinfo=UTC)


def status_of(world: World) -> Raw:
    return world.status(KIND, "default")


def looks(world: World) -> int:
    return len(world.specs("inventory"))


@pytest.fixture
def world() -> World:
    made = World()
    made.storage()
    return made


# Import


def test_an_import_makes_the_objects_again_once(world: World) -> None:
    key = world.orphan(NIGHT, at(1), schedule="nightly", expires=at(30))
    world.orphan("by-hand", at(2), database="shop")
    world.orphan("undo", at(3), kind="DatabaseRestore", safety=True)
    world.bucket[world.orphan("bad", at(4))].problem = "manifest.json cannot be read"
    world.run(MINUTE)
    assert world.made() == [], "nobody has asked for it"
    world.annotate(KIND, "default", "import", "1")
    world.run(MINUTE)
    assert world.names(phase="Completed") == ["by-hand", NIGHT]
    assert status_of(world)["lastImport"] == {"token": "1", "time": "2026-11-23T01:01:10Z", "imported": 2, "skipped": 1}
    assert status_of(world)["usage"]["orphans"] == 1, "the safety backup"
    made = world.get("DatabaseBackup", NIGHT)
    assert made["metadata"]["labels"] == {"dbbackup.io/schedule": "nightly"}
    assert made["spec"].items() >= {"origin": "Discovered", "artifactKey": key, "deletionPolicy": "Retain"}.items()
    status = made["status"]
    assert (status["origin"], status["artifact"]["key"], status["expirationTime"]) == ("Discovered", key, "2026-11-30T03:00:00Z")
    assert (status["expires"], status["startTime"], status["duration"]) == ("2026-11-30 03:00", "2026-11-01T03:00:00Z", "5s")
    assert (status["database"]["identity"], status["size"]) == ("db:5432/app", "1000 B")
    assert "labels" not in world.get("DatabaseBackup", "by-hand")["metadata"] or not world.get("DatabaseBackup", "by-hand")["metadata"]["labels"]
    world.run(2 * DAY)
    assert len(world.made()) == 2
    world.annotate(KIND, "default", "import", "2")
    world.run(MINUTE)
    assert len(world.made()) == 2
    assert status_of(world)["lastImport"] == {"token": "2", "time": "2026-11-25T01:02:10Z", "imported": 0, "skipped": 1}


def test_an_import_reuses_no_name_that_is_taken(world: World) -> None:
    world.orphan("mine", at(1))
    world.orphan("mine", at(2), uid="01234567-0000-4000-8000-000000000000")
    world.apply("DatabaseBackup", "theirs", {"database": {"secretRef": {"name": "s"}}, "storageRef": {"name": "other"}})
    world.orphan("theirs", at(3), uid="89abcdef-0000-4000-8000-000000000000")
    for name in ("both", "both-fedcba98"):
        world.apply("DatabaseBackup", name, {"database": {"secretRef": {"name": "s"}}, "storageRef": {"name": "other"}})
    world.orphan("both", at(3), uid="fedcba98-0000-4000-8000-000000000000")
    world.annotate(KIND, "default", "import", "1")
    world.run(MINUTE)
    assert world.names(phase="Completed") == ["mine", "mine-01234567", "theirs-89abcdef"]
    assert len({world.status("DatabaseBackup", name)["artifact"]["key"] for name in world.names(phase="Completed")}) == 3


def test_a_name_that_is_taken_at_the_last_moment_is_left_alone(world: World) -> None:
    """The operator has not heard of a backup that a person has just made: its status must not say
    that it is Completed."""
    world.orphan("a", at(1))
    world.annotate(KIND, "default", "import", "1")
    world.run(5)
    world.operator.deaf = True
    world.apply("DatabaseBackup", "a", {"database": {"secretRef": {"name": "s"}}})
    job = world.job("inventory")
    world.end(job)
    for kind in ("Job", "Pod"):
        for obj in world.all(kind):
            world.operator.watch.event(kind, "MODIFIED", obj)
    world.run(1, rest=False)
    assert world.status("DatabaseBackup", "a").get("phase") != "Completed"
    world.operator.deaf = False
    world.run(2 * MINUTE)
    assert len(world.names(phase="Completed")) == 2
    assert world.get("DatabaseBackup", "a")["status"]["jobName"].startswith("backup-a-")


def test_an_object_that_another_worker_has_looked_at_is_completed_all_the_same(world: World) -> None:
    """It was Pending for a moment: that must not last until the next inventory."""

    def pending(obj: Raw) -> None:
        if obj["kind"] == "DatabaseBackup":
            world.server.change(("DatabaseBackup", obj["metadata"]["name"]), {"status": {"phase": "Pending"}})

    world.server.meddle = pending
    world.orphan("a", at(1))
    world.annotate(KIND, "default", "import", "1")
    world.run(12)
    assert world.names(phase="Completed") == ["a"]
    assert looks(world) == 1


def test_a_restore_takes_what_was_imported(world: World) -> None:
    key = world.orphan("a", at(1))
    world.annotate(KIND, "default", "import", "1")
    world.restore("back", {"backupRef": {"name": "a"}})
    world.run(MINUTE)
    assert world.names("DatabaseRestore", "Completed") == ["back"]
    [spec] = world.specs("restore")
    assert spec.restore is not None
    assert (spec.restore.key, spec.restore.manifest_sha256) == (key, "b" * 64)


def test_imported_backups_are_pruned_as_their_schedule_says(world: World) -> None:
    """By the times of their runs: the objects are all of one age."""
    for day in range(1, 7):
        world.orphan(f"nightly-{9 - day}", at(day), schedule="nightly")
    world.schedule(suspend=True, retention={"keepLast": 3})
    world.annotate(KIND, "default", "import", "1")
    world.run(10 * MINUTE)
    assert world.names() == ["nightly-3", "nightly-4", "nightly-5"]
    assert len(world.bucket) == 3


def test_artifacts_that_have_expired_are_imported_before_they_go(world: World) -> None:
    """The import and the removal of orphans find the same artifact: no object may say Completed of
    one that a Job removes at that moment."""
    for day in range(1, 4):
        world.orphan(f"b{day}", at(day), expires=at(20))
    world.annotate(KIND, "default", "import", "1")
    world.run(5 * MINUTE)
    assert world.names(phase="Expired") == ["b1", "b2"]
    assert world.names(phase="Completed") == ["b3"]
    assert len(world.deleted) == 2


@pytest.mark.parametrize("lost_answers", [False, True], ids=["killed", "answers lost"])
def test_killed_after_any_action_an_import_makes_each_object_once(lost_answers: bool) -> None:
    keys: set[str] = set()

    def scenario(world: World) -> None:
        keys.clear()
        world.ready_storage()
        keys.update(world.orphan(name, at(1)) for name in ("a", "b"))
        keys.add(world.orphan("c", at(2), database="shop", schedule="nightly"))
        world.annotate(KIND, "default", "import", "1")
        world.run(2 * MINUTE)

    def check(world: World) -> None:
        assert sorted(world.made()) == world.names(phase="Completed") == ["a", "b", "c"]
        assert {world.status("DatabaseBackup", name)["artifact"]["key"] for name in world.names()} == keys
        assert status_of(world)["lastImport"]["token"] == "1"
        assert status_of(world)["usage"]["orphans"] == 0

    assert everywhere(scenario, check, lost_answers=lost_answers) > 8
    if not lost_answers:
        again_and_again(scenario, check)


@pytest.mark.parametrize("seed", range(3))
def test_two_operators_import_what_one_imports(seed: int) -> None:
    world = World(dawdle=random.Random(seed))
    world.operators.append(Operator(world, "two"))
    world.storage()
    for day in range(1, 7):
        world.orphan(f"b{day}", at(day))
    world.annotate(KIND, "default", "import", "1")
    world.run(5 * MINUTE)
    assert sorted(world.made()) == world.names(phase="Completed") == [f"b{day}" for day in range(1, 7)]


# Discovered objects that Git or a person made


def discovered(world: World, name: str, key: str, storage: str = "default") -> None:
    world.apply("DatabaseBackup", name, {"origin": "Discovered", "artifactKey": key, "storageRef": {"name": storage}})


def test_a_discovered_object_is_found_by_its_key(world: World) -> None:
    key = world.orphan("a", at(1))
    world.run(MINUTE)
    discovered(world, "from-git", key)
    discovered(world, "nowhere", "team/ns/db_5432/app/20261101T000000Z-x-00000000")
    world.run(MINUTE)
    assert looks(world) == 2, "for them alone"
    assert world.status("DatabaseBackup", "from-git")["artifact"]["key"] == key
    assert world.names(phase="Completed") == ["from-git"]
    assert world.condition("DatabaseBackup", "nowhere")[1] == "WaitingForInventory"
    world.run(HOUR)
    assert looks(world) == 2, "what is not there is not looked for all the time"
    world.annotate(KIND, "default", "import", "1")
    world.run(MINUTE)
    assert world.made() == ["from-git", "nowhere"]


def test_one_that_was_made_in_the_second_of_a_look_is_found(world: World) -> None:
    key = world.orphan("a", at(1))
    world.run(9.9, rest=False)
    world.run(0.1, rest=False)
    assert status_of(world)["checkedAt"] == "2026-11-23T01:00:10Z"
    discovered(world, "from-git", key)
    world.run(MINUTE)
    assert world.names(phase="Completed") == ["from-git"]


def test_an_artifact_that_an_object_waits_for_is_no_orphan(world: World) -> None:
    for day in range(1, 4):
        key = world.orphan(f"b{day}", at(day), expires=at(20))
        if day == 1:
            discovered(world, "from-git", key)
            world.annotate("DatabaseBackup", "from-git", "pin", "true")
    world.run(10 * MINUTE)
    assert world.status("DatabaseBackup", "from-git")["expires"] == "pinned"
    assert world.names(phase="Completed") == ["from-git"]
    assert len(world.deleted) == 1


# Orphans


def test_orphans_expire_by_their_manifests_but_never_the_newest(world: World) -> None:
    keys = [world.orphan(f"b{day}", at(day), expires=at(20)) for day in (1, 2)]
    newest = world.orphan("b3", at(3), expires=at(20))
    world.orphan("never", at(1))
    world.orphan("later", at(1), expires=at(30))
    world.orphan("other", at(1), database="shop", expires=at(20))
    world.run(MINUTE)
    assert sorted(world.deleted) == keys
    assert newest in world.bucket
    assert len(world.specs("prune")) == 1
    assert world.made() == []
    world.run(8 * DAY + HOUR)
    assert len(world.deleted) == 3
    assert newest in world.bucket


def test_an_orphan_does_not_outlive_a_backup_that_has_an_object(world: World) -> None:
    world.good("mine", at(2))
    older, newer = (world.orphan(f"b{day}", at(day), expires=at(20)) for day in (1, 3))
    world.run(MINUTE)
    assert world.deleted == [older]
    assert newer in world.bucket


def test_an_orphan_that_a_restore_reads_stays(world: World) -> None:
    world.pace = HOUR
    key = world.orphan("a", at(1), expires=at(20))
    world.orphan("b", at(2))
    world.restore("back", {"artifact": {"key": key}})
    world.run(5 * MINUTE)
    world.end(world.job("inventory"))
    world.run(5 * MINUTE)
    assert world.specs("prune") == []


def test_the_storages_clock_removes_nothing_early(world: World) -> None:
    """Nor late: the operator's "now" is the API server's time, and the Jobs' clocks count for
    nothing in it."""
    world.orphan("a", at(1), expires=T0 + HOUR)
    world.orphan("b", at(2))
    world.storage_clock = 365 * DAY
    world.run(MINUTE)
    assert world.specs("prune") == []
    assert status_of(world)["checkedAt"] == "2026-11-23T01:00:10Z"
    world.storage_clock = -365 * DAY
    world.annotate(KIND, "default", "check-now", "1")
    world.run(until=T0 + 2 * HOUR)
    world.annotate(KIND, "default", "check-now", "2")
    world.run(MINUTE)
    assert len(world.deleted) == 1


def test_what_another_storage_holds_in_the_same_bucket_is_no_orphan(world: World) -> None:
    """Two BackupStorages of one bucket: a storage that was renamed. What is pinned there must not
    go as an orphan here."""
    old = world.good("old", at(1), storage="first", expires=at(20), annotations={"dbbackup.io/pin": "true"})
    world.good("new", at(2))
    world.annotate(KIND, "default", "import", "1")
    world.run(5 * MINUTE)
    assert old["status"]["artifact"]["key"] in world.bucket
    assert world.made() == ["old", "new"]
    assert status_of(world)["usage"]["orphans"] == 0


def test_an_artifact_whose_run_has_not_reported_yet_is_no_orphan(world: World) -> None:
    world.pace = None
    world.apply("DatabaseBackup", "running", {"database": {"secretRef": {"name": "s"}}})
    world.annotate(KIND, "default", "import", "1")
    world.run(1, rest=False)
    world._work(world.specs("backup")[0], [])
    world.end(world.job("inventory"))
    world.run(2)
    assert world.made() == ["running"]
    assert status_of(world)["usage"]["orphans"] == 0


def test_many_orphans_go_batch_after_batch(world: World) -> None:
    for number in range(260):
        world.orphan(f"b{number:03}", at(1) + number * MINUTE, expires=at(20))
        world.orphan(f"c{number:03}", at(2) + number * MINUTE)
    world.run(10 * MINUTE)
    assert len(world.deleted) == 260
    assert [len(spec.prune.items) for spec in world.specs("prune") if spec.prune] == [250, 10]
    assert looks(world) == 2, "the last batch was not full"
    world.run(HOUR)
    assert looks(world) == 2


def test_orphans_that_cannot_be_deleted_are_reported_and_tried_seldom(world: World) -> None:
    for number in range(250):
        world.bucket[world.orphan(f"b{number:03}", at(1) + number * MINUTE, expires=at(20))].stuck = "AccessDenied"
        world.orphan(f"c{number:03}", at(2) + number * MINUTE)
    world.run(HOUR)
    assert len(world.specs("prune")) == 1
    assert "250 artifacts could not be deleted" in status_of(world)["pruneMessage"]
    assert looks(world) == 1


def test_too_many_orphans_wait_for_a_person(world: World) -> None:
    for day in range(1, 6):
        world.orphan(f"b{day}", at(day), expires=at(20))
    world.run(5 * MINUTE)
    assert world.deleted == []
    held = status_of(world)["retention"]["held"]
    assert held["count"] == 4
    assert world.condition(KIND, "default", "PruneHeld") == ("True", "TooManyOrphans", held["message"])
    world.run(HOUR)
    assert status_of(world)["retention"]["held"] == held, "it stands until the next inventory"
    world.annotate(KIND, "default", "approve-prune", held["token"])
    world.run(5 * MINUTE)
    assert len(world.deleted) == 4
    assert "retention" not in status_of(world)
    assert world.condition(KIND, "default", "PruneHeld") == ("", "", "")
    assert looks(world) == 2


def test_killed_after_any_action_orphans_go_and_nothing_else() -> None:
    def scenario(world: World) -> None:
        world.ready_storage()
        for day in range(1, 4):
            world.orphan(f"b{day}", at(day), expires=at(20))
        world.annotate(KIND, "default", "check-now", "1")
        world.run(5 * MINUTE)

    def check(world: World) -> None:
        assert [key.split("-")[1] for key in sorted(world.deleted)] == ["b1", "b2"]
        assert status_of(world)["lastCheck"] == "1"

    assert everywhere(scenario, check) > 5
    again_and_again(scenario, check)


def test_an_import_that_is_asked_for_while_orphans_are_removed_waits(world: World) -> None:
    """It would make objects of artifacts that are just being deleted."""
    for day in range(1, 4):
        world.orphan(f"b{day}", at(day), expires=at(20))
    world.run(12, rest=False)
    assert len(world.running("prune")) == 1
    world.annotate(KIND, "default", "import", "1")
    world.run(5, rest=False)
    assert world.running("inventory") == []
    world.run(MINUTE)
    assert world.made() == ["b3"]


def test_an_inventory_that_was_taken_in_half_way_is_not_believed_later(world: World) -> None:
    """An operator made the Job that removes what it found, and died. What somebody wants of it
    meanwhile is going already."""
    keys = [world.orphan(f"b{day}", at(day), expires=at(20)) for day in range(1, 4)]
    world.run(9.9, rest=False)
    world.operator.kube.fuse, world.lives = 1, 0
    world.run(1, rest=False)
    assert len(world.running("prune")) == len(world.running("inventory")) == 1
    discovered(world, "from-git", keys[0])
    world.down(timedelta(seconds=1))
    world.run(2 * MINUTE)
    assert world.condition("DatabaseBackup", "from-git")[1] == "WaitingForInventory"
    assert sorted(world.deleted) == keys[:2]
    assert status_of(world)["usage"]["artifacts"] == 1
