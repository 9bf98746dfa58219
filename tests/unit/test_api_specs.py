"""Objects -> typed specs -> what a run is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dbbackup.api.specs import SpecError, parse_backup, parse_restore, parse_storage
from dbbackup.api.targets import backup_options, database_target, owner, restore_options, storage_target
from dbbackup.run import BackupOptions, DatabaseTarget, RestoreOptions

DATABASE: dict[str, Any] = {"secretRef": {"name": "app-db"}}


def backup(**spec: Any) -> dict[str, Any]:
    return {"spec": {"database": DATABASE, **spec}}


def restore(**spec: Any) -> dict[str, Any]:
    return {"spec": {"source": {"backupRef": {"name": "b"}}, "database": DATABASE, **spec}}


def test_the_shortest_backup() -> None:
    spec = parse_backup(backup())
    assert (spec.storage_ref.name, spec.timeout, spec.start_deadline, spec.retries, spec.deletion_policy) == ("default", 3600, 600, 2, "Retain")
    assert backup_options(spec) == BackupOptions()
    assert database_target(spec.database) == DatabaseTarget(secret="app-db")


def test_every_field_of_a_backup_reaches_the_run() -> None:
    spec = parse_backup(
        backup(
            database={
                "secretRef": {"name": "s"},
                "keys": {"uri": "u", "host": "h", "port": "p", "name": "n", "user": "us", "password": "pw", "sslMode": "sm"},
                "host": "db",
                "port": 6543,
                "name": "assetdex",
                "user": "app",
                "sslMode": "verify-full",
                "caSecretRef": {"name": "ca", "key": "root.pem"},
            },
            format="custom",
            schemas=["public", "auth"],
            excludeTables=["public.a"],
            excludeTableData=["auth.sessions"],
            clean=False,
            rowCounts="Off",
            compression={"algorithm": "gzip", "level": 9},
        )
    )
    target = database_target(spec.database)
    assert target.to_json() == (
        '{"secret":"s","keys":{"uri":"u","host":"h","port":"p","name":"n","user":"us","password":"pw","sslMode":"sm"},"host":"db","port":6543,'
        '"name":"assetdex","user":"app","sslMode":"verify-full","caSecret":"ca","caKey":"root.pem"}'
    )
    assert backup_options(spec).to_json() == (
        '{"format":"custom","schemas":["public","auth"],"excludeTables":["public.a"],"excludeTableData":["auth.sessions"],"clean":false,'
        '"rowCounts":"Off","compression":{"algorithm":"gzip","level":9}}'
    )


def test_every_field_of_a_storage_reaches_the_run() -> None:
    spec = parse_storage(
        {
            "spec": {
                "s3": {
                    "bucket": "b",
                    "prefix": "team-a",
                    "endpoint": "http://s3:7070",
                    "region": "eu-1",
                    "addressing": "path",
                    "credentialsSecretRef": {"name": "s3", "accessKeyIdKey": "id", "secretAccessKeyKey": "key"},
                    "caSecretRef": {"name": "ca"},
                },
                "createBucket": True,
                "maxArtifactSize": "1Gi",
                "maxConcurrent": 3,
            }
        }
    )
    assert spec.max_concurrent == 3
    assert storage_target("default", spec).to_json() == (
        '{"name":"default","bucket":"b","prefix":"team-a","endpoint":"http://s3:7070","region":"eu-1","addressing":"path","credentialsSecret":"s3",'
        '"accessKeyIdKey":"id","secretAccessKeyKey":"key","caSecret":"ca","caKey":"ca.crt","createBucket":true,"maxArtifactSize":1073741824}'
    )


def test_a_storage_without_credentials_uses_the_default_chain() -> None:
    target = storage_target("default", parse_storage({"spec": {"s3": {"bucket": "bbb"}}}))
    assert target.credentials_secret is None
    assert target.max_artifact_size is None


def test_a_size_may_be_a_number() -> None:
    assert parse_storage({"spec": {"s3": {"bucket": "bbb"}, "maxArtifactSize": 5}}).max_artifact_size == 5


def test_every_field_of_a_restore_reaches_the_run() -> None:
    spec = parse_restore(restore(createDatabase=True, onExisting="Replace", safetyBackup=False, tables=["public.a"], lockTimeout="2m"))
    assert restore_options(spec, "k", "d") == RestoreOptions(
        key="k", manifest_sha256="d", create_database=True, on_existing="Replace", safety_backup=False, tables=("public.a",), lock_timeout_seconds=120
    )
    assert restore_options(parse_restore(restore()), "k", None) == RestoreOptions(key="k")


def test_sources() -> None:
    assert parse_restore(restore()).source.text == "b"
    spec = parse_restore(restore(source={"artifact": {"key": "a/b"}}))
    assert spec.source.artifact is not None
    assert (spec.source.text, spec.source.artifact.storage_ref.name) == ("a/b", "default")


def test_start_before() -> None:
    at = datetime(2026, 11, 22, 12, tzinfo=UTC)
    spec = parse_restore(restore(startBefore="2026-11-22T13:00:00+01:00"))
    assert not spec.too_late(at)
    assert spec.too_late(at + timedelta(seconds=1))
    assert not parse_restore(restore()).too_late(at)


@pytest.mark.parametrize(
    ("obj", "path", "message"),
    [
        ({}, "spec", "is missing"),
        ({"spec": {}}, "spec.database", "Field required"),
        (backup(timeout="1 week"), "spec.timeout", "is not a duration"),
        (backup(timeout="999999w"), "spec.timeout", "at most 365d"),
        (backup(format="tar"), "spec.format", "'plain' or 'custom'"),
        (backup(compression={"algorithm": "gzip", "level": 12}), "spec.compression", "gzip's level is 1 to 9"),
        (backup(compression={"algorithm": "none", "level": 1}), "spec.compression", "no meaning"),
        (backup(database={"secretRef": {"name": "s"}, "port": 70000}), "spec.database.port", "less than or equal to 65535"),
        (backup(schemas=["a", 3]), "spec.schemas[1]", "valid string"),
        (backup(retries=-1, format="x"), "spec.format", "(and 1 more)"),
    ],
)
def test_a_bad_backup_names_its_field(obj: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_backup(obj)
    assert caught.value.path == path
    assert message in caught.value.message
    assert caught.value.message.startswith(f"{path}: ")
    assert caught.value.reason.name == "InvalidSpec"


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({"source": {}}, "spec.source", "exactly one"),
        ({"source": {"backupRef": {"name": "a"}, "artifact": {"key": "k"}}}, "spec.source", "exactly one"),
        ({"schemas": ["a"], "tables": ["a.b"]}, "spec", "not both"),
        ({"startBefore": "2026-11-22T13:00:00"}, "spec.startBefore", "timezone"),
    ],
)
def test_a_bad_restore_names_its_field(spec: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_restore(restore(**spec))
    assert caught.value.path == path
    assert message in caught.value.message


@pytest.mark.parametrize("size", ["lots", "0", -1])
def test_a_bad_size(size: object) -> None:
    with pytest.raises(SpecError, match=r"spec\.maxArtifactSize"):
        parse_storage({"spec": {"s3": {"bucket": "bbb"}, "maxArtifactSize": size}})


def test_unknown_fields_are_of_a_newer_crd() -> None:
    assert parse_backup(backup(ttl="30d")).timeout == 3600


def test_owner() -> None:
    meta = {"namespace": "n", "name": "b", "uid": "u", "creationTimestamp": "2026-11-22T10:00:00Z"}
    found = owner({"kind": "DatabaseBackup", "metadata": meta})
    assert (found.namespace, found.name, found.uid, found.created_at) == ("n", "b", "u", datetime(2026, 11, 22, 10, tzinfo=UTC))
