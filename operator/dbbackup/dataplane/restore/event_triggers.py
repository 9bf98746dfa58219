"""Keeps the target's event triggers from firing during a Replace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.postgres.encoding import encoded
from dbbackup.dataplane.postgres.own_settings import OwnSettings

_ENABLED = """
SELECT t.oid, pg_catalog.quote_ident(t.evtname), t.evtenabled::pg_catalog.text FROM pg_catalog.pg_event_trigger t
WHERE t.evtenabled OPERATOR(pg_catalog.<>) 'D' AND pg_catalog.current_setting('event_triggers', true) IS NULL
  AND pg_catalog.current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on'
"""
_THERE = "SELECT t.oid FROM pg_catalog.pg_event_trigger t"
_STATES = {"O": "ENABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}


@contextmanager
def quiet(connection: Connection, settings: OwnSettings) -> Iterator[None]:
    """From PostgreSQL 17 on a setting does it, which `settings` pins. Before, a superuser disables
    them, and gives those that are still there their state back. Others cannot do either."""
    settings.pin()
    enabled = connection.execute(_ENABLED).fetchall()
    for _, name, _ in enabled:
        connection.execute(encoded(connection, f"ALTER EVENT TRIGGER {name} DISABLE"))
    yield
    settings.pin()
    there = {oid for (oid,) in connection.execute(_THERE)}
    for oid, name, state in enabled:
        if oid in there:
            connection.execute(encoded(connection, f"ALTER EVENT TRIGGER {name} {_STATES[state]}"))
