"""A restore: preflight, safety backup, then one transaction. It is committed only when the whole
artifact passed its checks and the server took all of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from itertools import chain

import psycopg

from dbbackup.contract.errors import Failure
from dbbackup.contract.keys import SAFETY_SUFFIX, transaction_key
from dbbackup.contract.manifest import Manifest, TableEntry, safety_report
from dbbackup.contract.records import TransactionRecord
from dbbackup.contract.report import ArtifactReport, DatabaseReport, Progress, RestoredReport
from dbbackup.contract.run import BackupOptions, RestoreOptions
from dbbackup.dataplane.backup.run import BackupRun
from dbbackup.dataplane.bucket import load_manifest, open_bucket
from dbbackup.dataplane.context import Run
from dbbackup.dataplane.postgres.connection import Connection, connect, one, server_version, to_failure, uses_tls
from dbbackup.dataplane.postgres.conninfo import Conninfo, load_conninfo
from dbbackup.dataplane.postgres.encoding import encoded, manifest_identifier, read_as
from dbbackup.dataplane.postgres.locks import beside_backups, cancel, hold_run_lock
from dbbackup.dataplane.postgres.own_settings import OwnSettings
from dbbackup.dataplane.restore import configuration, legacy_drops, preflight
from dbbackup.dataplane.restore.analyze import analyze
from dbbackup.dataplane.restore.closure import Replaced, examine
from dbbackup.dataplane.restore.databases import created_database
from dbbackup.dataplane.restore.dump_head import DumpHead, read_dump_head
from dbbackup.dataplane.restore.event_triggers import quiet
from dbbackup.dataplane.restore.executor import Executor, Restored
from dbbackup.dataplane.restore.extensions import creating_statements
from dbbackup.dataplane.restore.names_in_use import made_names
from dbbackup.dataplane.restore.plan import RestorePlan, completed_plan, make_plan
from dbbackup.dataplane.restore.replace import Replacement
from dbbackup.dataplane.restore.roots import choose_roots, held_objects, wanted_keys
from dbbackup.dataplane.restore.source import ArtifactSource
from dbbackup.dataplane.restore.target import schemas, user_objects
from dbbackup.dataplane.restore.transaction import End, OpenTransaction, Transaction
from dbbackup.dataplane.sql.filter import COMMENT_WARNING
from dbbackup.storage.base import Storage
from dbbackup.text import listed, presentable

_COUNTABLE = """
SELECT pg_catalog.to_regclass(%(name)s) IS NOT NULL,
       NOT pg_catalog.row_security_active(pg_catalog.to_regclass(%(name)s)::oid)
       AND pg_catalog.has_table_privilege(pg_catalog.to_regclass(%(name)s)::oid, 'SELECT')
