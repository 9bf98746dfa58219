"""Backups that must fail: each with its own reason, and nothing left in the bucket."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from tests.integration.conftest import PASSWORD, Gate, Job, Postgres, free_port, start_postgres, wait_for
from tests.integration.stock import load_everything
from tests.root import ROOT

from dbbackup.contract.errors import Failure
from dbbackup.contract.keys import directory
from dbbackup.contract.mounts import ENVIRONMENT
from dbbackup.contract.report import Report
from dbbackup.contract.run import BackupOptions, Compression, DatabaseTarget
from dbbackup.dataplane.backup.run import BackupRun
from dbbackup.dataplane.context import Run, Stop
from dbbackup.dataplane.logs import Reporter
from dbbackup.dataplane.postgres.conninfo import load_conninfo
from dbbackup.dataplane.postgres.locks import KEY
from dbbackup.storage.base import Storage


@pytest.fixture
def everything(postgres: Postgres, database: str) -> str:
    load_everything(postgres, database)
    return database


@pytest.fixture
def role(postgres: Postgres, database: str) -> Iterator[str]:
    name = f"r_{database}"
    postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD.replace(chr(39), chr(39) * 2)}'")
    yield name
    postgres.execute(f"DROP OWNED BY {name}", database)
    postgres.execute(f"DROP ROLE {name}")


def fails(job: Job, reason: str, *words: str, **options: Any) -> Report:
    ended = job.backup(**options)
    assert ended.reason == reason, ended.log
    assert ended.code == int(ended.code) > 0
    assert ended.report.failure
    for word in words:
        assert word in ended.report.failure.message
    assert PASSWORD not in ended.log
    assert job.leftovers() == []
    assert not list(job.paths.scratch.iterdir())
    return ended.report


def with_client(job: Job, tmp_path: Path, script: str) -> None:
    """Puts `script` in pg_dump's place; `$REAL` is the real one. It must pass `--version` on."""
    directory = tmp_path / "clients" / job.postgres.bin.parent.name / "bin"
    directory.mkdir(parents=True)
    file = directory / "pg_dump"
    file.write_text(f'#!/bin/sh\nREAL={job.postgres.bin}/pg_dump\n[ "$1" = --version ] && exec $REAL --version\n{script}\n')
    file.chmod(0o755)
    job.paths = replace(job.paths, postgresql=tmp_path / "clients")


def test_wrong_password(job: Job, database: str) -> None:
    job.connect_to(database, password="wrong password")
    fails(job, "AuthenticationFailed", f"/{database} as user postgres")


def test_unknown_database(job: Job) -> None:
    job.connect_to("nope")
    fails(job, "DatabaseNotFound", "/nope")


def test_unreachable(job: Job, database: str) -> None:
    job.secret(host="127.0.0.1", port=str(free_port()), dbname=database, username="postgres", password=PASSWORD)
    fails(job, "DatabaseUnreachable", "Connection refused")
    job.secret(host="no-such-host.invalid", dbname=database, username="postgres", password=PASSWORD)
    fails(job, "DatabaseUnreachable", "no-such-host.invalid:5432")


def test_missing_secret_and_key(job: Job) -> None:
    job.secret()
    fails(job, "SecretMissing", "app-db")
    job.secret(username="postgres")
    fails(job, "KeyMissing", "password")


def test_storage_secret_and_bucket(job: Job) -> None:
    good = job.storage_target
    job.storage_target = good.model_copy(update={"bucket": "no-such-bucket-here", "create_bucket": False})
    ended = job.backup()
    assert ended.reason == "BucketNotFound", ended.log
    job.storage_target = good.model_copy(update={"endpoint": f"http://127.0.0.1:{free_port()}"})
    key = job.paths.storage_secret / "secretAccessKey"
    value = key.read_text()
    job.storage_target = good
    key.write_text("wrong")
    ended = job.backup()
    assert ended.reason == "StorageAuthenticationFailed", ended.log
    key.unlink()
    ended = job.backup()
    assert ended.reason == "KeyMissing", ended.log
    key.write_text(value)
    assert job.leftovers() == []


