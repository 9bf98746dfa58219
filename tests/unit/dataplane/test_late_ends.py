"""What a run may still do, and say, after its end was decided elsewhere: by another attempt, by a
COMMIT, by a manifest that is written."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from botocore.exceptions import ClientError
from psycopg.pq import TransactionStatus
from tests.unit.dataplane.restore.test_decisions import archive

from dbbackup.contract.errors import ExitCode, Failure, ReasonName
from dbbackup.contract.keys import MANIFEST
from dbbackup.contract.manifest import TableEntry
from dbbackup.contract.report import Report, RestoredReport, SafetyBackupReport
from dbbackup.contract.run import BackupOptions, Owner, RunSpec, StorageTarget
from dbbackup.dataplane import main
from dbbackup.dataplane.backup.dump import PgDump
from dbbackup.dataplane.backup.run import BackupRun
from dbbackup.dataplane.backup.snapshot import TableSelection
from dbbackup.dataplane.backup.transfer import DumpTransfer
from dbbackup.dataplane.context import Facts, Run, Stop
from dbbackup.dataplane.logs import Reporter
from dbbackup.dataplane.paths import Paths
from dbbackup.dataplane.postgres.conninfo import Conninfo
from dbbackup.dataplane.restore import run as restore_module
from dbbackup.dataplane.restore.run import Restore, differences
from dbbackup.dataplane.restore.transaction import End, OpenTransaction, Transaction
from dbbackup.dataplane.sql.archive_toc import TocEntry
from dbbackup.storage.base import ObjectInfo, UploadInfo
from dbbackup.storage.s3 import S3Storage
from dbbackup.storage.writer import ArtifactWriter

NOW = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)
INFO = Conninfo("db", 5432, "app", "app", "secret")


class Bucket:
    """In memory; `refusing` is raised instead of what is asked."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.refusing: Failure | None = None

    def head(self, key: str) -> ObjectInfo | None:
        if self.refusing:
            raise self.refusing
        return ObjectInfo(key, len(self.objects[key]), NOW, "") if key in self.objects else None

    def get(self, key: str, limit: int) -> bytes:
        return self.objects[key][:limit]

    def put(self, key: str, body: bytes, content_type: str, *, if_absent: bool = False) -> None:
        if self.refusing:
            raise self.refusing
        self.objects[key] = body

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter([ObjectInfo(key, len(body), NOW, "") for key, body in self.objects.items() if key.startswith(prefix)])

    def list_uploads(self, prefix: str) -> Iterator[UploadInfo]:
        return iter(())

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.objects.pop(key, None)


def run_of(tmp_path: Path, kind: str = "backup") -> Run:
    owner = Owner(kind="DatabaseBackup", namespace="n", name="b", uid="u", created_at=NOW)
    spec = RunSpec.model_validate({"run": kind, "owner": owner, "storage": StorageTarget(name="default", bucket="b")})
    return Run(spec, Paths(termination_log=tmp_path / "report"), Reporter(io.StringIO()), Stop())


@pytest.mark.parametrize("own", [None, b"mine"])
def test_an_attempt_that_ends_late_leaves_what_another_has_sealed(tmp_path: Path, own: bytes | None) -> None:
    bucket = Bucket()
    backup = BackupRun(run_of(tmp_path), INFO, BackupOptions(), lambda: cast("Any", bucket))
    bucket.objects = {f"{backup.key}/{MANIFEST}": b"the other's", f"{backup.key}/dump.sql.zst": b"x"}
    assert backup._clear(cast("Any", bucket), own)
    assert len(bucket.objects) == 2
    bucket.objects[f"{backup.key}/{MANIFEST}"] = b"mine"
    assert backup._clear(cast("Any", bucket), b"mine")
    assert bucket.objects == {}
    bucket.refusing = Failure("StorageUnavailable", "away")
    assert not backup._clear(cast("Any", bucket), b"mine")


@pytest.mark.parametrize(("reason", "left"), [("StorageUnavailable", False), ("StorageRefused", True), ("ArtifactExists", True)])
def test_an_upload_that_was_refused_deletes_nobody_elses_object(reason: ReasonName, *, left: bool) -> None:
    """Only an object that this writer may have made, although it got no reply, is deleted."""
    bucket = Bucket()
    writer = ArtifactWriter(cast("Any", bucket), "dir/dump", if_absent=True)
    writer.write(b"mine")
    bucket.refusing = Failure(reason, "no")
    with pytest.raises(Failure, match="no"):
        writer.commit()
    bucket.refusing = None
    bucket.objects["dir/dump"] = b"there"
    writer.abort()
    assert ("dir/dump" in bucket.objects) is left


