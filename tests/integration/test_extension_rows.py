"""Rows of extensions' configuration tables: backed up as far as the extension asks for it, put in
place of the target's own, left out where the options say so."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.conftest import Job, Postgres
from tests.integration.stock import follow_note
from tests.integration.test_extensions import FORMATS, backed_up, restore

NewDatabase = Callable[..., str]

SETTINGS = """
CREATE TABLE @extschema@.kind (name text PRIMARY KEY);
CREATE TABLE @extschema@.setting (id int PRIMARY KEY, kind text NOT NULL REFERENCES @extschema@.kind ON DELETE RESTRICT, value text);
CREATE TABLE @extschema@.plain (value text);
CREATE SEQUENCE @extschema@.number;
CREATE TABLE @extschema@.working (value text);
INSERT INTO @extschema@.kind VALUES ('builtin'), ('other');
INSERT INTO @extschema@.setting VALUES (1, 'builtin', 'default'), (2, 'other', 'default');
INSERT INTO @extschema@.plain VALUES ('made with it');
SELECT pg_catalog.pg_extension_config_dump('kind', $$WHERE name <> 'builtin' ORDER BY name$$);
SELECT pg_catalog.pg_extension_config_dump('setting', $$WHERE setting.kind <> 'builtin'$$);
SELECT pg_catalog.pg_extension_config_dump('plain', '');
SELECT pg_catalog.pg_extension_config_dump('number', '');
"""
"""The rows of `kind` refer to none, those of `setting` to them; `plain` has no key, and CREATE
EXTENSION makes a row of it that is dumped too; `working` is not dumped."""
JOBS = """
CREATE TABLE @extschema@.job (id int PRIMARY KEY, username text NOT NULL DEFAULT CURRENT_USER);
SELECT pg_catalog.pg_extension_config_dump('job', '');
ALTER TABLE @extschema@.job ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON @extschema@.job USING (username = CURRENT_USER);
GRANT ALL ON @extschema@.job TO PUBLIC;
"""

STAMPS = """
CREATE TABLE @extschema@.stamp (value text);
CREATE TABLE @extschema@.log (value text UNIQUE, stamp text);
SELECT pg_catalog.pg_extension_config_dump('stamp', '');
SELECT pg_catalog.pg_extension_config_dump('log', '');
CREATE FUNCTION @extschema@.change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.value := NEW.value || '!'; RETURN NEW; END $$;
CREATE FUNCTION @extschema@.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO stamps.log VALUES (NEW.value); RETURN NEW; END $$;
CREATE TRIGGER "chan ge" BEFORE INSERT ON @extschema@.stamp FOR EACH ROW EXECUTE FUNCTION @extschema@.change();
CREATE TRIGGER note AFTER INSERT ON @extschema@.stamp FOR EACH ROW EXECUTE FUNCTION @extschema@.note();
ALTER TABLE @extschema@.stamp ENABLE ALWAYS TRIGGER note;
"""


@pytest.fixture(scope="module")
def made(postgres: Postgres) -> Iterator[dict[str, str]]:
    """The names of three extensions in the server's own directory, for as long as the tests run."""
    share = subprocess.run([postgres.bin / "pg_config", "--sharedir"], capture_output=True, text=True, check=True).stdout.strip()
    names = {kind: f"dbbackup_{kind}_{os.getpid()}" for kind in ("settings", "jobs", "stamps")}
    files: list[Path] = []
    for kind, script in (("settings", SETTINGS), ("jobs", JOBS), ("stamps", STAMPS)):
        control = Path(share, "extension", f"{names[kind]}.control")
        control.write_text("default_version = '1.0'\nrelocatable = false\n")
        sql = control.with_name(f"{names[kind]}--1.0.sql")
        sql.write_text(script)
        files += [control, sql]
    yield names
    for file in files:
        file.unlink()


ROWS = """SELECT (SELECT array_agg(k::text ORDER BY k) FROM conf.kind k), (SELECT array_agg(s::text ORDER BY s) FROM conf.setting s),
(SELECT array_agg(value ORDER BY value) FROM conf.plain), (SELECT array_agg(value) FROM conf.working), (SELECT last_value FROM conf.number)"""
THEN = (
    ["(builtin)", "(mine)", "(other)"],
    ["(1,builtin,default)", "(2,other,changed)", "(3,mine,x)"],
    ["made with it", "of the user"],
)


