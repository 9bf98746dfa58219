"""Queries over the source's catalogs, for servers 13 to 18. Pure text; `snapshot.py` runs it."""

from __future__ import annotations

_USER_SCHEMA = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_NOT_EXTENSION = """NOT EXISTS (SELECT FROM pg_catalog.pg_depend x
    WHERE x.classid = '{catalog}'::pg_catalog.regclass AND x.objid = {oid} AND x.deptype = 'e')"""

# pg_dump dumps what users made in a schema that an extension's script made (cron, pgmq): only the
# schema itself is the extension's.
SCHEMAS = f"""
SELECT n.nspname FROM pg_catalog.pg_namespace n
WHERE {_USER_SCHEMA} AND ({_NOT_EXTENSION.format(catalog="pg_catalog.pg_namespace", oid="n.oid")}
  OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'f', 'm', 'S', 'v', 'c')
             AND {_NOT_EXTENSION.format(catalog="pg_catalog.pg_class", oid="c.oid")})
  OR EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.pronamespace = n.oid
             AND {_NOT_EXTENSION.format(catalog="pg_catalog.pg_proc", oid="p.oid")})
  OR EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.typnamespace = n.oid AND t.typtype IN ('d', 'e', 'r')
             AND {_NOT_EXTENSION.format(catalog="pg_catalog.pg_type", oid="t.oid")}))
ORDER BY 1
"""  # noqa: S608 - constants only

RELATIONS = f"""
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind, c.relpersistence,
       pg_catalog.row_security_active(c.oid),
       pg_catalog.has_table_privilege(c.oid, 'SELECT'),
       pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
       CASE WHEN c.relkind IN ('r', 'm') THEN c.relpages::bigint * pg_catalog.current_setting('block_size')::bigint ELSE 0 END,
       (SELECT pg_catalog.array_agg(p.oid) FROM (
          SELECT i.inhparent::bigint FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid
          UNION ALL SELECT d.refobjid::bigint FROM pg_catalog.pg_depend d WHERE c.relkind = 'S' AND d.objid = c.oid AND d.deptype IN ('a', 'i')
            AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass) p (oid))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE {_USER_SCHEMA} AND c.relkind IN ('r', 'p', 'f', 'm', 'S', 'v') AND c.relpersistence <> 't'
  AND {_NOT_EXTENSION.format(catalog="pg_catalog.pg_class", oid="c.oid")}
ORDER BY 2, 3
"""  # noqa: S608 - constants only

DATABASE = """
SELECT (pg_catalog.to_jsonb(d) - 'datacl')::text, pg_catalog.pg_encoding_to_char(d.encoding), pg_catalog.pg_database_size(d.oid),
       (SELECT s.reset_val FROM pg_catalog.pg_settings s WHERE s.name = 'search_path')
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""

# Whether a hash partition's rows may belong into another one in the target: their hashes follow
# oids there (of an enum within an array, a row or a range; of what a regclass names), or a function
# of the user's own. pg_dump itself knows only plain enums.
MOVING_HASHES = """
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_partitioned_table p
    JOIN pg_catalog.pg_opclass o ON o.oid = ANY (p.partclass) JOIN pg_catalog.pg_type t ON t.oid = o.opcintype
  WHERE p.partstrat = 'h' AND (o.oid >= 16384 OR t.typtype <> 'b' OR t.typname IN ('oid', 'oidvector', 'aclitem')) AND t.typname <> 'anyenum')
