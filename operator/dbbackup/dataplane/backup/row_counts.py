"""The rows of each table that a dump fills, by the names in its COPY statements: a partition's rows
may be written for the topmost table (hash partitions by an enum are).

A plain dump is counted as it passes. The rows of a custom dump can't be: they are counted in the
snapshot, table by table, while it is made.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from dbbackup.dataplane.backup.snapshot import Snapshot, TableSelection
from dbbackup.dataplane.sql.archive_toc import TocEntry, copy_target

Key = tuple[str, str]
"""(schema, name) of a table."""


def without_section(selection: TableSelection, sections: Mapping[Key, int]) -> list[Key]:
    """Pure: tables whose rows a plain dump lacks. `sections`: how many COPY statements fill each
    table."""
    absent = [table.key for table in selection.data_tables if not sections.get(table.key)]
    through_root = Counter(selection.roots[key] for key in absent if key in selection.roots)
    return [key for key in absent if (root := selection.roots.get(key)) is None or sections.get(root, 0) < through_root[root]]


def without_entry(selection: TableSelection, entries: Iterable[TocEntry]) -> list[Key]:
    """Pure: tables whose rows a custom dump lacks."""
    held = {entry.oid for entry in entries if entry.kind == "TABLE DATA"}
    return [table.key for table in selection.data_tables if table.oid not in held]


class ArchiveCounter:
    """Counts the rows of a custom dump in a thread, over the snapshot's session. Configuration
    tables of extensions are left out: their rows are dumped under a condition."""

    def __init__(self, snapshot: Snapshot, entries: Sequence[TocEntry]) -> None:
        self._snapshot = snapshot
        self._entries = entries
        self._rows: dict[Key, int] = {}
        self._failed: set[Key] = set()
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="count", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._snapshot.begin_counting()
            tables = {table.oid: table for table in self._snapshot.selection.data_tables}
            for entry in self._entries:
                table = tables.get(entry.oid) if entry.kind == "TABLE DATA" else None
                if self._over.is_set():
                    return
                if table is None:
                    continue
                target, count = copy_target(entry), self._snapshot.count(table)
                if target is None or count is None:
                    self._failed.add(target or table.key)
                else:
                    self._rows[target] = self._rows.get(target, 0) + count
        except BaseException as error:  # noqa: BLE001 - raised again by result
            self._error = error

    def result(self) -> tuple[dict[Key, int], list[Key]]:
        """(rows of each table that the dump fills, tables whose rows could not be counted)."""
        self._thread.join()
        if self._error:
            raise self._error
        return {key: count for key, count in self._rows.items() if key not in self._failed}, sorted(self._failed)

    def close(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            with suppress(Exception):
                self._snapshot.connection.cancel_safe()
        self._thread.join()
