"""Restores, from the Job's entry point to the target database."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.data import generate
from tests.integration.conftest import PASSWORD, Ended, Job, Postgres

from dbbackup.contract.run import RestoreOptions
from dbbackup.dataplane.postgres.connection import connect
from dbbackup.dataplane.postgres.conninfo import load_conninfo


@pytest.fixture
def inventory(postgres: Postgres, database: str) -> str:
    """The demo database, loaded; its owner may log in."""
    postgres.load(generate.render(role_prefix=f"{database}_"), database)
    password = PASSWORD.replace("'", "''")
    postgres.execute(f"ALTER ROLE {owner_of(database)} PASSWORD '{password}'")
    return database


def owner_of(database: str) -> str:
    return f"{database}_inventory_owner"


@pytest.fixture
def everything(postgres: Postgres, database: str) -> str:
    """A database with an object of every kind."""
    for role in ("app", "reader"):
        postgres.execute(f"CREATE ROLE {database}_{role}")
    script = (Path(__file__).parent / "everything.sql").read_text()
    postgres.load(script.replace("@app@", f"{database}_app").replace("@reader@", f"{database}_reader"), database)
    return database


def restore(job: Job, backup: Ended, target: str, user: str = "postgres", **options: Any) -> Ended:
    """A DatabaseRestore of `backup` into `target`."""
    assert backup.report.artifact, backup.log
    other = job.another("restore", "DatabaseRestore")
    other.connect_to(target, user)
    fields: dict[str, Any] = {"key": backup.report.artifact.key, "manifest_sha256": backup.report.artifact.manifest_sha256, **options}
    return other.run(other.spec("restore", restore=RestoreOptions(**fields)))


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_a_fresh_database_equals_the_source(job: Job, postgres: Postgres, inventory: str, new_database: Callable[..., str], form: str) -> None:
    backup = job.backup(format=form)
    target = new_database()
    ended = restore(job, backup, target)
    assert ended.code == 0, ended.log
    assert postgres.dump(target, "-O", "-x") == postgres.dump(inventory, "-O", "-x")
    manifest = job.manifest(backup)
    assert ended.report.restored
    assert ended.report.restored.rows == manifest.rows
    assert ended.report.restored.tables == len(manifest.contents.tables)
    assert ended.report.safety_backup is None


EXCLUDED = {"exclude_tables": ["auth.sessions", "auth.refresh_tokens"]}


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_replace_in_place_as_the_owner_restores_everything_and_keeps_what_is_excluded(
    job: Job, postgres: Postgres, inventory: str, form: str
) -> None:
    owner = owner_of(inventory)
    job.connect_to(inventory, owner)
    before = postgres.dump(inventory)
    backup = job.backup(format=form, **EXCLUDED)
    assert backup.code == 0, backup.log
    postgres.execute("DELETE FROM public.servers WHERE id IN (SELECT id FROM public.servers ORDER BY id LIMIT 6)", inventory)
    assert postgres.execute("SELECT count(*) FROM public.servers", inventory) == [(270,)]
    ended = restore(job, backup, inventory, owner, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.execute("SELECT count(*) FROM public.servers", inventory) == [(276,)]
    assert postgres.dump(inventory) == before
    assert ended.report.safety_backup
    assert ended.report.warnings == ()


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_every_kind_of_object_survives(job: Job, postgres: Postgres, everything: str, new_database: Callable[..., str], form: str) -> None:
    backup = job.backup(format=form)
    target = new_database()
    ended = restore(job, backup, target)
    assert ended.code == 0, ended.log
    assert postgres.dump(target, "-O", "-x") == postgres.dump(everything, "-O", "-x")


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_replace_of_every_kind_of_object_gives_back_owners_and_grants(job: Job, postgres: Postgres, everything: str, form: str) -> None:
    before = postgres.dump(everything)
    backup = job.backup(format=form)
    damage = (
        "DELETE FROM app.posts WHERE id < 100; SELECT lo_unlink(4712); SELECT lo_put(4711, 0, 'broken'); DROP TABLE app.empty; DROP VIEW app.writable"
    )
    postgres.execute(damage, everything)
    ended = restore(job, backup, everything, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.dump(everything) == before
    assert ended.report.warnings == ()
    assert ended.report.safety_backup


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_the_planner_has_its_statistics_after_a_restore(
    job: Job, postgres: Postgres, inventory: str, new_database: Callable[..., str], form: str
) -> None:
    postgres.load(
        "CREATE MATERIALIZED VIEW counted AS SELECT generate_series(1, 100) AS i; CREATE TABLE parted (i int) PARTITION BY LIST (i)", inventory
    )
    backup = job.backup(format=form)
    target = new_database()
    ended = restore(job, backup, target)
    assert ended.code == 0, ended.log
    restored = [table for table in job.manifest(backup).contents.tables if table.kind in ("table", "materialized")]
    analyzed = "SELECT schemaname, relname FROM pg_stat_user_tables WHERE last_analyze IS NOT NULL"
    assert set(postgres.execute(analyzed, target)) >= {(table.schema_, table.name) for table in restored}
    assert postgres.execute("SELECT count(*) > 0 FROM pg_stats WHERE schemaname = 'public' AND tablename = 'servers'", target) == [(True,)]


@pytest.fixture
def tablespace(postgres: Postgres, database: str) -> Iterator[str]:
    """A tablespace of the server, with room for tables of the test's database."""
    place = postgres.data.parent / f"tablespace-{database}"
    place.mkdir()
    shutil.chown(place, *[postgres.data.stat().st_uid] * 2)
    postgres.execute(f"CREATE TABLESPACE {database}_space LOCATION '{place}'")
    yield f"{database}_space"
    postgres.execute(f"DROP DATABASE {database} WITH (FORCE)")
    postgres.execute(f"DROP TABLESPACE {database}_space")


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_tablespaces_stay_with_their_server(
    job: Job, postgres: Postgres, database: str, tablespace: str, new_database: Callable[..., str], form: str
) -> None:
    """A restore needs none, and puts everything into the database's own: what a Replace moves by
    that is reported."""
    postgres.load(
        f"CREATE TABLE t (a int PRIMARY KEY USING INDEX TABLESPACE {tablespace}) TABLESPACE {tablespace}; INSERT INTO t VALUES (1);"
        f"CREATE MATERIALIZED VIEW counted TABLESPACE {tablespace} AS SELECT count(*) FROM t; CREATE INDEX i ON t (a);",
        database,
    )
    backup = job.backup(format=form)
    target = new_database()
    ended = restore(job, backup, target)
    assert ended.code == 0, ended.log
    assert ended.report.warnings == ()
    moved = "SELECT count(*) FROM pg_class WHERE reltablespace <> 0 AND relnamespace = 'public'::regnamespace"
    assert postgres.execute(moved, target) == [(0,)]
    assert postgres.execute("SELECT a FROM t", target) == [(1,)]
    ended = restore(job, backup, database, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.execute(moved, database) == [(0,)]
    warning = "in the database's own tablespace now, as tablespaces are not in an artifact"
    assert ended.report.warnings == (f"{warning}: index public.t_pkey, materialized view public.counted, table public.t",)


def test_queries_are_compiled_as_without_us_and_ours_are_not(job: Job, postgres: Postgres, database: str, new_database: Callable[..., str]) -> None:
    postgres.load("CREATE MATERIALIZED VIEW seen AS SELECT current_setting('jit') AS jit", database)
    backup = job.backup()
    for setting in ("on", "off"):
        target = new_database()
        postgres.execute(f"ALTER DATABASE {target} SET jit = {setting}")
        ended = restore(job, backup, target)
        assert ended.code == 0, ended.log
        assert postgres.execute("SELECT jit FROM seen", target) == [(setting,)]
        with closing(connect(load_conninfo(job.target, job.paths))) as own:
            assert own.execute("SHOW jit").fetchone() == ("off",)
