"""Reads an artifact as pieces of SQL: fetched ahead, each part verified, decompressed, split. In
bounded memory: only the consumer's iteration moves it on.

`format: custom` passes through `pg_restore -f -`, which is a filter here and never connects to a
server, so that both formats reach the server the same way.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from dbbackup.contract.errors import Failure, ReasonName
from dbbackup.contract.manifest import Manifest
from dbbackup.dataplane.postgres.pipes import read_chunks, widen
from dbbackup.dataplane.postgres.table_patterns import matching_names
from dbbackup.dataplane.sql.filter import Filter
from dbbackup.dataplane.sql.splitter import Piece, Splitter, SqlError
from dbbackup.storage.base import Storage
from dbbackup.storage.codec import decompress
from dbbackup.storage.reader import ArtifactReader

if TYPE_CHECKING:
    from dbbackup.dataplane.context import Stop

_STDERR = 8192
_END_SECONDS = 20.0
_BAD_ARCHIVE = re.compile(
    r"\Apg_restore: error: (?:could not read from input file: end of file|input file |did not find magic string |unexpected end of file"
    r"|found unexpected block ID |unrecognized data block type |entry ID \S+ out of range |could not uncompress data: )"
)


class ArtifactSource:
    """One pass over an artifact. `argv` is the pg_restore command for a custom one. `whole` demands
    that every byte was read and compared with its digest."""

    def __init__(self, storage: Storage, directory: str, manifest: Manifest, stop: Stop, argv: Sequence[str] = (), *, whole: bool = True) -> None:
        self._reader = ArtifactReader(storage, directory, manifest.artifact)
        self._name = f"{directory}/{manifest.artifact.name}"
        self._manifest = manifest
        self._stop = stop
        self._whole = whole
        self._argv = argv
        self._restorer: PgRestore | None = None
        self.finished = False

    @property
    def bytes_read(self) -> int:
        return self._reader.bytes_read

    def chunks(self) -> Iterator[bytes]:
        """The artifact uncompressed."""
        return decompress(self._manifest.compression, self._reader, self._name)

    def pieces(self) -> Iterator[Piece]:
        """The artifact as SQL. `finished` becomes True when the iterator ends, and only then: every
        check of the artifact has passed."""
        splitter = Splitter()
        excluded = self._manifest.options.exclude_extensions or ()
        rules = Filter(stored=False, leaves_out=lambda name: any(matching_names(pattern, [name]) for pattern in excluded)) if self._argv else None
        try:
            for chunk in self._sql():
                self._stop.check()
                for piece in splitter.feed(chunk):
                    yield from _filtered(rules, piece)
            for piece in splitter.finish():
                yield from _filtered(rules, piece)
        except SqlError as error:
            raise Failure("ArtifactCorrupt", f"{self._name}: {error}") from None
        self.finished = True

    def _sql(self) -> Iterator[bytes]:
        if not self._argv:
            yield from self.chunks()
            return
        self._restorer = PgRestore(self._argv, self.chunks(), self._name, drain=self._whole)
        with self._stop.calling(self._restorer.kill):
            yield from self._restorer.output()

    def close(self) -> None:
        """Ends pg_restore and the download, at any point."""
        if self._restorer:
            self._restorer.close()
        self._reader.close()


def _filtered(rules: Filter | None, piece: Piece) -> Iterator[Piece]:
    """Applies the rules of the backup's filter: a custom archive is stored as pg_dump made it, so
    they were not applied then."""
    data = piece.data if rules is None else rules.apply(piece)
    if data is piece.data:
        yield piece
    elif data:
        again = Splitter()
        yield from again.feed(data)
        yield from again.finish()


class PgRestore:
    """pg_restore between two pipes: a thread feeds it the archive, the caller reads its output.

    The archive's own failure is raised rather than pg_restore's, which only follows from it. With
    `drain` the archive is read to its end even when pg_restore needs no more of it, so that all its
    digests are compared.
    """

    def __init__(self, argv: Sequence[str], archive: Iterator[bytes], name: str, *, drain: bool) -> None:
        self._archive = archive
        self._name = name
        self._program = Path(argv[0]).name
        self._drain = drain
        self._failure: BaseException | None = None
        self._ended = False
        environment = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, close_fds=True, start_new_session=True
        )
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                widen(pipe.fileno())
        self._stderr = bytearray()
        self._feeder = threading.Thread(target=self._feed, name="archive", daemon=True)
        self._errors = threading.Thread(target=self._listen, name="pg_restore-stderr", daemon=True)
        self._feeder.start()
        self._errors.start()

    def _feed(self) -> None:
        pipe = self._process.stdin
        try:
            for chunk in self._archive:
                if self._ended:
                    return
                if pipe is not None:
                    try:
                        pipe.write(chunk)
                    except BrokenPipeError:
                        pipe = None  # pg_restore needs no more, or it failed: its exit code shows which
                        if not self._drain:
                            return
        except BaseException as error:  # noqa: BLE001  raised again by the thread that reads
            self._failure = error
            self._process.kill()
        finally:
            with suppress(BrokenPipeError):
                if self._process.stdin:
                    self._process.stdin.close()

    def _listen(self) -> None:
        while data := _read(self._process.stderr, 4096):
            if len(self._stderr) < _STDERR:
                self._stderr += data

    def output(self) -> Iterator[bytes]:
        """The output of pg_restore; Failure where it, or the archive, did not end cleanly."""
        if self._process.stdout:
            yield from read_chunks(self._process.stdout.fileno())
        code = self._process.wait()
        self._feeder.join()
        self._errors.join(_END_SECONDS)
        if self._failure:
            raise self._failure
        if code:
            raise self._refusal(code)

    def _refusal(self, code: int) -> Failure:
        said = self._stderr.decode("utf-8", "replace")
        ended = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
        text = " ".join(said.split())[:600] or "no error output"
        return Failure(pg_restore_reason(code, said), f"{self._name}: {self._program} {ended}: {text}")

    def kill(self) -> None:
        """Ends pg_restore at once; safe at any time, from any thread."""
        self._ended = True
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        self._feeder.join(1.0)
        self._errors.join(1.0)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()


def _read(pipe: IO[bytes] | None, size: int) -> bytes:
    """The bytes that are ready, at most `size`; empty at the end."""
    return os.read(pipe.fileno(), size) if pipe else b""


def pg_restore_reason(code: int, said: str) -> ReasonName:
    """Pure. All that pg_restore reads has passed its check, so a failure is the archive's only
    where pg_restore itself says so."""
    if code == -signal.SIGKILL:
        return "OutOfMemory"
    return "ArtifactCorrupt" if code > 0 and _BAD_ARCHIVE.search(said) else "RestoreFailed"
