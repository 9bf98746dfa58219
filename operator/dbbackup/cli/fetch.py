"""An artifact from the transfer pod onto this machine. Nothing counts before its digest held, and a
file has its own name only once it is whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

from dbbackup.cli.decompress import decompress
from dbbackup.cli.errors import CliError, ExitCode
from dbbackup.cli.transfer import BrokenError, Patience, Transfer

CHUNK = 1 << 20
FORMAT_VERSION = 1
Tell: TypeAlias = Callable[[int], object]
"""Is called with how many bytes have come; fewer than none where they must come again."""
HAND_OUT = "Its manifest in the bucket is not as a backup writes it: do not restore it. Is there an older backup?"


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a manifest says. `parts` are (bytes, SHA-256) of consecutive ranges of the stored
    object."""

    key: str
    name: str
    size: int
    sha256: str
    parts: tuple[tuple[int, str], ...]
    compression: str
    format: str
    dump_bytes: int
    document: dict[str, Any]

    @property
    def extension(self) -> str:
        return ".dump" if self.format == "custom" else ".sql"


def parse(data: bytes, key: str, pinned: str | None = None) -> Artifact:
    """The manifest's artifact; CliError CORRUPT where it is not the one that the backup's status
    records, or cannot be used."""
    if pinned is not None and hashlib.sha256(data).hexdigest() != pinned:
        message = f"{key}/manifest.json has SHA-256 {hashlib.sha256(data).hexdigest()}, the backup recorded {pinned}"
        raise CliError(message, ExitCode.CORRUPT, "Somebody has changed it since. " + HAND_OUT, "ManifestDigestMismatch")
    try:
        told = json.loads(data)
        version = int(told["formatVersion"])
        if version > FORMAT_VERSION or told.get("encrypted") or len(told["objects"]) != 1:
            raise CliError(f"{key}: its format is newer than this plugin", ExitCode.FAILED, "Use a newer plugin, or --raw.", "FormatUnsupported")
        [stored] = told["objects"]
        parts = tuple((int(part["size"]), str(part["sha256"])) for part in stored["parts"])
        found = Artifact(
            key=key,
            name=str(stored["name"]),
            size=int(stored["size"]),
            sha256=str(stored["sha256"]),
            parts=parts,
            compression=str(told["compression"]),
            format=str(told["format"]),
            dump_bytes=int(told["dumpBytes"]),
            document=told,
        )
    except (KeyError, TypeError, ValueError) as error:
        message = f"{key}/manifest.json cannot be read: {type(error).__name__} {error}"
        raise CliError(message, ExitCode.CORRUPT, HAND_OUT, "ManifestInvalid") from None
    plain = found.compression != "none" or found.size == found.dump_bytes
    if sum(size for size, _ in parts) != found.size or "/" in found.name or not plain:
        raise CliError(f"{key}/manifest.json: the parts do not add up to the artifact", ExitCode.CORRUPT, HAND_OUT, "ManifestInvalid")
    return found


def manifest(transfer: Transfer, key: str, pinned: str | None = None) -> Artifact:
    return parse(transfer.whole("/v1/manifest", key=key), key, pinned)


class Sink(Protocol):
    """Takes the bytes of one part."""

    def have(self) -> int: ...
    def write(self, data: bytes) -> None: ...
    def restart(self) -> None: ...


