"""CREATE DATABASE for a restore, and DROP DATABASE when that restore fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import psycopg

from dbbackup.contract.errors import Failure
from dbbackup.contract.keys import creation_key
from dbbackup.contract.manifest import SourceDatabase
from dbbackup.contract.records import CreationRecord
from dbbackup.dataplane.context import Run
from dbbackup.dataplane.postgres.connection import Connection, connect, connect_first, server_version, to_failure
from dbbackup.dataplane.postgres.conninfo import Conninfo
from dbbackup.dataplane.postgres.encoding import encoded, identifier, literal
from dbbackup.dataplane.restore.target import user_objects
from dbbackup.storage.base import Storage
from dbbackup.text import listed

MAINTENANCE = ("postgres", "template1")
_DUPLICATE = "42P04"
_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}
_LOCALE_OPTIONS = {"i": "ICU_LOCALE", "b": "BUILTIN_LOCALE"}


@contextmanager
def created_database(run: Run, info: Conninfo, storage: Storage, like: SourceDatabase, *, wanted: bool) -> Iterator[bool]:
    """Yields whether the database was created here. One that existed before is used unchanged, and
    stays whatever happens.

    A database that was created here is dropped when the block fails, unless the restore was
    committed, its outcome is unknown, or somebody else has created objects in it since. Where the
    run dies before that, a record in the bucket makes a check Job do it.
    """
    creation = DatabaseCreation(run, info, storage)
    try:
        yield wanted and creation.create(like)
    except BaseException as error:
        unknown = isinstance(error, Failure) and error.reason.name == "OutcomeUnknown"
        if unknown or run.facts.restored:
            creation.forget()
        elif not run.committing:  # else a check finds out, and needs the record
            creation.undo()
        raise
    creation.forget()


class DatabaseCreation:
    """CREATE DATABASE with its record in the bucket. After `create`, whatever it did, call `undo`
    or `forget`."""

    def __init__(self, run: Run, info: Conninfo, storage: Storage) -> None:
        self._run = run
        self._info = info
        self._storage = storage
        self._key = creation_key(run.spec.storage.prefix, run.spec.owner)
        self._what = f"database {info.identity}, which this restore had created"
        self._recorded = False
        self._oid: int | None = None

    def create(self, like: SourceDatabase) -> bool:
        """False where the database exists already."""
        with closing(maintenance(self._info)) as connection:
            if find_database(connection, self._info.name) is None:
                self._run.stop.check()
                self._record()
                self._run.uncleared.add(self._what)
                if self._run_create(connection, like):
                    self._oid = find_database(connection, self._info.name)
                    self._run.reporter.info(f"database {self._info.identity} was created")
                    self._record()
                    return True
                self.forget()
        self._run.reporter.info(f"database {self._info.identity} exists already; it is used as it is")
        return False

    def _record(self) -> None:
        record = CreationRecord(owner=self._run.spec.owner, identity=self._info.identity, oid=self._oid)
        self._recorded = True
        self._storage.put(self._key, record.to_json().encode(), "application/json")

    def _run_create(self, connection: Connection, like: SourceDatabase) -> bool:
        try:
            connection.execute(encoded(connection, create_statement(self._info.name, like, server_version(connection)[0])))
        except psycopg.Error as error:
            if error.sqlstate == _DUPLICATE:
                return False
            failure = to_failure(error, self._info, "creating the database", "RestoreFailed")
            if connection.closed:
                lost = f"{failure.message}; whether it was created is unknown: if it exists it is empty, and can be dropped"
                raise Failure(failure.reason.name, lost) from None
            self.forget()
            hint = "Create the database yourself, with the locale that fits, and restore into it without `createDatabase`."
            raise Failure(failure.reason.name, failure.message, hint if failure.reason.name == "RestoreFailed" else None) from None
        return True

    def undo(self) -> None:
        """Drops the database that was created, and deletes the record. A warning where it stays;
        where the server did not answer the record stays too, so that a check Job tries again."""
        if self._oid is None:
            return
        try:
            reason_kept = drop_database(self._run, self._info, self._oid)
        except (Failure, psycopg.Error) as error:
            self._run.warn(f"{self._what}, could not be dropped: {' '.join(str(error).split())[:300]}")
            return
        if reason_kept:
            self._run.warn(f"{self._what}, {reason_kept}")
        self.forget()

    def forget(self) -> None:
        """Nothing is left to clear up, so the record is deleted. One that stays does no harm: it
        names a database that is gone, or a restore that has ended."""
        self._run.uncleared.discard(self._what)
        if self._recorded:
            with suppress(Failure):
                self._storage.delete([self._key])


def maintenance(info: Conninfo) -> Connection:
    return connect_first(info, MAINTENANCE, "dbbackup create")


def find_database(connection: Connection, name: str) -> int | None:
    """The oid of the database; None where it does not exist."""
    row = connection.execute("SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = %s", (name,)).fetchone()
    return None if row is None else int(row[0])


def create_statement(name: str, like: SourceDatabase, server_version_num: int) -> str:
    """CREATE DATABASE with the encoding, locale and provider of the source, as far as the server
    supports them."""
    options = ["TEMPLATE template0", *(f"{option} {literal(value)}" for option, value in _locale(like, server_version_num))]
    return f"CREATE DATABASE {identifier(name)} {' '.join(options)}"


def _locale(like: SourceDatabase, server_version_num: int) -> Iterator[tuple[str, str]]:
    yield from (("ENCODING", like.encoding), ("LC_COLLATE", like.collate), ("LC_CTYPE", like.ctype))
    if server_version_num < 150000 or like.locale_provider not in _PROVIDERS:
        return
    yield "LOCALE_PROVIDER", _PROVIDERS[like.locale_provider]
    if like.icu_locale and like.locale_provider in _LOCALE_OPTIONS:
        yield _LOCALE_OPTIONS[like.locale_provider], like.icu_locale
    if like.icu_rules and server_version_num >= 160000:
        yield "ICU_RULES", like.icu_rules


def drop_database(run: Run, info: Conninfo, oid: int) -> str:
    """Drops the database that this restore had created, if it is still the same one and nobody has
    created objects in it: an application that waits for its database connects, and migrates, as
    soon as it exists. Returns why it stays, or an empty text. Failure or psycopg.Error where the
    server does not answer.
    """
    with closing(maintenance(info)) as connection:
        if find_database(connection, info.name) != oid:
            return ""
        with closing(connect(info, "dbbackup drop")) as session:
            names, count = user_objects(session, 3)
        if count:
            return f"stays: somebody else has created objects in it meanwhile ({listed(names, total=count)})"
        connection.execute(encoded(connection, f"DROP DATABASE IF EXISTS {identifier(info.name)} WITH (FORCE)"))
    run.reporter.info(f"database {info.identity}, which this restore had created, was dropped")
    return ""
