"""A test's own namespace: what a person of one team sees and does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.e2e.lib.kube import Kube, Raw, condition
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket

API = "dbbackup.io/v1"


@dataclass(slots=True)
class Tenant(Kube):
    """Kube, with the objects of our API made in a line each. Specs are as in the CRDs; what is not
    given keeps its default."""

    def add_storage(self, bucket: Bucket, name: str = "default", **spec: Any) -> Raw:
        """A BackupStorage on the bucket, with its Secret `s3`."""
        return self.apply(bucket.secret(), bucket.storage(name, **spec))[1]

    def add_database(self, database: Database, name: str = "db") -> str:
        """The database's connection Secret; returns its name."""
        self.apply(database.secret(name))
        return name

    def backup(self, name: str, secret: str = "db", *, database: Raw | None = None, **spec: Any) -> Raw:
        """Creates a DatabaseBackup. `database` adds to spec.database."""
        return self.create(backup(name, secret, database=database, **spec))[0]

    def restore(self, name: str, source: str | Raw, secret: str = "db", *, database: Raw | None = None, **spec: Any) -> Raw:
        """Creates a DatabaseRestore; `source` is a backup's name, or spec.source."""
        return self.create(restore(name, source, secret, database=database, **spec))[0]

    def finished(self, obj: Raw, timeout: float = 120) -> Raw:
        """The object once it has ended, either way."""
        name = obj["metadata"]["name"]
        return self.wait_until(obj["kind"].lower(), name, lambda seen: condition(seen, "Finished") == "True", timeout, "Finished")

    def completed(self, obj: Raw, timeout: float = 120) -> Raw:
        """The object once it has ended well; an AssertionError with its failure where it has
        not."""
        ended = self.finished(obj, timeout)
        status = ended["status"]
        assert status["phase"] == "Completed", f"{obj['kind']} {obj['metadata']['name']} is {status['phase']}: {status.get('failure')}"
        assert condition(ended, "Ready") == "True"
        return ended

    def failed(self, obj: Raw, reason: str, timeout: float = 120) -> Raw:
        """The object once it has failed for that reason, told in every place where it must
        stand."""
        ended = self.finished(obj, timeout)
        status = ended["status"]
        assert (status["phase"], status.get("failure", {}).get("reason")) == ("Failed", reason), status
        assert status["failure"]["message"]
        assert status["failure"]["hint"]
        stalled = next(entry for entry in status["conditions"] if entry["type"] == "Stalled")
        assert (stalled["status"], stalled["reason"]) == ("True", reason)
        assert condition(ended, "Ready") == "False"
        return ended

    def jobs_of(self, obj: Raw) -> list[Raw]:
        """Jobs that the object owns, or that carry its UID."""
        uid = obj["metadata"]["uid"]
        return [
            job
            for job in self.objects("jobs")
            if uid in str(job["metadata"].get("ownerReferences", "")) or uid in str(job["metadata"].get("labels", ""))
        ]

    def pods_of(self, obj: Raw) -> list[Raw]:
        jobs = {job["metadata"]["name"] for job in self.jobs_of(obj)}
        return [pod for pod in self.objects("pods") if pod["metadata"].get("labels", {}).get("batch.kubernetes.io/job-name") in jobs]


def backup(name: str, secret: str = "db", *, database: Raw | None = None, **spec: Any) -> Raw:
    target = {"secretRef": {"name": secret}, **(database or {})}
    return {"apiVersion": API, "kind": "DatabaseBackup", "metadata": {"name": name}, "spec": {"database": target, **spec}}


def restore(name: str, source: str | Raw, secret: str = "db", *, database: Raw | None = None, **spec: Any) -> Raw:
    origin = {"backupRef": {"name": source}} if isinstance(source, str) else source
    target = {"secretRef": {"name": secret}, **(database or {})}
    return {"apiVersion": API, "kind": "DatabaseRestore", "metadata": {"name": name}, "spec": {"source": origin, "database": target, **spec}}
