"""Errors as a server sends them, for tests without one."""

from __future__ import annotations

import psycopg
from psycopg.pq import DiagnosticField


def raised(state: str, message_primary: str = "?", *, severity: str = "ERROR", **fields: str) -> psycopg.Error:
    """`fields` are named as psycopg's Diagnostic names them."""
    values = {"sqlstate": state, "message_primary": message_primary, "severity": severity, "severity_nonlocalized": severity, **fields}
    info: dict[int, bytes | None] = {DiagnosticField[name.upper()]: value.encode() for name, value in values.items()}
    return psycopg.errors.lookup(state)(message_primary, info=info, encoding="utf-8")
