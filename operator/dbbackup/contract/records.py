"""Records that a restore writes to the bucket before it changes anything. From them a check Job
finds out the restore's outcome."""

from __future__ import annotations

from typing import Literal

from pydantic import TypeAdapter

from dbbackup.contract.model import Model
from dbbackup.contract.report import SafetyBackupReport
from dbbackup.contract.run import Owner


class TransactionRecord(Model):
    """What a restore writes at `transaction_key` before it changes anything.

    `xid` is the transaction's ID with its epoch, for txid_status; it means nothing on another
    `timeline`. `rows` and `tables` are those of a committed restore, since it commits only when the
    server took all of them.
    """

    type: Literal["dbbackup.io/transaction"] = "dbbackup.io/transaction"
    owner: Owner
    identity: str
    xid: str
    timeline: str
    backend_pid: int
    created_database: bool = False
    artifact_key: str
    tables: int
    rows: int | None = None
    bytes: int | None = None
    safety_backup: SafetyBackupReport | None = None


class CreationRecord(Model):
    """What a restore writes at `creation_key` before it creates its database, and again with the
    database's `oid` once it exists.

    Only the oid distinguishes the database that it made from one that somebody else made at the
    same moment.
    """

    type: Literal["dbbackup.io/creation"] = "dbbackup.io/creation"
    owner: Owner
    identity: str
    oid: int | None = None


class Tombstone(Model):
    """What a check Job writes where it finds no TransactionRecord: a restore that was given up, and
    whose node comes back, finds it and changes nothing."""

    type: Literal["dbbackup.io/tombstone"] = "dbbackup.io/tombstone"
    owner: Owner


def parse_transaction(data: bytes) -> TransactionRecord | Tombstone:
    """The record at `transaction_key`; ValidationError where it is neither of the two."""
    return TypeAdapter(TransactionRecord | Tombstone).validate_json(data)
