"""Writes an artifact's chunks to the bucket: SHA-256 of each part and of the whole, parallel
uploads, bounded memory. The object is visible only after `commit()`."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from dbbackup.contract.errors import Failure
from dbbackup.contract.manifest import Part, StoredObject
from dbbackup.storage.base import Storage, Upload

PART_SIZE = 8 << 20
MAX_PARTS = 10_000
PLANNED_PARTS = 6_000
"""Number of parts that the expected size should fill. The next STEP parts are twice as large, and
so on: a wrong guess costs memory, not the backup."""
STEP = 500
MEMORY = 96 << 20
"""Maximum bytes of parts in memory, unless two parts are larger."""


def part_size(number: int, expected_bytes: int | None) -> int:
    """Bytes of part `number` (from 1): a whole MiB, at least PART_SIZE."""
    planned = -(-(expected_bytes or 0) // PLANNED_PARTS)
    base = max(PART_SIZE, -(-planned // (1 << 20)) << 20)
    return base << max(0, -(-(number - PLANNED_PARTS) // STEP))


class ArtifactWriter:
    """One object of an artifact. `write`, `commit` and `abort` are called from one thread; parts
    are uploaded by `workers` others.

    In memory are `workers` parts in flight, one that waits and one being filled; fewer where these
    would be more than MEMORY. An artifact of one part is a single PUT at commit. `expected_bytes`
    is a guess of the stored size. Beyond `max_size` bytes `write` raises Failure ArtifactTooLarge.
    The error of an upload thread is raised by the next `write` or by `commit`. `if_absent`: see
    `Storage.put`. After any failure call `abort`, which leaves nothing in the bucket and may be
    called at any time.
    """

    def __init__(
        self,
        storage: Storage,
        key: str,
        *,
        expected_bytes: int | None = None,
        max_size: int | None = None,
        workers: int = 3,
        content_type: str = "application/octet-stream",
        if_absent: bool = False,
    ) -> None:
        self._storage, self._key, self._content_type, self._if_absent = storage, key, content_type, if_absent
        self._expected, self._max_size, self._workers = expected_bytes, max_size, workers
        self._limit = part_size(1, expected_bytes)
        self._buffer, self._filled = bytearray(self._limit), 0
        self._parts: list[Part | None] = []
        self._size = 0
        self._whole = hashlib.sha256()
        self._upload: Upload | None = None
        self._senders = ThreadPoolExecutor(workers, "upload")
        self._hasher = ThreadPoolExecutor(1, "digest")
        self._slots = self._slots_for(self._limit)
        self._room = threading.Semaphore(self._slots)
        self._error: BaseException | None = None
        self._stored = 0
        self._lock = threading.Lock()
        self._state = "open"

    @property
    def bytes_stored(self) -> int:
        """Bytes that the storage has acknowledged."""
        return self._stored

    def _slots_for(self, size: int) -> int:
        """Full parts in memory in addition to the one being filled."""
        return max(1, min(self._workers + 1, MEMORY // size - 1))

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        if self._error is not None:
            raise self._error
        view = memoryview(chunk)
        self._size += len(view)
        if self._max_size is not None and self._size > self._max_size:
            raise Failure("ArtifactTooLarge", f"{self._key}: the artifact outgrew maxArtifactSize ({self._max_size} bytes)")
        while view:
            if self._filled == self._limit:
                self._send()
            taken = min(len(view), self._limit - self._filled)
            self._buffer[self._filled : self._filled + taken] = view[:taken]
            self._filled += taken
            view = view[taken:]

    def _send(self, *, more: bool = True) -> None:
        """Hands the full buffer over; waits while all slots are taken."""
        if self._upload is None:
            self._upload = self._storage.start_upload(self._key, self._content_type, if_absent=self._if_absent)
        self._room.acquire()
        if self._error is not None:
            self._room.release()
            raise self._error
        part = memoryview(self._buffer)[: self._filled]
        self._parts.append(None)
        number = len(self._parts)
        if number > MAX_PARTS:
            raise Failure("ArtifactTooLarge", f"{self._key}: more than {MAX_PARTS} parts")
        hashed = self._hasher.submit(self._whole.update, part)
        self._senders.submit(self._send_part, self._upload, number, part, hashed)
        self._limit = part_size(number + 1, self._expected)
        while more and self._slots > self._slots_for(self._limit):
            self._room.acquire()
            self._slots -= 1
        self._buffer, self._filled = bytearray(self._limit if more else 0), 0

    def _send_part(self, upload: Upload, number: int, data: memoryview, hashed: Future[None]) -> None:
        try:
            if self._error is None:
                self._parts[number - 1] = Part(size=len(data), sha256=hashlib.sha256(data).hexdigest())
                upload.part(number, data)
                with self._lock:
                    self._stored += len(data)
            hashed.result()
        except BaseException as error:  # noqa: BLE001 - raised again by the next write or by commit
            with self._lock:
                self._error = self._error or error
        finally:
            self._room.release()

    def commit(self) -> StoredObject:
        """Makes the object visible and returns its digests; its `name` is the last component of the
        key."""
        if self._error is None and self._upload is not None:
            self._send(more=False)
            self._drain()
        if self._error is not None:
            raise self._error
        self._state = "committing"
        try:
            stored = self._commit()
        except BaseException as error:
            self._error = error
            raise
        self._state = "committed"
        self._drain()
        self._buffer, self._filled = bytearray(), 0
        return stored

    def _commit(self) -> StoredObject:
        name = self._key.rpartition("/")[2]
        if self._upload is not None:
            self._upload.complete()
            return StoredObject(name=name, size=self._size, sha256=self._whole.hexdigest(), parts=tuple(part for part in self._parts if part))
        body = bytes(memoryview(self._buffer)[: self._filled])
        digest = hashlib.sha256(body).hexdigest()
        self._storage.put(self._key, body, self._content_type, if_absent=self._if_absent)
        self._stored = len(body)
        return StoredObject(name=name, size=len(body), sha256=digest, parts=(Part(size=len(body), sha256=digest),))

    def cancel(self) -> None:
        """From any thread: parts stop waiting for an unreachable server at once, and the next
        `write` or `commit` raises Failure Terminated. `abort` must still follow."""
        with self._lock:
            self._error = self._error or Failure("Terminated", f"the upload of {self._key} was aborted")
        if self._upload is not None:
            self._upload.cancel()

    def abort(self) -> None:
        """Leaves nothing in the bucket. Does nothing after a successful `commit`, as the object is
        the caller's then, nor after a commit that was refused, as the object is another attempt's.
        Failure where the server can't be reached: it may be called again."""
        if self._state in {"committed", "aborted"}:
            return
        refused = isinstance(self._error, Failure) and (self._error.reason.name == "ArtifactExists" or not self._error.reason.retryable)
        self.cancel()
        self._drain()
        if self._upload is not None:
            self._upload.abort()
        if self._state == "committing" and not refused:  # it may have taken effect although its reply was lost
            self._storage.delete([self._key])
        self._buffer, self._filled = bytearray(), 0
        self._state = "aborted"

    def _drain(self) -> None:
        self._senders.shutdown()
        self._hasher.shutdown()
