"""What would fail late in a restore is refused before anything is touched, by name and all at once;
what looks as if it would fail and does not, is restored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.integration.conftest import PASSWORD, Ended, Job, Postgres
from tests.integration.test_restore_refused import nothing_written, restore, untouched

NewDatabase = Callable[..., str]


@pytest.fixture
def user(postgres: Postgres, database: str) -> str:
    """A role that may log in, and owns nothing. Its own group is `<name>_group`."""
    name, password = f"u_{database}", PASSWORD.replace("'", "''")
    postgres.load(f"CREATE ROLE {name}_group NOLOGIN; CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE {name}_group", "postgres")
    return name


def refused(ended: Ended, reason: str, *words: str) -> None:
    assert ended.reason == reason, ended.log
    assert ended.report.failure
    for word in words:
        assert word in ended.report.failure.message, ended.report.failure.message
    assert "nothing was touched" in ended.report.failure.message


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_what_only_a_superuser_may_make(job: Job, postgres: Postgres, database: str, user: str, new_database: NewDatabase, form: str) -> None:
    postgres.load(
        f"""GRANT ALL ON SCHEMA public TO {user}; CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO {user};
        CREATE FUNCTION neg(int) RETURNS int LANGUAGE internal IMMUTABLE STRICT AS 'int4um';
        CREATE FUNCTION quiet(int) RETURNS int LANGUAGE sql LEAKPROOF AS 'SELECT 1';
        CREATE FUNCTION harmless(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE CAST (bigint AS timestamp) WITHOUT FUNCTION; CREATE TYPE shelled;
        CREATE FOREIGN DATA WRAPPER nothing; CREATE OPERATOR FAMILY fam USING btree;""",
        database,
    )
    backup = job.backup(format=form)
    target = new_database(f"OWNER {user}")
    with untouched(postgres, target):
        ended = restore(job, backup, target, user)
    refused(
        ended,
        "RequiresSuperuser",
        "cast (bigint AS timestamp without time zone)",
        "foreign-data wrapper nothing",
        "function public.neg(integer)",
        "function public.quiet(integer)",
        "operator family public.fam USING btree",
    )
    assert "harmless" not in ended.log
    assert restore(job, backup, target).code == 0


def test_an_owner_that_may_not_create_any_more(job: Job, postgres: Postgres, database: str, user: str) -> None:
    """Its objects could not be given back to it: ALTER ... OWNER asks for CREATE on the schema."""
    group = f"{user}_group"
    postgres.load(
        f"""CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); ALTER TABLE t OWNER TO {group}; GRANT ALL ON SCHEMA public TO {user};
        REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE SCHEMA own AUTHORIZATION {group}; GRANT ALL ON SCHEMA own TO {user};
        CREATE TABLE own.t (); ALTER TABLE own.t OWNER TO {group};""",
        database,
    )
    backup = job.backup()
    with untouched(postgres, database):
        ended = restore(job, backup, database, user, on_existing="Replace", safety_backup=False)
    refused(ended, "InsufficientPrivilege", f"table public.t to {group}, who lacks CREATE on schema public")
    assert "own.t" not in ended.log
    assert nothing_written(job)
    before = postgres.dump(database)
    assert restore(job, backup, database, on_existing="Replace").code == 0, "a superuser may"
    assert postgres.dump(database) == before
    postgres.load(f"GRANT CREATE ON SCHEMA public TO {group}", database)
    before = postgres.dump(database)
    ended = restore(job, backup, database, user, on_existing="Replace", safety_backup=False)
    assert ended.code == 0, ended.log
    assert postgres.dump(database) == before


def test_a_schema_in_which_nothing_is_made_may_be_closed(job: Job, postgres: Postgres, database: str, user: str, new_database: NewDatabase) -> None:
    postgres.load("CREATE SCHEMA empty; CREATE SCHEMA typed; CREATE TYPE typed.mood AS ENUM ('a')", database)
    backup = job.backup()
    target = new_database()
    postgres.load(f"CREATE SCHEMA empty; CREATE SCHEMA typed; GRANT CREATE ON SCHEMA public TO {user}", target)
    with untouched(postgres, target):
        ended = restore(job, backup, target, user, on_existing="Replace", safety_backup=False)
    refused(ended, "InsufficientPrivilege", f"{user} lacks CREATE on the schemas typed")
    assert "empty" not in (ended.report.failure.message if ended.report.failure else "")
    postgres.load(f"GRANT ALL ON SCHEMA typed TO {user}", target)
    ended = restore(job, backup, target, user, on_existing="Replace", safety_backup=False)
    assert ended.code == 0, ended.log


def test_a_collation_that_the_targets_system_lacks(job: Job, postgres: Postgres, database: str, new_database: NewDatabase) -> None:
    postgres.load(
        """SET allow_system_table_mods = on; CREATE COLLATION pg_catalog."xx_YY.utf8" (provider = libc, locale = 'C');
        CREATE TABLE t (id int PRIMARY KEY, n text COLLATE "xx_YY.utf8", c text COLLATE "C"); INSERT INTO t VALUES (1, 'x');
        CREATE TABLE plain (c text COLLATE "C")""",
        database,
    )
    custom, backup = job.another("custom").backup(format="custom"), job.backup()
    target = new_database()
    with untouched(postgres, target):
        refused(restore(job, custom, target, tables=("public.t",)), "ObjectMissing", 'collation pg_catalog."xx_YY.utf8"')
    assert restore(job, custom, target, tables=("public.plain",)).code == 0
    target = new_database()
    with untouched(postgres, target):
        refused(restore(job, backup, target), "ObjectMissing", 'collation pg_catalog."xx_YY.utf8"')
    ended = restore(job, backup, database, on_existing="Replace")
    assert ended.code == 0, ended.log


def test_what_a_backup_of_schemas_leaves_out(job: Job, postgres: Postgres, database: str, user: str, new_database: NewDatabase) -> None:
    there = """CREATE SCHEMA other; CREATE TYPE other.mood AS ENUM ('a'); CREATE TABLE other.parent (id int PRIMARY KEY);
        CREATE FUNCTION other.f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'; CREATE EXTENSION postgres_fdw;
        CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;"""
    postgres.load(
        f"""{there} CREATE SCHEMA app; CREATE TABLE app.t (m other.mood[], p int REFERENCES other.parent, f int DEFAULT other.f(1));
        CREATE FOREIGN TABLE app.remote (id int) SERVER far;""",
        database,
    )
    backup = job.backup(schemas=["app"])
    target = new_database()
    with untouched(postgres, target):
        refused(restore(job, backup, target), "ObjectMissing", "function other.f(integer)", "server far", "table other.parent", "type other.mood")
    postgres.load(f"{there} REVOKE ALL ON TYPE other.mood FROM PUBLIC; GRANT CREATE ON DATABASE {target} TO {user}", target)
    with untouched(postgres, target):
        ended = restore(job, backup, target, user, on_existing="Replace", safety_backup=False)
    refused(ended, "InsufficientPrivilege", f"{user} lacks USAGE on foreign server far, schema other")
    postgres.load(f"GRANT USAGE ON SCHEMA other TO {user}", target)
    refused(
        restore(job, backup, target, user, on_existing="Replace"),
        "InsufficientPrivilege",
        f"{user} lacks USAGE on foreign server far, type other.mood",
    )
    postgres.load(f"GRANT USAGE ON TYPE other.mood TO {user}", target)
    postgres.load(f"GRANT USAGE ON FOREIGN SERVER far TO {user}; GRANT REFERENCES ON other.parent TO {user}", target)
    ended = restore(job, backup, target, user, on_existing="Replace", safety_backup=False)
    assert ended.code == 0, ended.log


def test_a_server_that_may_not_be_used(job: Job, postgres: Postgres, database: str, user: str, new_database: NewDatabase) -> None:
    postgres.load("CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw; CREATE PUBLICATION p", database)
    backup = job.backup()
    target = new_database()
    postgres.load(f"CREATE EXTENSION postgres_fdw; GRANT CREATE ON SCHEMA public TO {user}", target)
    with untouched(postgres, target):
        ended = restore(job, backup, target, user)
    refused(ended, "InsufficientPrivilege", f"{user} lacks USAGE on foreign-data wrapper postgres_fdw", "may not create publications")
    postgres.load(f"GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {user}; GRANT CREATE ON DATABASE {target} TO {user}", target)
    ended = restore(job, backup, target, user)
    assert ended.code == 0, ended.log


def test_a_selection_needs_the_extensions_of_its_parts(job: Job, postgres: Postgres, database: str, user: str, new_database: NewDatabase) -> None:
    """An operator class of an index, operators of an EXCLUDE constraint: the archive does not say
    so."""
    postgres.load(
        """CREATE EXTENSION pg_trgm; CREATE EXTENSION btree_gist; CREATE EXTENSION hstore;
        CREATE TABLE doc (id int PRIMARY KEY, t text); INSERT INTO doc VALUES (1, 'x'); CREATE INDEX doc_trgm ON doc USING gin (t gin_trgm_ops);
        CREATE TABLE room (id int, during tsrange, EXCLUDE USING gist (id WITH =, during WITH &&)); CREATE TABLE other (h hstore);""",
        database,
    )
    backup = job.backup(format="custom")
    for table, extension in (("doc", "pg_trgm"), ("room", "btree_gist")):
        target = new_database()
        ended = restore(job, backup, target, tables=(f"public.{table}",))
        assert ended.code == 0, ended.log
        assert postgres.execute("SELECT extname FROM pg_extension WHERE extname <> 'plpgsql'", target) == [(extension,)]
