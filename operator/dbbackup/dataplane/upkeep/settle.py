"""Check Jobs find out the outcome of a run that left no report; cleanup Jobs remove an artifact.
Neither guesses.

A backup succeeded if its manifest exists. A restore's outcome is the server's status of its
transaction; where that cannot be found out, it is OutcomeUnknown.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import psycopg

from dbbackup.contract.errors import Failure, known_reason
from dbbackup.contract.keys import SAFETY_SUFFIX, creation_key, leaf, root, transaction_key
from dbbackup.contract.manifest import MANIFEST_LIMIT, safety_report
from dbbackup.contract.records import CreationRecord, Tombstone, TransactionRecord, parse_transaction
from dbbackup.contract.report import ArtifactReport, DatabaseReport, RestoredReport
from dbbackup.contract.run import CheckOptions, Owner
from dbbackup.dataplane.bucket import SealedArtifact, find_artifact, find_directories, load_manifest, open_bucket
from dbbackup.dataplane.context import Run
from dbbackup.dataplane.postgres.connection import Connection, connect, one, server_version, uses_tls
from dbbackup.dataplane.postgres.conninfo import Conninfo, load_conninfo
from dbbackup.dataplane.restore.databases import drop_database, find_database, maintenance
from dbbackup.dataplane.restore.transaction import OpenTransaction, end_backend, transaction_status
from dbbackup.storage.directories import delete_directory

if TYPE_CHECKING:
    from dbbackup.storage.base import Storage

T = TypeVar("T")

_POLL = 1.0
_PATIENCE = 0.8
"""Fraction of the run's timeout for which a server that does not answer is asked again, before the
outcome is reported as unknown."""


def execute(run: Run) -> None:
    """A check or a cleanup run: fills `run.facts`, or raises Failure."""
    if run.spec.run == "cleanup":
        _clean_up(run)
    elif run.spec.check is None:
        raise Failure("InvalidSpec", "the run spec has no `check` options")
    elif run.spec.check.run == "backup":
        _check_backup(run, run.spec.check)
    else:
        _check_restore(run, run.spec.check)


# cleanup


def _clean_up(run: Run) -> None:
    """Deletes the artifact of the run's owner, and only that. A missing artifact, or bucket, counts
    as deleted."""
    owner, prefix = run.spec.owner, run.spec.storage.prefix
    key = run.spec.cleanup.key if run.spec.cleanup else None
    if key is not None:
        _refuse_foreign(key, prefix, owner)
    try:
        storage = open_bucket(run, create=False)
        count = sum(delete_directory(storage, directory) for directory in ([key] if key else find_directories(storage, prefix, owner)))
    except Failure as failure:
        if failure.reason.name != "BucketNotFound":
            raise
        count = 0
    run.reporter.info(f"{count} objects were deleted")


def _refuse_foreign(key: str, prefix: str, owner: Owner) -> None:
    parts = key.split("/")
    if not key.startswith(root(prefix, owner.namespace)) or parts[-1] != leaf(owner) or {"", ".", ".."} & set(parts):
        raise Failure("InvalidSpec", f"{key} is not the directory of {owner.kind} {owner.namespace}/{owner.name}: nothing was deleted")


# check of a backup


def _check_backup(run: Run, options: CheckOptions) -> None:
    try:
        storage = open_bucket(run, create=False)
        directories = find_directories(storage, run.spec.storage.prefix, run.spec.owner)
        for directory in directories:
            found = find_artifact(storage, directory, run.spec.owner)
            if found:
                artifact = SealedArtifact(directory, *found)
                run.facts.artifact, run.facts.database = artifact.report(), artifact.database_report()
                run.facts.bytes_read, run.facts.finding = found[0].dump_bytes, "TookEffect"
                return
        removed = sum(delete_directory(storage, directory) for directory in directories)
    except Failure as failure:
        if failure.reason.name != "BucketNotFound":
            raise  # nothing was found out: the operator reports that the outcome is unknown
        removed = 0
    run.reporter.info(f"no sealed artifact; {removed} objects of the lost run were deleted")
    raise _without_effect(run, options)


def _without_effect(run: Run, options: CheckOptions, proof: str = "") -> Failure:
    """The Failure of a lost run that has changed nothing, as `proof` says."""
    run.facts.finding = "NoEffect"
    reason = known_reason(options.lost_reason) or "RunLost"
    return Failure(reason, f"{options.lost_message}; {proof}" if proof else options.lost_message)


# check of a restore


def _check_restore(run: Run, options: CheckOptions) -> None:
    try:
        unchanged = _settle(run)
    except Failure as failure:
        if failure.reason.retryable and failure.reason.name != "Timeout":
            raise
        run.facts.finding = "Unknown"
        if failure.reason.name == "OutcomeUnknown":
            raise
        raise Failure("OutcomeUnknown", f"{options.lost_message}; its outcome cannot be found out: {failure}") from None
    if unchanged is not None:
        raise _without_effect(run, options, unchanged)
    run.facts.finding = "TookEffect"


def _settle(run: Run) -> str | None:
    """None where the restore was committed, and the run's report describes it; else why nothing
    changed. Failure where the outcome is unknown."""
    storage = open_bucket(run, create=False)
    try:
        _find_safety_backup(run, storage)
    except Failure as failure:
        run.warn(f"it could not be seen whether there is a safety backup: {failure}")
    key = transaction_key(run.spec.storage.prefix, run.spec.owner)
    record = _record(storage, key, run.spec.owner)
    if record is None:
        return f"it had changed nothing{_clear_database(run, storage)}"
    if record.owner.uid != run.spec.owner.uid:
        raise Failure("OutcomeUnknown", f"{key} is the record of another restore")
    run.reporter.transaction(record.xid)
    if not _committed(run, record):
        _forget(storage, key)
        return f"its transaction {record.xid} was rolled back, the target is unchanged{_clear_database(run, storage)}"
    run.facts.restored = RestoredReport(tables=record.tables, rows=record.rows, bytes=record.bytes)
    run.facts.artifact = _artifact(run, storage, record.artifact_key)
    _forget(storage, creation_key(run.spec.storage.prefix, run.spec.owner))
    return None


def _forget(storage: Storage, record: str) -> None:
    """A record that cannot be removed does no harm: what it says is known by now."""
    with suppress(Failure):
        storage.delete([record])


def _record(storage: Storage, key: str, owner: Owner) -> TransactionRecord | None:
    """The record that the restore wrote before it changed anything. Where it wrote none, a
    tombstone is written, so that it can't begin later."""
    if storage.head(key) is None:
        try:
            storage.put(key, Tombstone(owner=owner).to_json().encode(), "application/json", if_absent=True)
        except Failure as failure:
            if failure.reason.name == "StorageAccessDenied":
                return None  # then the restore could not write its record either, and without it changes nothing
            if failure.reason.name != "ArtifactExists":
                raise
        else:
            return None
    found = parse_transaction(storage.get(key, MANIFEST_LIMIT))
    return found if isinstance(found, TransactionRecord) else None


