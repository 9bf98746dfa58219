"""The reason for an error of PostgreSQL: by its SQLSTATE, and by where it arose. Pure.

A name can be any text, and a server can raise any text that a user wrote. So messages are read only
where there is no SQLSTATE: libpq's for a failed connection, and what pg_dump wrote. There, only
fixed texts count, of libpq, pg_dump or the server, and only where such a text begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import psycopg

from dbbackup.contract.errors import ReasonName

_SESSION_ENDED = frozenset({"FATAL", "PANIC"})

_BY_STATE: dict[str, ReasonName] = {
    "25006": "TargetReadOnly",
    "40P01": "LockTimeout",
    "42501": "InsufficientPrivilege",
    "53100": "ServerDiskFull",
    "55P03": "LockTimeout",
}
_CONNECTING: dict[str, ReasonName] = {
    "28000": "AuthenticationFailed",
    "28P01": "AuthenticationFailed",
    "3D000": "DatabaseNotFound",
    "42501": "InsufficientPrivilege",
    "53300": "DatabaseUnreachable",
    "57P03": "DatabaseUnreachable",
}

_Texts = tuple[tuple[ReasonName, re.Pattern[str]], ...]


def _texts(*pairs: tuple[ReasonName, str]) -> _Texts:
    return tuple((reason, re.compile(pattern)) for reason, pattern in pairs)


# Quoted names are empty here.
_REFUSED = _texts(
    ("AuthenticationFailed", r"(?:\w+ |\"\" )?authentication failed|no pg_hba\.conf entry for |pg_hba\.conf rejects |empty password returned "),
    ("AuthenticationFailed", r"role \"\" (?:does not exist|is not permitted to log in)|no such user|not a valid user|password is empty|SASL "),
    ("DatabaseNotFound", r"database \"\" does not exist|no such database"),
    ("InsufficientPrivilege", r"permission denied for database "),
)
"""How the server, or a pooler, begins to say that it takes no session."""
_NOT_CONNECTED = _texts(
    ("AuthenticationFailed", r"fe_sendauth: no password supplied|authentication method |SCRAM authentication "),
    ("TLSFailed", r"SSL error|server does not support SSL|received invalid response to SSL negotiation|could not create SSL context"),
    ("TLSFailed", r"(?:server |root )?certificate |private key |could not (?:load|read|open|get)[^:]* certificate|sslmode value |weak sslmode "),
    ("TLSFailed", r"host name must be specified for a verified SSL connection"),
)
"""How libpq itself begins to say that it has no connection."""
_LOST = _texts(
    (
        "ConnectionLost",
        r"server closed the connection|connection to server was lost|no connection to the server|connection not open|lost synchronization",
    ),
    ("ConnectionLost", r"could not (?:receive data from|send data to) server|SSL SYSCALL error|SSL error|SSL connection has been closed"),
    ("OutOfMemory", r"out of memory"),
)
"""How libpq begins to say that a session has ended."""
_DUMPING = _texts(
    ("RowSecurity", r"query would be affected by row-level security policy "),
    ("InsufficientPrivilege", r"permission denied (?:for|to) "),
    ("RecoveryConflict", r"canceling statement due to conflict with recovery"),
    ("LockTimeout", r"canceling statement due to lock timeout|could not obtain lock on |deadlock detected"),
    ("LockTimeout", r"canceling statement due to statement timeout\npg_dump: \w+: [Qq]uery was: LOCK TABLE "),
    ("TooManyLocks", r"out of shared memory"),
    ("ValueTooLarge", r"invalid memory alloc request size |string buffer exceeds maximum |out of memory\nDETAIL:  Cannot enlarge string buffer "),
)
"""How the server begins to refuse a query of pg_dump's."""

_ATTEMPT = re.compile(
    r"^(?:- host: [^\"\n]*?: )?(?:connection failed: )?"
    r"connection to (?:server (?:at|on socket) \"\"(?: \([^()]*\))?(?:, port \d+)?|database \"\") failed: (?:could not connect to server: )?",
    re.MULTILINE,
)
_FROM_SERVER = re.compile(r"(?:server login failed: )?(?:FATAL|ERROR|PANIC):? +")
_QUOTED = re.compile(r"\"[^\"\n]*\"")
_PG_DUMP_ERROR = re.compile(r"^pg_dump: error: ", re.MULTILINE)
_QUERY = re.compile(r"query failed: |error reading large object \d+: |could not open large object \d+: ")
_CONTENTS = re.compile(r"Dumping the contents of table \"(.*?)\" failed: PQget\w+\(\) failed\.\npg_dump: \w+: Error message from server: ", re.DOTALL)


