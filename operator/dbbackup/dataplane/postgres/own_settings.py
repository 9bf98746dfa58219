"""The settings under which our own SQL runs in a session that also runs the SQL of others.

Functions of an artifact or of the target may change any setting, also for the rest of the session,
and also while a statement of ours runs: a CHECK, an index function, an event trigger. So `pin`
comes before each of our queries that follows such SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from dbbackup.dataplane.postgres.encoding import own_client_encoding

_PINNED: Mapping[str, str] = {
    "search_path": "pg_catalog, pg_temp",  # pg_temp last: without it, temporary tables hide catalogs
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "xmloption": "content",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "quote_all_identifiers": "off",
    "row_security": "off",
    "jit": "off",  # to compile a query over catalogs takes longer than to run it
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
_WHERE_KNOWN: Mapping[str, str] = {"idle_session_timeout": "0", "transaction_timeout": "0"}
"""Settings that older servers lack."""
_QUIET = """
SELECT pg_catalog.set_config('event_triggers', 'off', false)
WHERE pg_catalog.current_setting('event_triggers', true) IS NOT NULL AND pg_catalog.current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on'
"""
_RELEASED = """
SELECT pg_catalog.set_config(s.name, s.reset_val, false) FROM pg_catalog.pg_settings s
WHERE s.name OPERATOR(pg_catalog.=) 'jit'
   OR (s.name OPERATOR(pg_catalog.=) 'event_triggers' AND %s::pg_catalog.bool
       AND pg_catalog.current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on')
"""


class OwnSettings:
    """`lock_timeout` and `check_interval` (client_connection_check_interval) in seconds; 0 is
    none."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]], lock_timeout: int = 0, check_interval: int = 0) -> None:
        self._connection = connection
        pinned = {**_PINNED, "lock_timeout": f"{lock_timeout:d}s"}
        pinned["client_encoding"] = own_client_encoding(connection)
        if name := connection.pgconn.parameter_status(b"application_name"):
            pinned["application_name"] = name.decode("ascii")
        optional = {**_WHERE_KNOWN, "client_connection_check_interval": f"{check_interval:d}s"} if check_interval else _WHERE_KNOWN
        self._statements = ";".join(
            (
                "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL",
                "SELECT " + ", ".join(_set(name, value) for name, value in pinned.items()),
                *(f"SELECT {_set(name, value)} WHERE pg_catalog.current_setting('{name}', true) IS NOT NULL" for name, value in optional.items()),
                _QUIET,
            )
        ).encode()

    def pin(self) -> None:
        """One round trip. The statements mean the same under every setting: no backslash is in
        them, and every name is qualified."""
        self._connection.execute(self._statements)

    def release(self, *, event_triggers: bool) -> None:
        """For the SQL of others: it is compiled, and where wanted event triggers fire on it, as it
        would be without us."""
        self._connection.execute(_RELEASED, (event_triggers,))


def _set(name: str, value: str) -> str:
    return f"pg_catalog.set_config('{name}', '{value}', false)"
