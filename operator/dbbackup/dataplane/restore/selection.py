"""Selects schemas and tables of a custom archive, with everything that belongs to them. Pure.

To a table belong its rows, defaults, constraints, indexes, statistics, rules, triggers, policies,
comments, its own sequences and its partitions. A foreign key onto a table that is neither selected
nor in the target is left out. Types, functions and other objects that the selection needs are
restored where the target lacks them, and left unchanged where it has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dbbackup.contract.errors import Failure
from dbbackup.contract.manifest import Contents
from dbbackup.dataplane.postgres import table_patterns
from dbbackup.dataplane.sql.archive_toc import TocEntry, copy_target
from dbbackup.text import presentable

RELATIONS = frozenset({"TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE"})
_BY_TAG = frozenset({"DEFAULT", "CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "TRIGGER", "RULE", "POLICY"})
"""Kinds whose tag is `table part`: the tag says which table they belong to."""
_BY_DEPENDENCY = frozenset({
    "TABLE DATA", "MATERIALIZED VIEW DATA", "INDEX", "STATISTICS", "ROW SECURITY", "SEQUENCE", "SEQUENCE OWNED BY", "SEQUENCE SET", "COMMENT",
    "SECURITY LABEL", "TABLE ATTACH", "INDEX ATTACH",
})  # fmt: skip
_NEVER = frozenset({
    "ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE", "DATABASE PROPERTIES", "ACL", "DEFAULT ACL", "BLOB", "BLOBS", "BLOB METADATA",
    "BLOB COMMENTS", "STATISTICS DATA", "EXTENSION", "PUBLICATION", "PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA", "SUBSCRIPTION",
    "SUBSCRIPTION TABLE", "EVENT TRIGGER",
})  # fmt: skip
_BEFORE_ATTACHED = frozenset({"TABLE", "FOREIGN TABLE", "TABLE DATA", "CONSTRAINT", "INDEX", "INDEX ATTACH"})
_LOCKS = {"TABLE": 3, "MATERIALIZED VIEW": 3, "INDEX": 1, "CONSTRAINT": 1, "SEQUENCE": 1, "VIEW": 1, "FOREIGN TABLE": 1}

Lacking = Callable[[Sequence[TocEntry]], set[int]]
"""Entries -> the IDs of those whose objects the target lacks."""


@dataclass(frozen=True, slots=True)
class ArchiveSelection:
    """What pg_restore is to restore. `ids` are in the restore's order; `needed` are those among
    them that were not asked for and that the target lacks; `left_out` are foreign keys, as `table
    name`."""

    ids: tuple[int, ...]
    tables: frozenset[tuple[str, str]]
    extensions: frozenset[str]
    needed: tuple[str, ...]
    left_out: tuple[str, ...]
    locks: int
    policies: str
    """The definitions of the selected policies: they name roles."""
    partly: frozenset[tuple[str, str]] = frozenset()
    """Tables that would get rows of other partitions too, were all of the archive restored."""
    rows: frozenset[tuple[str, str]] = frozenset()
    """Tables and sequences whose rows or values are restored."""

    def listing(self) -> str:
        """The file for `pg_restore --use-list`."""
        return "".join(f"{number};\n" for number in self.ids)

    def contents(self, whole: Contents) -> Contents:
        """The part of the manifest's contents that is restored."""
        chosen, partly, rows = ({(presentable(s), presentable(t)) for s, t in keys} for keys in (self.tables, self.partly, self.rows))
        configuration = tuple(table for table in whole.configuration or () if (table.schema_, table.name) in rows)
        extensions = {presentable(name) for name in self.extensions} | {table.extension for table in configuration}
        return Contents(
            schemas=(),
            tables=tuple(
                table.model_copy(update={"rows": None}) if (table.schema_, table.name) in partly else table
                for table in whole.tables
                if (table.schema_, table.name) in chosen
            ),
            extensions=tuple(extension for extension in whole.extensions if extension.name in extensions),
            roles=tuple(role for role in whole.roles if role in presentable(self.policies)),
            relations=self.locks,
            configuration=configuration or None,
        )


def choose(entries: Sequence[TocEntry], schemas: Sequence[str], tables: Sequence[str]) -> set[int]:
    """IDs of the entries that were asked for, and of those that belong to them. Failure
    SelectionEmpty names everything that the archive lacks."""
    chosen: set[int] = set()
    missing: list[str] = []
    for schema in schemas:
        found = {e.id for e in entries if e.kind not in _NEVER and (e.schema == schema or (e.kind == "SCHEMA" and e.tag == schema))}
        chosen |= found
        missing += [] if found else [f"schema {schema}"]
    relations = {(e.schema, e.tag): e.id for e in entries if e.kind in RELATIONS}
    for table in tables:
        keys = table_patterns.tables_named(table, relations)
        chosen |= {relations[key] for key in keys}
        missing += [] if keys else [f"table {table}"]
    if missing:
        available = sorted({e.schema for e in entries if e.kind in RELATIONS})
        raise Failure(
            "SelectionEmpty", f"the artifact contains no {', '.join(missing)}; it has tables in the schemas {', '.join(available) or 'none'}"
        )
    return _belonging(entries, chosen)


