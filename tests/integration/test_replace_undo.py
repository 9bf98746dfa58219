"""A Replace that undoes a migration: what the migration granted, published and referred to names
columns that the artifact lacks. It is left out, with a warning; all else is put back."""

from __future__ import annotations

import pytest
from tests.integration.conftest import Job, Postgres
from tests.integration.test_restore_refused import restore, untouched

SOURCE = """
CREATE TABLE customer (id int PRIMARY KEY, name text); INSERT INTO customer VALUES (1, 'a'); CREATE TYPE mood AS ENUM ('x');
CREATE PROCEDURE p(OUT a int, IN b int, IN c int) LANGUAGE sql AS 'SELECT 1'; CREATE PROCEDURE p(IN a int, IN b int, IN c int) LANGUAGE sql AS '';
"""
BEFORE = """
CREATE TABLE invoice (id int PRIMARY KEY, customer int REFERENCES customer); INSERT INTO invoice VALUES (1, 1);
GRANT SELECT (name) ON customer TO {role}; CREATE PUBLICATION older FOR TABLE customer (id, name) WHERE (id > 5);
GRANT EXECUTE ON PROCEDURE p(OUT int, int, int) TO {role}; ALTER PROCEDURE p(IN int, IN int, IN int) OWNER TO {role};
"""
"""Not in the artifact, and put back."""
MIGRATION = """
ALTER TABLE customer ADD COLUMN city text, ADD COLUMN code int UNIQUE;
GRANT SELECT (city) ON customer TO {role}; GRANT UPDATE (city) ON customer TO {role};
CREATE PUBLICATION newer FOR TABLE customer (id, city); CREATE PUBLICATION filtered FOR TABLE customer WHERE (city = 'x');
ALTER TABLE invoice ADD COLUMN code int REFERENCES customer (code); CREATE TABLE other (number bigint REFERENCES customer (code));
"""
"""Names columns that the artifact lacks."""
WARNING = (
    "not put back, as the artifact lacks what it needs: GRANT SELECT (city), UPDATE (city) ON TABLE public.customer TO {role}"
    ' (column "city" of relation "customer" does not exist),'
    ' table public.customer in publication filtered (column "city" does not exist),'
    ' table public.customer (id, city) in publication newer (column "city" of relation "customer" does not exist),'
    ' foreign key invoice_code_fkey of table public.invoice (column "code" referenced in foreign key constraint does not exist),'
    ' foreign key other_number_fkey of table public.other (column "code" referenced in foreign key constraint does not exist)'
)


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_what_names_newer_columns_is_left_out_with_a_warning(job: Job, postgres: Postgres, database: str, form: str) -> None:
    role = f"{database}_report"
    postgres.load(SOURCE, database)
    backup = job.backup(format=form)
    postgres.load(f"CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role};" + BEFORE.format(role=role), database)
    before = postgres.dump(database)
    postgres.load(MIGRATION.format(role=role), database)
    ended = restore(job, backup, database, on_existing="Replace")
    assert ended.code == 0, ended.log
    told = [warning for warning in ended.report.warnings if warning.startswith("not put back")]
    assert len(told) == 1
    expected = WARNING.format(role=role)
    assert sorted(told[0].removeprefix(expected[:51]).split("), ")) == sorted(expected[51:].split("), "))
    postgres.load("DROP TABLE other; ALTER TABLE invoice DROP COLUMN code; DROP PUBLICATION newer, filtered", database)
    assert postgres.dump(database) == before


def test_a_key_onto_a_constraint_or_a_type_that_is_newer_is_left_out(job: Job, postgres: Postgres, database: str) -> None:
    postgres.load("CREATE TABLE a (x int, y int, z text); INSERT INTO a VALUES (1, 1, 'q')", database)
    backup = job.backup()
    postgres.load(
        "ALTER TABLE a ADD PRIMARY KEY (x), ALTER COLUMN z TYPE int USING 1, ADD UNIQUE (z);"
        "CREATE TABLE b (x int CONSTRAINT kx REFERENCES a (x), z int CONSTRAINT kz REFERENCES a (z))",
        database,
    )
    ended = restore(job, backup, database, on_existing="Replace")
    assert ended.code == 0, ended.log
    told = " ".join(ended.report.warnings)
    assert "foreign key kx of table public.b (there is no unique constraint matching given keys for referenced table" in told
    assert "foreign key kz of table public.b (" in told
    assert postgres.execute("SELECT count(*) FROM pg_constraint WHERE contype = 'f'", database) == [(0,)]


def test_rows_that_break_a_foreign_key_still_fail_the_restore(job: Job, postgres: Postgres, database: str) -> None:
    postgres.load(SOURCE, database)
    backup = job.backup()
    postgres.load(
        "INSERT INTO customer VALUES (2); CREATE TABLE invoice (customer int REFERENCES customer); INSERT INTO invoice VALUES (2)", database
    )
    with untouched(postgres, database):
        ended = restore(job, backup, database, on_existing="Replace")
    assert ended.reason == "ConstraintViolation", ended.log


def test_what_a_replaced_publication_loses_is_told(job: Job, postgres: Postgres, database: str) -> None:
    postgres.load("CREATE TABLE a (x int); CREATE PUBLICATION p FOR TABLE a", database)
    backup = job.backup()
    more = ", TABLES IN SCHEMA s" if postgres.major >= 15 else ""
    postgres.load(f"CREATE TABLE b (x int); CREATE SCHEMA s; ALTER PUBLICATION p ADD TABLE b{more}", database)
    ended = restore(job, backup, database, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.execute("SELECT tablename FROM pg_publication_tables", database) == [("a",)]
    parts = "publication namespace s in publication p, " * bool(more) + "publication relation public.b in publication p"
    assert ended.report.warnings == (f"not in the artifact, so dropped with the objects that were replaced: {parts}",)


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_a_schema_public_that_is_gone_is_made_again(job: Job, postgres: Postgres, database: str, form: str) -> None:
    postgres.load("CREATE TYPE public.t AS ENUM ('x'); CREATE TABLE public.held (t public.t)", database)
    backup = job.backup(format=form)
    before = postgres.dump(database, "-O", "-x")
    postgres.execute("DROP SCHEMA public CASCADE", database)
    ended = restore(job, backup, database, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.execute("SELECT count(*) FROM public.held", database) == [(0,)]
    postgres.execute("ALTER SCHEMA public OWNER TO pg_database_owner", database)
    assert postgres.dump(database, "-O", "-x") == before


def test_a_newer_constraint_of_a_domain_is_told(job: Job, postgres: Postgres, database: str) -> None:
    postgres.load("CREATE DOMAIN d AS text CONSTRAINT older CHECK (VALUE <> '')", database)
    backup = job.backup()
    postgres.load("ALTER DOMAIN d ADD CONSTRAINT c CHECK (VALUE IS NOT NULL) NOT VALID", database)
    ended = restore(job, backup, database, on_existing="Replace")
    assert ended.report.warnings == ("not in the artifact, so dropped with the objects that were replaced: domain constraint c on public.d",)
