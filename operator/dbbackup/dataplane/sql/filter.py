"""Removes or rewrites statements of a plain dump, so that the artifact restores in one transaction.

Each rule is for one behaviour of PostgreSQL:

- `SET transaction_timeout` comes from pg_dump 17 and later, and servers up to 16 refuse it. It only
  repeats the default, 0.
- `pg_attver` in a column's options belongs to the newer servers that write it; others refuse it.
- `DROP SCHEMA` and `DROP EXTENSION` would fail, or drop objects that must stay in the target. Every
  other object of the dump is dropped one by one.
- `COMMENT ON EXTENSION` and `COMMENT ON SCHEMA public` need the owner, which is often another role.
  The comments are the standard ones.
- `CREATE SCHEMA` becomes `CREATE SCHEMA IF NOT EXISTS`: the schema was not dropped, and `public`
  always exists.
- `BEGIN` and `COMMIT` around large objects would end the one transaction.
- A view that pg_dump split in two because of its dependencies is replaced by a dummy in the DROP
  section. Where the target has no such view, no dummy is created.
- psql before August 2025 refuses `\\restrict` and `\\unrestrict`. They guard psql against
  meta-commands smuggled into a dump (CVE-2025-8714). Here the splitter finds the end of every
  statement, a meta-command fails the backup, and our own restore does not run psql.
"""

from __future__ import annotations

import re

from dbbackup.dataplane.sql.splitter import Kind, Piece, SqlError, qualified_name

_DROPPED = re.compile(
    rb"SET\s+transaction_timeout\b|DROP\s+SCHEMA\b|DROP\s+EXTENSION\b|COMMENT\s+ON\s+EXTENSION\b|COMMENT\s+ON\s+SCHEMA\s+public\s+IS\b"
    rb"|(?:BEGIN|COMMIT)\s*;\Z",
    re.IGNORECASE,
)
_CREATE_SCHEMA = re.compile(rb"CREATE\s+SCHEMA\s+(?!IF\s)", re.IGNORECASE)
_CREATE_EXTENSION = re.compile(rb'CREATE\s+EXTENSION\b.*\bWITH\s+SCHEMA\s+(?P<schema>"(?:[^"]|"")+"|[^\s;]+)', re.IGNORECASE | re.DOTALL)
_DUMMY_VIEW = re.compile(rb"CREATE\s+OR\s+REPLACE\s+VIEW\s+(?=\S)", re.IGNORECASE)
_DUMMY_COLUMNS = re.compile(rb"\sAS\s+SELECT\s+NULL::", re.IGNORECASE)
_COLUMN_OPTIONS = re.compile(rb"(ALTER\s+(?:FOREIGN\s+)?TABLE\b.*\bALTER\s+COLUMN\b.*\bSET\s*\()([^()]*)(\)\s*;)\Z", re.IGNORECASE | re.DOTALL)
_RESTRICT = re.compile(rb"\\(?:un)?restrict\s")
_FIRST = frozenset(b"SsDdCcBbAa")


class Filter:
    """Call `apply` with each piece in order: it returns the bytes that stay, or no bytes."""

    def __init__(self) -> None:
        self._dropping = True
        self._schemas: set[bytes] = set()

    def apply(self, piece: Piece) -> bytes:
        """SqlError for a meta-command: without --create pg_dump writes only \\restrict."""
        if piece.kind is Kind.META:
            if _RESTRICT.match(piece.text):
                return piece.data[: piece.start]
            raise SqlError(f"the dump contains a meta-command of psql: {piece.text[:60].decode('utf-8', 'replace').strip()}")
        if piece.kind is not Kind.STATEMENT or piece.data[piece.start] not in _FIRST:
            return piece.data
        return self._statement(piece)

    def _statement(self, piece: Piece) -> bytes:
        text = piece.text
        lead = piece.data[: piece.start]
        first = text[:6].upper()
        if _DROPPED.match(text):
            return b""
        if first == b"CREATE":
            return lead + self._create(text)
        if first[:5] == b"ALTER" and b"pg_attver" in text:
            return self._column_options(lead, text)
        return piece.data

    def _create(self, text: bytes) -> bytes:
        if self._dropping:
            if (view := _DUMMY_VIEW.match(text)) and _DUMMY_COLUMNS.search(text):
                return _only_if_there(text, view.end())
            self._dropping = False
        if schema := _CREATE_SCHEMA.match(text):
            self._schemas.add(text[schema.end() :].rstrip(b" ;"))
            return b"CREATE SCHEMA IF NOT EXISTS " + text[schema.end() :]
        if (extension := _CREATE_EXTENSION.match(text)) and extension["schema"] not in self._schemas | {b"public", b"pg_catalog"}:
            self._schemas.add(extension["schema"])
            return b"CREATE SCHEMA IF NOT EXISTS " + extension["schema"] + b";\n" + text
        return text

    @staticmethod
    def _column_options(lead: bytes, text: bytes) -> bytes:
        found = _COLUMN_OPTIONS.match(text)
        if not found:
            return lead + text
        options = [option for option in found[2].split(b",") if not option.strip().startswith(b"pg_attver")]
        return lead + found[1] + b",".join(options).strip() + found[3] if options else b""


def _only_if_there(text: bytes, name_at: int) -> bytes:
    qualified_name(text, name_at)
    name = re.match(rb'(?:"(?:[^"]|"")+"|[^\s."]+)\.(?:"(?:[^"]|"")+"|[^\s."]+)', text[name_at:])
    quoted = name[0].replace(b"'", b"''") if name else b""
    tag = b"$dbbackup$"
    while tag in text:
        tag = tag[:-1] + b"_$"
    return b"DO " + tag + b"\nBEGIN\nIF pg_catalog.to_regclass('" + quoted + b"') IS NOT NULL THEN\n" + text + b"\nEND IF;\nEND\n" + tag + b";"
