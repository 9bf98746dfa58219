"""Artifacts without a catalog, as version 0.1 made them: the names in their DROP statements say
what they replace."""

from __future__ import annotations

import pytest
from tests.integration.conftest import Ended, Job, Postgres
from tests.integration.test_replace_circles import CIRCLES, FOR_SUPERUSERS, script
from tests.integration.test_restore_refused import SOURCE, nothing_written, restore, untouched

from dbbackup.contract.manifest import sha256_hex
from dbbackup.dataplane.restore import legacy_drops


def without_catalog(job: Job, backup: Ended) -> Ended:
    """The same artifact, as if version 0.1 had made it."""
    assert backup.report.artifact
    data = job.manifest(backup).model_copy(update={"catalog": None}).to_bytes()
    job.storage.put(f"{backup.report.artifact.key}/manifest.json", data, "application/json")
    report = backup.report.artifact.model_copy(update={"manifest_sha256": sha256_hex(data)})
    return Ended(backup.code, backup.report.model_copy(update={"artifact": report}), backup.events, backup.log)


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_everything_is_found_by_its_name(job: Job, postgres: Postgres, database: str, form: str) -> None:
    postgres.load(script(CIRCLES | FOR_SUPERUSERS), database)
    before = postgres.dump(database)
    ended = restore(job, without_catalog(job, job.backup(format=form)), database, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.dump(database) == before
    assert ended.report.warnings == ()


def test_a_statement_that_is_not_understood_refuses(job: Job, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres.load(SOURCE, database)
    backup = without_catalog(job, job.backup())
    understood = legacy_drops.parse_drop_statement
    monkeypatch.setattr(legacy_drops, "parse_drop_statement", lambda text: "VIEW" not in text and understood(text))
    with untouched(postgres, database):
        ended = restore(job, backup, database, on_existing="Replace")
    assert ended.reason == "FormatUnsupported", ended.log
    assert ended.report.failure
    assert "the artifact's DROP section contains DROP VIEW IF EXISTS public.seen" in ended.report.failure.message
    assert "empty database" in ended.report.failure.hint
    assert nothing_written(job)


def test_without_drop_statements_nothing_can_be_replaced(job: Job, postgres: Postgres, database: str) -> None:
    postgres.load(SOURCE, database)
    backup = job.backup(clean=False)
    with untouched(postgres, database):
        ended = restore(job, without_catalog(job, backup), database, on_existing="Replace")
    assert ended.reason == "TargetNotEmpty"
    assert ended.report.failure
    assert "clean: false" in ended.report.failure.message


def test_with_a_catalog_drop_statements_are_not_needed(job: Job, postgres: Postgres, database: str) -> None:
    postgres.load(SOURCE, database)
    before = postgres.dump(database)
    backup = job.backup(clean=False)
    postgres.execute("DROP VIEW seen; ALTER TABLE parent DROP COLUMN text", database)
    ended = restore(job, backup, database, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.dump(database) == before
