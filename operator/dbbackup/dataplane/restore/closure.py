"""Finds all that PostgreSQL drops with the target's objects that a restore replaces, and what
forbids it. Reads catalogs, changes nothing.

The closure is that of DROP ... CASCADE. Of it may go: the roots, what is a part of them alone
(dependency types a, i, P, S, x), and foreign keys of tables that stay, which come back. All else
forbids the restore.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.restore.names_in_use import MadeName, names_in_use
from dbbackup.dataplane.restore.roots import Address, HeldObject, Roots

_LINKED = """
linked(objid, refobjid) AS MATERIALIZED (
  SELECT o.oid, r.oid FROM pg_catalog.pg_operator o CROSS JOIN LATERAL (VALUES (o.oprcom), (o.oprnegate)) r(oid)
  WHERE o.oid >= 16384 AND o.oprcode <> 0 AND r.oid NOT IN (0, o.oid) AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass AND e.objid = o.oid AND e.deptype = 'e')
)
"""
"""Operators, and those that they name as their commutator or negator. DROP OPERATOR takes that out,
and nothing in pg_depend says so."""
_CLOSURE = f"""
WITH RECURSIVE {_LINKED},
root(classid, objid) AS MATERIALIZED (SELECT c, o FROM unnest(%(classes)s::oid[], %(objects)s::oid[]) r(c, o)),
closure(classid, objid, objsubid) AS (
  SELECT classid, objid, 0 FROM root
  UNION
  SELECT x.classid, x.objid, x.objsubid FROM closure c CROSS JOIN LATERAL (
    SELECT d.classid, d.objid, d.objsubid FROM pg_catalog.pg_depend d
    WHERE d.refclassid = c.classid AND d.refobjid = c.objid AND (c.objsubid = 0 OR d.refobjsubid = c.objsubid)
    UNION ALL
    SELECT d.refclassid, d.refobjid, d.refobjsubid FROM pg_catalog.pg_depend d
    WHERE d.classid = c.classid AND d.objid = c.objid AND (c.objsubid = 0 OR d.objsubid = c.objsubid) AND d.deptype = 'i'
    UNION ALL
    SELECT c.classid, l.objid, 0 FROM linked l WHERE c.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass AND c.objid = l.refobjid
  ) x
),
guest(classid, objid, refclassid, refobjid) AS MATERIALIZED (
  SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass::oid, oid, 'pg_catalog.pg_class'::pg_catalog.regclass::oid, tgconstrrelid
  FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgconstrrelid <> tgrelid
  UNION ALL
  SELECT d.classid, d.objid, d.refclassid, d.refobjid
  FROM (SELECT 'pg_catalog.pg_amop'::pg_catalog.regclass::oid, oid, amopfamily FROM pg_catalog.pg_amop
        UNION ALL SELECT 'pg_catalog.pg_amproc'::pg_catalog.regclass, oid, amprocfamily FROM pg_catalog.pg_amproc) m(classid, objid, family)
  JOIN pg_catalog.pg_depend d USING (classid, objid)
  WHERE d.refclassid NOT IN ('pg_catalog.pg_opclass'::pg_catalog.regclass, 'pg_catalog.pg_opfamily'::pg_catalog.regclass)
    AND m.family >= 16384 AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_opfamily'::pg_catalog.regclass AND e.objid = m.family AND e.deptype = 'e')
),
part(classid, objid) AS (
  SELECT classid, objid FROM root
  UNION
  SELECT d.classid, d.objid FROM part p JOIN pg_catalog.pg_depend d ON d.refclassid = p.classid AND d.refobjid = p.objid
  WHERE d.deptype IN ('a', 'i', 'P', 'S', 'x') AND d.objsubid = 0 AND d.classid <> 'pg_catalog.pg_opclass'::pg_catalog.regclass
    AND (d.classid, d.objid, d.refclassid, d.refobjid) NOT IN (SELECT * FROM guest)
    AND NOT (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND EXISTS (
      SELECT FROM pg_catalog.pg_class r WHERE r.oid = d.objid AND r.relkind IN ('r', 'p', 'v', 'm', 'f')))
),
state(classid, objid, objsubid, state) AS (
  SELECT c.classid, c.objid, c.objsubid,
         CASE WHEN p.objid IS NOT NULL OR o.oid IS NOT NULL THEN 'part' WHEN k.oid IS NOT NULL OR g.oid IS NOT NULL THEN 'key' ELSE 'outside' END
  FROM closure c LEFT JOIN part p USING (classid, objid)
    LEFT JOIN pg_catalog.pg_operator o ON c.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass AND o.oid = c.objid AND o.oprcode = 0
    LEFT JOIN pg_catalog.pg_constraint k ON c.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid = c.objid AND k.contype = 'f'
    LEFT JOIN pg_catalog.pg_trigger t ON c.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid = c.objid AND t.tgisinternal
    LEFT JOIN pg_catalog.pg_constraint g ON g.oid = t.tgconstraint AND g.contype = 'f'
)
SELECT classid::bigint, state, pg_catalog.array_agg(objid::bigint), pg_catalog.array_agg(objsubid) FROM state GROUP BY 1, 2
"""  # noqa: S608 - constants only
"""An operator without a function is only a name that another operator mentions: it goes with its
types, and that other operator makes it again.

