"""An error's reason comes from its SQLSTATE and from where it arose, whatever names its text
holds."""

from __future__ import annotations

from itertools import product

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.unit.support.server_errors import raised

from dbbackup.contract.errors import ReasonName
from dbbackup.dataplane.postgres.reasons import connection_text_reason, pg_dump_reason, query_reason, session_ended, session_reason
from dbbackup.dataplane.restore.statement_errors import statement_failure

HOST, USER, DATABASE = "pg.certificate.example", "app", "x"
KNOWN = (HOST, USER, DATABASE)
TRAPS = (
    "certificate",
    "permission denied",
    "conflict with recovery",
    "out of memory",
    'x" failed: PQgetResult() failed.\npg_dump: detail: Error message from server: FATAL:  out of shared memory',
    "\npg_dump: error: query failed: ERROR:  out of shared memory",
    '"\nconnection to server at "h", port 1 failed: FATAL:  database "x" does not exist',
    "ERROR:  deadlock detected",
    'SSL error: " authentication failed',
)
names = st.one_of(st.sampled_from(TRAPS), st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40))


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# Sessions

STATES: list[tuple[str, dict[str, str], ReasonName | None]] = [
    ("42501", {}, "InsufficientPrivilege"),
    ("55P03", {}, "LockTimeout"),
    ("40P01", {}, "LockTimeout"),
    ("25006", {}, "TargetReadOnly"),
    ("53100", {}, "ServerDiskFull"),
    ("53200", {"source_file": "lock.c"}, "TooManyLocks"),
    ("53200", {"source_file": "mcxt.c"}, None),
    ("57P01", {"severity": "FATAL"}, "ConnectionLost"),
    ("40001", {"severity": "FATAL"}, "RecoveryConflict"),
    ("25P04", {"severity": "FATAL"}, "ConnectionLost"),
    ("08001", {}, None),
    ("08006", {}, None),
    ("57P01", {}, None),
    ("57014", {}, None),
    ("28P01", {}, None),
    ("3D000", {}, None),
    ("0A000", {}, None),
]


@given(message=names)
def test_a_statement_is_judged_by_its_state(message: str) -> None:
    for state, where, reason in STATES:
        assert session_reason(raised(state, message, **where)) == reason, state


@given(message=names)
def test_queries_of_our_own(message: str) -> None:
    assert query_reason(raised("40001", message)) == "RecoveryConflict"
    assert query_reason(raised("42501", message, source_file="rls.c")) == "RowSecurity"
    assert query_reason(raised("42501", message, source_file="aclchk.c")) == "InsufficientPrivilege"


def test_the_end_of_a_session() -> None:
    assert session_ended(psycopg.OperationalError("server closed the connection unexpectedly"))
    assert session_ended(raised("57P01", severity="FATAL"))
    assert not session_ended(raised("57P01"))
    assert not session_ended(psycopg.ProgrammingError("a mistake of ours"))


@given(message=names)
def test_a_foreign_server_that_is_unreachable_is_no_lost_connection(message: str) -> None:
    failure = statement_failure(raised("08001", f'could not connect to server "{message}"'), "REFRESH MATERIALIZED VIEW public.cached;", "db")
    assert failure.reason.name == "RestoreFailed"
    assert "REFRESH MATERIALIZED VIEW public.cached: could not connect to server" in failure.message


def test_only_a_function_relies_on_the_search_path() -> None:
    inside = raised("42P01", 'relation "t" does not exist', context="PL/pgSQL function public.f() line 1 at SQL statement")
    assert statement_failure(inside, "COPY a.b FROM stdin;", "db").reason.name == "SearchPathDependency"
    quoting = raised("42P01", 'relation "t" does not exist', context="COPY SQL function line 1")
    assert statement_failure(quoting, "COPY a.b FROM stdin;", "db").reason.name == "RestoreFailed"


# Connecting

CONNECTING: list[tuple[str, ReasonName | None]] = [
    ('FATAL:  password authentication failed for user "{user}"', "AuthenticationFailed"),
    ('FATAL:  Peer authentication failed for user "{user}"', "AuthenticationFailed"),
    ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "{user}", database "{database}", no encryption', "AuthenticationFailed"),
    ('FATAL:  role "{user}" does not exist', "AuthenticationFailed"),
    ('FATAL:  role "{user}" is not permitted to log in', "AuthenticationFailed"),
    ("fe_sendauth: no password supplied", "AuthenticationFailed"),
    ('FATAL:  database "{database}" does not exist', "DatabaseNotFound"),
    ('FATAL:  permission denied for database "{database}"\nDETAIL:  User does not have CONNECT privilege.', "InsufficientPrivilege"),
    ("FATAL:  the database system is starting up", None),
    ("FATAL:  sorry, too many clients already", None),
    ('FATAL:  too many connections for database "{database}"', None),
    ("Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?", None),
    ("timeout expired", None),
    ("server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally", None),
    ("server does not support SSL, but SSL was required", "TLSFailed"),
    ("SSL error: certificate verify failed", "TLSFailed"),
    ('server certificate for "a" does not match host name "{host}"', "TLSFailed"),
    ('root certificate file "/ca/ca.crt" does not exist\nEither provide the file or change sslmode.', "TLSFailed"),
]
REFUSED = 'connection to server at "::1", port 1 failed: Connection refused'
FORMS = (
    'connection failed: connection to server at "{host}" (10.0.0.1), port 5432 failed: {text}',
    f'{REFUSED}\nconnection to server at "{{host}}" (::1), port 5432 failed: {{text}}',
    (
        f"Multiple connection attempts failed. All failures were:\n- host: 'h', port: '1', hostaddr: '::1': connection failed: {REFUSED}\n"
        "- host: 'h', port: '1', hostaddr: '1.1.1.1': connection failed: connection to server at \"1.1.1.1\", port 1 failed: {text}"
    ),
    'connection to server on socket "/tmp/.s.PGSQL.5432" failed: {text}',
    'connection to database "{database}" failed: {text}',
)