def _artifact(run: Run, storage: Storage, directory: str) -> ArtifactReport | None:
    """The report of the restored artifact; None where it was deleted since, as the outcome does not
    depend on it."""
    try:
        manifest, digest = load_manifest(storage, directory, None)
    except Failure as failure:
        run.warn(f"the restored artifact can't be read any more: {failure}")
        return None
    return SealedArtifact(directory, manifest, digest).report()


def _find_safety_backup(run: Run, storage: Storage) -> None:
    """Reports a sealed safety backup, whatever the restore's outcome; removes an unfinished one."""
    for directory in find_directories(storage, run.spec.storage.prefix, run.spec.owner, SAFETY_SUFFIX):
        found = find_artifact(storage, directory, run.spec.owner)
        if found:
            run.facts.safety_backup = safety_report(directory, *found)
        else:
            delete_directory(storage, directory)


def _clear_database(run: Run, storage: Storage) -> str:
    """Drops the database that the restore had created, if any. Returns text for the failure about
    one that stays."""
    key = creation_key(run.spec.storage.prefix, run.spec.owner)
    if storage.head(key) is None:
        return ""
    record = CreationRecord.model_validate_json(storage.get(key, MANIFEST_LIMIT))
    try:
        kept = _ask(run, lambda info: _drop(run, info, record))
    except Failure as failure:
        kept = f"could not be checked: {failure}"
    else:
        storage.delete([key])
    return f"; database {record.identity}, which it may have created, {kept}" if kept else ""


