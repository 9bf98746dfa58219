"""Connection Secrets as other operators make them, and buckets made by ours, on the real
cluster."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import boto3
import botocore.exceptions
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from tests.e2e.lib.kube import Raw, condition
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import S3, Bucket
from tests.e2e.lib.tenant import Tenant


def uri(found: Database, host: str) -> str:
    return f"postgresql://{found.owner}:{found.password}@{host}:{found.server.port}/{found.name}"


def shapes(found: Database) -> dict[str, tuple[dict[str, str], Raw]]:
    """Convention -> the Secret's values, and spec.database besides its secretRef. Hosts are written
    as those operators write them."""
    host, port, name, user, password = found.server.host, str(found.server.port), found.name, found.owner, found.password
    short = host.removesuffix(".svc")
    return {
        "cloudnativepg": (
            {
                "dbname": name,
                "fqdn-uri": uri(found, f"{host}.cluster.local"),
                "host": short,
                "jdbc-uri": f"jdbc:postgresql://{short}:{port}/{name}?password={password}&user={user}",
                "password": password,
                "pgpass": f"{short}:{port}:{name}:{user}:{password}\n",
                "port": port,
                "uri": uri(found, short),
                "user": user,
                "username": user,
            },
            {},
        ),
        "cloudnativepg-superuser": (
            {
                "dbname": "*",
                "host": short,
                "password": password,
                "port": port,
                "uri": f"postgresql://{user}:{password}@{short}:{port}/*",
                "username": user,
            },
            {"name": name},
        ),
        "zalando": ({"username": user, "password": password}, {"host": host, "name": name}),
        "crunchy-pgo": (
            {
                "dbname": name,
                "host": host,
                "jdbc-uri": f"jdbc:postgresql://{host}:{port}/{name}?password={password}&user={user}",
                "password": password,
                "pgbouncer-host": "pooler-that-is-not-used",
                "pgbouncer-port": "6432",
                "pgbouncer-uri": f"postgresql://{user}:{password}@pooler-that-is-not-used:6432/{name}",
                "port": port,
                "uri": uri(found, host),
                "user": user,
                "verifier": "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy",
            },
            {},
        ),
        "percona": (
            {
                "dbname": name,
                "host": f"{host}.cluster.local",
                "password": password,
                "pgbouncer-host": "pooler-that-is-not-used",
                "port": port,
                "uri": uri(found, f"{host}.cluster.local"),
                "user": user,
                "verifier": "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy",
            },
            {},
        ),
        "service-binding": (
            {"type": "postgresql", "provider": "tests", "host": host, "port": port, "database": name, "username": user, "password": password},
            {},
        ),
        "uri-alone": ({"uri": uri(found, host)}, {}),
        "mapped": (
            {"DB_HOST": host, "DB_PORT": port, "DB_DATABASE": name, "DB_USERNAME": user, "DB_PASSWORD": f"{password}\n", "host": "not-this-one"},
            {"keys": {"host": "DB_HOST", "port": "DB_PORT", "name": "DB_DATABASE", "user": "DB_USERNAME", "password": "DB_PASSWORD"}},
        ),
        "mapped-uri": ({"DATABASE_URL": uri(found, host)}, {"keys": {"uri": "DATABASE_URL"}}),
    }


def test_the_secrets_of_other_operators_work_unchanged(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    found = database(15)
    found.execute("CREATE TABLE t AS SELECT 1 AS a")
    tenant.add_storage(bucket)
    made: dict[str, Raw] = {}
    for convention, (values, more) in shapes(found).items():
        secret = "app.acid-minimal.credentials.postgresql.acid.zalan.do" if convention == "zalando" else f"{convention}-app"
        tenant.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "stringData": values})
        made[convention] = tenant.backup(convention, secret, database=more, retries=0)
    for convention, obj in made.items():
        status = tenant.completed(obj)["status"]
        assert (status["database"]["name"], status["database"]["rows"]) == (found.name, 1), convention
        assert "pooler" not in status["database"]["identity"]
        assert found.password not in str(tenant.get("dbb", convention))


@pytest.fixture
def absent_bucket(shared_s3: S3) -> Any:
    made = shared_s3.bucket(f"t-{secrets.token_hex(6)}", create=False)
    yield made
    made.empty()


def test_a_bucket_is_made_where_it_is_wanted_and_is_private(tenant: Tenant, database: Callable[..., Database], absent_bucket: Bucket) -> None:
    found = database(17)
    found.execute("CREATE TABLE t AS SELECT 1 AS a")
    tenant.add_storage(absent_bucket, "strict")
    tenant.add_database(found)
    tenant.failed(tenant.backup("too-early", storageRef={"name": "strict"}), "BucketNotFound")
    stalled = tenant.wait_until("bst", "strict", lambda seen: condition(seen, "Stalled") == "True", 30, "Stalled")
    assert next(item["reason"] for item in stalled["status"]["conditions"] if item["type"] == "Ready") == "BucketNotFound"
    tenant.add_storage(absent_bucket, createBucket=True)
    status = tenant.completed(tenant.backup("one"))["status"]
    key = f"{status['artifact']['key']}/manifest.json"
    grants = absent_bucket.client.get_bucket_acl(Bucket=absent_bucket.name)["Grants"]
    assert not [grant for grant in grants if "AllUsers" in str(grant) or "AuthenticatedUsers" in str(grant)]
    endpoint = "http://{}:{}".format(*absent_bucket.s3.address)
    anybody = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", config=Config(signature_version=UNSIGNED, s3={"addressing_style": "path"})
    )
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        anybody.get_object(Bucket=absent_bucket.name, Key=key)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    tenant.completed(tenant.backup("two"))
