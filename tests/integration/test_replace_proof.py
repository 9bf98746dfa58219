"""A Replace proves what it did before it commits: exactly what was foreseen is gone, and all of it
is there again. Where our own reading of the catalogs was wrong, nothing is changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.integration.conftest import Job, Postgres
from tests.integration.test_restore_refused import SOURCE, restore, untouched

from dbbackup.dataplane.restore import closure, dropping, roots


def test_more_is_gone_than_was_foreseen(job: Job, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres.load(SOURCE, database)
    backup = job.backup()
    postgres.load("CREATE VIEW newer AS SELECT * FROM seen", database)

    def blind(*arguments: Any) -> closure.Replaced:
        return replace(closure.examine(*arguments), outside=())

    monkeypatch.setattr("dbbackup.dataplane.restore.run.examine", blind)
    with untouched(postgres, database):
        ended = restore(job, backup, database, on_existing="Replace")
    assert ended.reason == "InternalError", ended.log
    assert ended.report.failure
    assert "the server did not drop exactly what was foreseen: object " in ended.report.failure.message
    assert ended.report.failure.message.endswith("everything was rolled back")


def test_columns_of_tables_that_stay_count_too(job: Job, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres.load(SOURCE, database)
    backup = job.backup()
    postgres.load("CREATE TABLE stays (id int, mood mood); INSERT INTO stays VALUES (1, 'a')", database)
    monkeypatch.setattr("dbbackup.dataplane.restore.run.examine", lambda *arguments: replace(closure.examine(*arguments), outside=()))
    with untouched(postgres, database):
        ended = restore(job, backup, database, on_existing="Replace")
    assert ended.reason == "InternalError", ended.log
    assert ended.report.failure
    assert "columns of relation " in ended.report.failure.message


def test_less_is_gone_than_was_foreseen(job: Job, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres.load(SOURCE, database)
    backup = job.backup()
    postgres.load("CREATE TABLE stays ()", database)
    ((stays,),) = postgres.execute("SELECT 'stays'::regclass::oid::bigint", database)

    def lie(*arguments: Any) -> closure.Replaced:
        found = closure.examine(*arguments)
        return replace(found, gone={**found.gone, 1259: found.gone[1259] | {stays}})

    monkeypatch.setattr("dbbackup.dataplane.restore.run.examine", lie)
    with untouched(postgres, database):
        ended = restore(job, backup, database, on_existing="Replace")
    assert ended.reason == "InternalError", ended.log
    assert ended.report.failure
    assert f"object {stays} of system catalog 1259 is still there" in ended.report.failure.message


def test_all_that_was_dropped_is_there_again(job: Job, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres.load(SOURCE, database)
    backup = job.backup()
    postgres.load("CREATE TABLE newer AS SELECT 1 AS id", database)

    def too_many(*arguments: Any) -> dict[Any, str]:
        return {**roots.wanted_keys(*arguments), ("pg_class", ("public", "newer"), ()): "table"}

    monkeypatch.setattr("dbbackup.dataplane.restore.run.wanted_keys", too_many)
    with untouched(postgres, database):
        ended = restore(job, backup, database, on_existing="Replace")
    assert ended.reason == "RestoreFailed", ended.log
    assert ended.report.failure
    assert "the artifact did not make again what was dropped for it: table public.newer" in ended.report.failure.message


def test_what_others_drop_meanwhile_is_no_deviation(job: Job, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres.load(SOURCE + "CREATE TABLE theirs (a int)", database)
    backup = job.backup(exclude_tables=["public.theirs"])
    before = postgres.dump(database, "-T", "theirs")
    with postgres.connect(database) as other:
        other.execute("CREATE TEMPORARY TABLE fleeting (a int)")

        def meanwhile(*arguments: Any) -> Any:
            other.execute("DROP TABLE fleeting; DROP TABLE theirs; CREATE TABLE another ()")
            return dropping.drop_statements(*arguments)

        monkeypatch.setattr("dbbackup.dataplane.restore.replace.drop_statements", meanwhile)
        ended = restore(job, backup, database, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.dump(database, "-T", "another") == before
