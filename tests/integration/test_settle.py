"""Check and cleanup runs: what became of a run that left no report."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.integration.conftest import Ended, Job, Postgres, wait_for
from tests.integration.stock import load_everything
from tests.integration.test_backup_failures import subprocess_of, with_client

from dbbackup.contract.keys import creation_key, leaf, transaction_key
from dbbackup.contract.manifest import SourceDatabase
from dbbackup.contract.records import CreationRecord, TransactionRecord
from dbbackup.contract.run import BackupOptions, CheckOptions, CleanupOptions, RestoreOptions
from dbbackup.dataplane.backup.run import BackupRun
from dbbackup.dataplane.context import Run, Stop
from dbbackup.dataplane.logs import Reporter
from dbbackup.dataplane.postgres.conninfo import load_conninfo
from dbbackup.dataplane.restore.databases import DatabaseCreation

SOURCE = SourceDatabase(
    identity="", host="", port=1, name="", server_version="15", server_version_num=150000, size_bytes=1, encoding="UTF8", collate="C", ctype="C"
)


@pytest.fixture
def everything(postgres: Postgres, database: str) -> str:
    load_everything(postgres, database)
    return database


def check(job: Job, kind: str = "backup", **fields: Any) -> Ended:
    options = CheckOptions.model_validate({"run": kind, "lostReason": "RunLost", "lostMessage": "the pod is gone"})
    return job.run(job.spec("check", check=options, **fields))


# backups


def test_a_sealed_backup_is_reported_as_its_run_would(job: Job, everything: str) -> None:
    first = job.backup()
    ended = check(job)
    assert ended.code == 0, ended.log
    assert ended.report.run == "check"
    assert (ended.report.artifact, ended.report.database, ended.report.bytes_read) == (
        first.report.artifact,
        first.report.database,
        first.report.bytes_read,
    )


def test_a_sealed_backup_is_reported_without_its_database(job: Job, everything: str) -> None:
    first = job.backup()
    job.secret()
    assert check(job, database=None).report.artifact == first.report.artifact


def test_a_killed_backup_is_failed_and_cleared_away(job: Job, everything: str, tmp_path: Path) -> None:
    other = job.another().backup()
    assert other.report.artifact
    mark = tmp_path / "started"
    with_client(job, tmp_path, f'"$REAL" "$@"; touch {mark}; sleep 100')
    with subprocess_of(job) as process:
        wait_for(mark.exists)
        process.send_signal(signal.SIGKILL)
    storage, key = job.storage, f"team/demo/x/y/{_leaf(job)}"
    storage.put(f"{key}/dump.sql.zst", b"whole, but not sealed", "text/plain")
    storage.start_upload(f"{key}/dump.custom.zst", "text/plain").part(1, b"x")
    ended = check(job)
    assert (ended.reason, ended.code) == ("RunLost", 10)
    assert ended.report.failure
    assert ended.report.failure.message == "the pod is gone"
    assert {name.rpartition("/")[0] for name in job.leftovers()} == {other.report.artifact.key}


def _leaf(job: Job) -> str:
    return leaf(job.owner)


@pytest.mark.parametrize("damage", ["size", "missing", "manifest"])
def test_a_damaged_artifact_is_no_backup(job: Job, everything: str, damage: str) -> None:
    first = job.backup()
    assert first.report.artifact
    key = first.report.artifact.key
    if damage == "size":
        job.storage.put(f"{key}/dump.sql.zst", b"short", "application/zstd")
    else:
        job.storage.delete([f"{key}/{'manifest.json' if damage == 'manifest' else 'dump.sql.zst'}"])
    assert check(job).reason == "RunLost"
    assert job.leftovers() == []


def test_a_bucket_that_is_gone(job: Job) -> None:
    job.storage_target = job.storage_target.model_copy(update={"bucket": "no-such-bucket-here"})
    assert check(job).reason == "RunLost"


def test_an_unreadable_bucket_says_nothing_about_the_run(job: Job, everything: str) -> None:
    """The reason is the check's own, by which the operator knows that nobody has looked."""
    assert job.backup().report.artifact
    (job.paths.storage_secret / "secretAccessKey").write_text("wrong")
    ended = check(job)
    assert ended.reason == "StorageAuthenticationFailed"
    assert ended.report.failure
    assert "the pod is gone" not in ended.report.failure.message


