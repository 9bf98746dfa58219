"""Runs the artifact's SQL, piece by piece, over one connection and within its transaction.

The transaction is the caller's: nothing here begins or ends it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import psycopg
from psycopg.pq import TransactionStatus

from dbbackup.contract.errors import Failure
from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.restore.statement_errors import describe, statement_failure
from dbbackup.dataplane.sql.splitter import Kind, Piece, copy_table, unquote

_HARMLESS_META = re.compile(rb"\\(?:un)?restrict\b")
_TRANSACTION = re.compile(rb"(?:BEGIN|COMMIT);\Z")
_ANY_TRANSACTION = re.compile(
    rb"(?:BEGIN|COMMIT|END|ABORT|ROLLBACK|START\s+TRANSACTION|PREPARE\s+TRANSACTION|SAVEPOINT|RELEASE|SET\s+(?:LOCAL\s+|SESSION\s+)?TRANSACTION)\b",
    re.IGNORECASE,
)
_TIMEOUT = re.compile(rb"SET (?:\w+_timeout|client_connection_check_interval)\s*=", re.IGNORECASE)
_SCHEMA = re.compile(rb"CREATE SCHEMA (?:IF NOT EXISTS )?")
_NAME = re.compile(rb'("(?:[^"]|"")+"|[^\s;"]+)\s*;\s*\Z')


@dataclass
class Restored:
    """What the server took. `rows` are the server's own counts, from the tags of its COPY
    commands."""

    rows: dict[tuple[str, str], int] = field(default_factory=dict)
    bytes: int = 0
    statements: int = 0


class Executor:
    """`connection` is in a transaction block and stays in it. `tick` is called after each piece: it
    reports progress, and raises to stop the restore."""

    def __init__(self, connection: Connection, who: str, tick: Callable[[Restored], None]) -> None:
        self._connection = connection
        self._who = who
        self._tick = tick
        self.restored = Restored()

    def run(self, pieces: Iterable[Piece]) -> None:
        """Failure names the statement and the server's error; then the transaction is aborted."""
        source = iter(pieces)
        for piece in source:
            self.restored.bytes += len(piece.data)
            match piece.kind:
                case Kind.STATEMENT:
                    self._statement(piece.text)
                case Kind.COPY:
                    self._copy(piece, source)
                case Kind.META:
                    refuse_meta(piece)
                case Kind.BLANK:
                    pass
                case Kind.DATA | Kind.COPY_END:
                    raise Failure("ArtifactCorrupt", "the artifact contains COPY data without a COPY statement")
            self._tick(self.restored)

    def execute(self, statement: bytes) -> None:
        try:
            self._connection.execute(statement)
        except psycopg.Error as error:
            raise statement_failure(error, statement, self._who) from None
        if self._connection.pgconn.transaction_status != TransactionStatus.INTRANS:
            raise Failure("RestoreFailed", f"{self._who}: {describe(statement)} ended the transaction; pg_dump does not write that")
        self.restored.statements += 1

    def _statement(self, text: bytes) -> None:
        if _TIMEOUT.match(text) or _TRANSACTION.match(text):
            return
        if _ANY_TRANSACTION.match(text):
            raise Failure("ArtifactCorrupt", f"the artifact contains {describe(text)}, which pg_dump does not write; it was not run")
        if (found := _SCHEMA.match(text)) and (name := _NAME.match(text, found.end())) and self._schema_exists(unquote(name[1])):
            return  # even IF NOT EXISTS needs CREATE on the database, which the owner of its tables may lack
        self.execute(text)

    def _schema_exists(self, name: str) -> bool:
        row = self._connection.execute("SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s)", (name,)).fetchone()
        return bool(row and row[0])

    def _copy(self, header: Piece, source: Iterable[Piece]) -> None:
        table = copy_table(header)
        sent = 0
        cursor = self._connection.cursor()
        try:
            with cursor.copy(header.text) as copy:
                for piece in source:
                    self.restored.bytes += len(piece.data)
                    if piece.kind is Kind.COPY_END:
                        break
                    copy.write(piece.data)
                    sent += piece.rows
                    self._tick(self.restored)
                else:
                    raise Failure("ArtifactCorrupt", f"the artifact ends within the rows of {table[0]}.{table[1]}")
        except psycopg.Error as error:
            raise statement_failure(error, header.text, self._who) from None
        taken = cursor.rowcount
        if taken != sent:
            raise Failure("RowCountMismatch", f"{self._who}: table {table[0]}.{table[1]}: {sent} rows were sent, the server took {taken}")
        self.restored.rows[table] = self.restored.rows.get(table, 0) + taken
        self.restored.statements += 1


def refuse_meta(piece: Piece) -> None:
    """Failure ArtifactCorrupt for a meta-command of psql, except \\restrict and \\unrestrict, which
    only guard against others."""
    if not _HARMLESS_META.match(piece.text):
        word = piece.text.split(maxsplit=1)[0].decode("utf-8", "replace")
        raise Failure("ArtifactCorrupt", f"the artifact contains the psql command {word[:40]}, which pg_dump never writes; it was not run")
