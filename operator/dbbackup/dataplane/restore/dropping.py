"""DROP ... CASCADE for the objects that a restore replaces, and the proof that exactly what was
foreseen is gone.

PostgreSQL settles the order and the circles. What CASCADE may take was computed before, under the
same locks (`closure`); afterwards the system catalogs are compared with what they held before.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.restore.roots import FIRST_USER_OID, Address, HeldObject

_BATCH = 100
"""Maximum number of objects of one kind that one statement drops."""
_KIND = {
    "composite type": "TYPE",
    "foreign-data wrapper": "FOREIGN DATA WRAPPER",
}
"""Types of pg_identify_object that DROP calls otherwise."""
_ONE_EACH = frozenset({"operator class", "operator family", "cast", "transform", "user mapping"})
_LAST = ("access method", "language")
"""DROP OPERATOR CLASS IF EXISTS fails where the access method is gone."""

_CATALOGS = (
    "pg_class", "pg_type", "pg_proc", "pg_constraint", "pg_attrdef", "pg_trigger", "pg_rewrite", "pg_policy", "pg_statistic_ext", "pg_operator",
    "pg_opclass", "pg_opfamily", "pg_amop", "pg_amproc", "pg_cast", "pg_transform", "pg_collation", "pg_conversion", "pg_language", "pg_am",
    "pg_namespace", "pg_extension", "pg_foreign_data_wrapper", "pg_foreign_server", "pg_default_acl", "pg_event_trigger", "pg_publication",
    "pg_publication_rel", "pg_ts_config", "pg_ts_dict", "pg_ts_parser", "pg_ts_template",
)  # fmt: skip
_OTHERS = (("pg_user_mapping", "pg_user_mappings", "umid"), ("pg_largeobject", "pg_largeobject_metadata", "oid"))
_INVENTORY = " UNION ALL ".join(
    f"SELECT '{classes}'::pg_catalog.regclass::oid::bigint, pg_catalog.array_agg({oid}::bigint) FROM {source}"  # noqa: S608 - constants only
    f" WHERE {oid} >= {FIRST_USER_OID if source != 'pg_catalog.pg_largeobject_metadata' else 0}"
    for classes, source, oid in (
        *((f"pg_catalog.{name}", f"pg_catalog.{name}", "oid") for name in _CATALOGS),
        *((f"pg_catalog.{name}", f"pg_catalog.{source}", oid) for name, source, oid in _OTHERS),
    )
)
_PUBLISHED_SCHEMAS = """
SELECT 'pg_catalog.pg_publication_namespace'::pg_catalog.regclass::oid::bigint, pg_catalog.array_agg(oid::bigint)
FROM pg_catalog.pg_publication_namespace
"""
_COLUMNS = f"""
SELECT a.attrelid::bigint, pg_catalog.count(*) FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
WHERE c.oid >= {FIRST_USER_OID} AND c.relkind IN ('r', 'p', 'f', 'v', 'm', 'c') AND c.relpersistence <> 't' AND a.attnum > 0 AND NOT a.attisdropped
GROUP BY 1
"""  # noqa: S608 - constants only
_OURS = """
SELECT coalesce(classid, 'pg_catalog.pg_class'::pg_catalog.regclass)::bigint, coalesce(objid, relation)::bigint FROM pg_catalog.pg_locks
WHERE pid = pg_catalog.pg_backend_pid() AND granted AND mode = 'AccessExclusiveLock' AND locktype IN ('relation', 'object')
"""


@dataclass(frozen=True, slots=True)
class ObjectStock:
    """Oid of a system catalog -> oids of all users' objects in it; and how many columns each
    relation has."""

    objects: Mapping[int, array[int]]
    columns: Mapping[int, int]


def take_stock(connection: Connection) -> ObjectStock:
    objects = {classid: array("I", sorted(oids or ())) for classid, oids in connection.execute(_INVENTORY.encode())}
    if connection.info.server_version >= 150000:
        objects |= {classid: array("I", sorted(oids or ())) for classid, oids in connection.execute(_PUBLISHED_SCHEMAS)}
    return ObjectStock(objects, dict(connection.execute(_COLUMNS.encode()).fetchall()))


def deviations(connection: Connection, before: ObjectStock, foreseen: Mapping[int, frozenset[int]]) -> list[str]:
    """What is gone and should not be, or the reverse; empty after a DROP that did what was
    foreseen.

    Other sessions may drop things of their own meanwhile: only those count that this transaction
    locked as a DROP does.
    """
    after = take_stock(connection)
    too_much, too_little = _differences(before, after, foreseen)
    if too_much:
        ours = set(connection.execute(_OURS).fetchall())
        too_much = {address for address in too_much if address in ours}
    return [
        *(f"object {objid} of system catalog {classid} is gone" for classid, objid in sorted(too_much)),
        *(f"object {objid} of system catalog {classid} is still there" for classid, objid in sorted(too_little)),
        *(f"columns of relation {oid} are gone" for oid in _narrowed(before, after)),
    ]


def _differences(before: ObjectStock, after: ObjectStock, foreseen: Mapping[int, frozenset[int]]) -> tuple[set[Address], set[Address]]:
    too_much: set[Address] = set()
    too_little: set[Address] = set()
    for classid, oids in before.objects.items():
        there, now = set(oids), set(after.objects.get(classid, ()))
        expected = foreseen.get(classid, frozenset())
        too_much |= {(classid, oid) for oid in there - now - expected}
        too_little |= {(classid, oid) for oid in there & now & expected}
    return too_much, too_little


def _narrowed(before: ObjectStock, after: ObjectStock) -> list[int]:
    return sorted(oid for oid, count in before.columns.items() if after.columns.get(oid, count) < count)


def drop_statements(roots: Iterable[HeldObject]) -> Iterator[str]:
    """With IF EXISTS: what is dropped first may take the others along."""
    by_type: dict[str, list[str]] = defaultdict(list)
    for root in roots:
        by_type[root.type].append(root.drop)
    for kind in sorted(by_type, key=lambda kind: (kind in _LAST, kind)):
        names = by_type[kind]
        if kind == "large object":
            for at in range(0, len(names), _BATCH):
                numbers = ", ".join(names[at : at + _BATCH])
                yield f"SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata WHERE oid IN ({numbers})"  # noqa: S608
            continue
        size = 1 if kind in _ONE_EACH else _BATCH
        cascade = "" if kind == "user mapping" else " CASCADE"
        for at in range(0, len(names), size):
            yield f"DROP {_KIND.get(kind, kind.upper())} IF EXISTS {', '.join(names[at : at + size])}{cascade}"
