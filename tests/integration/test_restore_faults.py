"""Artifacts that are not what they should be, and restores that break on the way: the target is as
it was, or the outcome is reported truly."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.integration.conftest import Ended, Job, Postgres
from tests.integration.test_restore_refused import SOURCE, restore, untouched

from dbbackup.contract.manifest import Manifest, Part, StoredObject, sha256_hex
from dbbackup.dataplane.postgres.locks import KEY
from dbbackup.storage.codec import compressor, decompress


@pytest.fixture
def source(postgres: Postgres, database: str) -> str:
    postgres.load(SOURCE, database)
    return database


def stored(job: Job, backup: Ended) -> tuple[str, Manifest]:
    manifest = job.manifest(backup)
    assert backup.report.artifact
    return f"{backup.report.artifact.key}/{manifest.artifact.name}", manifest


def forge(job: Job, backup: Ended, change: Callable[[bytes], bytes], *, cut: int | None = None, **contents: Any) -> str:
    """Writes a manifest that fits a changed artifact: what digests alone can't catch. Returns the
    manifest's SHA-256."""
    key, manifest = stored(job, backup)
    sql = change(b"".join(decompress(manifest.compression, [job.storage.get(key, 1 << 30)])))
    packer = compressor(manifest.compression)
    data = (packer.feed(sql) + packer.finish())[:cut]
    job.storage.put(key, data, "application/zstd")
    digest = sha256_hex(data)
    entry = StoredObject(name=manifest.artifact.name, size=len(data), sha256=digest, parts=(Part(size=len(data), sha256=digest),))
    forged = manifest.model_copy(update={"objects": (entry,), **contents}).to_bytes()
    job.storage.put(key.rpartition("/")[0] + "/manifest.json", forged, "application/json")
    return sha256_hex(forged)


@pytest.mark.parametrize("form", ["plain", "custom"])
@pytest.mark.parametrize("damage", ["gone", "truncated", "flipped", "empty", "manifest gone", "manifest changed"])
def test_a_damaged_artifact_is_refused(job: Job, postgres: Postgres, source: str, form: str, damage: str) -> None:
    backup = job.backup(format=form)
    key, _ = stored(job, backup)
    manifest_key = key.rpartition("/")[0] + "/manifest.json"
    data = job.storage.get(key, 1 << 30)
    middle = len(data) // 2
    expected = "ArtifactCorrupt"
    match damage:
        case "gone":
            job.storage.delete([key])
            expected = "ArtifactMissing"
        case "truncated":
            job.storage.put(key, data[:-100], "application/zstd")
        case "flipped":
            job.storage.put(key, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :], "application/zstd")
        case "empty":
            job.storage.put(key, b"", "application/zstd")
        case "manifest gone":
            job.storage.delete([manifest_key])
            expected = "ArtifactMissing"
        case _:
            job.storage.put(manifest_key, job.storage.get(manifest_key, 1 << 20) + b" ", "application/json")
            expected = "ManifestDigestMismatch"
    with untouched(postgres, source):
        ended = restore(job, backup, source, on_existing="Replace", safety_backup=False)
    assert ended.reason == expected, ended.log
    assert not [key for key in job.leftovers() if "=restores" in key]