`guest`: the automatic dependencies of what is a part of something else. A constraint trigger is one
of its table, not of the table after FROM, and a loose member is one of its operator family. Members
of the system's and of extensions' families are in no dump, so they do not hold up a restore."""
_WHY = f"""
WITH {_LINKED},
depend(classid, objid, objsubid, refclassid, refobjid, deptype) AS NOT MATERIALIZED (
  SELECT classid, objid, objsubid, refclassid, refobjid, deptype FROM pg_catalog.pg_depend
  UNION ALL
  SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, objid, 0, 'pg_catalog.pg_operator'::pg_catalog.regclass, refobjid, 'n' FROM linked
)
SELECT d.classid::bigint, d.objid::bigint, d.objsubid, d.refclassid::bigint, d.refobjid::bigint, d.deptype IN ('a', 'i', 'P', 'S'),
       coalesce(w.ev_class, 0)::bigint
FROM unnest(%(classes)s::oid[], %(objects)s::oid[], %(columns)s::int[]) n(c, o, s)
JOIN depend d ON d.classid = n.c AND d.objid = n.o AND (n.s = 0 OR d.objsubid = n.s)
LEFT JOIN pg_catalog.pg_rewrite w ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND w.oid = d.objid AND w.rulename = '_RETURN'
"""  # noqa: S608 - constants only
_KEYS = """
SELECT c.conrelid::pg_catalog.regclass::text, pg_catalog.quote_ident(c.conname), pg_catalog.pg_get_constraintdef(c.oid),
       pg_catalog.obj_description(c.oid, 'pg_constraint'), r.rolname, pg_catalog.pg_has_role(t.relowner, 'USAGE'), t.oid::bigint,
       c.confrelid::pg_catalog.regclass::text
FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_class t ON t.oid = c.conrelid JOIN pg_catalog.pg_roles r ON r.oid = t.relowner
WHERE c.oid = ANY(%s::oid[]) AND c.conparentid = 0
ORDER BY 1, 2
"""
_PARTITIONS = """
SELECT oid::bigint, oid::pg_catalog.regclass::text FROM pg_catalog.pg_class
WHERE oid = ANY(%s::oid[]) AND relispartition AND relkind IN ('r', 'p', 'f')
ORDER BY 2
"""
_PUBLISHED = """
SELECT DISTINCT p.pubname || ' (' || o.rolname || ')' FROM pg_catalog.pg_publication_rel r
JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid JOIN pg_catalog.pg_roles o ON o.oid = p.pubowner
WHERE r.prrelid = ANY(%s::oid[]) AND NOT p.oid = ANY(%s::oid[]) AND NOT pg_catalog.pg_has_role(p.pubowner, 'USAGE')
ORDER BY 1
"""
_SUBSCRIBED = """
SELECT DISTINCT pg_catalog.pg_describe_object('pg_catalog.pg_subscription'::pg_catalog.regclass, srsubid, 0)
       || ' fills table ' || srrelid::pg_catalog.regclass::text
