"""Lists the target's objects: user objects of every kind, and those that a dump would replace.
Reads catalogs, changes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.restore import drop_section
from dbbackup.dataplane.restore.drop_section import DroppedObject

Address = tuple[int, int]
"""(oid of the catalog, oid of the object), as pg_depend names objects."""

FIRST_USER_OID = 16384

_SCHEMA_KINDS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(drop_section.RELATIONS, ("pg_class", "rel")),
    **dict.fromkeys(drop_section.TYPES, ("pg_type", "typ")),
    "COLLATION": ("pg_collation", "coll"),
    "CONVERSION": ("pg_conversion", "con"),
    "TEXT SEARCH CONFIGURATION": ("pg_ts_config", "cfg"),
    "TEXT SEARCH DICTIONARY": ("pg_ts_dict", "dict"),
    "TEXT SEARCH PARSER": ("pg_ts_parser", "prs"),
    "TEXT SEARCH TEMPLATE": ("pg_ts_template", "tmpl"),
    "OPERATOR CLASS": ("pg_opclass", "opc"),
    "OPERATOR FAMILY": ("pg_opfamily", "opf"),
}
_GLOBAL_KINDS: dict[str, tuple[str, str]] = {
    "EVENT TRIGGER": ("pg_event_trigger", "evt"),
    "PUBLICATION": ("pg_publication", "pub"),
    "SERVER": ("pg_foreign_server", "srv"),
    "FOREIGN DATA WRAPPER": ("pg_foreign_data_wrapper", "fdw"),
    "LANGUAGE": ("pg_language", "lan"),
    "PROCEDURAL LANGUAGE": ("pg_language", "lan"),
    "ACCESS METHOD": ("pg_am", "am"),
}
_METHOD = "'USING ' || (SELECT pg_catalog.quote_ident(amname) FROM pg_catalog.pg_am WHERE oid = {})"
_SUBKIND = {
    "pg_class": "c.relkind::text",
    "pg_type": "CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_type WHERE oid = c.typelem AND typarray = c.oid) THEN 'array'"
    " ELSE c.typtype::text || coalesce((SELECT relkind::text FROM pg_catalog.pg_class WHERE oid = c.typrelid), '') END",
    "pg_opclass": _METHOD.format("c.opcmethod"),
    "pg_opfamily": _METHOD.format("c.opfmethod"),
}
"""Catalog -> the expression for `Root.subkind`."""
_FITTING = {
    "TABLE": ("r", "p"), "VIEW": ("v",), "MATERIALIZED VIEW": ("m",), "FOREIGN TABLE": ("f",), "SEQUENCE": ("S",),
    "DOMAIN": ("d",), "TYPE": ("b", "cc", "d", "e", "m", "p", "r"),
}  # fmt: skip
"""Kinds that share their names with other kinds -> subkinds of the target's objects that may be
dropped as that kind: relkind, or typtype with the relkind of the row type."""
_SHARED_NAMES = {"pg_operator", "pg_opclass", "pg_opfamily"}
"""Catalogs in which several objects may have one name: the dump's statement also contains their
arguments or access method."""
_OWNERLESS = {"pg_ts_parser", "pg_ts_template", "pg_am"}

USER_OBJECTS = """
WITH part AS (SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype IN ('e', 'i')),
held(classid, objid) AS (
  SELECT 'pg_class'::regclass::oid, oid FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc
  UNION ALL SELECT 'pg_type'::regclass, t.oid FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE (typtype <> 'c' OR c.relkind = 'c') AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
  UNION ALL SELECT 'pg_operator'::regclass, oid FROM pg_operator
  UNION ALL SELECT 'pg_opfamily'::regclass, oid FROM pg_opfamily
  UNION ALL SELECT 'pg_opclass'::regclass, oid FROM pg_opclass
  UNION ALL SELECT 'pg_cast'::regclass, oid FROM pg_cast
  UNION ALL SELECT 'pg_collation'::regclass, oid FROM pg_collation
  UNION ALL SELECT 'pg_conversion'::regclass, oid FROM pg_conversion
  UNION ALL SELECT 'pg_transform'::regclass, oid FROM pg_transform
  UNION ALL SELECT 'pg_ts_config'::regclass, oid FROM pg_ts_config
  UNION ALL SELECT 'pg_ts_dict'::regclass, oid FROM pg_ts_dict
  UNION ALL SELECT 'pg_ts_parser'::regclass, oid FROM pg_ts_parser
  UNION ALL SELECT 'pg_ts_template'::regclass, oid FROM pg_ts_template
  UNION ALL SELECT 'pg_language'::regclass, oid FROM pg_language
  UNION ALL SELECT 'pg_am'::regclass, oid FROM pg_am
  UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid FROM pg_foreign_data_wrapper
  UNION ALL SELECT 'pg_foreign_server'::regclass, oid FROM pg_foreign_server
  UNION ALL SELECT 'pg_event_trigger'::regclass, oid FROM pg_event_trigger
  UNION ALL SELECT 'pg_publication'::regclass, oid FROM pg_publication
  UNION ALL SELECT 'pg_namespace'::regclass, oid FROM pg_namespace n
    WHERE NOT pg_catalog.starts_with(nspname, 'pg_') AND NOT EXISTS (SELECT FROM pg_extension x WHERE x.extnamespace = n.oid)
  UNION ALL SELECT 'pg_largeobject'::regclass, oid FROM pg_largeobject_metadata
  UNION ALL SELECT 'pg_default_acl'::regclass, oid FROM pg_default_acl
),
named(type, identity) AS (
  SELECT i.type, coalesce(i.identity, h.objid::text) FROM held h LEFT JOIN part m USING (classid, objid)
  CROSS JOIN LATERAL pg_catalog.pg_identify_object(h.classid, h.objid, 0) i
  WHERE m.objid IS NULL AND (h.objid >= %s OR h.classid = 'pg_largeobject'::regclass) AND NOT pg_catalog.starts_with(coalesce(i.schema, ''), 'pg_')
  UNION ALL SELECT 'subscription', pg_catalog.quote_ident(subname) FROM pg_subscription
  WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = pg_catalog.current_database())
)
SELECT CASE type WHEN 'default acl' THEN 'default privileges' ELSE type END, identity, count(*) OVER () FROM named
ORDER BY CASE type WHEN 'table' THEN 0 WHEN 'view' THEN 1 WHEN 'schema' THEN 9 ELSE 2 END, 1, 2
LIMIT %s
"""

_FIND = """
SELECT u.i::int, '{catalog}'::regclass::oid, c.oid, {owner}, {role}, {member}, {kind}
FROM unnest(%(schemas)s::text[], %(names)s::text[]) WITH ORDINALITY u(s, n, i)
JOIN pg_catalog.{catalog} c ON c.{prefix}name = u.n
LEFT JOIN pg_catalog.pg_roles r ON r.oid = {owner}
{namespace}
"""
_LARGE_OBJECTS = """
SELECT u.i::int, 'pg_largeobject'::regclass::oid, c.oid, c.lomowner, r.rolname, pg_catalog.pg_has_role(c.lomowner, 'USAGE'), ''
FROM unnest(%(names)s::oid[]) WITH ORDINALITY u(n, i) JOIN pg_catalog.pg_largeobject_metadata c ON c.oid = u.n
LEFT JOIN pg_catalog.pg_roles r ON r.oid = c.lomowner
"""
_ROUTINES = """
SELECT u.i::int, 'pg_proc'::regclass::oid, c.oid, c.proowner, r.rolname, pg_catalog.pg_has_role(c.proowner, 'USAGE'),
       pg_catalog.pg_get_function_identity_arguments(c.oid),
       ARRAY(SELECT pg_catalog.format_type(a.t, NULL) FROM unnest(c.proargtypes) WITH ORDINALITY a(t, n) ORDER BY a.n)
