"""Objects -> typed specs -> parts of a run spec."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dbbackup.api.specs import Databases, Retention, SpecError, parse_backup, parse_restore, parse_schedule, parse_storage
from dbbackup.api.targets import backup_options, database_target, expiry, owner, restore_options, storage_target
from dbbackup.contract.run import BackupOptions, DatabaseTarget, RestoreOptions

DATABASE: dict[str, Any] = {"secretRef": {"name": "app-db"}}


def backup(**spec: Any) -> dict[str, Any]:
    return {"spec": {"database": DATABASE, **spec}}


def restore(**spec: Any) -> dict[str, Any]:
    return {"spec": {"source": {"backupRef": {"name": "b"}}, "database": DATABASE, **spec}}


def schedule(**spec: Any) -> dict[str, Any]:
    return {"spec": {"schedule": "@daily", "template": {"spec": {"database": DATABASE}}, **spec}}


def test_the_shortest_backup() -> None:
    spec = parse_backup(backup())
    assert spec.database is not None
    assert (spec.origin, spec.ttl) == ("Run", None)
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
            excludeSchemas=["tmp_*"],
            excludeExtensions=["pg_cron"],
            excludeTables=["public.a"],
            excludeTableData=["auth.sessions"],
            clean=False,
            rowCounts="Off",
            compression={"algorithm": "gzip", "level": 9},
        )
    )
    assert spec.database is not None
    target = database_target(spec.database)
    assert target.to_json() == (
        '{"secret":"s","keys":{"uri":"u","host":"h","port":"p","name":"n","user":"us","password":"pw","sslMode":"sm"},"host":"db","port":6543,'
        '"name":"assetdex","user":"app","sslMode":"verify-full","caSecret":"ca","caKey":"root.pem"}'
    )
    assert backup_options(spec).to_json() == (
        '{"format":"custom","schemas":["public","auth"],"excludeSchemas":["tmp_*"],"excludeExtensions":["pg_cron"],"excludeTables":["public.a"],"excludeTableData":["auth.sessions"],"clean":false,'
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
                "capacity": "100Gi",
                "defaultTTL": "never",
                "inventoryInterval": "6h",
            }
        }
    )
    assert (spec.max_concurrent, spec.capacity, spec.default_ttl, spec.inventory_interval) == (3, 100 * 2**30, "never", 21600)
    assert storage_target("default", spec).to_json() == (
        '{"name":"default","bucket":"b","prefix":"team-a","endpoint":"http://s3:7070","region":"eu-1","addressing":"path","credentialsSecret":"s3",'
        '"accessKeyIdKey":"id","secretAccessKeyKey":"key","caSecret":"ca","caKey":"ca.crt","createBucket":true,"maxArtifactSize":1073741824}'
    )


def test_a_storage_without_credentials_uses_the_default_chain() -> None:
    target = storage_target("default", parse_storage({"spec": {"s3": {"bucket": "bbb"}}}))
    assert target.credentials_secret is None
    assert target.max_artifact_size is None


def test_a_storage_keeps_backups_for_thirty_days_and_looks_once_a_day() -> None:
    spec = parse_storage({"spec": {"s3": {"bucket": "bbb"}}})
    assert (spec.default_ttl, spec.inventory_interval, spec.capacity) == (30 * 86400, 86400, None)
    assert parse_storage({"spec": {"s3": {"bucket": "bbb"}, "defaultTTL": "52w"}}).default_ttl == 364 * 86400


def test_a_size_may_be_a_number() -> None:
    assert parse_storage({"spec": {"s3": {"bucket": "bbb"}, "maxArtifactSize": 5}}).max_artifact_size == 5


def test_every_field_of_a_restore_reaches_the_run() -> None:
    spec = parse_restore(restore(createDatabase=True, onExisting="Replace", safetyBackup=False, tables=["public.a"], lockTimeout="2m"))
    assert restore_options(spec, "k", "d") == RestoreOptions(
        key="k", manifest_sha256="d", create_database=True, on_existing="Replace", safety_backup=False, tables=("public.a",), lock_timeout_seconds=120
    )
    assert restore_options(parse_restore(restore()), "k", None) == RestoreOptions(key="k")


def test_sources() -> None:
    by_name = parse_restore(restore()).source
    assert by_name.backup_ref is not None
    assert (by_name.backup_ref.name, by_name.schedule_ref, by_name.artifact) == ("b", None, None)
    artifact = parse_restore(restore(source={"artifact": {"key": "a/b"}})).source.artifact
    assert artifact is not None
    assert (artifact.key, artifact.storage_ref.name) == ("a/b", "default")
    newest = parse_restore(restore(source={"scheduleRef": {"name": "nightly"}})).source.schedule_ref
    assert newest is not None
    assert (newest.name, newest.before, newest.database) == ("nightly", None, None)
    before = {"name": "nightly", "before": "2026-11-20T01:00:00+01:00", "database": "app"}
    earlier = parse_restore(restore(source={"scheduleRef": before})).source.schedule_ref
    assert earlier is not None
    assert (earlier.before, earlier.database) == (datetime(2026, 11, 20, tzinfo=UTC), "app")


def test_a_discovered_backup() -> None:
    spec = parse_backup({"spec": {"origin": "Discovered", "artifactKey": "a/b"}})
    assert (spec.database, spec.artifact_key) == (None, "a/b")


def test_times_to_live_of_backups() -> None:
    assert parse_backup(backup(ttl="never")).ttl == "never"
    assert parse_backup(backup(ttl="12w")).ttl == 84 * 86400


def test_what_a_backup_does_not_say_about_its_time_the_storage_says() -> None:
    made = datetime(2024, 2, 29, 3, tzinfo=UTC)
    days = parse_storage({"spec": {"s3": {"bucket": "bbb"}, "defaultTTL": "2d"}})
    forever = parse_storage({"spec": {"s3": {"bucket": "bbb"}, "defaultTTL": "never"}})
    assert expiry(made, None, days) == datetime(2024, 3, 2, 3, tzinfo=UTC)
    assert expiry(made, None, forever) is None
    assert expiry(made, "never", days) is None
    assert expiry(made, 3600, forever) == datetime(2024, 2, 29, 4, tzinfo=UTC)


def test_the_shortest_schedule() -> None:
    spec = parse_schedule(schedule())
    assert (spec.schedule, spec.time_zone, spec.jitter, spec.starting_deadline) == ("@daily", "Etc/UTC", 0, None)
    assert (spec.suspend, spec.immediate, spec.concurrency_policy, spec.failed_history_limit) == (False, False, "Forbid", 3)
    assert (spec.databases, spec.retention.keeps, spec.retention.min_keep, spec.retention.max_prune_share) == (None, False, 1, 50)
    assert spec.template.spec == parse_backup(backup())


def test_every_field_of_a_schedule() -> None:
    template = {
        "metadata": {"labels": {"team": "a"}, "annotations": {"contact": "b"}},
        "spec": {"database": DATABASE, "ttl": "52w", "format": "custom"},
    }
    keeps = {"keepLast": 1, "keepHourly": 2, "keepDaily": 3, "keepWeekly": 4, "keepMonthly": 5, "keepYearly": 6, "minKeep": 7, "maxPruneShare": 8}
    spec = parse_schedule(
        schedule(
            schedule="0 3 * * 1-5",
            timeZone="Europe/Berlin",
            jitter="10m",
            suspend=True,
            immediate=True,
            concurrencyPolicy="Replace",
            startingDeadline="2h",
            template=template,
            databases={"include": ["app*"], "exclude": ["app_tmp"]},
            retention=keeps,
            failedHistoryLimit=0,
        )
    )
    assert (spec.schedule, spec.time_zone, spec.jitter, spec.starting_deadline) == ("0 3 * * 1-5", "Europe/Berlin", 600, 7200)
    assert (spec.suspend, spec.immediate, spec.concurrency_policy, spec.failed_history_limit) == (True, True, "Replace", 0)
    assert (spec.template.metadata.labels, spec.template.metadata.annotations) == ({"team": "a"}, {"contact": "b"})
    assert (spec.template.spec.ttl, spec.template.spec.format) == (364 * 86400, "custom")
    assert spec.databases == Databases(include=("app*",), exclude=("app_tmp",))
    assert spec.retention == Retention(
        keep_last=1, keep_hourly=2, keep_daily=3, keep_weekly=4, keep_monthly=5, keep_yearly=6, min_keep=7, max_prune_share=8
    )


@pytest.mark.parametrize("rule", ["keepLast", "keepHourly", "keepDaily", "keepWeekly", "keepMonthly", "keepYearly"])
def test_one_keep_rule_is_enough_to_decide_what_stays(rule: str) -> None:
    assert parse_schedule(schedule(retention={rule: 1})).retention.keeps
    assert not parse_schedule(schedule(retention={"minKeep": 3, "maxPruneShare": 100})).retention.keeps


def test_no_jitter_may_be_written_out() -> None:
    assert parse_schedule(schedule(jitter="0s")).jitter == 0


def test_only_names_need_no_look_at_the_server() -> None:
    assert parse_schedule(schedule(databases={})).databases == Databases(include=("*",))
    assert Databases().discovers
    assert Databases(include=("a", "b?")).discovers
    assert not Databases(include=("a", "b")).discovers


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
        ({"spec": {}}, "spec", "database is required"),
        (backup(timeout="1 week"), "spec.timeout", "is not a duration"),
        (backup(timeout="999999w"), "spec.timeout", "at most 365d"),
        (backup(format="tar"), "spec.format", "'plain' or 'custom'"),
        (backup(compression={"algorithm": "gzip", "level": 12}), "spec.compression", "gzip's level is 1 to 9"),
        (backup(compression={"algorithm": "none", "level": 1}), "spec.compression", "no meaning"),
        (backup(database={"secretRef": {"name": "s"}, "port": 70000}), "spec.database.port", "less than or equal to 65535"),
        (backup(schemas=["a", 3]), "spec.schemas[1]", "valid string"),
        (backup(retries=-1, format="x"), "spec.format", "(and 1 more)"),
        (backup(ttl="forever"), "spec.ttl", "is not a duration"),
        (backup(ttl="36501d"), "spec.ttl", "at most 36500d"),
        (backup(artifactKey="a/b"), "spec", "artifactKey goes with origin Discovered only"),
        ({"spec": {"origin": "Discovered"}}, "spec", "takes artifactKey"),
        (backup(origin="Discovered", artifactKey="a/b"), "spec", "and no database"),
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
        ({"source": {"backupRef": {"name": "a"}, "scheduleRef": {"name": "s"}}}, "spec.source", "exactly one"),
        ({"source": {"scheduleRef": {"name": "s", "before": "2026-11-22T13:00:00"}}}, "spec.source.scheduleRef.before", "timezone"),
        ({"schemas": ["a"], "tables": ["a.b"]}, "spec", "not both"),
        ({"startBefore": "2026-11-22T13:00:00"}, "spec.startBefore", "timezone"),
    ],
)
def test_a_bad_restore_names_its_field(spec: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_restore(restore(**spec))
    assert caught.value.path == path
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({"template": {"spec": {}}}, "spec.template.spec", "database is required"),
        ({"template": {"spec": {"database": DATABASE, "timeout": "x"}}}, "spec.template.spec.timeout", "is not a duration"),
        ({"schedule": ""}, "spec.schedule", "at least 1 character"),
        ({"jitter": "soon"}, "spec.jitter", "is not a duration"),
        ({"startingDeadline": "0s"}, "spec.startingDeadline", "above zero"),
        ({"concurrencyPolicy": "Skip"}, "spec.concurrencyPolicy", "'Forbid', 'Allow' or 'Replace'"),
        ({"retention": {"keepDaily": 0}}, "spec.retention.keepDaily", "greater than or equal to 1"),
        ({"retention": {"maxPruneShare": 101}}, "spec.retention.maxPruneShare", "less than or equal to 100"),
        ({"databases": {"include": []}}, "spec.databases.include", "at least 1 item"),
        ({"databases": {}, "template": {"spec": {"database": {**DATABASE, "name": "app"}}}}, "spec", "template.spec.database.name must be absent"),
        ({"failedHistoryLimit": -1}, "spec.failedHistoryLimit", "greater than or equal to 0"),
    ],
)
def test_a_bad_schedule_names_its_field(spec: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_schedule(schedule(**spec))
    assert caught.value.path == path
    assert message in caught.value.message


@pytest.mark.parametrize("size", ["lots", "0", -1])
def test_a_bad_size(size: object) -> None:
    with pytest.raises(SpecError, match=r"spec\.maxArtifactSize"):
        parse_storage({"spec": {"s3": {"bucket": "bbb"}, "maxArtifactSize": size}})


def test_unknown_fields_are_of_a_newer_crd() -> None:
    assert parse_backup(backup(parallel=4)).timeout == 3600


def test_owner() -> None:
    meta = {"namespace": "n", "name": "b", "uid": "u", "creationTimestamp": "2026-11-22T10:00:00Z"}
    found = owner({"kind": "DatabaseBackup", "metadata": meta})
    assert (found.namespace, found.name, found.uid, found.created_at) == ("n", "b", "u", datetime(2026, 11, 22, 10, tzinfo=UTC))
