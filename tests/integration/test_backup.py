"""Backups that end well: from the Job's entry point to the bucket, and what they restore to by
stock tools."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.data import generate
from tests.integration.conftest import PASSWORD, Gate, Job, Postgres, wait_for
from tests.integration.stock import assert_equal, follow_note, load_everything

from dbbackup.contract.run import Compression
from dbbackup.dataplane.backup import dump as dump_module

NewDatabase = Callable[..., str]


@pytest.fixture
def inventory(postgres: Postgres, database: str) -> str:
    """The demo database, loaded."""
    postgres.load(generate.render(role_prefix=f"{database}_"), database)
    return database


@pytest.fixture
def everything(postgres: Postgres, database: str) -> str:
    load_everything(postgres, database)
    return database


@pytest.mark.parametrize("algorithm", ["zstd", "gzip", "none"])
def test_a_plain_backup_restores_by_its_own_note(
    job: Job, postgres: Postgres, inventory: str, new_database: NewDatabase, tmp_path: Path, algorithm: str
) -> None:
    ended = job.backup(compression=Compression(algorithm=algorithm))
    assert ended.code == 0, ended.log
    assert ended.report.artifact
    assert ended.report.database
    assert ended.report.database.identity == f"127.0.0.1:{postgres.port}/{inventory}"
    assert not ended.report.database.tls
    manifest = job.manifest(ended)
    rows = {f"{table.schema_}.{table.name}": table.rows for table in manifest.contents.tables if table.kind == "table"}
    assert rows["public.servers"] == 276
    assert rows == {name: postgres.execute(f"SELECT count(*) FROM {name}", inventory)[0][0] for name in rows}
    assert ended.report.database.rows == sum(count or 0 for count in rows.values())
    assert {extension.name for extension in manifest.contents.extensions} == {"citext", "pgcrypto"}
    assert f"{inventory}_inventory_readonly" in manifest.contents.roles or manifest.contents.roles
    directory = job.fetch(ended, tmp_path / "fetched")
    stored = directory / manifest.artifact.name
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == manifest.artifact.sha256 == ended.report.artifact.sha256
    assert stored.stat().st_size == ended.report.artifact.size_bytes
    target = new_database()
    follow_note(postgres, directory, target)
    assert_equal(postgres, target, inventory)
    follow_note(postgres, job.fetch(ended, tmp_path / "again"), target)
    assert_equal(postgres, target, inventory)


@pytest.mark.parametrize("fmt", ["plain", "custom"])
@pytest.mark.parametrize("clean", [True, False])
def test_all_kinds_of_objects_survive(
    job: Job, postgres: Postgres, everything: str, new_database: NewDatabase, tmp_path: Path, fmt: str, clean: bool
) -> None:
    ended = job.backup(format=fmt, clean=clean)
    assert ended.code == 0, ended.log
    manifest = job.manifest(ended)
    counts = {(table.schema_, table.name): table.rows for table in manifest.contents.tables}
    assert counts["app", "people"] == 505
    assert counts["We ird.$x", 'Ta"b.le'] == 2
    assert counts["public", "parent"] == 1
    assert counts["public", "events"] is None
    assert counts["public", "events_2a"] == 2
    assert manifest.contents.large_objects == 2
    kinds = {table.name: table.kind for table in manifest.contents.tables}
    assert (kinds["events"], kinds["unlogged"], kinds["summary"], kinds["people"]) == ("partitioned", "unlogged", "materialized", "table")
    target = new_database()
    follow_note(postgres, job.fetch(ended, tmp_path / "fetched"), target)
    assert_equal(postgres, target, everything)


def test_a_plain_artifact_never_ends_the_transaction_it_is_restored_in(job: Job, postgres: Postgres, everything: str, tmp_path: Path) -> None:
    ended = job.backup(compression=Compression(algorithm="none"))
    text = (job.fetch(ended, tmp_path / "fetched") / "dump.sql").read_text()
    assert "\nBEGIN;" not in text
    assert "\nCOMMIT;" not in text
    assert text.count("\\restrict ") == text.count("\\unrestrict ") == 1
    before = postgres.dump(everything)
    broken = text + "SELECT 1/0;\n"
    with pytest.raises(AssertionError, match="division by zero"):
        postgres.tool("psql", "-X", "-1", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", database=everything, stdin=broken.encode())
    assert postgres.dump(everything) == before


def test_schemas_come_with_the_extensions_that_they_need(
    job: Job, postgres: Postgres, database: str, new_database: NewDatabase, tmp_path: Path
) -> None:
    postgres.load(
        "CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE EXTENSION pgcrypto SCHEMA ext; CREATE EXTENSION hstore SCHEMA ext;"
        "CREATE SCHEMA app; CREATE TABLE app.t (e ext.citext, k uuid DEFAULT ext.gen_random_uuid()); INSERT INTO app.t VALUES ('A');"
        "CREATE SCHEMA other; CREATE TABLE other.left_out (); CREATE TABLE public.here (); SELECT lo_from_bytea(4711, 'abc');",
        database,
    )
    # Of a server 13 it is pg_dump 15 that dumps schemas, whose archives pg_restore 13 does not
    # read.
    for fmt in ("plain", "custom") if postgres.major >= 14 else ("plain",):
        ended = job.another(fmt).backup(format=fmt, schemas=("app", "public"))
        assert ended.code == 0, ended.log
        manifest = job.manifest(ended)
        assert [(e.name, e.schema_) for e in manifest.contents.extensions] == [("citext", "ext"), ("pgcrypto", "ext")]
        assert manifest.contents.schemas == ("app", "public")
        target = new_database()
        follow_note(postgres, job.fetch(ended, tmp_path / fmt), target)
        assert postgres.execute("SELECT e::text = 'A', k IS NOT NULL FROM app.t", target) == [(True, True)]
        assert postgres.execute("SELECT to_regclass('other.left_out'), to_regclass('public.here')::text, lo_get(4711) = 'abc'", target) == [
            (None, "here", True)
        ]


def test_excluded_tables_and_rows(job: Job, postgres: Postgres, everything: str, new_database: NewDatabase, tmp_path: Path) -> None:
    ended = job.backup(
        exclude_tables=('"We ird.$x"."Ta""b.le"', "public.nothing"), exclude_table_data=("public.events", "app.peop*", "typo", "other")
    )
    assert ended.code == 0, ended.log
    assert ended.report.warnings == ("nothing in the database matches these patterns of what to leave out: typo, other",)
    tables = {table.name: table for table in job.manifest(ended).contents.tables}
    assert 'Ta"b.le' not in tables
    assert {name for name, table in tables.items() if table.data_excluded} == {"events", "events_1", "events_2", "events_2a", "people"}
    target = new_database()
    follow_note(postgres, job.fetch(ended, tmp_path / "fetched"), target)
    assert postgres.execute("SELECT (SELECT count(*) FROM app.people), (SELECT count(*) FROM public.events)", target) == [(0, 0)]
    assert postgres.execute("""SELECT to_regclass('public.nothing'), to_regclass('"We ird.$x"."Ta""b.le"')""", target) == [(None, None)]
    assert postgres.execute("SELECT count(*) FROM public.unlogged", target) == [(10,)]


def test_left_out_objects_that_are_referred_to_are_named(job: Job, postgres: Postgres, database: str) -> None:
    postgres.load(
        """CREATE SCHEMA a; CREATE SCHEMA b; CREATE EXTENSION citext SCHEMA b; CREATE TYPE b.kind AS ENUM ('x'); CREATE TABLE b.t (i int PRIMARY KEY);
        CREATE FUNCTION b.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TABLE b.unrelated ();
        CREATE TABLE a.users (id serial PRIMARY KEY); CREATE TABLE a.logins (u int REFERENCES a.users, c b.citext);
        CREATE TABLE a.t (k b.kind, i int REFERENCES b.t, j int DEFAULT b.f()); CREATE VIEW a.v AS SELECT * FROM a.users;""",
        database,
    )
    whole = job.another("whole").backup()
    assert (whole.code, whole.report.warnings, job.manifest(whole).contents.outside) == (0, (), ())
    ended = job.backup(schemas=("a",), exclude_tables=("a.logins",))
    assert job.manifest(ended).contents.outside == ("function b.f()", "table b.t", "type b.kind")
    assert "function b.f(), table b.t, type b.kind" in ended.report.warnings[0]
    excluded = job.another("excluded").backup(exclude_tables=("a.users",))
    assert job.manifest(excluded).contents.outside == ("table a.users",)
    harmless = job.another("harmless").backup(exclude_tables=("a.logins", "a.t"))
    assert job.manifest(harmless).contents.outside == ()


@pytest.mark.parametrize("name", ["host=evil", "-x", "a'b\"c d\\", "ü/../x", "postgresql://evil/x", "UPPER"])
@pytest.mark.parametrize("fmt", ["plain", "custom"])
def test_a_database_of_any_name(job: Job, postgres: Postgres, new_database: NewDatabase, name: str, fmt: str) -> None:
    new_database(name=name)
    postgres.execute("CREATE TABLE public.here AS SELECT 1", name)
    job.connect_to(name)
    ended = job.backup(format=fmt)
    assert ended.code == 0, ended.log
    assert ended.report.artifact
    assert ended.report.database
    assert ended.report.database.name == name
    assert [table.name for table in job.manifest(ended).contents.tables] == ["here"]
    assert ended.report.artifact.key.startswith(f"team/demo/127.0.0.1_{postgres.port}/")
    assert ended.report.artifact.key.count("/") == 4


def test_a_retry_reports_the_artifact_that_it_finds(job: Job, postgres: Postgres, inventory: str) -> None:
    first = job.backup()
    keys = job.keys()
    postgres.execute("DELETE FROM public.power_specs", inventory)
    second = job.backup()
    assert second.code == 0, second.log
    assert second.report.artifact == first.report.artifact
    assert second.report.database == first.report.database
    assert job.keys() == keys
    job.connect_to(inventory, password="wrong")
    third = job.backup()
    assert (third.code, third.report.artifact) == (0, first.report.artifact)
    job.secret()
    fourth = job.backup()
    assert (fourth.code, fourth.report.artifact) == (0, first.report.artifact), "its Secret has gone meanwhile"


def test_what_a_killed_attempt_left_is_removed(job: Job, inventory: str) -> None:
    first = job.backup()
    assert first.report.artifact
    key = first.report.artifact.key
    storage = job.storage
    storage.delete([f"{key}/manifest.json"])
    storage.put(f"{key}/dump.custom", b"debris", "text/plain")
    storage.start_upload(f"{key}/dump.sql.zst", "application/zstd").part(1, b"x" * 100)
    ended = job.backup()
    assert ended.code == 0, ended.log
    assert [name.rpartition("/")[2] for name in job.leftovers()] == ["RESTORE.md", "catalog.jsonl.gz", "dump.sql.zst", "manifest.json"]


def test_the_log_has_the_key_first_and_never_the_password(job: Job, inventory: str) -> None:
    ended = job.backup()
    assert PASSWORD not in ended.log
    assert json.dumps(PASSWORD)[1:-1] not in ended.log
    events = [event["event"] for event in ended.events if event["event"] != "log"]
    assert events[0] == "key"
    assert events[-1] == "report"
    assert ended.report.artifact
    assert next(event["key"] for event in ended.events if event["event"] == "key") == ended.report.artifact.key
    assert not list(job.paths.scratch.iterdir())


def test_row_counts_off(job: Job, inventory: str) -> None:
    for fmt in ("plain", "custom"):
        ended = job.another(fmt).backup(format=fmt, row_counts="Off")
        manifest = job.manifest(ended)
        assert manifest.rows is None
        assert {table.rows for table in manifest.contents.tables} == {None}


def test_backups_share_the_database(job: Job, inventory: str) -> None:
    jobs = [job.another(f"n{i}") for i in range(5)]
    results = {}
    threads = [threading.Thread(target=lambda one=one: results.update({one.owner.name: one.backup().code})) for one in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results.values()) == {0}
    assert len(job.keys()) == 20


def slow_pg_dump(job: Job, tmp_path: Path, before: str) -> None:
    """Makes pg_dump run `before` (shell) first."""
    major = job.postgres.bin.parent.name
    directory = tmp_path / "clients" / major / "bin"
    directory.mkdir(parents=True)
    script = directory / "pg_dump"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] || {{ {before}; }}\nexec {job.postgres.bin}/pg_dump "$@"\n')
    script.chmod(0o755)
    object.__setattr__(job.paths, "postgresql", tmp_path / "clients")


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_a_view_is_left_out_like_a_table(job: Job, postgres: Postgres, database: str, new_database: NewDatabase, tmp_path: Path, form: str) -> None:
    postgres.load(
        "CREATE TABLE t (a int); CREATE VIEW v AS SELECT a FROM t; CREATE VIEW w AS SELECT a FROM v; CREATE VIEW kept AS SELECT 1", database
    )
    ended = job.backup(format=form, exclude_tables=("public.w", "v"), exclude_table_data=("kept",))
    assert ended.code == 0, ended.log
    assert ended.report.warnings == ("nothing in the database matches these patterns of what to leave out: kept",)
    assert [table.name for table in job.manifest(ended).contents.tables] == ["t"]
    target = new_database()
    follow_note(postgres, job.fetch(ended, tmp_path / "fetched"), target)
    assert postgres.execute("SELECT viewname FROM pg_views WHERE schemaname = 'public'", target) == [("kept",)]
    ended = job.another("told").backup(format=form, exclude_tables=("public.v",))
    assert ended.report.warnings == (
        "dumped objects refer to objects that are left out, so the target of a restore must hold these already: view public.v",
    )


def test_a_truncate_after_the_snapshot_takes_nothing_away(
    job: Job, postgres: Postgres, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the coordinator's lock and stands before pg_dump in the queue: another snapshot
    is taken after it."""
    postgres.execute("CREATE TABLE public.t AS SELECT i FROM generate_series(1, 500) i", database)
    monkeypatch.setattr(dump_module, "LOCK_WAIT", "1s")
    gate = Gate(tmp_path)
    slow_pg_dump(job, tmp_path, gate.shell)
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'public.t'::regclass AND mode = 'AccessExclusiveLock'"

    def truncate() -> None:
        gate.wait()
        postgres.execute("TRUNCATE public.t; INSERT INTO public.t SELECT 1", database)

    def let_it_dump() -> None:
        wait_for(lambda: postgres.execute(waiting, database))
        gate.open()

    threads = [threading.Thread(target=target) for target in (truncate, let_it_dump)]
    for thread in threads:
        thread.start()
    ended = job.backup(exclude_tables=("typo",))
    for thread in threads:
        thread.join()
    assert ended.code == 0, ended.log
    assert job.manifest(ended).rows == 1
    assert "trying again with a new snapshot" in ended.log
    assert ended.report.warnings == ("nothing in the database matches these patterns of what to leave out: typo",), (
        "reported once, whatever the number of snapshots"
    )