FROM unnest(%(schemas)s::text[], %(names)s::text[]) WITH ORDINALITY u(s, n, i)
JOIN pg_catalog.pg_namespace ns ON ns.nspname = u.s
JOIN pg_catalog.pg_proc c ON c.pronamespace = ns.oid AND c.proname = u.n
LEFT JOIN pg_catalog.pg_roles r ON r.oid = c.proowner
"""
_OPERATORS = """
SELECT u.i::int, 'pg_operator'::regclass::oid, c.oid, c.oprowner, r.rolname, pg_catalog.pg_has_role(c.oprowner, 'USAGE'),
       (SELECT pg_catalog.string_agg(CASE t WHEN 0 THEN 'NONE' ELSE pg_catalog.format_type(t, NULL) END, ', ' ORDER BY n)
        FROM (VALUES (1, c.oprleft), (2, c.oprright)) a(n, t))
FROM unnest(%(schemas)s::text[], %(names)s::text[]) WITH ORDINALITY u(s, n, i)
JOIN pg_catalog.pg_namespace ns ON ns.nspname = u.s
JOIN pg_catalog.pg_operator c ON c.oprnamespace = ns.oid AND c.oprname = u.n
LEFT JOIN pg_catalog.pg_roles r ON r.oid = c.oprowner
"""
_OTHERS = """
SELECT 'pg_cast'::regclass::oid, oid, pg_catalog.format('(%s AS %s)', castsource::regtype, casttarget::regtype) FROM pg_cast WHERE oid >= 16384
UNION ALL SELECT 'pg_transform'::regclass, t.oid, pg_catalog.format('FOR %s LANGUAGE %I', trftype::regtype, l.lanname)
  FROM pg_transform t JOIN pg_language l ON l.oid = trflang
