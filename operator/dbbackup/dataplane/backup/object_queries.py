"""Queries for the artifact's catalog: one for each kind of object that pg_dump dumps, by pg_dump's
own rules of selection, for servers 13 to 18. Pure text; `objects.py` runs it.

Parameters: `all` (the dump has no `schemas`), `namespaces` (oids of the dumped schemas), `excluded`
(oids of relations that are left out), `extensions` (names of the dumped ones).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_LAST_SYSTEM_OID = 16383


@dataclass(frozen=True, slots=True)
class ObjectKind:
    """How one system catalog's objects are selected. `source` follows FROM; the other texts are
    expressions over it. `of` is the object that a part belongs to: (system catalog, oid). `acl` is
    (privileges, letter of acldefault). `named` are type, names, arguments and identity of kinds of
    which there may be a hundred thousand: the server's functions take a search for each."""

    catalog: str
    source: str
    oid: str = "x.oid"
    of: tuple[str, str] | None = None
    owner: str = "NULL"
    acl: tuple[str, str] | None = None
    column_acl: bool = False
    columns: str = "NULL::text[]"
    oids: str = "NULL::bigint[]"
    comment: str = "NULL"
    superuser: str = "false"
    hidden: str = "false"
    named: tuple[str, str, str, str] | None = None


def kinds(version_num: int) -> Iterator[ObjectKind]:
    """All kinds that a server of this version has."""
    yield from _KINDS
    if version_num >= 140000:
        yield _MULTIRANGE
    yield _PUBLICATION_15 if version_num >= 150000 else _PUBLICATION
    if version_num >= 150000:
        yield _PUBLICATION_SCHEMA


def objects(kind: ObjectKind) -> str:
    """The rows of one kind: catalog, oid, catalog and oid of what it belongs to, owner, privileges,
    privileges of columns, columns, large objects, comment, superuser, hidden, type, names,
    arguments, identity."""
    of_catalog, of_oid = (f"'{kind.of[0]}'", f"{kind.of[1]}::bigint") if kind.of else ("NULL", "NULL::bigint")
    grants = _exploded(f"coalesce({kind.acl[0]}, pg_catalog.acldefault('{kind.acl[1]}', {kind.owner}))") if kind.acl else "NULL::text"
    column_grants = _COLUMN_GRANTS if kind.column_acl else "NULL::text"
    named = ", ".join(f"{text} AS {name}" for name, text in zip(("type", "names", "args", "identity"), kind.named, strict=True)) if kind.named else ""
    asked = f"""(SELECT q.*, a.type, a.object_names AS names, a.object_args AS args, i.identity FROM q,
      pg_catalog.pg_identify_object_as_address('pg_catalog.{kind.catalog}'::pg_catalog.regclass, q.oid::oid, 0) a,
      pg_catalog.pg_identify_object('pg_catalog.{kind.catalog}'::pg_catalog.regclass, q.oid::oid, 0) i)"""  # noqa: S608 - constants only
    return f"""
WITH q AS (SELECT {kind.oid}::bigint AS oid, {of_catalog} AS of_catalog, {of_oid} AS of_oid, {kind.owner}::bigint AS owner, {grants} AS grants,
                  {column_grants} AS column_grants, {kind.columns} AS columns, {kind.oids} AS oids, {kind.comment} AS comment,
                  {kind.superuser} AS superuser, {kind.hidden} AS hidden{named and ", " + named}
           FROM {kind.source})
SELECT '{kind.catalog}', o.oid, o.of_catalog, o.of_oid, o.owner, o.grants, o.column_grants, o.columns, o.oids, o.comment, o.superuser, o.hidden,
       o.type, o.names, o.args, o.identity
FROM {"q" if kind.named else asked} o
"""  # noqa: S608 - constants only


