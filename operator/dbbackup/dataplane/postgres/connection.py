"""Connections to PostgreSQL: psycopg in this process, `PG*` environment and password file for child
processes, and errors -> `Failure`.

Everything that a session needs is set by SQL after connecting: PgBouncer refuses start-up options.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString, TypeAlias

import psycopg

from dbbackup.contract.errors import Failure, ReasonName
from dbbackup.dataplane.postgres import encoding
from dbbackup.dataplane.postgres.conninfo import Conninfo
from dbbackup.dataplane.postgres.own_settings import OwnSettings
from dbbackup.dataplane.postgres.reasons import connection_reason, query_reason
from dbbackup.dataplane.redaction import Redactor

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

CONNECT_TIMEOUT = 15
"""Seconds for each address of the host."""


def connect(info: Conninfo, application_name: str = "dbbackup") -> Connection:
    """An autocommit session with our own settings and without timeouts. Failure where it cannot
    be opened."""
    try:
        connection = psycopg.connect(
            host=info.host,
            port=info.port,
            dbname=info.name,
            user=info.user,
            password=info.password,
            sslmode=info.sslmode,
            sslrootcert=info.sslrootcert,
            connect_timeout=CONNECT_TIMEOUT,
            application_name=application_name,
            client_encoding="SQL_ASCII",  # the one that every database accepts
            gssencmode="disable",
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=6,
            autocommit=True,
            prepare_threshold=None,
        )
    except psycopg.Error as error:
        raise _not_connected(error, info, "connecting", "DatabaseUnreachable") from None
    try:
        encoding.prepare(connection)
        OwnSettings(connection).pin()
    except psycopg.Error as error:
        connection.close()
        # A pooler may connect to the server only now.
        raise _not_connected(error, info, "preparing the session", "ConnectionLost") from None
    return connection


def _not_connected(error: psycopg.Error, info: Conninfo, doing: str, default: ReasonName) -> Failure:
    return _failure(connection_reason(error, (info.host, info.user, info.name)) or default, error, info, doing)


def uses_tls(connection: Connection) -> bool:
    return bool(connection.pgconn.ssl_in_use)


def server_version(connection: Connection) -> tuple[int, str]:
    """(150018, "15.18 (Debian ...)"), asked by SQL: a pooler may report another version."""
    number, text = one(connection, "SELECT pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_setting('server_version')")
    return int(number), str(text)


def one(connection: Connection, query: LiteralString | bytes, parameters: tuple[object, ...] | Mapping[str, object] | None = None) -> tuple[Any, ...]:
    """The one row of a query that always has one. Without parameters a percent sign is no
    placeholder: names may have it."""
    row = connection.execute(query, parameters).fetchone()
    if row is None:
        raise psycopg.DataError(f"no row for {query!r}")
    return row


def to_failure(error: psycopg.Error, info: Conninfo, doing: str, default: ReasonName) -> Failure:
    """The Failure for the error of a query of our own. `doing` says what was tried ("locking the
    tables"); `default` is the reason where the SQLSTATE gives none."""
    return _failure(query_reason(error) or default, error, info, doing)


def _failure(reason: ReasonName, error: psycopg.Error, info: Conninfo, doing: str) -> Failure:
    return Failure(reason, f"{info.who}: {doing}: {Redactor(info.password)(' '.join(str(error).split()))}")


@contextmanager
def child_environment(info: Conninfo, scratch: Path, application_name: str = "dbbackup") -> Iterator[dict[str, str]]:
    """Environment for pg_dump: the database in `PG*` variables, the password in a file of mode 0600
    that is deleted afterwards.

    Never `-d name` (there a name is parsed as a connection string) and never PGPASSWORD (other
    processes can read an environment).
    """
    handle, name = tempfile.mkstemp(prefix="pgpass-", dir=scratch)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(f"*:*:*:*:{_pgpass_escape(info.password)}\n")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG") and not key.startswith(("AWS_", "DBBACKUP_"))}
        environment |= {
            "PGHOST": info.host,
            "PGPORT": str(info.port),
            "PGDATABASE": info.name,
            "PGUSER": info.user,
            "PGSSLMODE": info.sslmode,
            "PGPASSFILE": name,
            "PGAPPNAME": application_name,
            "PGCONNECT_TIMEOUT": str(CONNECT_TIMEOUT),
            "PGGSSENCMODE": "disable",
            "LC_ALL": "C",
        }
        if info.sslrootcert:
            environment["PGSSLROOTCERT"] = info.sslrootcert
        yield environment
    finally:
        Path(name).unlink(missing_ok=True)


def _pgpass_escape(password: str) -> str:
    return password.replace("\\", "\\\\").replace(":", "\\:")


def connect_first(info: Conninfo, names: Sequence[str], application_name: str) -> Connection:
    """A session in the first of the server's databases `names` that accepts this user. Where none
    does, the Failure of the first one."""
    failure: Failure | None = None
    for name in names:
        try:
            return connect(info.with_name(name), application_name)
        except Failure as error:
            failure = failure or error
            if error.reason.name not in {"DatabaseNotFound", "InsufficientPrivilege", "AuthenticationFailed"}:
                break
    raise failure or Failure("DatabaseUnreachable", f"{info.who}: no database to connect to; tried {', '.join(names)}")
