"""Which tables' rows a dump lacks: each must have a section of its own, or one at its root."""

from __future__ import annotations

import pytest

from dbbackup.contract.run import BackupOptions
from dbbackup.dataplane.backup.row_counts import Key, without_entry, without_section
from dbbackup.dataplane.backup.snapshot import Relation, TableSelection, select_tables
from dbbackup.dataplane.sql.archive_toc import TocEntry, copy_target


def table(oid: int, name: str, kind: str = "r", *parents: int) -> Relation:
    return Relation(oid, "app", name, kind, False, False, True, 8192, parents)


def select(*relations: Relation, **options: tuple[str, ...]) -> TableSelection:
    return select_tables(relations, ("app",), BackupOptions.model_validate(options))


PARTITIONED = select(table(1, "plain"), table(2, "root", "p"), table(3, "middle", "p", 2), table(4, "leaf", "r", 3), table(5, "other", "r", 2))


@pytest.mark.parametrize(
    ("sections", "lacking"),
    [
        ({("app", "plain"): 1, ("app", "leaf"): 1, ("app", "other"): 1}, []),
        ({("app", "plain"): 1, ("app", "root"): 2}, []),
        ({("app", "plain"): 1, ("app", "root"): 1, ("app", "leaf"): 1}, []),
        ({("app", "plain"): 1, ("app", "root"): 1}, [("app", "leaf"), ("app", "other")]),
        ({("app", "plain"): 1, ("app", "middle"): 2, ("app", "leaf"): 1}, [("app", "other")]),
        ({("app", "root"): 2}, [("app", "plain")]),
        ({}, [("app", "plain"), ("app", "leaf"), ("app", "other")]),
    ],
)
def test_a_plain_dump_has_a_section_for_each_table_or_at_its_root(sections: dict[Key, int], lacking: list[Key]) -> None:
    assert without_section(PARTITIONED, sections) == lacking


def test_inheritance_and_an_own_sequence_are_no_partitions() -> None:
    selection = select(table(1, "parent"), table(2, "child", "r", 1), table(3, "owned", "S", 1))
    assert dict(selection.roots) == {}
    assert without_section(selection, {("app", "parent"): 2}) == [("app", "child")]


def test_rows_that_are_left_out_need_no_section() -> None:
    assert without_section(select(table(1, "kept"), table(2, "cache"), exclude_table_data=("app.cache",)), {("app", "kept"): 1}) == []


def entry(number: int, oid: int, name: str, copy: str, kind: str = "TABLE DATA") -> TocEntry:
    return TocEntry(number, kind, "app", name, "", "", (), copy, 0, oid)


def test_a_custom_dump_has_an_entry_for_each_table() -> None:
    entries = [entry(1, 1, "plain", "COPY app.plain (id) FROM stdin;\n"), entry(2, 4, "leaf", ""), entry(3, 5, "other", "", "TABLE")]
    assert without_entry(PARTITIONED, entries) == [("app", "other")]


def test_the_target_of_a_copy_is_what_counts() -> None:
    assert copy_target(entry(1, 4, "leaf", 'COPY app."Root ""one""" (id) FROM stdin;\n')) == ("app", 'Root "one"')
    assert copy_target(entry(1, 4, "leaf", "COPY app.nothing  FROM stdin;\n")) == ("app", "nothing")
    assert copy_target(entry(1, 4, "leaf", "")) is None
