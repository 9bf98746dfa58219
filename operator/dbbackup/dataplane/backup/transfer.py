"""Moves a dump from the snapshot into one stored object, counts its rows and reports progress."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from dbbackup.contract.errors import Failure
from dbbackup.contract.manifest import StoredObject
from dbbackup.contract.report import Progress
from dbbackup.contract.run import BackupOptions
from dbbackup.dataplane.backup import row_counts
from dbbackup.dataplane.backup.dump import PgDump, pg_dump_arguments
from dbbackup.dataplane.backup.plain_stream import PlainStream
from dbbackup.dataplane.backup.row_counts import ArchiveCounter
from dbbackup.dataplane.backup.snapshot import Relation, Snapshot, SourceDescription
from dbbackup.dataplane.context import Run
from dbbackup.dataplane.postgres.clients import Client
from dbbackup.dataplane.postgres.connection import child_environment
from dbbackup.dataplane.postgres.conninfo import Conninfo
from dbbackup.dataplane.postgres.encoding import server_encoding
from dbbackup.dataplane.postgres.locks import cancel
from dbbackup.dataplane.sql.archive_toc import TocEntry, TocError, TocScan, UnknownVersion
from dbbackup.dataplane.sql.encodings import codec_of, named
from dbbackup.storage.base import Storage
from dbbackup.storage.codec import CONTENT_TYPE, compressor
from dbbackup.storage.sink import Sink
from dbbackup.storage.writer import ArtifactWriter
from dbbackup.text import listed

ATTEMPTS = 3
"""Maximum number of snapshots, where a statement that wants an exclusive lock comes between the
coordinator's locks and pg_dump's."""


class DumpTransfer:
    """One dump into one stored object. After `run`, `rows` holds the rows of each table that the
    dump fills, `uncounted` those that are not known, and `entries` a custom archive's contents."""

    def __init__(self, run: Run, info: Conninfo, options: BackupOptions, storage: Storage, key: str) -> None:
        self._run = run
        self._info = info
        self._options = options
        self._storage = storage
        self._key = key
        self.rows: dict[row_counts.Key, int] = {}
        self.uncounted: list[row_counts.Key] = []
        self.entries: list[TocEntry] = []
        self.bytes = 0
        """Size of the uncompressed artifact."""

    def run(self, snapshot: Snapshot, client: Client) -> tuple[StoredObject, SourceDescription]:
        for attempt in range(1, ATTEMPTS + 1):
            snapshot.take()
            try:
                with self._dumping(snapshot, client) as dump:  # it begins while we read the catalogs
                    source = snapshot.describe()
                    self._warn(snapshot, source)
                    stored = self._store(dump, snapshot)
                return stored, source
            except _LockedOut as locked:
                if attempt == ATTEMPTS:
                    raise locked.failure from None
                self._run.reporter.info(
                    "another session waits for an exclusive lock, so pg_dump could not lock a table; "
                    f"trying again with a new snapshot ({locked.failure.message})"
                )
        raise AssertionError

    def _warn(self, snapshot: Snapshot, source: SourceDescription) -> None:
        if snapshot.standby and (unlogged := [".".join(r.key) for r in snapshot.selection.relations if r.unlogged]):
            self._run.warn(f"a standby has no rows of unlogged tables, so the dump lacks the rows of {listed(unlogged, 20)}")
        if outside := source.contents.outside:
            self._run.warn(
                f"dumped objects refer to objects that are left out, so the target of a restore must hold these already: {listed(outside, 20)}"
            )
        if closed := source.closed_mappings:
            self._run.warn(
                f"{self._info.user} may not see the options of other roles, so the dump lacks those of {listed(closed, 20)}:"
                " set them after a restore, or back up as a superuser"
            )
        if unmatched := snapshot.selection.unmatched:
            self._run.warn(f"nothing in the database matches these patterns of what to leave out: {listed(unmatched, 20)}")

    @contextmanager
    def _dumping(self, snapshot: Snapshot, client: Client) -> Iterator[PgDump]:
        encoding = server_encoding(snapshot.connection)
        extensions = [named(extension.name, encoding) for extension in snapshot.selection.extensions]
        argv = pg_dump_arguments(client, self._options, snapshot.selection, extensions, snapshot.identifier, encoding=encoding)
        tables = [relation.name for relation in snapshot.selection.relations]
        with child_environment(self._info, self._run.paths.scratch, "dbbackup pg_dump") as environment:
            dump = PgDump(argv, environment, self._info, tables, self._run.stop, self._run.reporter.debug)
            try:
                yield dump
            finally:
                dump.close()

    def _store(self, dump: PgDump, snapshot: Snapshot) -> StoredObject:
        algorithm = self._options.compression.algorithm
        writer = ArtifactWriter(
            self._storage,
            self._key,
            expected_bytes=sum(table.size for table in snapshot.selection.data_tables),
            max_size=self._run.spec.storage.max_artifact_size,
            content_type=CONTENT_TYPE[algorithm],
            if_absent=True,
        )
        try:
            with self._run.stop.calling(writer.cancel):  # parts stop waiting for a slow storage: the time that is left is for clearing up
                sink = Sink(compressor(algorithm, self._options.compression.level), writer)
                try:
                    self._stream(dump, sink, writer, snapshot)
                finally:
                    dump.kill()
                    sink.close()
                snapshot.release()
                self._run.stop.check()
                return writer.commit()
        except BaseException:
            self._abort(writer)
            raise

    def _abort(self, writer: ArtifactWriter) -> None:
        """Never raises: the failure that led here matters more."""
        try:
            writer.abort()
        except Failure as failure:
            self._run.reporter.error(f"the upload of {self._key} could not be aborted: {failure}")

    def _stream(self, dump: PgDump, sink: Sink, writer: ArtifactWriter, snapshot: Snapshot) -> None:
        if self._options.format == "custom":
            self._custom(dump, sink, writer, snapshot)
        else:
            self._plain(dump, sink, writer, snapshot)
        sink.finish()

    def _plain(self, dump: PgDump, sink: Sink, writer: ArtifactWriter, snapshot: Snapshot) -> None:
        stream = PlainStream(dump.chunks(), codec_of(server_encoding(snapshot.connection)), snapshot.selection.excluded_extensions)
        progress = _Progress(self._run, snapshot.selection.data_tables)
        for chunk in _detecting_lock_failure(stream):
            sink.put(chunk)
            progress.report(stream.bytes_read, writer.bytes_stored, stream.rows, stream.table, stream.table_bytes)
        self.rows = stream.rows
        self.bytes = stream.bytes_kept
        self._refuse(row_counts.without_section(snapshot.selection, stream.sections))

    def _custom(self, dump: PgDump, sink: Sink, writer: ArtifactWriter, snapshot: Snapshot) -> None:
        scan: TocScan | None = TocScan()
        counter: ArchiveCounter | None = None
        progress = _Progress(self._run, snapshot.selection.data_tables)
        try:
            with self._run.stop.calling(lambda: cancel(snapshot.connection)):  # a count may last longer than the dump
                for chunk in _detecting_lock_failure(dump.chunks()):
                    self.bytes += len(chunk)
                    sink.put(chunk)
                    progress.report(self.bytes, writer.bytes_stored)
                    if scan and self._toc_complete(scan, chunk):
                        counter, scan = self._begin_counting(snapshot, scan), None
                if scan:
                    counter = self._begin_counting(snapshot, scan)
                if counter:
                    self.rows, self.uncounted = counter.result()
        finally:
            if counter:
                counter.close()
        if self.uncounted:
            names = [".".join(key) for key in self.uncounted]
            self._run.warn(f"the rows of {listed(names, 20)} could not be counted: a restore cannot compare them")

    def _toc_complete(self, scan: TocScan, chunk: bytes) -> bool:
        with suppress(TocError):  # finish raises it again
            return scan.feed(chunk)
        return True

    def _begin_counting(self, snapshot: Snapshot, scan: TocScan) -> ArchiveCounter | None:
        try:
            self.entries = scan.finish()
        except UnknownVersion as error:
            self.uncounted = [table.key for table in snapshot.selection.data_tables]
            self._run.reporter.warn(f"the archive's table of contents cannot be read: {error}")
            return None
        except TocError as error:
            raise Failure("DumpFailed", f"{self._info.who}: pg_dump succeeded, but what it wrote is not a dump: {error}") from None
        self._refuse(row_counts.without_entry(snapshot.selection, self.entries))
        return ArchiveCounter(snapshot, self.entries) if self._options.row_counts == "Exact" else None

    def _refuse(self, missing: list[row_counts.Key]) -> None:
        if missing:
            names = [".".join(key) for key in missing]
            raise Failure("DumpFailed", f"{self._info.who}: pg_dump succeeded but wrote no rows section for {listed(names, 20)}")


