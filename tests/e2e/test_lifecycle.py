"""Retention, inventory, import and restores from the bucket, on the real cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta

from tests.e2e.lib.compare import BARE, assert_same, everything
from tests.e2e.lib.kube import Raw, condition
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant
from tests.e2e.test_schedules import annotate, made, schedule, settled


def checked(tenant: Tenant, token: str, name: str = "default") -> Raw:
    """The storage after one more look at its bucket."""
    annotate(tenant, "bst", name, check_now=token)
    return tenant.wait_until("bst", name, lambda seen: seen["status"].get("lastCheck") == token, 90, "a look at the bucket")


def test_a_storage_is_ready_after_a_real_write_read_and_delete(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    tenant.add_database(database(15))
    tenant.add_storage(bucket, capacity="1Ki")
    ready = tenant.wait_ready("bst", "default")
    assert ready["status"]["capabilities"] == {"conditionalWrites": True}
    assert ready["status"]["usage"]["artifacts"] == 0
    assert bucket.keys() == [], "what was tried is gone again"

    done = tenant.completed(tenant.backup("one"))
    used = checked(tenant, "1")["status"]["usage"]
    assert (used["artifacts"], used["orphans"], used["foreign"], used["debris"]) == (1, 0, 0, 0)
    assert used["bytes"] == sum(bucket.client.head_object(Bucket=bucket.name, Key=key)["ContentLength"] for key in sorted(bucket.keys()))
    assert condition(tenant.get("bst", "default"), "NearCapacity") == "True"
    row = tenant.run("get", "bst", "default").splitlines()
    assert used["size"] in row[1]
    assert done["status"]["artifact"]["key"]


def test_a_storage_that_cannot_be_used_says_why_and_comes_back(tenant: Tenant, bucket: Bucket) -> None:
    secret = bucket.secret()
    tenant.apply({**secret, "stringData": {**secret["stringData"], "secretAccessKey": "wrong"}}, bucket.storage())
    stalled = tenant.wait_until("bst", "default", lambda seen: condition(seen, "Stalled") == "True", 60, "Stalled")
    entry = next(item for item in stalled["status"]["conditions"] if item["type"] == "Stalled")
    assert entry["reason"] == "StorageAuthenticationFailed"
    assert "wrong" not in json.dumps(stalled["status"])
    tenant.apply(secret)
    annotate(tenant, "bst", "default", check_now="again")
    tenant.wait_ready("bst", "default")


def test_a_backup_expires_and_the_newest_stays(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    tenant.add_storage(bucket)
    tenant.add_database(database(15))
    first = tenant.completed(tenant.backup("first", ttl="15s"))
    assert first["status"]["expires"] == first["status"]["expirationTime"][:16].replace("T", " ")
    pinned = tenant.completed(tenant.backup("held", ttl="15s"))
    annotate(tenant, "dbb", "held", pin="true")
    last = tenant.completed(tenant.backup("last", ttl="15s"))

    expired = tenant.wait_until("dbb", "first", lambda seen: seen["status"]["phase"] == "Expired", 90, "Expired")

    created = datetime.fromisoformat(first["metadata"]["creationTimestamp"])
    assert datetime.fromisoformat(first["status"]["expirationTime"]) == created + timedelta(seconds=15)
    assert condition(expired, "Ready") == "True"
    assert bucket.keys(first["status"]["artifact"]["key"] + "/") == []
    for kept in (pinned, last):
        assert tenant.get("dbb", kept["metadata"]["name"])["status"]["phase"] == "Completed"
        assert len(bucket.keys(kept["status"]["artifact"]["key"] + "/")) == 4
    assert tenant.get("dbb", "held")["status"]["expires"] == "pinned"
    told = tenant.events("DatabaseBackup", "first")
    assert any(event["reason"] == "Expiring" and "expired" in event["message"] for event in told)
    refused = tenant.failed(tenant.restore("late", "first", onExisting="Replace"), "BackupNotCompleted")
    assert "Expired" in refused["status"]["failure"]["message"]


def test_keep_rules_and_the_breaker(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    tenant.add_storage(bucket)
    tenant.add_database(database(15))
    tenant.create(schedule(template={"deletionPolicy": "Delete"}))
    for number in range(1, 6):
        annotate(tenant, "dbs", "nightly", run_now=str(number))
        settled(tenant, runs=number)
    tenant.patch("dbs", "nightly", {"spec": {"retention": {"keepLast": 1}}})

    held = tenant.wait_until("dbs", "nightly", lambda seen: condition(seen, "PruneHeld") == "True", 60, "PruneHeld")
    assert len(made(tenant)) == 5
    told = held["status"]["retention"]["held"]
    assert told["count"] == 4
    assert f"approve-prune={told['token']}" in told["message"]

    *older, newest = sorted(made(tenant), key=lambda obj: obj["metadata"]["creationTimestamp"])
    annotate(tenant, "dbs", "nightly", approve_prune=told["token"])
    for obj in older:
        tenant.wait_gone("dbb", obj["metadata"]["name"], 90)
    [kept] = made(tenant)
    assert kept["metadata"]["name"] == newest["metadata"]["name"]
    assert {key.rsplit("/", 1)[0] for key in sorted(bucket.keys())} == {kept["status"]["artifact"]["key"]}
    tenant.wait_until("dbs", "nightly", lambda seen: condition(seen, "PruneHeld") is None, 60, "nothing held")


def test_a_failed_run_holds_retention(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    tenant.add_storage(bucket)
    secret = database(15).secret("db")
    tenant.apply(secret)
    tenant.create(schedule(retention={"keepLast": 1}, template={"retries": 0}))
    annotate(tenant, "dbs", "nightly", run_now="1")
    settled(tenant)
    tenant.delete("secret", "db")
    annotate(tenant, "dbs", "nightly", run_now="2")
    tenant.wait_until("dbs", "nightly", lambda seen: seen["status"].get("consecutiveFailures") == 1, 90, "a failure")
    tenant.apply(secret)
    annotate(tenant, "dbs", "nightly", run_now="3")
    tenant.wait_until(
        "dbs",
        "nightly",
        lambda seen: seen["status"].get("consecutiveFailures") == 0 and [obj["status"]["phase"] for obj in made(tenant)].count("Completed") == 1,
        90,
        "one good backup, the newest",
    )


def test_the_bucket_alone_gives_everything_back(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    """Objects gone, artifacts there: an import makes them again, and they restore."""
    tenant.add_storage(bucket)
    source = database(15, inventory=True)
    tenant.add_database(source)
    tenant.create(schedule(template={"schemas": ["public", "auth"]}, immediate=True))
    settled(tenant)
    by_hand = tenant.completed(tenant.backup("by-hand", ttl="never"))
    [run] = made(tenant)
    before = everything(source, *BARE)
    tenant.delete("dbs", "nightly")
    for name in ("by-hand", run["metadata"]["name"]):
        tenant.delete("dbb", name)
        tenant.wait_gone("dbb", name)

    assert checked(tenant, "1")["status"]["usage"]["orphans"] == 2
    annotate(tenant, "bst", "default", **{"import": "1"})
    seen = tenant.wait_until("bst", "default", lambda found: (found["status"].get("lastImport") or {}).get("token") == "1", 90, "the import")
    assert (seen["status"]["lastImport"]["imported"], seen["status"]["lastImport"]["skipped"]) == (2, 0)
    found = tenant.completed(tenant.get("dbb", "by-hand"))
    for field in ("sha256", "manifestSha256", "key"):
        assert found["status"]["artifact"][field] == by_hand["status"]["artifact"][field]
    for field in ("size", "sizeBytes", "database"):
        assert found["status"][field] == by_hand["status"][field], field
    assert found["status"]["completionTime"] <= by_hand["status"]["completionTime"], "the manifest is written a little before the report"
    assert found["status"]["origin"] == "Discovered"
    assert [obj["metadata"]["name"] for obj in made(tenant)] == [run["metadata"]["name"]]

    annotate(tenant, "bst", "default", **{"import": "2"})
    again = tenant.wait_until("bst", "default", lambda found: (found["status"].get("lastImport") or {}).get("token") == "2", 90, "the import")
    assert again["status"]["lastImport"]["imported"] == 0
    assert len(tenant.objects("dbb")) == 2

    copy = database(15)
    copy.execute("CREATE EXTENSION IF NOT EXISTS plpgsql")
    tenant.add_database(copy, "copy")
    tenant.completed(tenant.restore("from-schedule", {"scheduleRef": {"name": "nightly"}}, "db", onExisting="Replace"))
    assert_same(before, everything(source, *BARE))


def test_what_is_not_ours_is_never_touched(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    tenant.add_storage(bucket)
    tenant.add_database(database(15))
    done = tenant.completed(tenant.backup("one", ttl="10s"))
    tenant.completed(tenant.backup("two", ttl="10s"))
    key = done["status"]["artifact"]["key"]
    somebody = [
        f"{tenant.name}/notes.txt",
        f"{tenant.name}/server/database/readme",
        "elsewhere/file",
        f"{key.rsplit('/', 1)[0]}/20200101T000000Z-x-deadbeef/my.data",
    ]
    for name in somebody:
        bucket.put(name, b"not ours")
    tenant.wait_until("dbb", "one", lambda seen: seen["status"]["phase"] == "Expired", 90, "Expired")
    assert checked(tenant, "1")["status"]["usage"]["foreign"] == 3
    assert set(somebody) <= set(bucket.keys())


def test_an_artifact_that_somebody_deletes_is_missed_and_found_again(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    tenant.add_storage(bucket)
    tenant.add_database(database(15))
    done = [tenant.completed(tenant.backup(name)) for name in ("whole", "wiped", "halved")]
    whole, wiped, halved = (obj["status"]["artifact"]["key"] for obj in done)
    taken = {key: bucket.get(key) for key in [*bucket.keys(f"{wiped}/"), f"{halved}/dump.sql.zst"]}
    for key in taken:
        bucket.delete(key)

    checked(tenant, "1")
    tenant.failed(done[1], "ArtifactMissing")
    assert "dump is missing" in tenant.failed(done[2], "ArtifactMissing")["status"]["failure"]["message"]
    assert tenant.get("dbb", "whole")["status"]["phase"] == "Completed", whole

    for key, data in taken.items():
        bucket.put(key, data)
    checked(tenant, "2")
    for obj in done:
        again = tenant.wait_until("dbb", obj["metadata"]["name"], lambda seen: seen["status"]["phase"] == "Completed", 30, "Completed again")
        assert "failure" not in again["status"]


def test_a_manifest_of_another_owner_is_never_pruned(tenant: Tenant, database: Callable[..., Database], bucket: Bucket) -> None:
    tenant.add_storage(bucket)
    tenant.add_database(database(15))
    done = tenant.completed(tenant.backup("one", ttl="25s"))
    tenant.completed(tenant.backup("two", ttl="never"))
    key = done["status"]["artifact"]["key"]
    manifest = bucket.manifest(key)
    manifest["owner"]["uid"] = "somebody-else"
    bucket.put(f"{key}/manifest.json", json.dumps(manifest).encode())
    storage = tenant.wait_until("bst", "default", lambda seen: bool(seen["status"].get("pruneFailedAt")), 120, "a prune that was refused")
    assert key in storage["status"]["pruneMessage"]
    assert len(bucket.keys(key + "/")) == 4
    assert tenant.get("dbb", "one")["status"]["phase"] == "Deleting"