def complete(entries: Sequence[TocEntry], chosen: set[int], lacking: Lacking) -> ArchiveSelection:
    """Adds objects that the selection needs and the target lacks. Failure InvalidSpec where one of
    them is a table: its rows were not asked for."""
    by_id = {entry.id: entry for entry in entries}
    base = set(chosen)
    needed: set[int] = set()
    extensions: set[str] = set()
    known: set[int] = set()
    while True:
        foreign_keys = {number for number in chosen if by_id[number].kind == "FK CONSTRAINT"}
        candidates = _needs(by_id, chosen - foreign_keys) - chosen - known
        extensions |= {by_id[number].tag for number in candidates if by_id[number].kind == "EXTENSION"}
        known |= candidates
        absent = lacking([by_id[number] for number in candidates])
        tables = sorted(f"{by_id[n].schema}.{by_id[n].tag}" for n in absent if by_id[n].kind in RELATIONS - {"SEQUENCE"})
        if tables:
            raise Failure("InvalidSpec", f"the selection needs {', '.join(tables)}, which neither it nor the target contains: select them too")
        if not absent:
            break
        needed |= absent
        chosen = _belonging(entries, chosen | needed)
    left_out = _dangling([by_id[number] for number in foreign_keys], by_id, chosen, lacking)
    kept = chosen - {entry.id for entry in left_out}
    selected = [entry for entry in entries if entry.id in kept]
    return ArchiveSelection(
        ids=tuple(entry.id for entry in _indexed_before_attached(selected, by_id, kept)),
        tables=frozenset((e.schema, e.tag) for e in selected if e.kind in RELATIONS and e.kind != "SEQUENCE"),
        extensions=frozenset(extensions),
        needed=tuple(f"{e.kind.lower()} {f'{e.schema}.' if e.schema else ''}{e.tag}" for e in selected if e.id in needed - base),
        left_out=tuple(f"{e.schema}.{e.tag}" for e in left_out),
        locks=sum(_LOCKS.get(entry.kind, 0) for entry in selected),
        policies="\n".join(entry.definition for entry in selected if entry.kind == "POLICY"),
        rows=frozenset((e.schema, e.tag) for e in selected if e.kind in {"TABLE DATA", "SEQUENCE SET"}),
        partly=frozenset(target for e in entries if e.kind == "TABLE DATA" and e.id not in kept and (target := copy_target(e)) is not None),
    )


def _indexed_before_attached(selected: Sequence[TocEntry], by_id: dict[int, TocEntry], kept: set[int]) -> list[TocEntry]:
    """In the archive's order, but partitions of tables that are not selected are attached once they
    have their indexes: attaching makes those that a partition lacks, and they would be made twice.
    """
    through_root = {e.tag for e in selected if e.kind == "TABLE DATA" and copy_target(e) not in {None, (e.schema, e.tag)}}
    late = [e for e in selected if e.kind == "TABLE ATTACH" and e.needs[1:2] and e.needs[1] not in kept and e.tag not in through_root]
    if not late:
        return list(selected)
    partitions = {entry.needs[0] for entry in late}
    theirs = {(e.schema, e.tag.rpartition(" ")[2]) for e in selected if e.kind in {"CONSTRAINT", "INDEX"} and _owner(e, by_id) in partitions}
    late += [e for e in selected if e.kind == "INDEX ATTACH" and (e.schema, e.tag.rpartition(" ")[2]) in theirs]
    moved = {entry.id for entry in late}
    rest = [entry for entry in selected if entry.id not in moved]
    at = 1 + max(place for place, entry in enumerate(rest) if entry.kind in _BEFORE_ATTACHED)
    return [*rest[:at], *late, *rest[at:]]


def _belonging(entries: Sequence[TocEntry], chosen: set[int]) -> set[int]:
    by_id = {entry.id: entry for entry in entries}
    parents = {e.needs[0]: e.needs[1] for e in entries if e.kind == "TABLE ATTACH" and len(e.needs) > 1}
    chosen = set(chosen)
    while True:
        more = {child for child, parent in parents.items() if parent in chosen}
        more |= {entry.id for entry in entries if (owner := _owner(entry, by_id)) is not None and owner in chosen}
        if more <= chosen:
            return chosen
        chosen |= more


def _owner(entry: TocEntry, by_id: dict[int, TocEntry]) -> int | None:
    """The ID of the entry that this one is a part of; None where it is not a part."""
    needs = [by_id[number] for number in entry.needs if number in by_id]
    if entry.kind in _BY_TAG:
        fitting = [e for e in needs if e.kind in RELATIONS and e.schema == entry.schema and entry.tag.startswith(f"{e.tag} ")]
        return max(fitting, key=lambda e: len(e.tag)).id if fitting else None
    if entry.kind not in _BY_DEPENDENCY:
        return None
    if entry.kind in {"COMMENT", "SECURITY LABEL"}:
        return needs[0].id if needs else None
    kinds = {"SEQUENCE"} if entry.kind in {"SEQUENCE OWNED BY", "SEQUENCE SET"} else RELATIONS - {"SEQUENCE"}
    return next((e.id for e in needs if e.kind in kinds), None)


def _needs(by_id: dict[int, TocEntry], chosen: Iterable[int]) -> set[int]:
    skipped = _NEVER - {"EXTENSION"}
    return {n for number in chosen for n in by_id[number].needs if n in by_id and by_id[n].kind not in skipped and _is_own_object(by_id[n])}


def _is_own_object(entry: TocEntry) -> bool:
    """Whether the entry is an object of its own, not a part of one."""
    return entry.kind == "EXTENSION" or entry.kind in RELATIONS or entry.kind not in _BY_TAG | _BY_DEPENDENCY


def _dangling(foreign_keys: Sequence[TocEntry], by_id: dict[int, TocEntry], chosen: set[int], lacking: Lacking) -> list[TocEntry]:
    """Foreign keys onto tables that will not exist."""
    targets = {key.id: [by_id[n] for n in key.needs if n in by_id and by_id[n].kind == "TABLE" and n not in chosen] for key in foreign_keys}
    absent = lacking([entry for found in targets.values() for entry in found])
    return [key for key in foreign_keys if any(entry.id in absent for entry in targets[key.id])]
