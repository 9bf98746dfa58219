"""The test library itself: what every other test here leans on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.e2e.lib.kube import Kube
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant


@pytest.mark.parametrize("major", [13, 15, 17, 18])
def test_a_fresh_database_is_empty_and_its_owner_has_no_privileges(major: int, database: Callable[..., Database]) -> None:
    found = database(major)
    assert found.contents() == {}
    assert found.value("SHOW server_version_num").startswith(str(major))
    assert found.query(f"SELECT rolsuper, rolcreatedb, rolbypassrls FROM pg_roles WHERE rolname = '{found.owner}'") == [(False, False, False)]
    found.execute("CREATE TABLE t (a int PRIMARY KEY, b text)", "INSERT INTO t VALUES (1, 'ü')")
    before = found.contents()
    assert before["public.t"][0] == 1
    found.execute("UPDATE t SET b = 'u'")
    assert found.contents()["public.t"] != before["public.t"]
    assert f"OWNER TO {found.owner}" in found.schema()


def test_the_inventory_belongs_to_the_owner_of_its_tables(database: Callable[..., Database]) -> None:
    found = database(17, inventory=True)
    with found.connect() as connection:
        row = connection.execute("SELECT count(*) FROM servers").fetchone()
    assert row == (276,)


def test_a_bucket_is_empty_and_takes_objects(bucket: Bucket) -> None:
    assert (bucket.keys(), bucket.uploads()) == ([], [])
    bucket.put("a/b", b"1")
    assert bucket.keys() == ["a/b"]
    assert bucket.get("a/b") == b"1"


def test_a_wait_sees_an_object_that_is_made_later(tenant: Tenant) -> None:
    tenant.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}, "data": {"a": "1"}})
    assert tenant.wait_until("configmap", "late", lambda obj: obj["data"]["a"] == "1", 10)["data"] == {"a": "1"}
    with pytest.raises(AssertionError, match="did not reach two within 1 s"):
        tenant.wait_until("configmap", "late", lambda obj: obj["data"]["a"] == "2", 1, "two")


def test_the_operator_answers_in_a_new_namespace(tenant: Tenant, bucket: Bucket) -> None:
    tenant.add_storage(bucket)
    seen = tenant.wait_until("backupstorage", "default", lambda obj: obj["status"].get("observedGeneration") == 1, 20, "a look from the operator")
    assert isinstance(tenant, Kube)
    assert seen["status"]["conditions"]
