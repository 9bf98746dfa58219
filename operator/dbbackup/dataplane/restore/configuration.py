"""Rows of extensions' configuration tables. An artifact holds those that the extension asked
pg_dump to dump; the target's own, CREATE EXTENSION's among them, go before they come, or they would
be there twice."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from dbbackup.contract.manifest import Contents
from dbbackup.dataplane.backup.configuration import read_members
from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.postgres.encoding import server_encoding
from dbbackup.dataplane.postgres.table_patterns import pg_dump_pattern
from dbbackup.dataplane.restore.preflight import PreflightProblem
from dbbackup.dataplane.sql.encodings import named
from dbbackup.text import listed, presentable

_FOUND = """
SELECT e.extname::pg_catalog.text, c.oid::pg_catalog.int8, pg_catalog.format('%%I.%%I', n.nspname, c.relname), c.relkind::pg_catalog.text,
       coalesce(e.extcondition[pg_catalog.array_position(e.extconfig, c.oid)], ''), pg_catalog.row_security_active(c.oid),
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND CASE c.relkind WHEN 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'UPDATE')
         ELSE pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(c.oid, 'INSERT')
           AND pg_catalog.has_table_privilege(c.oid, 'DELETE') END
FROM ROWS FROM (pg_catalog.unnest(%s::pg_catalog.text[]), pg_catalog.unnest(%s::pg_catalog.text[])) w(schema, name)
JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) w.schema::pg_catalog.name
JOIN pg_catalog.pg_class c ON c.relnamespace OPERATOR(pg_catalog.=) n.oid AND c.relname OPERATOR(pg_catalog.=) w.name::pg_catalog.name
JOIN pg_catalog.pg_extension e ON c.oid OPERATOR(pg_catalog.=) ANY (e.extconfig)
WHERE c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'S'])
ORDER BY 3
"""
_KEYS_OF_OTHERS = """
SELECT pg_catalog.format('%%I on table %%s', k.conname, k.conrelid::pg_catalog.regclass), k.confrelid::pg_catalog.regclass::pg_catalog.text
FROM pg_catalog.pg_constraint k
WHERE k.contype::pg_catalog.text OPERATOR(pg_catalog.=) 'f' AND k.confrelid OPERATOR(pg_catalog.=) ANY (%(tables)s::pg_catalog.oid[])
  AND NOT k.conrelid OPERATOR(pg_catalog.=) ANY (%(gone)s::pg_catalog.oid[])
ORDER BY 1
"""
_ROW_TRIGGERS = """
SELECT pg_catalog.quote_ident(t.tgname), pg_catalog.format('%%I.%%I', n.nspname, c.relname), t.tgenabled::pg_catalog.text,
       pg_catalog.pg_has_role(c.relowner, 'USAGE')
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE t.tgrelid OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.oid[]) AND NOT t.tgisinternal
  AND t.tgenabled::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['O', 'A'])
  AND (t.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 1) OPERATOR(pg_catalog.<>) 0
  AND (t.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 12) OPERATOR(pg_catalog.<>) 0