"""


def execute(run: Run) -> None:
    """A DatabaseRestore's run: sets `run.facts`. After a Failure the target is unchanged, except
    after OutcomeUnknown."""
    options = run.spec.restore
    if run.spec.database is None or options is None:
        raise Failure("InvalidSpec", "the run spec lacks `database` or `restore`")
    info = load_conninfo(run.spec.database, run.paths)
    run.reporter.secret(info.password)
    storage = open_bucket(run, create=False)
    manifest, digest = load_manifest(storage, options.key, options.manifest_sha256)
    run.facts.artifact = _artifact_report(options.key, manifest, digest)
    planned = make_plan(run, storage, options, manifest)
    with created_database(run, info, storage, manifest.database, wanted=options.create_database) as created, _session(run, info) as connection:
        with beside_backups(connection, info) as busy:
            if busy:  # a refusal comes now, not after a long backup
                with completed_plan(planned, connection, run) as whole:
                    Restore(run, info, storage, options, manifest, whole, created=created).rehearse(connection)
        hold_run_lock(connection, info, "exclusive", run.stop, run.reporter)
        with completed_plan(planned, connection, run) as whole:
            Restore(run, info, storage, options, manifest, whole, created=created).execute(connection)


@contextmanager
def _session(run: Run, info: Conninfo) -> Iterator[Connection]:
    with closing(connect(info, "dbbackup restore")) as connection, run.stop.calling(lambda: cancel(connection)):
        yield connection


class Restore:
    """A restore into one database, whose advisory lock the session holds. Call `rehearse` or
    `execute`, once."""

    def __init__(
        self, run: Run, info: Conninfo, storage: Storage, options: RestoreOptions, manifest: Manifest, planned: RestorePlan, *, created: bool
    ) -> None:
        self._run = run
        self._info = info
        self._storage = storage
        self._options = options
        self._manifest = manifest
        self._plan = planned
        self._created = created
        self._replacing = options.on_existing == "Replace"
        self._needs = preflight.ArtifactNeeds(manifest, planned.contents, planned.requirements)
        self._extensions: list[bytes] = []
        self._locks = 0
        self._server: preflight.TargetServer | None = None

    def rehearse(self, connection: Connection) -> None:
        """Runs the preflight alone."""
        with self._reading(connection) as (_, head):
            self._preflight(connection, head)

    def execute(self, connection: Connection) -> None:
        with self._reading(connection) as (source, head):
            self._preflight(connection, head)
            self._safety_backup(connection)
            self._transact(connection, source, head)
        self._run.facts.bytes_read = source.bytes_read
        started = time.monotonic()
        analyze(self._run, connection, self._plan.contents.tables, self._manifest.database.search_path)
        self._run.reporter.info(f"ANALYZE took {time.monotonic() - started:.2f} s")

    @contextmanager
    def _reading(self, connection: Connection) -> Iterator[tuple[ArtifactSource, DumpHead]]:
        self._run.facts.database = self._database_report(connection)
        source = ArtifactSource(self._storage, self._options.key, self._manifest, self._run.stop, self._plan.argv, whole=not self._plan.partial)
        try:
            yield source, read_dump_head(source.pieces(), keep_drops=self._replacing and self._plan.made is None)
        except psycopg.Error as error:
            raise to_failure(error, self._info, "restoring", "RestoreFailed") from None
        finally:
            source.close()

    def _preflight(self, connection: Connection, head: DumpHead) -> None:
        read_as(connection, head.encoding)
        replaced = self._replaced(connection, head)
        facts = preflight.gather_facts(connection, self._needs, replaced)
        self._locks = preflight.estimate_locks(self._needs, replaced)
        self._server = facts.server
        problems = [
            *preflight.judge(facts, self._needs, replaced),
            *preflight.cannot_convert(connection, head.encoding),
            *self._configuration(connection, replaced),
            *self._not_empty(connection),
        ]
        preflight.refuse(problems, self._info.who)
        self._extensions = creating_statements(connection, self._plan.contents.extensions, facts.extensions)
        if not facts.schemas.get("public", (True, True))[0]:  # pg_dump takes it for granted
            self._extensions[:0] = [b"CREATE SCHEMA public", b"COMMENT ON SCHEMA public IS 'standard public schema'"]
        self._run.reporter.info(
            f"preflight passed: {len(replaced.roots)} objects to be replaced; about {self._locks} locks of "
            f"{facts.server.lock_capacity}; free space on the server cannot be queried: the artifact contains {self._manifest.dump_bytes} bytes, "
            f"its source took {self._manifest.database.size_bytes} on disk"
        )

    def _replaced(self, connection: Connection, head: DumpHead) -> Replaced:
        if not self._replacing:
            return Replaced()
        held, made = held_objects(connection), self._plan.made
        if made is None:
            drops = legacy_drops.parse_drop_section(head.drops)
            return examine(connection, choose_roots(held, legacy_drops.wanted_by_name(held, drops)), legacy_drops.made_names(drops))
        roots = choose_roots(held, wanted_keys(made))
        hidden = {found.key for found in made if found.hidden}
        emptied = tuple(root.text for root in roots.objects if root.key in hidden)
        return replace(examine(connection, roots, made_names(made)), emptied_mappings=emptied)

    def _configuration(self, connection: Connection, replaced: Replaced) -> list[preflight.PreflightProblem]:
        tables = configuration.configuration_tables(connection, self._plan.contents)
        return list(configuration.judge(connection, tables, replaced.relations, self._info.user))

    def _make_room_for_configuration(self, connection: Connection, settings: OwnSettings, executor: Executor) -> list[configuration.RowTrigger]:
        """For the rows of extensions' tables, once all extensions are there. The triggers that were
        disabled for them."""
        preflight.refuse(self._configuration(connection, Replaced()), self._info.who)
        tables = configuration.configuration_tables(connection, self._plan.contents)
        triggers = configuration.row_triggers(connection, tables)
        self._alter(connection, settings, [trigger.disable for trigger in triggers])
        for statement in configuration.statements(tables):
            executor.execute(encoded(connection, statement))
        return triggers

    def _alter(self, connection: Connection, settings: OwnSettings, statements: Sequence[str]) -> None:
        if not statements:
            return
        with quiet(connection, settings):
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")  # ALTER TABLE refuses tables with pending events
            for statement in statements:
                connection.execute(encoded(connection, statement))

    def _not_empty(self, connection: Connection) -> list[preflight.PreflightProblem]:
        if self._replacing:
            if self._plan.made is None and self._manifest.format == "plain" and not self._manifest.options.clean:
                return preflight.cannot_replace(connection, self._needs)
            return []
        names, count = user_objects(connection)
        if not count:
            return []
        return [preflight.PreflightProblem("TargetNotEmpty", f"the target holds {count} objects: {listed(names, total=count)}")]

    def _safety_backup(self, connection: Connection) -> None:
        if not self._replacing or not self._options.safety_backup or not user_objects(connection, 1)[1]:
            return
        spared = configuration.untouched(connection, self._plan.contents)
        if spared:
            self._run.reporter.info(f"{self._info.who} may not read {listed(spared)}, which the restore leaves alone, and the safety backup out")
        options = BackupOptions(format=self._manifest.format, exclude_tables=spared)
        try:
            backup = BackupRun(self._run, self._info, options, lambda: self._storage, suffix=SAFETY_SUFFIX, locked=True)
            artifact = backup.execute()
        except Failure as failure:
            self._run.stop.check()
            raise Failure("SafetyBackupFailed", f"the safety backup failed, so nothing was touched: {failure}", failure.hint) from None
        finally:
            self._run.committing = False
        self._run.facts.safety_backup = safety_report(artifact.key, artifact.manifest, artifact.manifest_sha256)

    def _transact(self, connection: Connection, source: ArtifactSource, head: DumpHead) -> None:
        transaction = Transaction(connection, self._info, self._run.stop, self._run.reporter, self._options.lock_timeout_seconds)
        key = transaction_key(self._run.spec.storage.prefix, self._run.spec.owner)
        given_up = recorded = False
        self._run.stop.check()
        opened = transaction.begin()
        try:
            try:
                self._storage.put(key, self._record(opened).to_json().encode(), "application/json", if_absent=True)
            except Failure as failure:
                given_up = failure.reason.name == "ArtifactExists"
                if given_up:
                    raise Failure("RunLost", "a check Job has already given up this restore, so it changes nothing") from None
                raise
            recorded = True
            self._run.reporter.transaction(opened.xid)
            restored = self._restore(connection, transaction.settings, source, head)
            report = RestoredReport(tables=len(self._plan.contents.tables), rows=sum(restored.rows.values()), bytes=restored.bytes)
            self._run.stop.check()
            self._run.committing = True
            transaction.commit()
            self._run.facts.restored = report
        except BaseException as error:
            # An exception of our own during COMMIT proves nothing: without a report a check looks.
            if self._run.committing and not isinstance(error, Failure):
                raise
            if isinstance(error, Failure) and error.reason.name == "OutcomeUnknown":
                self._run.committing = False
                raise
            self._run.committing = recorded  # until it is known how the transaction has ended
            end, answer = transaction.abort()
            ended = self._ended(error, end, answer, opened) if recorded else error
            self._run.committing = False
            if not given_up and not (isinstance(ended, Failure) and ended.reason.name == "OutcomeUnknown"):
                with suppress(Failure):
                    self._storage.delete([key])
            raise ended from None
        self._run.committing = False

    def _ended(self, error: BaseException, end: End, answer: str, opened: OpenTransaction) -> BaseException:
        """What to raise for `error`, which ended the restore, with what the server says of its
        transaction. The only place that says how that ended."""
        failure = to_failure(error, self._info, "restoring", "RestoreFailed") if isinstance(error, psycopg.Error) else error
        if isinstance(failure, Failure) and failure.reason.name == "TooManyLocks" and self._server:
            failure.message += f": {self._server.locks_wanted(self._locks)}"
        if end is End.ROLLED_BACK:
            for told in {failure, self._run.stop.failure}:
                if isinstance(told, Failure):
                    told.message += "; everything was rolled back"
            return failure
        what = failure.message if isinstance(failure, Failure) else f"{self._info.who}: {type(failure).__name__}"
        safety = self._run.facts.safety_backup
        kept = f"; the safety backup {safety.key} holds what was there before" if safety else ""
        if end is End.COMMITTED:
            return Failure(
                "OutcomeUnknown",
                f"{what}; the artifact had ended transaction {opened.xid} itself, and the server has committed it: the target holds"
                f" a part of what was to be restored{kept}",
            )
        return Failure("OutcomeUnknown", f"{what}; whether transaction {opened.xid} was rolled back is unknown: {answer}{kept}")

    def _restore(self, connection: Connection, settings: OwnSettings, source: ArtifactSource, head: DumpHead) -> Restored:
        """Everything between BEGIN and COMMIT."""
        replacement = Replacement(connection, settings, self._info.who)
        with quiet(connection, settings) if self._replacing else nullcontext():
            executor = self._fill(connection, settings, replacement, source, head)
        executor.run_last(head.preamble)
        if self._replacing:
            replacement.check_made_again()
            replacement.put_back_late_owners()
        return executor.restored

    def _fill(self, connection: Connection, settings: OwnSettings, replacement: Replacement, source: ArtifactSource, head: DumpHead) -> Executor:
        """All but event triggers. In a Replace those of the target keep quiet: they would write
        into tables that are being replaced, or miss them."""
        if self._replacing:
            self._make_room(connection, replacement, head)
        else:
            preflight.refuse(self._not_empty(connection), self._info.who)
        executor = Executor(
            connection, self._info.who, self._progress(source), schemas(connection), search_path=self._manifest.database.search_path or ""
        )
        settings.release(event_triggers=not self._replacing)
        for statement in self._extensions:
            executor.execute(statement)
        settings.pin()
        disabled = self._make_room_for_configuration(connection, settings, executor)
        settings.pin()
        settings.release(event_triggers=not self._replacing)
        executor.run(head.preamble)
        with _comment_warnings(connection, self._run.warn):
            executor.run(chain(head.first, head.rest))
        self._warn_of_mappings()
        if not source.finished:
            raise Failure("InternalError", "the artifact was not read to its end")
        self._compare(executor.restored)
        executor.restored.bytes += head.bytes
        self._alter(connection, settings, [trigger.enable for trigger in disabled])
        if self._replacing:
            for warning in replacement.put_back():
                self._run.warn(warning)
        return executor

    def _make_room(self, connection: Connection, replacement: Replacement, head: DumpHead) -> None:
        """Locks, runs the preflight again now that nobody else can change anything, and drops."""
        replacement.lock(self._replaced(connection, head))
        replaced = self._replaced(connection, head)
        preflight.refuse(preflight.judge(preflight.gather_facts(connection, self._needs, replaced), self._needs, replaced), self._info.who)
        for table in self._plan.contents.tables:
            if table.data_excluded:
                self._warn_of_rows(connection, table)
        replacement.drop(replaced)

    def _warn_of_rows(self, connection: Connection, table: TableEntry) -> None:
        name = manifest_identifier(connection, table.schema_, table.name)
        found, countable = one(connection, _COUNTABLE, {"name": name})
        if not found or table.kind not in {"table", "unlogged"}:
            return
        query = f"SELECT pg_catalog.count(*) FROM ONLY {name}"  # noqa: S608 - quoted
        count = one(connection, encoded(connection, query))[0] if countable else "unknown number of"
        if count:
            kept = "; the safety backup has them" if self._run.facts.safety_backup else ""
            self._run.warn(f"{table.schema_}.{table.name}: its {count} rows are gone, because the artifact holds only its definition{kept}")

    def _warn_of_mappings(self) -> None:
        held = self._plan.catalog.objects if self._plan.catalog and not self._replacing and not self._plan.partial else ()
        if hidden := [mapping.identity for mapping in held if mapping.hidden]:
            self._run.warn(f"the backup's user could not see these options, so they must be set: user mappings {listed(hidden)}")

    def _compare(self, restored: Restored) -> None:
        """Compares the server's row counts with the manifest's, table by table."""
        whole = self._manifest.format == "plain" and self._manifest.rows is not None
        if wrong := differences(self._plan.contents.tables, restored.rows, whole=whole):
            raise Failure("RowCountMismatch", f"{self._info.who}: {listed(wrong)}")

    def _progress(self, source: ArtifactSource) -> Callable[[Restored], None]:
        total = self._manifest.dump_bytes

        def tick(restored: Restored) -> None:
            self._run.stop.check()
            percent = min(99, 100 * restored.bytes // total) if total and not self._plan.partial else None
            self._run.reporter.progress(
                Progress(
                    phase="restoring",
                    bytes_read=restored.bytes,
                    bytes_stored=source.bytes_read,
                    tables_done=len(restored.rows),
                    tables_total=len(self._plan.contents.tables),
                    percent=percent,
                )
            )

        return tick

    def _record(self, opened: OpenTransaction) -> TransactionRecord:
        return TransactionRecord(
            owner=self._run.spec.owner,
            identity=self._info.identity,
            xid=opened.xid,
            timeline=opened.timeline,
            backend_pid=opened.pid,
            created_database=self._created,
            artifact_key=self._options.key,
            tables=len(self._plan.contents.tables),
            rows=None if self._manifest.rows is None else sum(table.rows or 0 for table in self._plan.contents.tables),
            bytes=None if self._plan.partial else self._manifest.dump_bytes,
            safety_backup=self._run.facts.safety_backup,
        )

    def _database_report(self, connection: Connection) -> DatabaseReport:
        version_num, version = server_version(connection)
        preflight.refuse_old_server(version_num)
        row = connection.execute("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())").fetchone()
        return DatabaseReport(
            identity=self._info.identity,
            name=self._info.name,
            server_version=version,
            size_bytes=int(row[0]) if row else 0,
            tables=len(self._plan.contents.tables),
            tls=uses_tls(connection),
        )


@contextmanager
def _comment_warnings(connection: Connection, warn: Callable[[str], None]) -> Iterator[None]:
    """Passes on what the backup's filter made of a COMMENT that the user may not set."""

    def pass_on(diagnostic: psycopg.errors.Diagnostic) -> None:
        message = diagnostic.message_primary or ""
        if diagnostic.severity_nonlocalized == "WARNING" and message.startswith(COMMENT_WARNING):
            warn(message)

    connection.add_notice_handler(pass_on)
    try:
        yield
    finally:
        connection.remove_notice_handler(pass_on)


def differences(tables: Iterable[TableEntry], restored: Mapping[tuple[str, str], int], *, whole: bool) -> list[str]:
    """Pure: tables whose number of restored rows differs from the manifest's.

    Only what the manifest knows is compared: rows of a custom dump may not have been counted, and
    those of extensions' configuration tables are not. `whole`: it knows every table with rows.
    """
    restored = {(presentable(schema), presentable(name)): rows for (schema, name), rows in restored.items()}
    expected = {(t.schema_, t.name): t.rows or 0 for t in tables if t.rows is not None or t.data_excluded}
    keys = expected.keys() | (restored.keys() if whole else set())
    return [
        f"{schema}.{name}: {restored.get((schema, name), 0)} rows, the manifest says {expected.get((schema, name), 0)}"
        for schema, name in sorted(keys)
        if restored.get((schema, name), 0) != expected.get((schema, name), 0)
    ]


def _artifact_report(key: str, manifest: Manifest, digest: str) -> ArtifactReport:
    stored = manifest.artifact
    return ArtifactReport(
        key=key, sha256=stored.sha256, manifest_sha256=digest, size_bytes=stored.size, format=manifest.format, compression=manifest.compression
    )