# cleanups


def test_cleanup_deletes_the_artifact_and_nothing_else(job: Job, everything: str) -> None:
    other = job.another().backup()
    ended = job.backup()
    assert other.report.artifact
    assert ended.report.artifact
    key = ended.report.artifact.key
    job.storage.start_upload(f"{key}/dump.sql.zst", "text/plain").part(1, b"x")
    cleaned = job.run(job.spec("cleanup", cleanup=CleanupOptions(key=key), database=None))
    assert cleaned.code == 0, cleaned.log
    assert {name.rpartition("/")[0] for name in job.leftovers()} == {other.report.artifact.key}
    again = job.run(job.spec("cleanup", cleanup=CleanupOptions(key=key), database=None))
    assert again.code == 0, again.log


def test_cleanup_finds_an_artifact_without_its_key(job: Job, everything: str) -> None:
    other = job.another().backup()
    job.backup()
    assert other.report.artifact
    cleaned = job.run(job.spec("cleanup", cleanup=CleanupOptions()))
    assert cleaned.code == 0, cleaned.log
    assert {name.rpartition("/")[0] for name in job.leftovers()} == {other.report.artifact.key}


def test_cleanup_never_touches_what_is_not_its_own(job: Job, everything: str) -> None:
    other = job.another().backup()
    assert other.report.artifact
    keys = job.keys()
    for key in (other.report.artifact.key, "", "team", "team/demo", f"other/{_leaf(job)}", f"team/demo/../x/{_leaf(job)}"):
        ended = job.run(job.spec("cleanup", cleanup=CleanupOptions(key=key)))
        assert ended.reason == "InvalidSpec", key
    assert job.keys() == keys


def test_cleanup_of_a_bucket_that_is_gone(job: Job) -> None:
    job.storage_target = job.storage_target.model_copy(update={"bucket": "no-such-bucket-here"})
    assert job.run(job.spec("cleanup", cleanup=CleanupOptions())).code == 0


# restores


@pytest.fixture
def restored(job: Job, everything: str, postgres: Postgres, new_database: Callable[..., str]) -> tuple[Job, TransactionRecord, str]:
    """A restore's Job that has a record in the bucket, the record, and the target. Its transaction
    is the test's to make."""
    source = job.backup()
    assert source.report.artifact
    target = new_database()
    restore = job.another("restore", kind="DatabaseRestore")
    restore.connect_to(target)
    record = TransactionRecord(
        owner=restore.owner,
        identity=f"{postgres.host}:{postgres.port}/{target}",
        xid="1",
        timeline="00000001",
        backend_pid=1,
        artifact_key=source.report.artifact.key,
        tables=12,
        rows=34,
        bytes=56,
    )
    return restore, record, target


def put(job: Job, record: TransactionRecord) -> None:
    job.storage.put(transaction_key(job.storage_target.prefix, job.owner), record.to_json().encode(), "application/json")


def check_restore(job: Job, **fields: Any) -> Ended:
    return check(job, "restore", timeout_seconds=fields.pop("timeout_seconds", 20), **fields)


def transact(postgres: Postgres, target: str, end: str) -> dict[str, Any]:
    with postgres.connect(target) as connection:
        connection.execute("BEGIN")
        row = connection.execute("SELECT txid_current()::text, pg_backend_pid()").fetchone()
        assert row
        connection.execute(b"CREATE TABLE public.made ()")
        connection.execute(end.encode())
        return {"xid": row[0], "backend_pid": row[1]}


def test_a_committed_restore_is_reported(restored: tuple[Job, TransactionRecord, str], postgres: Postgres) -> None:
    job, record, target = restored
    put(job, record.model_copy(update=transact(postgres, target, "COMMIT")))
    ended = check_restore(job)
    assert ended.code == 0, ended.log
    assert ended.report.restored
    assert (ended.report.restored.tables, ended.report.restored.rows, ended.report.restored.bytes) == (12, 34, 56)
    assert ended.report.artifact
    assert ended.report.artifact.key == record.artifact_key
    assert ended.report.database
    assert ended.report.database.identity == record.identity


