"""Gives a replaced object, in the same transaction, the owner, privileges and publications of the
object that it replaced.

Privileges are compared: those that only the new object grants (by default privileges of the target)
are revoked, those that it lacks are granted. Only objects that were replaced are touched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.restore.roots import FIRST_USER_OID, Address

_OBJECTS = """
SELECT 'pg_class'::regclass::oid, c.oid, c.relowner::regrole::text, c.relowner, c.relacl, CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END,
       CASE WHEN c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
         AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')) THEN '' ELSE 'owner' END
FROM pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
UNION ALL SELECT 'pg_proc'::regclass, oid, proowner::regrole::text, proowner, proacl, 'f', 'owner' FROM pg_proc
UNION ALL SELECT 'pg_type'::regclass, t.oid, typowner::regrole::text, typowner, typacl, 'T', 'owner'
       FROM pg_type t WHERE (typelem = 0 OR typlen <> -1) AND typtype <> 'm'
       AND (typtype <> 'c' OR EXISTS (SELECT FROM pg_class c WHERE c.oid = typrelid AND relkind = 'c'))
UNION ALL SELECT 'pg_foreign_server'::regclass, oid, srvowner::regrole::text, srvowner, srvacl, 'S', 'owner' FROM pg_foreign_server
UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, fdwowner::regrole::text, fdwowner, fdwacl, 'F', 'owner' FROM pg_foreign_data_wrapper
UNION ALL SELECT 'pg_language'::regclass, oid, lanowner::regrole::text, lanowner, lanacl, 'l', 'owner' FROM pg_language
UNION ALL SELECT 'pg_largeobject'::regclass, oid, lomowner::regrole::text, lomowner, lomacl, 'L', 'owner' FROM pg_largeobject_metadata
UNION ALL SELECT 'pg_operator'::regclass, oid, oprowner::regrole::text, oprowner, NULL, '', 'owner' FROM pg_operator
UNION ALL SELECT 'pg_opclass'::regclass, oid, opcowner::regrole::text, opcowner, NULL, '', 'owner' FROM pg_opclass
UNION ALL SELECT 'pg_opfamily'::regclass, oid, opfowner::regrole::text, opfowner, NULL, '', 'owner' FROM pg_opfamily
UNION ALL SELECT 'pg_collation'::regclass, oid, collowner::regrole::text, collowner, NULL, '', 'owner' FROM pg_collation
UNION ALL SELECT 'pg_conversion'::regclass, oid, conowner::regrole::text, conowner, NULL, '', 'owner' FROM pg_conversion
UNION ALL SELECT 'pg_ts_config'::regclass, oid, cfgowner::regrole::text, cfgowner, NULL, '', 'owner' FROM pg_ts_config
UNION ALL SELECT 'pg_ts_dict'::regclass, oid, dictowner::regrole::text, dictowner, NULL, '', 'owner' FROM pg_ts_dict
UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, stxowner::regrole::text, stxowner, NULL, '', 'owner' FROM pg_statistic_ext
UNION ALL SELECT 'pg_publication'::regclass, oid, pubowner::regrole::text, pubowner, NULL, '', 'owner' FROM pg_publication
UNION ALL SELECT 'pg_event_trigger'::regclass, oid, evtowner::regrole::text, evtowner, NULL, '', 'owner' FROM pg_event_trigger
"""
_INVENTORY = f"""
SELECT o.classid, o.objid, i.type, coalesce(i.identity, o.objid::text), o.owner, o.settable = 'owner',
       ARRAY(SELECT ARRAY[CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END, x.privilege_type, x.is_grantable::text,
                          CASE x.grantor WHEN o.ownerid THEN '' ELSE x.grantor::regrole::text END]
             FROM pg_catalog.aclexplode(CASE WHEN o.kind = '' THEN NULL ELSE coalesce(o.acl, pg_catalog.acldefault(o.kind::"char", o.ownerid)) END)
               WITH ORDINALITY x(grantor, grantee, privilege_type, is_grantable, n) ORDER BY x.n),
       CASE i.type WHEN 'procedure' THEN (
         SELECT pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid))
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = o.objid)
       ELSE coalesce(i.identity, o.objid::text) END