ORDER BY 2, 1
"""  # tgtype: 1 for each row, 4 INSERT, 8 DELETE
_CURE = "restore as another user, or from a backup that leaves the table out (`excludeTables`)"


@dataclass(frozen=True, slots=True)
class TargetConfiguration:
    """A table or sequence of an extension in the target whose rows, or value, the artifact holds.
    `condition` is the extension's, a WHERE clause or nothing. `writable`: the user may replace
    the rows."""

    extension: str
    oid: int
    name: str
    kind: str
    condition: str
    hidden_rows: bool
    writable: bool


@dataclass(frozen=True, slots=True)
class RowTrigger:
    """A trigger that would fire for rows that are deleted or come: it might change them, or write
    others. `state` is pg_trigger.tgenabled. `owned`: the user may disable it."""

    name: str
    table: str
    state: str
    owned: bool

    @property
    def disable(self) -> str:
        return f"ALTER TABLE {self.table} DISABLE TRIGGER {self.name}"

    @property
    def enable(self) -> str:
        return f"ALTER TABLE {self.table} ENABLE {'ALWAYS ' if self.state == 'A' else ''}TRIGGER {self.name}"


def row_triggers(connection: Connection, tables: Iterable[TargetConfiguration]) -> list[RowTrigger]:
    return [RowTrigger(*row) for row in connection.execute(_ROW_TRIGGERS, ([table.oid for table in tables],)).fetchall()]


def configuration_tables(connection: Connection, contents: Contents) -> list[TargetConfiguration]:
    """Those that exist in the target by now. Artifacts of 0.1 do not say which of their tables are
    an extension's: the target's catalogs do."""
    held = [(named(schema, server_encoding(connection)), named(name, server_encoding(connection))) for schema, name in _held(contents)]
    rows = connection.execute(_FOUND, ([schema for schema, _ in held], [name for _, name in held]))
    return list(dict.fromkeys(TargetConfiguration(*row) for row in rows.fetchall()))


def _held(contents: Contents) -> list[tuple[str, str]]:
    return [(table.schema_, table.name) for table in contents.tables] + [(table.schema_, table.name) for table in contents.configuration or ()]


def judge(connection: Connection, tables: Sequence[TargetConfiguration], gone: Collection[int], user: str) -> Iterable[PreflightProblem]:
    """What forbids that the rows are replaced. `gone` are oids of relations that the restore
    drops."""
    if closed := [f"{table.name} of extension {table.extension}" for table in tables if not table.writable]:
        message = f"{user} may not replace the rows of {listed(closed)}: SELECT, INSERT and DELETE are needed, UPDATE on a sequence; {_CURE}"
        yield PreflightProblem("InsufficientPrivilege", message)
    if hidden := [f"{table.name} of extension {table.extension}" for table in tables if table.writable and table.hidden_rows]:
        message = f"row-level security keeps {user} from replacing the rows of {listed(hidden)}; {_CURE}"
        yield PreflightProblem("InsufficientPrivilege", message)
    if firing := [f"{trigger.name} on {trigger.table}" for trigger in row_triggers(connection, tables) if not trigger.owned]:
        message = f"{user} may not disable triggers that would fire for the rows that come: {listed(firing)}; {_CURE}"
        yield PreflightProblem("InsufficientPrivilege", message)
    oids = [table.oid for table in tables]
    others = connection.execute(_KEYS_OF_OTHERS, {"tables": oids, "gone": [*oids, *gone]}).fetchall()
    if others:
        needs = [f"foreign key {key} needs rows of {table}" for key, table in others]
        yield PreflightProblem("DependentObjects", f"rows of extensions' tables would be replaced, and {listed(needs)}; drop the foreign keys first")


def untouched(connection: Connection, contents: Contents) -> tuple[str, ...]:
    """Configuration tables of the target, as patterns for a backup, whose rows the user cannot
    read. The restore leaves them alone: it replaces only rows that the user can read."""
    held = _held(contents)
    closed = [m.key for m in read_members(connection) if m.configured and (m.hidden_rows or not m.readable)]
    shown = [(presentable(schema), presentable(name)) for schema, name in closed]
    return tuple(pg_dump_pattern(*key) for key in shown if key not in held)


def statements(tables: Sequence[TargetConfiguration]) -> list[str]:
    """Pure: what makes room for the artifact's rows. One statement deletes from all tables, so that
    foreign keys among them hold."""
    rows = [table for table in tables if table.kind == "r"]
    if not rows:
        return []
    deletions = ", ".join(f"d{number} AS (DELETE FROM ONLY {table.name}{_where(table)})" for number, table in enumerate(rows))  # noqa: S608 - names are quoted by the server
    return [
        f"LOCK TABLE {', '.join(f'ONLY {table.name}' for table in rows)} IN SHARE ROW EXCLUSIVE MODE",
        f"WITH {deletions} SELECT",
    ]


def _where(table: TargetConfiguration) -> str:
    """The condition as pg_dump uses it: anything that may follow FROM."""
    return f" WHERE ctid = ANY (ARRAY(SELECT ctid FROM ONLY {table.name} {table.condition}\n))" if table.condition else ""  # noqa: S608