@pytest.fixture
def source(postgres: Postgres, database: str, made: dict[str, str]) -> str:
    postgres.load(
        f"""CREATE SCHEMA conf; CREATE EXTENSION {made["settings"]} SCHEMA conf; INSERT INTO conf.kind VALUES ('mine');
        INSERT INTO conf.setting VALUES (3, 'mine', 'x'); UPDATE conf.setting SET value = 'changed' WHERE id = 2;
        INSERT INTO conf.plain VALUES ('of the user'); SELECT setval('conf.number', 7); INSERT INTO conf.working VALUES ('source');
        CREATE TABLE public.t (id int); INSERT INTO public.t VALUES (1)""",
        database,
    )
    return database


AFTERWARDS = """DELETE FROM conf.setting WHERE id = 3; INSERT INTO conf.kind VALUES ('newer'); INSERT INTO conf.setting VALUES (4, 'newer', 'y');
UPDATE conf.setting SET value = 'kept' WHERE id = 1; INSERT INTO conf.plain VALUES ('of the user'); SELECT nextval('conf.number');
DELETE FROM conf.working"""


@FORMATS
def test_configuration_rows_take_the_place_of_the_targets(
    job: Job, postgres: Postgres, source: str, new_database: NewDatabase, made: dict[str, str], form: str
) -> None:
    backup = backed_up(job, format=form)
    held = job.manifest(backup).contents.configuration
    assert [(c.extension, c.schema_, c.name) for c in held or ()] == [(made["settings"], "conf", n) for n in ("kind", "number", "plain", "setting")]
    target = new_database()
    ended = restore(job, backup, target)
    assert ended.code == 0, ended.log
    assert postgres.execute(ROWS, target) == [(*THEN, None, 7)]

    postgres.load(AFTERWARDS, source)
    ended = restore(job, backup, source, on_existing="Replace")
    assert ended.code == 0, ended.log
    [(kinds, settings, plain, working, number)] = postgres.execute(ROWS, source)
    assert (kinds, plain, working, number) == (THEN[0], THEN[2], None, 7)
    assert settings == ["(1,builtin,kept)", *THEN[1][1:]], "a row that the extension does not dump is the target's own"


def test_a_selection_takes_the_rows_of_an_extension_in_its_schema(job: Job, postgres: Postgres, source: str, new_database: NewDatabase) -> None:
    backup = backed_up(job, format="custom")
    target = new_database()
    ended = restore(job, backup, target, schemas=["conf"])
    assert ended.code == 0, ended.log
    assert postgres.execute(ROWS, target) == [(*THEN, None, 7)]
    postgres.load(AFTERWARDS, source)
    assert restore(job, backup, source, schemas=["public"], on_existing="Replace").code == 0
    assert postgres.execute("SELECT count(*) FROM conf.kind WHERE name = 'newer'", source) == [(1,)], "not selected, so left alone"