"""

# All objects of the dumped schemas that can depend on another.
_OBJECTS = """
objects (classid, objid) AS (
  SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, oid FROM pg_catalog.pg_class WHERE relnamespace = ANY (%(namespaces)s)
  UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, oid FROM pg_catalog.pg_type WHERE typnamespace = ANY (%(namespaces)s)
  UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, oid FROM pg_catalog.pg_proc WHERE pronamespace = ANY (%(namespaces)s)
  UNION ALL SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, oid FROM pg_catalog.pg_operator WHERE oprnamespace = ANY (%(namespaces)s)
  UNION ALL SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, oid FROM pg_catalog.pg_opclass WHERE opcnamespace = ANY (%(namespaces)s)
  UNION ALL SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, oid FROM pg_catalog.pg_opfamily WHERE opfnamespace = ANY (%(namespaces)s)
  UNION ALL SELECT 'pg_catalog.pg_ts_config'::pg_catalog.regclass, oid FROM pg_catalog.pg_ts_config WHERE cfgnamespace = ANY (%(namespaces)s)
  UNION ALL SELECT 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, oid FROM pg_catalog.pg_ts_dict WHERE dictnamespace = ANY (%(namespaces)s)
  UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, oid FROM pg_catalog.pg_statistic_ext WHERE stxnamespace = ANY (%(namespaces)s)
  UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, oid FROM pg_catalog.pg_constraint WHERE connamespace = ANY (%(namespaces)s)
  UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, d.oid FROM pg_catalog.pg_attrdef d
    JOIN pg_catalog.pg_class c ON c.oid = d.adrelid WHERE c.relnamespace = ANY (%(namespaces)s)
  UNION ALL SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, r.oid FROM pg_catalog.pg_rewrite r
    JOIN pg_catalog.pg_class c ON c.oid = r.ev_class WHERE c.relnamespace = ANY (%(namespaces)s)
  UNION ALL SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid FROM pg_catalog.pg_trigger t
    JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = ANY (%(namespaces)s) AND NOT t.tgisinternal
  UNION ALL SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, p.oid FROM pg_catalog.pg_policy p
    JOIN pg_catalog.pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = ANY (%(namespaces)s)
)"""

# Extensions whose schema is dumped, or with a member that an object of a dumped schema depends on.
EXTENSIONS = f"""
WITH {_OBJECTS},
needed (oid) AS (
  SELECT m.refobjid FROM objects o
    JOIN pg_catalog.pg_depend d ON d.classid = o.classid AND d.objid = o.objid AND d.deptype <> 'e'
    JOIN pg_catalog.pg_depend m ON m.classid = d.refclassid AND m.objid = d.refobjid AND m.deptype = 'e'
  WHERE m.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
)
SELECT e.extname, n.nspname, e.extversion
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
WHERE e.oid >= 16384 AND (%(all)s OR e.extnamespace = ANY (%(namespaces)s) OR e.oid IN (SELECT oid FROM needed))
ORDER BY 1
"""  # noqa: S608 - constants only

ROLES = """
SELECT r.rolname FROM pg_catalog.pg_policy p CROSS JOIN LATERAL pg_catalog.unnest(p.polroles) AS role (oid)
  JOIN pg_catalog.pg_roles r ON r.oid = role.oid
WHERE p.polrelid = ANY (%(tables)s)
UNION SELECT u.usename FROM pg_catalog.pg_user_mappings u WHERE %(all)s AND u.usename <> 'public'
ORDER BY 1
"""

# The rule of the view itself about whose options a user may see.
CLOSED_MAPPINGS = """
SELECT 'user mapping for ' || m.usename || ' on server ' || m.srvname
FROM pg_catalog.pg_user_mappings m JOIN pg_catalog.pg_foreign_server s ON s.oid = m.srvid
WHERE NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER)
  AND NOT (pg_catalog.pg_has_role(s.srvowner, 'USAGE') AND (m.umuser = 0 OR m.usename = CURRENT_USER))
  AND NOT (m.umuser <> 0 AND m.usename = CURRENT_USER AND pg_catalog.has_server_privilege(s.oid, 'USAGE'))
ORDER BY 1
"""

EVENT_TRIGGERS = f"""
SELECT t.evtname FROM pg_catalog.pg_event_trigger t WHERE {_NOT_EXTENSION.format(catalog="pg_catalog.pg_event_trigger", oid="t.oid")} ORDER BY 1
"""  # noqa: S608 - constants only

PUBLICATIONS = "SELECT pubname FROM pg_catalog.pg_publication WHERE puballtables ORDER BY 1"
PUBLICATIONS_15 = """
SELECT p.pubname FROM pg_catalog.pg_publication p
WHERE p.puballtables OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s WHERE s.pnpubid = p.oid) ORDER BY 1
"""

# Relations with their TOAST tables and these one's indexes: what a restore of it all would lock.
FIGURES = f"""
SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata),
       (SELECT pg_catalog.count(*) + pg_catalog.count(NULLIF(c.reltoastrelid, 0)) * 2 FROM pg_catalog.pg_class c
        WHERE c.relnamespace = ANY (%(namespaces)s) AND c.relpersistence <> 't'),
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_proc p WHERE p.pronamespace = ANY (%(namespaces)s)
          AND {_NOT_EXTENSION.format(catalog="pg_catalog.pg_proc", oid="p.oid")})
"""  # noqa: S608 - constants only

# As the server decides when pg_dump reads one; has_largeobject_privilege came with PostgreSQL 18.
CLOSED_LARGE_OBJECTS = """
SELECT m.oid::bigint, pg_catalog.pg_get_userbyid(m.lomowner), pg_catalog.count(*) OVER () FROM pg_catalog.pg_largeobject_metadata m
WHERE pg_catalog.current_setting('lo_compat_privileges') = 'off'
  AND NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = CURRENT_USER)
  AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(m.lomacl, pg_catalog.acldefault('L', m.lomowner))) a
                  WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))
ORDER BY 1 LIMIT 20
"""

NAMESPACES = "SELECT oid::bigint FROM pg_catalog.pg_namespace WHERE nspname = ANY (%s::name[])"

# With those of extensions: what users made in them is dumped.
OTHER_NAMESPACES = f"SELECT n.oid::bigint FROM pg_catalog.pg_namespace n WHERE {_USER_SCHEMA} AND n.nspname <> ALL (%s::name[])"  # noqa: S608 - constants only