FROM ({_OBJECTS}) o(classid, objid, owner, ownerid, acl, kind, settable), LATERAL pg_catalog.pg_identify_object(o.classid, o.objid, 0) i
WHERE (o.objid >= {FIRST_USER_OID} OR o.kind = 'L') AND i.type IS NOT NULL
"""  # noqa: S608
_COLUMNS = f"""
SELECT a.attrelid::regclass::text, pg_catalog.quote_ident(a.attname),
       CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END, x.privilege_type, x.is_grantable,
       CASE x.grantor WHEN c.relowner THEN '' ELSE x.grantor::regrole::text END
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid,
     LATERAL pg_catalog.aclexplode(a.attacl) WITH ORDINALITY x(grantor, grantee, privilege_type, is_grantable, n)
WHERE a.attacl IS NOT NULL AND a.attrelid >= {FIRST_USER_OID} ORDER BY a.attrelid, a.attnum, x.n
"""  # noqa: S608
_PUBLISHED = """
SELECT pg_catalog.quote_ident(p.pubname), p.oid, r.prrelid::regclass::text, r.prrelid, pg_catalog.pg_has_role(p.pubowner, 'USAGE'),
       {columns}, {condition}
FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
"""
_PUBLISHED_COLUMNS = """
(SELECT pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' ORDER BY attnum) FROM pg_catalog.pg_attribute
 WHERE attrelid = r.prrelid AND attnum = ANY(r.prattrs))
"""

_GRANT_ON = {
    "table": "TABLE",
    "view": "TABLE",
    "materialized view": "TABLE",
    "foreign table": "TABLE",
    "sequence": "SEQUENCE",
    "function": "ROUTINE",
    "aggregate": "ROUTINE",
    "procedure": "ROUTINE",
    "type": "TYPE",
    "composite type": "TYPE",
    "server": "FOREIGN SERVER",
    "foreign-data wrapper": "FOREIGN DATA WRAPPER",
    "large object": "LARGE OBJECT",
    "language": "LANGUAGE",
}
_ALTER = {"aggregate": "ROUTINE", "foreign-data wrapper": "FOREIGN DATA WRAPPER", "statistics object": "STATISTICS", "composite type": "TYPE"}

Grant = tuple[str, str, bool, str]
"""(grantee, privilege, with grant option, grantor: empty for the owner)."""
Statement = tuple[str, str]
"""(SQL, the role that must run it: empty for the owner)."""
ObjectKey = tuple[str, str]
"""(type, identity) as pg_identify_object returns them: the same for an object and for the one that
replaces it."""


@dataclass(frozen=True, slots=True)
class ObjectGrants:
    """Owner and privileges of one object. `owner_settable`: False for a sequence that a table owns,
    as its owner is the table's."""

    address: Address
    owner: str
    owner_settable: bool
    grants: tuple[Grant, ...]
    name: str
    """For SQL: of a procedure with the modes of its parameters, without which it may be taken for
    another one."""


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """One table of a publication. `owned`: the user has the privileges of the publication's
    owner."""

    name: str
    oid: int
    table: str
    table_oid: int
    owned: bool
    columns: str | None
    condition: str | None

    @property
    def text(self) -> str:
        return f"table {self.table}{f' ({self.columns})' if self.columns else ''} in publication {self.name}"

    def statement(self) -> str:
        columns = f" ({self.columns})" if self.columns else ""
        return f"ALTER PUBLICATION {self.name} ADD TABLE ONLY {self.table}{columns}" + (f" WHERE {self.condition}" if self.condition else "")


@dataclass(frozen=True, slots=True)
class GrantInventory:
    """Owners and privileges of all user objects, and which table is in which publication."""

    objects: dict[ObjectKey, ObjectGrants] = field(default_factory=dict)
    columns: dict[tuple[str, str], tuple[Grant, ...]] = field(default_factory=dict)
    """(table, column), both quoted."""
    publications: tuple[PublishedTable, ...] = ()


def capture(connection: Connection) -> GrantInventory:
    objects: dict[ObjectKey, ObjectGrants] = {}
    for classid, objid, kind, identity, owner, settable, acl, name in connection.execute(_INVENTORY):
        objects[kind, identity] = ObjectGrants(
            (classid, objid),
            owner,
            settable,
            tuple((grantee, privilege, option == "true", grantor) for grantee, privilege, option, grantor in acl),
            name,
        )
    columns: dict[tuple[str, str], list[Grant]] = defaultdict(list)
    for table, column, *grant in connection.execute(_COLUMNS):
        columns[table, column].append((grant[0], grant[1], grant[2], grant[3]))
    fifteen = connection.info.server_version >= 150000
    query = _PUBLISHED.format(
        columns=_PUBLISHED_COLUMNS if fifteen else "NULL",
        condition="'(' || pg_catalog.pg_get_expr(r.prqual, r.prrelid) || ')'" if fifteen else "NULL",
    )
    published = tuple(PublishedTable(*row) for row in connection.execute(query.encode()))
    return GrantInventory(objects, {key: tuple(grants) for key, grants in columns.items()}, published)