def references(version_num: int) -> str:
    """What dumped objects refer to, in rows of two forms: extensions that an object needs
    (catalog and oid of the object, extensions' names, and NULLs), and what is not in the dump
    (catalog, oid, NULL, description, type, names, arguments, identity).

    It follows pg_depend, to which it adds the operators of EXCLUDE constraints, from what may be
    referred to back to the dumped objects. What is made with another object, such as an array type,
    stands for that one.
    """
    sources = [(kind.catalog, kind.source, kind.oid, kind.of) for kind in kinds(version_num) if kind.catalog != "pg_largeobject"]
    sources += [(catalog, source, "x.oid", of) for catalog, source, of in _HIDDEN_PARTS]
    return f"""
WITH RECURSIVE elsewhere (classid, objid, extension) AS MATERIALIZED (
  SELECT e.classid, e.objid, e.refobjid FROM pg_catalog.pg_depend e
  WHERE e.deptype = 'e' AND e.refclassid = {_class("pg_extension")} AND e.refobjid > {_LAST_SYSTEM_OID}
  UNION ALL SELECT {_class("pg_extension")}, e.oid, e.oid FROM pg_catalog.pg_extension e
  UNION ALL {" UNION ALL ".join(f"SELECT {_class(catalog)}, x.oid, NULL FROM {source}" for catalog, source in _LEFT_OUT)}
),
made_with (classid, objid, whole_class, whole, extension) AS (
  SELECT classid, objid, classid, objid, extension FROM elsewhere
  UNION SELECT d.classid, d.objid, m.whole_class, m.whole, m.extension
  FROM made_with m JOIN pg_catalog.pg_depend d ON d.refclassid = m.classid AND d.refobjid = m.objid AND d.deptype = 'i'
  WHERE d.classid IN ({_class("pg_class")}, {_class("pg_type")}, {_class("pg_proc")})
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_class s WHERE d.classid = {_class("pg_class")} AND s.oid = d.objid AND s.relkind = 'S')
),
refers (classid, objid, refclassid, refobjid, extension) AS MATERIALIZED (
  SELECT DISTINCT d.classid, d.objid, m.whole_class, m.whole, m.extension
  FROM made_with m
    JOIN (SELECT classid, objid, refclassid, refobjid FROM pg_catalog.pg_depend WHERE deptype <> 'e'
          UNION ALL SELECT {_class("pg_constraint")}, c.oid, {_class("pg_operator")}, e.operator
          FROM pg_catalog.pg_constraint c, pg_catalog.unnest(c.conexclop) AS e (operator) WHERE c.contype = 'x') d
      ON d.refclassid = m.classid AND d.refobjid = m.objid
),
dumped (classid, objid, whole_class, whole) AS MATERIALIZED ({" UNION ALL ".join(_referring(*source) for source in sources)}),
needs (classid, objid, extension) AS (
  SELECT classid, objid, extension FROM refers JOIN dumped USING (classid, objid) WHERE extension IS NOT NULL
  UNION SELECT whole_class, whole, extension FROM refers JOIN dumped USING (classid, objid) WHERE extension IS NOT NULL
),
outside (classid, objid) AS (
  SELECT DISTINCT r.refclassid, r.refobjid FROM refers r JOIN dumped USING (classid, objid)
  WHERE NOT coalesce(r.extension IN (SELECT x.oid FROM pg_catalog.pg_extension x WHERE x.extname = ANY (%(extensions)s::name[])), false)
    AND classid <> {_class("pg_extension")}
)
SELECT c.relname::text, n.objid::bigint, pg_catalog.array_agg(x.extname::text ORDER BY x.extname), NULL::text, NULL::text, NULL::text[], NULL::text[],
       NULL::text
FROM needs n JOIN pg_catalog.pg_extension x ON x.oid = n.extension JOIN pg_catalog.pg_class c ON c.oid = n.classid
GROUP BY 1, 2
UNION ALL
SELECT c.relname::text, o.objid::bigint, NULL, pg_catalog.pg_describe_object(o.classid, o.objid, 0), a.type, a.object_names, a.object_args, i.identity
FROM outside o JOIN pg_catalog.pg_class c ON c.oid = o.classid,
     pg_catalog.pg_identify_object_as_address(o.classid, o.objid, 0) a, pg_catalog.pg_identify_object(o.classid, o.objid, 0) i
"""  # noqa: S608 - constants only


