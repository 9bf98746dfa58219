"""ANALYZE after a restore: a table that cannot be analyzed keeps none of the others from it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import cast

import psycopg
import pytest
from tests.integration.conftest import Job, Postgres

from dbbackup.contract.errors import Failure
from dbbackup.contract.manifest import TableEntry
from dbbackup.dataplane.context import Run, Stop
from dbbackup.dataplane.postgres.connection import Connection, connect
from dbbackup.dataplane.postgres.conninfo import load_conninfo
from dbbackup.dataplane.restore import analyze as module
from dbbackup.dataplane.restore.analyze import analyze

ANALYZED = "SELECT relname FROM pg_stat_user_tables WHERE last_analyze IS NOT NULL ORDER BY 1"


class Warned:
    """What `analyze` needs of a run."""

    def __init__(self) -> None:
        self.stop = Stop()
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def tables(*names: str) -> list[TableEntry]:
    return [TableEntry.model_validate({"schema": "public", "name": name, "kind": "table"}) for name in names]


def test_each_table_that_failed_is_named(job: Job, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    user = f"a_{database}"
    monkeypatch.setattr(module, "_LOCK_TIMEOUT", 1)
    postgres.load(
        f"""CREATE FUNCTION bad(t text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
        'BEGIN RAISE WARNING ''hidden %'', t; IF t = ''x'' THEN RETURN t::int; END IF; RETURN 1; END';
        CREATE TABLE first (t text); CREATE TABLE wrong (t text); CREATE TABLE warns (t text); CREATE TABLE busy (t text);
        CREATE TABLE foreign_ (t text); CREATE TABLE last (t text); CREATE INDEX ON wrong (bad(t)); CREATE INDEX ON warns (bad(t));
        INSERT INTO first VALUES ('1'); INSERT INTO warns VALUES ('1'); INSERT INTO last VALUES ('1');
        UPDATE pg_index SET indisready = false WHERE indrelid = 'wrong'::regclass; INSERT INTO wrong VALUES ('x');
        UPDATE pg_index SET indisready = true WHERE indrelid = 'wrong'::regclass;
        CREATE ROLE {user} LOGIN PASSWORD 'x';
        GRANT ALL ON SCHEMA public TO {user}; ALTER FUNCTION bad(text) OWNER TO {user};""",
        database,
    )
    for name in ("first", "wrong", "warns", "busy", "last"):
        postgres.execute(f"ALTER TABLE {name} OWNER TO {user}", database)
    job.connect_to(database, user, "x")
    run = Warned()
    with closing(connect(load_conninfo(job.target, job.paths))) as connection, postgres.connect(database) as other, other.transaction():
        other.execute("LOCK TABLE busy IN SHARE UPDATE EXCLUSIVE MODE")
        analyze(cast("Run", run), connection, tables("first", "wrong", "warns", "busy", "foreign_", "last"))
    skipped = (
        'permission denied to analyze "foreign_", skipping it'
        if postgres.major >= 17
        else 'skipping "foreign_" --- only table or database owner can analyze it'
    )
    assert "; ".join(run.warnings) == (
        "ANALYZE failed for 3 tables, run it by hand: public.wrong (invalid input syntax for type integer), "
        f"public.busy (canceling statement due to lock timeout), public.foreign_ ({skipped})"
    )
    assert [name for (name,) in postgres.execute(ANALYZED, database)] == ["first", "last", "warns"]
    postgres.load(f"REASSIGN OWNED BY {user} TO postgres; DROP OWNED BY {user}; DROP ROLE {user}", database)


def stop(connection: Connection, run: Warned) -> None:
    run.stop.set(Failure("Timeout", "the run took too long"))


def end(connection: Connection, run: Warned) -> None:
    with pytest.raises(psycopg.errors.AdminShutdown):
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


@pytest.mark.parametrize(("breaking", "said"), [(stop, "the run took too long"), (end, "the connection is closed")])
def test_whatever_ends_it_is_a_warning(
    job: Job, postgres: Postgres, database: str, breaking: Callable[[Connection, Warned], None], said: str
) -> None:
    postgres.execute("CREATE TABLE first (t text); CREATE TABLE last (t text)", database)
    run = Warned()
    with closing(connect(load_conninfo(job.target, job.paths))) as connection:
        breaking(connection, run)
        analyze(cast("Run", run), connection, tables("first", "last"))
    (warning,) = run.warnings
    assert warning.startswith("ANALYZE after the restore ended early, run it by hand: ")
    assert said in warning
    assert postgres.execute(ANALYZED, database) == []