def test_hidden_rows_are_named_all_at_once(job: Job, postgres: Postgres, database: str, role: str) -> None:
    postgres.load(
        f"""CREATE SCHEMA s; CREATE TABLE s.hidden (a int); CREATE TABLE s.forced (a int); CREATE TABLE s.owned (a int); CREATE TABLE s.out (a int);
        ALTER TABLE s.hidden ENABLE ROW LEVEL SECURITY; ALTER TABLE s.out ENABLE ROW LEVEL SECURITY;
        ALTER TABLE s.forced ENABLE ROW LEVEL SECURITY; ALTER TABLE s.forced FORCE ROW LEVEL SECURITY;
        ALTER TABLE s.owned ENABLE ROW LEVEL SECURITY; ALTER TABLE s.owned OWNER TO {role}; ALTER TABLE s.forced OWNER TO {role};
        GRANT USAGE ON SCHEMA s TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA s TO {role};""",
        database,
    )
    job.connect_to(database, role)
    report = fails(job, "RowSecurity", "s.hidden", "s.forced", exclude_table_data=("s.out",))
    assert report.failure
    assert "s.owned" not in report.failure.message
    assert "s.out" not in report.failure.message
    ended = job.backup(exclude_table_data=("s.out", "s.hidden", "s.forced"))
    assert ended.code == 0, ended.log


def test_unreadable_relations_are_named_all_at_once(job: Job, postgres: Postgres, database: str, role: str) -> None:
    postgres.load(f"CREATE TABLE a (i serial); CREATE TABLE b (i int); CREATE TABLE c (i int); GRANT SELECT ON c TO {role};", database)
    job.connect_to(database, role)
    report = fails(job, "InsufficientPrivilege", "public.a", "public.a_i_seq", "public.b")
    assert report.failure
    assert "public.c" not in report.failure.message


def test_unreadable_large_objects(job: Job, postgres: Postgres, database: str, role: str) -> None:
    postgres.execute("SELECT lo_from_bytea(0, 'x')", database)
    job.connect_to(database, role)
    fails(job, "InsufficientPrivilege", "large object")


def test_a_schema_that_is_not_there(job: Job) -> None:
    fails(job, "InvalidSpec", "nope", "public", schemas=("public", "nope"))


def test_servers_out_of_range(job: Job, database: str, tmp_path: Path) -> None:
    job.paths = replace(job.paths, postgresql=tmp_path)
    fails(job, "ServerTooNew", "PostgreSQL")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ('"$REAL" "$@" | head -c 20000; exit 1', "DumpFailed"),
        ('"$REAL" "$@" | head -c 20000; exit 0', "DumpFailed"),
        ("exit 0", "DumpFailed"),
        ("echo 'pg_dump: error: query failed: server closed the connection unexpectedly' >&2; exit 1", "ConnectionLost"),
        ("kill -9 $$", "OutOfMemory"),
        ('"$REAL" "$@"; echo "pg_dump: error: query failed: ERROR:  invalid memory alloc request size 1258291203" >&2; exit 1', "ValueTooLarge"),
        ("printf -- '-- Name: x\\n\\\\! touch /tmp/evil\\n'; exit 0", "DumpFailed"),
    ],
)
def test_a_dump_that_dies(job: Job, everything: str, tmp_path: Path, script: str, reason: str) -> None:
    with_client(job, tmp_path, script)
    fails(job, reason)
    fails(job, reason, format="custom") if "20000; exit 0" not in script and "evil" not in script and script != "exit 0" else None


@pytest.mark.parametrize("table", ["certificate", "conflict with recovery", "out of memory", "x\npg_dump: error: query failed: FATAL:  x"])
def test_a_name_is_no_reason(job: Job, postgres: Postgres, database: str, tmp_path: Path, table: str) -> None:
    """Rows that the server cannot write: pg_dump's error and its query hold the table's name."""
    postgres.load(
        f"""CREATE TYPE bad; CREATE FUNCTION bad_in(cstring) RETURNS bad LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
        CREATE FUNCTION bad_out(bad) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'shell_out';
        CREATE TYPE bad (INPUT = bad_in, OUTPUT = bad_out, LIKE = int4); CREATE TABLE "{table}" AS SELECT '1'::bad AS "{table}";""",
        database,
    )
    fails(job, "DumpFailed", "cannot display a value of a shell type")
    fails(job, "DumpFailed", "cannot display a value of a shell type", format="custom")


def test_its_server_process_is_ended(job: Job, postgres: Postgres, everything: str, tmp_path: Path) -> None:
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'dbbackup pg_dump' AND query LIKE 'COPY %' AND pid <> pg_backend_pid()"
    )
    for fmt in ("plain", "custom"):
        ended = f'{postgres.bin}/psql -XAtqc "{kill}" | grep -q t'
        shell = f'"$REAL" "$@" & dump=$!; until {ended}; do :; done; wait $dump'
        postgres.execute("CREATE TABLE IF NOT EXISTS public.large AS SELECT repeat('x', 1000) FROM generate_series(1, 300000)", everything)
        with_client(job, tmp_path / fmt, shell)
        fails(job, "ConnectionLost", format=fmt)