def _referring(catalog: str, source: str, oid: str, of: tuple[str, str] | None) -> str:
    whole_class, whole = (_class(of[0]), f"coalesce({of[1]}, {oid})") if of else (_class(catalog), oid)
    return f"""SELECT {_class(catalog)}::oid, {oid}::oid, {whole_class}::oid, {whole}::oid FROM {source}
      AND {oid} IN (SELECT f.objid FROM refers f WHERE f.classid = {_class(catalog)})"""  # noqa: S608 - constants only


def _class(catalog: str) -> str:
    return f"'pg_catalog.{catalog}'::pg_catalog.regclass"


def _exploded(acl: str) -> str:
    """JSON, so that equal privileges are equal texts."""
    return f"""(SELECT pg_catalog.json_agg(pg_catalog.json_build_array(g.grantor::bigint, g.grantee::bigint, g.privilege_type, g.is_grantable))::text
                FROM pg_catalog.aclexplode({acl}) g)"""  # noqa: S608 - constants only


def _member(catalog: str, oid: str = "x.oid") -> str:
    return f"EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = {_class(catalog)} AND e.objid = {oid} AND e.deptype = 'e')"


def _implicit(catalog: str) -> str:
    """Made with another object, as the constructors and casts of a range type are."""
    return f"EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = {_class(catalog)} AND d.objid = x.oid AND d.deptype = 'i')"


def _in(schema: str) -> str:
    return f"{schema} IN (SELECT pg_catalog.unnest(%(namespaces)s::oid[]))"


def _in_schema(catalog: str, schema: str, more: str = "true") -> str:
    """Objects with a schema: they are dumped with it."""
    return f"pg_catalog.{catalog} x WHERE {_in(schema)} AND x.oid > {_LAST_SYSTEM_OID} AND NOT {_member(catalog)} AND ({more})"


def _not_in_schema(catalog: str, schema: str, more: str = "true") -> str:
    return f"pg_catalog.{catalog} x WHERE NOT {_in(schema)} AND x.oid > {_LAST_SYSTEM_OID} AND NOT {_member(catalog)} AND ({more})"


def _without_schema(catalog: str, more: str = "true") -> str:
    """Objects without a schema: they are in the dump of a whole database only."""
    return f"pg_catalog.{catalog} x WHERE %(all)s AND x.oid > {_LAST_SYSTEM_OID} AND NOT {_member(catalog)} AND ({more})"


def _of_relation(catalog: str, relation: str, more: str = "true") -> str:
    """Parts of dumped relations."""
    return f"""pg_catalog.{catalog} x JOIN pg_catalog.pg_class r ON r.oid = {relation} JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
      WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {_dumped_relation("r")} AND ({more})"""


def _dumped_relation(alias: str) -> str:
    return f"""{_in(f"{alias}.relnamespace")} AND {alias}.oid > {_LAST_SYSTEM_OID} AND {alias}.relpersistence <> 't'
      AND {alias}.oid NOT IN (SELECT pg_catalog.unnest(%(excluded)s::oid[])) AND NOT {_member("pg_class", f"{alias}.oid")}"""


def _comment(catalog: str) -> str:
    return f"pg_catalog.obj_description(x.oid, '{catalog}')"


def _quoted(relation: str) -> str:
    return f"pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident({relation}.relname)"


def _relation_named(kind: str) -> tuple[str, str, str, str]:
    return kind, "ARRAY[n.nspname::text, x.relname]", "'{}'::text[]", _quoted("x")


_COLUMNS = """ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                    WHERE a.attrelid = {relation} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)"""

_COLUMN_GRANTS = """(SELECT pg_catalog.json_agg(pg_catalog.json_build_array(g.grantor::bigint, g.grantee::bigint, g.privilege_type, g.is_grantable,
                                                                            a.attname) ORDER BY a.attnum)::text
                     FROM pg_catalog.pg_attribute a, pg_catalog.aclexplode(a.attacl) g
                     WHERE a.attrelid = x.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attacl IS NOT NULL)"""

