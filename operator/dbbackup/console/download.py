"""Artifacts as a stream. Each part is compared with its digest before a byte of it is sent, memory
is bounded, and only a stream that was right to its end ends cleanly.

The manifest says how long the stream will be, so a stream that breaks off is shorter than its
Content-Length, and every client notices.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import logging
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from dbbackup.api.objects import Raw
from dbbackup.api.specs import SpecError, parse_storage
from dbbackup.api.targets import storage_target
from dbbackup.audit import Outcome
from dbbackup.console.people import Right, TimedCache
from dbbackup.console.problems import HttpProblem, from_api
from dbbackup.console.resources import BACKUPS, SECRETS
from dbbackup.console.service import Caller, Service
from dbbackup.console.views import safe_filename
from dbbackup.contract.errors import Failure
from dbbackup.contract.keys import MANIFEST
from dbbackup.contract.manifest import MANIFEST_LIMIT, Manifest, parse_manifest
from dbbackup.contract.run import StorageTarget
from dbbackup.kube import ApiError
from dbbackup.storage.base import Storage
from dbbackup.storage.codec import CONTENT_TYPE, decompress
from dbbackup.storage.reader import ArtifactReader

log = logging.getLogger("dbbackup.console")

PIECE = 4 << 20
"""Bytes handed to the socket at a time."""
PREFETCH = 3
"""Parts fetched ahead of the one that is being sent: with that one, the one before it and a copy in
transit, 5 are in memory."""
LARGEST_PART = 96 << 20
"""Bytes: artifacts with larger parts (from half a TiB on) are left to the CLI."""
STALL_SECONDS = 120
"""Seconds after which a client that reads nothing is dropped."""
CLI = "kubectl dbbackup download"
CLIENTS, CLIENT_SECONDS = 8, 600.0
"""How many S3 clients are kept for the next download, and for how many seconds: each takes 0.2 s
and some MiB to create."""


@dataclass(frozen=True, slots=True)
class Download:
    """A file to send. `length` is in bytes. `chunks` may raise Failure at any time; the last chunk
    comes only after everything was checked."""

    filename: str
    media_type: str
    length: int
    chunks: Iterator[bytes | memoryview]
    close: Callable[[], None]


def hold_back_last(chunks: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The same chunks, each yielded only when another one follows or the end was clean."""
    last: bytes | memoryview | None = None
    for chunk in chunks:
        if last is not None:
            yield last
        last = chunk
    if last is not None:
        yield last


def _pieces(chunks: Iterator[bytes] | ArtifactReader) -> Iterator[memoryview]:
    for chunk in chunks:
        view = memoryview(chunk)
        for at in range(0, len(view), PIECE):
            yield view[at : at + PIECE]


def describe(name: str, manifest: Manifest, storage: Storage, directory: str, *, raw: bool) -> Download:
    """`raw`: as stored. Otherwise decompressed: SQL, or pg_dump's archive. HttpProblem if only the
    CLI can read the artifact."""
    stored, what = manifest.artifact, f"{directory}/{manifest.artifact.name}"
    if manifest.encrypted or len(manifest.objects) != 1:
        raise HttpProblem(501, "FormatUnsupported", f"The console cannot read the format of the artifact of {name}.", f"Use `{CLI}`.")
    if max((part.size for part in stored.parts), default=0) > LARGEST_PART:
        raise HttpProblem(501, "TooLarge", f"The artifact of {name} is too large for the console.", f"Use `{CLI}`, which can also resume.")
    reader = ArtifactReader(storage, directory, stored, PREFETCH, whole=False)
    if raw:
        return Download(
            safe_filename(name, stored.name.removeprefix("dump")),
            CONTENT_TYPE[manifest.compression],
            stored.size,
            hold_back_last(_pieces(reader)),
            reader.close,
        )
    extension, media = (".sql", "application/sql") if manifest.format == "plain" else (".dump", "application/octet-stream")
    chunks = hold_back_last(decompress(manifest.compression, reader, what))
    return Download(safe_filename(name, extension), media, manifest.dump_bytes, chunks, reader.close)


def _explain(failure: Failure, name: str) -> HttpProblem:
    reason = failure.reason.name
    if reason in ("ArtifactMissing", "BucketNotFound"):
        return HttpProblem(404, reason, f"The artifact of backup {name} is not in the bucket: {failure.message}", failure.reason.hint)
    return HttpProblem(502, reason, f"The artifact of backup {name} cannot be read: {failure.message}", failure.reason.hint)


