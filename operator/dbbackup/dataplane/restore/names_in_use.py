"""Finds what stays in the target under a name that the artifact needs for a relation, a type or a
statistics object.

An index keeps its name when its table is renamed, so the name is taken although the table is not in
the way. Array types give way by themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from dbbackup.contract.catalog import CatalogObject
from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.postgres.encoding import server_encoding
from dbbackup.dataplane.sql.encodings import named
from dbbackup.dataplane.sql.splitter import split_qualified_name

_STATISTICS = "statistics object"
_WITHOUT_TYPE = frozenset({"index", "sequence", "composite type", _STATISTICS})
_WITHOUT_RELATION = frozenset({"type", "domain", _STATISTICS})
_RELATIONS = """
SELECT w.i::int, c.oid::bigint, c.oid::bigint, i.type, i.identity,
       pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, coalesce(
         (SELECT x.indrelid FROM pg_catalog.pg_index x WHERE x.indexrelid = c.oid),
         (SELECT d.refobjid FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
            AND d.refclassid = d.classid AND d.deptype IN ('a', 'i') LIMIT 1)), 0)
FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY w(s, n, i)
JOIN pg_catalog.pg_namespace ns ON ns.nspname = w.s JOIN pg_catalog.pg_class c ON c.relnamespace = ns.oid AND c.relname = w.n
CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0) i
"""
_NAMED_TYPES = """
SELECT w.i::int, t.oid::bigint, t.typrelid::bigint, i.type, i.identity, NULL::text
FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY w(s, n, i)
JOIN pg_catalog.pg_namespace ns ON ns.nspname = w.s JOIN pg_catalog.pg_type t ON t.typnamespace = ns.oid AND t.typname = w.n
CROSS JOIN LATERAL pg_catalog.pg_identify_object(
  CASE t.typrelid WHEN 0 THEN 'pg_catalog.pg_type'::pg_catalog.regclass ELSE 'pg_catalog.pg_class'::pg_catalog.regclass END,
  CASE t.typrelid WHEN 0 THEN t.oid ELSE t.typrelid END, 0) i
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = t.oid)
"""
_NAMED_STATISTICS = """
SELECT w.i::int, t.oid::bigint, 0::bigint, i.type, i.identity,
       pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, t.stxrelid, 0)
FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY w(s, n, i)
JOIN pg_catalog.pg_namespace ns ON ns.nspname = w.s JOIN pg_catalog.pg_statistic_ext t ON t.stxnamespace = ns.oid AND t.stxname = w.n
CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_statistic_ext'::pg_catalog.regclass, t.oid, 0) i
"""
_OIDS = """
SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid::bigint, 'pg_catalog.pg_type'::pg_catalog.regclass::oid::bigint,
       'pg_catalog.pg_statistic_ext'::pg_catalog.regclass::oid::bigint
"""


@dataclass(frozen=True, slots=True)
class MadeName:
    """A name that the artifact gives to a relation, a type or a statistics object."""

    schema: str
    name: str
    type: str


def names_in_use(
    connection: Connection, made: Iterable[MadeName], gone: Mapping[int, frozenset[int]], known: Collection[tuple[int, int]]
) -> Iterator[str]:
    """What stays under one of the names. `known`: objects that were already refused."""
    names, encoding = list(made), server_encoding(connection)
    class_class, type_class, statistics_class = connection.execute(_OIDS).fetchone() or (0, 0, 0)
    told = {oid for classid, oid in known if classid == class_class}
    types = [name for name in names if name.type not in _WITHOUT_TYPE]
    relations = [name for name in names if name.type not in _WITHOUT_RELATION]
    statistics = [name for name in names if name.type == _STATISTICS]
    kinds = ((_RELATIONS, class_class, relations), (_NAMED_TYPES, type_class, types), (_NAMED_STATISTICS, statistics_class, statistics))
    for query, catalog, wanted in kinds:
        rows = connection.execute(query, ([named(name.schema, encoding) for name in wanted], [named(name.name, encoding) for name in wanted]))
        for number, oid, relation, kind, identity, whole in rows.fetchall():
            if oid in gone.get(catalog, ()) or relation in told or (catalog, oid) in known:
                continue
            told |= {relation} if relation else set()
            found, name = f"{kind} {identity}", wanted[number - 1]
            if kind == name.type:
                yield f"{found}{f' of {whole}' if whole else ''} has the name of another {kind} in the artifact"
            else:
                yield f"{found} has the same name as a {name.type} in the artifact, but is of another kind"


def made_names(objects: Iterable[CatalogObject]) -> Iterator[MadeName]:
    """The names of all relations, types and statistics objects of an artifact, indexes and
    sequences included."""
    for held in objects:
        if held.outside:
            continue
        if held.catalog in {"pg_class", "pg_statistic_ext"} and len(held.names) == 2:
            yield MadeName(held.names[0], held.names[1], held.type)
        elif held.catalog == "pg_type":
            schema, name = split_qualified_name(held.names[0])[0]
            yield MadeName(schema, name, held.type)
            if held.columns:
                yield MadeName(schema, name, "composite type")
