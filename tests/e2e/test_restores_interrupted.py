"""A restore that is interrupted in the midst of its transaction, or of its safety backup: the
target is as it was, nothing runs on, nothing is left.

Whatever holds the restore up goes on holding it: that it ended is the operator's doing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from tests.e2e.conftest import Operator
from tests.e2e.lib import hold
from tests.e2e.lib.kube import Raw
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant
from tests.e2e.test_control import evict, nothing_runs, only_pod, over_its_deadline, pods_made

Databases = Callable[..., Database]
INTERRUPTIONS = ["pod deleted", "pod killed", "pod evicted", "Job deleted", "Job over its deadline"]
REASONS = ("Terminated", "RunLost", "Evicted", "DeadlineExceeded")


@dataclass(frozen=True, slots=True)
class World:
    """A backup `one` whose restores can be held at their end, and a target that holds something
    else; `kept` is in the bucket."""

    tenant: Tenant
    bucket: Bucket
    source: Database
    target: Database
    before: tuple[object, object]
    kept: list[str]

    @contextmanager
    def in_the_transaction(self) -> Iterator[Raw]:
        """A Replace that has put in every row and not committed."""
        with hold.restore_at_end(self.target):
            restore = self.tenant.restore("back", "one", "target", onExisting="Replace", safetyBackup=False)
            hold.stays(self.target, hold.RESTORE)
            yield self.tenant.get("dbr", restore["metadata"]["name"])

    def as_it_was(self) -> None:
        """Also for who waits for a lock."""
        hold.gone(self.target, hold.RESTORE)
        assert (self.target.contents(), self.target.schema()) == self.before
        found = self.bucket.keys()
        assert ([key for key in found if "=restores/" not in key], self.bucket.uploads()) == (self.kept, [])


@pytest.fixture
def world(tenant: Tenant, database: Databases, bucket: Bucket) -> World:
    source, target = database(15), database(15)
    hold.fill(source, 1)
    hold.gate(source)
    hold.fill(target, 1)
    target.execute(
        "UPDATE things SET name = 'mine'",
        "CREATE TABLE kept AS SELECT 8 AS id",
        # What a compressor can't make small: parts of it are in the bucket before the dump ends.
        "CREATE TABLE noise AS SELECT (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 32) WHERE n > 0) AS text"
        " FROM generate_series(1, 20000) n",
    )
    tenant.add_storage(bucket)
    tenant.add_database(source)
    tenant.add_database(target, "target")
    tenant.completed(tenant.backup("one"))
    return World(tenant, bucket, source, target, (target.contents(), target.schema()), bucket.keys())


def interrupt(how: str, tenant: Tenant, restore: Raw) -> None:
    if how == "Job deleted":
        tenant.run("delete", "job", restore["status"]["jobName"], "--wait=false")
    elif how == "Job over its deadline":
        over_its_deadline(tenant, restore)
    elif how == "pod evicted":
        evict(tenant, only_pod(tenant, restore))
    else:
        hard = ("--grace-period=0", "--force") if how == "pod killed" else ()
        tenant.run("delete", "pod", only_pod(tenant, restore), "--wait=false", *hard)


def ended(tenant: Tenant, restore: Raw) -> Raw:
    found = tenant.finished(restore, 180)
    assert (found["status"]["phase"], found["status"]["failure"]["reason"] in REASONS) == ("Failed", True), found["status"].get("failure")
    assert pods_made(tenant, found) == 1
    nothing_runs(tenant, restore)
    return found


@pytest.mark.parametrize("how", INTERRUPTIONS)
def test_in_the_midst_of_its_transaction(how: str, world: World) -> None:
    with world.in_the_transaction() as restore:
        interrupt(how, world.tenant, restore)
        ended(world.tenant, restore)
        world.as_it_was()


@pytest.mark.parametrize("how", ["pod deleted", "pod killed", "Job deleted"])
def test_in_the_midst_of_its_safety_backup(how: str, world: World) -> None:
    tenant, target = world.tenant, world.target
    with hold.dump_after_rows(target):
        tenant.restore("back", "one", "target", onExisting="Replace")
        hold.stays(target, hold.DUMP)
        hold.eventually(world.bucket.uploads, "a part of the safety backup is in the bucket")
        restore = tenant.get("dbr", "back")
        interrupt(how, tenant, restore)
        found = ended(tenant, restore)
    assert "safetyBackup" not in found["status"]
    hold.gone(target, hold.DUMP)
    world.as_it_was()


@pytest.mark.parametrize("cascade", ["background", "foreground"])
def test_its_object_is_deleted(cascade: str, world: World) -> None:
    with world.in_the_transaction() as restore:
        world.tenant.delete("dbr", "back", f"--cascade={cascade}")
        world.tenant.wait_gone("dbr", "back", 60)
        nothing_runs(world.tenant, restore)
        world.as_it_was()


def test_its_namespace_is_deleted(world: World) -> None:
    with world.in_the_transaction():
        world.tenant.cluster.kubectl("delete", "namespace", world.tenant.name, "--timeout=90s", timeout=100)
        world.as_it_was()


@pytest.mark.xdist_group("alone")
def test_the_operator_is_killed_meanwhile(world: World, operator: Operator) -> None:
    with world.in_the_transaction() as restore:
        operator.wait_ready()
        operator.kill()
    operator.wait_ready()
    done = world.tenant.completed(restore)
    assert pods_made(world.tenant, done) == 1
    expected, found = world.source.contents(), world.target.contents()
    assert {name: found[name] for name in expected} == expected
    assert world.target.value("SELECT id FROM kept") == 8
    nothing_runs(world.tenant, restore)