def test_a_larger_object_of_another_is_found_by_a_second_try() -> None:
    """The first try's answer (409: two writers at once) leaves open who won; the object that stands
    there says it."""

    def refused(code: str, status: int) -> ClientError:
        return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")  # type: ignore[typeddict-item]

    class Client:
        answers = [refused("ConditionalRequestConflict", 409), refused("PreconditionFailed", 412)]  # noqa: RUF012

        def put_object(self, **_: object) -> None:
            raise self.answers.pop(0)

        def head_object(self, **_: object) -> dict[str, Any]:
            return {"ContentLength": 9, "LastModified": NOW, "ETag": "e"}

        def get_object(self, **_: object) -> dict[str, Any]:
            return {"ContentLength": 9, "Body": io.BytesIO(b"the other")}

    storage = S3Storage(lambda _: cast("Any", Client()), "bucket", "", "bucket", "us-east-1")
    with pytest.raises(Failure) as caught:
        storage.put("manifest.json", b"mine", "application/json", if_absent=True)
    assert caught.value.reason.name == "ArtifactExists"


def test_a_run_that_hangs_after_its_commit_has_succeeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path, "restore")
    run.facts.restored = RestoredReport(tables=1, rows=2, bytes=3)
    run.stop.set(Failure("Timeout", "too long"))
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", lambda code: _leave(codes, code))
    with pytest.raises(SystemExit):
        main._give_up(run)
    assert codes == [0]
    assert Report.model_validate_json((tmp_path / "report").read_text()).outcome == "Succeeded"


def test_a_run_that_hangs_while_it_clears_up_says_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path, "restore")
    run.uncleared.add("database db:5432/app, which this restore had created")
    run.stop.set(Failure("Timeout", "too long"))
    monkeypatch.setattr(os, "_exit", lambda code: _leave([], code))
    with pytest.raises(SystemExit):
        main._give_up(run)
    report = Report.model_validate_json((tmp_path / "report").read_text())
    assert report.uncleared
    assert report.failure
    assert report.failure.message == "too long; what it had stored could not be removed in time: database db:5432/app, which this restore had created"


