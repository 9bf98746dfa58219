"""Schedules: what is made, when, and that it is made once, whatever befalls the operator."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.support.plan_world import Raw
from tests.unit.support.simulation import Operator, World, again_and_again, error, everywhere, quota

from dbbackup.plan import cron

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
NIGHT = "nightly-20261123-0300"
KIND = "DatabaseBackupSchedule"


def at(day: int, hour: int, minute: int = 0) -> datetime:
    """In November 2026; T0 is the 23rd, 01:00."""
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


def status_of(world: World, name: str = "nightly") -> Raw:
    return world.status(KIND, name)


def ready(world: World, name: str = "nightly") -> tuple[str, str]:
    return world.condition(KIND, name)[:2]


@pytest.fixture
def world() -> World:
    made = World()
    made.ready_storage()
    return made


# When


def test_nothing_before_the_first_due_time_and_one_backup_at_it(world: World) -> None:
    world.schedule()
    world.run(until=at(23, 3) - timedelta(seconds=1))
    assert world.made() == []
    assert status_of(world)["nextScheduleTime"] == "2026-11-23T03:00:00Z"
    assert ready(world) == ("True", "Scheduled")
    world.run(until=at(23, 3))
    assert world.made() == [NIGHT]
    made = world.get("DatabaseBackup", NIGHT)
    assert made["metadata"]["creationTimestamp"] == "2026-11-23T03:00:00Z"
    assert made["metadata"]["labels"] == {"dbbackup.io/schedule": "nightly"}
    assert made["metadata"]["annotations"] == {"dbbackup.io/scheduled-at": "2026-11-23T03:00:00Z"}
    assert "ownerReferences" not in made["metadata"], "it stays when the schedule goes"
    assert status_of(world)["active"] == [{"name": NIGHT}]
    world.run(MINUTE)
    status = status_of(world)
    assert world.names(phase="Completed") == [NIGHT]
    assert status["active"] == []
    assert status["lastScheduleTime"] == "2026-11-23T03:00:00Z"
    assert status["lastSuccessfulTime"] == "2026-11-23T03:00:10Z"
    assert status["nextScheduleTime"] == "2026-11-24T03:00:00Z"
    assert status["lastBackupRef"] == {"name": NIGHT}
    assert (status["databases"], status["missedRuns"], status["consecutiveFailures"]) == (1, 0, 0)


def test_every_due_time_gets_its_own(world: World) -> None:
    world.schedule(schedule="*/15 * * * *")
    world.run(3 * HOUR)
    assert world.made() == [f"nightly-20261123-{hour:02}{minute:02}" for hour in (1, 2, 3, 4) for minute in (0, 15, 30, 45)][1:13]
    assert status_of(world)["missedRuns"] == 0


def test_the_time_zone_says_what_is_due_and_names_are_in_utc(world: World) -> None:
    world.schedule(timeZone="Europe/Berlin")
    world.run(DAY)
    assert world.made() == ["nightly-20261123-0200"]
    assert status_of(world)["effectiveSchedule"] == "0 3 * * * (Europe/Berlin)"


def test_jitter_starts_runs_later_and_always_by_the_same(world: World) -> None:
    world.schedule(jitter="30m")
    late = cron.jitter("ns", "nightly", 1800)
    assert late > MINUTE
    world.run(until=at(23, 3) + late - timedelta(seconds=1))
    assert world.made() == []
    assert status_of(world)["nextScheduleTime"] == (at(23, 3) + late).isoformat().replace("+00:00", "Z")
    world.run(2)
    assert world.made() == [NIGHT], "named by the time when it was due"
    assert status_of(world)["lastScheduleTime"] == "2026-11-23T03:00:00Z"
    world.run(DAY)
    assert [world.get("DatabaseBackup", name)["metadata"]["creationTimestamp"][11:] for name in world.made()] == [
        f"{at(23, 3) + late:%H:%M:%SZ}",
        f"{at(23, 3) + late:%H:%M:%SZ}",
    ]


def test_jitter_is_no_delay(world: World) -> None:
    """A run is as late as it starts after its time with jitter; and one by hand in between takes
    its place as little as another."""
    late = cron.jitter("ns", "nightly", 1800)
    world.schedule(jitter="30m", startingDeadline="1m")
    world.run(until=at(23, 3) + late / 2)
    world.annotate(KIND, "nightly", "run-now", "1")
    world.run(until=at(23, 3) + late + timedelta(seconds=1))
    assert (len(world.made()), world.made()[1]) == (2, NIGHT)
    assert status_of(world)["missedRuns"] == 0


def test_an_operator_that_was_down_makes_up_for_the_latest_only(world: World) -> None:
    world.schedule()
    world.run(MINUTE)
    world.down(3 * DAY)
    world.run(MINUTE)
    assert world.made() == ["nightly-20261125-0300"]
    assert status_of(world)["missedRuns"] == 2
    assert world.events("RunMissed") == ["2 due times before 2026-11-25T03:00:00Z had no run of their own; this one makes up for them"]
    world.run(DAY)
    assert world.made() == ["nightly-20261125-0300", "nightly-20261126-0300"]
    assert status_of(world)["missedRuns"] == 2


def test_a_schedule_that_was_made_while_no_operator_ran_is_caught_up_too(world: World) -> None:
    world.operators = []
    world.schedule()
    world.down(DAY)
    world.run(MINUTE)
    assert world.made() == [NIGHT]


def test_a_run_that_would_start_too_late_is_counted_and_reported(world: World) -> None:
    world.schedule(startingDeadline="2h")
    world.run(MINUTE)
    world.down(2 * DAY + 5 * HOUR)
    world.run(MINUTE)
    assert world.made() == []
    assert status_of(world)["missedRuns"] == 3
    assert world.events("RunMissed") == ["no run was made for 2026-11-25T03:00:00Z: startingDeadline has passed, nor for 2 before"]
    world.run(DAY)
    assert world.made() == ["nightly-20261126-0300"]
    assert status_of(world)["missedRuns"] == 3


def test_within_the_starting_deadline_it_is_made_up_for(world: World) -> None:
    world.schedule(startingDeadline="2h")
    world.run(MINUTE)
    world.down(3 * HOUR + 58 * MINUTE)
    world.run(1)
    assert world.made() == [NIGHT]


def test_a_change_of_the_schedule_does_not_start_what_is_past(world: World) -> None:
    world.schedule(schedule="0 23 * * *")
    world.run(12 * HOUR)
    world.edit(KIND, "nightly", schedule="0 3 * * *")
    world.run(MINUTE)
    assert (world.made(), status_of(world)["missedRuns"]) == ([], 0)
    assert status_of(world)["nextScheduleTime"] == "2026-11-24T03:00:00Z"
    world.edit(KIND, "nightly", timeZone="Asia/Tokyo")
    world.run(MINUTE)
    assert status_of(world)["nextScheduleTime"] == "2026-11-23T18:00:00Z"
    world.run(DAY)
    assert world.made() == ["nightly-20261123-1800"]


def test_a_schedule_of_the_same_name_takes_up_the_backups_and_starts_nothing_of_the_past(world: World) -> None:
    world.schedule()
    world.run(until=at(23, 4))
    world.server.delete((KIND, "nightly"))
    world.run(until=at(24, 12))
    world.schedule()
    world.run(MINUTE)
    assert world.made() == world.names() == [NIGHT], "deleting the schedule leaves its backups, and makes no more"
    assert status_of(world)["missedRuns"] == 0
    assert status_of(world)["lastSuccessfulTime"] == "2026-11-23T03:00:10Z"


# Immediate, by hand, suspended


def test_immediate_makes_a_first_backup_at_once(world: World) -> None:
    world.schedule(immediate=True)
    world.run(MINUTE)
    assert world.made() == ["nightly-20261123-0100"]
    world.run(DAY)
    assert world.made() == ["nightly-20261123-0100", NIGHT]
    assert status_of(world)["missedRuns"] == 0


def test_immediate_with_databases_that_are_to_be_found(world: World) -> None:
    world.schedule(immediate=True, databases={})
    world.run(MINUTE)
    assert [name.rpartition("-")[0] for name in world.made()] == ["nightly-20261123-0100-app"]


def test_immediate_that_is_refused_comes_later(world: World) -> None:
    world.server.refuse = quota("DatabaseBackup")
    world.schedule(immediate=True)
    world.run(5 * MINUTE)
    world.server.refuse = lambda _: None
    world.run(2 * MINUTE)
    assert world.made() == ["nightly-20261123-0100"]


def test_immediate_is_not_made_up_for_after_a_suspension(world: World) -> None:
    world.schedule(immediate=True, suspend=True)
    world.run(MINUTE)
    world.edit(KIND, "nightly", suspend=False)
    world.run(MINUTE)
    assert world.made() == []


def test_a_run_by_hand_is_made_once(world: World) -> None:
    world.schedule()
    world.run(MINUTE)
    world.annotate(KIND, "nightly", "run-now", "1")
    world.run(HOUR)
    [first] = world.made()
    assert first.startswith("nightly-now-")
    assert status_of(world)["lastRunNow"] == "1"
    assert world.get("DatabaseBackup", first)["metadata"]["annotations"] == {"dbbackup.io/scheduled-at": "2026-11-23T01:01:00Z"}
    world.annotate(KIND, "nightly", "run-now", "2")
    world.run(DAY)
    assert len(world.made()) == 3
    assert world.made()[2] == NIGHT, "what is due is due all the same"
    assert status_of(world)["missedRuns"] == 0


def test_a_run_by_hand_waits_for_one_that_goes_on(world: World) -> None:
    world.pace = HOUR
    world.schedule()
    world.run(until=at(23, 3, 10))
    world.annotate(KIND, "nightly", "run-now", "1")
    world.run(until=at(23, 3, 50))
    assert world.made() == [NIGHT]
    assert ready(world)[1] == "WaitingForPreviousRun"
    world.run(until=at(23, 4, 1))
    assert len(world.made()) == 2


@pytest.mark.parametrize("how", ["spec", "annotation"])
def test_suspended(world: World, how: str) -> None:
    def suspend(yes: bool) -> None:
        if how == "spec":
            world.edit(KIND, "nightly", suspend=yes)
        else:
            world.annotate(KIND, "nightly", "suspend", "true" if yes else None)

    world.schedule()
    world.run(MINUTE)
    suspend(True)
    world.run(until=at(24, 5))
    assert world.made() == []
    assert ready(world) == ("True", "Suspended")
    assert (status_of(world)["suspended"], "nextScheduleTime" in status_of(world)) == (True, False)
    world.annotate(KIND, "nightly", "run-now", "1")
    world.run(MINUTE)
    assert len(world.made()) == 1, "a hand may start one all the same"
    suspend(False)
    world.run(MINUTE)
    assert len(world.made()) == 1, "what was due meanwhile is not made up for"
    assert (status_of(world)["suspended"], status_of(world)["missedRuns"], status_of(world)["nextScheduleTime"]) == (False, 0, "2026-11-25T03:00:00Z")
    world.run(until=at(25, 3, 1))
    assert world.made()[1:] == ["nightly-20261125-0300"]


# While another runs


def test_forbid_waits_and_then_starts_the_latest_once(world: World) -> None:
    world.pace = timedelta(hours=2, minutes=30)
    world.schedule(schedule="0 * * * *")
    world.run(until=at(23, 4, 10))
    assert world.made() == ["nightly-20261123-0200"]
    assert ready(world) == ("True", "WaitingForPreviousRun")
    assert "nightly-20261123-0200" in world.condition(KIND, "nightly")[2]
    assert "2026-11-23T04:00:00Z" in world.condition(KIND, "nightly")[2], "the latest that is due"
    world.run(until=at(23, 4, 30) + timedelta(seconds=5))
    assert world.made() == ["nightly-20261123-0200", "nightly-20261123-0400"]
    assert status_of(world)["missedRuns"] == 1


def test_forbid_within_the_starting_deadline(world: World) -> None:
    world.pace = timedelta(hours=1, minutes=30)
    world.schedule(schedule="0 3,4 * * *", startingDeadline="20m")
    world.run(until=at(23, 4, 10))
    assert ready(world)[1] == "WaitingForPreviousRun"
    world.run(until=at(23, 4, 21))
    assert (status_of(world)["missedRuns"], ready(world)[1]) == (1, "Scheduled"), "reported when it is missed, not when the other ends"
    world.run(until=at(23, 5))
    assert world.made() == [NIGHT]


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_replace_deletes_what_runs_and_starts(world: World, policy: str) -> None:
    world.pace = timedelta(minutes=80)
    template = {"spec": {"database": {"secretRef": {"name": "db"}}, "deletionPolicy": policy}}
    world.schedule(schedule="0 * * * *", concurrencyPolicy="Replace", template=template)
    world.run(until=at(23, 3))
    assert world.made() == ["nightly-20261123-0200", NIGHT]
    for spec in world.running("cleanup"):
        world.end(world.job(spec.run))
    world.run(MINUTE)
    assert world.names() == [NIGHT]
    assert [spec.owner.name for spec in world.running("backup")] == [NIGHT]
    assert world.events("RunReplaced") == ["DatabaseBackup nightly-20261123-0200 was still running and is replaced by nightly-20261123-0300"]


def test_replace_spares_a_run_that_has_just_ended(world: World) -> None:
    """The operator has not yet heard that it did: a good backup must not be deleted for it."""
    world.pace = timedelta(hours=2)
    template = {"spec": {"database": {"secretRef": {"name": "db"}}, "deletionPolicy": "Delete"}}
    world.schedule(schedule="0 * * * *", concurrencyPolicy="Replace", template=template)
    world.run(until=at(23, 2, 59))
    behind = Operator(world, "behind")
    world.end(world.job("backup"))
    world.run(1)
    world.operators, behind.deaf = [behind], True
    world.run(MINUTE)
    assert NIGHT in world.names()
    behind.deaf = False
    world.run(MINUTE)
    assert world.names(phase="Completed") == ["nightly-20261123-0200"]


def test_allow_starts_beside(world: World) -> None:
    world.pace = timedelta(hours=5)
    world.schedule(schedule="0 * * * *", concurrencyPolicy="Allow")
    world.run(until=at(23, 4, 1))
    assert world.made() == world.names() == ["nightly-20261123-0200", NIGHT, "nightly-20261123-0400"]
    assert len(status_of(world)["active"]) == 3


def test_a_discovered_backup_that_waits_is_no_run(world: World) -> None:
    """Its artifact may never be found: that would stop the schedule for good."""
    spec = {"origin": "Discovered", "artifactKey": "team/ns/db_5432/app/20261101T000000Z-x-00000000"}
    world.apply("DatabaseBackup", "old", spec, labels={"dbbackup.io/schedule": "nightly"})
    world.schedule()
    world.run(DAY)
    assert world.names(phase="Pending") == ["old"]
    assert world.names(phase="Completed") == [NIGHT]
    assert status_of(world)["active"] == []


# Several databases


def databases_of(world: World) -> list[str]:
    return [world.get("DatabaseBackup", name)["spec"]["database"]["name"] for name in world.names()]


def test_names_need_no_job(world: World) -> None:
    world.schedule(databases={"include": ["app", "shop", "app"], "exclude": ["sh?p"]})
    world.schedule("both", databases={"include": ["app", "shop"]})
    world.run(until=at(23, 3, 1))
    assert world.specs("discover") == []
    assert world.made() == [cron.member_name("both-20261123-0300", name) for name in ("app", "shop")] + [cron.member_name(NIGHT, "app")]
    assert status_of(world, "both")["databases"] == 2
    assert status_of(world, "both")["lastBackupRef"] == {"name": world.made()[0]}
    assert world.bucket.keys() == {world.status("DatabaseBackup", name)["artifact"]["key"] for name in world.made()}


def test_names_that_are_all_excluded_are_a_failed_run(world: World) -> None:
    world.schedule(databases={"include": ["app"], "exclude": ["*"]})
    world.run(until=at(24, 4))
    assert world.made() == []
    assert (status_of(world)["consecutiveFailures"], status_of(world)["missedRuns"]) == (2, 0)
    assert world.events("DiscoveryFailed")[0] == "the run of 2026-11-23T03:00:00Z made no backups: `databases` excludes all that it includes"


def test_new_databases_are_found_at_each_run(world: World) -> None:
    world.databases = ["app", "shop", "postgres", "x_tmp"]
    world.schedule(databases={"exclude": ["postgres", "*_tmp"]}, template={"spec": {"database": {"secretRef": {"name": "s"}, "host": "h"}}})
    world.run(until=at(23, 3, 0) + timedelta(seconds=5))
    assert ready(world) == ("True", "Discovering")
    [spec] = world.specs("discover")
    assert spec.database is not None
    assert (spec.database.secret, spec.database.host, spec.storage.name) == ("s", "h", "")
    world.run(MINUTE)
    assert databases_of(world) == ["app", "shop"]
    assert [world.get("DatabaseBackup", name)["spec"]["database"]["host"] for name in world.names()] == ["h", "h"]
    assert world.all("Job") == []
    world.databases.append("new")
    world.run(until=at(24, 3, 1))
    assert databases_of(world) == ["app", "shop", "app", "new", "shop"]
    assert status_of(world)["databases"] == 3


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("fails", "AuthenticationFailed: AuthenticationFailed happened"),
        ("is lost", "RunLost: the Job's pod was deleted before it could report (BackoffLimitExceeded)"),
        ("finds nothing", "`databases` selects none of the server's 1 databases"),
        ("cannot be read", "the list of databases could not be read: the run reported 1 items in 1 pages; its log holds 0 in 0"),
        ("never starts", "StartDeadlineExceeded: Job discover-nightly-"),
    ],
)
def test_a_discovery_that_brings_nothing_is_a_failed_run(world: World, what: str, why: str) -> None:
    world.pace = None if what in ("is lost", "never starts") else timedelta(seconds=10)
    world.schedule(databases={"include": ["sh*"]})
    if what == "fails":
        world.failing = lambda spec: ("AuthenticationFailed", False) if spec.run == "discover" else None
    world.run(until=at(23, 3) + timedelta(seconds=2), rest=False)
    if what == "is lost":
        world.lose(world.job("discover"))
    if what == "cannot be read":
        world.silent = True
    world.run(until=at(23, 3, 11))
    assert world.made() == []
    assert world.events("DiscoveryFailed")[0].startswith(f"the run of 2026-11-23T03:00:00Z made no backups: {why}")
    assert (status_of(world)["consecutiveFailures"], status_of(world)["missedRuns"]) == (1, 0)
    assert world.running("discover") == []
    assert status_of(world)["nextScheduleTime"] == "2026-11-24T03:00:00Z"
    world.pace, world.failing, world.databases, world.silent = timedelta(seconds=10), lambda _: None, ["shop"], False
    world.run(until=at(24, 3, 1))
    assert databases_of(world) == ["shop"]
    assert status_of(world)["consecutiveFailures"] == 0


def test_a_discovery_by_hand_that_fails_is_not_tried_for_ever(world: World) -> None:
    world.failing = lambda spec: ("AuthenticationFailed", False) if spec.run == "discover" else None
    world.schedule(databases={})
    world.annotate(KIND, "nightly", "run-now", "1")
    world.run(HOUR)
    assert len(world.specs("discover")) == 1
    assert (status_of(world)["lastRunNow"], status_of(world)["consecutiveFailures"]) == ("1", 1)


# What is made


def test_the_template_is_taken_over(world: World) -> None:
    spec = {"database": {"secretRef": {"name": "app-db"}}, "format": "custom", "excludeTableData": ["s.t"], "retries": 5, "ttl": "7d"}
    forged = {"dbbackup.io/scheduled-at": "forged", "dbbackup.io/requested-by": "forged"}
    metadata = {"labels": {"team": "x", "dbbackup.io/schedule": "forged"}, "annotations": {"contact": "y", **forged}}
    world.schedule(template={"metadata": metadata, "spec": spec})
    world.run(until=at(23, 3, 1))
    made = world.get("DatabaseBackup", NIGHT)
    assert made["spec"].items() >= spec.items()
    assert made["metadata"]["labels"] == {"team": "x", "dbbackup.io/schedule": "nightly"}
    assert made["metadata"]["annotations"] == {"contact": "y", "dbbackup.io/scheduled-at": "2026-11-23T03:00:00Z"}
    assert made["status"]["expirationTime"] == "2026-11-30T03:00:00Z"
    [run] = world.specs("backup")
    assert run.lifetime is not None
    assert (run.lifetime.schedule, run.lifetime.expires_at) == ("nightly", at(30, 3))


@pytest.mark.parametrize(
    ("retention", "ttl", "expires"),
    [
        ({}, None, "2026-12-23T03:00:00Z"),
        ({"minKeep": 5}, None, "2026-12-23T03:00:00Z"),
        ({"keepDaily": 7}, None, None),
        ({"keepDaily": 7}, "7d", "2026-11-30T03:00:00Z"),
        ({}, "never", None),
    ],
)
def test_with_keep_rules_backups_do_not_expire_by_themselves(world: World, retention: Raw, ttl: str | None, expires: str | None) -> None:
    world.schedule(retention=retention, template={"spec": {"database": {"secretRef": {"name": "s"}}, **({"ttl": ttl} if ttl else {})}})
    world.run(until=at(23, 3, 1))
    assert world.status("DatabaseBackup", NIGHT).get("expirationTime") == expires


@pytest.mark.parametrize("kind", ["DatabaseBackup", "Job"])
def test_a_refused_run_is_reported_and_comes_back(world: World, kind: str) -> None:
    world.schedule(databases={})
    world.run(MINUTE)
    world.server.refuse = quota(kind)
    world.run(until=at(23, 3, 5))
    assert world.made() == []
    assert ready(world) == ("False", "RunRefused")
    assert world.condition(KIND, "nightly", "Reconciling")[0] == "True"
    assert "exceeded quota" in world.condition(KIND, "nightly")[2]
    assert len(world.events("RunRefused")) == 1
    world.server.refuse = lambda _: None
    world.run(90)
    assert [name.rpartition("-")[0] for name in world.made()] == [f"{NIGHT}-app"]
    assert ready(world) == ("True", "Scheduled")
    assert status_of(world)["missedRuns"] == 0


def test_a_refused_run_is_missed_in_the_end(world: World) -> None:
    world.schedule(startingDeadline="10m")
    world.server.refuse = quota("DatabaseBackup")
    world.run(until=at(23, 3, 12))
    assert (status_of(world)["missedRuns"], ready(world)) == (1, ("True", "Scheduled"))


def test_part_of_a_run_that_is_refused_comes_back_and_nothing_twice(world: World) -> None:
    world.schedule(databases={"include": [f"d{number}" for number in range(20)]})
    world.server.refuse = lambda body: quota("DatabaseBackup")(body) if len(world.made()) >= 7 else None
    world.run(until=at(23, 3, 2))
    assert len(world.made()) == 7
    world.server.refuse = lambda _: None
    world.run(2 * MINUTE)
    assert len(world.made()) == len(set(world.made())) == 20
    assert status_of(world)["databases"] == 20


def test_a_name_that_is_taken_by_something_else_is_no_run(world: World) -> None:
    world.apply("DatabaseBackup", NIGHT, {"database": {"secretRef": {"name": "other"}}})
    world.schedule()
    world.run(until=at(23, 3, 1))
    assert ready(world) == ("False", "RunRefused")
    assert world.condition(KIND, "nightly")[2].endswith(f"a DatabaseBackup {NIGHT} exists already and is something else")
    world.server.delete(("DatabaseBackup", NIGHT))
    world.run(2 * MINUTE)
    assert world.get("DatabaseBackup", NIGHT)["spec"]["database"]["secretRef"] == {"name": "app-db"}


# Failures


def test_failures_in_a_row_are_counted_beyond_the_history(world: World) -> None:
    world.failing = lambda spec: ("AuthenticationFailed", False) if spec.run == "backup" else None
    world.schedule(schedule="0 * * * *", failedHistoryLimit=2)
    world.run(until=at(23, 8, 1))
    assert len(world.made()) == 7
    assert world.names(phase="Failed") == world.made()[-2:]
    assert status_of(world)["consecutiveFailures"] == 7
    assert "lastSuccessfulTime" not in status_of(world)
    world.run(50 * MINUTE)
    assert status_of(world)["consecutiveFailures"] == 7
    world.failing = lambda _: None
    world.run(until=at(23, 9, 1))
    assert status_of(world)["consecutiveFailures"] == 0
    assert status_of(world)["lastSuccessfulTime"] == "2026-11-23T09:00:10Z"
    assert world.names() == world.made()[-3:]


def test_no_history_at_all(world: World) -> None:
    world.failing = lambda spec: ("AuthenticationFailed", False) if spec.run == "backup" else None
    world.schedule(schedule="0 * * * *", failedHistoryLimit=0)
    world.run(until=at(23, 4, 1))
    assert world.names() == []
    assert status_of(world)["consecutiveFailures"] == 3


def test_a_run_of_several_failed_if_one_did(world: World) -> None:
    world.failing = lambda spec: ("DumpFailed", False) if spec.database and spec.database.name == "shop" else None
    world.schedule(databases={"include": ["app", "shop"]})
    world.run(until=at(24, 3, 1))
    assert status_of(world)["consecutiveFailures"] == 2
    assert status_of(world)["lastSuccessfulTime"] == "2026-11-24T03:00:10Z"


# Status


def test_a_status_that_is_lost_is_computed_again_and_nothing_made_twice(world: World) -> None:
    world.schedule(databases={"include": ["app", "shop"]}, immediate=True)
    world.run(until=at(24, 5))
    before, made = status_of(world), list(world.made())
    world.server.change((KIND, "nightly"), {"status": dict.fromkeys(before)})
    world.run(HOUR)
    assert world.made() == made
    same = {"effectiveSchedule", "consideredUntil", "nextScheduleTime", "lastSuccessfulTime", "retention", "missedRuns", "consecutiveFailures"}
    assert {name: status_of(world)[name] for name in same} == {name: before[name] for name in same}
    world.run(DAY)
    assert len(world.made()) == len(made) + 2


def test_the_status_says_what_goes_next_and_what_waits_for_a_person(world: World) -> None:
    for day in range(8):
        world.good(f"nightly-202611{15 + day}-0300", at(15 + day, 3), schedule="nightly")
    world.schedule(retention={"keepLast": 2})
    world.run(MINUTE)
    status = status_of(world)
    held = status["retention"]["held"]
    assert (status["retention"]["good"], held["count"]) == (8, 6)
    assert world.condition(KIND, "nightly", "PruneHeld") == ("True", "TooManyAtOnce", held["message"])
    assert held["token"] in held["message"]
    assert [entry["name"] for entry in status["retention"]["next"]] == [f"nightly-202611{15 + day}-0300" for day in range(5)]
    world.annotate(KIND, "nightly", "approve-prune", held["token"])
    world.run(10 * MINUTE)
    assert world.names() == ["nightly-20261121-0300", "nightly-20261122-0300"]
    assert world.condition(KIND, "nightly", "PruneHeld") == ("", "", "")
    assert status_of(world)["retention"] == {"good": 2, "pinned": 0, "next": [{"name": "nightly-20261121-0300", "reason": "no rule keeps it"}]}


# Broken, going


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"schedule": "0 3 31 2 *"}, "never comes due"),
        ({"timeZone": "Europe/Berln"}, 'time zone "Europe/Berln" is unknown'),
    ],
)
def test_a_spec_that_cannot_be_used_is_reported_and_comes_back(world: World, spec: Raw, why: str) -> None:
    world.schedule()
    world.run(MINUTE)
    world.edit(KIND, "nightly", **spec)
    world.run(DAY)
    assert world.made() == []
    assert ready(world) == ("False", "InvalidSpec")
    assert world.condition(KIND, "nightly", "Stalled")[0] == "True"
    assert why in world.condition(KIND, "nightly")[2]
    assert "nextScheduleTime" not in status_of(world)
    world.edit(KIND, "nightly", schedule="0 4 * * *", timeZone="Etc/UTC")
    world.run(until=at(24, 4, 1))
    assert world.made() == ["nightly-20261124-0400"]
    assert ready(world) == ("True", "Scheduled")


def test_nothing_is_made_in_a_namespace_that_goes(world: World) -> None:
    message = "unable to create new content in namespace ns because it is being terminated"
    world.schedule()
    world.run(MINUTE)
    world.server.refuse = lambda body: error(403, "Forbidden", message)
    world.run(DAY)
    assert world.made() == []
    assert ready(world) == ("True", "Scheduled"), "there is nothing to tell, and nobody to tell it"


def test_a_schedule_that_is_being_deleted_starts_nothing(world: World) -> None:
    world.schedule(metadata={"finalizers": ["example.com/x"]})
    world.run(MINUTE)
    world.server.delete((KIND, "nightly"))
    world.run(DAY)
    assert world.made() == []


# Killed, doubled


def night(world: World, **spec: Any) -> None:
    """From the schedule's creation to the end of its first run."""
    world.databases = ["app", "shop"]
    world.ready_storage()
    world.schedule(**spec)
    world.run(until=at(23, 3, 1))


