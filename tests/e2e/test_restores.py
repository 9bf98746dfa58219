"""Where a restore takes its artifact from, what it demands of its target, and what it leaves when
it cannot go on."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tests.e2e.lib.compare import BARE, assert_same, everything
from tests.e2e.lib.kube import Raw
from tests.e2e.lib.postgres import Database, Postgres
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant

SHOP = (
    "CREATE SCHEMA shop",
    "CREATE TABLE shop.customers (id int PRIMARY KEY, name text)",
    "CREATE TABLE shop.orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int REFERENCES shop.customers, note text)",
    "CREATE INDEX orders_customer ON shop.orders (customer)",
    "CREATE TABLE public.settings (key text PRIMARY KEY, value text)",
    "INSERT INTO shop.customers SELECT i, 'customer ' || i FROM generate_series(1, 50) i",
    "INSERT INTO shop.orders (customer, note) SELECT 1 + i % 50, 'order ' || i FROM generate_series(1, 200) i",
    "INSERT INTO public.settings VALUES ('colour', 'blue')",
)


def shop(found: Database) -> Database:
    found.execute(*SHOP)
    return found


def rows(found: Database) -> dict[str, int]:
    return {name: count for name, (count, _) in found.contents().items()}


def exists(server: Postgres, name: str) -> bool:
    with server.connect() as connection:
        return bool(connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).rowcount)


def message(obj: Raw) -> str:
    return str(obj["status"]["failure"]["message"])


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_the_bucket_alone_is_enough_and_what_a_status_pinned_is_held_to(
    form: str, tenant: Tenant, database: Callable[..., Database], bucket: Bucket
) -> None:
    """A changed manifest is refused where a backup's status knows the true one; with no object of
    the backup left, its key finds the artifact."""
    found, empty = shop(database(15)), database(17)
    tenant.add_storage(bucket)
    tenant.add_database(found)
    tenant.apply(empty.secret("empty"))
    done = tenant.completed(tenant.backup("one", format=form))
    key = done["status"]["artifact"]["key"]
    name = f"{key}/manifest.json"
    manifest = bucket.get(name)

    changed = json.loads(manifest)
    changed["operatorVersion"] = "9.9.9"
    bucket.put(name, json.dumps(changed).encode())
    refused = tenant.failed(tenant.restore("changed", "one", "empty"), "ManifestDigestMismatch")
    assert name in message(refused)
    assert empty.contents() == {}
    bucket.put(name, manifest)
    assert (
        tenant.completed(tenant.restore("pinned", "one", "empty"))["status"]["artifact"]["manifestSha256"]
        == done["status"]["artifact"]["manifestSha256"]
    )
    assert empty.contents() == found.contents()

    tenant.delete("dbb", "one")
    tenant.wait_gone("dbb", "one")
    tenant.failed(tenant.restore("gone", "one", "empty", startDeadline="1s"), "BackupNotFound")
    other = database(15)
    tenant.apply(other.secret("other"))
    restored = tenant.completed(tenant.restore("from-bucket", {"artifact": {"key": key}}, "other"))["status"]
    assert restored["restored"] == {"tables": 3, "rows": 251, "bytes": restored["restored"]["bytes"]}
    assert restored["restored"]["bytes"] > 0
    assert_same(everything(found, *BARE), everything(other, *BARE))
    assert bucket.get(name) == manifest


def test_a_database_is_created_and_dropped_again_where_the_restore_fails(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    found = shop(database(17, options="TEMPLATE template0 LOCALE 'C' ENCODING 'UTF8'"))
    found.execute(f"ALTER ROLE {found.owner} CREATEDB", superuser=True)
    good, bad = f"{found.name}_copy", f"{found.name}_bad"
    tenant.add_storage(bucket)
    tenant.add_database(found)
    try:
        done = tenant.completed(tenant.backup("one"))
        missing = tenant.failed(tenant.restore("missing", "one", database={"name": good}), "DatabaseNotFound")
        assert good in message(missing)
        restored = tenant.completed(tenant.restore("copy", "one", database={"name": good}, createDatabase=True))
        assert restored["status"]["database"]["name"] == good
        copy = Database(found.server, good, found.owner, found.password)
        assert_same(everything(found, *BARE), everything(copy, *BARE))
        locale = "SELECT datcollate, datctype, pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()"
        assert copy.query(locale) == found.query(locale)

        key = done["status"]["artifact"]["key"]
        bucket.put(f"{key}/dump.sql.zst", b"x" * done["status"]["sizeBytes"])
        tenant.failed(tenant.restore("broken", "one", database={"name": bad}, createDatabase=True), "ArtifactCorrupt")
        assert not exists(found.server, bad)
        tenant.failed(tenant.restore("taken", "one", database={"name": good}, createDatabase=True), "ArtifactCorrupt")
        assert exists(found.server, good), "a database that the restore had not made must stay"
    finally:
        for name in (good, bad):
            found.server.drop(name)


OBJECTS = {
    "function": ("CREATE FUNCTION public.only() RETURNS int LANGUAGE sql AS 'SELECT 1'", "only"),
    "enum": ("CREATE TYPE public.mood AS ENUM ('calm')", "mood"),
    "large-object": ("SELECT lo_from_bytea(4711, 'x')", "4711"),
}


def test_a_target_that_holds_anything_at_all_is_refused_by_name(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    tenant.add_storage(bucket)
    tenant.apply(shop(database(15)).secret("db"))
    tenant.completed(tenant.backup("one"))
    made = {}
    for kind, (statement, name) in OBJECTS.items():
        target = database(15)
        target.execute(statement)
        tenant.apply(target.secret(kind))
        made[kind] = (target, name, everything(target), tenant.restore(kind, "one", kind))
    for target, name, before, restore in made.values():
        refused = tenant.failed(restore, "TargetNotEmpty")
        assert name in message(refused)
        assert target.name in message(refused)
        assert_same(before, everything(target))


def test_a_selection_from_a_custom_artifact(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    found = shop(database(17))
    tenant.add_storage(bucket)
    tenant.add_database(found)
    plain, custom = tenant.backup("plain"), tenant.backup("custom", format="custom")
    tenant.completed(plain)
    tenant.completed(custom)
    before = everything(found)
    found.execute("DELETE FROM shop.orders", "UPDATE public.settings SET value = 'red'", "DROP INDEX shop.orders_customer")

    refused = tenant.failed(tenant.restore("no", "plain", tables=["shop.orders"], onExisting="Replace"), "SelectionUnsupported")
    assert "custom" in refused["status"]["failure"]["hint"]
    nothing = tenant.failed(tenant.restore("none", "custom", tables=["shop.nobody"], onExisting="Replace"), "SelectionEmpty")
    assert "shop.nobody" in message(nothing)
    assert rows(found)["shop.orders"] == 0

    restored = tenant.completed(tenant.restore("orders", "custom", tables=["shop.orders"], onExisting="Replace"))["status"]["restored"]
    assert (restored["tables"], restored["rows"]) == (1, 200)
    assert found.value("SELECT value FROM public.settings") == "red", "what was not chosen must stay"
    found.execute("UPDATE public.settings SET value = 'blue'")
    assert_same(before, everything(found))

    target = database(17)
    tenant.apply(target.secret("schema"))
    tenant.completed(tenant.restore("schema", "custom", "schema", schemas=["shop"]))
    assert_same(everything(found, *BARE, "-n", "shop"), everything(target, *BARE, "-n", "shop"))
    assert {name: count for name, count in rows(target).items() if "seq" not in name} == {"shop.customers": 50, "shop.orders": 200}


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_the_safety_backup_undoes_a_replace(form: str, tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    found = shop(database(15))
    tenant.add_storage(bucket, s3={"prefix": "p"})
    tenant.add_database(found)
    tenant.completed(tenant.backup("old", format=form))
    found.execute("INSERT INTO shop.customers VALUES (1000, 'new')", "UPDATE public.settings SET value = 'red'")
    newer = everything(found)

    safety = tenant.completed(tenant.restore("back", "old", onExisting="Replace"))["status"]["safetyBackup"]
    assert found.value("SELECT count(*) FROM shop.customers") == 50
    assert (safety["storage"], safety["key"].startswith(f"p/{tenant.name}/")) == ("default", True)
    manifest = bucket.manifest(safety["key"])
    assert manifest["objects"][0]["sha256"] == safety["sha256"]
    assert manifest["format"] == form

    again = tenant.completed(tenant.restore("undo", {"artifact": {"key": safety["key"]}}, onExisting="Replace", safetyBackup=False))
    assert "safetyBackup" not in again["status"]
    assert_same(newer, everything(found))


def test_what_depends_on_a_replaced_table_is_named_before_anything_is_touched(
    tenant: Tenant, database: Callable[..., Database], bucket: Bucket
) -> None:
    found = shop(database(17))
    tenant.add_storage(bucket)
    tenant.add_database(found)
    tenant.completed(tenant.backup("one"))
    found.execute("CREATE VIEW public.later AS SELECT count(*) FROM shop.orders", "DELETE FROM shop.orders")
    before, keys = everything(found), bucket.keys()
    refused = tenant.failed(tenant.restore("back", "one", onExisting="Replace"), "DependentObjects")
    assert "later" in message(refused)
    assert "shop.orders" in message(refused)
    assert_same(before, everything(found))
    assert bucket.keys() == keys, "no safety backup either"
