"""Runs on one database exclude each other by an advisory lock in it: a restore takes it
exclusively, backups share it.

Kubernetes cannot know that two Secrets lead to one database; PostgreSQL does. The lock belongs to
the session and ends with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal

import psycopg

from dbbackup.contract.errors import Failure
from dbbackup.dataplane.postgres.connection import Connection, one, to_failure
from dbbackup.dataplane.postgres.conninfo import Conninfo

if TYPE_CHECKING:
    from dbbackup.dataplane.context import Stop
    from dbbackup.dataplane.logs import Reporter

KEY = 0x6462_6261_636B_7570
""""dbbackup" in ASCII: the lock's key. It never changes, so that different versions of the operator
exclude each other."""

Mode = Literal["shared", "exclusive"]

_HOLDERS = """
SELECT pg_catalog.string_agg(pg_catalog.format('%%s (process %%s)', coalesce(nullif(a.application_name, ''), 'a session'), l.pid), ', ')
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.database = (SELECT oid FROM pg_catalog.pg_database
 WHERE datname = pg_catalog.current_database()) AND (l.classid::bigint << 32) | l.objid::bigint = %s
"""


def hold_run_lock(connection: Connection, info: Conninfo, mode: Mode, stop: Stop, reporter: Reporter) -> None:
    """Takes the lock for the lifetime of the session. Waits for other runs, and reports so, until
    this run is stopped: then Failure DatabaseBusy at its timeout, else the stop's own."""
    suffix = "_shared" if mode == "shared" else ""
    try:
        row = connection.execute(f"SELECT pg_catalog.pg_try_advisory_lock{suffix}(%s)", (KEY,)).fetchone()
        if row and row[0]:
            return
        holders = connection.execute(_HOLDERS, (KEY,)).fetchone()
        who = str(holders[0]) if holders and holders[0] else "another run"
        reporter.waiting(f"waiting for {who} on {info.identity}")
        with stop.calling(lambda: cancel(connection)):
            connection.execute(f"SELECT pg_catalog.pg_advisory_lock{suffix}(%s)", (KEY,))
    except psycopg.Error as error:
        if stop.failure:
            if stop.failure.reason.name == "Timeout":
                raise Failure("DatabaseBusy", f"{info.who}: another run held the database until this run's timeout") from None
            raise stop.failure from None
        raise to_failure(error, info, "waiting for other runs on the database", "ConnectionLost") from None
    stop.check()


@contextmanager
def beside_backups(connection: Connection, info: Conninfo) -> Iterator[bool]:
    """Yields whether backups, and no restore, hold the lock. If so, this session shares it during
    the block, so that no restore begins meanwhile."""
    try:
        free = one(connection, "SELECT pg_catalog.pg_try_advisory_lock(%s)", (KEY,))[0]
        shared = not free and one(connection, "SELECT pg_catalog.pg_try_advisory_lock_shared(%s)", (KEY,))[0]
        if free:
            connection.execute("SELECT pg_catalog.pg_advisory_unlock(%s)", (KEY,))
    except psycopg.Error as error:
        raise to_failure(error, info, "looking for other runs on the database", "ConnectionLost") from None
    try:
        yield shared
    finally:
        if shared:
            with suppress(psycopg.Error):  # a session that has ended holds nothing
                connection.execute("SELECT pg_catalog.pg_advisory_unlock_shared(%s)", (KEY,))


def cancel(connection: Connection) -> None:
    """Asks the server to cancel the session's query; from any thread."""
    with suppress(psycopg.Error):
        connection.cancel_safe(timeout=10)