UNION ALL SELECT 'pg_user_mapping'::regclass, umid, pg_catalog.format('FOR %I SERVER %I', usename, srvname) FROM pg_catalog.pg_user_mappings
"""


@dataclass(frozen=True, slots=True)
class Root:
    """One object of the target that the dump replaces. `owned`: the user has the privileges of its
    owner."""

    drop: DroppedObject
    address: Address
    owner: str | None
    owned: bool
    kind: str
    """As pg_identify_object returns it: `materialized view`."""
    name: str
    """Qualified, and quoted where necessary."""
    subkind: str = ""
    """Relkind of a relation; typtype of a type, with the relkind of the relation whose row type it
    is."""

    @property
    def identity(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def fits(self) -> bool:
        """Whether it is the kind of object that the dump has under that name, not another kind that
        only shares the name."""
        return not self.subkind or self.subkind in _FITTING.get(self.drop.kind, (self.subkind,))


def user_objects(connection: Connection, limit: int = 12) -> tuple[list[str], int]:
    """The first `limit` objects that users created in the database, and how many there are.
    Extensions, their members and their schemas don't count."""
    rows = connection.execute(USER_OBJECTS, (FIRST_USER_OID, limit)).fetchall()
    return [f"{kind} {identity}" for kind, identity, _ in rows], rows[0][2] if rows else 0


