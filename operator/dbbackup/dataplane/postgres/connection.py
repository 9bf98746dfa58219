"""Connections to PostgreSQL: psycopg in this process, `PG*` environment and password file for child
processes, and errors -> `Failure`.

Everything that a session needs is set by SQL after connecting: PgBouncer refuses start-up options.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString, TypeAlias

import psycopg

from dbbackup.contract.errors import Failure, ReasonName
from dbbackup.dataplane.postgres.conninfo import Conninfo
from dbbackup.dataplane.redaction import Redactor

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

CONNECT_TIMEOUT = 15
"""Seconds for each address of the host."""

_BY_STATE: dict[str, ReasonName] = {
    "28P01": "AuthenticationFailed",
    "28000": "AuthenticationFailed",
    "3D000": "DatabaseNotFound",
    "42501": "InsufficientPrivilege",
    "55P03": "LockTimeout",
    "40P01": "LockTimeout",
    "40001": "RecoveryConflict",
    "57P01": "ConnectionLost",
    "57P02": "ConnectionLost",
    "57P03": "DatabaseUnreachable",
    "57P05": "ConnectionLost",
    "25P03": "ConnectionLost",
    "25P04": "ConnectionLost",
    "53200": "TooManyLocks",
    "53300": "DatabaseUnreachable",
    "25006": "TargetReadOnly",
}

# Connection failures and pg_dump's stderr carry no SQLSTATE, so their text is matched. The order
# matters: the first match counts.
_TEXTS: tuple[tuple[ReasonName, str], ...] = (
    ("AuthenticationFailed", r"password authentication failed|no pg_hba\.conf entry|authentication failed|role \".*\" does not exist"),
    ("AuthenticationFailed", r"no password supplied|is not permitted to log in|password is empty|no such user|not a valid user"),
    ("DatabaseNotFound", r"database \".*\" does not exist|no such database"),
    ("InsufficientPrivilege", r"permission denied"),
    ("RowSecurity", r"query would be affected by row-level security"),
    ("RecoveryConflict", r"conflict with recovery"),
    ("LockTimeout", r"lock timeout|could not obtain lock|deadlock detected|statement timeout.*LOCK TABLE"),
    ("ValueTooLarge", r"invalid memory alloc request size|out of memory.*cannot enlarge string buffer|cannot enlarge string buffer"),
    ("TooManyLocks", r"max_locks_per_transaction"),
    (
        "ConnectionLost",
        r"terminating connection|server closed the connection|connection to server was lost|connection not open|SSL SYSCALL error|EOF detected",
    ),
    ("ConnectionLost", r"could not receive data from server|could not send data to server|lost synchronization|idle-in-transaction timeout"),
    ("TLSFailed", r"certificate|SSL error|does not support SSL|server refused SSL|sslmode|tlsv1|wrong version number"),
    ("DatabaseUnreachable", r"connection refused|timeout expired|could not translate host name|no route to host|network is unreachable"),
    (
        "DatabaseUnreachable",
        r"starting up|shutting down|recovery mode|too many clients|remaining connection slots|too many connections|timed out",
    ),
    ("DatabaseUnreachable", r"could not connect|connection to server"),
)
_BY_TEXT = tuple((reason, re.compile(pattern, re.IGNORECASE)) for reason, pattern in _TEXTS)


def connect(info: Conninfo, application_name: str = "dbbackup") -> Connection:
    """An autocommit session with an empty search_path and without timeouts. Failure where it cannot
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
            client_encoding="UTF8",
            gssencmode="disable",
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=6,
            autocommit=True,
            prepare_threshold=None,
        )
    except psycopg.Error as error:
        raise to_failure(error, info, "connecting", "DatabaseUnreachable") from None
    try:
        connection.execute("SELECT pg_catalog.set_config('search_path', '', false)")
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout"):
            connection.execute("SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = %s", (name,))
    except psycopg.Error as error:
        connection.close()
        raise to_failure(error, info, "preparing the session", "ConnectionLost") from None
    return connection


def uses_tls(connection: Connection) -> bool:
    return bool(connection.pgconn.ssl_in_use)


def server_version(connection: Connection) -> tuple[int, str]:
    """(150018, "15.18 (Debian ...)"), asked by SQL: a pooler may report another version."""
    number, text = one(connection, "SELECT pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_setting('server_version')")
    return int(number), str(text)


def one(connection: Connection, query: LiteralString, parameters: tuple[object, ...] = ()) -> tuple[Any, ...]:
    """The one row of a query that always has one."""
    row = connection.execute(query, parameters).fetchone()
    if row is None:
        raise psycopg.DataError(f"no row for {query}")
    return row


def to_failure(error: psycopg.Error, info: Conninfo, doing: str, default: ReasonName) -> Failure:
    """The Failure for a psycopg error. `doing` says what was tried ("locking the tables");
    `default` is the reason where neither the SQLSTATE nor the text gives one."""
    text = Redactor(info.password)(" ".join(str(error).split()))
    state = error.sqlstate
    reason = _BY_STATE.get(state) if state else None
    if state and reason is None and state.startswith("08"):
        reason = "ConnectionLost"
    if reason is None or (state in {"40001", "53200"}):
        reason = classify(text) or reason
    if reason is None:
        reason = default
    return Failure(reason, f"{info.who}: {doing}: {text}")


def classify(text: str) -> ReasonName | None:
    """The reason for a message of libpq, the server or pg_dump; None where it is not known."""
    return next((reason for reason, pattern in _BY_TEXT if pattern.search(text)), None)


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
