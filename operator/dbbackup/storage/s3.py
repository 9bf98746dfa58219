"""`Storage` for S3 and compatible servers, over botocore's client.

boto3's transfer functions are not used: they take the end of a stream for success, and stop at
10,000 parts of 8 MiB. `retries` says why the retries are our own.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dbbackup.contract.errors import Failure
from dbbackup.contract.keys import clean_prefix
from dbbackup.contract.mounts import STORAGE_CA, STORAGE_SECRET
from dbbackup.contract.run import StorageTarget
from dbbackup.storage.base import ObjectInfo, Storage, Upload, UploadInfo
from dbbackup.storage.faults import Fault, explain
from dbbackup.storage.mounted_secret import read_key
from dbbackup.storage.retries import Retries, StoppedError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

CONNECT_TIMEOUT = 10
READ_TIMEOUT = 30
COMPLETE_READ_TIMEOUT = 1800
"""Seconds: some servers copy all parts before they answer CompleteMultipartUpload."""
LARGE = 1 << 30
"""Uploads of more bytes are completed with COMPLETE_READ_TIMEOUT."""
_SEND = 1 << 20
_BATCH = 1000


class _Body:
    """A request body over a buffer, sent in large pieces: each piece must be sent within the
    socket's timeout, and each costs a switch of threads."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._view, self._at = memoryview(data), 0

    def __len__(self) -> int:
        return len(self._view)

    def read(self, size: int = -1) -> memoryview:
        end = len(self._view) if size < 0 else self._at + max(size, _SEND)
        piece = self._view[self._at : end]
        self._at += len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, len(self._view))[whence]
        return self._at

    def tell(self) -> int:
        return self._at


def open_storage(target: StorageTarget, *, secret_dir: str = STORAGE_SECRET, ca_dir: str = STORAGE_CA) -> Storage:
    """Reads the mounted credentials and CA and makes a client. Sends nothing yet.

    Failure SecretMissing or KeyMissing (`await_secret` waits for late mounts), InvalidSpec for an
    invalid endpoint or region.
    """
    keys = None
    if target.credentials_secret:
        keys = tuple(read_key(secret_dir, target.credentials_secret, key) for key in (target.access_key_id_key, target.secret_access_key_key))
    if target.ca_secret and "-----BEGIN CERTIFICATE-----" not in read_key(ca_dir, target.ca_secret, target.ca_key):
        raise Failure("KeyMissing", f"Secret {target.ca_secret}: key {target.ca_key} holds no certificate in PEM")
    return connect_storage(target, keys, str(Path(ca_dir) / target.ca_key) if target.ca_secret else None)


