"""Runs the artifact's SQL, piece by piece, over one connection and within its transaction.

The transaction is the caller's: nothing here begins or ends it. Each statement is one command for
the server too, however it was split here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg.pq import TransactionStatus

from dbbackup.contract.errors import Failure
from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.postgres.encoding import server_encoding
from dbbackup.dataplane.postgres.one_command import CopyIn
from dbbackup.dataplane.restore.second_try import SecondTry
from dbbackup.dataplane.restore.statement_errors import describe, statement_failure
from dbbackup.dataplane.sql.encodings import codec_of, dump_encoding
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
_EVENT_TRIGGER = re.compile(rb"(?:CREATE|ALTER|COMMENT ON|SECURITY LABEL FOR \S+ ON) EVENT TRIGGER ")
_IDENTIFIER = rb'(?:"(?:[^"]|"")+"|[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*)'
_REFRESH = re.compile(rb"REFRESH MATERIALIZED VIEW ")
_ANY_COPY = re.compile(rb"COPY\b", re.IGNORECASE)
_DUMPS_COPY = re.compile(rb"COPY %(i)s\.%(i)s (?:\(%(i)s(?:, %(i)s)*\))? FROM stdin;\s*\Z" % {b"i": _IDENTIFIER})
"""What pg_dump writes; for a table without columns that can be stored, two blanks and no list."""


@dataclass
class Restored:
    """What the server took. `rows` are the server's own counts, from the tags of its COPY
    commands."""

    rows: dict[tuple[str, str], int] = field(default_factory=dict)
    bytes: int = 0
    statements: int = 0


class Executor:
    """`connection` is in a transaction block and stays in it. `tick` is called after each piece: it
    reports progress, and raises to stop the restore. `schemas` are those that exist.

    A dump in the database's own encoding is taken as it is, by the session's own client encoding:
    the two mean the same to the server.

    A dump runs with an empty search_path. Functions that lean on one would fail, so that rows and
    materialized views, whose statements qualify every name, come under the source's own
    `search_path`, and what fails without it is tried once more.
    """

    def __init__(
        self, connection: Connection, who: str, tick: Callable[[Restored], None], schemas: Iterable[str] = (), *, search_path: str = ""
    ) -> None:
        self._connection = connection
        self._who = who
        self._tick = tick
        self._schemas = set(schemas)
        self._search_path = search_path
        self._leaning = False
        self._tries = SecondTry(connection, who, self._under_path if search_path else None)
        self._last: list[bytes] = []
        self._codec = "utf-8"
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
        self._settle()
        self._lean(on=False)

    def run_last(self, preamble: Iterable[Piece]) -> None:
        """Makes the artifact's event triggers, which would fire on whatever comes after them. The
        preamble sets the session for them again."""
        if not self._last:
            return
        for piece in preamble:
            if piece.kind is Kind.STATEMENT:
                self._statement(piece.text)
        for statement in self._last:
            self.execute(statement)
        self._settle()

    def _settle(self) -> None:
        """To be called before anything but a statement of the artifact happens."""
        try:
            self._tries.end()
        except psycopg.Error as error:
            raise statement_failure(error, "RELEASE SAVEPOINT", self._who) from None

    def execute(self, statement: bytes) -> None:
        try:
            self._tries.run(statement)
        except psycopg.Error as error:
            raise statement_failure(error, statement, self._who) from None
        if self._connection.pgconn.transaction_status != TransactionStatus.INTRANS:
            raise Failure("RestoreFailed", f"{self._who}: {describe(statement)} ended the transaction; pg_dump does not write that")
        self.restored.statements += 1

    @contextmanager
    def _under_path(self) -> Iterator[None]:
        self._lean(on=True)
        yield
        self._lean(on=False)

    def _lean(self, *, on: bool) -> None:
        if on != self._leaning and self._search_path:
            self._leaning = on
            self._connection.execute("SELECT pg_catalog.set_config('search_path', %s, false)", (self._search_path if on else "",))

    def _statement(self, text: bytes) -> None:
        if _TIMEOUT.match(text) or _TRANSACTION.match(text):
            return
        if encoding := dump_encoding(text):
            self._codec = codec_of(encoding)
            if encoding == server_encoding(self._connection):
                return
        if _ANY_TRANSACTION.match(text) or _ANY_COPY.match(text):
            raise _not_pg_dumps(text)
        if _EVENT_TRIGGER.match(text):
            self._last.append(text)
            return
        if (found := _SCHEMA.match(text)) and (name := _NAME.match(text, found.end())):
            if (schema := unquote(name[1], self._codec)) in self._schemas:
                return  # even IF NOT EXISTS needs CREATE on the database, which the owner of its tables may lack
            self._schemas.add(schema)
        if refreshes := _REFRESH.match(text) is not None:
            self._settle()
        self._lean(on=refreshes)
        self.execute(text)

    def _copy(self, header: Piece, source: Iterable[Piece]) -> None:
        if not _DUMPS_COPY.match(header.text):
            raise _not_pg_dumps(header.text)
        table = copy_table(header, self._codec)
        self._settle()
        self._lean(on=True)
        sent = 0
        try:
            with CopyIn(self._connection, header.text) as copy:
                for piece in source:
                    self.restored.bytes += len(piece.data)
                    if piece.kind is Kind.COPY_END:
                        break
                    copy.write(piece.data)
                    sent += piece.rows
                    self._tick(self.restored)
                else:
                    raise Failure("ArtifactCorrupt", f"the artifact ends within the rows of {table[0]}.{table[1]}")
            taken = copy.end()
        except psycopg.Error as error:
            raise statement_failure(error, header.text, self._who) from None
        if taken != sent:
            raise Failure("RowCountMismatch", f"{self._who}: table {table[0]}.{table[1]}: {sent} rows were sent, the server took {taken}")
        self.restored.rows[table] = self.restored.rows.get(table, 0) + taken
        self.restored.statements += 1


def _not_pg_dumps(text: bytes) -> Failure:
    return Failure("ArtifactCorrupt", f"the artifact contains {describe(text)}, which pg_dump does not write; it was not run")


def refuse_meta(piece: Piece) -> None:
    """Failure ArtifactCorrupt for a meta-command of psql, except \\restrict and \\unrestrict, which
    only guard against others."""
    if not _HARMLESS_META.match(piece.text):
        word = piece.text.split(maxsplit=1)[0].decode("utf-8", "replace")
        raise Failure("ArtifactCorrupt", f"the artifact contains the psql command {word[:40]}, which pg_dump never writes; it was not run")
