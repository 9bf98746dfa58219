"""CREATE DATABASE for a restore, and DROP DATABASE when the restore then fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import psycopg
from psycopg import sql

from dbbackup.artifact import SourceDatabase
from dbbackup.dataplane.connection import Connection, connect, server_version, to_failure
from dbbackup.dataplane.conninfo import Conninfo
from dbbackup.dataplane.context import Run
from dbbackup.errors import Failure

MAINTENANCE = ("postgres", "template1")
_DUPLICATE = "42P04"
_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}


@contextmanager
def created_database(run: Run, info: Conninfo, like: SourceDatabase, *, wanted: bool) -> Iterator[bool]:
    """Yields whether the database was made here. One that is there already is taken as it is, and stays whatever happens.

    One that was made here is dropped again when the block fails, unless the restore was committed or nobody knows whether it was.
    """
    if not wanted or not _create(run, info, like):
        yield False
        return
    try:
        yield True
    except BaseException as error:
        unknown = isinstance(error, Failure) and error.reason.name == "OutcomeUnknown"
        if not unknown and "restored" not in run.facts:
            drop_database(run, info)
        raise


def connect_first(info: Conninfo, names: Sequence[str], application_name: str) -> Connection:
    """A session in the first of the server's databases `names` that takes this user; the first one's Failure where none does."""
    failure: Failure | None = None
    for name in names:
        try:
            return connect(info.with_name(name), application_name)
        except Failure as error:
            failure = failure or error
            if error.reason.name not in {"DatabaseNotFound", "InsufficientPrivilege", "AuthenticationFailed"}:
                break
    raise failure or Failure("DatabaseUnreachable", f"{info.who}: no database to connect to; tried {', '.join(names)}")


def _maintenance(info: Conninfo) -> Connection:
    return connect_first(info, MAINTENANCE, "dbbackup create")


def _create(run: Run, info: Conninfo, like: SourceDatabase) -> bool:
    with closing(_maintenance(info)) as connection:
        there = connection.execute("SELECT FROM pg_catalog.pg_database WHERE datname = %s", (info.name,)).fetchone()
        if there is not None:
            run.reporter.info(f"database {info.identity} is there already; it is taken as it is")
            return False
        run.stop.check()
        try:
            connection.execute(create_statement(info.name, like, server_version(connection)[0]))
        except psycopg.Error as error:
            if error.sqlstate == _DUPLICATE:
                return False
            failure = to_failure(error, info, "creating the database", "RestoreFailed")
            hint = "Create the database yourself, with the locale that fits, and restore into it without `createDatabase`."
            raise Failure(failure.reason.name, failure.message, hint if failure.reason.name == "RestoreFailed" else None) from None
    run.reporter.info(f"database {info.identity} was created")
    return True


def create_statement(name: str, like: SourceDatabase, server_version_num: int) -> sql.Composed:
    """With the encoding, locale and provider of the source, as far as the server knows them."""
    options = [
        sql.SQL("TEMPLATE template0"),
        sql.SQL("ENCODING {}").format(like.encoding),
        sql.SQL("LC_COLLATE {}").format(like.collate),
        sql.SQL("LC_CTYPE {}").format(like.ctype),
    ]
    if server_version_num >= 150000 and like.locale_provider in _PROVIDERS:
        options.append(sql.SQL("LOCALE_PROVIDER {}").format(sql.SQL(_PROVIDERS[like.locale_provider])))
        if like.icu_locale and like.locale_provider == "i":
            options.append(sql.SQL("ICU_LOCALE {}").format(like.icu_locale))
        if like.icu_locale and like.locale_provider == "b":
            options.append(sql.SQL("BUILTIN_LOCALE {}").format(like.icu_locale))
        if like.icu_rules and server_version_num >= 160000:
            options.append(sql.SQL("ICU_RULES {}").format(like.icu_rules))
    return sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), sql.SQL(" ").join(options))


def drop_database(run: Run, info: Conninfo) -> None:
    """Drops a database that this restore had created; a warning where that fails."""
    try:
        with closing(_maintenance(info)) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(info.name)))
        run.reporter.info(f"database {info.identity}, which this restore had created, was dropped again")
    except (Failure, psycopg.Error) as error:
        run.warn(f"database {info.identity}, which this restore had created, could not be dropped again: {' '.join(str(error).split())[:300]}")
