"""Turns the server's error for a statement into a Failure, without the data in the error. Pure."""

from __future__ import annotations

import re

import psycopg

from dbbackup.contract.errors import Failure
from dbbackup.dataplane.postgres.reasons import session_ended, session_reason, user_raised

_LARGE_OBJECT = re.compile(r"SELECT pg_catalog\.lo\w+\(\s*'?(\d*)")
_HEAD_END = re.compile(r"[('$=]|\sAS\s|\sIS\s|\sUSING\s|\sWITH\s")
_CONSTRAINT = re.compile(r"(ALTER TABLE .*? ADD CONSTRAINT \S+(?: \w+(?: KEY)?)?)")
_FUNCTION = re.compile(r'^(?:PL/\w+|SQL) function "?([^\s"(]+)', re.MULTILINE)
_VALUE = re.compile(r': (?:"|\').*', re.DOTALL)

_CONSTRAINT_HINT = {
    "23503": "Rows that stay in the target may refer to rows that the artifact lacks: remove or correct them, then restore.",
}


def describe(statement: bytes | str) -> str:
    """A statement in one short line without values: `ALTER TABLE ONLY app.s ADD CONSTRAINT s_u_fkey
    FOREIGN KEY`."""
    text = " ".join((statement if isinstance(statement, str) else statement[:2000].decode("utf-8", "replace")).split())
    if found := _LARGE_OBJECT.match(text):
        return f"large object {found[1]}" if len(found[1]) > 1 else "large object data"
    if found := _CONSTRAINT.match(text):
        return found[1]
    end = _HEAD_END.search(text)
    return (text[: end.start()] if end else text)[:160].strip().rstrip(";")


def primary_text(error: psycopg.Error) -> str:
    """The server's message without a value that it quotes."""
    text = error.diag.message_primary or " ".join(str(error).split())
    return _VALUE.sub("", text) if (error.sqlstate or "")[:2] in {"22", "23"} else text


def statement_failure(error: psycopg.Error, statement: bytes | str, who: str) -> Failure:
    """The Failure for the error of a restore's statement.

    Values of the data are left out: the server's DETAIL, its COPY context except the line, and the
    text that a message quotes after a colon.
    """
    state = error.sqlstate or ""
    if state[:2] != "23" and user_raised(error):
        state = ""
    primary = primary_text(error)
    context = error.diag.context or ""
    doing = describe(statement)
    if session_ended(error):
        return Failure("ConnectionLost", f"{who}: {doing}: {primary}")
    line = re.search(r"COPY [^,]+, line (\d+)", context)
    where = f"{doing}, row {line[1]}" if line else doing
    if state in {"42P01", "42883", "42704", "3F000", "42703"} and (found := _FUNCTION.search(context)):
        return Failure("SearchPathDependency", f"{who}: {where}: function {found[1]} failed with: {primary}")
    detail = ""
    if state == "2BP01":
        detail = f" ({'; '.join((error.diag.message_detail or '').splitlines()[:8])})"
    if state[:2] == "23":
        at = f" (table {error.diag.schema_name}.{error.diag.table_name})" if error.diag.table_name else ""
        return Failure("ConstraintViolation", f"{who}: {where}: {primary}{at}", _CONSTRAINT_HINT.get(state))
    reason = "DependentObjects" if state == "2BP01" else session_reason(error) or "RestoreFailed"
    return Failure(reason, f"{who}: {where}: {primary}{detail}")
