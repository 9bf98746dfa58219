"""A lock that is not granted in time: the message names the table and who is in the way."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.conftest import Job, Postgres, start_postgres
from tests.integration.test_restore_refused import restore


@pytest.fixture(scope="module")
def two_phase() -> Iterator[Postgres]:
    """A server that takes prepared transactions."""
    yield from start_postgres(Path(f"/tmp/dbbackup-postgres-two-phase-{os.getpid()}"), max_prepared_transactions="5")


def test_a_prepared_transaction_that_holds_a_table_is_named(job: Job, two_phase: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no session: nobody would find it."""
    there = replace(job, postgres=two_phase)
    two_phase.load("CREATE TABLE public.stuck (id int PRIMARY KEY); INSERT INTO public.stuck VALUES (1);", "postgres")
    there.connect_to("postgres")
    backup = there.backup()
    two_phase.load("BEGIN; LOCK TABLE public.stuck; PREPARE TRANSACTION 'half''s';", "postgres")
    named = (
        r"prepared transaction 'half''s' \(user postgres, since [-0-9]+ [:0-9]+ UTC\) holds public\.stuck: COMMIT PREPARED or ROLLBACK PREPARED it"
    )
    monkeypatch.setattr("dbbackup.dataplane.backup.snapshot.LOCK_TIMEOUT", "1s")
    for ended in (
        there.another("again").backup(),
        restore(there, backup, "postgres", on_existing="Replace", lock_timeout_seconds=1, safety_backup=False),
    ):
        assert ended.reason == "LockTimeout", ended.log
        assert ended.report.failure
        assert re.search(named, ended.report.failure.message), ended.report.failure.message
    two_phase.load("ROLLBACK PREPARED 'half''s'", "postgres")
    ended = restore(there, backup, "postgres", on_existing="Replace", safety_backup=False)
    assert ended.code == 0, ended.log


def test_who_waits_before_a_backup_is_named(job: Job, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader holds the table, a migration waits for it, and the backup waits behind both."""
    postgres.execute("CREATE TABLE public.busy (a int)", database)
    monkeypatch.setattr("dbbackup.dataplane.backup.snapshot.LOCK_TIMEOUT", "1s")
    with postgres.connect(database) as reader, postgres.connect(database) as migration, reader.transaction():
        reader.execute("SET LOCAL application_name = 'the reader'; SELECT FROM public.busy")
        migration.execute("SET application_name = 'the migration'")
        thread = threading.Thread(target=migration.execute, args=("ALTER TABLE public.busy ADD b int",))
        thread.start()
        waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'public.busy'::regclass"
        while not postgres.execute(f"SELECT EXISTS ({waiting})", database)[0][0]:
            pass
        ended = job.backup()
    thread.join()
    assert ended.reason == "LockTimeout", ended.log
    assert ended.report.failure
    assert re.search(r"the migration, transaction since \S+ \S+ UTC\) waits before this run for public\.busy", ended.report.failure.message)
    assert re.search(r"the reader, transaction since \S+ \S+ UTC\) holds public\.busy", ended.report.failure.message)


def test_who_reads_a_view_that_is_replaced_is_named(job: Job, postgres: Postgres, database: str) -> None:
    """No LOCK TABLE takes it: its DROP waits."""
    postgres.load("CREATE MATERIALIZED VIEW read AS SELECT 1 AS one", database)
    backup = job.backup()
    with postgres.connect(database) as reader, reader.transaction():
        reader.execute("SET LOCAL application_name = 'the reader'; SELECT FROM read")
        ended = restore(job, backup, database, on_existing="Replace", lock_timeout_seconds=1, safety_backup=False)
    assert ended.reason == "LockTimeout", ended.log
    assert ended.report.failure
    named = r"DROP MATERIALIZED VIEW .*: canceling statement due to lock timeout: process \d+ \(user postgres, the reader, .*\) holds public\.read;"
    assert re.search(named, ended.report.failure.message), ended.report.failure.message