BOTH = [cron.member_name(NIGHT, name) for name in ("app", "shop")]


def check_night(world: World, names: list[str]) -> None:
    assert sorted(world.made()) == sorted(names)
    assert world.names(phase="Completed") == sorted(names)
    assert len(world.specs("backup")) == len(names)
    assert (status_of(world)["missedRuns"], status_of(world)["consecutiveFailures"]) == (0, 0)


@pytest.mark.parametrize("lost_answers", [False, True], ids=["killed", "answers lost"])
def test_killed_after_any_action_every_due_time_has_one_backup(lost_answers: bool) -> None:
    databases = {"exclude": ["shop"]} if lost_answers else {}
    names = BOTH[:1] if lost_answers else BOTH
    count = everywhere(lambda world: night(world, databases=databases), lambda world: check_night(world, names), lost_answers=lost_answers)
    assert count > 15


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ({}, [NIGHT]),
        ({"databases": {"include": ["app", "shop"]}}, BOTH),
        ({"databases": {}}, BOTH),
        ({"concurrencyPolicy": "Replace", "immediate": True}, ["nightly-20261123-0100", NIGHT]),
    ],
    ids=["one", "names", "found", "immediate"],
)
def test_killed_again_and_again_every_due_time_has_one_backup(spec: Raw, names: list[str]) -> None:
    again_and_again(lambda world: night(world, **spec), lambda world: check_night(world, names))


