"""Finds the target's own objects, and which of them a restore replaces. Reads catalogs, changes
nothing.

An object is known by its key: system catalog, names and arguments, as
pg_identify_object_as_address returns them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dbbackup.contract.catalog import CatalogObject, ObjectKey
from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.text import presentable

Address = tuple[int, int]
"""(oid of the system catalog, oid of the object), as pg_depend names objects."""

FIRST_USER_OID = 16384
NEVER_DROPPED = frozenset({"pg_namespace", "pg_extension", "pg_default_acl"})
"""System catalogs whose objects are made where they are missing, and never replaced."""

_OWNED = {
    "pg_proc": "pro", "pg_operator": "opr", "pg_opclass": "opc", "pg_opfamily": "opf", "pg_collation": "coll", "pg_conversion": "con",
    "pg_ts_dict": "dict", "pg_ts_config": "cfg", "pg_language": "lan", "pg_foreign_data_wrapper": "fdw", "pg_foreign_server": "srv",
    "pg_event_trigger": "evt", "pg_publication": "pub",
}  # fmt: skip
_SUPERUSERS = ("pg_ts_parser", "pg_ts_template", "pg_am")
_WITHOUT_OWNER = frozenset({"pg_cast", "pg_transform", "pg_user_mapping"})
_TYPE_OWNERS = "ARRAY(SELECT typowner FROM pg_catalog.pg_type WHERE oid IN ({}))"
_RELATIONS = "pg_catalog.pg_class x WHERE x.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND x.relpersistence <> 't'"
_TYPES = """pg_catalog.pg_type x WHERE x.typtype <> 'm' AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = x.oid)
  AND (x.typrelid = 0 OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = x.typrelid AND c.relkind = 'c'))"""
_MAPPINGS = "pg_catalog.pg_user_mappings x JOIN pg_catalog.pg_foreign_server s ON s.oid = x.srvid"
_KINDS = (
    ("pg_class", "x.oid", "ARRAY[x.relowner]", _RELATIONS),
    ("pg_type", "x.oid", "ARRAY[x.typowner]", _TYPES),
    *((catalog, "x.oid", f"ARRAY[x.{prefix}owner]", f"pg_catalog.{catalog} x") for catalog, prefix in _OWNED.items()),
    *((catalog, "x.oid", "'{}'::oid[]", f"pg_catalog.{catalog} x") for catalog in _SUPERUSERS),
    ("pg_cast", "x.oid", _TYPE_OWNERS.format("x.castsource, x.casttarget"), "pg_catalog.pg_cast x"),
    ("pg_transform", "x.oid", _TYPE_OWNERS.format("x.trftype"), "pg_catalog.pg_transform x"),
    ("pg_user_mapping", "x.umid", "ARRAY[s.srvowner, nullif(x.umuser, 0)]", _MAPPINGS),
    ("pg_largeobject", "x.oid", "ARRAY[x.lomowner]", "pg_catalog.pg_largeobject_metadata x"),
)
"""System catalog, oid, the roles each of which may drop an object (none: superusers), source."""
_ROUTINE = """pg_catalog.format('%I.%I(%s)', a.object_names[1], a.object_names[2],
           coalesce(nullif(pg_catalog.pg_get_function_identity_arguments(h.objid), ''), '{}'))"""
"""With the modes of the parameters: without them a procedure may be taken for another one."""
_HELD = f"""
WITH held(classid, objid, owners) AS (
{" UNION ALL ".join(f"SELECT 'pg_catalog.{c}'::pg_catalog.regclass::oid, {oid}, {owners} FROM {source}" for c, oid, owners, source in _KINDS)}
)
SELECT h.classid::bigint, c.relname::text, h.objid::bigint, a.type, a.object_names, a.object_args, i.identity,
       CASE a.type
         WHEN 'function' THEN {_ROUTINE.format("")}
         WHEN 'procedure' THEN {_ROUTINE.format("")}
         WHEN 'aggregate' THEN {_ROUTINE.format("*")}
         WHEN 'transform' THEN 'FOR ' || a.object_names[1] || ' LANGUAGE ' || pg_catalog.quote_ident(a.object_args[1])
         WHEN 'user mapping' THEN 'FOR ' || CASE a.object_names[1] WHEN 'public' THEN 'PUBLIC' ELSE pg_catalog.quote_ident(a.object_names[1]) END
           || ' SERVER ' || pg_catalog.quote_ident(a.object_args[1])
         ELSE i.identity END,
       r.rolname::text,
       (SELECT pg_catalog.bool_or(pg_catalog.pg_has_role(o, 'USAGE')) FROM pg_catalog.unnest(h.owners) o)
         IS TRUE OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER),
       coalesce(d.deptype::text, '')