def test_the_coordinator_is_ended(job: Job, postgres: Postgres, everything: str, tmp_path: Path) -> None:
    """Before pg_dump has taken the snapshot over."""
    gate = Gate(tmp_path)
    with_client(job, tmp_path, f'{gate.shell}; exec "$REAL" "$@"')
    mine = "application_name = 'dbbackup backup' AND datname = current_database()"

    def end() -> None:
        gate.wait()
        assert postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}", everything)
        wait_for(lambda: not postgres.execute(f"SELECT 1 FROM pg_stat_activity WHERE {mine}", everything))
        gate.open()

    thread = threading.Thread(target=end)
    thread.start()
    ended = job.backup(format="custom")
    thread.join()
    assert ended.code != 0, ended.log
    assert job.leftovers() == []


def test_an_artifact_that_outgrows_its_limit(job: Job, everything: str) -> None:
    job.storage_target = job.storage_target.model_copy(update={"max_artifact_size": 5000})
    fails(job, "ArtifactTooLarge", "5000")
    fails(job, "ArtifactTooLarge", "5000", format="custom", compression=Compression(algorithm="none"))


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("name", ["manifest.json", "RESTORE.md", "catalog.jsonl.gz"])
def test_a_seal_that_fails(job: Job, everything: str, name: str, stored: bool) -> None:
    """The bucket's answer to the last request but none is lost, whether or not the object came to
    be: the artifact goes again."""

    class Faulty:
        def __init__(self, storage: Storage) -> None:
            self.storage = storage

        def __getattr__(self, attribute: str) -> Any:
            return getattr(self.storage, attribute)

        def put(self, key: str, body: bytes, content_type: str, *, if_absent: bool = False) -> None:
            if stored or not key.endswith(name):
                self.storage.put(key, body, content_type, if_absent=if_absent)
            if key.endswith(name):
                raise Failure("StorageUnavailable", f"no answer to {key}")

    run = Run(job.spec(), job.paths, Reporter(io.StringIO()), Stop())
    with pytest.raises(Failure, match=name):
        BackupRun(run, load_conninfo(job.target, job.paths), BackupOptions(), lambda: cast("Storage", Faulty(job.storage))).execute()
    assert job.leftovers() == []