def test_killed_while_it_makes_the_first_run_of_all() -> None:
    """No operator ran when the schedule was made and first due: nothing is in its status yet."""

    def scenario(world: World) -> None:
        world.databases = ["d0", "d1"]
        fuse = world.operator.kube.fuse
        world.ready_storage()
        world.operators = []
        world.schedule(databases={"include": ["d0", "d1"]})
        world.down(timedelta(hours=2, minutes=1))
        world.operator.kube.fuse = fuse
        world.run(until=at(23, 3, 2))

    def check(world: World) -> None:
        assert sorted(world.made()) == sorted(cron.member_name(NIGHT, name) for name in world.databases)

    assert everywhere(scenario, check) > 10


def test_killed_after_any_action_a_run_by_hand_is_made_once() -> None:
    def scenario(world: World) -> None:
        world.ready_storage()
        world.schedule(suspend=True)
        world.annotate(KIND, "nightly", "run-now", "1")
        world.run(MINUTE)

    def check(world: World) -> None:
        assert len(world.made()) == 1
        assert status_of(world)["lastRunNow"] == "1"

    assert everywhere(scenario, check) > 8


@pytest.mark.parametrize("seed", range(4))
def test_two_operators_make_what_one_makes(seed: int) -> None:
    world = World()
    world.dawdle = random.Random(seed)
    world.operators.append(Operator(world, "two"))
    night(world, databases={})
    check_night(world, BOTH)
    assert len(world.events("RunCreated")) == 1


def test_an_operator_that_has_not_heard_makes_nothing_twice(world: World) -> None:
    world.schedule()
    world.run(MINUTE)
    behind = Operator(world, "behind")
    world.run(until=at(23, 3, 5))
    world.operators, behind.deaf = [behind], True
    world.run(MINUTE)
    assert world.made() == [NIGHT]
    assert world.names(phase="Completed") == [NIGHT]
    assert status_of(world)["missedRuns"] == 0


def test_what_is_due_at_the_start_is_started_by_the_api_servers_time() -> None:
    world = World(now=at(23, 3) - timedelta(milliseconds=300))
    world.storage()
    world.schedule()
    world.run(1)
    assert world.made() == [NIGHT]
