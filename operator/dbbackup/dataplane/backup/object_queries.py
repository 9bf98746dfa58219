"""Queries for the artifact's catalog: one for each kind of object that pg_dump dumps, by pg_dump's
own rules of selection, for servers 13 to 18. Pure text; `objects.py` runs it.

Parameters: `all` (the dump has no `schemas`), `namespaces` (oids of the dumped schemas), `excluded`
(oids of relations that are left out), `extensions` (names of the dumped ones).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

LAST_SYSTEM_OID = 16383


@dataclass(frozen=True, slots=True)
class ObjectKind:
    """How one system catalog's objects are selected. `source` follows FROM; the other texts are
    expressions over it. `of` is the object that a part belongs to: (system catalog, oid). `acl` is
    (privileges, owner, letter of acldefault)."""

    catalog: str
    source: str
    oid: str = "x.oid"
    of: tuple[str, str] | None = None
    owner: str = "NULL"
    acl: tuple[str, str] | None = None
    columns: str = "NULL::text[]"
    oids: str = "NULL::bigint[]"
    comment: str = "NULL"


def kinds(version_num: int) -> Iterator[ObjectKind]:
    """All kinds that a server of this version has."""
    yield from _KINDS
    if version_num >= 150000:
        yield _PUBLICATION_SCHEMA


def query(kind: ObjectKind) -> str:
    """The rows of one kind: catalog, oid, catalog and oid of what it belongs to, owner, privileges,
    privileges of columns, columns, oids, comment, type, names, arguments, identity."""
    of_catalog, of_oid = (f"'{kind.of[0]}'", f"{kind.of[1]}::bigint") if kind.of else ("NULL", "NULL::bigint")
    grants = _exploded(f"coalesce({kind.acl[0]}, pg_catalog.acldefault({kind.acl[1]}, {kind.owner}))") if kind.acl else "NULL::text"
    column_grants = _COLUMN_GRANTS if kind is _RELATIONS else "NULL::text"
    return f"""
SELECT '{kind.catalog}', q.oid, q.of_catalog, q.of_oid, q.owner, q.grants, q.column_grants, q.columns, q.oids, q.comment,
       a.type, a.object_names, a.object_args, i.identity
FROM (SELECT {kind.oid}::bigint AS oid, {of_catalog} AS of_catalog, {of_oid} AS of_oid, {kind.owner}::bigint AS owner, {grants} AS grants,
             {column_grants} AS column_grants, {kind.columns} AS columns, {kind.oids} AS oids, {kind.comment} AS comment
      FROM {kind.source}) q,
     pg_catalog.pg_identify_object_as_address('pg_catalog.{kind.catalog}'::pg_catalog.regclass, q.oid::oid, 0) a,
     pg_catalog.pg_identify_object('pg_catalog.{kind.catalog}'::pg_catalog.regclass, q.oid::oid, 0) i
