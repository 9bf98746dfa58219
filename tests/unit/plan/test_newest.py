"""Restores of the newest good backup of a schedule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.support.simulation import World, everywhere

MINUTE = timedelta(minutes=1)
KIND = "DatabaseRestore"


def at(day: int, hour: int = 3) -> datetime:
    """In November 2026; T0 is the 23rd, 01:00."""
    return datetime(2026, 11, day, hour, tzinfo=UTC)


@pytest.fixture
def world() -> World:
    made = World()
    made.ready_storage()
    return made


def restored(world: World, name: str = "back") -> str:
    """The name of the backup whose artifact the restore took."""
    assert world.names(KIND, "Completed") == [name]
    [spec] = world.specs("restore")
    assert spec.restore is not None
    status = world.status(KIND, name)
    assert (status["artifact"]["key"], status["artifact"]["manifestSha256"]) == (spec.restore.key, "b" * 64)
    return next(
        str(obj["metadata"]["name"]) for obj in world.all("DatabaseBackup") if (obj["status"].get("artifact") or {}).get("key") == spec.restore.key
    )


def test_the_newest_good_one_is_taken(world: World) -> None:
    for day in (3, 20, 21):
        world.good(f"nightly-{day}", at(day), schedule="nightly")
    world.good("by-hand", at(22))
    world.good("other", at(22), schedule="other")
    failed = world.good("failed", at(22), schedule="nightly")
    world.server.change(("DatabaseBackup", "failed"), {"status": {"phase": "Failed"}})
    assert failed
    world.restore("back", {"scheduleRef": {"name": "nightly"}})
    world.run(MINUTE)
    assert restored(world) == "nightly-21"
    assert world.status(KIND, "back")["source"] == "nightly-21"


def test_the_newest_before_a_time_is_one_that_had_ended_by_then(world: World) -> None:
    for day in (19, 20, 21):
        world.good(f"nightly-{day}", at(day), schedule="nightly")
    world.server.change(("DatabaseBackup", "nightly-20"), {"status": {"completionTime": "2026-11-20T04:00:00Z"}})
    world.restore("back", {"scheduleRef": {"name": "nightly", "before": "2026-11-20T03:30:00Z"}})
    world.run(MINUTE)
    assert restored(world) == "nightly-19"


def test_of_several_databases_one_must_be_named(world: World) -> None:
    world.good("a", at(20), schedule="nightly")
    world.good("b", at(21), schedule="nightly", database="shop")
    world.restore("back", {"scheduleRef": {"name": "nightly"}})
    world.run(MINUTE)
    assert world.condition(KIND, "back")[:2] == ("False", "InvalidSpec")
    assert world.condition(KIND, "back")[2].endswith(
        "schedule nightly has good backups of several databases, set `database`: db:5432/app, db:5432/shop"
    )
    assert world.specs("restore") == []


def test_the_named_one_is_taken(world: World) -> None:
    world.good("a", at(20), schedule="nightly")
    world.good("b", at(21), schedule="nightly", database="shop")
    world.restore("back", {"scheduleRef": {"name": "nightly", "database": "app"}})
    world.run(MINUTE)
    assert restored(world) == "a"


def test_a_database_that_has_moved_to_another_host_is_clear_once_it_is_named(world: World) -> None:
    world.good("a", at(20), schedule="nightly")
    world.good("b", at(21), schedule="nightly")
    world.server.change(("DatabaseBackup", "a"), {"status": {"database": {"identity": "old:5432/app"}}})
    world.restore("unclear", {"scheduleRef": {"name": "nightly"}})
    world.run(MINUTE)
    assert world.condition(KIND, "unclear")[1] == "InvalidSpec"
    world.server.delete((KIND, "unclear"))
    world.restore("back", {"scheduleRef": {"name": "nightly", "database": "app"}})
    world.run(MINUTE)
    assert restored(world) == "b"


def test_the_first_one_is_waited_for(world: World) -> None:
    world.schedule(schedule="5 1 * * *")
    world.restore("back", {"scheduleRef": {"name": "nightly"}})
    world.run(MINUTE)
    assert world.condition(KIND, "back")[1] == "WaitingForBackup"
    assert world.condition(KIND, "back")[2] == "schedule nightly in namespace ns has no good backup"
    world.run(5 * MINUTE)
    assert restored(world) == "nightly-20261123-0105"


def test_it_is_not_waited_for_longer_than_the_deadline(world: World) -> None:
    world.restore("back", {"scheduleRef": {"name": "nightly", "database": "shop", "before": "2026-11-20T00:00:00Z"}}, startDeadline="5m")
    world.good("late", at(20), schedule="nightly", database="shop")
    world.run(4 * MINUTE)
    assert world.condition(KIND, "back")[1] == "WaitingForBackup"
    world.run(2 * MINUTE)
    assert world.condition(KIND, "back")[:2] == ("False", "BackupNotFound")
    assert world.condition(KIND, "back")[2] == "schedule nightly in namespace ns has no good backup of database shop from before 2026-11-20T00:00:00Z"


def test_what_is_being_removed_is_not_taken(world: World) -> None:
    world.pace = timedelta(minutes=5)
    for day in (18, 19, 20, 21):
        world.good(f"nightly-{day}", at(day), schedule="nightly")
    world.good("expired", at(17), schedule="nightly")
    world.server.change(("DatabaseBackup", "expired"), {"status": {"phase": "Expired"}})
    world.schedule(suspend=True, retention={"keepLast": 2})
    world.run(10, rest=False)
    assert world.names(phase="Deleting") == ["nightly-18", "nightly-19"]
    world.restore("back", {"scheduleRef": {"name": "nightly", "before": "2026-11-20T00:00:00Z"}})
    world.run(MINUTE)
    assert world.condition(KIND, "back")[1] == "WaitingForBackup"


def test_the_choice_stays_and_keeps_the_artifact(world: World) -> None:
    world.pace = timedelta(minutes=20)
    world.good("nightly-20", at(20), schedule="nightly")
    world.restore("back", {"scheduleRef": {"name": "nightly"}})
    world.run(MINUTE)
    world.good("nightly-21", at(21), schedule="nightly")
    world.good("nightly-shop", at(22), schedule="nightly", database="shop")
    world.schedule(suspend=True, retention={"keepLast": 1})
    world.run(15 * MINUTE)
    assert world.names(phase="Completed") == ["nightly-20", "nightly-21", "nightly-shop"], "a restore reads it"
    world.down(timedelta(seconds=10))
    world.run(5 * MINUTE)
    assert world.names(KIND, "Completed") == ["back"]
    assert world.status(KIND, "back")["source"] == "nightly-20"


def test_killed_after_any_action_the_choice_is_that_of_the_job() -> None:
    """A newer backup, and one of another database, come before there is an operator again: what the
    Job reads must be recorded, and stay."""
    recorded: list[str] = []

    def scenario(world: World) -> None:
        world.ready_storage()
        old = world.good("nightly-20", at(20), schedule="nightly", expires=at(22))
        world.restore("back", {"scheduleRef": {"name": "nightly"}})
        world.lives = 0
        world.run(1, rest=False)
        world.good("nightly-21", at(21), schedule="nightly")
        world.good("nightly-shop", at(21), schedule="nightly", database="shop")
        world.down(timedelta(seconds=1))
        world.run(3, rest=False)
        if world.specs("restore"):
            recorded.append(world.status(KIND, "back")["artifact"]["key"])
            assert recorded[-1] == old["status"]["artifact"]["key"]
        world.run(MINUTE)

    def check(world: World) -> None:
        assert len(world.specs("restore")) == 1
        assert world.names(KIND, "Completed") == ["back"]
        assert world.status(KIND, "back")["source"] == "nightly-20"

    assert everywhere(scenario, check) > 1
    assert recorded, "killed after the Job was made, and before the status said so"


def test_the_check_of_a_job_that_was_lost_meanwhile_looks_for_what_that_read(world: World) -> None:
    old = world.good("nightly-20", at(20), schedule="nightly")
    world.pace = None
    world.restore("back", {"scheduleRef": {"name": "nightly"}})
    world.operator.kube.fuse, world.lives = 1, 0
    world.run(1, rest=False)
    world.lose(world.job("restore"))
    world.good("nightly-21", at(21), schedule="nightly")
    world.down(timedelta(seconds=1))
    world.run(5, rest=False)
    [check] = world.specs("check")
    assert check.restore is not None
    assert check.restore.key == old["status"]["artifact"]["key"]