def schemas(connection: Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT n.nspname FROM pg_catalog.pg_namespace n")]


def find_roots(connection: Connection, wanted: Sequence[DroppedObject]) -> list[Root]:
    """The dump's objects that exist in the target."""
    by_kind: dict[tuple[str, str], list[DroppedObject]] = defaultdict(list)
    for drop in wanted:
        by_kind[_catalog(drop.kind)].append(drop)
        if drop.kind in drop_section.RELATIONS:  # its row type needs the name too
            by_kind["pg_type", "typ"].append(drop)
    found: list[tuple[DroppedObject, Address, str | None, bool, str]] = []
    for (catalog, prefix), group in by_kind.items():
        found += [item for item in _find(connection, catalog, prefix, group) if catalog != "pg_type" or _in_the_way(item[0], item[4])]
    names = identities(connection, [address for _, address, *_ in found])
    roots: dict[Address, Root] = {}
    for drop, address, owner, owned, kind in found:
        roots.setdefault(address, Root(drop, address, owner, owned, *names[address], kind))
    return list(roots.values())


def _in_the_way(drop: DroppedObject, kind: str) -> bool:
    """Whether a type occupies the name: an array type gives way by itself, and a row type is found
    as its relation."""
    return kind != "array" and not (drop.kind in drop_section.RELATIONS and kind.startswith("c"))


def _catalog(kind: str) -> tuple[str, str]:
    if kind in drop_section.ROUTINES:
        return "pg_proc", "pro"
    others = {"LARGE OBJECT": ("pg_largeobject", ""), "OPERATOR": ("pg_operator", "")}
    return _SCHEMA_KINDS.get(kind) or _GLOBAL_KINDS.get(kind) or others.get(kind, ("", ""))


def _find(
    connection: Connection, catalog: str, prefix: str, group: list[DroppedObject]
) -> Iterable[tuple[DroppedObject, Address, str | None, bool, str]]:
    parameters: dict[str, list[str]] = {"schemas": [d.schema for d in group], "names": [d.name for d in group]}
    if catalog == "":
        texts = {drop_section.normalized(text): (classid, oid) for classid, oid, text in connection.execute(_OTHERS)}
        return [(d, texts[drop_section.normalized(d.name)], None, True, "") for d in group if drop_section.normalized(d.name) in texts]
    if catalog == "pg_proc":
        return _routines(connection.execute(_ROUTINES, parameters).fetchall(), group)
    if catalog == "pg_largeobject":
        query = _LARGE_OBJECTS
    elif catalog == "pg_operator":
        query = _OPERATORS
    else:
        owner = "NULL::oid" if catalog in _OWNERLESS else f"c.{prefix}owner"
        in_schema = (catalog, prefix) in _SCHEMA_KINDS.values()
        query = _FIND.format(
            catalog=catalog,
            prefix=prefix,
            owner=owner,
            role="r.rolname",
            member="true" if catalog in _OWNERLESS else f"pg_catalog.pg_has_role({owner}, 'USAGE')",
            kind=_SUBKIND.get(catalog, "''"),
            namespace=f"JOIN pg_catalog.pg_namespace ns ON ns.oid = c.{prefix}namespace AND ns.nspname = u.s" if in_schema else "",
        )
    return [
        (group[i - 1], (classid, oid), role, bool(owned), kind)
        for i, classid, oid, _, role, owned, kind in connection.execute(query, parameters)
        if catalog not in _SHARED_NAMES or kind == drop_section.argument_list(group[i - 1].rest)
    ]


def _routines(
    rows: list[tuple[int, int, int, int, str, bool, str, list[str]]], group: list[DroppedObject]
) -> list[tuple[DroppedObject, Address, str | None, bool, str]]:
    """Found by their arguments as the server writes them, or by the types of these: routines with
    the same types are the same, whatever their parameters are called. Other routines with that name
    stay.
    """
    return [
        (group[i - 1], (classid, oid), role, owned, "")
        for i, classid, oid, _, role, owned, text, types in rows
        if drop_section.argument_list(text) == (wanted := drop_section.argument_list(group[i - 1].rest)) or drop_section.takes_types(wanted, types)
    ]


def identities(connection: Connection, addresses: list[Address]) -> dict[Address, tuple[str, str]]:
    rows = connection.execute(
        "SELECT c, o, i.type, coalesce(i.identity, o::text) FROM unnest(%s::oid[], %s::oid[]) u(c, o),"
        " LATERAL pg_catalog.pg_identify_object(c, o, 0) i",
        ([a[0] for a in addresses], [a[1] for a in addresses]),
    )
    return {(classid, oid): (kind, name) for classid, oid, kind, name in rows}
