"""Backups from what is no plain primary: a standby, a pooler, a server of another encoding."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.contract.servers import find
from tests.integration.conftest import PASSWORD, Job, Postgres, free_port, wait_for
from tests.integration.stock import assert_equal, follow_note, load_everything

from dbbackup.contract.run import BackupOptions


def caught_up(postgres: Postgres, standby: Postgres, database: str) -> None:
    lsn = postgres.execute("SELECT pg_current_wal_flush_lsn()")[0][0]
    wait_for(lambda: standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'")[0][0])


@pytest.mark.parametrize("fmt", ["plain", "custom"])
def test_a_standby(
    job: Job, postgres: Postgres, standby: Postgres, database: str, new_database: Callable[..., str], tmp_path: Path, fmt: str
) -> None:
    load_everything(postgres, database)
    caught_up(postgres, standby, database)
    job.secret(host="127.0.0.1", port=str(standby.port), dbname=database, username="postgres", password=PASSWORD)
    ended = job.backup(format=fmt)
    assert ended.code == 0, ended.log
    assert ended.report.warnings == ("a standby has no rows of unlogged tables, so the dump lacks the rows of public.unlogged",)
    manifest = job.manifest(ended)
    assert next(table for table in manifest.contents.tables if table.name == "unlogged").data_excluded
    target = new_database()
    follow_note(postgres, job.fetch(ended, tmp_path / "fetched"), target)
    # A standby sees sequences up to 32 values ahead: so much of them is logged at a time.
    one, other = (postgres.dump(name, "-O", "-x", "--exclude-table-data=public.unlogged") for name in (target, database))
    assert re.sub("setval.*", "", one) == re.sub("setval.*", "", other)


def test_a_standby_cancels_what_conflicts_with_recovery(job: Job, postgres: Postgres, standby: Postgres, database: str, tmp_path: Path) -> None:
    """The primary drops a table that the dump has locked; the standby waits no time for the
    dump."""
    standby.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
    standby.execute("SELECT pg_reload_conf()")
    postgres.execute("CREATE TABLE public.t AS SELECT i, repeat('x', 500) FROM generate_series(1, 200000) i", database)
    caught_up(postgres, standby, database)
    job.secret(host="127.0.0.1", port=str(standby.port), dbname=database, username="postgres", password=PASSWORD)
    directory = tmp_path / "clients" / postgres.bin.parent.name / "bin"
    directory.mkdir(parents=True)
    drop = f"PGAPPNAME=x PGPORT={postgres.port} {postgres.bin}/psql -Xqc 'DROP TABLE IF EXISTS public.t' >/dev/null"
    dropped = f'[ "$(PGAPPNAME=x {postgres.bin}/psql -XAtc "SELECT to_regclass(\'public.t\') IS NULL")" = t ]'
    dump = f'{postgres.bin}/pg_dump "$@"'
    (directory / "pg_dump").write_text(
        f'#!/bin/sh\n[ "$1" != --version ] || exec {dump}\n{drop}\nuntil {dropped}; do sleep 0.05; done\nexec {dump}\n'
    )
    (directory / "pg_dump").chmod(0o755)
    object.__setattr__(job.paths, "postgresql", tmp_path / "clients")
    try:
        ended = job.run(job.spec(backup=BackupOptions(format="custom")))
    finally:
        standby.execute("ALTER SYSTEM RESET max_standby_streaming_delay")
        standby.execute("SELECT pg_reload_conf()")
    assert ended.report.failure, ended.log
    assert ended.report.failure.retryable
    assert ended.reason in {"RecoveryConflict", "ConnectionLost", "DumpFailed"}, ended.log
    assert job.leftovers() == []


@pytest.mark.parametrize(("encoding", "locale"), [("LATIN1", "C"), ("SQL_ASCII", "C"), ("EUC_JP", "C")])
def test_another_encoding(job: Job, postgres: Postgres, new_database: Callable[..., str], tmp_path: Path, encoding: str, locale: str) -> None:
    options = f"TEMPLATE template0 ENCODING '{encoding}' LOCALE '{locale}'"
    source, target = new_database(options), new_database(options)
    name = {"LATIN1": "größe", "SQL_ASCII": "plain", "EUC_JP": "表"}[encoding]
    postgres.execute(f'CREATE TABLE public."{name}" (a text)', source)
    if encoding == "SQL_ASCII":
        postgres.execute(f"INSERT INTO public.{name} VALUES (E'\\xff\\xfe'), ('ü')", source)
    else:
        postgres.execute(f"""INSERT INTO public."{name}" VALUES ('{name} \\ x')""", source)
    job.connect_to(source)
    for fmt in ("plain", "custom"):
        ended = job.another(fmt).backup(format=fmt, clean=True)
        assert ended.code == 0, ended.log
        manifest = job.manifest(ended)
        assert manifest.database.encoding == encoding
        assert {table.name: table.rows for table in manifest.contents.tables} == {name: 2 if encoding == "SQL_ASCII" else 1}
        fresh = target if fmt == "plain" else new_database(options)
        follow_note(postgres, job.fetch(ended, tmp_path / fmt), fresh)
        assert_equal(postgres, fresh, source)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def pooler(postgres: Postgres, database: str, tmp_path: Path) -> Iterator[int]:
    """PgBouncer in session mode, as a pooler that refuses start-up options; its port."""
    binary = find("pgbouncer", hint="apt-get install pgbouncer")
    port, directory = free_port(), tmp_path / "pgbouncer"
    directory.mkdir()
    (directory / "users").write_text('"postgres" "' + PASSWORD.replace('"', '""') + '"\n')
    (directory / "ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={postgres.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = plain\n"
        f"auth_file = {directory}/users\npool_mode = session\nunix_socket_dir =\nuser = postgres\n"
    )
    # PgBouncer leaves root. Nothing else is opened: libpq ignores a password file that others may
    # read.
    subprocess.run(["chmod", "-R", "a+rX", directory], check=True)
    subprocess.run(["chmod", "a+x", tmp_path, *tmp_path.parents[:2]], check=True)
    with subprocess.Popen([binary, directory / "ini"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: _listens(port))
        yield port
        process.terminate()


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_a_pooler(job: Job, postgres: Postgres, database: str, new_database: Callable[..., str], pooler: int, form: str) -> None:
    """A backup, a restore in place and one into a database that it creates."""
    load_everything(postgres, database)
    before = postgres.dump(database)
    job.secret(host="127.0.0.1", port=str(pooler), dbname=database, username="postgres", password=PASSWORD)
    backup = job.backup(format=form)
    assert backup.code == 0, backup.log
    assert backup.report.artifact
    options = {"key": backup.report.artifact.key}
    postgres.execute("DELETE FROM app.people", database)
    other = job.another("in-place", "DatabaseRestore")
    ended = other.run(other.spec("restore", restore={**options, "on_existing": "Replace"}))
    assert ended.code == 0, ended.log
    assert postgres.dump(database) == before
    target = new_database()
    postgres.execute(f"DROP DATABASE {target}")
    job.secret(host="127.0.0.1", port=str(pooler), dbname=target, username="postgres", password=PASSWORD)
    other = job.another("created", "DatabaseRestore")
    ended = other.run(other.spec("restore", restore={**options, "create_database": True}))
    assert ended.code == 0, ended.log
    assert_equal(postgres, target, database)
