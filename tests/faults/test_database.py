"""The database server, or the way to it, goes away: in mid-dump, in mid-restore, and between COMMIT
and its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from tests.e2e.lib import hold
from tests.e2e.lib.kube import Raw
from tests.e2e.lib.postgres import Database, Postgres
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant
from tests.e2e.test_control import evict
from tests.faults import invariants
from tests.faults.conftest import Proxied

Databases = Callable[..., Database]


def crash(server: Postgres) -> None:
    """As a server that is lost: no checkpoint. The container starts again, and the data are
    there."""
    server.kube.exec(server.pod, "sh", "-c", 'kill -QUIT "$(head -1 "$PGDATA/postmaster.pid")"')


def back(server: Postgres) -> None:
    def answers() -> bool:
        try:
            server.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    hold.eventually(answers, "the server answers again", 120)


@contextmanager
def silent_commits(server: Postgres) -> Iterator[None]:
    """COMMIT takes effect and its answer does not come: it waits for a standby that there is none
    of."""
    for statement in ("SET synchronous_standby_names = 'nobody'", "SET synchronous_commit = on"):
        server.psql(f"ALTER SYSTEM {statement}")
    server.psql("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        for statement in ("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"):
            server.psql(statement)


def gated_backup(tenant: Tenant, source: Database, bucket: Bucket) -> Raw:
    """A backup whose restores can be held at their end."""
    hold.fill(source, 1)
    hold.gate(source)
    tenant.add_storage(bucket)
    tenant.add_database(source)
    return tenant.completed(tenant.backup("one"))


def test_it_restarts_in_mid_dump_and_the_next_attempt_completes(tenant: Tenant, breakable: Postgres, bucket: Bucket) -> None:
    source = breakable.database("shop", "owner")
    hold.fill(source, 12)
    tenant.add_storage(bucket)
    tenant.add_database(source)
    with hold.dump_after_rows(source):
        one = tenant.backup("one", retries=1, compression={"algorithm": "none"})
        hold.stays(source, hold.DUMP)
        crash(breakable)
    done = tenant.completed(one, 180)
    assert done["status"]["attempts"] == 2
    retried = [event["message"] for event in tenant.events("DatabaseBackup", "one") if event["reason"] == "Retrying"]
    assert len(retried) == 1
    assert bucket.uploads() == []
    invariants.completed_backup(done, bucket, source)


def test_it_restarts_in_mid_restore_and_the_target_is_as_it_was(tenant: Tenant, breakable: Postgres, database: Databases, bucket: Bucket) -> None:
    gated_backup(tenant, database(15), bucket)
    target = breakable.database("shop", "owner")
    target.execute("CREATE TABLE things AS SELECT 7 AS id, 'mine' AS name", "CREATE TABLE kept AS SELECT 8 AS id")
    before = (target.contents(), target.schema())
    kept = bucket.keys()
    tenant.add_database(target, "target")
    with hold.restore_at_end(target):
        restore = tenant.restore("back", "one", "target", onExisting="Replace", safetyBackup=False)
        hold.stays(target, hold.RESTORE)
        crash(breakable)
    ended = tenant.failed(restore, "ConnectionLost", 180)
    back(breakable)
    assert (target.contents(), target.schema()) == before
    assert invariants.pods_made(tenant, ended) == 1
    assert bucket.keys() == kept


def test_the_way_breaks_between_commit_and_its_answer(
    tenant: Tenant, breakable: Postgres, database: Databases, bucket: Bucket, proxied_postgres: Proxied
) -> None:
    source, target, proxy = database(15), breakable.database("shop", "owner"), proxied_postgres(breakable)
    gated_backup(tenant, source, bucket)
    tenant.add_database(target, "target")
    with silent_commits(breakable):
        with hold.restore_at_end(target):
            restore = tenant.restore("back", "one", "target", database={"host": proxy.host, "port": 8666})
            hold.stays(target, hold.RESTORE)
        hold.stays(target, hold.RESTORE, "IPC")
        proxy.cut()
        proxy.mend()
    done = tenant.completed(restore)
    assert done["status"]["restored"]["rows"] == sum(rows for rows, _ in source.contents().values())
    assert target.contents() == source.contents()
    assert invariants.pods_made(tenant, done) == 1


@pytest.mark.parametrize("how", ["killed", "evicted"])
def test_the_pod_goes_after_commit_and_before_its_report(how: str, tenant: Tenant, breakable: Postgres, database: Databases, bucket: Bucket) -> None:
    source, target = database(15), breakable.database("shop", "owner")
    gated_backup(tenant, source, bucket)
    kept = bucket.keys()
    tenant.add_database(target, "target")
    with silent_commits(breakable):
        with hold.restore_at_end(target):
            restore = tenant.restore("back", "one", "target")
            hold.stays(target, hold.RESTORE)
        hold.stays(target, hold.RESTORE, "IPC")
        (pod,) = tenant.pods_of(restore)
        if how == "killed":
            tenant.run("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force", "--wait=false")
            tenant.completed(restore, 180)  # the check ends the session that still waits
        else:
            evict(tenant, pod["metadata"]["name"])
    done = tenant.completed(restore, 180)
    assert done["status"]["restored"]["rows"] == sum(rows for rows, _ in source.contents().values())
    assert target.contents() == source.contents()
    assert invariants.pods_made(tenant, done) == 1
    assert set(bucket.keys()) >= set(kept)