class Downloads:
    """At most `max_downloads` at a time; blocking calls run in threads."""

    def __init__(self, service: Service) -> None:
        self._service, self._most = service, service.config.max_downloads
        self._running = 0
        self._threads = ThreadPoolExecutor(2 * self._most, "console")
        self._clients: TimedCache[Storage] = TimedCache(CLIENT_SECONDS, CLIENTS)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _blocking(self, call: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    async def respond(self, caller: Caller, namespace: str, name: str, *, raw: bool, head: bool) -> DownloadResponse:
        """Checks the right, opens the artifact and verifies its first bytes; HttpProblem if any of
        that fails."""
        service = self._service
        right = Right("get", BACKUPS, namespace, name, "download")
        await service.demand("download", caller, right, "DatabaseBackup", name)
        if self._running >= self._most:
            raise HttpProblem(503, "TooManyDownloads", f"{self._most} downloads are running already.", "Try again when one has ended.", 10)
        self._running += 1
        ending = contextlib.ExitStack()
        ending.callback(self._ended)
        try:
            backup = await service.object("DatabaseBackup", namespace, name)
            storage, directory, recorded_sha256 = await self._open(backup, namespace, name, ending)
            found: Download = await self._blocking(_open_artifact, name, storage, directory, recorded_sha256, raw)
            ending.callback(found.close)
            first = None if head else await self._blocking(next, found.chunks, None)
        except HttpProblem as problem:
            ending.close()
            service.audit("download", caller, "failed", "DatabaseBackup", namespace, name, reason=problem.message)
            raise
        except Failure as failure:
            ending.close()
            service.audit("download", caller, "failed", "DatabaseBackup", namespace, name, reason=f"{failure.reason.name}: {failure.message}")
            raise _explain(failure, name) from None
        except BaseException:
            ending.close()
            raise
        if head:
            ending.close()

        def audit(outcome: Outcome, reason: str = "") -> None:
            service.audit("download", caller, outcome, "DatabaseBackup", namespace, name, directory, reason)

        audit("allowed")
        return DownloadResponse(found, first, head, self._blocking, ending.close, audit)

    def _ended(self) -> None:
        self._running -= 1

    async def _open(self, backup: Raw, namespace: str, name: str, ending: contextlib.ExitStack) -> tuple[Storage, str, str | None]:
        """(storage, the artifact's directory in it, SHA-256 of its manifest)."""
        status, spec = backup.get("status") or {}, backup.get("spec") or {}
        artifact = status.get("artifact") or {}
        if status.get("phase") != "Completed" or not artifact.get("key"):
            phase, reason = status.get("phase") or "Pending", (status.get("failure") or {}).get("reason") or ""
            if phase == "Expired" or reason == "ArtifactMissing":
                raise HttpProblem(404, "ArtifactMissing", f"Backup {name} no longer has an artifact: it is {phase}.", "Choose another backup.")
            raise HttpProblem(
                409, "NotCompleted", f"Backup {name} is {phase}: there is nothing to download.", "Wait for it, or choose another backup."
            )
        if namespace not in self._service.config.download_namespaces:
            hint = f"Add {namespace} to the chart's `console.downloadNamespaces`, or use `{CLI} {name} -n {namespace}`."
            raise HttpProblem(403, "DownloadsNotEnabled", f"The console may not read the storage's credentials in namespace {namespace}.", hint)
        storage_name = (spec.get("storageRef") or {}).get("name") or "default"
        obj = await self._service.object("BackupStorage", namespace, storage_name)
        try:
            target = storage_target(storage_name, parse_storage(obj))
        except SpecError as error:
            raise HttpProblem(409, "InvalidSpec", f"BackupStorage {storage_name}: {error.message}", error.reason.hint) from None
        if artifact.get("bucket") not in (None, target.bucket) or artifact.get("endpoint", target.endpoint) != target.endpoint:
            raise HttpProblem(
                404,
                "ArtifactMissing",
                f"Backup {name} is in bucket {artifact.get('bucket')}, but BackupStorage {storage_name} names another bucket.",
                "",
            )
        if not target.credentials_secret:
            message = (
                f"BackupStorage {storage_name} names no credentials: its Jobs use the cloud identity of their pods, which the console does not have."
            )
            raise HttpProblem(403, "DownloadsNotEnabled", message, f"Use `{CLI} {name} -n {namespace}`.")
        keys = await self._secret(namespace, target.credentials_secret, target.access_key_id_key, target.secret_access_key_key)
        ca_file, client_key = None, hashlib.sha256(repr((target, keys)).encode()).digest()
        if target.ca_secret:
            (ca,) = await self._secret(namespace, target.ca_secret, target.ca_key)
            file = ending.enter_context(tempfile.NamedTemporaryFile("w", suffix=".pem"))  # noqa: SIM115 - read at each new connection
            file.write(ca)
            file.flush()
            ca_file = file.name
        storage = self._clients.get(client_key) if ca_file is None else None
        if storage is None:
            connected: Storage = await self._blocking(_connect, target, keys, ca_file)
            storage = connected
            if ca_file is None:  # the file with its CA is deleted after this download
                self._clients.put(client_key, storage)
        return storage, str(artifact["key"]), artifact.get("manifestSha256")

    async def _secret(self, namespace: str, name: str, *keys: str) -> tuple[str, ...]:
        try:
            secret = await self._service.kube.get(SECRETS, namespace, name)
        except ApiError as error:
            raise from_api(error, f"read Secret {name}") from None
        if secret is None:
            raise Failure("SecretMissing", f"Secret {name} does not exist in namespace {namespace}")
        data = secret.get("data") or {}
        try:
            values = tuple(base64.b64decode(data[key]).decode().rstrip("\r\n") for key in keys)
        except (KeyError, UnicodeDecodeError, binascii.Error):
            raise Failure("KeyMissing", f"Secret {name} lacks one of the keys {', '.join(keys)}") from None
        if not all(values):
            raise Failure("KeyMissing", f"Secret {name}: one of the keys {', '.join(keys)} is empty")
        return values


def _connect(target: StorageTarget, keys: tuple[str, ...], ca_file: str | None) -> Storage:
    from dbbackup.storage.s3 import connect_storage  # noqa: PLC0415 - botocore takes a third of the process' memory: load it for the first download

    return connect_storage(target, keys, ca_file)


def _open_artifact(name: str, storage: Storage, directory: str, recorded_sha256: str | None, raw: bool) -> Download:
    key = f"{directory}/{MANIFEST}"
    manifest = parse_manifest(storage.get(key, MANIFEST_LIMIT), key, recorded_sha256)
    return describe(name, manifest, storage, directory, raw=raw)


class DownloadResponse:
    """An ASGI response. If anything fails, it ends without its last bytes, and the server closes
    the connection."""

    def __init__(
        self,
        download: Download,
        first: bytes | memoryview | None,
        head: bool,
        blocking: Callable[..., asyncio.Future[Any]],
        close: Callable[[], None],
        audit: Callable[..., None],
    ) -> None:
        self._download, self._first, self._head = download, first, head
        self._blocking, self._close, self._audit = blocking, close, audit

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", self._download.media_type.encode()),
            (b"content-length", str(self._download.length).encode()),
            (b"content-disposition", f'attachment; filename="{self._download.filename}"'.encode()),
            (b"accept-ranges", b"none"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as ASGI calls it
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.headers()})
            if self._head:
                await send({"type": "http.response.body", "body": b""})
                return
            gone = asyncio.create_task(_gone(receive))
            try:
                await self._stream(send, gone)
            finally:
                gone.cancel()
        finally:
            self._close()

    async def _stream(self, send: Send, gone: asyncio.Task[None]) -> None:
        sent = 0
        try:
            async with contextlib.aclosing(self._ahead()) as chunks:
                async for chunk in chunks:
                    if gone.done():
                        self._audit("failed", f"the client disconnected after {sent} bytes")
                        return
                    sent += len(chunk)
                    _check_length(sent <= self._download.length, "longer")
                    async with asyncio.timeout(STALL_SECONDS):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
            _check_length(sent == self._download.length, "shorter")
            await send({"type": "http.response.body", "body": b""})
            self._audit("succeeded")
        except TimeoutError:
            self._audit("failed", f"the client read nothing for {STALL_SECONDS} s after {sent} bytes")
        except Failure as failure:
            log.warning("a download broke off", extra={"reason": failure.reason.name, "error": failure.message})
            self._audit("failed", f"{failure.reason.name}: {failure.message}")

    async def _ahead(self) -> AsyncGenerator[bytes | memoryview, None]:
        """The chunks; each is read while the one before it is sent."""
        if self._first is None:
            return
        following = self._blocking(next, self._download.chunks, None)
        try:
            yield self._first
            self._first = None
            while (chunk := await following) is not None:
                following = self._blocking(next, self._download.chunks, None)
                yield chunk
        finally:
            with contextlib.suppress(BaseException):  # a generator must not be closed while a thread runs it
                await asyncio.shield(following)


def _check_length(right: bool, otherwise: str) -> None:
    if not right:
        raise Failure("ArtifactCorrupt", f"the artifact is {otherwise} than its manifest says")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
