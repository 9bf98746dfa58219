"""Tests, as a run would, whether a database can be reached and backed up: its identity, its
version, and what its user may read."""

from __future__ import annotations

from contextlib import closing

import psycopg

from dbbackup.contract.errors import Failure
from dbbackup.contract.report import DatabaseReport
from dbbackup.dataplane.context import Run
from dbbackup.dataplane.postgres import clients
from dbbackup.dataplane.postgres.connection import Connection, connect, one, server_version, to_failure, uses_tls
from dbbackup.dataplane.postgres.conninfo import Conninfo, load_conninfo
from dbbackup.dataplane.postgres.locks import cancel
from dbbackup.text import listed

# Members of extensions are not dumped, and not every user may read their tables.
_TABLES = """
SELECT c.oid::pg_catalog.regclass::text,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm', 'f') AND n.nspname <> 'information_schema' AND NOT pg_catalog.starts_with(n.nspname, 'pg_')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1
"""
_NAMED = 5


def execute(run: Run) -> None:
    """Sets `run.facts.database` before anything else can fail, and warns of what would make a
    backup fail; or Failure."""
    if run.spec.database is None:
        raise Failure("InvalidSpec", "the run spec lacks `database`")
    info = load_conninfo(run.spec.database, run.paths)
    run.reporter.secret(info.password)
    with closing(connect(info, "dbbackup reach")) as connection, run.stop.calling(lambda: cancel(connection)):
        number = _look(run, connection, info)
    client = clients.choose(number, clients.installed(run.paths.postgresql))
    run.reporter.info(f"{info.who}: reached; pg_dump {client.version()} will back it up")


def _look(run: Run, connection: Connection, info: Conninfo) -> int:
    """The server's version as a number."""
    try:
        number, version = server_version(connection)
        (size,) = one(connection, "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())")
        tables = connection.execute(_TABLES).fetchall()
    except psycopg.Error as error:
        raise to_failure(error, info, "looking at the database", "ConnectionLost") from None
    run.facts.database = DatabaseReport(
        identity=info.identity, name=info.name, server_version=version, size_bytes=int(size), tables=len(tables), tls=uses_tls(connection)
    )
    closed = [str(name) for name, readable in tables if not readable]
    if closed:
        run.warn(f"user {info.user} may not read {listed(closed, _NAMED)}: a backup of the whole database fails (InsufficientPrivilege)")
    return number
