"""A backup: snapshot, pg_dump, filter, compression, upload. The manifest, which seals the artifact,
is written only when all of them succeeded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime

from dbbackup import __version__
from dbbackup.contract.errors import Failure
from dbbackup.contract.formats import artifact_name
from dbbackup.contract.keys import CATALOG, MANIFEST, RESTORE_NOTE, directory
from dbbackup.contract.manifest import MANIFEST_LIMIT, CatalogFile, Contents, Manifest, Options, StoredObject, TableEntry, sha256_hex
from dbbackup.contract.run import BackupOptions, Lifetime
from dbbackup.dataplane.backup.restore_note import restore_note
from dbbackup.dataplane.backup.snapshot import Snapshot, SourceDescription
from dbbackup.dataplane.backup.transfer import DumpTransfer
from dbbackup.dataplane.bucket import SealedArtifact, find_artifact, find_directories, open_bucket
from dbbackup.dataplane.context import Run
from dbbackup.dataplane.postgres import clients
from dbbackup.dataplane.postgres.clients import Client
from dbbackup.dataplane.postgres.connection import connect
from dbbackup.dataplane.postgres.conninfo import Conninfo, load_conninfo
from dbbackup.dataplane.postgres.locks import hold_run_lock
from dbbackup.storage.base import Storage
from dbbackup.storage.directories import delete_directory
from dbbackup.text import presentable

LEAST_CLIENT_FOR_SCHEMAS = 14
"""pg_dump 14 knows --extension: without it a dump of some schemas leaves out the extensions that
they need."""


def execute(run: Run) -> None:
    """A DatabaseBackup's run: fills `run.facts`, or raises Failure with nothing left in the
    bucket."""
    if run.spec.database is None or run.spec.backup is None:
        raise Failure("InvalidSpec", "the run spec lacks `database` or `backup`")
    with ThreadPoolExecutor(1, "storage") as executor:
        opening = executor.submit(open_bucket, run)
        try:
            info = load_conninfo(run.spec.database, run.paths)
        except Failure:
            artifact = _sealed_before(run, opening.result)
            if artifact is None:
                raise
        else:
            run.reporter.secret(info.password)
            artifact = BackupRun(run, info, run.spec.backup, opening.result).execute()
    run.facts.artifact = artifact.report()
    run.facts.database = artifact.database_report()
    run.facts.bytes_read = artifact.manifest.dump_bytes


def _sealed_before(run: Run, storage: Callable[[], Storage]) -> SealedArtifact | None:
    """The artifact that an earlier attempt sealed, found without the database's Secret, which may
    be gone since."""
    with suppress(Failure):
        for key in find_directories(storage(), run.spec.storage.prefix, run.spec.owner):
            if found := _adopt(run, storage(), key):
                return found
    return None


def _adopt(run: Run, storage: Storage, key: str) -> SealedArtifact | None:
    found = find_artifact(storage, key, run.spec.owner)
    if not found:
        return None
    run.reporter.info(f"an earlier attempt completed {key}: it is used, and no new dump is made")
    return SealedArtifact(key, *found)


class BackupRun:
    """One dump into one artifact. A restore's safety backup is one too, of the whole target.

    `storage` is a function, as the bucket is opened while the connection to the database is made.
    `locked` says that the caller holds the database's advisory lock in a session of its own.
    `suffix` distinguishes the directory of a safety backup.
    """

    def __init__(
        self, run: Run, info: Conninfo, options: BackupOptions, storage: Callable[[], Storage], *, suffix: str = "", locked: bool = False
    ) -> None:
        self._run = run
        self._info = info
        self._options = options
        self._open = storage
        self._locked = locked
        owner, target = run.spec.owner, run.spec.storage
        self.key = directory(target.prefix, owner, info.host, info.port, info.name, suffix)
        self._name = artifact_name(options.format, options.compression.algorithm)

    def execute(self) -> SealedArtifact:
        """The sealed artifact; one that an earlier attempt sealed is returned unchanged. After a
        Failure nothing is left in the bucket."""
        try:
            connection = connect(self._info, "dbbackup backup")
        except Failure:
            if adopted := _adopt(self._run, self._open(), self.key):
                return adopted
            raise
        with closing(connection):
            storage = self._open()
            if adopted := _adopt(self._run, storage, self.key):
                return adopted
            if not self._locked:
                hold_run_lock(connection, self._info, "shared", self._run.stop, self._run.reporter)
            delete_directory(storage, self.key, (self._name,))
            snapshot = Snapshot(connection, self._info, self._options, self._run.stop)
            least = LEAST_CLIENT_FOR_SCHEMAS if self._options.schemas else 0
            client = clients.choose(snapshot.version_num, clients.installed(self._run.paths.postgresql), least=least)
            self._run.reporter.key(self.key)
            return self._seal(storage, snapshot, client)

    def _seal(self, storage: Storage, snapshot: Snapshot, client: Client) -> SealedArtifact:
        started_at = datetime.now(UTC)
        data: bytes | None = None
        left = f"what was stored at {self.key}"
        self._run.uncleared.add(left)
        try:
            transfer = DumpTransfer(self._run, self._info, self._options, storage, f"{self.key}/{self._name}")
            stored, source = transfer.run(snapshot, client)
            manifest = self._manifest(stored, source, transfer, client, started_at)
            data = manifest.to_bytes()
            self._run.stop.check()
            storage.put(f"{self.key}/{CATALOG}", source.catalog, "application/gzip", if_absent=True)
            location = f"s3://{self._run.spec.storage.bucket}/{self.key}"
            storage.put(f"{self.key}/{RESTORE_NOTE}", restore_note(manifest, location), "text/markdown; charset=utf-8")
            self._run.stop.check()
            self._run.committing = True
            storage.put(f"{self.key}/{MANIFEST}", data, "application/json", if_absent=True)
            self._look_again(storage, stored)
        except BaseException as error:
            # ArtifactExists: what lies there is another attempt's, which seals or removes it.
            cleared = (isinstance(error, Failure) and error.reason.name == "ArtifactExists") or self._clear(storage, data)
            refused = isinstance(error, Failure) and not error.reason.retryable
            self._run.committing = self._run.committing and not cleared and not refused
            if cleared:
                self._run.uncleared.discard(left)
            raise
        self._run.uncleared.discard(left)
        return SealedArtifact(self.key, manifest, sha256_hex(data))

    def _look_again(self, storage: Storage, stored: StoredObject) -> None:
        """Failure ArtifactExists where another attempt, on a node that was cut off, removed what
        this one stored: it may have done so before it could see the manifest."""
        try:
            found = storage.head(f"{self.key}/{stored.name}")
        except Failure:
            return  # the server confirmed all of it before
        if found is None or found.size != stored.size:
            raise Failure("ArtifactExists", f"{self.key}: another attempt of this backup replaced {stored.name} while it was being sealed")

    def _clear(self, storage: Storage, own: bytes | None) -> bool:
        """Removes what this attempt stored. An artifact that another attempt sealed stays: this
        attempt may be the older one, which ended late on a node that was cut off. `own` are the
        bytes of this attempt's manifest. Returns whether nothing of this attempt is left."""
        manifest = f"{self.key}/{MANIFEST}"
        try:
            if storage.head(manifest) is not None and (own is None or storage.get(manifest, MANIFEST_LIMIT) != own):
                self._run.reporter.info(f"another attempt sealed {self.key}; it stays")
                return True
            delete_directory(storage, self.key, (self._name,))
        except Failure as failure:
            self._run.reporter.error(f"what the failed attempt left at {self.key} could not be removed: {failure}")
            return False
        return True

    def _manifest(self, stored: StoredObject, source: SourceDescription, transfer: DumpTransfer, client: Client, started_at: datetime) -> Manifest:
        options = self._options
        lifetime = self._run.spec.lifetime or Lifetime()
        rows = transfer.rows if options.row_counts == "Exact" else None
        contents = source.contents if rows is None else _with_rows(source.contents, rows)
        return Manifest(
            operator_version=__version__,
            owner=self._run.spec.owner,
            database=source.database,
            format=options.format,
            compression=options.compression.algorithm,
            pg_dump_version=client.version(),
            started_at=started_at,
            finished_at=datetime.now(UTC),
            options=Options.model_validate(options.model_dump(include=set(Options.model_fields))),
            objects=(stored,),
            contents=contents,
            catalog=CatalogFile(name=CATALOG, size=len(source.catalog), sha256=sha256_hex(source.catalog)),
            dump_bytes=transfer.bytes,
            rows=None if rows is None or transfer.uncounted else sum(rows.values()),
            expires_at=lifetime.expires_at,
            schedule=lifetime.schedule,
        )


def _with_rows(contents: Contents, rows: dict[tuple[str, str], int]) -> Contents:
    """`contents` with the row count of each table. Configuration tables of extensions, which are
    not among its tables, are added."""
    rows = {(presentable(schema), presentable(name)): count for (schema, name), count in rows.items()}
    known = {(table.schema_, table.name) for table in contents.tables}
    tables = [table.model_copy(update={"rows": rows.get((table.schema_, table.name))}) for table in contents.tables]
    tables += [TableEntry(schema_=schema, name=name, rows=count) for (schema, name), count in rows.items() if (schema, name) not in known]
    return contents.model_copy(update={"tables": tuple(tables)})
