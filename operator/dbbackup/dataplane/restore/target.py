"""Lists the target's user objects of every kind. Reads catalogs, changes nothing."""

from __future__ import annotations

from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.restore.roots import FIRST_USER_OID

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


def user_objects(connection: Connection, limit: int = 12) -> tuple[list[str], int]:
    """The first `limit` objects that users created in the database, and how many there are.
    Extensions, their members and their schemas don't count."""
    rows = connection.execute(USER_OBJECTS, (FIRST_USER_OID, limit)).fetchall()
    return [f"{kind} {identity}" for kind, identity, _ in rows], rows[0][2] if rows else 0


def schemas(connection: Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT n.nspname FROM pg_catalog.pg_namespace n")]
