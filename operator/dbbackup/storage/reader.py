"""An artifact's bytes, in order, each part fetched ahead and held to its digest before any byte of
it is let through."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from dbbackup.contract.errors import Failure
from dbbackup.contract.manifest import StoredObject
from dbbackup.storage.base import Storage

MEMORY = 96 << 20
"""Bytes of parts held at most, unless two parts are more."""


class ArtifactReader:
    """Iterate it once: yields one verified part at a time, as bytes.

    Holds (prefetch + 1) parts in memory. Failure ArtifactCorrupt names the key and the part whose
    size or SHA-256 is not the manifest's (the whole's SHA-256 is compared at the end, unless
    `whole` is off: the parts' digests cover every byte already), ArtifactMissing the key that is
    not there. `close()` when it is not read to its end.
    """

    def __init__(self, storage: Storage, directory: str, stored: StoredObject, prefetch: int = 2, *, whole: bool = True) -> None:
        self._storage, self._stored, self._whole = storage, stored, whole
        self._key = f"{directory}/{stored.name}"
        largest = max((part.size for part in stored.parts), default=0)
        self._ahead = max(1, min(prefetch, MEMORY // max(largest, 1) - 1))
        self._pool: ThreadPoolExecutor | None = None
        self.bytes_read = 0

    def __iter__(self) -> Iterator[bytes]:
        self._pool = ThreadPoolExecutor(self._ahead, "download")
        try:
            yield from self._parts(self._pool)
        finally:
            self.close()

    def _parts(self, pool: ThreadPoolExecutor) -> Iterator[bytes]:
        parts, whole = self._stored.parts, hashlib.sha256()
        waiting: deque[Future[bytes]] = deque()
        start, following = 0, 0
        if not self._stored.size and self._storage.head(self._key) is None:
            raise Failure("ArtifactMissing", f"{self._key} is not in the bucket")
        while waiting or following < len(parts):
            while following < len(parts) and len(waiting) < self._ahead:
                waiting.append(pool.submit(self._fetch, following, start))
                start += parts[following].size
                following += 1
            data = waiting.popleft().result()
            if self._whole:
                whole.update(data)
            self.bytes_read += len(data)
            if data:
                yield data
            del data
        if self._whole and whole.hexdigest() != self._stored.sha256:
            raise Failure("ArtifactCorrupt", f"{self._key}: the SHA-256 of the whole is {whole.hexdigest()}, the manifest says {self._stored.sha256}")

    def _fetch(self, index: int, start: int) -> bytes:
        part = self._stored.parts[index]
        try:
            data = self._storage.get_range(self._key, start, part.size)
        except Failure as failure:
            if failure.reason.name in {"ArtifactCorrupt", "ArtifactMissing"}:
                raise Failure(failure.reason.name, f"part {index + 1} of {len(self._stored.parts)}: {failure.message}") from None
            raise
        digest = hashlib.sha256(data).hexdigest()
        if digest != part.sha256:
            raise Failure(
                "ArtifactCorrupt",
                f"{self._key}: part {index + 1} of {len(self._stored.parts)} ({part.size} bytes from {start} on) has SHA-256 {digest}, "
                f"the manifest says {part.sha256}",
            )
        return data

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