FROM pg_catalog.pg_subscription_rel WHERE srrelid = ANY(%s::oid[]) ORDER BY 1
"""
_CLOSED_MAPPINGS = """
SELECT 'user mapping for ' || m.usename || ' on server ' || m.srvname
FROM pg_catalog.pg_user_mappings m JOIN pg_catalog.pg_foreign_server s ON s.oid = m.srvid
WHERE m.umid = ANY(%s::oid[]) AND NOT (
  (m.umuser <> 0 AND m.usename = CURRENT_USER
    AND (pg_catalog.pg_has_role(s.srvowner, 'USAGE') OR pg_catalog.has_server_privilege(s.oid, 'USAGE')))
  OR (m.umuser = 0 AND pg_catalog.pg_has_role(s.srvowner, 'USAGE'))
  OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER))
ORDER BY 1
"""
"""The view's own rule about whose options a user may see."""
_DESCRIBE = """
SELECT pg_catalog.pg_describe_object(c, o, s), pg_catalog.pg_describe_object(rc, ro, 0)
FROM unnest(%s::oid[], %s::oid[], %s::int[], %s::oid[], %s::oid[]) u(c, o, s, rc, ro)
"""
_CLASSES = "SELECT relname::text, oid::bigint FROM pg_catalog.pg_class WHERE relnamespace = 'pg_catalog'::pg_catalog.regnamespace"

Node = tuple[int, int, int]
"""(oid of the system catalog, oid of the object, number of its column or 0), as in pg_depend."""


@dataclass(frozen=True, slots=True)
class Dependant:
    """An object outside the dump, and the object that it needs and that would go: `view public.v`,
    `table public.t`. `indirect`: that object is outside the dump too."""

    description: str
    needs: str
    indirect: bool = False


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
    onto: str = ""
    """The table that it refers to."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """All that replacing `roots` touches. `gone`: oid of a system catalog -> oids of the objects
    that are dropped. `misfits` have the name of an object of the artifact, and cannot go."""

    roots: tuple[HeldObject, ...] = ()
    misfits: tuple[str, ...] = ()
    gone: Mapping[int, frozenset[int]] = field(default_factory=dict)
    outside: tuple[Dependant, ...] = ()
    partitions: tuple[str, ...] = ()
    """Partitions that the dump lacks: they would be dropped, silently, with their replaced
    parent."""
    foreign_keys: tuple[ForeignKey, ...] = ()
    """Foreign keys of tables that stay, onto replaced ones."""
    relations: tuple[int, ...] = ()
    """Oids of the relations that are dropped: tables, indexes, sequences, views, TOAST."""
    publications: tuple[str, ...] = ()
    """Publications (and their owners) that contain replaced tables, and to which the user could not
    add them again."""
    subscriptions: tuple[str, ...] = ()
    """Subscriptions, and the replaced tables that each fills: it would silently stop filling
    them."""
    closed_mappings: tuple[str, ...] = ()
    """User mappings whose options the user may not see, so that they could not be saved."""
    emptied_mappings: tuple[str, ...] = ()
    """User mappings whose options the artifact lacks, as its backup's user might not see them."""

    @property
    def size(self) -> int:
        return sum(len(oids) for oids in self.gone.values())


