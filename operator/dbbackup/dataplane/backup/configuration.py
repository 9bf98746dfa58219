"""Configuration tables of extensions: tables and sequences of which pg_dump dumps the rows, as far
as the extension asked for it (pg_extension_config_dump). pg_cron's jobs are such rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from dbbackup.contract.manifest import ConfigurationTable
from dbbackup.contract.run import BackupOptions
from dbbackup.dataplane.postgres import table_patterns
from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.text import presentable

_MEMBERS = """
SELECT e.extname, c.oid::bigint, n.nspname, c.relname, c.relkind, pg_catalog.row_security_active(c.oid),
       pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
       c.oid = ANY (e.extconfig) AND c.relkind IN ('r', 'S'),
       (SELECT pg_catalog.array_agg(o.refobjid::bigint) FROM pg_catalog.pg_depend o
        WHERE c.relkind = 'S' AND o.objid = c.oid AND o.deptype IN ('a', 'i')
          AND o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND o.refclassid = o.classid)
FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid AND d.deptype = 'e'
  AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
JOIN pg_catalog.pg_class c ON c.oid = d.objid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE e.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
ORDER BY 3, 4
"""


@dataclass(frozen=True, slots=True)
class Member:
    """A relation of an extension. `configured`: pg_dump dumps its rows. `owners`: oids of the
    tables that a sequence belongs to."""

    extension: str
    oid: int
    schema: str
    name: str
    kind: str
    hidden_rows: bool
    readable: bool
    configured: bool
    owners: tuple[int, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.schema, self.name

    def entry(self) -> ConfigurationTable:
        extension, schema, name = map(presentable, (self.extension, self.schema, self.name))
        return ConfigurationTable.model_validate({"extension": extension, "schema": schema, "name": name})


@dataclass(frozen=True, slots=True)
class Configuration:
    """`dumped` are those whose rows the dump holds; `left_out` are configuration tables whose rows
    the options leave out; `matched` are patterns of the options that mean an extension's
    relation."""

    dumped: tuple[Member, ...] = ()
    left_out: frozenset[tuple[str, str]] = frozenset()
    matched: frozenset[str] = frozenset()


NO_CONFIGURATION = Configuration()


def read_members(connection: Connection) -> list[Member]:
    return [
        Member(extension, oid, schema, name, kind, hidden, readable, configured, tuple(owners or ()))
        for extension, oid, schema, name, kind, hidden, readable, configured, owners in connection.execute(_MEMBERS)
    ]


def select_configuration(members: Iterable[Member], extensions: Collection[str], options: BackupOptions) -> Configuration:
    """Pure. `extensions` are those in the dump."""
    members = list(members)
    by_key = {member.key: member for member in members}
    matched: set[str] = set()
    excluded: set[tuple[str, str]] = set()
    for pattern in (*options.exclude_tables, *options.exclude_table_data):
        if found := table_patterns.matching_tables(pattern, by_key):
            matched.add(pattern)
            excluded |= found
    for pattern in options.exclude_schemas or ():
        if schemas := table_patterns.matching_names(pattern, {member.schema for member in members}):
            matched.add(pattern)
        excluded |= {member.key for member in members if member.schema in schemas}
    gone = {by_key[key].oid for key in excluded}
    excluded |= {member.key for member in members if gone.intersection(member.owners)}
    held = [member for member in members if member.configured and member.extension in extensions]
    dumped = tuple(member for member in held if member.key not in excluded)
    left_out = frozenset(member.key for member in members if member.configured) - {member.key for member in dumped}
    return Configuration(dumped, left_out, frozenset(matched))
