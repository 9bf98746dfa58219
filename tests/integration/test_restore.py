"""Restores, from the Job's entry point to the target database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.data import generate
from tests.integration.conftest import Ended, Job, Postgres

from dbbackup.run import RestoreOptions


@pytest.fixture
def inventory(postgres: Postgres, database: str) -> str:
    """The demo database, loaded."""
    postgres.load(generate.render(role_prefix=f"{database}_"), database)
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
