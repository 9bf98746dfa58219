"""Restores, from the Job's entry point to the target database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.data import generate
from tests.integration.conftest import PASSWORD, Ended, Job, Postgres

from dbbackup.run import RestoreOptions


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
