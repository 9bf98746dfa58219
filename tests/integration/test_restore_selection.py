"""Some schemas and tables of a custom archive, with what belongs to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.conftest import Ended, Job, Postgres
from tests.integration.test_restore_refused import restore, untouched


@pytest.fixture
def everything(postgres: Postgres, database: str) -> str:
    for role in ("app", "reader"):
        postgres.execute(f"CREATE ROLE {database}_{role}")
    script = (Path(__file__).parent / "everything.sql").read_text()
    postgres.load(script.replace("@app@", f"{database}_app").replace("@reader@", f"{database}_reader"), database)
    return database


@pytest.fixture
def backup(job: Job, everything: str) -> Ended:
    return job.backup(format="custom")


def test_a_table_in_place_comes_back_with_all_that_belongs_to_it(job: Job, postgres: Postgres, everything: str, backup: Ended) -> None:
    before = postgres.dump(everything)
    postgres.execute("DELETE FROM app.posts; DROP INDEX app.posts_text; DROP TRIGGER changed ON app.posts; DROP POLICY mine ON app.posts", everything)
    ended = restore(job, backup, everything, on_existing="Replace", tables=("app.posts", "app.grouped", "app.counted"))
    assert ended.code == 0, ended.log
    assert postgres.dump(everything) == before
    assert ended.report.restored
    assert ended.report.restored.rows == 504
    assert ended.report.restored.tables == 2


def test_other_tables_keep_their_rows_and_their_foreign_keys(job: Job, postgres: Postgres, everything: str, backup: Ended) -> None:
    postgres.execute("UPDATE app.posts SET text = 'changed later'; UPDATE app.users SET email = 'broken'  || id", everything)
    tables = ("app.users", "app.active", "app.writable")
    postgres.execute("DROP FUNCTION app.of_row(app.users)", everything)
    ended = restore(job, backup, everything, on_existing="Replace", tables=tables)
    assert ended.code == 0, ended.log
    assert postgres.execute("SELECT count(*) FROM app.posts WHERE text = 'changed later'", everything) == [(504,)]
    assert postgres.execute("SELECT count(*) FROM app.users WHERE email LIKE 'user%'", everything) == [(50,)]
    key = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'posts_author_fkey'"
    assert postgres.execute(key, everything) == [("FOREIGN KEY (author) REFERENCES app.users(id)",)]


def test_into_an_empty_database_it_takes_along_what_is_missing(
    job: Job, postgres: Postgres, everything: str, backup: Ended, new_database: Callable[..., str]
) -> None:
    target = new_database()
    ended = restore(job, backup, target, tables=("app.posts", "app.events"))
    assert ended.code == 0, ended.log
    assert any("posts_author_fkey" in warning for warning in ended.report.warnings)
    rows = 'SELECT count(*), max(text COLLATE "C") FROM app.posts'
    assert postgres.execute(rows, target) == postgres.execute(rows, everything)
    assert postgres.execute("SELECT count(*) FROM app.events_2025", target) == postgres.execute("SELECT count(*) FROM app.events_2025", everything)
    arguments = ("-O", "-x", "-t", "app.events*")
    assert postgres.dump(target, *arguments) == postgres.dump(everything, *arguments)
    assert postgres.execute("SELECT nextval('app.posts_id_seq')", target) == [(505,)]
    assert postgres.execute("SELECT to_regclass('app.users'), to_regtype('app.pair') IS NOT NULL, to_regproc('app.trigger') IS NOT NULL", target) == [
        (None, True, True)
    ]


def test_a_schema_with_all_in_it(job: Job, postgres: Postgres, everything: str, backup: Ended, new_database: Callable[..., str]) -> None:
    target = new_database()
    ended = restore(job, backup, target, schemas=('We.ird "x"',))
    assert ended.code == 0, ended.log
    arguments = ("-O", "-x", "-n", '"We.ird ""x"""')
    assert postgres.dump(target, *arguments) == postgres.dump(everything, *arguments)
    assert postgres.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'app'", target) == [(0,)]


def test_what_the_artifact_lacks_is_named(job: Job, postgres: Postgres, everything: str, backup: Ended) -> None:
    with untouched(postgres, everything):
        ended = restore(job, backup, everything, on_existing="Replace", schemas=("nope",), tables=("app.posts", "app.nothing"))
    assert ended.reason == "SelectionEmpty"
    assert ended.report.failure
    assert "schema nope, table app.nothing" in ended.report.failure.message


def test_a_view_without_its_table_is_refused(job: Job, postgres: Postgres, everything: str, backup: Ended, new_database: Callable[..., str]) -> None:
    target = new_database()
    with untouched(postgres, target):
        ended = restore(job, backup, target, tables=("app.active",))
    assert ended.reason == "InvalidSpec", ended.log
    assert ended.report.failure
    assert "app.users" in ended.report.failure.message


def test_a_view_outside_the_selection_is_in_the_way(job: Job, postgres: Postgres, everything: str, backup: Ended) -> None:
    with untouched(postgres, everything):
        ended = restore(job, backup, everything, on_existing="Replace", tables=("app.users",))
    assert ended.reason == "DependentObjects"
    assert ended.report.failure
    assert "view app.active is not in the artifact and depends on table app.users" in ended.report.failure.message


def test_a_partition_alone_is_replaced_in_its_place(job: Job, postgres: Postgres, database: str) -> None:
    postgres.load(
        "CREATE TABLE p (a int, b int, v text, UNIQUE (a, b)) PARTITION BY LIST (a); CREATE INDEX ON p (v);"
        "CREATE TABLE leaf PARTITION OF p FOR VALUES IN (1); CREATE INDEX own ON leaf (a);"
        "CREATE TABLE branch PARTITION OF p FOR VALUES IN (2) PARTITION BY LIST (b); CREATE TABLE twig PARTITION OF branch FOR VALUES IN (1);"
        "CREATE TABLE other PARTITION OF p DEFAULT; INSERT INTO p VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 1, 'z');"
        "CREATE TABLE child (a int, b int, FOREIGN KEY (a, b) REFERENCES p (a, b)); INSERT INTO child VALUES (3, 1);"
        "CREATE TRIGGER fires BEFORE UPDATE ON p FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();"
        "ALTER TABLE leaf DISABLE TRIGGER fires",
        database,
    )
    before = postgres.dump(database)
    backup = job.backup(format="custom")
    postgres.load("DELETE FROM p WHERE a < 3; DROP INDEX own", database)
    for tables in (("public.leaf",), ("public.branch",)):
        ended = restore(job, backup, database, on_existing="Replace", tables=tables)
        assert ended.code == 0, ended.log
        assert ended.report.warnings == ()
    assert postgres.dump(database) == before
