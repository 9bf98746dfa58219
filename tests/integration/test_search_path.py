"""Functions that lean on the search_path of their database, which a dump leaves empty; options of
user mappings that the backup's user may not see."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.integration.conftest import Job, Postgres
from tests.integration.stock import assert_equal
from tests.integration.test_extensions import FORMATS, backed_up, restore

NewDatabase = Callable[..., str]

CASES = {
    "index": """CREATE EXTENSION cube; CREATE EXTENSION earthdistance; CREATE TABLE public.place (id int PRIMARY KEY, lat float8, lon float8);
        INSERT INTO public.place VALUES (1, 52.5, 13.4), (2, 48.1, 11.6); CREATE INDEX near ON public.place USING gist (ll_to_earth(lat, lon));""",
    "generated column": """CREATE FUNCTION public.enc(bytea) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT encode($1, 'hex') $$;
        CREATE FUNCTION public.enc(uuid) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT enc(decode(replace($1::text, '-', ''), 'hex')) $$;
        CREATE TABLE public.thing (id uuid PRIMARY KEY, short text GENERATED ALWAYS AS (public.enc(id)) STORED);
        INSERT INTO public.thing VALUES ('00000000-0000-0000-0000-000000000001');""",
    "among others": """CREATE FUNCTION public.one(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
        CREATE FUNCTION public.two(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN one($1); END';
        CREATE TABLE public.t (a int PRIMARY KEY, b int UNIQUE, c int); INSERT INTO public.t VALUES (1, 2, 3);
        CREATE TABLE public.u (a int REFERENCES public.t);
        CREATE INDEX i1 ON public.t (c); CREATE INDEX i2 ON public.t (public.two(c)); CREATE INDEX i3 ON public.t (b, c);
        CREATE INDEX i4 ON public.u (public.two(a)); CREATE INDEX i5 ON public.t (public.two(b)); CREATE INDEX i6 ON public.t (c, b);
        COMMENT ON INDEX public.i1 IS 'before'; COMMENT ON INDEX public.i3 IS 'between'; COMMENT ON INDEX public.i6 IS 'after';
        ALTER TABLE public.t CLUSTER ON i1;
        CREATE TRIGGER s BEFORE UPDATE ON public.t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();""",
    "path of the database": """CREATE SCHEMA lib; CREATE FUNCTION lib.fine(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
        CREATE FUNCTION public.ok(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN fine($1); END';
        CREATE TABLE public.t (a int CHECK (public.ok(a))); INSERT INTO public.t VALUES (1);
        CREATE MATERIALIZED VIEW public.m AS SELECT a FROM public.t WHERE public.ok(a);
        CREATE TABLE public.u (a int); INSERT INTO public.u VALUES (1); ALTER TABLE public.u ADD CONSTRAINT late CHECK (public.ok(a)) NOT VALID;""",
}


@FORMATS
@pytest.mark.parametrize("case", CASES)
def test_functions_find_what_they_find_in_the_source(
    job: Job, postgres: Postgres, database: str, new_database: NewDatabase, case: str, form: str
) -> None:
    postgres.execute(f'ALTER DATABASE {database} SET search_path = "$user", public, lib')
    postgres.load(CASES[case], database)
    backup = backed_up(job, format=form)
    target = new_database()
    ended = restore(job, backup, target)
    assert ended.code == 0, ended.log
    assert ended.report.warnings == ()
    assert_equal(postgres, database, target)


def test_a_restore_takes_few_subtransactions(job: Job, postgres: Postgres, database: str, new_database: NewDatabase) -> None:
    """Each makes the server look through all relations that the restore has made."""
    tables = "".join(f"CREATE TABLE public.t{n} (a int PRIMARY KEY, b int); CREATE INDEX ON public.t{n} (b);" for n in range(200))
    postgres.load(tables, database)
    target = new_database()
    ended = restore(job, backed_up(job), target)
    assert ended.code == 0, ended.log
    [own] = [int(event["xid"]) for event in ended.events if event["event"] == "transaction"]
    analyzed = 200
    assert postgres.execute("SELECT txid_current()")[0][0] - own - analyzed < 100
    assert_equal(postgres, database, target)


def test_what_is_in_no_path_is_still_a_search_path_dependency(job: Job, postgres: Postgres, database: str, new_database: NewDatabase) -> None:
    postgres.load(CASES["path of the database"].replace("CREATE SCHEMA lib;", "CREATE SCHEMA lib; SET search_path = lib;"), database)
    ended = restore(job, backed_up(job), new_database())
    assert ended.reason == "SearchPathDependency", ended.log
    assert ended.report.failure
    assert "function ok failed with" in ended.report.failure.message


@FORMATS
def test_options_of_user_mappings_that_the_backup_lacks_are_named(
    job: Job, postgres: Postgres, database: str, new_database: NewDatabase, owner: str, form: str
) -> None:
    postgres.load(
        f"""CREATE EXTENSION postgres_fdw; GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {owner}; SET ROLE {owner};
        CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw; CREATE USER MAPPING FOR {owner} SERVER far OPTIONS (password 'seen');
        CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (password 'seen too'); RESET ROLE;
        CREATE USER MAPPING FOR postgres SERVER far OPTIONS (password 'hidden');""",
        database,
    )
    assert backed_up(job.another("super"), format=form).report.warnings == ()
    job.connect_to(database, owner)
    backup = backed_up(job, format=form)
    [warning] = backup.report.warnings
    assert "lacks those of user mapping for postgres on server far: set them" in warning
    ended = restore(job, backup, new_database())
    assert ended.code == 0, ended.log
    assert [w for w in ended.report.warnings if "user mappings postgres on server far" in w], ended.report.warnings
