"""What holds whatever happened: Completed means that the artifact is there, whole, and restores;
Failed means that nothing was published."""

from __future__ import annotations

import hashlib
import secrets

from tests.e2e.lib.kube import Raw
from tests.e2e.lib.postgres import Database, Postgres
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant

from dbbackup.storage.codec import decompress


def completed_backup(obj: Raw, bucket: Bucket, source: Database) -> None:
    """Objects, digests and rows are as the status says; stock psql restores it to what the source
    holds."""
    told = obj["status"]["artifact"]
    document = bucket.get(f"{told['key']}/manifest.json")
    assert hashlib.sha256(document).hexdigest() == told["manifestSha256"]
    (entry,) = bucket.manifest(told["key"])["objects"]
    data = bucket.get(f"{told['key']}/{entry['name']}")
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (told["sha256"], obj["status"]["sizeBytes"])
    assert restored(source.server, b"".join(decompress(told["compression"], [data]))) == source.contents()


def restored(server: Postgres, script: bytes) -> dict[str, tuple[int, str | None]]:
    """Contents of a new database after psql has run the script there."""
    name = f"check_{secrets.token_hex(6)}"
    server.psql(f"CREATE DATABASE {name}")
    try:
        server.psql_bytes(script, name, "--quiet", user="postgres")
        return Database(server, name, "postgres", "").contents()
    finally:
        server.psql(f"DROP DATABASE {name} WITH (FORCE)")


def failed_backup(obj: Raw, bucket: Bucket) -> None:
    """It claims no artifact, and nothing in the bucket is its."""
    assert "sha256" not in obj["status"].get("artifact", {})
    mine = f"-{obj['metadata']['name']}-{obj['metadata']['uid'][:8]}"
    assert [key for key in [*bucket.keys(), *bucket.uploads()] if mine in key] == []


def pods_made(tenant: Tenant, obj: Raw) -> int:
    """How many pods the Job controller has ever made for the object's own run."""
    return sum(event.get("count") or 1 for event in tenant.events("Job", obj["status"]["jobName"]) if event["reason"] == "SuccessfulCreate")


def one_job(tenant: Tenant, obj: Raw) -> None:
    """The operator has made one Job for the object, whatever became of the operator; a check Job
    may stand beside it."""
    made = {event["involvedObject"]["name"] for event in tenant.objects("events") if event["involvedObject"]["kind"] == "Job"}
    prefix = obj["status"]["jobName"].rsplit("-", 1)[0]
    assert {name for name in made if name.rsplit("-", 1)[0] == prefix} == {obj["status"]["jobName"]}