FORGERIES: dict[str, tuple[Callable[[bytes], bytes], str, str]] = {
    "cut within rows": (lambda sql: sql[: sql.index(b"secret-150")], "ArtifactCorrupt", "ends within COPY data"),
    "cut between statements": (lambda sql: sql[: sql.index(b"COPY public.parent")], "RowCountMismatch", "public.parent: 0 rows"),
    "rows missing": (lambda sql: sql.replace(b"\n100\t100\n", b"\n"), "RowCountMismatch", "public.child: 199 rows"),
    "a row too many": (lambda sql: sql.replace(b"200\ta\tsecret-200\n", b"200\ta\tx\n201\ta\tx\n"), "RowCountMismatch", "public.parent: 201 rows"),
    "a shell command": (lambda sql: sql.replace(b"COPY public.parent", b"\\! touch /tmp/owned\nCOPY public.parent"), "ArtifactCorrupt", "\\!"),
    "a commit in the middle": (lambda sql: sql.replace(b"COPY public.parent", b"COMMIT AND CHAIN;\nCOPY public.parent"), "ArtifactCorrupt", "COMMIT"),
    "a refused statement at the end": (lambda sql: sql + b"ALTER TABLE public.child ADD CONSTRAINT u UNIQUE (a);", "RestoreFailed", "public.child"),
    "a violated check at the end": (
        lambda sql: sql + b"ALTER TABLE public.parent ADD CONSTRAINT none CHECK (text <> 'secret-7');", "ConstraintViolation", "constraint \"none\"",
    ),
    "a duplicate key": (lambda sql: sql.replace(b"200\ta\tsecret-200\n", b"1\ta\tsecret-200\n"), "ConstraintViolation", "parent_pkey"),
    "a value that does not fit": (lambda sql: sql.replace(b"200\ta\tsecret-200", b"200\tsecretmood\tx"), "RestoreFailed", "row 200"),
    "a function that relies on search_path": (
        lambda sql: sql + b"CREATE FUNCTION public.bad() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM elsewhere); END';"
        b"ALTER TABLE public.child ADD CONSTRAINT c CHECK (public.bad() > 0);", "SearchPathDependency", "bad",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_what_no_digest_catches_is_rolled_back(job: Job, postgres: Postgres, source: str, name: str) -> None:
    change, reason, expected = FORGERIES[name]
    backup = job.backup()
    digest = forge(job, backup, change)
    with untouched(postgres, source):
        ended = restore(job, backup, source, on_existing="Replace", safety_backup=False, manifest_sha256=digest)
    assert ended.reason == reason, ended.log
    assert ended.report.failure
    assert expected in ended.report.failure.message
    assert "secret" not in ended.report.failure.message.replace("'secret-7'", ""), "values of the data are nobody's business"


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_an_artifact_of_a_newer_server_is_refused(job: Job, postgres: Postgres, source: str, form: str) -> None:
    """As its manifest says: these tests have only one server."""
    backup = job.backup(format=form)
    key, manifest = stored(job, backup)
    newer = manifest.database.model_copy(update={"server_version": "99.1", "server_version_num": 990001})
    data = manifest.model_copy(update={"database": newer}).to_bytes()
    job.storage.put(key.rpartition("/")[0] + "/manifest.json", data, "application/json")
    with untouched(postgres, source):
        ended = restore(job, backup, source, on_existing="Replace", manifest_sha256=sha256_hex(data))
    assert ended.reason == "VersionMismatch", ended.log
    assert ended.report.failure
    assert "the artifact is of the newer 99.1" in ended.report.failure.message
    assert ended.report.safety_backup is None


@pytest.mark.parametrize("algorithm", ["zstd", "gzip"])
def test_a_compressed_stream_that_is_cut_is_refused(job: Job, postgres: Postgres, source: str, algorithm: str) -> None:
    backup = job.backup(compression={"algorithm": algorithm})
    digest = forge(job, backup, lambda sql: sql, cut=-4)
    with untouched(postgres, source):
        ended = restore(job, backup, source, on_existing="Replace", safety_backup=False, manifest_sha256=digest)
    assert ended.reason == "ArtifactCorrupt", ended.log


def test_a_custom_archive_that_is_cut_is_rolled_back(job: Job, postgres: Postgres, source: str) -> None:
    backup = job.backup(format="custom")
    digest = forge(job, backup, lambda archive: archive[: archive.index(b"secret-150")])
    with untouched(postgres, source):
        ended = restore(job, backup, source, on_existing="Replace", safety_backup=False, manifest_sha256=digest)
    assert ended.reason == "ArtifactCorrupt", ended.log
    assert ended.report.failure
    assert "pg_restore" in ended.report.failure.message


@pytest.mark.parametrize(("number", "reason"), [(9, "OutOfMemory"), (11, "RestoreFailed")])
def test_a_pg_restore_that_is_killed_is_no_damage(
    job: Job, postgres: Postgres, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    backup = job.backup(format="custom")
    killed = tmp_path / "pg_restore"
    killed.write_text(f"#!/bin/sh\n/usr/bin/head -c 20000 >/dev/null\nkill -{number} $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr("dbbackup.dataplane.restore.plan._pg_restore", lambda *_: str(killed))
    with untouched(postgres, source):
        ended = restore(job, backup, source, on_existing="Replace", safety_backup=False)
    assert ended.reason == reason, ended.log
    assert ended.report.failure
    assert f"pg_restore was killed by signal {number}" in ended.report.failure.message


def test_a_foreign_server_that_is_unreachable_is_no_lost_connection(job: Job, postgres: Postgres, source: str) -> None:
    postgres.load(
        """CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1');
        CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (user 'x', password 'y'); CREATE FOREIGN TABLE public.remote (id int) SERVER far;
        CREATE MATERIALIZED VIEW public.cached AS SELECT id FROM public.remote WITH NO DATA;
        UPDATE pg_class SET relispopulated = true WHERE relname = 'cached';""",
        source,
    )
    backup = job.backup()
    with untouched(postgres, source):
        ended = restore(job, backup, source, on_existing="Replace", safety_backup=False)
    assert ended.reason == "RestoreFailed", ended.log
    assert ended.report.failure
    assert 'REFRESH MATERIALIZED VIEW public.cached: could not connect to server "far"' in ended.report.failure.message


def test_rows_that_stay_and_refer_to_what_is_gone_roll_all_back(job: Job, postgres: Postgres, source: str) -> None:
    backup = job.backup(exclude_tables=["public.child"])
    postgres.execute("INSERT INTO parent VALUES (777, 'a', 'new'); INSERT INTO child (parent) VALUES (777)", source)
    with untouched(postgres, source):
        ended = restore(job, backup, source, on_existing="Replace")
    assert ended.reason == "ConstraintViolation", ended.log
    assert ended.report.failure
    assert "child_parent_fkey" in ended.report.failure.message
    assert "777" not in ended.report.failure.message
    assert "Rows that stay" in ended.report.failure.hint
    assert ended.report.safety_backup


class CuttingProxy:
    """Forwards TCP. The first COMMIT that passes ends its connection: before the server has it, or
    (`deliver`) after, with the answer withheld."""

    def __init__(self, port: int, *, deliver: bool) -> None:
        self._target = port
        self._deliver = deliver
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.port = self._listener.getsockname()[1]
        self.cut = threading.Event()
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            cut = threading.Event()
            answers = threading.Thread(target=self._answer, args=(server, client, cut))
            answers.start()
            with suppress(OSError):
                while data := client.recv(1 << 16):
                    if data.startswith(b"Q") and b"COMMIT\0" in data and not self.cut.is_set():
                        cut.set()
                        self.cut.set()
                        if self._deliver:
                            server.sendall(data)
                            time.sleep(0.5)  # the server's time for its answer, which nobody passes on
                        break
                    server.sendall(data)
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            answers.join()

    def _answer(self, server: socket.socket, client: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if not cut.is_set():
                    client.sendall(data)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@contextmanager
def proxied(postgres: Postgres, *, deliver: bool) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(postgres.port, deliver=deliver)
    try:
        yield proxy
    finally:
        proxy.close()


def restore_through(job: Job, backup: Ended, target: str, port: int, **options: Any) -> Ended:
    other = job.another("restore", "DatabaseRestore")
    other.connect_to(target)
    (job.paths.database_secret / "port").write_text(str(port))
    assert backup.report.artifact
    return other.run(other.spec("restore", restore={"key": backup.report.artifact.key, **options}))


def test_a_commit_whose_answer_is_lost_is_settled_as_committed(job: Job, postgres: Postgres, source: str, new_database: Callable[..., str]) -> None:
    backup = job.backup()
    target = new_database()
    with proxied(postgres, deliver=True) as proxy:
        ended = restore_through(job, backup, target, proxy.port)
        assert proxy.cut.is_set()
    assert ended.code == 0, ended.log
    assert "the reply to COMMIT was lost" in ended.log
    assert postgres.dump(target) == postgres.dump(source)


def test_a_commit_that_never_arrived_is_settled_as_rolled_back(job: Job, postgres: Postgres, source: str) -> None:
    backup = job.backup()
    postgres.execute("DELETE FROM child", source)
    with untouched(postgres, source), proxied(postgres, deliver=False) as proxy:
        ended = restore_through(job, backup, source, proxy.port, on_existing="Replace", safety_backup=False)
        assert proxy.cut.is_set()
    assert ended.reason == "ConnectionLost", ended.log
    assert ended.report.failure
    assert "everything was rolled back" in ended.report.failure.message


def test_a_run_over_its_time_ends_its_statement_and_its_session(job: Job, postgres: Postgres, source: str) -> None:
    backup = job.backup()
    digest = forge(job, backup, lambda sql: sql + b"SELECT pg_catalog.pg_sleep(6000);")
    assert backup.report.artifact
    other = job.another("restore", "DatabaseRestore")
    options = {"key": backup.report.artifact.key, "manifest_sha256": digest, "on_existing": "Replace", "safety_backup": False}
    with untouched(postgres, source):
        ended = other.run(other.spec("restore", timeout_seconds=3, restore=options))
    assert ended.reason == "Timeout", ended.log
    assert not [key for key in job.keys() if "=restores" in key]  # noqa: SIM118


def test_a_run_over_its_time_ends_in_the_middle_of_rows(job: Job, postgres: Postgres, source: str) -> None:
    slow = (
        b"CREATE FUNCTION public.slow() RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_sleep(1); RETURN true; END';"
        b"ALTER TABLE public.parent ADD CHECK (public.slow());\nCOPY public.parent"
    )
    backup = job.backup()
    digest = forge(job, backup, lambda sql: sql.replace(b"COPY public.parent", slow))
    assert backup.report.artifact
    other = job.another("restore", "DatabaseRestore")
    options = {"key": backup.report.artifact.key, "manifest_sha256": digest, "on_existing": "Replace", "safety_backup": False}
    with untouched(postgres, source):
        ended = other.run(other.spec("restore", timeout_seconds=3, restore=options))
    assert ended.reason == "Timeout", ended.log


def test_restores_wait_for_other_runs_and_say_so(job: Job, postgres: Postgres, source: str, new_database: Callable[..., str]) -> None:
    backup = job.backup()
    target = new_database()
    with postgres.connect(target) as other:
        other.execute(f"SET application_name = 'dbbackup backup'; SELECT pg_advisory_lock_shared({KEY})".encode())
        timer = threading.Timer(1.5, other.close)
        timer.start()
        ended = restore(job, backup, target)
        timer.join()
    assert ended.code == 0, ended.log
    waiting = [event for event in ended.events if event["event"] == "waiting"]
    assert waiting
    assert "dbbackup backup" in waiting[0]["message"]


def test_what_would_be_refused_does_not_wait_for_a_backup(job: Job, postgres: Postgres, source: str) -> None:
    backup = job.backup()
    with postgres.connect(source) as other:
        other.execute("SELECT pg_advisory_lock_shared(%s)", (KEY,))
        ended = restore(job, backup, source)
        assert ended.reason == "TargetNotEmpty", ended.log
        assert ended.report.database
        assert not [event for event in ended.events if event["event"] == "waiting"]
        free = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
        assert other.execute(free).fetchone() == (0,)


@pytest.mark.parametrize("holder", ["backup", "restore"])
def test_what_changes_while_a_restore_waits_is_seen(job: Job, postgres: Postgres, source: str, new_database: Callable[..., str], holder: str) -> None:
    backup = job.backup()
    target = new_database()
    with postgres.connect(target) as other:
        other.execute(f"SELECT pg_advisory_lock{'_shared' if holder == 'backup' else ''}({KEY})".encode())

        def end() -> None:
            other.execute("CREATE TABLE meanwhile ()")
            other.close()

        timer = threading.Timer(1.5, end)
        timer.start()
        ended = restore(job, backup, target)
        timer.join()
    assert [event for event in ended.events if event["event"] == "waiting"]
    assert ended.log.count("preflight passed") == (1 if holder == "backup" else 0)
    assert ended.reason == "TargetNotEmpty", ended.log


@pytest.mark.parametrize("state", ["40P01", "55P03", "53100", "25006", "42501", "42P01", "2BP01", "57P01"])
def test_a_state_that_a_function_raises_is_no_reason(
    job: Job, postgres: Postgres, database: str, new_database: Callable[..., str], state: str
) -> None:
    postgres.load(
        f"""CREATE TABLE public.later AS SELECT 1 AS a;
        CREATE FUNCTION public.check_later() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
          IF NOT EXISTS (SELECT FROM public.later) THEN RAISE 'SSL error: certificate verify failed' USING ERRCODE = '{state}'; END IF;
          RETURN true; END $$;
        CREATE TABLE public.certificate (a int CHECK (public.check_later())); INSERT INTO public.certificate VALUES (1)""",
        database,
    )
    ended = restore(job, job.backup(), new_database())
    assert ended.reason == "RestoreFailed", ended.log
    assert ended.report.failure
    assert "COPY public.certificate, row 1: SSL error: certificate verify failed; everything was rolled back" in ended.report.failure.message
