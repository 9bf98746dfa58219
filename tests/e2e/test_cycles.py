"""The main job: a data-centre inventory is backed up, loses servers, and is restored in place by
the role that owns its tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.data import generate
from tests.e2e.lib.compare import assert_same, everything
from tests.e2e.lib.postgres import SUPERUSER, Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant

BOTH = [(15, "plain"), (17, "custom"), (17, "plain"), (15, "custom")]
SCHEMAS = ["public", "auth"]
SESSIONS = list(generate.EXCLUDED_ROWS)


def counted(database: Database) -> tuple[int, int]:
    """Servers and power specs."""
    return database.value("SELECT count(*) FROM servers"), database.value("SELECT count(*) FROM power_specs")


def identities(database: Database) -> list[tuple[Any, ...]]:
    return database.query("SELECT id, hostname::text, serial_number FROM servers ORDER BY 1")


def lose(database: Database, servers: int) -> None:
    """As somebody with a wrong WHERE would."""
    database.execute(f"DELETE FROM servers WHERE id IN (SELECT id FROM servers ORDER BY hostname LIMIT {servers})")


def prepare(database: Database) -> None:
    """What a Replace must put back: a publication with one of the tables, a grant that names a
    single role, a table that the backup doesn't hold."""
    publication = f"{database.prefix}publication"
    reader = generate.Roles.with_prefix(database.prefix).readonly
    database.execute(f"CREATE PUBLICATION {publication} FOR TABLE servers WHERE (id <> '00000000-0000-0000-0000-000000000000')")
    database.execute(
        f"GRANT UPDATE (notes) ON servers TO {reader} WITH GRANT OPTION",
        "CREATE SCHEMA mine",
        "CREATE TABLE mine.own (server uuid REFERENCES public.servers)",
    )
    database.execute("INSERT INTO mine.own SELECT id FROM public.servers ORDER BY hostname DESC LIMIT 3")


def assert_not_a_superuser(database: Database) -> None:
    assert database.query(f"SELECT rolsuper, rolcreatedb, rolbypassrls FROM pg_roles WHERE rolname = '{database.owner}'") == [(False, False, False)]


@pytest.mark.parametrize(("major", "form"), BOTH[:2])
def test_271_servers_lose_five_and_are_271_again(major: int, form: str, tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    """Tables of sessions are left out altogether here: they stay in the target with their rows, and
    keep their foreign keys."""
    found = database(major, inventory=True)
    lose(found, 5)
    assert counted(found)[0] == 271
    before, known = everything(found), identities(found)
    tenant.add_storage(bucket)
    tenant.add_database(found)
    tenant.completed(tenant.backup("nightly", format=form, excludeTables=SESSIONS))
    lose(found, 5)
    assert counted(found)[0] == 266
    assert everything(found) != before
    restored = tenant.completed(tenant.restore("back", "nightly", onExisting="Replace"))
    assert counted(found)[0] == 271
    assert identities(found) == known
    assert_same(before, everything(found))
    assert found.value("SELECT count(*) FROM auth.sessions") > 0
    assert "warnings" not in restored["status"]


@pytest.mark.parametrize(("major", "form"), BOTH)
def test_276_servers_lose_six_and_the_whole_database_is_as_it_was(
    major: int, form: str, tenant: Tenant, database: Callable[..., Database], bucket: Bucket
) -> None:
    """Rows of sessions are left out, as the example does: their tables are there afterwards, empty,
    and a warning says so."""
    found = database(major, inventory=True)
    assert_not_a_superuser(found)
    prepare(found)
    assert counted(found) == (276, 276)
    without_sessions = [f"--exclude-table-data={table}" for table in SESSIONS]
    before, known = everything(found, *without_sessions), identities(found)
    sessions = found.value("SELECT count(*) FROM auth.sessions")
    tenant.add_storage(bucket)
    tenant.add_database(found)
    backup = tenant.completed(tenant.backup("nightly", format=form, schemas=SCHEMAS, excludeTableData=SESSIONS))
    lose(found, 6)
    assert counted(found) == (270, 270)

    restored = tenant.completed(tenant.restore("back", "nightly", onExisting="Replace"))["status"]

    assert counted(found) == (276, 276)
    assert identities(found) == known
    assert_same(before, everything(found, *without_sessions))
    assert found.query("SELECT (SELECT count(*) FROM auth.sessions), (SELECT count(*) FROM auth.refresh_tokens)") == [(0, 0)]
    assert any("auth.sessions" in warning and str(sessions) in warning for warning in restored["warnings"]), restored["warnings"]
    manifest = bucket.manifest(backup["status"]["artifact"]["key"])
    assert (restored["restored"]["rows"], restored["restored"]["tables"]) == (manifest["rows"], len(manifest["contents"]["tables"]))
    assert restored["database"]["identity"] == found.identity
    held = bucket.manifest(restored["safetyBackup"]["key"])
    rows = {(table["schema"], table["name"]): table.get("rows") for table in held["contents"]["tables"]}
    assert (rows["public", "servers"], rows["auth", "sessions"], rows["mine", "own"]) == (270, sessions, 3)


def test_a_comparison_sees_the_smallest_loss(database: Callable[..., Database]) -> None:
    """What the cycles above lean on: each of these, put right again by nobody, would have failed
    them."""
    found = database(15, inventory=True)
    prepare(found)
    reader = generate.Roles.with_prefix(found.prefix).readonly
    losses = (
        "UPDATE servers SET notes = coalesce(notes, '') || ' ' WHERE hostname = (SELECT max(hostname) FROM servers)",
        f"REVOKE UPDATE (notes) ON servers FROM {reader}",
        f"REVOKE USAGE ON SCHEMA auth FROM {generate.Roles.with_prefix(found.prefix).service}",
        f"ALTER FUNCTION public.is_admin() OWNER TO {SUPERUSER}",
        f"ALTER PUBLICATION {found.prefix}publication DROP TABLE servers",
        "ALTER TABLE auth.users ENABLE TRIGGER on_auth_user_created",
        "SELECT nextval(pg_get_serial_sequence('power_specs', 'id'))",
        "DELETE FROM mine.own WHERE ctid = '(0,1)'",
        "COMMENT ON SCHEMA auth IS NULL",
    )
    seen = everything(found)
    for loss in losses:
        found.execute(loss, superuser=True)
        now = everything(found)
        with pytest.raises(AssertionError):
            assert_same(seen, now)
        seen = now