def owner_statements(before: GrantInventory, after: GrantInventory, again: Collection[Address]) -> Iterator[str]:
    """Statements that give replaced objects their owners. Run them, `capture` again, then run those
    of `grant_statements`. Objects in `again` were replaced although their address is the same."""
    for key, old, new in _replaced(before, after, again):
        if old.owner != new.owner and old.owner_settable and new.owner_settable:
            yield f"ALTER {_ALTER.get(key[0], key[0].upper())} {new.name} OWNER TO {old.owner}"


def grant_statements(before: GrantInventory, after: GrantInventory, again: Collection[Address]) -> Iterator[Statement]:
    """Statements that give replaced objects exactly the privileges that they had before."""
    tables = _tables(before, after, again)
    for (kind, _), old, new in _replaced(before, after, again):
        if target := _GRANT_ON.get(kind):
            yield from _difference(f"{target} {new.name}", "", old.grants, new.grants)
    for table, column in sorted(set(before.columns) | set(after.columns)):
        if table in tables:
            key = table, column
            yield from _difference(f"TABLE {table}", f" ({column})", before.columns.get(key, ()), after.columns.get(key, ()))


def lost_publications(before: GrantInventory, after: GrantInventory, again: Collection[Address]) -> Iterator[PublishedTable]:
    """Replaced tables that are no longer in publications that stayed."""
    tables = _tables(before, after, again)
    there = {publication.oid for publication in after.publications} | {
        held.address[1] for (kind, _), held in after.objects.items() if kind == "publication"
    }
    now = {(publication.oid, publication.table) for publication in after.publications}
    for publication in before.publications:
        if publication.table in tables and publication.oid in there and (publication.oid, publication.table) not in now:
            yield publication


def _tables(before: GrantInventory, after: GrantInventory, again: Collection[Address]) -> set[str]:
    kinds = {"table", "view", "materialized view", "foreign table"}
    return {identity for (kind, identity), _, _ in _replaced(before, after, again) if kind in kinds}


def _replaced(before: GrantInventory, after: GrantInventory, again: Collection[Address]) -> Iterator[tuple[ObjectKey, ObjectGrants, ObjectGrants]]:
    for key, new in after.objects.items():
        old = before.objects.get(key)
        if old and (old.address != new.address or old.address in again):
            yield key, old, new


def _difference(target: str, column: str, old: Sequence[Grant], new: Sequence[Grant]) -> Iterator[Statement]:
    """Everything from the first different entry on is revoked and granted again, so that even the
    order of the entries is the old one: two dumps can then be compared."""
    wanted, present = _entries(old), _entries(new)
    same = 0
    while same < min(len(wanted), len(present)) and wanted[same] == present[same]:
        same += 1
    for entry in present[same:]:
        yield f"REVOKE ALL{column} ON {target} FROM {entry.grantee}", entry.grantor
    for entry in _in_order(wanted[same:], {entry.grantee for entry in wanted[:same] if entry.grantable}):
        for privileges, option in ((entry.plain, ""), (entry.grantable, " WITH GRANT OPTION")):
            if privileges:
                named = ", ".join(f"{privilege}{column}" for privilege in sorted(privileges))
                yield f"GRANT {named} ON {target} TO {entry.grantee}{option}", entry.grantor


@dataclass(frozen=True, slots=True)
class _Entry:
    """What one role granted to another."""

    grantor: str
    grantee: str
    plain: set[str] = field(default_factory=set)
    grantable: set[str] = field(default_factory=set)


def _entries(grants: Sequence[Grant]) -> list[_Entry]:
    entries: dict[tuple[str, str], _Entry] = {}
    for grantee, privilege, grantable, grantor in grants:
        entry = entries.setdefault((grantor, grantee), _Entry(grantor, grantee))
        (entry.grantable if grantable else entry.plain).add(privilege)
    return list(entries.values())


def _in_order(entries: Sequence[_Entry], able: set[str]) -> Iterator[_Entry]:
    """A role's own grants come after those that let it grant. `able`: roles that can grant
    already."""
    waiting = list(entries)
    while waiting:
        ready = next((entry for entry in waiting if not entry.grantor or entry.grantor in able), waiting[0])
        waiting.remove(ready)
        able |= {ready.grantee} if ready.grantable else set()
        yield ready