# In a language that is not trusted, LEAKPROOF, with a support function, an aggregate over
# `internal`, or with a setting that only a superuser may give to a function: also one that no
# module defines. Those of an extension are known only in a session that uses it.
_SUPERUSER_ROUTINE = """(x.proleakproof OR x.prosupport <> 0
  OR NOT (SELECT l.lanpltrusted OR x.prokind = 'a' FROM pg_catalog.pg_language l WHERE l.oid = x.prolang)
  OR EXISTS (SELECT FROM pg_catalog.pg_aggregate g WHERE g.aggfnoid = x.oid
             AND 'pg_catalog.internal'::pg_catalog.regtype IN (g.aggtranstype, g.aggmtranstype))
  OR EXISTS (SELECT FROM pg_catalog.unnest(x.proconfig) AS c (entry)
             WHERE pg_catalog.split_part(c.entry, '=', 1) NOT IN (SELECT s.name FROM pg_catalog.pg_settings s WHERE s.context = 'user')
               AND pg_catalog.split_part(c.entry, '.', 1) NOT IN (SELECT e.extname::text FROM pg_catalog.pg_extension e)))"""

# Without a function, or between types of the system: it asks for the ownership of one.
_SUPERUSER_CAST = f"(x.castmethod = 'b' OR (x.castsource <= {_LAST_SYSTEM_OID} AND x.casttarget <= {_LAST_SYSTEM_OID}))"

# As the view pg_user_mappings decides it.
_HIDDEN_MAPPING = """NOT (SELECT u.rolsuper OR CASE WHEN x.umuser = 0 THEN pg_catalog.pg_has_role(s.srvowner, 'USAGE')
    ELSE x.umuser = u.oid AND (pg_catalog.pg_has_role(s.srvowner, 'USAGE') OR pg_catalog.has_server_privilege(s.oid, 'USAGE')) END
  FROM pg_catalog.pg_foreign_server s, pg_catalog.pg_roles u WHERE s.oid = x.srvid AND u.rolname = current_user)"""

_INDEXED_RELATION = f"""pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid JOIN pg_catalog.pg_class r ON r.oid = i.indrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
  WHERE r.relkind IN ('r', 'p', 'm') AND {_dumped_relation("r")}"""

_OWNED_SEQUENCE = f"""pg_catalog.pg_class x JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
    LEFT JOIN pg_catalog.pg_depend o ON o.classid = {_class("pg_class")} AND o.objid = x.oid
    AND o.refclassid = o.classid AND o.refobjsubid > 0 AND o.deptype IN ('a', 'i')
  WHERE x.relkind = 'S' AND {_dumped_relation("x")}"""

_DOMAIN_CONSTRAINT = f"""pg_catalog.pg_constraint x JOIN pg_catalog.pg_type t ON t.oid = x.contypid
  WHERE {_in("t.typnamespace")} AND t.oid > {_LAST_SYSTEM_OID} AND NOT {_member("pg_type", "t.oid")}"""

_OWN_TYPE = """x.typtype <> 'm' AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.oid = x.typelem AND e.typarray = x.oid)
  AND (x.typrelid = 0 OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = x.typrelid AND c.relkind = 'c'))"""

# pg_dump dumps those of extensions' tables too.
_POLICY = f"""pg_catalog.pg_policy x JOIN pg_catalog.pg_class r ON r.oid = x.polrelid
  WHERE (({_dumped_relation("r")}) OR EXISTS (
    SELECT FROM pg_catalog.pg_depend e JOIN pg_catalog.pg_extension n ON n.oid = e.refobjid
    WHERE e.classid = {_class("pg_class")} AND e.objid = x.polrelid AND e.deptype = 'e' AND n.oid > {_LAST_SYSTEM_OID}
      AND n.extname = ANY (%(extensions)s::name[])))"""

