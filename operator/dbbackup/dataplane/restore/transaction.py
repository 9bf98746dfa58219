"""The one transaction of a restore: it is opened, then committed or rolled back, and never silently
left in doubt."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import TransactionStatus

from dbbackup.contract.errors import Failure
from dbbackup.dataplane.postgres.connection import Connection, connect, to_failure
from dbbackup.dataplane.postgres.conninfo import Conninfo
from dbbackup.dataplane.restore.statement_errors import statement_failure

if TYPE_CHECKING:
    from dbbackup.dataplane.context import Stop
    from dbbackup.dataplane.logs import Reporter

SETTLE_SECONDS = 60.0
"""How long the server is asked for the outcome of an uncertain COMMIT, and how long a backend may
take to end."""
_PAUSE = 0.25
_CHECK_INTERVAL = "10s"
_SESSION_ENDED = {"FATAL", "PANIC"}
"""Severities that end the session, not only the transaction: after a PANIC because a commit record
could not be flushed, that record may still be replayed."""

_SETTINGS = """
SELECT pg_catalog.set_config(name, CASE name WHEN 'lock_timeout' THEN %s WHEN 'client_connection_check_interval' THEN %s ELSE '0' END, true)
FROM pg_catalog.pg_settings
WHERE name IN ('lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout', 'client_connection_check_interval')
"""
_IDENTITY = """
SELECT pg_catalog.txid_current()::text, pg_catalog.pg_backend_pid(),
       pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())
"""


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """`xid` is the transaction's ID with its epoch; `timeline` is the server's, without which the
    ID means nothing after a failover."""

    xid: str
    pid: int
    timeline: str


class Transaction:
    """The transaction over `connection`, which outlives it: the session holds the advisory lock.
    Call `commit` or `abort`, once."""

    def __init__(self, connection: Connection, info: Conninfo, stop: Stop, reporter: Reporter) -> None:
        self._connection = connection
        self._info = info
        self._stop = stop
        self._reporter = reporter
        self._opened: OpenTransaction | None = None

    def begin(self, lock_timeout_seconds: int) -> OpenTransaction:
        """BEGIN, with settings for this transaction alone, and a transaction ID."""
        try:
            self._connection.execute("BEGIN")
            self._connection.execute(
                _SETTINGS,
                (f"{lock_timeout_seconds}s", _CHECK_INTERVAL),
            )
            row = self._connection.execute(_IDENTITY).fetchone()
        except psycopg.Error as error:
            raise to_failure(error, self._info, "opening the transaction", "RestoreFailed") from None
        if row is None:
            raise Failure("RestoreFailed", f"{self._info.who}: the server returned no transaction ID")
        self._opened = OpenTransaction(str(row[0]), int(row[1]), str(row[2])[:8])
        return self._opened

    def commit(self) -> None:
        """COMMIT. After a lost reply the server is asked for the outcome: Failure OutcomeUnknown
        where it remains unknown, any other Failure where the transaction was rolled back."""
        if self._connection.pgconn.transaction_status != TransactionStatus.INTRANS:
            raise Failure("RestoreFailed", f"{self._info.who}: the transaction was no longer open at COMMIT; everything was rolled back")
        try:
            tag = self._connection.execute("COMMIT").statusmessage
        except psycopg.Error as error:
            if error.sqlstate and not error.sqlstate.startswith(("08", "57P")) and error.diag.severity_nonlocalized not in _SESSION_ENDED:
                raise statement_failure(error, "COMMIT", self._info.who) from None
            self._settle(" ".join(str(error).split()))
            return
        if tag != "COMMIT":
            raise Failure("RestoreFailed", f"{self._info.who}: the server answered COMMIT with {tag}; everything was rolled back")

    def _settle(self, lost: str) -> None:
        opened = self._require()
        self._reporter.warn(f"the reply to COMMIT was lost ({lost}); asking the server for the outcome of transaction {opened.xid}")
        deadline = time.monotonic() + SETTLE_SECONDS
        answer = "no connection could be made"
        while time.monotonic() < deadline:
            try:
                with connect(self._info, "dbbackup settle") as session:
                    status, timeline = transaction_status(session, opened.xid)
            except (Failure, psycopg.Error) as error:
                answer = " ".join(str(error).split())
                time.sleep(_PAUSE)
                continue
            if timeline != opened.timeline:
                answer = f"the server is now on timeline {timeline}, the transaction was on {opened.timeline}"
                break
            if status == "committed":
                self._reporter.info(f"transaction {opened.xid} was committed")
                return
            if status == "aborted":
                raise Failure("ConnectionLost", f"{self._info.who}: the connection was lost during COMMIT and the server rolled everything back")
            answer = f"the server reports the status {status or 'unknown'}"
            time.sleep(_PAUSE)
        raise Failure("OutcomeUnknown", f"{self._info.who}: the reply to COMMIT of transaction {opened.xid} was lost, and {answer}")

    def abort(self) -> None:
        """Rolls back, and returns only when the server has ended the transaction. Never raises: the
        reason for the abort matters more."""
        with suppress(psycopg.Error):
            if not self._connection.closed and self._connection.pgconn.transaction_status != TransactionStatus.ACTIVE:
                self._connection.execute("ROLLBACK")
                return
        with suppress(psycopg.Error):
            self._connection.close()
        if self._opened is None:
            return
        try:
            gone = end_backend(self._info, self._opened)
        except (Failure, psycopg.Error) as error:
            self._reporter.warn(f"could not find out whether the restore's server process has ended: {' '.join(str(error).split())}")
            return
        if not gone:
            self._reporter.warn(
                f"server process {self._opened.pid} still runs after {SETTLE_SECONDS:.0f} s; its transaction will be rolled back when it ends"
            )

    def _require(self) -> OpenTransaction:
        if self._opened is None:
            raise Failure("InternalError", "the outcome of a transaction that was not opened was asked for")
        return self._opened


def transaction_status(session: Connection, xid: str) -> tuple[str, str]:
    """(committed, aborted, in progress, or empty where the transaction is too old; the server's
    timeline)."""
    row = session.execute(
        "SELECT pg_catalog.txid_status(%s::bigint), pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())", (int(xid),)
    ).fetchone()
    return (str(row[0] or ""), str(row[1])[:8]) if row else ("", "")


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
