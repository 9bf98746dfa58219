"""ANALYZE after a restore, table by table. The data is committed: what fails here is a warning."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from dbbackup.contract.manifest import TableEntry
from dbbackup.dataplane.context import Run
from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.postgres.encoding import manifest_identifier
from dbbackup.dataplane.postgres.one_command import run_command
from dbbackup.dataplane.postgres.own_settings import OwnSettings
from dbbackup.dataplane.restore.statement_errors import primary_text
from dbbackup.text import listed

_LOCK_TIMEOUT = 5
"""Seconds."""
_SKIPPING = frozenset({"vacuum.c", "analyze.c"})
"""Where the server warns that it skips a table, as the user may not analyze it."""
_KINDS = frozenset({"table", "unlogged", "materialized"})


def analyze(run: Run, connection: Connection, tables: Iterable[TableEntry], search_path: str | None = None) -> None:
    """Updates the planner's statistics. One table that cannot be analyzed keeps none of the others
    from it; all that failed are named in one warning. `search_path` is for functions of indexes
    that lean on the source's."""
    failed: list[str] = []
    refused: list[str] = []

    def listen(notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING" and notice.source_file in _SKIPPING:
            refused.append(notice.message_primary or "")

    settings = OwnSettings(connection, _LOCK_TIMEOUT)
    connection.add_notice_handler(listen)
    try:
        for table in tables:
            if table.kind not in _KINDS:
                continue
            run.stop.check()
            refused.clear()
            try:
                settings.pin()
                if search_path:
                    connection.execute("SELECT pg_catalog.set_config('search_path', %s, false)", (search_path,))
                run_command(connection, f"ANALYZE {manifest_identifier(connection, table.schema_, table.name)}")
            except psycopg.Error as error:
                if connection.closed:
                    raise
                refused.append(primary_text(error))
            if refused:
                failed.append(f"{table.schema_}.{table.name} ({refused[0][:200]})")
    except Exception as error:  # noqa: BLE001 - whatever it is, the restore is done
        run.warn(f"ANALYZE after the restore ended early, run it by hand: {' '.join(str(error).split())[:200]}")
    finally:
        connection.remove_notice_handler(listen)
    if failed:
        run.warn(f"ANALYZE failed for {len(failed)} {'table' if len(failed) == 1 else 'tables'}, run it by hand: {listed(failed)}")