def connect_storage(target: StorageTarget, keys: Sequence[str] | None, ca_file: str | None) -> Storage:
    """Like `open_storage`, but takes the access key's ID and its secret (None: the default chain)
    and a file of CAs (None: the system's)."""
    from botocore.config import Config  # noqa: PLC0415 - 200 ms of imports, which a caller can overlap with its connection to the database
    from botocore.session import Session  # noqa: PLC0415

    where = f"bucket {target.bucket}" + (f" at {target.endpoint}" if target.endpoint else f" (region {target.region})" if target.region else "")
    arguments: dict[str, Any] = {}
    if keys is not None:
        arguments["aws_access_key_id"], arguments["aws_secret_access_key"] = keys
    if ca_file is not None:
        arguments["verify"] = ca_file
    session = Session()
    region = target.region or (None if target.endpoint else session.get_config_variable("region")) or "us-east-1"
    style = target.addressing if target.addressing != "auto" else "path" if target.endpoint else "auto"

    def connect(read_timeout: int) -> S3Client:
        config = Config(
            s3={"addressing_style": style},
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=read_timeout,
            retries={"total_max_attempts": 1, "mode": "standard"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            tcp_keepalive=True,
            max_pool_connections=16,
            parameter_validation=False,
        )
        client = session.create_client("s3", region_name=region, endpoint_url=target.endpoint, config=config, **arguments)
        return cast("S3Client", client)

    try:
        prefix = clean_prefix(target.prefix)
        return S3Storage(connect, target.bucket, f"{prefix}/" if prefix else "", where, region)
    except Exception as error:  # noqa: BLE001 - for an invalid endpoint botocore raises any exception
        raise explain(error, "preparing the client", where).failure from None


class S3Storage:
    """`connect` makes a client with a read timeout in seconds. The credentials may list below
    `prefix`. Thread-safe."""

    def __init__(self, connect: Callable[[int], S3Client], bucket: str, prefix: str, where: str, region: str) -> None:
        self._connect, self.bucket, self._prefix, self.where, self._region = connect, bucket, prefix, where, region
        self.attempt = Retries(where).attempt
        self.client = connect(READ_TIMEOUT)
        self._conditions = True
        self._lock = threading.Lock()
        self._slow_client: S3Client | None = None

    # --- bucket

    def ensure_bucket(self, create: bool) -> None:
        def missing(fault: Fault, _tries: int) -> bool | None:
            return False if create and fault.failure.reason.name == "BucketNotFound" else None

        def look() -> bool:
            self.client.list_objects_v2(
                Bucket=self.bucket, Prefix=self._prefix, MaxKeys=1
            )  # below the prefix, as the credentials may list nothing else
            return True

        action = "looking for the bucket"
        if not self.attempt(action, look, accept=missing):
            self._create_bucket()
            self.attempt(action, look)

    def _create_bucket(self) -> None:
        """A private bucket: no ACL is asked for, and private is the default everywhere. Concurrent
        creation succeeds for both."""

        def make(constraint: bool) -> bool:
            if constraint:
                self.client.create_bucket(Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": self._region})  # type: ignore[typeddict-item]
            else:
                self.client.create_bucket(Bucket=self.bucket)
            return True

        def accept(fault: Fault, _tries: int) -> bool | None:
            if fault.code in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                return True
            return False if fault.code in {"InvalidLocationConstraint", "IllegalLocationConstraintException"} else None

        action = "creating the bucket"
        if not self.attempt(action, lambda: make(self._region != "us-east-1"), accept=accept):
            self.attempt(action, lambda: make(False), accept=accept)

    # --- objects

    def put(self, key: str, body: bytes, content_type: str, *, if_absent: bool = False) -> None:
        def call() -> bool:
            self.client.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=_Body(body) if body else b"",  # type: ignore[arg-type]
                ContentMD5=_md5(body),
                ContentType=content_type,
                **self.condition(if_absent),
            )
            return True

        def accept(fault: Fault, tries: int) -> bool | None:
            if fault.failure.reason.name == "ArtifactExists" and tries:  # an earlier attempt, whose reply was lost, may have written it
                found = self.head(key)
                return True if found is not None and found.size == len(body) and self.get(key, len(body)) == body else None
            return False if self.conditions_unknown(fault, if_absent) else None

        if not self.attempt(f"writing {key}", call, accept=accept):
            self.attempt(f"writing {key}", call)

    def condition(self, if_absent: bool) -> dict[str, Any]:
        return {"IfNoneMatch": "*"} if if_absent and self._conditions else {}

    def conditions_unknown(self, fault: Fault, if_absent: bool) -> bool:
        """Whether the server refused the condition itself: then none is sent any more."""
        if not self.condition(if_absent) or fault.code not in {"NotImplemented", "501"}:
            return False
        self._conditions = False
        return True

    def get(self, key: str, limit: int) -> bytes:
        def fetch() -> bytes:
            response = self.client.get_object(Bucket=self.bucket, Key=key)
            with response["Body"] as stream:
                if response["ContentLength"] > limit:
                    raise Failure("ArtifactCorrupt", f"{key} in {self.where} has {response['ContentLength']} bytes, more than the limit of {limit}")
                return stream.read()

        return self.attempt(f"reading {key}", fetch)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        if length == 0:
            return b""
        wanted = f"bytes={start}-{start + length - 1}"

        def fetch() -> bytes:
            response = self.client.get_object(Bucket=self.bucket, Key=key, Range=wanted)
            with response["Body"] as stream:
                if response["ContentLength"] != length:
                    raise Failure(
                        "ArtifactCorrupt",
                        f"{key} in {self.where}: {length} bytes from {start} on were requested, the server has {response['ContentLength']}",
                    )
                return stream.read()

        return self.attempt(f"reading {key}", fetch)

    def head(self, key: str) -> ObjectInfo | None:
        def look() -> Sequence[ObjectInfo]:
            found = self.client.head_object(Bucket=self.bucket, Key=key)
            return [ObjectInfo(key, found["ContentLength"], found["LastModified"], found["ETag"].strip('"'))]

        def accept(fault: Fault, _tries: int) -> Sequence[ObjectInfo] | None:
            if fault.failure.reason.name == "ArtifactMissing":
                return []
            if fault.failure.reason.name == "StorageAccessDenied":  # a HEAD carries no error code: ask in a way that does
                return [info for info in self._page(key, {"MaxKeys": 1})[0] if info.key == key]
            return None

        found = self.attempt(f"looking for {key}", look, accept=accept)
        return found[0] if found else None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        more: dict[str, Any] | None = {}
        while more is not None:
            page, more = self._page(prefix, more)
            yield from page

    def _page(self, prefix: str, more: dict[str, Any]) -> tuple[Sequence[ObjectInfo], dict[str, Any] | None]:
        answer = self.attempt(f"listing {prefix}", lambda: self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, **more))
        page = [ObjectInfo(o["Key"], o["Size"], o["LastModified"], o.get("ETag", "").strip('"')) for o in answer.get("Contents", [])]
        token = answer.get("NextContinuationToken") if answer.get("IsTruncated") else None
        return page, {"ContinuationToken": token} if token else None

    def delete(self, keys: Iterable[str]) -> None:
        wanted = tuple(keys)
        for first in range(0, len(wanted), _BATCH):
            batch = wanted[first : first + _BATCH]
            rest = batch if len(batch) == 1 else self._delete_batch(batch)
            for key in rest:
                self._delete_one(key)

    def _delete_batch(self, keys: Sequence[str]) -> Sequence[str]:
        """The keys that the server did not delete. All where it refuses batches: single deletes
        then show why."""

        def call() -> Sequence[str]:
            answer = self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True})
            return [error["Key"] for error in answer.get("Errors", []) if error.get("Code") not in {"NoSuchKey", "NotFound"}]

        def accept(fault: Fault, _tries: int) -> Sequence[str] | None:
            return None if fault.transient or fault.failure.reason.name in {"BucketNotFound", "StorageAuthenticationFailed"} else keys

        return self.attempt(f"deleting {len(keys)} objects", call, accept=accept)

    def _delete_one(self, key: str) -> None:
        def accept(fault: Fault, _tries: int) -> bool | None:
            return True if fault.failure.reason.name == "ArtifactMissing" else None

        def call() -> bool:
            self.client.delete_object(Bucket=self.bucket, Key=key)
            return True

        self.attempt(f"deleting {key}", call, accept=accept)

    # --- uploads

    def start_upload(self, key: str, content_type: str, *, if_absent: bool = False) -> Upload:
        answer = self.attempt(
            f"starting the upload of {key}", lambda: self.client.create_multipart_upload(Bucket=self.bucket, Key=key, ContentType=content_type)
        )
        return S3Upload(self, key, answer["UploadId"], if_absent)

    def list_uploads(self, prefix: str) -> Iterator[UploadInfo]:
        key, upload_id = "", ""
        while True:
            answer = self._uploads_page(prefix, key, upload_id)
            for upload in answer.get("Uploads", []):
                yield UploadInfo(upload["Key"], upload["UploadId"], upload["Initiated"])
            key, upload_id = answer.get("NextKeyMarker", ""), answer.get("NextUploadIdMarker", "")
            if not answer.get("IsTruncated") or not key:
                return

    def _uploads_page(self, prefix: str, key: str, upload_id: str) -> Any:
        def call(markers: dict[str, Any]) -> Any:
            return self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=prefix, **markers)

        def accept(fault: Fault, _tries: int) -> Any:
            """versitygw 1.x refuses the upload ID that it gave itself: page by keys alone."""
            return call({"KeyMarker": key}) if upload_id and fault.code == "InvalidArgument" else None

        markers = {name: value for name, value in (("KeyMarker", key), ("UploadIdMarker", upload_id)) if value}
        return self.attempt(f"listing uploads below {prefix}", lambda: call(markers), accept=accept)

    def abort_upload(self, upload: UploadInfo) -> None:
        """An upload that does not exist counts as aborted."""

        def call() -> bool:
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=upload.key, UploadId=upload.upload_id)
            return True

        def accept(fault: Fault, _tries: int) -> bool | None:
            return True if fault.code in {"NoSuchUpload", "NoSuchKey", "404"} else None

        self.attempt(f"aborting the upload of {upload.key}", call, accept=accept)

    def slow_client(self) -> S3Client:
        """A client that waits COMPLETE_READ_TIMEOUT for an answer."""
        with self._lock:
            if self._slow_client is None:
                self._slow_client = self._connect(COMPLETE_READ_TIMEOUT)
            return self._slow_client


