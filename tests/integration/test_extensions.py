"""Extensions and what hangs on them: where they may be made, their comments, and what stock tools
can do with the artifact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.conftest import Ended, Job, Postgres
from tests.integration.stock import assert_equal, follow_note

NewDatabase = Callable[..., str]
FORMATS = pytest.mark.parametrize("form", ["plain", "custom"])


def backed_up(job: Job, **options: Any) -> Ended:
    ended = job.backup(**options)
    assert ended.code == 0, ended.log
    return ended


def restore(job: Job, ended: Ended, target: str, user: str = "postgres", **options: Any) -> Ended:
    assert ended.report.artifact
    job.connect_to(target, user)
    other = job.another(f"to-{target}", "DatabaseRestore")
    return other.run(other.spec("restore", restore={"key": ended.report.artifact.key, **options}))


@FORMATS
@pytest.mark.parametrize("extension", ["adminpack", "citext SCHEMA information_schema", "citext SCHEMA public", 'citext SCHEMA "Own\'s"'])
def test_extensions_of_any_schema_come_into_a_new_database(
    job: Job, postgres: Postgres, database: str, new_database: NewDatabase, form: str, extension: str
) -> None:
    postgres.load(f'CREATE SCHEMA "Own\'s"; CREATE EXTENSION {extension}; CREATE TABLE public.t (id int); INSERT INTO public.t VALUES (1)', database)
    backup = backed_up(job, format=form)
    target = new_database()
    ended = restore(job, backup, target)
    assert ended.code == 0, ended.log
    assert_equal(postgres, database, target)
    again = restore(job, backup, target, on_existing="Replace", safety_backup=False)
    assert again.code == 0, again.log
    assert_equal(postgres, database, target)


DROP_SECTIONS = {
    "view without columns": "CREATE TABLE t (id int PRIMARY KEY, d text); CREATE VIEW v AS SELECT FROM t GROUP BY id HAVING length(d) > 0;",
    "halved views": """CREATE SCHEMA app; CREATE TYPE app.m AS ENUM ('a'); CREATE TABLE app.t (id int PRIMARY KEY, d text, m app.m);
        CREATE VIEW app.v AS SELECT id, d, m, count(*) AS n FROM app.t GROUP BY id; CREATE VIEW w AS SELECT id, d FROM app.t GROUP BY id;""",
    "domain check": "CREATE DOMAIN d AS int; ALTER DOMAIN d ADD CONSTRAINT c CHECK (VALUE > 0) NOT VALID;",
    "foreign table": """CREATE EXTENSION postgres_fdw; CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw;
        CREATE FOREIGN TABLE ft (f1 serial, f2 text) SERVER s; ALTER FOREIGN TABLE ft ADD CONSTRAINT c CHECK (f1 > 0) NOT VALID;""",
    "access method": """CREATE ACCESS METHOD own TYPE INDEX HANDLER bthandler; CREATE OPERATOR FAMILY public.f USING own;
        CREATE OPERATOR CLASS public.c FOR TYPE int USING own FAMILY public.f AS OPERATOR 1 <;""",
}


@pytest.mark.parametrize("case", DROP_SECTIONS)
def test_a_plain_artifact_goes_into_an_empty_database_by_its_note(
    job: Job, postgres: Postgres, database: str, new_database: NewDatabase, tmp_path: Path, case: str
) -> None:
    postgres.load(DROP_SECTIONS[case], database)
    backup = backed_up(job)
    target = new_database()
    directory = job.fetch(backup, tmp_path / "artifact")
    follow_note(postgres, directory, target)
    assert_equal(postgres, database, target)
    ended = restore(job, backup, new_database("TEMPLATE template0"))
    assert ended.code == 0, ended.log
    (directory / "dump.sql").unlink()
    follow_note(postgres, directory, target)
    assert_equal(postgres, database, target)


COMMENTS = """COMMENT ON SCHEMA public IS 'Tables. Ask first.'; CREATE EXTENSION citext;
COMMENT ON EXTENSION citext IS 'it''s $dbbackup$ used'; CREATE SCHEMA "sha\\red"; COMMENT ON SCHEMA "sha\\red" IS 'of others';
GRANT ALL ON SCHEMA "sha\\red" TO {0}; CREATE TABLE "sha\\red".t (id int, e citext); ALTER TABLE "sha\\red".t OWNER TO {0};"""
COMMENT_QUERY = """SELECT obj_description('public'::regnamespace, 'pg_namespace'), obj_description('"sha\\red"'::regnamespace, 'pg_namespace'),
(SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'citext')"""


@FORMATS
def test_comments_on_schemas_and_extensions_come_back(
    job: Job, postgres: Postgres, database: str, new_database: NewDatabase, tmp_path: Path, form: str, owner: str
) -> None:
    postgres.load(COMMENTS.format(owner), database)
    backup = backed_up(job, format=form)
    there = [("Tables. Ask first.", "of others", "it's $dbbackup$ used")]
    target = new_database()
    assert restore(job, backup, target).code == 0
    assert postgres.execute(COMMENT_QUERY, target) == there
    stock = new_database()
    follow_note(postgres, job.fetch(backup, tmp_path / "artifact"), stock)
    assert postgres.execute(COMMENT_QUERY, stock) == there


@FORMATS
def test_comments_on_what_others_own_are_left_alone_with_a_warning(
    job: Job, postgres: Postgres, database: str, tmp_path: Path, form: str, owner: str
) -> None:
    postgres.load(COMMENTS.format(owner), database)
    job.connect_to(database, owner)
    backup = backed_up(job, format=form)
    ended = restore(job, backup, database, owner, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert not [warning for warning in ended.report.warnings if "comment" in warning]
    postgres.execute("COMMENT ON EXTENSION citext IS 'newer'; COMMENT ON SCHEMA public IS NULL; COMMENT ON SCHEMA \"sha\\red\" IS 'newer'", database)
    ended = restore(job, backup, database, owner, on_existing="Replace", safety_backup=False)
    assert ended.code == 0, ended.log
    assert [warning for warning in ended.report.warnings if "comment" in warning] == [
        "the comment on schema public was not set: must be owner of schema public",
        "the comment on schema sha\\red was not set: must be owner of schema sha\\red",
        "the comment on extension citext was not set: must be owner of extension citext",
    ]
    assert postgres.execute(COMMENT_QUERY, database) == [(None, "newer", "newer")]
    if form == "plain":
        directory = job.fetch(backup, tmp_path / "artifact")
        follow_note(postgres, directory, database, owner)
        assert postgres.execute(COMMENT_QUERY, database) == [(None, "newer", "newer")]
