"""Statements that are tried once more, under the source's search_path, where they fail without one.

A savepoint for each of them would do, but at the end of each the server looks through all relations
that the transaction has made: the time would grow with the square of their number. So a savepoint
covers many statements, and those before one that fails run again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import psycopg

from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.postgres.one_command import run_command
from dbbackup.dataplane.restore.statement_errors import statement_failure

_LEANING = re.compile(
    rb"CREATE (?:UNIQUE )?INDEX |ALTER TABLE .* (?:ADD CONSTRAINT|ATTACH PARTITION) |CREATE \w*\s*TABLE .*(?:GENERATED ALWAYS AS \(|PARTITION BY )",
    re.DOTALL,
)
"""Statements that may call functions of the artifact, or inline them."""
_REPEATABLE = re.compile(rb"(?:CREATE|ALTER|COMMENT ON|SET) ")
"""Statements whose whole effect a savepoint takes back."""
_UNDEFINED = frozenset({"42883", "42P01", "42704", "42703", "3F000"})
_BYTES = 1 << 16
_SECONDS = 1.0
"""What runs again after a failure is at most this much text, and took no longer than this."""


class SecondTry:
    """Call `run` for each statement, and `end` before anything else happens in the transaction.
    `under_path` sets the source's search_path for a block; None where it is not known."""

    def __init__(self, connection: Connection, who: str, under_path: Callable[[], AbstractContextManager[None]] | None) -> None:
        self._connection = connection
        self._who = who
        self._under_path = under_path
        self._done: list[bytes] = []
        """Since the savepoint."""
        self._bytes = 0
        self._began: float | None = None

    def run(self, statement: bytes) -> None:
        """psycopg.Error where the server refuses the statement, also under the source's path."""
        leans = self._under_path is not None and _LEANING.match(statement) is not None
        if not _REPEATABLE.match(statement):
            self.end()
        elif leans and self._began is None:
            self._began = time.monotonic()
            run_command(self._connection, "SAVEPOINT dbbackup")
        try:
            run_command(self._connection, statement)
        except psycopg.Error as error:
            if self._under_path is None or not leans or error.sqlstate not in _UNDEFINED:
                raise
            self._go_back()
            with self._under_path():
                run_command(self._connection, statement)
            self.end()
        if self._began is not None:
            self._done.append(statement)
            self._bytes += len(statement)
            if self._bytes >= _BYTES or time.monotonic() - self._began >= _SECONDS:
                self.end()

    def _go_back(self) -> None:
        run_command(self._connection, "ROLLBACK TO SAVEPOINT dbbackup")
        for earlier in self._done:
            try:
                run_command(self._connection, earlier)
            except psycopg.Error as error:
                raise statement_failure(error, earlier, self._who) from None

    def end(self) -> None:
        if self._began is not None:
            run_command(self._connection, "RELEASE SAVEPOINT dbbackup")
        self._began, self._bytes = None, 0
        self._done.clear()