def test_a_storage_that_stays_away_leaves_the_clearing_up_to_a_check(job: Job, everything: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes once the dump is stored; the attempt cannot clear away, and says so."""

    class Away:
        def __init__(self, storage: Storage) -> None:
            self.storage, self.away = storage, False

        def __getattr__(self, attribute: str) -> Any:
            if self.away:
                raise Failure("StorageUnavailable", "no answer")
            return getattr(self.storage, attribute)

        def put(self, key: str, body: bytes, content_type: str, *, if_absent: bool = False) -> None:
            self.away = self.away or key.endswith("RESTORE.md")
            self.__getattr__("put")(key, body, content_type, if_absent=if_absent)

    storage = Away(job.storage)
    with monkeypatch.context() as patched:
        patched.setattr("dbbackup.dataplane.backup.run.open_bucket", lambda _: storage)
        ended = job.backup()
    assert (ended.reason, ended.report.uncleared) == ("StorageUnavailable", True), ended.log
    assert [key.rpartition("/")[2] for key in job.leftovers()] == ["catalog.jsonl.gz", "dump.sql.zst"]
    checked = job.run(job.spec("check", check={"run": "backup", "lostReason": "StorageUnavailable", "lostMessage": "no answer"}))
    assert (checked.reason, checked.report.uncleared) == ("StorageUnavailable", None), checked.log
    assert job.leftovers() == []


@pytest.mark.parametrize("name", ["dump.sql.zst", "catalog.jsonl.gz", "manifest.json"])
def test_two_attempts_at_once(job: Job, everything: str, tmp_path: Path, name: str) -> None:
    """What another attempt stored meanwhile is neither overwritten nor cleared away."""
    gate = Gate(tmp_path)
    with_client(job, tmp_path, f'{gate.shell}; exec "$REAL" "$@"')
    key = directory("team", job.owner, "127.0.0.1", job.postgres.port, everything) + "/" + name
    storage = job.storage

    def store() -> None:
        gate.wait()
        storage.put(key, b"the other one's", "text/plain")
        gate.open()

    thread = threading.Thread(target=store)
    thread.start()
    ended = job.backup()
    thread.join()
    assert ended.reason == "ArtifactExists", ended.log
    assert storage.get(key, 100) == b"the other one's"


def test_a_locked_table(job: Job, postgres: Postgres, database: str) -> None:
    postgres.execute("CREATE TABLE public.busy (a int)", database)
    with postgres.connect(database) as other, other.transaction():
        other.execute("LOCK TABLE public.busy")
        ended = job.run(job.spec(timeout_seconds=2))
        assert ended.reason == "Timeout", ended.log
        assert ended.code == 11
    assert job.leftovers() == []


def test_another_run_holds_the_database(job: Job, postgres: Postgres, database: str) -> None:
    with postgres.connect(database) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (KEY,))
        ended = job.run(job.spec(timeout_seconds=5))
        assert ended.reason == "DatabaseBusy", ended.log
        assert any(event["event"] == "waiting" for event in ended.events)
        threading.Timer(1.0, other.execute, ("SELECT pg_advisory_unlock_all()",)).start()
        ended = job.run(job.spec(timeout_seconds=60))
        assert ended.code == 0, ended.log


def subprocess_of(job: Job, **spec: Any) -> subprocess.Popen[bytes]:
    """The Job's process, with its mounts set by a line of Python."""
    paths = {
        name: str(getattr(job.paths, name))
        for name in ("database_secret", "database_ca", "storage_secret", "storage_ca", "scratch", "termination_log")
    }
    code = (
        "import sys; from pathlib import Path; from dbbackup.dataplane import main; from dbbackup.dataplane.paths import Paths\n"
        f"main.Paths = lambda: Paths(**{{k: Path(v) for k, v in {paths!r}.items()}}, postgresql=Path({str(job.paths.postgresql)!r}))\n"
        "sys.exit(main.main())"
    )
    environment = {**os.environ, ENVIRONMENT: job.spec(**spec).to_json(), "PYTHONPATH": str(ROOT / "operator")}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_sigterm(job: Job, everything: str, tmp_path: Path) -> None:
    mark = tmp_path / "started"
    with_client(job, tmp_path, f'touch {mark}; "$REAL" "$@"; sleep 100')
    process = subprocess_of(job)
    wait_for(mark.exists)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    report = Report.model_validate_json(job.paths.termination_log.read_text())
    assert report.failure, output
    assert (report.failure.reason, process.returncode) == ("Terminated", 10)
    assert job.leftovers() == []


def test_timeout_while_dumping(job: Job, everything: str, tmp_path: Path) -> None:
    with_client(job, tmp_path, '"$REAL" "$@"; sleep 1000')
    ended = job.run(job.spec(timeout_seconds=3))
    assert (ended.reason, ended.code) == ("Timeout", 11), ended.log
    assert job.leftovers() == []


def test_tls(job: Job, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    certificates = Path("/tmp") / f"dbbackup-tls-{os.getpid()}"
    certificates.mkdir()
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    for name in ("server", "other"):
        files: list[str | Path] = ["-keyout", certificates / f"{name}.key", "-out", certificates / f"{name}.crt"]
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files, *subject], check=True, capture_output=True)
    if os.geteuid() == 0:
        subprocess.run(["chown", "postgres", certificates / "server.key"], check=True)
    directory = Path("/tmp") / f"dbbackup-tls-pg-{os.getpid()}"
    settings = {"ssl": "on", "ssl_cert_file": str(certificates / "server.crt"), "ssl_key_file": str(certificates / "server.key")}
    for server in start_postgres(directory, **settings):
        job.secret(host="127.0.0.1", port=str(server.port), dbname="postgres", username="postgres", password=PASSWORD)
        job.paths.database_ca.mkdir()
        job.target = DatabaseTarget(secret="app-db", ca_secret="db-ca")
        (job.paths.database_ca / "ca.crt").write_bytes((certificates / "other.crt").read_bytes())
        fails(job, "TLSFailed", "certificate")
        (job.paths.database_ca / "ca.crt").write_bytes((certificates / "server.crt").read_bytes())
        ended = job.backup()
        assert ended.code == 0, ended.log
        assert ended.report.database
        assert ended.report.database.tls
    subprocess.run(["rm", "-r", certificates], check=True)


def test_tls_that_the_server_lacks(job: Job) -> None:
    job.target = DatabaseTarget(secret="app-db", ssl_mode="require")
    fails(job, "TLSFailed", "does not support SSL")