class S3Upload:
    def __init__(self, storage: S3Storage, key: str, upload_id: str, if_absent: bool) -> None:
        self._storage, self._key, self._id, self._if_absent = storage, key, upload_id, if_absent
        self._etags: dict[int, str] = {}
        self._sizes: dict[int, int] = {}
        self._stopped = threading.Event()
        self._state = "open"

    def part(self, number: int, data: bytes | memoryview) -> None:
        storage, digest = self._storage, _md5(data)
        try:
            answer = storage.attempt(
                f"uploading part {number} of {self._key}",
                lambda: storage.client.upload_part(
                    Bucket=storage.bucket,
                    Key=self._key,
                    UploadId=self._id,
                    PartNumber=number,
                    Body=_Body(data),  # type: ignore[arg-type]
                    ContentMD5=digest,
                ),
                stopped=self._stopped,
            )
        except StoppedError:
            raise Failure("Terminated", f"the upload of {self._key} was aborted") from None
        self._etags[number], self._sizes[number] = answer["ETag"], len(data)

    def complete(self) -> None:
        storage = self._storage
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in sorted(self._etags.items())]
        client = storage.slow_client() if sum(self._sizes.values()) > LARGE else storage.client

        def call() -> bool:
            client.complete_multipart_upload(
                Bucket=storage.bucket,
                Key=self._key,
                UploadId=self._id,
                MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item]
                **storage.condition(self._if_absent),
            )
            return True

        def accept(fault: Fault, tries: int) -> bool | None:
            if tries and (fault.code == "NoSuchUpload" or fault.failure.reason.name == "ArtifactExists") and self._took_effect():
                return True
            return False if storage.conditions_unknown(fault, self._if_absent) else None

        self._state = "completing"
        if not storage.attempt(f"completing the upload of {self._key}", call, accept=accept):
            storage.attempt(f"completing the upload of {self._key}", call)
        self._state = "complete"

    def _took_effect(self) -> bool:
        """Whether an earlier attempt, whose reply was lost, completed it: the upload is gone, and
        an object of its size exists."""

        def look() -> bool:
            self._storage.client.list_parts(Bucket=self._storage.bucket, Key=self._key, UploadId=self._id, MaxParts=1)
            return True

        there = self._storage.attempt(
            f"looking for the upload of {self._key}", look, accept=lambda fault, _: False if fault.code == "NoSuchUpload" else None
        )
        found = None if there else self._storage.head(self._key)
        return found is not None and found.size == sum(self._sizes.values())

    def cancel(self) -> None:
        self._stopped.set()

    def abort(self) -> None:
        """Call it when no `part` runs any more, or call it twice: a part that arrives after an
        abort stays on some servers."""
        self._stopped.set()
        if self._state in {"complete", "aborted"}:
            return
        self._storage.abort_upload(UploadInfo(self._key, self._id, datetime.now(UTC)))
        self._state = "aborted"


def _md5(data: bytes | memoryview) -> str:
    """Content-MD5: the only digest of content that AWS, MinIO, versitygw and SeaweedFS all check
    (SeaweedFS does not check the signed SHA-256)."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
