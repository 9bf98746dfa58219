"""Reads an artifact's bytes in order. Parts are fetched ahead, and each is checked against its
digest before any byte of it is yielded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial

from dbbackup.contract.errors import Failure
from dbbackup.contract.manifest import StoredObject
from dbbackup.storage.base import Storage
from dbbackup.storage.read_ahead import ReadAhead

MEMORY = 96 << 20
"""Maximum bytes of parts in memory, unless two parts are larger."""


class ArtifactReader:
    """Iterate it once: yields one verified part at a time, as bytes.

    Holds (prefetch + 1) parts in memory. Raises Failure ArtifactCorrupt with the key and the part
    whose size or SHA-256 differs from the manifest, and ArtifactMissing with the key that does not
    exist. At the end the SHA-256 of the whole is compared too, unless `whole` is off: the parts'
    digests cover every byte already. Call `close()` when it is not read to its end.
    """

    def __init__(self, storage: Storage, directory: str, stored: StoredObject, prefetch: int = 2, *, whole: bool = True) -> None:
        self._storage, self._stored, self._whole = storage, stored, whole
        self._key = f"{directory}/{stored.name}"
        largest = max((part.size for part in stored.parts), default=0)
        ahead = max(1, min(prefetch, MEMORY // max(largest, 1) - 1))
        self._parts = ReadAhead(self._tasks(), threads=ahead, ahead=ahead, name="download")
        self.bytes_read = 0

    def __iter__(self) -> Iterator[bytes]:
        whole = hashlib.sha256()
        try:
            if not self._stored.size and self._storage.head(self._key) is None:
                raise Failure("ArtifactMissing", f"{self._key} does not exist in the bucket")
            for data in self._parts:
                if self._whole:
                    whole.update(data)
                self.bytes_read += len(data)
                if data:
                    yield data
                del data  # before the next part is waited for: it holds memory
        finally:
            self.close()
        if self._whole and whole.hexdigest() != self._stored.sha256:
            raise Failure("ArtifactCorrupt", f"{self._key}: the SHA-256 of the whole is {whole.hexdigest()}, the manifest says {self._stored.sha256}")

    def _tasks(self) -> Iterator[Callable[[], bytes]]:
        start = 0
        for index, part in enumerate(self._stored.parts):
            yield partial(self._fetch, index, start)
            start += part.size

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
        self._parts.close()