def test_a_commit_that_ends_while_the_run_gives_up_is_left_to_a_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result is set just after it was looked for, and just before `committing` ends."""
    run = run_of(tmp_path, "restore")
    run.stop.set(Failure("Timeout", "too long"))

    class Ending:
        committing = True
        stop, spec, paths, reporter, started_at, warnings, uncleared = run.stop, run.spec, run.paths, run.reporter, NOW, (), ()

        @property
        def facts(self) -> Facts:
            self.committing = False
            return Facts()

    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", lambda code: _leave(codes, code))
    with pytest.raises(SystemExit):
        main._give_up(cast("Any", Ending()))
    assert codes == [ExitCode.TIMEOUT]
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("error", "unsettled"),
    [(ValueError("our own"), True), (BrokenPipeError(32, "stdout"), True), (Failure("RestoreFailed", "the server refused the COMMIT"), False)],
)
def test_an_exception_of_our_own_during_commit_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, unsettled: bool
) -> None:
    """A check then finds out: the record of the transaction stays, and so does `committing`."""
    run, bucket, aborted = run_of(tmp_path, "restore"), Bucket(), []

    class Committing:
        settings = None

        def __init__(self, *_: object) -> None:
            pass

        def begin(self) -> OpenTransaction:
            return OpenTransaction("4711", 1, "1")

        def commit(self) -> None:
            raise error

        def abort(self) -> tuple[End, str]:
            aborted.append(True)
            return End.ROLLED_BACK, ""

    restore = Restore.__new__(Restore)
    for name, value in {
        "_run": run,
        "_info": INFO,
        "_storage": bucket,
        "_options": SimpleNamespace(lock_timeout_seconds=1),
        "_plan": SimpleNamespace(contents=SimpleNamespace(tables=())),
        "_server": None,
        "_record": lambda _opened: SimpleNamespace(to_json=lambda: "{}"),
        "_restore": lambda *_: SimpleNamespace(rows={}, bytes=0),
    }.items():
        setattr(restore, name, value)
    monkeypatch.setattr(restore_module, "Transaction", Committing)
    with pytest.raises(type(error)):
        restore._transact(cast("Any", None), cast("Any", None), cast("Any", None))
    assert (run.committing, len(bucket.objects), bool(aborted)) == (unsettled, int(unsettled), not unsettled)
    assert run.facts.restored is None


def _leave(codes: list[int], code: int) -> None:
    codes.append(code)
    raise SystemExit(code)


def test_a_seal_of_unknown_end_leaves_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(run: Run) -> Failure:
        run.committing = True
        return Failure("StorageUnavailable", "no answer")

    monkeypatch.setattr(main, "_attempt", attempt)
    run = run_of(tmp_path)
    assert main.run(run.spec, run.paths, run.reporter) == ExitCode.TRANSIENT
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(("severity", "asked"), [("PANIC", True), ("FATAL", True), ("ERROR", False)])
def test_a_commit_over_which_the_server_broke_down_is_asked_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, severity: str, *, asked: bool
) -> None:
    class Full(psycopg.errors.DiskFull):
        diag = cast("Any", SimpleNamespace(severity_nonlocalized=severity, message_primary="could not flush", context="", source_function=None))

    class Broken:
        pgconn = SimpleNamespace(transaction_status=TransactionStatus.INTRANS, parameter_status=lambda _: b"UTF8")

        def execute(self, statement: str, _parameters: object = ()) -> Any:
            if statement == "COMMIT":
                raise Full("could not flush")
            return SimpleNamespace(fetchone=lambda: ("1",))

    run = run_of(tmp_path)
    transaction = Transaction(cast("Any", Broken()), INFO, run.stop, run.reporter, 1)
    transaction._opened = OpenTransaction("1", 1, "00000001")
    settled: list[str] = []

    def ask() -> tuple[End, str]:
        settled.append("asked")
        return End.COMMITTED, ""

    monkeypatch.setattr(transaction, "_ask", ask)
    if asked:
        transaction.commit()
    else:
        with pytest.raises(Failure, match="could not flush"):
            transaction.commit()
    assert bool(settled) is asked


@pytest.mark.parametrize(
    ("end", "reason", "said"),
    [
        (End.ROLLED_BACK, "ConstraintViolation", "row 7: no; everything was rolled back"),
        (End.COMMITTED, "OutcomeUnknown", "row 7: no; the artifact had ended transaction 4711 itself, and the server has committed it"),
        (End.UNKNOWN, "OutcomeUnknown", "row 7: no; whether transaction 4711 was rolled back is unknown: no answer"),
    ],
)
def test_how_a_failed_restore_ended_is_what_the_server_says(tmp_path: Path, end: End, reason: str, said: str) -> None:
    run = run_of(tmp_path, "restore")
    run.facts.safety_backup = SafetyBackupReport(key="the/safety", size_bytes=1, sha256="1" * 64, manifest_sha256="2" * 64)
    restore = Restore.__new__(Restore)
    restore._run, restore._info, restore._server = run, INFO, None
    ended = restore._ended(Failure("ConstraintViolation", "row 7: no"), end, "no answer", OpenTransaction("4711", 1, "1"))
    assert isinstance(ended, Failure)
    assert (ended.reason.name, ended.message[: len(said)]) == (reason, said)
    assert ("the safety backup the/safety holds" in ended.message) is (end is not End.ROLLED_BACK)


def test_a_count_ends_when_the_run_is_stopped(tmp_path: Path) -> None:
    """Rows are still counted after pg_dump has ended; what was uploaded could not be cleared away
    if nobody ended that."""
    run, cancelled = run_of(tmp_path), threading.Event()

    class Counting:
        selection = SimpleNamespace(data_tables=[SimpleNamespace(key=("public", "t"), oid=7, size=1)])
        connection = SimpleNamespace(cancel_safe=lambda **_: cancelled.set())

        def begin_counting(self) -> None:
            pass

        def count(self, _: object) -> int:
            assert cancelled.wait(60), "the count goes on"
            run.stop.check()
            return 1

    transfer = DumpTransfer(run, INFO, BackupOptions(format="custom"), cast("Any", Bucket()), "key")
    data = archive((1, 14), [TocEntry(1, "TABLE DATA", "public", "t", "", "", (), "COPY public.t (a) FROM stdin;", 0, 7)])
    dump, sink, writer = SimpleNamespace(chunks=lambda: iter([data])), SimpleNamespace(put=bytes), SimpleNamespace(bytes_stored=0)
    threading.Timer(0.1, run.stop.set, (Failure("Timeout", "too long"),)).start()
    with pytest.raises(Failure, match="too long"):
        transfer._custom(cast("Any", dump), cast("Any", sink), cast("Any", writer), cast("Any", Counting()))
    assert cancelled.is_set()


def test_a_run_that_ended_is_not_given_up_by_a_stop_that_came_with_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run sees that it is stopped before the thread that stops it has called everybody."""
    made: list[threading.Timer] = []

    def timer(seconds: float, action: Any) -> threading.Timer:
        made.append(threading.Timer(seconds, action))
        return made[-1]

    monkeypatch.setattr(main, "_timer", timer)
    run = run_of(tmp_path)
    with main._bounded(run):
        pass
    run.stop.set(Failure("Timeout", "too long"))
    assert len(made) == 2
    assert all(each.finished.is_set() for each in made), "cancelled"


