"""Retention carried out: what goes, step by step, and what never does, whatever befalls operator,
Job and bucket."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.support.plan_world import T0
from tests.unit.support.simulation import Operator, World, again_and_again, error, everywhere, quota

from dbbackup.api.objects import expiring
from dbbackup.contract.run import PruneItem, PruneOptions
from dbbackup.plan import pruning

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
STORAGE = "BackupStorage"
SCHEDULE = "DatabaseBackupSchedule"
BACKUP = "DatabaseBackup"
PAST = datetime(2026, 11, 20, tzinfo=UTC)


def at(day: int, hour: int = 3) -> datetime:
    """In November 2026; T0 is the 23rd, 01:00."""
    return datetime(2026, 11, day, hour, tzinfo=UTC)


def series(world: World, count: int, schedule: str | None = "nightly", prefix: str = "nightly", **more: object) -> list[str]:
    """Good backups of the days up to the 22nd, oldest first."""
    names = []
    for number in range(count):
        moment = at(22) - (count - 1 - number) * DAY
        names.append(f"{prefix}-{moment:%Y%m%d-%H%M}")
        world.good(names[-1], moment, schedule=schedule, **more)  # type: ignore[arg-type]
    return names


def marked(world: World) -> list[str]:
    return [obj["metadata"]["name"] for obj in world.all(BACKUP) if expiring(obj)]


def key(world: World, name: str) -> str:
    found: str = world.status(BACKUP, name)["artifact"]["key"]
    return found


@pytest.fixture
def world() -> World:
    made = World()
    made.ready_storage()
    return made


# What goes


def test_what_a_schedule_made_goes_with_its_artifact(world: World) -> None:
    names = series(world, 6)
    keys = [key(world, name) for name in names]
    world.schedule(suspend=True, retention={"keepLast": 3})
    world.run(2, rest=False)
    assert marked(world) == names[:3], "marked first"
    assert world.condition(BACKUP, names[0])[1:] == ("Expiring", "retention removes the artifact: no rule keeps it")
    assert set(keys) <= world.bucket.keys()
    world.run(MINUTE)
    assert world.names() == names[3:]
    assert world.deleted == keys[:3]
    [spec] = world.specs("prune")
    assert spec.prune is not None
    assert [item.key for item in spec.prune.items] == keys[:3]
    assert world.events("Pruned") == ["deleted 3 artifacts that had expired"]
    assert sorted(world.events("Expiring")) == [f"the artifact {name} is removed: no rule keeps it" for name in keys[:3]]
    assert sorted(world.events("Expired")) == [f"deleted {name}; retention removes the artifact: no rule keeps it" for name in keys[:3]]
    assert world.all("Job") == []
    assert looks_idle(world)


def looks_idle(world: World) -> bool:
    """Nothing more is done for an hour."""
    before = world.actions
    world.run(HOUR)
    return world.actions == before


def test_what_a_person_made_stays_as_expired(world: World) -> None:
    world.good("a", at(1), expires=PAST)
    world.good("b", at(2))
    world.run(MINUTE)
    assert world.status(BACKUP, "a")["phase"] == "Expired"
    assert world.status(BACKUP, "a")["expires"] == "expired"
    assert world.condition(BACKUP, "a") == (
        "True",
        "Expired",
        "the artifact was deleted on 2026-11-23T01:00:10Z; retention removes the artifact: expired 2026-11-20 00:00Z",
    )
    assert world.condition(BACKUP, "a", "Finished")[0] == "True"
    assert len(world.deleted) == 1
    assert looks_idle(world)


def test_at_its_time_and_not_before(world: World) -> None:
    world.good("a", at(1), expires=T0 + timedelta(hours=5))
    world.good("b", at(2))
    world.run(until=T0 + timedelta(hours=5) - timedelta(seconds=1))
    assert world.deleted == []
    world.run(30)
    assert len(world.deleted) == 1


def test_what_lies_in_a_bucket_that_the_storage_names_no_more_is_left_alone(world: World) -> None:
    world.good("a", at(1), expires=PAST)
    world.good("b", at(2))
    world.edit("BackupStorage", "default", s3={"bucket": "another"})
    world.run(MINUTE)
    assert world.deleted == []
    assert world.status("DatabaseBackup", "a")["phase"] == "Completed"


def test_an_artifact_that_is_not_there_counts_as_deleted(world: World) -> None:
    world.good("a", at(1), expires=PAST)
    world.good("b", at(2))
    del world.bucket[key(world, "a")]
    world.server.refuse = lambda _: None
    world.run(MINUTE)
    assert world.names(phase="Expired") == ["a"]


def test_the_newest_stays_whatever_says_otherwise(world: World) -> None:
    world.good("only", at(1), expires=PAST)
    world.good("shop", at(1), database="shop", expires=PAST)
    world.good("shop-2", at(2), database="shop", expires=PAST)
    world.run(DAY)
    assert world.names(phase="Completed") == ["only", "shop-2"]


def test_what_was_made_before_there_was_retention_never_goes(world: World) -> None:
    for day in range(1, 10):
        world.good(f"old-{day}", datetime(2020, 1, day, tzinfo=UTC))
    world.schedule(retention={"keepLast": 1})
    world.run(2 * DAY)
    assert [name.split("-")[1] for name in world.deleted] == ["nightly"]
    assert len([name for name in world.names(phase="Completed") if name.startswith("old-")]) == 9


def test_the_deletion_policy_changes_nothing_and_needs_no_cleanup(world: World) -> None:
    names = series(world, 3, expires=PAST, deletionPolicy="Delete")
    world.good("by-hand", at(10), expires=PAST, deletionPolicy="Delete")
    for obj in world.all(BACKUP):
        world.server.change((BACKUP, obj["metadata"]["name"]), {"metadata": {"finalizers": ["dbbackup.io/artifact"]}})
    world.schedule(suspend=True)
    world.run(5 * MINUTE)
    assert world.names() == ["by-hand", names[2]]
    assert world.status(BACKUP, "by-hand")["phase"] == "Expired"
    assert world.get(BACKUP, "by-hand")["metadata"]["finalizers"] == []
    assert (len(world.deleted), world.specs("cleanup")) == (3, [])
    world.server.delete((BACKUP, "by-hand"))
    world.run(MINUTE)
    assert (world.names(), world.specs("cleanup")) == ([names[2]], [])


def test_an_object_that_a_person_deletes_while_it_goes(world: World) -> None:
    world.good("a", at(1), expires=PAST)
    world.good("b", at(2))
    world.run(5, rest=False)
    world.server.delete((BACKUP, "a"))
    world.run(MINUTE)
    assert world.names() == ["b"]
    assert len(world.deleted) == 1
    assert looks_idle(world)


def test_what_somebody_else_holds_in_deletion_is_left_to_them(world: World) -> None:
    """It counts nowhere: neither as the newest, which keeps another, nor as one to be removed,
    again and again."""
    for day, name in ((1, "a"), (2, "b"), (3, "c")):
        world.good(name, at(day), expires=PAST)
        world.server.change((BACKUP, name), {"metadata": {"finalizers": ["example.com/x"]}})
    world.server.delete((BACKUP, "c"))
    world.run(5, rest=False)
    assert marked(world) == ["a"], "b is the newest"
    world.server.delete((BACKUP, "a"))
    world.run(HOUR)
    assert len(world.specs("prune")) == 1
    assert world.status(BACKUP, "b")["phase"] == "Completed"


def test_what_was_deleted_is_not_deleted_again_until_it_is_heard_of(world: World) -> None:
    world.good("a", at(1), schedule="nightly")
    world.server.change((BACKUP, "a"), {"status": {"phase": "Expired"}})
    world.operator.hear()
    world.operator.deaf = True
    world.run(10, rest=False)
    assert world.names() == []
    assert world.actions <= 2


def test_a_schedule_that_is_gone_governs_nothing(world: World) -> None:
    series(world, 6)
    world.run(DAY)
    assert len(world.names(phase="Completed")) == 6


def test_a_schedule_that_cannot_be_read_removes_nothing(world: World) -> None:
    series(world, 4, expires=PAST)
    obj = world.schedule(suspend=True, retention={"minKeep": 4})
    world.run(MINUTE)
    world.server._put({**obj, "spec": {**obj["spec"], "retention": {"minKeep": 0}}}, "MODIFIED")
    world.run(HOUR)
    assert len(world.names(phase="Completed")) == 4


@pytest.mark.parametrize("zone", ["Europe/Berln", "Etc/UTC"])
def test_a_time_zone_that_is_unknown_stops_neither_the_storage_nor_what_expires(world: World, zone: str) -> None:
    names = series(world, 5)
    world.good("a", at(1), expires=PAST, database="shop")
    world.good("b", at(2), database="shop")
    world.schedule(suspend=True, retention={"keepDaily": 3}, timeZone=zone)
    world.run(5 * MINUTE)
    assert world.names(phase="Expired") == ["a"]
    assert world.names(phase="Completed") == ["b", *(names if zone == "Europe/Berln" else names[2:])]


def test_a_schedule_that_moved_to_another_storage_counts_all_of_its_backups(world: World) -> None:
    old = series(world, 3, storage="default")
    world.ready_storage("second")
    new = [f"nightly-20261122-{hour:02}00" for hour in (10, 11, 12)]
    for number, name in enumerate(new):
        world.good(name, at(22, 10 + number), schedule="nightly", storage="second")
    world.schedule(suspend=True, retention={"keepLast": 3})
    world.run(5 * MINUTE)
    assert world.names() == [old[2], *new], "of the first storage the newest stays"


def test_many_go_in_a_handful_of_jobs(world: World) -> None:
    for number in range(1001):
        world.good(f"b{number:04}", at(1) + number * MINUTE, schedule="nightly")
    world.schedule(suspend=True, retention={"keepLast": 1, "maxPruneShare": 100})
    world.run(10 * MINUTE, rest=False)
    assert world.names() == ["b1000"]
    assert len(world.deleted) == 1000
    assert [len(spec.prune.items) for spec in world.specs("prune") if spec.prune] == [250, 250, 250, 250]


def test_a_job_gets_no_more_keys_than_an_environment_holds() -> None:
    wanted = [PruneItem(key=f"{'k' * 1000}{number}", uid="0" * 36) for number in range(200)]
    batch = pruning._batch(wanted)
    assert wanted[: len(batch)] == batch
    assert 80_000 < len(PruneOptions(items=tuple(batch)).to_json()) < 100_000


# What holds it


def test_a_pin_holds(world: World) -> None:
    names = series(world, 5)
    world.annotate(BACKUP, names[0], "pin", "true")
    world.schedule(suspend=True, retention={"keepLast": 2})
    world.run(5 * MINUTE)
    assert world.names() == [names[0], *names[3:]]
    assert world.status(BACKUP, names[0])["expires"] == "pinned"
    assert world.status(SCHEDULE, "nightly")["retention"]["pinned"] == 1
    world.annotate(BACKUP, names[0], "pin", None)
    world.run(5 * MINUTE)
    assert world.names() == names[3:]


def test_a_pin_that_the_operator_has_not_heard_of_holds(world: World) -> None:
    world.good("a", at(1), expires=PAST)
    world.good("b", at(2))
    behind = Operator(world, "behind")
    world.annotate(BACKUP, "a", "pin", "true")
    world.operators, behind.deaf = [behind], True
    world.run(10, rest=False)
    behind.deaf = False
    world.run(MINUTE)
    assert world.names(phase="Completed") == ["a", "b"]
    assert world.specs("prune") == []


def test_what_a_restore_reads_stays_until_it_is_over(world: World) -> None:
    world.pace = 30 * MINUTE
    world.good("a", at(1), expires=T0 + MINUTE)
    world.good("b", at(2), expires=T0 + MINUTE)
    world.good("c", at(3))
    world.restore("by-name", {"backupRef": {"name": "a"}})
    world.restore("by-key", {"artifact": {"key": key(world, "b")}})
    world.run(29 * MINUTE)
    assert marked(world) == []
    world.run(2 * MINUTE)
    assert world.names("DatabaseRestore", "Completed") == ["by-key", "by-name"]
    assert marked(world) == ["a", "b"], "looked at when the restores have ended"


def test_a_restore_of_what_goes_is_refused(world: World) -> None:
    world.good("a", at(1), expires=PAST)
    world.good("b", at(2))
    world.run(5, rest=False)
    assert marked(world) == ["a"]
    world.restore("back", {"backupRef": {"name": "a"}})
    world.run(MINUTE)
    assert world.condition("DatabaseRestore", "back")[1] == "BackupNotCompleted"


def test_nothing_goes_while_the_newest_run_failed(world: World) -> None:
    names = series(world, 6)
    world.failing = lambda spec: ("DumpFailed", False) if spec.run == "backup" else None
    world.schedule(retention={"keepLast": 6})
    world.run(until=at(23, 4))
    world.edit(SCHEDULE, "nightly", retention={"keepLast": 4})
    world.run(until=at(24, 1))
    assert world.deleted == []
    coming = world.status(SCHEDULE, "nightly")["retention"]["next"]
    assert [entry["name"] for entry in coming][:2] == names[:2]
    assert all("held: the newest run of the schedule failed (nightly-20261123-0300)" in entry["reason"] for entry in coming[:2])
    world.failing = lambda _: None
    world.run(until=at(24, 4))
    assert world.names(phase="Completed") == [*names[3:], "nightly-20261124-0300"]


@pytest.mark.parametrize("whose", ["schedule", "storage"])
def test_the_breaker_waits_for_a_person(world: World, whose: str) -> None:
    names = series(world, 10, "nightly" if whose == "schedule" else None, expires=PAST)
    kind, name = (SCHEDULE, "nightly") if whose == "schedule" else (STORAGE, "default")
    if whose == "schedule":
        world.schedule(suspend=True)
    world.run(HOUR)
    assert world.deleted == []
    held = world.status(kind, name)["retention"]["held"]
    assert held["count"] == 9
    assert world.condition(kind, name, "PruneHeld") == ("True", "TooManyAtOnce", held["message"])
    assert f"kubectl annotate --overwrite {'dbs/nightly' if whose == 'schedule' else 'bst/default'} " in held["message"]
    world.annotate(kind, name, "approve-prune", "00000000")
    world.run(HOUR)
    assert world.deleted == [], "another token is no approval"
    world.annotate(kind, name, "approve-prune", held["token"])
    world.run(5 * MINUTE)
    assert len(world.deleted) == 9
    assert world.names(phase="Completed") == names[9:]
    assert world.condition(kind, name, "PruneHeld") == ("", "", "")
    assert "held" not in world.status(kind, name).get("retention", {})


def test_an_approval_holds_for_all_of_them_though_the_operator_is_killed_half_way() -> None:
    def scenario(world: World) -> None:
        series(world, 6, None, "b", expires=PAST)
        world.ready_storage()
        fuse, world.operator.kube.fuse = world.operator.kube.fuse, None
        world.run(MINUTE)
        world.annotate(STORAGE, "default", "approve-prune", world.status(STORAGE, "default")["retention"]["held"]["token"])
        world.operator.kube.fuse = fuse
        world.run(10 * MINUTE)

    def check(world: World) -> None:
        assert (len(world.names(phase="Expired")), len(world.names(phase="Completed"))) == (5, 1)
        assert "retention" not in world.status(STORAGE, "default")

    assert everywhere(scenario, check) > 20
    again_and_again(scenario, check)


def test_a_prune_held_up_in_another_storage_is_not_reported_here(world: World) -> None:
    world.ready_storage("second")
    series(world, 10, None, "b", expires=PAST, storage="second")
    world.run(HOUR)
    assert "retention" not in world.status(STORAGE, "default")
    assert world.status(STORAGE, "second")["retention"]["held"]["count"] == 9


# What fails


def lost(world: World) -> None:
    world.pace = None
    world.run(2, rest=False)
    world.lose(world.job("prune"))


def failed(world: World) -> None:
    world.failing = lambda spec: ("StorageUnavailable", True) if spec.run == "prune" else None


def unread(world: World) -> None:
    world.silent = True


def stuck(world: World) -> None:
    world.bucket[key(world, "a")].stuck = "AccessDenied"


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (failed, "StorageUnavailable: StorageUnavailable happened"),
        (lost, "RunLost: the Job's pod was deleted before it could report"),
        (unread, "the Job's result could not be read: the run reported 1 items in 1 pages; its log holds 0 in 0"),
        (stuck, "1 artifacts could not be deleted, the first"),
    ],
)
def test_a_prune_that_fails_is_tried_again_after_ten_minutes(world: World, what: Callable[[World], None], why: str) -> None:
    world.good("a", at(1), expires=PAST)
    world.good("b", at(2))
    what(world)
    world.run(until=T0 + 9 * MINUTE)
    assert len(world.specs("prune")) == 1
    assert marked(world) == ["a"]
    assert world.condition(STORAGE, "default")[0] == "True"
    status = world.status(STORAGE, "default")
    assert status["pruneMessage"].startswith(why)
    assert "pruneFailedAt" in status
    assert len(world.events("PruneFailed")) == 1
    world.pace, world.silent, world.failing = timedelta(seconds=10), False, lambda _: None
    if key(world, "a") in world.bucket:
        world.bucket[key(world, "a")].stuck = None
    # A new operator knows no more than the status says, and what happens meanwhile puts nothing
    # off.
    world.down(timedelta(seconds=1))
    world.good("c", at(3), database="shop")
    world.run(until=T0 + 11 * MINUTE)
    assert world.names(phase="Expired") == ["a"]
    assert len(set(world.made("Job"))) == 2, "under a new name"
    assert not {"pruneMessage", "pruneFailedAt"} & world.status(STORAGE, "default").keys()


def test_what_stands_does_not_hold_up_the_others(world: World) -> None:
    for day in range(1, 4):
        world.good(f"b{day}", at(day), expires=PAST)
    world.good("c", at(4))
    world.bucket[key(world, "b2")].stuck = "AccessDenied"
    world.run(5 * MINUTE)
    assert world.names(phase="Expired") == ["b1", "b3"]
    assert marked(world) == ["b2"]
    assert world.events("Pruned") == ["deleted 2 artifacts that had expired"]


def test_a_prune_job_that_somebody_deletes_is_made_again(world: World) -> None:
    world.pace = None
    world.good("a", at(1), expires=PAST)
    world.good("b", at(2))
    world.run(2, rest=False)
    world.server.delete(("Job", world.job("prune")))
    world.pace = timedelta(seconds=10)
    world.run(MINUTE)
    assert world.names(phase="Expired") == ["a"]


def test_a_prune_whose_end_could_not_be_written_is_looked_at_again(world: World) -> None:
    """Somebody changed the backup in that moment. The next Job has the same name; the first one's
    pod is remembered, and speaks for it alone."""
    world.good("a", at(1), expires=PAST)
    world.good("b", at(2))
    world.run(5, rest=False)
    world.operator.deaf = True
    world.annotate(BACKUP, "a", "note", "x")
    world.end(world.job("prune"))
    for kind in ("Pod", "Job"):
        for obj in world.all(kind):
            world.operator.watch.event(kind, "MODIFIED", obj)
    world.run(1, rest=False)
    assert marked(world) == ["a"]
    world.operator.deaf = False
    world.run(MINUTE)
    assert world.names(phase="Expired") == ["a"]
    assert len(world.specs("prune")) == 2
    assert world.events("PruneFailed") == []


def test_a_refused_prune_job_is_reported_and_comes_back(world: World) -> None:
    world.good("a", at(1), expires=PAST)
    world.good("b", at(2))
    world.server.refuse = quota("Job")
    world.run(MINUTE)
    assert marked(world) == ["a"]
    assert world.status(STORAGE, "default")["pruneMessage"].startswith("the prune Job cannot be created: exceeded quota")
    world.server.refuse = lambda _: None
    world.run(10 * MINUTE)
    assert world.names(phase="Expired") == ["a"]


def test_a_refused_inventory_is_not_reported_as_a_prune(world: World) -> None:
    world.good("a", at(1), expires=PAST)
    world.good("b", at(2))
    world.bucket[key(world, "a")].stuck = "AccessDenied"
    world.run(MINUTE)
    before = world.status(STORAGE, "default")["pruneFailedAt"]
    world.server.refuse = quota("Job")
    world.annotate(STORAGE, "default", "check-now", "1")
    world.run(MINUTE)
    assert world.condition(STORAGE, "default")[1] == "PodRefused"
    assert world.status(STORAGE, "default")["pruneFailedAt"] == before


def test_nothing_is_removed_in_a_namespace_that_goes(world: World) -> None:
    world.good("a", at(1), expires=PAST)
    world.good("b", at(2))
    world.server.refuse = lambda body: error(403, "Forbidden", "namespace ns: it is being terminated")
    world.run(HOUR)
    assert (marked(world), world.deleted) == (["a"], [])
    assert "pruneMessage" not in world.status(STORAGE, "default")


# Killed, doubled


def mixed(world: World) -> None:
    series(world, 5)
    world.good("by-hand", at(1), database="shop", expires=PAST)
    world.good("by-hand-2", at(2), database="shop")
    world.ready_storage()
    world.schedule(suspend=True, retention={"keepLast": 3})
    world.run(5 * MINUTE)


def check_mixed(world: World) -> None:
    assert world.names(phase="Expired") == ["by-hand"]
    assert world.names(phase="Completed") == ["by-hand-2", "nightly-20261120-0300", "nightly-20261121-0300", "nightly-20261122-0300"]
    assert len(world.names()) == 5, "what the schedule made has no object any more"
    assert len(world.deleted) == len(set(world.deleted)) == 3


@pytest.mark.parametrize("lost_answers", [False, True], ids=["killed", "answers lost"])
def test_killed_after_any_action_the_same_goes_and_the_same_stays(lost_answers: bool) -> None:
    """That a marked backup never says Completed again, and that nothing but what is marked loses
    its artifact, the world itself looks after."""
    assert everywhere(mixed, check_mixed, lost_answers=lost_answers) > 15
    if not lost_answers:
        again_and_again(mixed, check_mixed)


@pytest.mark.parametrize("seed", range(4))
def test_two_operators_remove_what_one_removes(seed: int) -> None:
    world = World(dawdle=random.Random(seed))
    world.operators.append(Operator(world, "two"))
    mixed(world)
    world.run(15 * MINUTE)
    check_mixed(world)