def test_rows_written_meanwhile_are_all_in_or_all_out(job: Job, postgres: Postgres, database: str, new_database: NewDatabase, tmp_path: Path) -> None:
    postgres.load("CREATE TABLE a (i int PRIMARY KEY); CREATE TABLE b (i int REFERENCES a); CREATE TABLE z (i int)", database)
    over = threading.Event()
    written = threading.Event()

    def write() -> None:
        with postgres.connect(database) as connection:
            i = 0
            while not over.is_set():
                i += 1
                with connection.transaction():
                    connection.execute("INSERT INTO a SELECT %s", (i,))
                    connection.execute("INSERT INTO b SELECT %s", (i,))
                if i == 50:
                    written.set()

    thread = threading.Thread(target=write)
    thread.start()
    written.wait(20)
    try:
        for fmt in ("plain", "custom"):
            one = job.another(fmt)
            ended = one.backup(format=fmt)
            assert ended.code == 0, ended.log
            counts = {table.name: table.rows for table in job.manifest(ended).contents.tables}
            assert counts["a"] == counts["b"]
            target = new_database()
            follow_note(postgres, job.fetch(ended, tmp_path / fmt), target)
            assert postgres.execute("SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)", target) == [(counts["a"], counts["b"])]
    finally:
        over.set()
        thread.join()