class SlowUpload:
    """Its parts wait until they are cancelled."""

    def __init__(self) -> None:
        self.cancelled, self.aborted = threading.Event(), False

    def part(self, number: int, data: bytes | memoryview) -> None:
        assert self.cancelled.wait(60), "the upload goes on"
        raise Failure("Terminated", "the upload was aborted")

    def cancel(self) -> None:
        self.cancelled.set()

    def abort(self) -> None:
        assert self.cancelled.is_set()
        self.aborted = True


def test_an_upload_to_a_slow_storage_ends_when_the_run_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clearing up must be done before the kubelet's SIGKILL."""
    full = threading.Event()

    class Watched(ArtifactWriter):
        def _send(self, *, more: bool = True) -> None:
            if len(self._parts) == self._slots:
                full.set()
            super()._send(more=more)

    monkeypatch.setattr("dbbackup.dataplane.backup.transfer.ArtifactWriter", Watched)
    pg_dump = tmp_path / "pg_dump"
    pg_dump.write_text("#!/bin/sh\nprintf 'PGDMP\\001\\143\\000\\004\\010\\001'; exec cat /dev/urandom\n")
    pg_dump.chmod(0o755)
    run, upload = run_of(tmp_path), SlowUpload()
    storage = SimpleNamespace(start_upload=lambda *_, **__: upload)
    options = BackupOptions(format="custom", row_counts="Off")
    selection = TableSelection((), (), frozenset(), frozenset())
    snapshot = SimpleNamespace(selection=selection, identifier="1", connection=SimpleNamespace(cancel_safe=lambda **_: None))

    def stop() -> None:
        assert full.wait(60)
        run.stop.set(Failure("Timeout", "too long"))

    threading.Thread(target=stop).start()
    dump = PgDump([bytes(pg_dump)], {}, INFO, [], run.stop, print)
    with closing(dump), pytest.raises(Failure, match=r"too long|was aborted"):
        DumpTransfer(run, INFO, options, cast("Any", storage), "key")._store(dump, cast("Any", snapshot))
    assert upload.aborted


def test_cancelling_an_upload_after_its_commit_leaves_the_object() -> None:
    bucket = Bucket()
    writer = ArtifactWriter(cast("Any", bucket), "dir/dump")
    writer.write(b"mine")
    writer.commit()
    writer.cancel()
    writer.abort()
    assert bucket.objects == {"dir/dump": b"mine"}


def test_rows_of_an_extensions_own_tables_are_no_difference_in_a_custom_dump() -> None:
    tables = (
        TableEntry(schema_="public", name="t", rows=2),
        TableEntry(schema_="public", name="without", data_excluded=True),
        TableEntry(schema_="public", name="parent", kind="partitioned"),
    )
    restored = {("public", "t"): 2, ("ext", "config"): 3}
    assert differences(tables, restored, whole=False) == []
    assert differences(tables, restored, whole=True) == ["ext.config: 3 rows, the manifest says 0"]
    assert differences(tables, {("public", "t"): 1}, whole=False) == ["public.t: 1 rows, the manifest says 2"]
    assert differences(tables, {}, whole=False) == ["public.t: 0 rows, the manifest says 2"]
    assert differences(tables, {("public", "t"): 2, ("public", "without"): 1}, whole=False) == ["public.without: 1 rows, the manifest says 0"]
