"""A bucket in memory: the Storage Protocol as an honest server keeps it, with a clock and faults
that a test sets."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.integration.artifacts import EndedRun, owner_of

from dbbackup.contract.errors import Failure, ReasonName
from dbbackup.contract.report import Report
from dbbackup.contract.run import RunSpec, StorageTarget
from dbbackup.dataplane import main
from dbbackup.dataplane.logs import Reporter
from dbbackup.dataplane.paths import Paths
from dbbackup.storage.base import ObjectInfo, UploadInfo

NOW = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)


class Memory:
    """`before(operation, key)` is called before anything is done, and may raise. `asked` are the
    operations in their order."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.modified: dict[str, datetime] = {}
        self.uploads: list[UploadInfo] = []
        self.now = NOW
        self.conditions = True
        self.asked: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda *_: None
        self._lock = threading.Lock()

    def _ask(self, operation: str, key: str) -> None:
        with self._lock:
            self.asked.append((operation, key))
        self.before(operation, key)

    def fill(self, objects: dict[str, bytes], age: timedelta = timedelta()) -> None:
        self.objects |= objects
        self.modified |= dict.fromkeys(objects, self.now - age)

    def open(self, run: object, *, create: bool | None = None) -> Any:
        """Instead of `bucket.open_bucket`."""
        self.ensure_bucket(bool(create))
        return self

    def info(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, len(self.objects[key]), self.modified.get(key, self.now), "")

    def ensure_bucket(self, create: bool) -> None:
        self._ask("ensure_bucket", "")

    def put(self, key: str, body: bytes, content_type: str, *, if_absent: bool = False) -> None:
        self._ask("put", key)
        if if_absent and self.conditions and key in self.objects:
            raise Failure("ArtifactExists", f"writing {key}: there is one")
        self.fill({key: body})

    def get(self, key: str, limit: int) -> bytes:
        self._ask("get", key)
        if key not in self.objects:
            raise Failure("ArtifactMissing", f"reading {key}: there is none")
        return self.objects[key]

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self.get(key, start + length)[start : start + length]

    def head(self, key: str) -> ObjectInfo | None:
        self._ask("head", key)
        return self.info(key) if key in self.objects else None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._ask("list", prefix)
        for key in sorted(self.objects):
            if key.startswith(prefix) and key in self.objects:
                yield self.info(key)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._ask("delete", key)
            self.objects.pop(key, None)

    def list_uploads(self, prefix: str) -> Iterator[UploadInfo]:
        self._ask("list_uploads", prefix)
        yield from [upload for upload in self.uploads if upload.key.startswith(prefix)]

    def abort_upload(self, upload: UploadInfo) -> None:
        self._ask("abort_upload", upload.key)
        self.uploads.remove(upload)


def failing(operation: str, reason: ReasonName, matches: str = "") -> Callable[[str, str], None]:
    """A `before`: that operation fails on keys that hold `matches`."""

    def fail(asked: str, key: str) -> None:
        if asked == operation and matches in key:
            raise Failure(reason, f"{asked} {key}: the server said no")

    return fail


def without(objects: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {key: body for key, body in objects.items() if not key.endswith("/" + name)}


def changed(objects: dict[str, bytes], name: str, body: bytes) -> dict[str, bytes]:
    """With another body for the object of that name."""
    return {key: body if key.endswith("/" + name) else old for key, old in objects.items()}


def run(tmp_path: Path, kind: str, **fields: Any) -> EndedRun:
    """A run of that kind for a BackupStorage."""
    target = StorageTarget(name="default", bucket="b", prefix="/team/")
    spec = RunSpec.model_validate({"run": kind, "owner": owner_of(0, "BackupStorage"), "storage": target, **fields})
    stream = io.StringIO()
    code = main.run(spec, Paths(termination_log=tmp_path / "report"), Reporter(stream))
    return EndedRun(code, Report.model_validate_json((tmp_path / "report").read_text()), stream.getvalue())
