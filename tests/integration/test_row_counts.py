"""Rows are counted as pg_dump writes them: tables without columns that are stored, partitions that
are loaded through their root, users' tables in a schema that an extension made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.conftest import Job, Postgres
from tests.integration.test_backup_failures import with_client
from tests.integration.test_restore_refused import restore

from dbbackup.dataplane.backup.snapshot import Relation, Snapshot

FORMS = ["plain", "custom"]

WITHOUT_COLUMNS = """
CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE dropped (a int); INSERT INTO dropped VALUES (1), (2), (3); ALTER TABLE dropped DROP a;
CREATE TABLE computed (a int GENERATED ALWAYS AS (1) STORED); INSERT INTO computed DEFAULT VALUES;
CREATE TABLE none (); CREATE UNLOGGED TABLE unlogged (); INSERT INTO unlogged DEFAULT VALUES;
CREATE TABLE parent (); CREATE TABLE child () INHERITS (parent); INSERT INTO child DEFAULT VALUES;
"""
ROWS = {"nothing": 2, "dropped": 3, "computed": 1, "none": 0, "unlogged": 1, "parent": 0, "child": 1}

THROUGH_ROOT = """
CREATE TYPE mood AS ENUM ('a', 'b', 'c'); CREATE SCHEMA other;
CREATE TABLE hashed (x mood, n int) PARTITION BY HASH (x);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE other."Hashed 1" PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY RANGE (n);
CREATE TABLE low PARTITION OF other."Hashed 1" FOR VALUES FROM (0) TO (50);
CREATE TABLE high PARTITION OF other."Hashed 1" DEFAULT;
INSERT INTO hashed SELECT m, i FROM generate_series(1, 100) i, unnest('{a,b,c}'::mood[]) m;
CREATE TABLE listed (n int) PARTITION BY LIST (n); CREATE TABLE listed_1 PARTITION OF listed FOR VALUES IN (1);
INSERT INTO listed VALUES (1), (1);
"""


MOVING = """
CREATE TYPE mood AS ENUM ('a', 'b', 'c', 'd', 'e'); CREATE TYPE pair AS (x mood, n int); CREATE TYPE moods AS RANGE (subtype = mood);
CREATE TABLE hashed (x {type}, n int) PARTITION BY HASH (x);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO hashed SELECT {value}, i FROM generate_series(1, 10) i, unnest(enum_range(NULL::mood)) m;
"""


def whole(postgres: Postgres, database: str) -> str:
    return postgres.dump(database)


def rerouted(postgres: Postgres, database: str) -> str:
    """As `whole`, but for the partition where a row is: it depends on the oids of an enum."""
    return postgres.dump(database, "--schema-only") + str(postgres.execute("SELECT * FROM hashed ORDER BY x, n", database))


def both_ways(
    job: Job, postgres: Postgres, source: str, target: str, form: str, seen: Callable[[Postgres, str], str] = whole
) -> dict[str, int | None]:
    """A backup, a restore into the empty `target` and a Replace of the source: both equal. The rows
    of the manifest."""
    before = seen(postgres, source)
    backup = job.backup(format=form)
    assert backup.code == 0, backup.log
    assert backup.report.warnings == ()
    for name, options in ((target, {}), (source, {"on_existing": "Replace"})):
        ended = restore(job, backup, name, **options)
        assert ended.code == 0, ended.log
        assert seen(postgres, name) == before
    manifest = job.manifest(backup)
    assert manifest.rows == sum(table.rows or 0 for table in manifest.contents.tables)
    return {table.name: table.rows for table in manifest.contents.tables}


@pytest.mark.parametrize("form", FORMS)
def test_tables_without_stored_columns_have_rows(job: Job, postgres: Postgres, database: str, new_database: Callable[..., str], form: str) -> None:
    postgres.load(WITHOUT_COLUMNS, database)
    assert both_ways(job, postgres, database, new_database(), form) == ROWS


@pytest.mark.parametrize("form", FORMS)
def test_partitions_that_are_loaded_through_their_root(
    job: Job, postgres: Postgres, database: str, new_database: Callable[..., str], form: str
) -> None:
    postgres.load(THROUGH_ROOT, database)
    rows = both_ways(job, postgres, database, new_database(), form, rerouted)
    assert {name: count for name, count in rows.items() if count is not None} == {"hashed": 300, "listed_1": 2}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("type_", "value"),
    [("mood[]", "ARRAY[m]"), ("pair", "ROW(m, i)::pair"), ("moods", "moods(m, NULL)"), ("regtype", "('_mood' || repeat('', i))::regtype")],
)
def test_hashes_that_follow_oids_within_a_value(
    job: Job, postgres: Postgres, database: str, new_database: Callable[..., str], form: str, type_: str, value: str
) -> None:
    """pg_dump by itself does so for plain enums alone: the rows would not fit their partitions."""
    postgres.load(MOVING.format(type=type_, value=value), database)
    assert both_ways(job, postgres, database, new_database(), form, rerouted)["hashed"] == 50


def test_one_partition_that_is_loaded_through_its_root(job: Job, postgres: Postgres, database: str) -> None:
    """Its rows are a part of what the manifest says of the root."""
    postgres.load(THROUGH_ROOT, database)
    before = postgres.dump(database)
    backup = job.backup(format="custom")
    postgres.load("DELETE FROM hashed_0", database)
    ended = restore(job, backup, database, on_existing="Replace", tables=["public.hashed_0"])
    assert ended.code == 0, ended.log
    assert postgres.dump(database) == before


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lost", ["low", "listed_1"])
def test_a_lost_section_is_noticed(job: Job, postgres: Postgres, database: str, tmp_path: Path, form: str, lost: str) -> None:
    """Where one partition's rows are missing, its root's other sections do not stand in for it."""
    postgres.load(THROUGH_ROOT, database)
    with_client(job, tmp_path, f'exec "$REAL" "$@" --exclude-table-data=public.{lost}')
    ended = job.backup(format=form)
    assert ended.reason == "DumpFailed", ended.log
    assert ended.report.failure
    assert "no rows section for " in ended.report.failure.message
    assert f"public.{lost}" in ended.report.failure.message
    assert job.leftovers() == []


def test_a_count_that_fails_fails_no_backup(
    job: Job, postgres: Postgres, database: str, new_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.load(
        "CREATE TABLE first AS SELECT 1 AS a; CREATE TABLE second AS SELECT generate_series(1, 5) AS a; CREATE TABLE third (a int)", database
    )
    before = postgres.dump(database)
    real = Snapshot.count

    def count(self: Snapshot, relation: Relation) -> int | None:
        return real(self, Relation(0, "public", "nowhere", "r", False, False, True, 0, ()) if relation.name == "first" else relation)

    monkeypatch.setattr(Snapshot, "count", count)
    backup = job.backup(format="custom")
    assert backup.code == 0, backup.log
    assert backup.report.warnings == ("the rows of public.first could not be counted: a restore cannot compare them",)
    manifest = job.manifest(backup)
    assert {table.name: table.rows for table in manifest.contents.tables} == {"first": None, "second": 5, "third": 0}
    assert manifest.rows is None
    target = new_database()
    ended = restore(job, backup, target)
    assert ended.code == 0, ended.log
    assert postgres.dump(target) == before


def test_what_is_no_archive_is_no_backup(job: Job, postgres: Postgres, database: str, tmp_path: Path) -> None:
    for name, script in {"empty": "exit 0", "cut": '"$REAL" "$@" | head -c 300; exit 0'}.items():
        with_client(job, tmp_path / name, script)
        ended = job.backup(format="custom")
        assert ended.reason == "DumpFailed", ended.log
        assert "what it wrote is not a dump" in ended.log


@pytest.fixture
def mini_own(postgres: Postgres) -> Iterator[str]:
    """An extension whose script makes a schema."""
    shared = Path(subprocess.check_output([postgres.bin / "pg_config", "--sharedir"], text=True).strip()) / "extension"
    name = f"dbbackup_own_{os.getpid()}"
    files = {
        f"{name}.control": "default_version = '1.0'\nrelocatable = false\n",
        f"{name}--1.0.sql": (
            "CREATE SCHEMA own; CREATE TABLE own.base (id int PRIMARY KEY); INSERT INTO own.base VALUES (0);"
            "SELECT pg_catalog.pg_extension_config_dump('own.base', 'WHERE id > 0');"
        ),
    }
    for file, text in files.items():
        (shared / file).write_text(text)
    yield name
    for file in files:
        (shared / file).unlink()


@pytest.mark.parametrize("form", FORMS)
def test_users_tables_in_a_schema_that_an_extension_made(
    job: Job, postgres: Postgres, database: str, new_database: Callable[..., str], mini_own: str, form: str
) -> None:
    postgres.load(
        f"CREATE EXTENSION {mini_own}; CREATE TABLE own.archive AS SELECT generate_series(1, 10) AS id; CREATE TABLE t (id int);"
        "CREATE FUNCTION own.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        database,
    )
    rows = both_ways(job, postgres, database, new_database(), form)
    assert rows["archive"] == 10
    selected = job.another("selected").backup(format=form, schemas=["own"])
    assert selected.code == 0, selected.log
    assert job.manifest(selected).contents.schemas == ("own",)


@pytest.mark.parametrize("form", FORMS)
def test_they_are_locked(job: Job, postgres: Postgres, database: str, mini_own: str, form: str) -> None:
    postgres.load(f"CREATE EXTENSION {mini_own}; CREATE TABLE own.archive (id int)", database)
    with postgres.connect(database) as other:
        other.autocommit = False
        other.execute("LOCK own.archive IN ACCESS EXCLUSIVE MODE")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("dbbackup.dataplane.backup.snapshot.LOCK_TIMEOUT", "200ms")
            ended = job.backup(format=form)
        assert ended.reason == "LockTimeout", ended.log