FROM held h JOIN pg_catalog.pg_class c ON c.oid = h.classid
  CROSS JOIN LATERAL pg_catalog.pg_identify_object_as_address(h.classid, h.objid, 0) a
  CROSS JOIN LATERAL pg_catalog.pg_identify_object(h.classid, h.objid, 0) i
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = h.owners[1]
  LEFT JOIN LATERAL (SELECT deptype FROM pg_catalog.pg_depend
    WHERE classid = h.classid AND objid = h.objid AND objsubid = 0 AND deptype IN ('e', 'i') ORDER BY deptype LIMIT 1) d ON true
WHERE (h.objid >= {FIRST_USER_OID} OR c.relname = 'pg_largeobject') AND a.type IS NOT NULL
"""  # noqa: S608 - constants only


@dataclass(frozen=True, slots=True)
class HeldObject:
    """One object of the target. `drop` is what DROP calls it. `owned`: the user may drop it.
    `belongs`: `e` to an extension, `i` to another object, whose inner part it is."""

    address: Address
    catalog: str
    type: str
    """As pg_identify_object returns it: `materialized view`."""
    names: tuple[str, ...]
    args: tuple[str, ...]
    identity: str
    """Qualified, and quoted where necessary."""
    drop: str
    owner: str | None
    owned: bool
    belongs: str = ""

    @property
    def owner_again(self) -> str | None:
        """Who must own what the restore makes in its place. A cast has no owner: `owner` is that of
        a type of its."""
        return None if self.catalog in _WITHOUT_OWNER else self.owner

    @property
    def key(self) -> ObjectKey:
        """As the artifact's catalog has it."""
        return self.catalog, tuple(map(presentable, self.names)), tuple(map(presentable, self.args))

    @property
    def text(self) -> str:
        return f"{self.type} {self.identity}"


@dataclass(frozen=True, slots=True)
class Roots:
    """The target's objects that are replaced. `misfits` are those that have the key of an object of
    the artifact and cannot be replaced by it, each with the reason; `inner` are misfits too, unless
    they go with the range type that they construct."""

    objects: tuple[HeldObject, ...] = ()
    misfits: Mapping[Address, str] = field(default_factory=dict)
    inner: Mapping[Address, str] = field(default_factory=dict)


def held_objects(connection: Connection) -> list[HeldObject]:
    """All objects of the target that have a name of their own, except schemas, extensions, default
    privileges and temporary relations."""
    return [
        HeldObject((classid, objid), catalog, kind, tuple(names), tuple(args), identity, drop, owner, owned, belongs)
        for classid, catalog, objid, kind, names, args, identity, drop, owner, owned, belongs in connection.execute(_HELD.encode())
    ]


def choose_roots(held: Iterable[HeldObject], wanted: Mapping[ObjectKey, str]) -> Roots:
    """`wanted`: the key of each object that the artifact makes -> its type there. Pure."""
    roots: list[HeldObject] = []
    misfits: dict[Address, str] = {}
    inner: dict[Address, str] = {}
    for found in held:
        kind = wanted.get(found.key)
        if kind is None:
            continue
        if found.type != kind:
            misfits[found.address] = f"{found.text} has the same name as a {kind} in the artifact, but is of another kind"
        elif found.belongs == "e":
            misfits[found.address] = f"{found.text} has the same name as a {kind} in the artifact, but belongs to an extension"
        elif not found.belongs:
            roots.append(found)
        elif found.catalog == "pg_proc":
            inner[found.address] = f"{found.text} has the same name as a {kind} in the artifact, but belongs to a range type"
    return Roots(tuple(roots), misfits, inner)


def wanted_keys(objects: Iterable[CatalogObject]) -> dict[ObjectKey, str]:
    """The keys of all objects that a dump makes and that stand for themselves, with their types.

    Sequences count, also those that belong to a table: in the target they may not.
    """
    wanted: dict[ObjectKey, str] = {}
    for held in objects:
        if held.outside or held.catalog in NEVER_DROPPED or not (held.of is None or held.type == "sequence"):
            continue
        if held.oids:
            wanted.update({(held.catalog, (str(oid),), ()): held.type for oid in held.oids})
        else:
            wanted[held.key] = held.type
    return wanted
