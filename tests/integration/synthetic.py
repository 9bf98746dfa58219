"""An inventory of a bucket that is made up as it is asked for, in a process of its own: what it
costs, without a server's own cost.

`python -m tests.integration.synthetic ARTIFACTS [known]` prints a line of JSON: seconds, requests
by operation, keys, MiB by which the process grew over an inventory of ten artifacts, bytes of log.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO, cast

from botocore.exceptions import ClientError
from tests.integration.artifacts import ROOT, key_of, manifest_of, owner_of

from dbbackup.contract import pages
from dbbackup.contract.report import InventoryItem, Report
from dbbackup.contract.run import InventoryOptions, RunSpec, StorageTarget
from dbbackup.dataplane import main
from dbbackup.dataplane.logs import Reporter
from dbbackup.dataplane.paths import Paths
from dbbackup.dataplane.upkeep import inventory
from dbbackup.storage.s3 import S3Storage

NAMES = ("RESTORE.md", "dump.sql.zst", "manifest.json")
PAGE = 1000
DATABASES = 10


def _error(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "x")  # type: ignore[typeddict-item]


class Client:
    """botocore's, of a server that holds `count` whole artifacts of ten databases, and what is
    put."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.calls: Counter[str] = Counter()
        self.put: dict[str, bytes] = {}

    @lru_cache(maxsize=8)  # noqa: B019 - the process ends soon
    def directory(self, number: int) -> tuple[str, bytes]:
        """The key of the `number`th, in the order of a listing, and its manifest."""
        database = f"app-{number * DATABASES // self.count}"
        owner = owner_of(number)
        return key_of(owner, database), manifest_of(owner, database).to_bytes()

    def list_objects_v2(self, *, Prefix: str, MaxKeys: int = PAGE, ContinuationToken: str = "0", **_: Any) -> dict[str, Any]:  # noqa: N803
        self.calls["ListObjectsV2"] += 1
        assert Prefix in (ROOT, "team/")
        begin, total = int(ContinuationToken), self.count * len(NAMES)
        end = min(begin + MaxKeys, total)
        found = []
        for at in range(begin, end):
            key, manifest = self.directory(at // len(NAMES))
            name = NAMES[at % len(NAMES)]
            size = {"manifest.json": len(manifest), "dump.sql.zst": 8}.get(name, 100)
            found.append({"Key": f"{key}/{name}", "Size": size, "LastModified": datetime(2026, 11, 20, tzinfo=UTC), "ETag": '"e"'})
        return {"Contents": found, "IsTruncated": end < total, "NextContinuationToken": str(end)}

    def list_multipart_uploads(self, **_: Any) -> dict[str, Any]:
        self.calls["ListMultipartUploads"] += 1
        return {}

    def put_object(self, *, Key: str, Body: Any, IfNoneMatch: str = "", **_: Any) -> None:  # noqa: N803
        self.calls["PutObject"] += 1
        if IfNoneMatch and Key in self.put:
            raise _error("PreconditionFailed", 412)
        self.put[Key] = bytes(Body.read())

    def get_object(self, *, Key: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        self.calls["GetObject"] += 1
        if Key in self.put:
            body = self.put[Key]
        else:
            number = int(Key.rpartition("-")[0].rpartition("-")[2])
            body = Client.directory.__wrapped__(self, number)[1]
        return {"ContentLength": len(body), "Body": io.BytesIO(body)}

    def head_object(self, *, Key: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        self.calls["HeadObject"] += 1
        if Key not in self.put:
            raise _error("404", 404)
        return {"ContentLength": len(self.put[Key]), "LastModified": datetime(2026, 11, 23, tzinfo=UTC), "ETag": '"e"'}

    def delete_object(self, *, Key: str, **_: Any) -> None:  # noqa: N803
        self.calls["DeleteObject"] += 1
        self.put.pop(Key, None)


def take(client: Client, log: TextIO, known: str) -> Report:
    def opened(*_: object) -> S3Storage:
        storage = S3Storage(lambda _: cast("Any", client), "bucket", "team/", "bucket", "us-east-1")
        storage.ensure_bucket(create=False)
        return storage

    inventory.open_bucket = opened  # type: ignore[attr-defined,assignment]
    target = StorageTarget(name="default", bucket="bucket", prefix="team")
    options = InventoryOptions(known=known)
    spec = RunSpec(run="inventory", owner=owner_of(0, "BackupStorage"), storage=target, inventory=options)
    with tempfile.TemporaryDirectory() as directory:
        message = Path(directory) / "report"
        assert main.run(spec, Paths(termination_log=message), Reporter(log)) == 0
        return Report.model_validate_json(message.read_text())


def peak() -> float:
    """MiB of memory, at most so far. (getrusage counts the process that this one was forked from,
    too.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure(count: int, *, known: bool) -> dict[str, Any]:
    uids = "".join(owner_of(number).uid[:8] for number in range(count)) if known else ""
    take(Client(10), io.StringIO(), "")
    client, before, began = Client(count), peak(), time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        report = take(client, log, uids)
        seconds, grown = time.monotonic() - began, peak() - before
        size = log.tell()
        log.seek(0)
        assert report.pages
        items = sum(1 for _ in pages.read(log, report.pages, InventoryItem))
    assert items == count
    return {"seconds": round(seconds, 2), "mebibytes": round(grown, 1), "log": size, "keys": count * len(NAMES), "calls": dict(client.calls)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(int(sys.argv[1]), known="known" in sys.argv[2:])) + "\n")
