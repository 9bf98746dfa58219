"""Runs on one database exclude each other, whichever Secret or object they came by, and say that
they wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from tests.e2e.lib.kube import Raw
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant

from dbbackup.dataplane.postgres.locks import KEY

HELD = f"""
SELECT mode, granted FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
 AND (classid::bigint << 32) | objid::bigint = {KEY} ORDER BY mode, granted
"""


@contextmanager
def locked(found: Database, mode: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Somebody holds table t: runs stay where they need it, for as long as the block lasts."""
    with found.connect() as connection, connection.transaction():
        connection.execute(f"LOCK TABLE t IN {mode} MODE")
        yield connection


def waits(obj: Raw) -> bool:
    ready: Raw = next((entry for entry in obj["status"].get("conditions", ()) if entry["type"] == "Ready"), {})
    return bool(ready.get("reason") == "WaitingForDatabase" and obj["status"]["phase"] == "Running" and ready["status"] == "False")


def why(obj: Raw) -> str:
    return str(next(entry["message"] for entry in obj["status"]["conditions"] if entry["type"] == "Ready"))


def test_a_restore_waits_for_two_backups_that_share_the_database(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    found = database(15)
    found.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 10) i")
    tenant.add_storage(bucket)
    tenant.add_database(found)
    tenant.apply(found.secret("by-another-name"))
    tenant.completed(tenant.backup("before"))
    found.execute("DELETE FROM t WHERE i > 5")
    with locked(found, "ACCESS EXCLUSIVE"):
        backups = [tenant.backup("one"), tenant.backup("two", "by-another-name", format="custom")]
        for made in backups:
            tenant.wait_until("dbb", made["metadata"]["name"], lambda obj: obj["status"].get("phase") == "Running", 60, "Running")
        holders(found, [("ShareLock", True), ("ShareLock", True)])
        restore = tenant.restore("back", "before", "by-another-name", onExisting="Replace", safetyBackup=False)
        seen = tenant.wait_until("dbr", "back", waits, 60, "waiting for the database")
        assert "dbbackup backup" in why(seen)
        assert found.identity in why(seen)
        holders(found, [("ExclusiveLock", False), ("ShareLock", True), ("ShareLock", True)])
    for made in backups:
        assert tenant.completed(made)["status"]["database"]["rows"] == 5
    assert tenant.completed(restore)["status"]["restored"]["rows"] == 10
    assert found.value("SELECT count(*) FROM t") == 10


def test_a_backup_waits_for_a_restore(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    found = database(17)
    found.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 10) i")
    tenant.add_storage(bucket)
    tenant.add_database(found)
    tenant.completed(tenant.backup("before"))
    found.execute("DELETE FROM t")
    with locked(found, "ACCESS SHARE"):
        restore = tenant.restore("back", "before", onExisting="Replace", safetyBackup=False, lockTimeout="5m")
        holders(found, [("ExclusiveLock", True)])
        backup = tenant.backup("during")
        seen = tenant.wait_until("dbb", "during", waits, 60, "waiting for the database")
        assert "dbbackup restore" in why(seen)
    tenant.completed(restore)
    assert tenant.completed(backup)["status"]["database"]["rows"] == 10


def holders(found: Database, expected: list[tuple[str, bool]]) -> None:
    """Waits until the database's advisory lock is held and asked for in exactly that way."""
    values = ", ".join(f"('{mode}', {granted})" for mode, granted in expected)
    found.execute(
        "SET statement_timeout = '60s'",
        f"""DO $$ BEGIN
          WHILE EXISTS (({HELD}) EXCEPT ALL VALUES {values}) OR EXISTS ((VALUES {values}) EXCEPT ALL ({HELD})) LOOP PERFORM pg_sleep(0.02); END LOOP;
        END $$""",
        superuser=True,
    )