def examine(connection: Connection, roots: Roots, made: Iterable[MadeName]) -> Replaced:
    """All that replacing `roots` touches, by objects with the names `made`."""
    if not roots.objects:
        return Replaced(misfits=_misfits(connection, roots, made, {}))
    classes: dict[str, int] = dict(connection.execute(_CLASSES).fetchall())
    states: dict[str, dict[int, list[Node]]] = {"part": {}, "key": {}, "outside": {}}
    for classid, state, objects, columns in connection.execute(_CLOSURE, _arrays(root.address for root in roots.objects)):
        states[state][classid] = [(classid, objid, column) for objid, column in zip(objects, columns, strict=True)]
    gone = {
        classid: frozenset(objid for state in ("part", "key") for _, objid, _ in states[state].get(classid, ()))
        for classid in {*states["part"], *states["key"]}
    }
    relations = list(gone.get(classes["pg_class"], ()))
    outside = [node for nodes in states["outside"].values() for node in nodes]
    partitions = connection.execute(_PARTITIONS, ([objid for classid, objid, _ in outside if classid == classes["pg_class"]],)).fetchall()
    named = {(classes["pg_class"], oid) for oid, _ in partitions}
    keys = [objid for _, objid, _ in states["key"].get(classes["pg_constraint"], ())]
    published = (relations, list(gone.get(classes["pg_publication"], ())))
    return Replaced(
        roots=roots.objects,
        misfits=_misfits(connection, roots, made, gone),
        gone=gone,
        outside=_describe(connection, choose_needs(_why(connection, outside), gone, classes["pg_class"]), named),
        partitions=tuple(name for _, name in partitions),
        foreign_keys=tuple(ForeignKey(*row) for row in connection.execute(_KEYS, (keys,))),
        relations=tuple(relations),
        publications=tuple(name for (name,) in connection.execute(_PUBLISHED, published)),
        subscriptions=tuple(name for (name,) in connection.execute(_SUBSCRIBED, (relations,))),
        closed_mappings=tuple(name for (name,) in connection.execute(_CLOSED_MAPPINGS, (list(gone.get(classes["pg_user_mapping"], ())),))),
    )


def _misfits(connection: Connection, roots: Roots, made: Iterable[MadeName], gone: Mapping[int, frozenset[int]]) -> tuple[str, ...]:
    inner = (text for (classid, objid), text in roots.inner.items() if objid not in gone.get(classid, ()))
    return (*roots.misfits.values(), *inner, *names_in_use(connection, made, gone, roots.misfits))


@dataclass(frozen=True, slots=True)
class Need:
    """One row of pg_depend of an object outside the dump. `part`: it is a part of what it needs.
    `view`: the oid of the view whose rule it is, or 0."""

    node: Node
    needed: Address
    part: bool
    view: int


def _why(connection: Connection, outside: Sequence[Node]) -> list[Need]:
    columns = [list(values) for values in zip(*outside, strict=True)] or [[]] * 3
    rows = connection.execute(_WHY, dict(zip(("classes", "objects", "columns"), columns, strict=True)))
    return [Need((classid, objid, column), (refclass, refobject), part, view) for classid, objid, column, refclass, refobject, part, view in rows]


def choose_needs(needs: Sequence[Need], gone: Mapping[int, frozenset[int]], class_class: int) -> dict[Node, tuple[Address, bool]]:
    """Object outside the dump -> what it needs that would go, and whether that is outside the dump
    too. Parts of objects outside the dump are left out, and the plainest need is chosen: of a
    relation, by the object as a whole. Pure.
    """
    outside = {need.node[:2] for need in needs}
    parts = {need.node[:2] for need in needs if need.part and need.needed in outside and need.needed != need.node[:2] and not need.view}
    chosen: dict[Node, tuple[bool, bool, int, Address]] = {}
    for need in needs:
        direct = need.needed[1] in gone.get(need.needed[0], ())
        node = (class_class, need.view, 0) if need.view else need.node
        if (not direct and (need.needed not in outside or need.node[:2] in parts)) or need.needed == node[:2]:
            continue
        rank = (not direct, need.needed[0] != class_class, need.node[2], need.needed)
        chosen[node] = min(chosen.get(node, rank), rank)
    return {node: (needed, indirect) for node, (indirect, _, _, needed) in chosen.items()}


def _describe(connection: Connection, needs: Mapping[Node, tuple[Address, bool]], named: set[Address]) -> tuple[Dependant, ...]:
    rows = [(*node, *needed, indirect) for node, (needed, indirect) in needs.items() if node[:2] not in named]
    columns = [list(values) for values in zip(*rows, strict=True)] or [[]] * 6
    texts = connection.execute(_DESCRIBE, columns[:5]).fetchall()
    found = [Dependant(text[0], text[1], indirect) for text, indirect in zip(texts, columns[5], strict=True)]
    return tuple(sorted(found, key=lambda dependant: (dependant.indirect, dependant.description)))


def _arrays(addresses: Iterable[Address]) -> dict[str, list[int]]:
    pairs = list(addresses)
    return {"classes": [pair[0] for pair in pairs], "objects": [pair[1] for pair in pairs]}
