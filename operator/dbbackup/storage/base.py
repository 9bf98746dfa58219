"""The Storage Protocol. One contract suite (tests/contract) runs it against every real server.

Every method raises `errors.Failure` with a storage reason; transient faults have been retried
before that. Keys are full keys in the bucket.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    key: str
    size: int
    modified: datetime
    etag: str


@dataclass(frozen=True, slots=True)
class UploadInfo:
    key: str
    upload_id: str
    initiated: datetime


class Upload(Protocol):
    """A multipart upload. Nothing is visible before `complete`; `abort` leaves nothing behind and
    may be called at any time, also twice."""

    def part(self, number: int, data: bytes | memoryview) -> None:
        """Thread-safe. `number` counts from 1. The server checks the part's digest."""

    def complete(self) -> None:
        """Makes one object of all parts."""

    def cancel(self) -> None:
        """From any thread: a `part` that waits for an unreachable server, or begins after this,
        raises Failure Terminated."""

    def abort(self) -> None: ...


class Storage(Protocol):
    def ensure_bucket(self, create: bool) -> None:
        """Failure BucketNotFound where it is missing and `create` is false. A bucket created here
        is private."""

    def put(self, key: str, body: bytes, content_type: str, *, if_absent: bool = False) -> None:
        """The server checks the body's digest. `if_absent`: Failure ArtifactExists where an object
        with that key exists, so that of two writers who don't know of each other only one wins. It
        has no effect on a server without conditional writes."""

    def get(self, key: str, limit: int) -> bytes:
        """The whole object, at most `limit` bytes; Failure ArtifactMissing where it does not
        exist."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes; Failure ArtifactMissing where the object does not exist,
        ArtifactCorrupt where it is shorter."""

    def head(self, key: str) -> ObjectInfo | None: ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]: ...

    def delete(self, keys: Iterable[str]) -> None:
        """A missing key counts as deleted."""

    def start_upload(self, key: str, content_type: str, *, if_absent: bool = False) -> Upload:
        """`if_absent` as for `put`; the upload's completion then fails."""

    def list_uploads(self, prefix: str) -> Iterator[UploadInfo]: ...

    def abort_upload(self, upload: UploadInfo) -> None: ...