def session_ended(error: psycopg.Error) -> bool:
    """Whether the error is the end of the session, and not only of a statement in it."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return (error.diag.severity_nonlocalized or error.diag.severity) in _SESSION_ENDED


def user_raised(error: psycopg.Error) -> bool:
    """Whether a RAISE in PL/pgSQL is the error, whose SQLSTATE may then be any."""
    return error.diag.source_function == "exec_stmt_raise"


def session_reason(error: psycopg.Error) -> ReasonName | None:
    """The reason for the error of a statement; None where its SQLSTATE gives none.

    The classes 08 and 57 say nothing of this session where it goes on: a foreign server, or a
    function, raised the error.
    """
    if user_raised(error):
        return None
    if session_ended(error):
        return "RecoveryConflict" if error.sqlstate == "40001" else "ConnectionLost"
    if error.sqlstate == "53200":  # memory, or the lock table: only the place in the server tells which
        return "TooManyLocks" if error.diag.source_file == "lock.c" else None
    return _BY_STATE.get(error.sqlstate or "")


def query_reason(error: psycopg.Error) -> ReasonName | None:
    """As `session_reason`, for a query that we wrote and that runs nothing of a user's."""
    if error.sqlstate == "40001":
        return "RecoveryConflict"
    if error.sqlstate == "42501" and error.diag.source_file == "rls.c":
        return "RowSecurity"
    return session_reason(error)


def connection_reason(error: psycopg.Error, names: Sequence[str]) -> ReasonName | None:
    """The reason why there is no session. `names` are those in the message that are known: host,
    user, database."""
    return _CONNECTING.get(error.sqlstate or "") or connection_text_reason(error.diag.message_primary or str(error), names)


def connection_text_reason(text: str, names: Sequence[str]) -> ReasonName | None:
    """The reason in libpq's message for a failed connection, which has several where it tried
    several addresses."""
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(f'"{name}"', '""')
    text = _QUOTED.sub('""', text)
    attempts = [text[found.end() :] for found in _ATTEMPT.finditer(text)] or [text.removeprefix("connection failed: ")]
    found = {reason for attempt in attempts if (reason := _attempt_reason(attempt))}
    return next((reason for reason, _ in (*_REFUSED, *_NOT_CONNECTED) if reason in found), None)


def _attempt_reason(text: str) -> ReasonName | None:
    if server := _FROM_SERVER.match(text):
        return _first(_REFUSED, text[server.end() :])
    return _first(_NOT_CONNECTED, text) or _first(_REFUSED, text)


def pg_dump_reason(text: str, names: Sequence[str], tables: Iterable[str]) -> ReasonName | None:
    """The reason in what pg_dump wrote to stderr; None where it says none. `names` as for
    `connection_reason`; `tables` are names of tables that it dumps."""
    found = _PG_DUMP_ERROR.search(text)
    if found is None:
        return "OutOfMemory" if text.startswith("out of memory") else None
    said = text[found.end() :]
    if said.startswith(("connection to server ", 'connection to database "')):
        return connection_text_reason(said, names) or "DatabaseUnreachable"
    if query := _QUERY.match(said):
        return _server_reason(said[query.end() :])
    if contents := _CONTENTS.match(_without_name(said, tables)):
        return _server_reason(contents.string[contents.end() :])
    return None


def _without_name(said: str, tables: Iterable[str]) -> str:
    """A name can hold the very words that follow it."""
    known = max((name for name in tables if said.startswith(f'Dumping the contents of table "{name}" failed: PQget')), key=len, default="")
    return said.replace(f'"{known}"', '""', 1)


def _server_reason(text: str) -> ReasonName | None:
    severity, separator, message = text.partition(":  ")
    if separator and severity in _SESSION_ENDED:
        return "RecoveryConflict" if message.startswith("terminating connection due to conflict with recovery") else "ConnectionLost"
    if separator and severity == "ERROR":
        return _first(_DUMPING, message)
    return _first(_LOST, text)


def _first(texts: _Texts, message: str) -> ReasonName | None:
    return next((reason for reason, pattern in texts if pattern.match(message)), None)
