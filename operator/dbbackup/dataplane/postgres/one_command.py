"""SQL that is not ours, or contains names and texts that are not ours, one command at a time.

It is sent by the extended protocol: there the server itself refuses a text that holds more than one
command. By the simple protocol, which psycopg prefers, it would run them all, a COMMIT too.
"""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import Self

from psycopg import Error, errors, generators
from psycopg.pq import ExecStatus

from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.postgres.encoding import encoded

_PUT = 1 << 17
"""Bytes for one PQputCopyData: libpq becomes slow with much larger ones."""
_FLUSH = 1 << 20
"""Bytes that libpq may hold before we wait for the server."""


def run_command(connection: Connection, command: bytes | str) -> None:
    """psycopg.Error where the server refuses it. Rows that it returns are dropped."""
    _send(connection, command, (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.EMPTY_QUERY))


def _send(connection: Connection, command: bytes | str, expected: tuple[ExecStatus, ...]) -> None:
    text = command if isinstance(command, bytes) else encoded(connection, command)
    with connection.lock:
        connection.pgconn.send_query_params(text, None)
        results = connection.wait(generators.execute(connection.pgconn))
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result, connection.info.encoding)
        if result.status not in expected:
            raise errors.ProtocolViolation(f"the server answered with {ExecStatus(result.status).name}")


class CopyIn:
    """A `COPY ... FROM stdin` that has begun: call `write` with chunks, then `end`. An exception
    within the block abandons it, and the server aborts the transaction."""

    def __init__(self, connection: Connection, command: bytes) -> None:
        self._connection = connection
        self._unflushed = 0
        _send(connection, command, (ExecStatus.COPY_IN,))

    def write(self, data: bytes) -> None:
        if len(data) <= _PUT:
            self._put(data)
            return
        view = memoryview(data)
        for begin in range(0, len(data), _PUT):
            self._put(view[begin : begin + _PUT])

    def _put(self, data: bytes | memoryview) -> None:
        self._unflushed += len(data)
        flush = self._unflushed >= _FLUSH
        if flush:
            self._unflushed = 0
        self._connection.wait(generators.copy_to(self._connection.pgconn, data, flush=flush))

    def end(self) -> int:
        """The number of rows that the server took."""
        return self._connection.wait(generators.copy_end(self._connection.pgconn, None)).command_tuples or 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            with suppress(Error):  # as was asked for; a broken connection shows at the ROLLBACK
                self._connection.wait(generators.copy_end(self._connection.pgconn, b"the restore was stopped"))
