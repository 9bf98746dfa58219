"""Schedules as people see them: runs at their time, run-now, suspend, databases of a server, and an
operator that dies."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.e2e.conftest import Operator
from tests.e2e.lib.kube import Raw, condition
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant

from dbbackup.api.conditions import timestamp

NEVER_SOON = "0 0 29 2 *"
"""A schedule that no test sees come due."""


def schedule(name: str = "nightly", *, secret: str = "db", template: Raw | None = None, labels: Raw | None = None, **spec: Any) -> Raw:
    body = {"database": {"secretRef": {"name": secret}}, **(template or {})}
    whole = {"schedule": NEVER_SOON, "template": {"metadata": {"labels": labels or {}}, "spec": body}, **spec}
    return {"apiVersion": "dbbackup.io/v1", "kind": "DatabaseBackupSchedule", "metadata": {"name": name}, "spec": whole}


def annotate(tenant: Tenant, kind: str, name: str, **annotations: str) -> None:
    tenant.run("annotate", "--overwrite", kind, name, *(f"dbbackup.io/{key.replace('_', '-')}={value}" for key, value in annotations.items()))


def made(tenant: Tenant, name: str = "nightly") -> list[Raw]:
    return tenant.objects("dbb", f"dbbackup.io/schedule={name}")


def settled(tenant: Tenant, name: str = "nightly", runs: int = 1, timeout: float = 120) -> Raw:
    """The schedule once `runs` backups of it have ended well."""

    def done(seen: Raw) -> bool:
        good = [obj for obj in made(tenant, name) if obj.get("status", {}).get("phase") == "Completed"]
        return len(good) >= runs and not seen["status"].get("active")

    return tenant.wait_until("dbs", name, done, timeout, f"{runs} good runs")


@pytest.mark.xdist_group("alone")
def test_a_run_starts_at_its_minute(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    tenant.add_storage(bucket)
    tenant.add_database(database(15))
    created = tenant.create(schedule(schedule="* * * * *", labels={"team": "a"}))[0]
    assert condition(tenant.wait_ready("dbs", "nightly"), "Ready") == "True"

    seen = settled(tenant)

    first = min(made(tenant), key=lambda obj: obj["metadata"]["creationTimestamp"])
    due = datetime.fromisoformat(first["metadata"]["annotations"]["dbbackup.io/scheduled-at"])
    late = (datetime.fromisoformat(first["metadata"]["creationTimestamp"]) - due).total_seconds()
    assert due.second == 0
    assert due > datetime.fromisoformat(created["metadata"]["creationTimestamp"])
    assert 0 <= late <= 3
    assert first["metadata"]["name"] == f"nightly-{due:%Y%m%d-%H%M}"
    assert first["metadata"]["labels"]["team"] == "a"
    assert "ownerReferences" not in first["metadata"], "a schedule that is deleted takes no backup along"
    status = seen["status"]
    assert datetime.fromisoformat(status["nextScheduleTime"]) > datetime.fromisoformat(status["lastScheduleTime"])
    assert (status["consecutiveFailures"], status["missedRuns"]) == (0, 0)
    row = tenant.run("get", "dbs", "nightly").splitlines()[1]
    assert "* * * * *" in row


def test_run_now_and_suspend_by_annotation(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    tenant.add_storage(bucket)
    tenant.add_database(database(15))
    tenant.create(schedule(suspend=True))
    tenant.wait_until("dbs", "nightly", lambda seen: seen["status"].get("suspended") is True, 30, "suspended")

    annotate(tenant, "dbs", "nightly", run_now="1")
    settled(tenant)
    assert len(made(tenant)) == 1
    annotate(tenant, "dbs", "nightly", run_now="2")
    settled(tenant, runs=2)
    assert len(made(tenant)) == 2
    told = tenant.events("DatabaseBackupSchedule", "nightly")
    assert sum(event["reason"] == "RunCreated" for event in told) == 2


def test_each_database_of_a_server(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    first, second = database(15), database(15)
    tenant.add_storage(bucket)
    tenant.add_database(first)
    # All of them belong to the user that the Secret names.
    second.server.psql(f"ALTER DATABASE {second.name} OWNER TO {first.owner}; ALTER SCHEMA public OWNER TO {first.owner};", second.name)
    old = f"{first.name}_old"
    first.server.psql(f"CREATE DATABASE {old} OWNER {first.owner};")
    try:
        tenant.create(schedule(immediate=True, databases={"include": [f"{first.name}*", f"{second.name[:-1]}?"], "exclude": ["*_old"]}))
        seen = settled(tenant, runs=2)
    finally:
        first.server.psql(f"DROP DATABASE {old};")

    assert {obj["status"]["database"]["name"] for obj in made(tenant)} == {first.name, second.name}
    assert seen["status"]["databases"] == 2
    assert not [job for job in tenant.objects("jobs") if job["metadata"]["name"].startswith("discover-")], "nothing is left of the question"


def failures(count: int) -> Callable[[Raw], bool]:
    return lambda seen: seen["status"].get("consecutiveFailures") == count


def test_failures_are_counted_and_the_history_is_limited(tenant: Tenant, bucket: Bucket) -> None:
    tenant.add_storage(bucket)
    tenant.create(schedule(secret="missing", failedHistoryLimit=1, template={"retries": 0}))
    for number in range(1, 4):
        annotate(tenant, "dbs", "nightly", run_now=str(number))
        tenant.wait_until("dbs", "nightly", failures(number), 90, f"{number} failures")
    tenant.wait_until("dbs", "nightly", lambda _seen: len(made(tenant)) == 1, 30, "a history of one")
    assert made(tenant)[0]["status"]["failure"]["reason"] == "SecretMissing"


@pytest.mark.xdist_group("alone")
def test_an_operator_that_was_away_makes_up_for_it_once(
    tenant: Tenant, operator: Operator, database: Callable[..., Database], bucket: Bucket
) -> None:
    tenant.add_storage(bucket)
    tenant.add_database(database(15))
    tenant.create(schedule(schedule="* * * * *"))
    settled(tenant)
    before = {obj["metadata"]["name"] for obj in made(tenant)}
    operator.kube.run("scale", "deployment", "-l", "app.kubernetes.io/component=operator", "--replicas=0")
    try:
        operator.kube.run("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=operator", "--timeout=60s")
        # What the schedule remembers is set back, as if three runs had been missed: the clock of a
        # cluster cannot be.
        past = datetime.fromisoformat(tenant.get("dbs", "nightly")["status"]["lastScheduleTime"]) - timedelta(minutes=3)
        tenant.patch("dbs", "nightly", {"status": {"consideredUntil": timestamp(past)}}, "--subresource=status")
        for obj in made(tenant):
            tenant.delete("dbb", obj["metadata"]["name"])
    finally:
        operator.kube.run("scale", "deployment", "-l", "app.kubernetes.io/component=operator", "--replicas=1")
    operator.wait_ready()
    seen = tenant.wait_until("dbs", "nightly", lambda found: bool(found["status"]["missedRuns"]), 60, "missed runs")
    caught_up = {obj["metadata"]["name"] for obj in made(tenant)}
    assert len(caught_up) == 1, (before, caught_up)
    assert seen["status"]["missedRuns"] >= 1
    assert any(event["reason"] == "RunMissed" for event in tenant.events("DatabaseBackupSchedule", "nightly"))


@pytest.mark.xdist_group("alone")
def test_an_operator_killed_at_its_schedule_makes_no_run_twice(
    tenant: Tenant, operator: Operator, database: Callable[..., Database], bucket: Bucket
) -> None:
    tenant.add_storage(bucket)
    tenant.add_database(database(15))
    tenant.create(schedule())
    tenant.wait_ready("dbs", "nightly")
    annotate(tenant, "dbs", "nightly", run_now="once")
    operator.kill()
    operator.wait_ready()
    settled(tenant)
    assert len(made(tenant)) == 1
    assert len([event for event in tenant.events("DatabaseBackupSchedule", "nightly") if event["reason"] == "RunCreated"]) <= 1
