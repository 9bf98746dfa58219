"""Downloads an artifact from a serving pod. No byte counts before its digest was checked, and a
file gets its final name only when it is complete."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

from dbbackup.cli.decompress import decompress
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.pod_client import BrokenError, PodClient, Retries
from dbbackup.contract import wire

FORMAT_VERSION = 1
OnBytes: TypeAlias = Callable[[int], object]
"""Called with the number of bytes that arrived; a negative number if they must be fetched again."""
DO_NOT_RESTORE = "Its manifest in the bucket is not what a backup writes: do not restore it. Is there an older backup?"


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artifact in the bucket, as its manifest describes it. `parts` are (bytes, SHA-256) of
    consecutive ranges of the stored object."""

    key: str
    name: str
    size: int
    sha256: str
    parts: tuple[tuple[int, str], ...]
    compression: str
    format: str
    dump_bytes: int

    @property
    def extension(self) -> str:
        return ".dump" if self.format == "custom" else ".sql"


def parse(data: bytes, key: str, recorded_sha256: str | None = None) -> StoredArtifact:
    """The manifest's artifact. CliError CORRUPT if the manifest cannot be used, or is not the one
    whose SHA-256 the backup's status recorded."""
    if recorded_sha256 is not None and hashlib.sha256(data).hexdigest() != recorded_sha256:
        message = f"{key}/manifest.json has SHA-256 {hashlib.sha256(data).hexdigest()}, the backup recorded {recorded_sha256}"
        raise CliError(message, CliExit.CORRUPT, "It was changed after the backup. " + DO_NOT_RESTORE, "ManifestDigestMismatch")
    try:
        document = json.loads(data)
        version = int(document["formatVersion"])
        if version > FORMAT_VERSION or document.get("encrypted") or len(document["objects"]) != 1:
            raise CliError(f"{key}: its format is newer than this plugin", CliExit.FAILED, "Use a newer plugin, or --raw.", "FormatUnsupported")
        [stored] = document["objects"]
        parts = tuple((int(part["size"]), str(part["sha256"])) for part in stored["parts"])
        found = StoredArtifact(
            key=key,
            name=str(stored["name"]),
            size=int(stored["size"]),
            sha256=str(stored["sha256"]),
            parts=parts,
            compression=str(document["compression"]),
            format=str(document["format"]),
            dump_bytes=int(document["dumpBytes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        message = f"{key}/manifest.json cannot be read: {type(error).__name__} {error}"
        raise CliError(message, CliExit.CORRUPT, DO_NOT_RESTORE, "ManifestInvalid") from None
    plain = found.compression != "none" or found.size == found.dump_bytes
    if sum(size for size, _ in parts) != found.size or "/" in found.name or not plain:
        raise CliError(f"{key}/manifest.json: the parts do not add up to the artifact", CliExit.CORRUPT, DO_NOT_RESTORE, "ManifestInvalid")
    return found


def manifest(client: PodClient, key: str, recorded_sha256: str | None = None) -> StoredArtifact:
    return parse(client.whole(wire.MANIFEST, **{wire.KEY: key}), key, recorded_sha256)


class PartTarget(Protocol):
    """Where the bytes of one part are written. `have` is how many are there."""

    def have(self) -> int: ...
    def write(self, data: bytes) -> None: ...
    def restart(self) -> None: ...


class MemoryPart:
    """A part in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    def have(self) -> int:
        return len(self.data)

    def write(self, data: bytes) -> None:
        self.data += data

    def restart(self) -> None:
        self.data.clear()


class FilePart:
    """A part in a file, from `start` up to the current position. What follows is left from an
    earlier try."""

    def __init__(self, file: IO[bytes], start: int) -> None:
        self._file, self._start = file, start

    def have(self) -> int:
        return self._file.tell() - self._start

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def restart(self) -> None:
        self._file.seek(self._start)


def stored_parts(client: PodClient, artifact: StoredArtifact, on_bytes: OnBytes) -> Iterator[bytes]:
    """The stored artifact part by part; each is yielded after its digest was checked."""
    start = 0
    for index, (size, _) in enumerate(artifact.parts):
        target = MemoryPart()
        _fetch(client, artifact, index, start, target, hashlib.sha256(), on_bytes)
        yield bytes(target.data)
        start += size


def _fetch(client: PodClient, artifact: StoredArtifact, index: int, start: int, target: PartTarget, digest: Any, on_bytes: OnBytes) -> None:
    """Fetches what the target lacks of the part; `digest` covers what it has. If the part's digest
    is wrong, the whole part is fetched once more; if it is wrong again, the artifact is damaged:
    CliError CORRUPT."""
    size, wanted = artifact.parts[index]
    _fill(client, artifact, start, size, target, digest, on_bytes)
    if digest.hexdigest() == wanted:
        return
    on_bytes(-size)
    target.restart()
    digest = hashlib.sha256()
    _fill(client, artifact, start, size, target, digest, on_bytes)
    if digest.hexdigest() != wanted:
        found = f"part {index + 1} of {len(artifact.parts)} has SHA-256 {digest.hexdigest()}, the manifest says {wanted}"
        hint = "The artifact in the bucket is damaged: take an older backup. A restore of this one would be refused too."
        raise CliError(f"{artifact.key}/{artifact.name}: {found}", CliExit.CORRUPT, hint, "ArtifactCorrupt")


def _fill(client: PodClient, artifact: StoredArtifact, start: int, size: int, target: PartTarget, digest: Any, on_bytes: OnBytes) -> None:
    def more() -> None:
        if target.have() >= size:
            return
        missing = {"Range": wire.range_header(start + target.have(), start + size)}
        with client.stream(wire.ARTIFACT, {wire.KEY: artifact.key}, missing) as read:
            while (left := size - target.have()) > 0:
                data = read(left)
                if not data:
                    raise BrokenError(f"the connection ended {left} bytes too early")
                target.write(data)
                digest.update(data)
                on_bytes(len(data))

    client.retried(more, target.have)


def to_file(client: PodClient, artifact: StoredArtifact, part: Path, on_bytes: OnBytes) -> None:
    """Writes the whole stored artifact to the file `part`, checked. Parts that an earlier try left
    there are kept if their digests are right."""
    whole, start = hashlib.sha256(), 0
    part.touch(0o600)
    with part.open("r+b") as file:
        for index, (size, wanted) in enumerate(artifact.parts):
            digest = hashlib.sha256()
            have = _hash(file, start, size, digest)
            if have == size and digest.hexdigest() != wanted:  # of another artifact, or cut short by a full file system
                digest, have = hashlib.sha256(), 0
            on_bytes(have)
            if have < size:
                file.seek(start + have)
                _fetch(client, artifact, index, start, FilePart(file, start), digest, on_bytes)
                file.flush()
            _hash(file, start, size, whole)
            start += size
        file.truncate(start)
        os.fsync(file.fileno())
    if whole.hexdigest() != artifact.sha256:
        message = f"{artifact.key}/{artifact.name}: the SHA-256 of the whole is {whole.hexdigest()}, the manifest says {artifact.sha256}"
        raise CliError(message, CliExit.CORRUPT, DO_NOT_RESTORE, "ArtifactCorrupt")


def _hash(file: IO[bytes], start: int, size: int, digest: Any) -> int:
    file.seek(start)
    done = 0
    while done < size and (data := file.read(min(wire.CHUNK, size - done))):
        digest.update(data)
        done += len(data)
    return done


def unpacked(artifact: StoredArtifact, stored: Iterator[bytes]) -> Iterator[bytes]:
    """The dump; CliError CORRUPT if its length is not the manifest's."""
    done = 0
    for data in decompress(artifact.compression, stored):
        done += len(data)
        yield data
    if done != artifact.dump_bytes:
        raise CliError(
            f"{artifact.key}: the dump has {done} bytes, its manifest says {artifact.dump_bytes}", CliExit.CORRUPT, DO_NOT_RESTORE, "ArtifactCorrupt"
        )


def framed(client: PodClient, artifact: StoredArtifact, digest: Any, have: int, on_bytes: OnBytes) -> Iterator[bytes]:
    """The dump from byte `have` on, decompressed in the pod; `digest` covers what is here already.
    Each frame is checked, and the whole at its end: CliError CORRUPT if what was here is not the
    beginning of the dump."""
    reached, retries = have, Retries(client, have)
    while True:
        try:
            with client.stream(wire.SQL, {wire.KEY: artifact.key, wire.FROM: str(reached)}, {}) as read:
                while (frame := wire.read_frame(read))[0]:
                    data = frame[0]
                    digest.update(data)
                    reached += len(data)
                    on_bytes(len(data))
                    yield data
            break
        except (BrokenError, wire.DamagedError) as error:
            retries.failed(error, reached)
    if digest.digest() != frame[1] or reached != artifact.dump_bytes:
        raise CliError(f"{artifact.key}: what has arrived is not the dump", CliExit.CORRUPT, "Remove the .part file and run the command again.")
