"""Finds what is dropped with the target's objects that a dump replaces, in which order, and what
forbids it. Reads catalogs, changes nothing.

These are PostgreSQL's own rules: parts of an object (dependency types a, i, P, S) are dropped with
it; any other object that needs it (n) forbids the DROP. CASCADE is never used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.restore.target import Address, Root

_MEMBERS = """
WITH RECURSIVE roots AS (SELECT c AS classid, o AS objid FROM unnest(%(classes)s::oid[], %(objects)s::oid[]) r(c, o)),
member(rc, ro, classid, objid) AS (
  SELECT classid, objid, classid, objid FROM roots
  UNION
  SELECT m.rc, m.ro, d.classid, d.objid FROM member m JOIN pg_catalog.pg_depend d ON d.refclassid = m.classid AND d.refobjid = m.objid
  WHERE d.deptype IN ('a', 'i', 'P', 'S')
)
SELECT rc, ro, classid, objid FROM member
"""
_DEPENDANTS = """
SELECT DISTINCT d.classid, d.objid, d.objsubid, d.refclassid, d.refobjid, coalesce(w.ev_class, 0)
FROM (SELECT c AS classid, o AS objid FROM unnest(%(classes)s::oid[], %(objects)s::oid[]) r(c, o)) m
JOIN pg_catalog.pg_depend d ON d.refclassid = m.classid AND d.refobjid = m.objid AND d.deptype IN ('n', 'e')
LEFT JOIN pg_catalog.pg_rewrite w ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND w.oid = d.objid
"""


_KEYS = """
SELECT c.oid, c.conrelid::regclass::text, pg_catalog.quote_ident(c.conname), pg_catalog.pg_get_constraintdef(c.oid),
       pg_catalog.obj_description(c.oid, 'pg_constraint'), r.rolname, pg_catalog.pg_has_role(t.relowner, 'USAGE'), t.oid
FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_class t ON t.oid = c.conrelid JOIN pg_catalog.pg_roles r ON r.oid = t.relowner
WHERE c.oid = ANY(%s::oid[]) AND c.contype = 'f' AND c.conparentid = 0
ORDER BY 2, 3
"""
_ALL_KEYS = "SELECT oid FROM pg_catalog.pg_constraint WHERE oid = ANY(%s::oid[]) AND contype = 'f'"
_PARTITIONS = """
SELECT oid::regclass::text FROM pg_catalog.pg_class
WHERE oid = ANY(%s::oid[]) AND NOT oid = ANY(%s::oid[]) AND relispartition AND relkind IN ('r', 'p', 'f')
ORDER BY 1
"""
_PUBLISHED = """
SELECT DISTINCT p.pubname || ' (' || o.rolname || ')' FROM pg_catalog.pg_publication_rel r
JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid JOIN pg_catalog.pg_roles o ON o.oid = p.pubowner
WHERE r.prrelid = ANY(%s::oid[]) AND NOT p.oid = ANY(%s::oid[]) AND NOT pg_catalog.pg_has_role(p.pubowner, 'USAGE')
ORDER BY 1
"""
_SUBSCRIBED = """
SELECT DISTINCT pg_catalog.pg_describe_object('pg_catalog.pg_subscription'::regclass, srsubid, 0) || ' fills table ' || srrelid::regclass::text
FROM pg_catalog.pg_subscription_rel WHERE srrelid = ANY(%s::oid[]) ORDER BY 1
"""
_DESCRIBE = """
SELECT pg_catalog.pg_describe_object(c, o, s), pg_catalog.pg_describe_object(rc, ro, 0)
FROM unnest(%s::oid[], %s::oid[], %s::int[], %s::oid[], %s::oid[]) u(c, o, s, rc, ro)
"""
_CLASSES = "SELECT 'pg_catalog.pg_class'::regclass::oid, 'pg_catalog.pg_constraint'::regclass::oid"


@dataclass(frozen=True, slots=True)
class Dependant:
    """An object outside the dump, and the object to be replaced that it needs: `view public.v`,
    `table public.t`."""

    description: str
    needs: str


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """`definition` is that of pg_get_constraintdef, with NOT VALID and deferrability."""

    table: str
    name: str
    definition: str
    comment: str | None
    owner: str
    owned: bool
    table_oid: int


@dataclass(frozen=True, slots=True)
class Replaced:
    """All objects that replacing `roots` touches. `members`: each object that is dropped -> the
    roots that it is dropped with. `edges`: (dependant, needed) among members, without foreign
    keys."""

    roots: tuple[Root, ...] = ()
    members: dict[Address, set[Address]] = field(default_factory=dict)
    edges: tuple[tuple[Address, Address], ...] = ()
    outside: tuple[Dependant, ...] = ()
    partitions: tuple[str, ...] = ()
    """Partitions that the dump lacks: they would be dropped, silently, with their replaced
    parent."""
    foreign_keys: tuple[ForeignKey, ...] = ()
    """Foreign keys of tables that stay, onto replaced ones."""
    own_keys: tuple[ForeignKey, ...] = ()
    """Foreign keys of replaced tables."""
    relations: tuple[int, ...] = ()
    """Oids of the relations among the members: tables, indexes, sequences, views, without TOAST."""
    publications: tuple[str, ...] = ()
    """Publications (and their owners) that contain replaced tables, and to which the user could not
    add them again."""
    subscriptions: tuple[str, ...] = ()
    """Subscriptions, and the replaced tables that each fills: it would silently stop filling
    them."""


def examine(connection: Connection, roots: Sequence[Root]) -> Replaced:
    """All objects that replacing `roots` touches."""
    if not roots:
        return Replaced()
    row = connection.execute(_CLASSES).fetchone() or (0, 0)
    class_class, constraint_class = row[0], row[1]
    members: dict[Address, set[Address]] = {}
    for root_class, root_object, classid, objid in connection.execute(_MEMBERS, _arrays(root.address for root in roots)):
        members.setdefault((classid, objid), set()).add((root_class, root_object))
    needs = connection.execute(_DEPENDANTS, _arrays(members)).fetchall()
    constraints = [objid for classid, objid in {(row[0], row[1]) for row in needs} | set(members) if classid == constraint_class]
    keys = {oid for (oid,) in connection.execute(_ALL_KEYS, (constraints,))}
    edges: list[tuple[Address, Address]] = []
    outside: dict[Address, list[tuple[bool, int, Address]]] = {}
    foreign: list[int] = []
    for classid, objid, column, needed_class, needed_object, view in needs:
        dependant, needed = (classid, objid), (needed_class, needed_object)
        if classid == constraint_class and objid in keys:
            if dependant not in members:
                foreign.append(objid)
        elif dependant in members:
            edges.append((dependant, needed))
        else:
            owner = (class_class, view) if view else dependant
            outside.setdefault(owner, []).append((needed_class != class_class, column, needed))
    relations = [objid for classid, objid in members if classid == class_class]
    root_relations = [root.address[1] for root in roots if root.address[0] == class_class]
    return Replaced(
        roots=tuple(roots),
        members=members,
        edges=tuple(edges),
        outside=_describe(connection, outside),
        partitions=tuple(name for (name,) in connection.execute(_PARTITIONS, (relations, root_relations))),
        foreign_keys=_foreign_keys(connection, foreign),
        own_keys=_foreign_keys(connection, [oid for oid in keys if (constraint_class, oid) in members]),
        relations=tuple(relations),
        publications=tuple(name for (name,) in connection.execute(_PUBLISHED, (relations, [root.address[1] for root in roots]))),
        subscriptions=tuple(name for (name,) in connection.execute(_SUBSCRIBED, (relations,))),
    )


def _arrays(addresses: Iterable[Address]) -> dict[str, list[int]]:
    pairs = list(addresses)
    return {"classes": [pair[0] for pair in pairs], "objects": [pair[1] for pair in pairs]}


def _describe(connection: Connection, outside: dict[Address, list[tuple[bool, int, Address]]]) -> tuple[Dependant, ...]:
    """Reports one need of each object, the plainest: on a relation, by the object as a whole."""
    rows = [(*dependant, column, *needed) for dependant, needs in outside.items() for _, column, needed in [min(needs)]]
    columns = [list(values) for values in zip(*rows, strict=True)] or [[]] * 5
    return tuple(sorted((Dependant(*texts) for texts in connection.execute(_DESCRIBE, columns)), key=lambda d: d.description))


def _foreign_keys(connection: Connection, oids: Iterable[int]) -> tuple[ForeignKey, ...]:
    return tuple(ForeignKey(*row[1:]) for row in connection.execute(_KEYS, (list(oids),)))
