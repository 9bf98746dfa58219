"""What the objects of an artifact require of the target, by the artifact's catalog, and which of it
the target does not meet.

`requirements` is pure. `find_shortfalls` reads the target's catalogs and changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import psycopg

from dbbackup.contract.catalog import Address, Catalog, CatalogObject
from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.postgres.encoding import server_encoding
from dbbackup.dataplane.sql.encodings import named
from dbbackup.dataplane.sql.splitter import SqlError, qualified_name

_SCHEMA_SECOND = frozenset({"pg_opclass", "pg_opfamily"})
"""System catalogs whose objects are named after their access method."""
_NO_SCHEMA = frozenset({
    "pg_namespace", "pg_extension", "pg_cast", "pg_transform", "pg_language", "pg_am", "pg_foreign_data_wrapper", "pg_foreign_server",
    "pg_user_mapping", "pg_event_trigger", "pg_publication", "pg_largeobject", "pg_default_acl",
})  # fmt: skip
_PARTS_WITH_SCHEMA = frozenset({"sequence", "statistics object"})
_UNDEFINED = frozenset({"42704", "42P01", "42883", "42809", "3F000"})
"""SQLSTATEs of pg_get_object_address for an object that is missing."""
_FIND = "SELECT classid::bigint, objid::bigint FROM pg_catalog.pg_get_object_address(%s, %s::text[], %s::text[])"
# Objects without USAGE: schemas, by name or of an extension; types; foreign-data wrappers, also of
# an extension; foreign servers.
_CLOSED = """
SELECT 'schema ' || pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_namespace n
WHERE (n.nspname = ANY (%(schemas)s::text[]) OR n.oid IN (
    SELECT e.extnamespace FROM pg_catalog.pg_extension e WHERE e.extname = ANY (%(extensions)s::text[])))
  AND NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
UNION ALL SELECT 'type ' || t.oid::pg_catalog.regtype FROM pg_catalog.pg_type t
WHERE t.oid = ANY (%(pg_type)s::oid[]) AND NOT pg_catalog.has_type_privilege(t.oid, 'USAGE')
UNION ALL SELECT 'foreign-data wrapper ' || pg_catalog.quote_ident(f.fdwname) FROM pg_catalog.pg_foreign_data_wrapper f
WHERE (f.oid = ANY (%(pg_foreign_data_wrapper)s::oid[]) OR f.oid IN (
    SELECT d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
    WHERE d.classid = 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass AND d.deptype = 'e' AND e.extname = ANY (%(wrapping)s::text[])))
  AND NOT pg_catalog.has_foreign_data_wrapper_privilege(f.oid, 'USAGE')
UNION ALL SELECT 'foreign server ' || pg_catalog.quote_ident(s.srvname) FROM pg_catalog.pg_foreign_server s
WHERE s.oid = ANY (%(pg_foreign_server)s::oid[]) AND NOT pg_catalog.has_server_privilege(s.oid, 'USAGE')
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Requirements:
    """`superuser`: objects that only a superuser may make. `made` are schemas of the artifact,
    `filled` those in which it makes something. `extensions`: those without whose members something
    cannot be made. `outside`: what is referred to and not in the artifact. `wrapping`: extensions
    that foreign servers need. `publishes`: it holds publications."""

    superuser: tuple[str, ...] = ()
    made: frozenset[str] = frozenset()
    filled: frozenset[str] = frozenset()
    extensions: frozenset[str] = frozenset()
    outside: tuple[CatalogObject, ...] = ()
    wrapping: frozenset[str] = frozenset()
    publishes: bool = False


@dataclass(frozen=True, slots=True)
class Shortfalls:
    """Objects that the artifact refers to: `missing` in the target, or `closed` there: the user
    lacks USAGE on them."""

    missing: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()


def requirements(catalog: Catalog, chosen: Collection[Address] | None = None, definitions: str = "") -> Requirements:
    """`chosen` are the objects that are restored, without their parts; None is all. The catalog
    does not say which of them refers to what is outside, so a selection's `definitions` do."""
    held = [o for o in catalog.objects if not o.outside and (chosen is None or o.address in chosen or o.of in chosen)]
    outside = [o for o in catalog.objects if o.outside]
    if chosen is not None:
        outside = [o for o in outside if schema_of(o) is not None and o.identity.partition("(")[0] in definitions]
    return Requirements(
        superuser=tuple(sorted(f"{o.type} {o.identity}" for o in held if o.superuser)),
        made=frozenset(o.names[0] for o in held if o.catalog == "pg_namespace"),
        filled=frozenset(schema for o in held if (schema := schema_of(o)) is not None),
        extensions=frozenset(name for o in held for name in o.needs),
        outside=tuple(outside),
        wrapping=frozenset(name for o in held if o.catalog == "pg_foreign_server" for name in o.needs),
        publishes=any(o.catalog == "pg_publication" for o in held),
    )


def schema_of(held: CatalogObject) -> str | None:
    """The schema in which the object is made; None for a part that is made with its whole, and for
    what has no schema."""
    if held.catalog in _NO_SCHEMA or (held.of is not None and held.type not in _PARTS_WITH_SCHEMA):
        return None
    if held.catalog == "pg_type":
        try:
            return qualified_name(held.identity.encode())[0]
        except SqlError:
            return None
    return held.names[held.catalog in _SCHEMA_SECOND]


def find_shortfalls(connection: Connection, wanted: Requirements) -> Shortfalls:
    found: dict[str, list[int]] = {"pg_type": [], "pg_foreign_data_wrapper": [], "pg_foreign_server": []}
    missing: list[str] = []
    for held in wanted.outside:
        oid = _find(connection, held)
        if oid is None:
            missing.append(f"{held.type} {held.identity}")
        elif held.catalog in found:
            found[held.catalog].append(oid)
    schemas = wanted.filled | {schema for held in wanted.outside if (schema := schema_of(held))}
    parameters = {**found, "schemas": sorted(schemas), "extensions": sorted(wanted.extensions), "wrapping": sorted(wanted.wrapping)}
    return Shortfalls(tuple(sorted(missing)), tuple(text for (text,) in connection.execute(_CLOSED, parameters)))


def _find(connection: Connection, held: CatalogObject) -> int | None:
    """The object's oid in the target; 0 where the user may not look, as its schema is closed."""
    encoding = server_encoding(connection)
    try:
        with connection.transaction():
            row = connection.execute(_FIND, (held.type, *([named(text, encoding) for text in texts] for texts in (held.names, held.args)))).fetchone()
    except psycopg.Error as error:
        if error.sqlstate == "42501":
            return 0
        if error.sqlstate not in _UNDEFINED:
            raise
        return None
    return row[1] if row else None