_LARGE_OBJECTS = """(SELECT pg_catalog.min(l.oid) AS oid, l.lomowner, l.lomacl::text::aclitem[] AS lomacl,
         pg_catalog.array_agg(l.oid::bigint ORDER BY l.oid) AS oids
  FROM pg_catalog.pg_largeobject_metadata l GROUP BY l.lomowner, l.lomacl::text) x"""

_KINDS = (
    ObjectKind(
        "pg_namespace",
        f"pg_catalog.pg_namespace x WHERE {_in('x.oid')} AND NOT {_member('pg_namespace')}",
        owner="x.nspowner",
        acl=("x.nspacl", "n"),
        comment=_comment("pg_namespace"),
    ),
    ObjectKind(
        "pg_extension",
        f"pg_catalog.pg_extension x WHERE x.oid > {_LAST_SYSTEM_OID} AND x.extname = ANY (%(extensions)s::name[])",
        owner="x.extowner",
        comment=_comment("pg_extension"),
    ),
    ObjectKind(
        "pg_class",
        f"""pg_catalog.pg_class x JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
            WHERE x.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_dumped_relation("x")}""",
        owner="x.relowner",
        acl=("x.relacl", "r"),
        column_acl=True,
        columns=_COLUMNS.format(relation="x.oid"),
        named=_relation_named("CASE x.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'table' END"),
    ),
    ObjectKind(
        "pg_class", _OWNED_SEQUENCE, of=("pg_class", "o.refobjid"), owner="x.relowner", acl=("x.relacl", "s"), named=_relation_named("'sequence'")
    ),
    ObjectKind(
        "pg_type",
        _in_schema("pg_type", "x.typnamespace", _OWN_TYPE),
        owner="x.typowner",
        acl=("x.typacl", "T"),
        columns=f"CASE WHEN x.typrelid <> 0 THEN {_COLUMNS.format(relation='x.typrelid')} END",
        superuser="x.typtype IN ('b', 'p')",
    ),
    ObjectKind(
        "pg_proc",
        _in_schema("pg_proc", "x.pronamespace", f"NOT {_implicit('pg_proc')}"),
        owner="x.proowner",
        acl=("x.proacl", "f"),
        superuser=_SUPERUSER_ROUTINE,
    ),
    ObjectKind(
        "pg_operator",
        _in_schema("pg_operator", "x.oprnamespace", "x.oprcode <> 0"),
        owner="x.oprowner",
        superuser=f"(x.oprrest::oid > {_LAST_SYSTEM_OID} OR x.oprjoin::oid > {_LAST_SYSTEM_OID})",
    ),
    ObjectKind("pg_opclass", _in_schema("pg_opclass", "x.opcnamespace"), owner="x.opcowner", superuser="true"),
    ObjectKind("pg_opfamily", _in_schema("pg_opfamily", "x.opfnamespace"), owner="x.opfowner", superuser="true"),
    ObjectKind("pg_collation", _in_schema("pg_collation", "x.collnamespace"), owner="x.collowner"),
    ObjectKind("pg_conversion", _in_schema("pg_conversion", "x.connamespace"), owner="x.conowner"),
    ObjectKind("pg_ts_parser", _in_schema("pg_ts_parser", "x.prsnamespace"), superuser="true"),
    ObjectKind("pg_ts_template", _in_schema("pg_ts_template", "x.tmplnamespace"), superuser="true"),
    ObjectKind("pg_ts_dict", _in_schema("pg_ts_dict", "x.dictnamespace"), owner="x.dictowner"),
    ObjectKind("pg_ts_config", _in_schema("pg_ts_config", "x.cfgnamespace"), owner="x.cfgowner"),
    ObjectKind("pg_cast", _without_schema("pg_cast", f"NOT {_implicit('pg_cast')}"), superuser=_SUPERUSER_CAST),
    ObjectKind("pg_transform", _without_schema("pg_transform"), superuser=f"x.trftype <= {_LAST_SYSTEM_OID}"),
    ObjectKind("pg_language", _without_schema("pg_language", "x.lanispl"), owner="x.lanowner", acl=("x.lanacl", "l"), superuser="true"),
    ObjectKind("pg_am", _without_schema("pg_am"), superuser="true"),
    ObjectKind("pg_foreign_data_wrapper", _without_schema("pg_foreign_data_wrapper"), owner="x.fdwowner", acl=("x.fdwacl", "F"), superuser="true"),
    ObjectKind("pg_foreign_server", _without_schema("pg_foreign_server"), owner="x.srvowner", acl=("x.srvacl", "S")),
    ObjectKind(
        "pg_user_mapping",
        f"pg_catalog.pg_user_mappings x WHERE %(all)s AND NOT {_member('pg_foreign_server', 'x.srvid')}",
        oid="x.umid",
        hidden=_HIDDEN_MAPPING,
    ),
    ObjectKind("pg_event_trigger", _without_schema("pg_event_trigger"), owner="x.evtowner", superuser="true"),
    ObjectKind("pg_largeobject", _LARGE_OBJECTS, owner="x.lomowner", acl=("x.lomacl", "L"), oids="x.oids"),
    ObjectKind(
        "pg_default_acl",
        f"pg_catalog.pg_default_acl x WHERE CASE WHEN x.defaclnamespace = 0 THEN %(all)s ELSE {_in('x.defaclnamespace')} END",
        owner="x.defaclrole",
        acl=("x.defaclacl", "r"),
    ),
    ObjectKind(
        "pg_attrdef",
        _of_relation("pg_attrdef", "x.adrelid").replace(
            " WHERE ", " JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum = x.adnum WHERE ", 1
        ),
        of=("pg_class", "x.adrelid"),
        named=(
            "'default value'",
            "ARRAY[n.nspname::text, r.relname, a.attname]",
            "'{}'::text[]",
            "'for ' || " + _quoted("r") + " || '.' || pg_catalog.quote_ident(a.attname)",
        ),
    ),
    ObjectKind("pg_class", _INDEXED_RELATION, of=("pg_class", "i.indrelid"), named=_relation_named("'index'")),
    ObjectKind(
        "pg_constraint",
        _of_relation("pg_constraint", "x.conrelid"),
        of=("pg_class", "x.conrelid"),
        named=(
            "'table constraint'",
            "ARRAY[n.nspname::text, r.relname, x.conname]",
            "'{}'::text[]",
            "pg_catalog.quote_ident(x.conname) || ' on ' || " + _quoted("r"),
        ),
    ),
    ObjectKind("pg_constraint", _DOMAIN_CONSTRAINT, of=("pg_type", "x.contypid")),
    ObjectKind(
        "pg_trigger",
        _of_relation("pg_trigger", "x.tgrelid", "NOT x.tgisinternal OR (x.tgparentid <> 0 AND x.tgconstrrelid = 0)"),
        of=("pg_class", "x.tgrelid"),
    ),
    ObjectKind("pg_rewrite", _of_relation("pg_rewrite", "x.ev_class", "x.rulename <> '_RETURN'"), of=("pg_class", "x.ev_class")),
    ObjectKind("pg_policy", _POLICY, of=("pg_class", "x.polrelid")),
    ObjectKind(
        "pg_statistic_ext",
        _of_relation("pg_statistic_ext", "x.stxrelid", f"{_in('x.stxnamespace')} AND NOT {_member('pg_statistic_ext')}"),
        of=("pg_class", "x.stxrelid"),
        owner="x.stxowner",
    ),
    ObjectKind(
        "pg_publication_rel",
        _of_relation("pg_publication_rel", "x.prrelid", f"%(all)s AND NOT {_member('pg_publication', 'x.prpubid')}"),
        of=("pg_publication", "x.prpubid"),
    ),
)

