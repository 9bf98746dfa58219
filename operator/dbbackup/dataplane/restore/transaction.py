"""The one transaction of a restore: it is opened, then committed or rolled back, and never silently
left in doubt.

How it ended is what the server says of its ID, after a failure too: the SQL of an artifact could
have ended it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import TransactionStatus

from dbbackup.contract.errors import Failure
from dbbackup.dataplane.postgres.connection import Connection, connect, one, to_failure
from dbbackup.dataplane.postgres.conninfo import Conninfo
from dbbackup.dataplane.postgres.own_settings import OwnSettings
from dbbackup.dataplane.restore.statement_errors import statement_failure

if TYPE_CHECKING:
    from dbbackup.dataplane.context import Stop
    from dbbackup.dataplane.logs import Reporter

SETTLE_SECONDS = 60.0
"""How long the server is asked for the outcome of an uncertain COMMIT, and how long a backend may
take to end."""
_PAUSE = 0.25
_CHECK_INTERVAL = 10
_SESSION_ENDED = {"FATAL", "PANIC"}
"""Severities that end the session, not only the transaction: after a PANIC because a commit record
could not be flushed, that record may still be replayed."""

_IDENTITY = """
SELECT pg_catalog.txid_current()::pg_catalog.text, pg_catalog.pg_backend_pid(),
       pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())
