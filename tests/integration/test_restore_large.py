"""Many tables, large values, and what they take of locks, memory and time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.conftest import Job, Postgres, start_postgres
from tests.integration.test_restore_refused import restore, untouched


@pytest.fixture(scope="module")
def narrow() -> Iterator[Postgres]:
    """A server with the default room for locks."""
    yield from start_postgres(Path("/tmp/dbbackup-postgres-narrow"), max_connections="100")


def many_tables(postgres: Postgres, database: str, count: int) -> None:
    postgres.load("".join(f"CREATE TABLE t{i} (id serial PRIMARY KEY, a text);INSERT INTO t{i} (a) VALUES ('x');" for i in range(count)), database)


def test_replacing_1200_tables_is_refused_with_the_setting_that_it_needs(job: Job, narrow: Postgres) -> None:
    narrow.execute("DROP DATABASE IF EXISTS many WITH (FORCE)")
    narrow.execute("CREATE DATABASE many")
    many_tables(narrow, "many", 1200)
    job.postgres = narrow
    job.connect_to("many")
    backup = job.backup()
    with untouched(narrow, "many"):
        ended = restore(job, backup, "many", on_existing="Replace", safety_backup=False)
    assert ended.reason == "TooManyLocks", ended.log
    assert ended.report.failure
    found = re.search(r"set max_locks_per_transaction to (\d+)", ended.report.failure.message)
    assert found
    assert 128 <= int(found[1]) <= 192
    narrow.execute("CREATE DATABASE fresh")
    assert restore(job, backup, "fresh").code == 0


def test_the_setting_that_is_named_suffices(job: Job) -> None:
    for server in start_postgres(Path("/tmp/dbbackup-postgres-wide"), max_connections="100", max_locks_per_transaction="160"):
        server.execute("CREATE DATABASE many")
        many_tables(server, "many", 1200)
        job.postgres = server
        job.connect_to("many")
        before = server.dump("many")
        ended = restore(job, job.backup(), "many", on_existing="Replace", safety_backup=False)
        assert ended.code == 0, ended.log
        assert server.dump("many") == before


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_a_text_of_100_megabytes_survives(job: Job, postgres: Postgres, database: str, new_database: Callable[..., str], form: str) -> None:
    postgres.load(
        "CREATE TABLE t (id int PRIMARY KEY, a text);INSERT INTO t SELECT 1, string_agg(md5(i::text), E'\\n') FROM generate_series(1, 3200000) i;"
        "INSERT INTO t VALUES (2, NULL)",
        database,
    )
    digest = "SELECT id, length(a), md5(a) FROM t ORDER BY id"
    wanted = postgres.execute(digest, database)
    assert wanted[0][1] > 100_000_000
    backup = job.backup(format=form)
    assert backup.code == 0, backup.log
    target = new_database()
    ended = restore(job, backup, target)
    assert ended.code == 0, ended.log
    assert postgres.execute(digest, target) == wanted