def _drop(run: Run, info: Conninfo, record: CreationRecord) -> str:
    if info.identity != record.identity:
        return f"was not searched for: the Secret now leads to {info.identity}"
    if record.oid is not None:
        return drop_database(run, info, record.oid)
    with closing(maintenance(info)) as session:
        return "" if find_database(session, info.name) is None else "stays: it exists, and whether this restore created it is unknown"


def _committed(run: Run, record: TransactionRecord) -> bool:
    """Whether the server committed the transaction; Failure OutcomeUnknown where it does not
    know."""
    return _ask(
        run,
        lambda info: _was_committed(run, info, record),
        f"it is unknown whether transaction {record.xid} on {record.identity} was committed",
    )


def _ask(run: Run, question: Callable[[Conninfo], T], unanswered: str = "the server did not answer") -> T:
    """Repeats the question for most of the run's timeout; Failure OutcomeUnknown where the database
    does not answer."""
    if run.spec.database is None:
        raise Failure("InvalidSpec", "the run spec lacks `database`")
    while True:
        try:
            info = load_conninfo(run.spec.database, run.paths)
            run.reporter.secret(info.password)
            return question(info)
        except (Failure, psycopg.Error) as error:
            if isinstance(error, Failure) and not error.reason.retryable:
                raise
            answer = " ".join(str(error).split())
        if datetime.now(UTC) >= run.started_at + timedelta(seconds=run.spec.timeout_seconds * _PATIENCE):
            raise Failure("OutcomeUnknown", f"{unanswered}: {answer}")
        run.stop.wait(_POLL)


def _was_committed(run: Run, info: Conninfo, record: TransactionRecord) -> bool:
    if info.identity != record.identity:
        raise Failure("OutcomeUnknown", f"transaction {record.xid} ran on {record.identity}; the Secret now leads to {info.identity}")
    try:
        session = connect(info, "dbbackup check")
    except Failure as failure:
        if failure.reason.name == "DatabaseNotFound" and record.created_database:
            return False  # the restore dropped the database that it had created
        raise
    with closing(session):
        status, timeline = transaction_status(session, record.xid)
        if timeline != record.timeline:
            raise Failure(
                "OutcomeUnknown", f"transaction {record.xid} ran on timeline {record.timeline}; the server of {info.identity} is on {timeline}"
            )
        if status == "in progress":
            run.reporter.info(f"server process {record.backend_pid} still runs transaction {record.xid}; it is terminated")
            if not end_backend(info, OpenTransaction(record.xid, record.backend_pid, record.timeline)):
                raise Failure("ConnectionLost", f"server process {record.backend_pid} of transaction {record.xid} does not end")
            status, _ = transaction_status(session, record.xid)
        run.facts.database = _database(session, info, record)
        if status not in {"committed", "aborted"}:
            raise Failure("OutcomeUnknown", f"the server of {info.identity} no longer knows the outcome of transaction {record.xid}")
    return status == "committed"


def _database(session: Connection, info: Conninfo, record: TransactionRecord) -> DatabaseReport:
    size = one(session, "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())")[0]
    return DatabaseReport(
        identity=info.identity,
        name=info.name,
        server_version=server_version(session)[1],
        size_bytes=size,
        tables=record.tables,
        tls=uses_tls(session),
    )
