"""Lists the databases of a server, for a schedule that selects them by patterns."""

from __future__ import annotations

from contextlib import closing

import psycopg

from dbbackup.contract.errors import Failure
from dbbackup.contract.pages import Pager
from dbbackup.contract.report import DiscoveredItem
from dbbackup.contract.run import DatabaseTarget
from dbbackup.dataplane.context import Run
from dbbackup.dataplane.postgres.connection import Connection, connect_first, to_failure
from dbbackup.dataplane.postgres.conninfo import Conninfo, load_conninfo, read_secret, resolve
from dbbackup.dataplane.postgres.encoding import session_codec
from dbbackup.dataplane.postgres.locks import cancel
from dbbackup.dataplane.sql.encodings import decode, encode
from dbbackup.text import presentable

_MAINTENANCE = "postgres"
# datconnlimit -2 (in the minor versions that use it) marks a database that an interrupted DROP
# DATABASE left: no connection to it is possible any more.
_QUERY = "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate AND datconnlimit <> -2 ORDER BY datname"


def execute(run: Run) -> None:
    """A discovery: its pages and `run.facts`; or Failure."""
    target = run.spec.database
    if target is None:
        raise Failure("InvalidSpec", "the run spec lacks `database`")
    info = load_conninfo(target.model_copy(update={"name": target.name or _MAINTENANCE}), run.paths)
    run.reporter.secret(info.password)
    pager = Pager(run.reporter.page)
    with closing(connect_first(info, _candidates(run, target), "dbbackup discover")) as connection, run.stop.calling(lambda: cancel(connection)):
        for name in _names(run, connection, info):
            pager.add(DiscoveredItem(name=name))
    run.facts.pages = pager.end()


def _candidates(run: Run, target: DatabaseTarget) -> list[str]:
    """Databases to connect to, in this order: the one that the target names, since its user can
    surely connect to it, then the maintenance database."""
    try:
        own = resolve(target, read_secret(run.paths.database_secret)).name
    except Failure:
        return [_MAINTENANCE]
    return list(dict.fromkeys((own, _MAINTENANCE)))


def _names(run: Run, connection: Connection, info: Conninfo) -> list[str]:
    """Names are bytes in the encoding of the session that created the database. A Kubernetes object
    can't contain those that are not UTF-8: they are left out with a warning."""
    try:
        rows = connection.execute(_QUERY).fetchall()
    except psycopg.Error as error:
        raise to_failure(error, info, "listing the databases", "ConnectionLost") from None
    names = []
    for (stored,) in rows:
        name = decode(encode(stored, session_codec(connection)), "utf-8")
        if (shown := presentable(name)) == name:
            names.append(name)
        else:
            run.warn(f"database {shown} of {info.host}:{info.port} is left out: its name is not UTF-8")
    return names