def test_many_tables_and_progress(job: Job, postgres: Postgres, database: str) -> None:
    postgres.execute("DO $$ BEGIN FOR i IN 1..600 LOOP EXECUTE format('CREATE TABLE public.t%s (a int, b text)', i); END LOOP; END $$", database)
    ended = job.backup()
    assert ended.code == 0, ended.log
    assert ended.report.database
    assert ended.report.database.tables == 600


@pytest.mark.parametrize("fmt", ["plain", "custom"])
def test_subscriptions_and_their_passwords_stay_out(job: Job, postgres: Postgres, database: str, tmp_path: Path, fmt: str) -> None:
    connection = "CONNECTION 'host=nowhere password=not-in-the-artifact' PUBLICATION p WITH (connect = false)"
    postgres.execute(f"CREATE SUBSCRIPTION {database}_sub {connection}", database)
    try:
        ended = job.backup(format=fmt, compression=Compression(algorithm="none"))
        stored = job.fetch(ended, tmp_path / "fetched") / job.manifest(ended).artifact.name
        assert b"not-in-the-artifact" not in stored.read_bytes()
    finally:
        postgres.execute(f"ALTER SUBSCRIPTION {database}_sub SET (slot_name = NONE)", database)
        postgres.execute(f"DROP SUBSCRIPTION {database}_sub", database)
