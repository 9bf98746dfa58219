"""Names who is in the way of a lock: asked from a second session, and while the first one waits.
Afterwards the answer would be another: the wait is over, and a deadlock's other side goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from dbbackup.contract.errors import Failure
from dbbackup.dataplane.postgres.connection import Connection, one
from dbbackup.dataplane.postgres.own_settings import OwnSettings

_PAUSE = 0.2
_NAMED = 8

_WAITS = "SELECT pg_catalog.cardinality(pg_catalog.pg_blocking_pids(%s)) > 0"
# A prepared transaction has no process: for pg_blocking_pids it is 0, in pg_locks NULL. There its
# lock on its own transaction id tells which it is.
_HOLDERS = """
WITH RECURSIVE ahead (pid) AS (
  SELECT p FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(%(pid)s)) p
  UNION SELECT p FROM ahead, LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(ahead.pid)) p WHERE ahead.pid <> 0 AND p <> %(pid)s
),
wanted (pid, relation, mode) AS (
  SELECT l.pid, l.relation, l.mode FROM pg_catalog.pg_locks l
  WHERE NOT l.granted AND l.locktype = 'relation' AND (l.pid = %(pid)s OR l.pid IN (SELECT pid FROM ahead))
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
),
granted (pid, virtualtransaction, relation) AS (
  SELECT DISTINCT l.pid, l.virtualtransaction, l.relation FROM pg_catalog.pg_locks l JOIN wanted w USING (relation)
  WHERE l.granted AND l.locktype = 'relation' AND l.pid IS DISTINCT FROM w.pid
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    AND (w.mode = 'AccessExclusiveLock' OR l.mode <> 'AccessShareLock')
),
named (line, text) AS (
  SELECT 1, pg_catalog.format('prepared transaction %%L (user %%s, since %%s) holds %%s: COMMIT PREPARED or ROLLBACK PREPARED it',
           p.gid, p.owner, pg_catalog.to_char(p.prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), g.relation::pg_catalog.regclass)
  FROM granted g JOIN pg_catalog.pg_locks l ON l.virtualtransaction = g.virtualtransaction AND l.locktype = 'transactionid' AND l.pid IS NULL
  JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = l.transactionid
  WHERE g.pid IS NULL AND 0 IN (SELECT pid FROM ahead)
  UNION ALL
  SELECT CASE WHEN g.relation IS NULL THEN 3 ELSE 2 END, pg_catalog.format('process %%s (%%s, %%s, transaction since %%s) %%s', a.pid,
           coalesce('user ' || s.usename, s.backend_type, 'of another user'), coalesce(nullif(s.application_name, ''), 'no application name'),
           coalesce(pg_catalog.to_char(s.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), '?'),
           coalesce('holds ' || g.relation::pg_catalog.regclass,
             (SELECT 'waits before this run for ' || w.relation::pg_catalog.regclass FROM wanted w WHERE w.pid = a.pid LIMIT 1),
             'holds what the others wait for'))
  FROM ahead a LEFT JOIN granted g USING (pid) LEFT JOIN pg_catalog.pg_stat_activity s ON s.pid = a.pid
  WHERE a.pid <> 0
)
SELECT pg_catalog.array_agg(text ORDER BY line, text) FROM named
"""


@contextmanager
def naming_holders(connection: Connection, doing: str) -> Iterator[None]:
    """Within the block `connection` asks for locks. Where one is not granted in time, Failure
    LockTimeout names the tables and who holds them. `doing` begins its message, where the error is
    the server's own. Runs a query before the block."""
    watch = _Watch(connection)
    try:
        yield
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        raise Failure("LockTimeout", f"{doing}: {error.diag.message_primary}: {watch.end()}") from None
    except Failure as failure:
        if failure.reason.name == "LockTimeout":
            failure.message += f": {watch.end()}"
        raise
    finally:
        watch.end()


class _Watch:
    """Asks, in a thread of its own, until `end`."""

    def __init__(self, connection: Connection) -> None:
        self._holders: list[str] = []
        self._pid = one(connection, "SELECT pg_catalog.pg_backend_pid()")[0]  # a pooler's client knows another one
        self._dsn = connection.info.dsn
        self._password = connection.info.password
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="lock-holders", daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        if self._over.wait(_PAUSE):
            return  # most locks are granted at once
        with (
            suppress(psycopg.Error),
            psycopg.connect(self._dsn, password=self._password, application_name="dbbackup locks", autocommit=True) as session,
        ):
            OwnSettings(session).pin()
            while not self._over.is_set():
                if one(session, _WAITS, (self._pid,))[0] and (found := one(session, _HOLDERS, {"pid": self._pid})[0]):
                    self._holders = [str(text) for text in found]
                self._over.wait(_PAUSE)

    def end(self) -> str:
        """The last answer that named any."""
        self._over.set()
        self._thread.join()
        more = f"; and {len(self._holders) - _NAMED} more" if len(self._holders) > _NAMED else ""
        return "; ".join(self._holders[:_NAMED]) + more or "who holds it could not be seen"
