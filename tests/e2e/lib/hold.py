"""Runs held at a chosen point by a lock that the test has: faults can then be made there, without
guessing times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.e2e.lib.postgres import Database

DUMP, RESTORE = "dbbackup pg_dump", "dbbackup restore"
"""application_name of pg_dump's session, and of a restore's."""
_GATE = 4711
_STATE = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = '{}' AND wait_event_type = '{}'"


def fill(database: Database, megabytes: int = 20) -> None:
    """Table `big` of so many MB as SQL, `things` of 300 rows, and what `dump_after_rows` needs."""
    database.execute(
        "CREATE TABLE big AS SELECT n AS id, repeat(md5(n::text), 32) AS text FROM generate_series(1, " + str(1000 * megabytes) + ") n",
        "CREATE TABLE things AS SELECT n AS id, 'thing ' || n AS name FROM generate_series(1, 300) n",
        "CREATE TABLE zz_held (value text)",
        "ALTER TABLE zz_held ALTER value SET STORAGE EXTERNAL",
        "INSERT INTO zz_held VALUES (repeat('x', 10000))",
    )


@contextmanager
def dump_after_rows(database: Database) -> Iterator[None]:
    """pg_dump writes all rows but those of `zz_held`, and stays there: its value is out of line,
    and the index that leads there is locked."""
    (index,) = database.query(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = (SELECT reltoastrelid FROM pg_class WHERE oid = 'zz_held'::regclass)"
    )[0]
    connection = database.connect(superuser=True)
    try:
        connection.execute(f"BEGIN; REINDEX INDEX {index}")
        yield
    finally:
        connection.close()  # which rolls back, where the server has not gone meanwhile


def gate(database: Database) -> None:
    """Makes each restore of the database's dump stay at its last index while `restore_at_end`
    lasts."""
    database.execute(
        "CREATE FUNCTION public.gate(id int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS"
        f" 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared({_GATE}); RETURN id; END'",
        "CREATE TABLE last (id int)",
        "INSERT INTO last VALUES (1)",
        "CREATE INDEX z_last ON last (public.gate(id))",
    )


@contextmanager
def restore_at_end(target: Database) -> Iterator[None]:
    """A restore of a dump with a `gate` has put in every row, and not committed."""
    connection = target.connect()
    try:
        connection.execute("SELECT pg_advisory_lock(%s)", (_GATE,))
        yield
    finally:
        connection.close()


def stays(database: Database, application: str, wait: str = "Lock") -> None:
    """Returns once that session waits for something of that kind."""
    database.execute(
        "SET statement_timeout = '120s'",
        f"DO $$ BEGIN WHILE NOT EXISTS (SELECT {_STATE.format(application, wait)}) LOOP PERFORM pg_sleep(0.05); PERFORM pg_stat_clear_snapshot();"
        " END LOOP; END $$",
        superuser=True,
    )


def gone(database: Database, application: str) -> None:
    """Returns once no such session is left."""
    database.execute(
        "SET statement_timeout = '120s'",
        "DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = '"
        + application
        + "') LOOP PERFORM pg_sleep(0.05); PERFORM pg_stat_clear_snapshot(); END LOOP; END $$",
        superuser=True,
    )


def terminate(database: Database, application: str) -> None:
    """Ends those sessions at the server, as an administrator does."""
    query = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = '{application}'"
    assert database.query(query), f"there is no session {application}"


def eventually(true: Callable[[], object], what: str, timeout: float = 60) -> None:
    """Returns once it is true; for what can't be watched, such as a bucket."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.2)