def test_figures_that_a_record_lacks_are_left_out(restored: tuple[Job, TransactionRecord, str], postgres: Postgres) -> None:
    """Rows where the artifact counts none, bytes of a selection: no zeros are made up."""
    job, record, target = restored
    put(job, record.model_copy(update=transact(postgres, target, "COMMIT") | {"rows": None, "bytes": None}))
    ended = check_restore(job)
    assert ended.report.restored, ended.log
    assert ended.report.restored.model_dump(exclude_none=True) == {"tables": 12}


def test_an_aborted_restore_is_reported(restored: tuple[Job, TransactionRecord, str], postgres: Postgres) -> None:
    job, record, target = restored
    put(job, record.model_copy(update=transact(postgres, target, "ROLLBACK")))
    ended = check_restore(job)
    assert ended.reason == "RunLost", ended.log
    assert ended.report.failure
    assert "rolled back" in ended.report.failure.message
    assert postgres.execute("SELECT count(*) FROM pg_database WHERE datname = current_database()", target) == [(1,)]


CREATED = {
    "dropped": (0, "it had changed nothing"),
    "rolled back": (0, "the target is unchanged"),
    "used": (1, "which it may have created, stays: somebody else has created objects in it meanwhile (table public.migrated)"),
    "another's": (1, "it had changed nothing"),
    "perhaps": (1, "which it may have created, stays: it exists, and whether this restore created it is unknown"),
    "unreachable": (1, "which it may have created, could not be checked: OutcomeUnknown"),
}


@pytest.mark.parametrize("how", CREATED)
def test_a_database_that_the_lost_restore_had_created(restored: tuple[Job, TransactionRecord, str], postgres: Postgres, how: str) -> None:
    """It is dropped again where nobody else has a part in it, whether or not the transaction had
    begun."""
    job, record, target = restored
    postgres.execute(f"DROP DATABASE {target}")
    run = Run(job.spec("restore", restore=RestoreOptions(key="x")), job.paths, Reporter(), Stop())
    creation = DatabaseCreation(run, load_conninfo(job.target, job.paths), job.storage)
    assert creation.create(SOURCE)  # and then it is killed
    key = creation_key(job.storage_target.prefix, job.owner)
    if how == "rolled back":
        put(job, record.model_copy(update=transact(postgres, target, "ROLLBACK") | {"created_database": True}))
    if how == "used":
        postgres.execute("CREATE TABLE public.migrated ()", target)
    if how == "another's":
        postgres.execute(f"DROP DATABASE {target}")
        postgres.execute(f"CREATE DATABASE {target}")
    if how == "perhaps":
        found = CreationRecord.model_validate_json(job.storage.get(key, 1 << 20))
        job.storage.put(key, found.model_copy(update={"oid": None}).to_json().encode(), "application/json")
    if how == "unreachable":
        job.secret(host="127.0.0.1", port="1", dbname=target, username="postgres", password="x")
        found = CreationRecord.model_validate_json(job.storage.get(key, 1 << 20))
        job.storage.put(key, found.model_copy(update={"identity": f"127.0.0.1:1/{target}"}).to_json().encode(), "application/json")
    count, expected = CREATED[how]
    ended = check_restore(job, timeout_seconds=8)
    assert ended.reason == "RunLost", ended.log
    assert ended.report.failure
    assert expected in ended.report.failure.message
    assert ended.report.failure.message.endswith(expected) or how == "unreachable"
    assert postgres.execute(f"SELECT count(*) FROM pg_database WHERE datname = '{target}'") == [(count,)]
    assert (key in job.leftovers()) is (how == "unreachable")