class Held:
    """In memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    def have(self) -> int:
        return len(self.data)

    def write(self, data: bytes) -> None:
        self.data += data

    def restart(self) -> None:
        self.data.clear()


class Placed:
    """In a file, from `start` on up to where it is written next. What lies behind that is of an
    earlier try."""

    def __init__(self, file: IO[bytes], start: int) -> None:
        self._file, self._start = file, start

    def have(self) -> int:
        return self._file.tell() - self._start

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def restart(self) -> None:
        self._file.seek(self._start)


def stored_parts(transfer: Transfer, artifact: Artifact, tell: Tell) -> Iterator[bytes]:
    """The stored artifact part by part, each after its digest held."""
    start = 0
    for index, (size, _) in enumerate(artifact.parts):
        sink = Held()
        _fetch(transfer, artifact, index, start, sink, hashlib.sha256(), tell)
        yield bytes(sink.data)
        start += size


def _fetch(transfer: Transfer, artifact: Artifact, index: int, start: int, sink: Sink, digest: Any, tell: Tell) -> None:
    """What the sink lacks of the part; `digest` is over what it has. A part whose digest does not
    hold is fetched once more, whole, before the artifact is blamed: CliError CORRUPT."""
    size, wanted = artifact.parts[index]
    _fill(transfer, artifact, start, size, sink, digest, tell)
    if digest.hexdigest() == wanted:
        return
    tell(-size)
    sink.restart()
    digest = hashlib.sha256()
    _fill(transfer, artifact, start, size, sink, digest, tell)
    if digest.hexdigest() != wanted:
        found = f"part {index + 1} of {len(artifact.parts)} has SHA-256 {digest.hexdigest()}, the manifest says {wanted}"
        hint = "The artifact in the bucket is damaged: take an older backup. A restore of this one would be refused too."
        raise CliError(f"{artifact.key}/{artifact.name}: {found}", ExitCode.CORRUPT, hint, "ArtifactCorrupt")


def _fill(transfer: Transfer, artifact: Artifact, start: int, size: int, sink: Sink, digest: Any, tell: Tell) -> None:
    def more() -> None:
        if sink.have() >= size:
            return
        wanted = {"Range": f"bytes={start + sink.have()}-{start + size - 1}"}
        with transfer.stream("/v1/artifact", {"key": artifact.key}, wanted) as read:
            while (left := size - sink.have()) > 0:
                data = read(left)
                if not data:
                    raise BrokenError(f"the connection ended {left} bytes too early")
                sink.write(data)
                digest.update(data)
                tell(len(data))

    transfer.retried(more, sink.have)


def to_file(transfer: Transfer, artifact: Artifact, part: Path, tell: Tell) -> None:
    """The stored artifact in the file `part`, whole and checked. What an earlier try left there
    counts as far as its digests hold."""
    whole, start = hashlib.sha256(), 0
    part.touch(0o600)
    with part.open("r+b") as file:
        for index, (size, wanted) in enumerate(artifact.parts):
            digest = hashlib.sha256()
            have = _hash(file, start, size, digest)
            if have == size and digest.hexdigest() != wanted:  # not of this artifact, or from a file system that was full
                digest, have = hashlib.sha256(), 0
            tell(have)
            if have < size:
                file.seek(start + have)
                _fetch(transfer, artifact, index, start, Placed(file, start), digest, tell)
                file.flush()
            _hash(file, start, size, whole)
            start += size
        file.truncate(start)
        os.fsync(file.fileno())
    if whole.hexdigest() != artifact.sha256:
        message = f"{artifact.key}/{artifact.name}: the SHA-256 of the whole is {whole.hexdigest()}, the manifest says {artifact.sha256}"
        raise CliError(message, ExitCode.CORRUPT, HAND_OUT, "ArtifactCorrupt")


def _hash(file: IO[bytes], start: int, size: int, digest: Any) -> int:
    file.seek(start)
    done = 0
    while done < size and (data := file.read(min(CHUNK, size - done))):
        digest.update(data)
        done += len(data)
    return done


def unpacked(artifact: Artifact, stored: Iterator[bytes]) -> Iterator[bytes]:
    """The dump, whose length must be the manifest's."""
    done = 0
    for data in decompress(artifact.compression, stored):
        done += len(data)
        yield data
    if done != artifact.dump_bytes:
        raise CliError(
            f"{artifact.key}: the dump has {done} bytes, its manifest says {artifact.dump_bytes}", ExitCode.CORRUPT, HAND_OUT, "ArtifactCorrupt"
        )


def framed(transfer: Transfer, artifact: Artifact, digest: Any, have: int, tell: Tell) -> Iterator[bytes]:
    """The dump from byte `have` on, decompressed in the pod; `digest` is over what is there
    already. Each frame is checked, and the whole at its end: CliError CORRUPT where what was there
    is not the beginning of it."""
    reached, patience = have, Patience(transfer, have)
    while True:
        try:
            with transfer.stream("/v1/sql", {"key": artifact.key, "from": str(reached)}, {}) as read:
                while (frame := _frame(read))[0]:
                    data = frame[0]
                    digest.update(data)
                    reached += len(data)
                    tell(len(data))
                    yield data
            break
        except BrokenError as error:
            patience.broken(error, reached)
    if digest.digest() != frame[1] or reached != artifact.dump_bytes:
        raise CliError(f"{artifact.key}: what has come is not the dump", ExitCode.CORRUPT, "Remove the .part file and run the command again.")


def _frame(read: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    """The data of the next frame, nothing at the end, and its digest."""
    head = _exactly(read, 36)
    data = _exactly(read, int.from_bytes(head[:4], "big"))
    if data and hashlib.sha256(data).digest() != head[4:]:
        raise BrokenError("a frame arrived damaged")
    return data, head[4:]


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = read(size - len(data))
        if not more:
            raise BrokenError("the connection ended too early")
        data += more
    return bytes(data)