class _LockedOut(Exception):
    """pg_dump could not get its locks, and has written nothing yet."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _detecting_lock_failure(chunks: Iterable[bytes]) -> Iterator[bytes]:
    written = False
    try:
        for chunk in chunks:
            written = True
            yield chunk
    except Failure as failure:
        if failure.reason.name == "LockTimeout" and not written:
            raise _LockedOut(failure) from None
        raise


class _Progress:
    """Reports progress. `percent` weighs tables by their size on disk; it is 99 at most before the
    end."""

    def __init__(self, run: Run, tables: list[Relation]) -> None:
        self._run = run
        self._sizes = {table.key: table.size for table in tables}
        self._total = sum(self._sizes.values())
        self._tables = len(tables)

    def report(
        self,
        read: int,
        stored: int,
        rows: dict[tuple[str, str], int] | None = None,
        table: tuple[str, str] | None = None,
        table_bytes: int = 0,
    ) -> None:
        done = [key for key in rows or () if key != table]
        percent = None
        if self._total and rows is not None:
            reached = sum(self._sizes.get(key, 0) for key in done) + (min(table_bytes, self._sizes.get(table, 0)) if table else 0)
            percent = min(99, 100 * reached // self._total)
        self._run.reporter.progress(
            Progress(phase="dumping", bytes_read=read, bytes_stored=stored, tables_done=len(done), tables_total=self._tables, percent=percent)
        )