def test_a_database_that_a_committed_restore_had_created_stays(restored: tuple[Job, TransactionRecord, str], postgres: Postgres) -> None:
    job, record, target = restored
    postgres.execute(f"DROP DATABASE {target}")
    run = Run(job.spec("restore", restore=RestoreOptions(key="x")), job.paths, Reporter(), Stop())
    assert DatabaseCreation(run, load_conninfo(job.target, job.paths), job.storage).create(SOURCE)
    put(job, record.model_copy(update=transact(postgres, target, "COMMIT") | {"created_database": True}))
    assert check_restore(job).code == 0
    assert postgres.execute("SELECT count(*) FROM public.made", target) == [(0,)]
    assert creation_key(job.storage_target.prefix, job.owner) not in job.leftovers()


def test_a_server_process_that_still_runs_is_ended(restored: tuple[Job, TransactionRecord, str], postgres: Postgres) -> None:
    job, record, target = restored
    with closing(postgres.connect(target)) as connection:
        connection.execute("SET application_name = 'dbbackup restore'")
        connection.execute("BEGIN")
        row = connection.execute("SELECT txid_current()::text, pg_backend_pid()").fetchone()
        assert row
        connection.execute("CREATE TABLE public.made ()")
        put(job, record.model_copy(update={"xid": row[0], "backend_pid": row[1]}))
        ended = check_restore(job)
        assert ended.reason == "RunLost", ended.log
        assert postgres.execute("SELECT to_regclass('public.made'), count(*) FROM pg_stat_activity WHERE pid = " + str(row[1]), target) == [(None, 0)]


def test_a_restore_that_never_began(restored: tuple[Job, TransactionRecord, str]) -> None:
    job, _, _ = restored
    ended = check_restore(job)
    assert ended.reason == "RunLost"
    assert ended.report.failure
    assert "it had changed nothing" in ended.report.failure.message


def test_a_restore_that_was_given_up_changes_nothing_any_more(
    restored: tuple[Job, TransactionRecord, str], postgres: Postgres, everything: str
) -> None:
    """Its pod sat on a node that was cut off from Kubernetes only, and comes back after the
    check."""
    job, record, target = restored
    for _ in range(2):  # a check that is tried again finds the first one's answer
        ended = check_restore(job)
        assert ended.reason == "RunLost", ended.log
        assert ended.report.failure
        assert "it had changed nothing" in ended.report.failure.message
    before = postgres.dump(target)
    late = job.run(job.spec("restore", restore=RestoreOptions(key=record.artifact_key)))
    assert late.reason == "RunLost", late.log
    assert late.report.failure
    assert "already given up this restore" in late.report.failure.message
    assert postgres.dump(target) == before
    assert check_restore(job).reason == "RunLost"


@pytest.mark.parametrize("how", ["timeline", "identity", "future", "secret", "down"])
def test_an_outcome_that_cannot_be_found_out_is_unknown(
    restored: tuple[Job, TransactionRecord, str], postgres: Postgres, everything: str, how: str
) -> None:
    job, record, target = restored
    change = transact(postgres, target, "COMMIT")
    if how == "timeline":
        change["timeline"] = "00000007"
    if how == "future":
        change["xid"] = str(int(change["xid"]) + 1_000_000)
    put(job, record.model_copy(update=change))
    if how == "identity":
        job.connect_to(everything)
    if how == "secret":
        job.secret()
    if how == "down":
        job.secret(host="127.0.0.1", port="1", dbname=target, username="postgres", password="x")
        put(job, record.model_copy(update=change | {"identity": f"127.0.0.1:1/{target}"}))
    ended = check_restore(job, timeout_seconds=8)
    assert (ended.reason, ended.code) == ("OutcomeUnknown", 25), ended.log


def test_a_safety_backup_is_reported_whatever_the_outcome(restored: tuple[Job, TransactionRecord, str], postgres: Postgres) -> None:
    job, _, _ = restored
    run = Run(job.spec("restore", restore=RestoreOptions(key="x")), job.paths, Reporter(), Stop())
    safety = BackupRun(run, load_conninfo(job.target, job.paths), BackupOptions(), lambda: job.storage, suffix="-safety").execute()
    ended = check_restore(job)
    assert ended.reason == "RunLost"
    assert ended.report.safety_backup
    assert ended.report.safety_backup.key == safety.key