"""  # noqa: S608 - constants only


def _exploded(acl: str) -> str:
    """JSON, so that equal privileges are equal texts."""
    return f"""(SELECT pg_catalog.json_agg(pg_catalog.json_build_array(g.grantor::bigint, g.grantee::bigint, g.privilege_type, g.is_grantable))::text
                FROM pg_catalog.aclexplode({acl}) g)"""  # noqa: S608 - constants only


def _member(catalog: str, oid: str = "x.oid") -> str:
    return f"""EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.{catalog}'::pg_catalog.regclass AND e.objid = {oid}
                       AND e.deptype = 'e')"""


def _implicit(catalog: str) -> str:
    """Made with another object, as the constructors and casts of a range type are."""
    return f"""EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.{catalog}'::pg_catalog.regclass AND d.objid = x.oid
                       AND d.deptype = 'i')"""


def _in(schema: str) -> str:
    return f"{schema} IN (SELECT pg_catalog.unnest(%(namespaces)s::oid[]))"


def _in_schema(catalog: str, schema: str, more: str = "true") -> str:
    """Objects with a schema: they are dumped with it."""
    return f"pg_catalog.{catalog} x WHERE {_in(schema)} AND x.oid > {LAST_SYSTEM_OID} AND NOT {_member(catalog)} AND ({more})"


def _without_schema(catalog: str, more: str = "true") -> str:
    """Objects without a schema: they are in the dump of a whole database only."""
    return f"pg_catalog.{catalog} x WHERE %(all)s AND x.oid > {LAST_SYSTEM_OID} AND NOT {_member(catalog)} AND ({more})"


def _of_relation(catalog: str, relation: str, more: str = "true", kinds: str = "rpvmfS") -> str:
    """Parts of dumped relations."""
    letters = ", ".join(f"'{letter}'" for letter in kinds)
    return f"""pg_catalog.{catalog} x JOIN pg_catalog.pg_class r ON r.oid = {relation}
      WHERE r.relkind IN ({letters}) AND {_dumped_relation("r")} AND ({more})"""


def _dumped_relation(alias: str) -> str:
    return f"""{_in(f"{alias}.relnamespace")} AND {alias}.oid > {LAST_SYSTEM_OID} AND {alias}.relpersistence <> 't'
      AND {alias}.oid NOT IN (SELECT pg_catalog.unnest(%(excluded)s::oid[])) AND NOT {_member("pg_class", f"{alias}.oid")}"""


def _comment(catalog: str) -> str:
    return f"pg_catalog.obj_description(x.oid, '{catalog}')"


_COLUMNS = """ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                    WHERE a.attrelid = {relation} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)"""

_COLUMN_GRANTS = """(SELECT pg_catalog.json_agg(pg_catalog.json_build_array(g.grantor::bigint, g.grantee::bigint, g.privilege_type, g.is_grantable,
                                                                            a.attname) ORDER BY a.attnum)::text
                     FROM pg_catalog.pg_attribute a, pg_catalog.aclexplode(a.attacl) g
                     WHERE a.attrelid = x.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attacl IS NOT NULL)"""

_RELATIONS = ObjectKind(
    "pg_class",
    f"pg_catalog.pg_class x WHERE x.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_dumped_relation('x')}",
    owner="x.relowner",
    acl=("x.relacl", "'r'"),
    columns=_COLUMNS.format(relation="x.oid"),
)

_KINDS = (
    ObjectKind(
        "pg_namespace",
        f"pg_catalog.pg_namespace x WHERE {_in('x.oid')} AND NOT {_member('pg_namespace')}",
        owner="x.nspowner",
        acl=("x.nspacl", "'n'"),
        comment=_comment("pg_namespace"),
    ),
    ObjectKind(
        "pg_extension",
        f"pg_catalog.pg_extension x WHERE x.oid > {LAST_SYSTEM_OID} AND x.extname = ANY (%(extensions)s::name[])",
        owner="x.extowner",
        comment=_comment("pg_extension"),
    ),
    _RELATIONS,
    ObjectKind(
        "pg_class",
        f"""pg_catalog.pg_class x LEFT JOIN pg_catalog.pg_depend o ON o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND o.objid = x.oid
              AND o.refclassid = o.classid AND o.refobjsubid > 0 AND o.deptype IN ('a', 'i')
            WHERE x.relkind = 'S' AND {_dumped_relation("x")}""",
        of=("pg_class", "o.refobjid"),
        owner="x.relowner",
        acl=("x.relacl", "'s'"),
    ),
    ObjectKind(
        "pg_type",
        _in_schema(
            "pg_type",
            "x.typnamespace",
            """x.typtype <> 'm' AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.oid = x.typelem AND e.typarray = x.oid)
              AND (x.typrelid = 0 OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = x.typrelid AND c.relkind = 'c'))""",
        ),
        owner="x.typowner",
        acl=("x.typacl", "'T'"),
        columns=f"CASE WHEN x.typrelid <> 0 THEN {_COLUMNS.format(relation='x.typrelid')} END",
    ),
    ObjectKind(
        "pg_proc",
        _in_schema("pg_proc", "x.pronamespace", f"NOT {_implicit('pg_proc')}"),
        owner="x.proowner",
        acl=("x.proacl", "'f'"),
    ),
    ObjectKind("pg_operator", _in_schema("pg_operator", "x.oprnamespace", "x.oprcode <> 0"), owner="x.oprowner"),
    ObjectKind("pg_opclass", _in_schema("pg_opclass", "x.opcnamespace"), owner="x.opcowner"),
    ObjectKind("pg_opfamily", _in_schema("pg_opfamily", "x.opfnamespace"), owner="x.opfowner"),
    ObjectKind("pg_collation", _in_schema("pg_collation", "x.collnamespace"), owner="x.collowner"),
    ObjectKind("pg_conversion", _in_schema("pg_conversion", "x.connamespace"), owner="x.conowner"),
    ObjectKind("pg_ts_parser", _in_schema("pg_ts_parser", "x.prsnamespace")),
    ObjectKind("pg_ts_template", _in_schema("pg_ts_template", "x.tmplnamespace")),
    ObjectKind("pg_ts_dict", _in_schema("pg_ts_dict", "x.dictnamespace"), owner="x.dictowner"),
    ObjectKind("pg_ts_config", _in_schema("pg_ts_config", "x.cfgnamespace"), owner="x.cfgowner"),
    ObjectKind("pg_cast", _without_schema("pg_cast", f"NOT {_implicit('pg_cast')}")),
    ObjectKind("pg_transform", _without_schema("pg_transform")),
    ObjectKind("pg_language", _without_schema("pg_language", "x.lanispl"), owner="x.lanowner", acl=("x.lanacl", "'l'")),
    ObjectKind("pg_am", _without_schema("pg_am")),
    ObjectKind("pg_foreign_data_wrapper", _without_schema("pg_foreign_data_wrapper"), owner="x.fdwowner", acl=("x.fdwacl", "'F'")),
    ObjectKind("pg_foreign_server", _without_schema("pg_foreign_server"), owner="x.srvowner", acl=("x.srvacl", "'S'")),
    ObjectKind("pg_user_mapping", f"pg_catalog.pg_user_mappings x WHERE %(all)s AND NOT {_member('pg_foreign_server', 'x.srvid')}", oid="x.umid"),
    ObjectKind("pg_event_trigger", _without_schema("pg_event_trigger"), owner="x.evtowner"),
    ObjectKind("pg_publication", _without_schema("pg_publication"), owner="x.pubowner"),
    ObjectKind(
        "pg_largeobject",
        """(SELECT pg_catalog.min(l.oid) AS oid, l.lomowner, l.lomacl::text::aclitem[] AS lomacl,
                   pg_catalog.array_agg(l.oid::bigint ORDER BY l.oid) AS oids
            FROM pg_catalog.pg_largeobject_metadata l GROUP BY l.lomowner, l.lomacl::text) x""",
        owner="x.lomowner",
        acl=("x.lomacl", "'L'"),
        oids="x.oids",
    ),
    ObjectKind(
        "pg_default_acl",
        f"pg_catalog.pg_default_acl x WHERE CASE WHEN x.defaclnamespace = 0 THEN %(all)s ELSE {_in('x.defaclnamespace')} END",
        owner="x.defaclrole",
        acl=("x.defaclacl", "'r'"),
    ),
    ObjectKind("pg_attrdef", _of_relation("pg_attrdef", "x.adrelid"), of=("pg_class", "x.adrelid")),
    ObjectKind(
        "pg_class",
        f"""pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid JOIN pg_catalog.pg_class r ON r.oid = i.indrelid
            WHERE r.relkind IN ('r', 'p', 'm') AND {_dumped_relation("r")}""",
        of=("pg_class", "i.indrelid"),
    ),
    ObjectKind("pg_constraint", _of_relation("pg_constraint", "x.conrelid"), of=("pg_class", "x.conrelid")),
    ObjectKind(
        "pg_constraint",
        f"""pg_catalog.pg_constraint x JOIN pg_catalog.pg_type t ON t.oid = x.contypid
            WHERE {_in("t.typnamespace")} AND t.oid > {LAST_SYSTEM_OID} AND NOT {_member("pg_type", "t.oid")}""",
        of=("pg_type", "x.contypid"),
    ),
    ObjectKind("pg_trigger", _of_relation("pg_trigger", "x.tgrelid", "NOT x.tgisinternal"), of=("pg_class", "x.tgrelid")),
    ObjectKind("pg_rewrite", _of_relation("pg_rewrite", "x.ev_class", "x.rulename <> '_RETURN'"), of=("pg_class", "x.ev_class")),
    ObjectKind("pg_policy", _of_relation("pg_policy", "x.polrelid"), of=("pg_class", "x.polrelid")),
    ObjectKind(
        "pg_statistic_ext",
        _of_relation("pg_statistic_ext", "x.stxrelid", f"{_in('x.stxnamespace')} AND NOT {_member('pg_statistic_ext')}"),
        of=("pg_class", "x.stxrelid"),
        owner="x.stxowner",
    ),
    ObjectKind(
        "pg_publication_rel",
        _of_relation("pg_publication_rel", "x.prrelid", "%(all)s AND " + f"NOT {_member('pg_publication', 'x.prpubid')}"),
        of=("pg_publication", "x.prpubid"),
    ),
)

_PUBLICATION_SCHEMA = ObjectKind(
    "pg_publication_namespace",
    f"""pg_catalog.pg_publication_namespace x
        WHERE %(all)s AND {_in("x.pnnspid")} AND NOT {_member("pg_publication", "x.pnpubid")}""",
    of=("pg_publication", "x.pnpubid"),
)