@FORMATS
def test_a_user_who_may_not_replace_the_rows_is_refused_beforehand(
    job: Job, postgres: Postgres, source: str, owner: str, form: str, made: dict[str, str]
) -> None:
    postgres.load(
        f"""GRANT ALL ON SCHEMA conf TO {owner}; GRANT SELECT ON ALL TABLES IN SCHEMA conf TO {owner}; GRANT SELECT ON conf.number TO {owner};
        GRANT ALL ON conf.kind, conf.setting TO {owner}; ALTER TABLE public.t OWNER TO {owner}""",
        source,
    )
    job.connect_to(source, owner)
    backup = backed_up(job, format=form)
    postgres.load(AFTERWARDS, source)
    before = postgres.execute(ROWS, source)
    ended = restore(job, backup, source, owner, on_existing="Replace")
    assert ended.reason == "InsufficientPrivilege", ended.log
    assert ended.report.failure
    assert f"conf.number of extension {made['settings']}, conf.plain of extension" in ended.report.failure.message
    assert "nothing was touched" in ended.report.failure.message
    assert ended.report.safety_backup is None
    assert postgres.execute(ROWS, source) == before
    postgres.load(f"GRANT ALL ON conf.plain, conf.number TO {owner}", source)
    ended = restore(job, backup, source, owner, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.execute(ROWS, source)[0][2] == THEN[2]


STAMPED = """SELECT (SELECT array_agg(value ORDER BY value) FROM stamps.stamp), (SELECT array_agg(value ORDER BY value) FROM stamps.log),
(SELECT array_agg(tgname::text || tgenabled::text ORDER BY tgname) FROM pg_trigger WHERE tgrelid = 'stamps.stamp'::regclass)"""


@FORMATS
def test_triggers_of_an_extensions_table_leave_the_rows_as_they_were(
    job: Job, postgres: Postgres, database: str, owner: str, new_database: NewDatabase, made: dict[str, str], form: str
) -> None:
    postgres.load(
        f"""CREATE SCHEMA stamps; CREATE EXTENSION {made["stamps"]} SCHEMA stamps; INSERT INTO stamps.stamp VALUES ('a'), ('b');
        GRANT ALL ON SCHEMA stamps TO {owner}; GRANT ALL ON ALL TABLES IN SCHEMA stamps TO {owner}; CREATE TABLE public.t (id int)""",
        database,
    )
    then = [(["a!", "b!"], ["a!", "b!"], ["chan geO", "noteA"])]
    assert postgres.execute(STAMPED, database) == then
    backup = backed_up(job, format=form)
    target = new_database()
    ended = restore(job, backup, target)
    assert ended.code == 0, ended.log
    assert postgres.execute(STAMPED, target) == then
    ended = restore(job, backup, database, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.execute(STAMPED, database) == then
    postgres.load(f"ALTER TABLE public.t OWNER TO {owner}", database)
    ended = restore(job, backup, database, owner, on_existing="Replace")
    assert ended.reason == "InsufficientPrivilege", ended.log
    assert ended.report.failure
    assert f'{owner} may not disable triggers that would fire for the rows that come: "chan ge" on stamps.stamp, note' in ended.report.failure.message
    assert postgres.execute(STAMPED, database) == then


def test_foreign_keys_of_tables_that_stay_refuse(job: Job, postgres: Postgres, source: str) -> None:
    postgres.load("CREATE TABLE public.mine (k text REFERENCES conf.kind ON DELETE CASCADE); INSERT INTO public.mine VALUES ('mine')", source)
    backup = backed_up(job, exclude_tables=["public.mine"])
    ended = restore(job, backup, source, on_existing="Replace")
    assert ended.reason == "DependentObjects", ended.log
    assert ended.report.failure
    assert "foreign key mine_k_fkey on table public.mine needs rows of conf.kind" in ended.report.failure.message
    assert postgres.execute("SELECT k FROM public.mine", source) == [("mine",)]
    backup = backed_up(job.another("whole"))
    ended = restore(job, backup, source, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.execute("SELECT k FROM public.mine", source) == [("mine",)]


@pytest.fixture
def closed(postgres: Postgres, database: str, made: dict[str, str], owner: str) -> str:
    """A database with rows that row-level security hides from its owner."""
    postgres.load(
        f"""CREATE SCHEMA jobs; GRANT ALL ON SCHEMA jobs TO {owner}; CREATE EXTENSION {made["jobs"]} SCHEMA jobs;
        INSERT INTO jobs.job VALUES (1, 'postgres'), (2, '{owner}');
        SET ROLE {owner}; CREATE TABLE public.t (id int); INSERT INTO public.t VALUES (1)""",
        database,
    )
    return database


@FORMATS
def test_an_owner_leaves_out_what_only_a_superuser_sees(
    job: Job, postgres: Postgres, closed: str, owner: str, made: dict[str, str], tmp_path: Path, new_database: NewDatabase, form: str
) -> None:
    job.connect_to(closed, owner)
    refused = job.backup(format=form)
    assert refused.reason == "RowSecurity"
    assert refused.report.failure
    assert "jobs.job" in refused.report.failure.message
    assert f"the extensions {made['jobs']} by excludeExtensions" in refused.report.failure.message
    for number, options in enumerate(
        ({"exclude_tables": ["jobs.*"]}, {"exclude_extensions": [made["jobs"][:-1] + "?"]}, {"exclude_schemas": ["jobs"]})
    ):
        job.connect_to(closed, owner)
        one = job.another(f"backup-{number}")
        backup = backed_up(one, format=form, **options)
        assert backup.report.warnings == ()
        assert job.manifest(backup).contents.configuration is None
        postgres.load("TRUNCATE public.t", closed)
        ended = restore(job, backup, closed, owner, on_existing="Replace")
        assert ended.code == 0, ended.log
        assert postgres.execute("SELECT (SELECT count(*) FROM jobs.job), (SELECT count(*) FROM public.t)", closed) == [(2, 1)]
        target = new_database()
        follow_note(postgres, job.fetch(backup, tmp_path / f"artifact-{number}"), target)
        extensions = postgres.execute("SELECT extname FROM pg_extension WHERE extname <> 'plpgsql'", target)
        assert extensions == ([] if "exclude_extensions" in options else [(made["jobs"],)])


@FORMATS
def test_a_user_whom_row_level_security_blocks_is_refused_beforehand(
    job: Job, postgres: Postgres, closed: str, owner: str, new_database: NewDatabase, form: str
) -> None:
    backup = backed_up(job, format=form)
    ended = restore(job, backup, closed, owner, on_existing="Replace", safety_backup=False)
    assert ended.reason == "InsufficientPrivilege", ended.log
    assert ended.report.failure
    assert f"row-level security keeps {owner} from replacing the rows of jobs.job" in ended.report.failure.message
    assert "`excludeTables`" in ended.report.failure.message
    target = new_database()
    assert restore(job, backup, target).code == 0
    assert postgres.execute("SELECT id FROM jobs.job ORDER BY 1", target) == [(1,), (2,)]


@FORMATS
def test_left_out_schemas_and_extensions_that_are_needed_are_named(
    job: Job, postgres: Postgres, database: str, new_database: NewDatabase, form: str
) -> None:
    postgres.load(
        """CREATE EXTENSION citext; CREATE EXTENSION pg_trgm; CREATE SCHEMA tmp_1; CREATE SCHEMA tmp_2; CREATE TABLE tmp_1.base (id int PRIMARY KEY);
        CREATE TABLE public.t (id int REFERENCES tmp_1.base, e citext); CREATE TABLE tmp_2.t (id int)""",
        database,
    )
    backup = backed_up(job, format=form, exclude_schemas=["tmp_?", "none"], exclude_extensions=["citext", "c?"])
    needed = "dumped objects refer to objects that are left out, so the target of a restore must hold these already: "
    assert backup.report.warnings == (
        f"{needed}table tmp_1.base, type public.citext",
        "nothing in the database matches these patterns of what to leave out: none, c?",
    )
    manifest = job.manifest(backup)
    assert [extension.name for extension in manifest.contents.extensions] == ["pg_trgm"]
    assert manifest.contents.schemas == ("public",)
    target = new_database()
    postgres.load("CREATE EXTENSION citext; CREATE SCHEMA tmp_1; CREATE TABLE tmp_1.base (id int PRIMARY KEY)", target)
    ended = restore(job, backup, target, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.execute("SELECT to_regclass('public.t') IS NOT NULL, to_regclass('tmp_2.t')", target) == [(True, None)]


@FORMATS
def test_an_extension_that_is_left_out_takes_nothing_else_with_it(
    job: Job, postgres: Postgres, database: str, new_database: NewDatabase, form: str
) -> None:
    postgres.load(
        """CREATE EXTENSION citext; COMMENT ON EXTENSION citext IS 'mine'; CREATE TYPE public.p AS (x int); CREATE CAST (public.p AS text) WITH INOUT;
        SELECT lo_from_bytea(4711, 'kept'); CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE PUBLICATION all_of_it""",
        database,
    )
    backup = backed_up(job, format=form, exclude_extensions=["citext"])
    target = new_database()
    ended = restore(job, backup, target)
    assert ended.code == 0, ended.log
    postgres.execute("DROP EXTENSION citext", database)
    assert postgres.dump(database, "-O", "-x") == postgres.dump(target, "-O", "-x")