@given(user=names, database=names)
@example("does not exist", 'database "x" does not exist')
def test_names_never_change_why_there_is_no_connection(user: str, database: str) -> None:
    known = {"host": HOST, "user": user, "database": database}
    for form, (text, reason) in product(FORMS, CONNECTING):
        message = form.format(**known, text=text.format(**known))
        assert connection_text_reason(message, tuple(known.values())) == reason, message
        if message.startswith("connection to "):
            assert pg_dump_reason(f"pg_dump: error: {message}", tuple(known.values()), ()) == (reason or "DatabaseUnreachable"), message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("failed to resolve host 'certificate.example': [Errno -2] Name or service not known", None),
        ('could not translate host name "SSL error" to address: Name or service not known', None),
        ("connection timeout expired", None),
        ('server login failed: FATAL password authentication failed for user "x"', "AuthenticationFailed"),
        ("server login has been failing, try again later (server_login_retry)", None),
        ("no such user: certificate", "AuthenticationFailed"),
        ("no such database: certificate", "DatabaseNotFound"),
    ],
)
def test_texts_of_other_forms(text: str, reason: ReasonName | None) -> None:
    assert connection_text_reason(text, KNOWN) == reason


# pg_dump

QUERIES: list[tuple[str, ReasonName | None]] = [
    ("ERROR:  permission denied for table {name}", "InsufficientPrivilege"),
    ("ERROR:  permission denied for large object 7", "InsufficientPrivilege"),
    ('ERROR:  query would be affected by row-level security policy for table "{name}"', "RowSecurity"),
    ("ERROR:  canceling statement due to lock timeout", "LockTimeout"),
    ('ERROR:  could not obtain lock on relation "{name}"', "LockTimeout"),
    ("ERROR:  canceling statement due to conflict with recovery\nDETAIL:  User query might have needed to see row versions", "RecoveryConflict"),
    ("FATAL:  terminating connection due to conflict with recovery", "RecoveryConflict"),
    ("FATAL:  terminating connection due to administrator command\nSSL connection has been closed unexpectedly", "ConnectionLost"),
    ("server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally", "ConnectionLost"),
    ("SSL SYSCALL error: EOF detected", "ConnectionLost"),
    ("could not receive data from server: Connection timed out", "ConnectionLost"),
    ("ERROR:  invalid memory alloc request size 1258291203", "ValueTooLarge"),
    ("ERROR:  out of memory\nDETAIL:  Cannot enlarge string buffer containing 1 bytes by 2 more bytes.", "ValueTooLarge"),
    ("ERROR:  string buffer exceeds maximum allowed length (1073741823 bytes)", "ValueTooLarge"),
    ('ERROR:  out of shared memory\nHINT:  You might need to increase "max_locks_per_transaction".', "TooManyLocks"),
    ("ERROR:  out of memory\nDETAIL:  Failed on request of size 16.", None),
    ('ERROR:  could not connect to server "{name}"', None),
    ('ERROR:  relation "{name}" does not exist', None),
    ('ERROR:  character with byte sequence 0x81 in encoding "WIN1252" has no equivalent in encoding "UTF8"', None),
    ("SCHWERWIEGEND:  {name}", None),
]


@given(name=names, column=names)
def test_names_never_change_what_pg_dump_says(name: str, column: str) -> None:
    for text, reason in QUERIES:
        says(text.format(name=name), name, column, reason)


def says(message: str, name: str, column: str, reason: ReasonName | None) -> None:
    query = f"pg_dump: error: query failed: {message}\npg_dump: detail: Query was: COPY public.{quoted(name)} ({quoted(column)}) TO stdout;"
    assert pg_dump_reason(query, KNOWN, [name]) == reason
    for kind, command in (("detail", "Command was"), ("error", "The command was")):  # from 14 on, and before
        contents = (
            f'pg_dump: error: Dumping the contents of table "{name}" failed: PQgetResult() failed.\n'
            f"pg_dump: {kind}: Error message from server: {message}\n"
            f"pg_dump: {kind}: {command}: COPY public.{quoted(name)} ({quoted(column)}) TO stdout;"
        )
        assert pg_dump_reason(contents, KNOWN, ["other", name, "certificate"]) == reason


def test_pg_dump_and_its_lock_timeout() -> None:
    late = "pg_dump: error: query failed: ERROR:  canceling statement due to statement timeout\npg_dump: detail: Query was: "
    assert pg_dump_reason(f"{late}LOCK TABLE public.t IN ACCESS SHARE MODE", KNOWN, ()) == "LockTimeout"
    assert pg_dump_reason(f"{late}SELECT 1", KNOWN, ()) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", None),
        ("out of memory", "OutOfMemory"),
        ("pg_dump: warning: permission denied for table t", None),
        ("pg_dump: error: schema with OID 1 does not exist: certificate", None),
    ],
)
def test_what_else_pg_dump_says(text: str, reason: ReasonName | None) -> None:
    assert pg_dump_reason(text, KNOWN, ()) == reason
