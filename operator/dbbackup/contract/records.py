"""What a restore records in the bucket before it changes anything, so that a check Job can settle
it."""

from __future__ import annotations

from typing import Literal

from pydantic import TypeAdapter

from dbbackup.contract.model import Model
from dbbackup.contract.report import SafetyBackupReport
from dbbackup.contract.run import Owner


class TransactionRecord(Model):
    """What a restore writes at `transaction_key` before it changes anything: what a check Job needs
    to settle it.

    `xid` is the transaction's id with its epoch, for txid_status; it means nothing on another
    `timeline`. `rows` and `tables` are those that a commit brings, since a restore commits only
    when all of them were taken.
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
    database's `oid` once that is there.

    Only the oid tells the database that it made from one that somebody else made at that very
    moment.
    """

    type: Literal["dbbackup.io/creation"] = "dbbackup.io/creation"
    owner: Owner
    identity: str
    oid: int | None = None


class Tombstone(Model):
    """What a check Job puts where it finds no TransactionRecord: a restore that was given up, and
    whose node comes back, then changes nothing."""

    type: Literal["dbbackup.io/tombstone"] = "dbbackup.io/tombstone"
    owner: Owner


def parse_transaction(data: bytes) -> TransactionRecord | Tombstone:
    """Whichever stands at `transaction_key`; ValidationError where it is neither."""
    return TypeAdapter(TransactionRecord | Tombstone).validate_json(data)