_MULTIRANGE = ObjectKind(
    "pg_type",
    f"""pg_catalog.pg_type x JOIN pg_catalog.pg_range g ON g.rngmultitypid = x.oid JOIN pg_catalog.pg_type r ON r.oid = g.rngtypid
        WHERE {_in("r.typnamespace")} AND r.oid > {_LAST_SYSTEM_OID} AND NOT {_member("pg_type", "r.oid")}""",
    of=("pg_type", "g.rngtypid"),
)
_PUBLICATION = ObjectKind("pg_publication", _without_schema("pg_publication"), owner="x.pubowner", superuser="x.puballtables")
_PUBLICATION_15 = ObjectKind(
    "pg_publication",
    _without_schema("pg_publication"),
    owner="x.pubowner",
    superuser="(x.puballtables OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s WHERE s.pnpubid = x.oid))",
)
_PUBLICATION_SCHEMA = ObjectKind(
    "pg_publication_namespace",
    f"""pg_catalog.pg_publication_namespace x
        WHERE %(all)s AND {_in("x.pnnspid")} AND NOT {_member("pg_publication", "x.pnpubid")}""",
    of=("pg_publication", "x.pnpubid"),
)

# Not in the catalog, but with dependencies of their own: (system catalog, source, what it belongs
# to).
_HIDDEN_PARTS = (
    ("pg_rewrite", _of_relation("pg_rewrite", "x.ev_class", "x.rulename = '_RETURN'"), ("pg_class", "x.ev_class")),
    (
        "pg_class",
        f"pg_catalog.pg_class x WHERE x.relkind = 'c' AND {_dumped_relation('x')}",
        ("pg_type", "x.reltype"),
    ),
    *(
        (
            catalog,
            f"""pg_catalog.{catalog} x JOIN pg_catalog.pg_depend o ON o.classid = {_class(catalog)} AND o.objid = x.oid
                  AND o.refclassid = {_class(holder)} AND o.deptype IN ('a', 'i')
                JOIN pg_catalog.{holder} h ON h.oid = o.refobjid
                WHERE {_in(f"h.{schema}")} AND h.oid > {_LAST_SYSTEM_OID} AND NOT {_member(holder, "h.oid")}""",
            (holder, "o.refobjid"),
        )
        for catalog in ("pg_amop", "pg_amproc")
        for holder, schema in (("pg_opclass", "opcnamespace"), ("pg_opfamily", "opfnamespace"))
    ),
)