"""


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """`xid` is the transaction's ID with its epoch; `timeline` is the server's, without which the
    ID means nothing after a failover."""

    xid: str
    pid: int
    timeline: str


class End(Enum):
    """What the server says of a transaction that was not committed by us."""

    ROLLED_BACK = "everything was rolled back"
    COMMITTED = "committed"
    UNKNOWN = "unknown"


class Transaction:
    """The transaction over `connection`, which outlives it: the session holds the advisory lock.
    Call `commit`, and where that or anything before it fails `abort`, once."""

    def __init__(self, connection: Connection, info: Conninfo, stop: Stop, reporter: Reporter, lock_timeout_seconds: int) -> None:
        self._connection = connection
        self._info = info
        self._stop = stop
        self._reporter = reporter
        self.settings = OwnSettings(connection, lock_timeout_seconds, _CHECK_INTERVAL)
        self._opened: OpenTransaction | None = None

    def begin(self) -> OpenTransaction:
        """BEGIN, with our own settings, and a transaction ID."""
        try:
            self._connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE NOT DEFERRABLE")
            self.settings.pin()
            xid, pid, wal_file = one(self._connection, _IDENTITY)
        except psycopg.Error as error:
            with suppress(psycopg.Error):
                self._connection.execute("ROLLBACK")
            raise to_failure(error, self._info, "opening the transaction", "RestoreFailed") from None
        self._opened = OpenTransaction(str(xid), int(pid), str(wal_file)[:8])
        return self._opened

    def commit(self) -> None:
        """COMMIT. After a lost reply the server is asked for the outcome: Failure OutcomeUnknown
        where it remains unknown, any other Failure where the transaction was not committed."""
        opened = self._require()
        if self._connection.pgconn.transaction_status != TransactionStatus.INTRANS:
            raise Failure("RestoreFailed", f"{self._info.who}: the transaction was no longer open at COMMIT")
        try:
            self.settings.pin()
            now = one(self._connection, "SELECT pg_catalog.txid_current()::pg_catalog.text")[0]
        except psycopg.Error as error:
            raise to_failure(error, self._info, "reading the transaction's ID", "RestoreFailed") from None
        if now != opened.xid:
            raise Failure("RestoreFailed", f"{self._info.who}: the artifact has ended transaction {opened.xid}; another, {now}, was open at its end")
        try:
            tag = self._connection.execute("COMMIT").statusmessage
        except psycopg.Error as error:
            if error.sqlstate and not error.sqlstate.startswith(("08", "57P")) and error.diag.severity_nonlocalized not in _SESSION_ENDED:
                raise statement_failure(error, "COMMIT", self._info.who) from None
            lost = " ".join(str(error).split())
            self._reporter.warn(f"the reply to COMMIT was lost ({lost}); asking the server for the outcome of transaction {opened.xid}")
            end, answer = self._ask()
            if end is End.ROLLED_BACK:
                raise Failure("ConnectionLost", f"{self._info.who}: the connection was lost during COMMIT") from None
            if end is End.UNKNOWN:
                raise Failure("OutcomeUnknown", f"{self._info.who}: the reply to COMMIT of transaction {opened.xid} was lost, and {answer}") from None
            self._reporter.info(f"transaction {opened.xid} was committed")
            return
        if tag != "COMMIT":
            raise Failure("RestoreFailed", f"{self._info.who}: the server answered COMMIT with {tag}")

    def abort(self) -> tuple[End, str]:
        """Rolls back, waits until the server has ended the transaction, and returns what it says of
        it; for UNKNOWN also why. Never raises: the reason for the abort matters more."""
        opened = self._require()
        with suppress(psycopg.Error):
            if not self._connection.closed and self._connection.pgconn.transaction_status != TransactionStatus.ACTIVE:
                self._connection.execute("ROLLBACK")
                self.settings.pin()
                return _end(transaction_status(self._connection, opened.xid)[0])
        with suppress(psycopg.Error):
            self._connection.close()
        return self._ask(end=True)

    def _ask(self, *, end: bool = False) -> tuple[End, str]:
        """What the server says in another session, asked until it knows. `end`: the backend is
        ended first."""
        opened = self._require()
        deadline = time.monotonic() + SETTLE_SECONDS
        answer = "no connection could be made"
        while time.monotonic() < deadline:
            try:
                if end and not end_backend(self._info, opened):
                    return End.UNKNOWN, f"server process {opened.pid} still runs; its transaction will be rolled back when it ends"
                with connect(self._info, "dbbackup settle") as session:
                    status, timeline = transaction_status(session, opened.xid)
            except (Failure, psycopg.Error) as error:
                answer = " ".join(str(error).split())
                time.sleep(_PAUSE)
                continue
            if timeline != opened.timeline:
                return End.UNKNOWN, f"the server is now on timeline {timeline}, the transaction was on {opened.timeline}"
            found, answer = _end(status)
            if found is not End.UNKNOWN:
                return found, ""
            time.sleep(_PAUSE)
        return End.UNKNOWN, answer

    def _require(self) -> OpenTransaction:
        if self._opened is None:
            raise Failure("InternalError", "the outcome of a transaction that was not opened was asked for")
        return self._opened


def _end(status: str) -> tuple[End, str]:
    known = {"committed": End.COMMITTED, "aborted": End.ROLLED_BACK, "lost": End.ROLLED_BACK}
    return known.get(status, End.UNKNOWN), f"the server reports the status {status or 'unknown'}"


def transaction_status(session: Connection, xid: str) -> tuple[str, str]:
    """(committed, aborted, in progress, empty where the transaction is too old, or `lost` where the
    server has not yet given that ID: it is another server, or a crash took the transaction with it;
    the server's timeline)."""
    (timeline,) = one(session, "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())")
    try:
        (status,) = one(session, "SELECT pg_catalog.txid_status(%s::bigint)", (int(xid),))
    except psycopg.errors.InvalidParameterValue:
        status = "lost"
    return str(status or ""), str(timeline)[:8]


def end_backend(info: Conninfo, opened: OpenTransaction) -> bool:
    """Ends the server process that still runs the transaction, over a second connection. Returns
    whether it has ended."""
    deadline = time.monotonic() + SETTLE_SECONDS
    with connect(info, "dbbackup end") as session:
        while time.monotonic() < deadline:
            row = session.execute(
                "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
                " WHERE pid = %s AND application_name LIKE 'dbbackup%%' AND pid <> pg_catalog.pg_backend_pid()"
                " AND backend_xid IS NOT DISTINCT FROM %s::text::xid",
                (opened.pid, str(int(opened.xid) % 2**32)),
            ).fetchone()
            if row is None:
                return True
            time.sleep(_PAUSE)
    return False