# What the options leave out and a dumped object may refer to, and what no dump has, such as
# collations of the system: (system catalog, source).
_LEFT_OUT = (
    (
        "pg_class",
        f"""pg_catalog.pg_class x WHERE x.oid > {_LAST_SYSTEM_OID} AND x.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT {_member("pg_class")}
              AND (NOT {_in("x.relnamespace")} OR x.oid IN (SELECT pg_catalog.unnest(%(excluded)s::oid[])))""",
    ),
    ("pg_type", _not_in_schema("pg_type", "x.typnamespace", _OWN_TYPE)),
    ("pg_proc", _not_in_schema("pg_proc", "x.pronamespace", f"NOT {_implicit('pg_proc')}")),
    ("pg_operator", _not_in_schema("pg_operator", "x.oprnamespace")),
    ("pg_opclass", _not_in_schema("pg_opclass", "x.opcnamespace")),
    ("pg_opfamily", _not_in_schema("pg_opfamily", "x.opfnamespace")),
    ("pg_collation", f"pg_catalog.pg_collation x WHERE NOT {_in('x.collnamespace')} AND NOT {_member('pg_collation')}"),
    ("pg_conversion", _not_in_schema("pg_conversion", "x.connamespace")),
    ("pg_ts_parser", _not_in_schema("pg_ts_parser", "x.prsnamespace")),
    ("pg_ts_template", _not_in_schema("pg_ts_template", "x.tmplnamespace")),
    ("pg_ts_dict", _not_in_schema("pg_ts_dict", "x.dictnamespace")),
    ("pg_ts_config", _not_in_schema("pg_ts_config", "x.cfgnamespace")),
    ("pg_namespace", _not_in_schema("pg_namespace", "x.oid")),
    *((catalog, _without_schema(catalog).replace("%(all)s", "NOT %(all)s")) for catalog in ("pg_language", "pg_am")),
    *((catalog, _without_schema(catalog).replace("%(all)s", "NOT %(all)s")) for catalog in ("pg_foreign_data_wrapper", "pg_foreign_server")),
)
