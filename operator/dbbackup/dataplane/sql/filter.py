"""Removes or rewrites statements of a plain dump, so that the artifact restores in one transaction.

Each rule is for one behaviour of PostgreSQL:

- `SET transaction_timeout` comes from pg_dump 17 and later, and servers up to 16 refuse it. It only
  repeats the default, 0.
- `pg_attver` in a column's options belongs to the newer servers that write it; others refuse it.
- `DROP SCHEMA` and `DROP EXTENSION` would fail, or drop objects that must stay in the target. Every
  other object of the dump is dropped one by one.
- `COMMENT ON EXTENSION` and `COMMENT ON SCHEMA` need the owner, which is often another role: where
  the server refuses one, a warning says so, unless the comment is already the same. `COMMENT ON
  SCHEMA public` with the standard comment, from older pg_dumps, would replace another one.
- `CREATE SCHEMA` becomes `CREATE SCHEMA IF NOT EXISTS`: the schema was not dropped, and `public`
  always exists.
- `BEGIN` and `COMMIT` around large objects would end the one transaction.
- The DROP section is for a database that holds the objects. `IF EXISTS` makes most of it harmless
  elsewhere; all other statements of it (dummies of views, `ALTER FOREIGN TABLE`, `ALTER DOMAIN`,
  what names an access method, ...) are run so that what does not exist is no error. Only for stock
  tools: our own restore does not run that section.
- Where a string ends depends on `standard_conforming_strings`, which the dump's own SQL can change
  (a CHECK that is run by COPY): it is set before each statement for which that matters. Pieces of
  large objects run nothing of the dump's own between them.
- psql takes each `begin` in CREATE FUNCTION for the beginning of a body. As a name it is quoted.
- Settings that change what the dump's texts mean, and that pg_dump does not set, are set: a
  database or a role may have others.

`\\restrict` and `\\unrestrict` stay: they guard psql against meta-commands that the dump's own SQL
smuggles in (CVE-2025-8714), where a setting that it changes moves the end of a string.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from dbbackup.dataplane.sql.splitter import Kind, Piece, SqlError, unquote

_DROPPED = re.compile(
    rb"SET\s+transaction_timeout\b|DROP\s+SCHEMA\b|DROP\s+EXTENSION\b"
    rb"|COMMENT\s+ON\s+SCHEMA\s+public\s+IS\s+'standard public schema';\Z|(?:BEGIN|COMMIT)\s*;\Z",
    re.IGNORECASE,
)
_CREATE_SCHEMA = re.compile(rb"CREATE\s+SCHEMA\s+(?!IF\s)", re.IGNORECASE)
_CREATE_EXTENSION = re.compile(rb'CREATE\s+EXTENSION\b.*\bWITH\s+SCHEMA\s+(?P<schema>"(?:[^"]|"")+"|[^\s;]+)', re.IGNORECASE | re.DOTALL)
_EXTENSION = re.compile(rb'(?:CREATE EXTENSION IF NOT EXISTS|COMMENT ON EXTENSION) ("(?:[^"]|"")+"|[^\s";]+)')
_COMMENT = re.compile(rb'COMMENT ON (EXTENSION|SCHEMA) ("(?:[^"]|"")+"|[^\s"]+) IS (.+);\Z', re.DOTALL)
_SETTING = re.compile(rb"SET\s|SELECT\s+pg_catalog\.set_config\(", re.IGNORECASE)
_DROPS = re.compile(rb"DROP\s|ALTER\s|CREATE\s+OR\s+REPLACE\s+VIEW\s|SELECT\s+pg_catalog\.lo_unlink\(", re.IGNORECASE)
_HARMLESS = re.compile(
    rb"SELECT\s|ALTER\s+TABLE\s+IF\s+EXISTS\s"
    rb"|DROP\s+(?:TABLE|INDEX|SEQUENCE|VIEW|MATERIALIZED\s+VIEW|FUNCTION|TYPE|TRIGGER|RULE|POLICY)\s+IF\s+EXISTS\s",
    re.IGNORECASE,
)
_COLUMN_OPTIONS = re.compile(rb"(ALTER\s+(?:FOREIGN\s+)?TABLE\b.*\bALTER\s+COLUMN\b.*\bSET\s*\()([^()]*)(\)\s*;)\Z", re.IGNORECASE | re.DOTALL)
_STRINGS = re.compile(rb"SET\s+standard_conforming_strings\s*=\s*(on|off);", re.IGNORECASE)
_LARGE_OBJECT = re.compile(rb"SELECT pg_catalog\.lo")
_ROUTINE = re.compile(rb"CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE) ")
_BEGIN = re.compile(
    rb"""[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$([A-Za-z_\x80-\xff]*)\$.*?\$\1\$"""
    rb"""|(?P<name>(?<![A-Za-z0-9_$\x80-\xff])begin(?![A-Za-z0-9_$\x80-\xff]))""",
    re.DOTALL,
)
_MEANINGS = b"".join(
    b"\nSET " + setting + b";"
    for setting in (
        b"array_nulls = on",
        b"transform_null_equals = off",
        b"DateStyle = ISO",
        b"IntervalStyle = postgres",
        b"backslash_quote = safe_encoding",
    )
)
_RESTRICT = re.compile(rb"\\(?:un)?restrict\s")
COMMENT_WARNING = "the comment on "
"""How the warning about a comment that was not set begins."""
_FIRST = frozenset(b"SsDdCcBbAa")


class Filter:
    """Call `apply` with each piece in order: it returns the bytes that stay, or no bytes. `stored`:
    the result is an artifact, which stock tools may restore. `leaves_out`: whether an extension of
    that name is to be left out; pg_dump before 17 cannot do that."""

    def __init__(self, *, stored: bool = True, leaves_out: Callable[[str], bool] = lambda _: False) -> None:
        self._leaves_out = leaves_out
        self._dropping = self._stored = stored
        self._strings = b"on"
        self._strings_set = False
        self._dropped = False
        self._schemas = {b"public"}

    def apply(self, piece: Piece) -> bytes:
        """SqlError for a meta-command: without --create pg_dump writes only \\restrict."""
        if piece.kind is Kind.META and not _RESTRICT.match(piece.text):
            raise SqlError(f"the dump contains a meta-command of psql: {piece.text[:60].decode('utf-8', 'replace').strip()}")
        if piece.kind is not Kind.STATEMENT:
            self._strings_set = False
            return piece.data
        data = self._statement(piece) if piece.data[piece.start] in _FIRST else piece.data
        large_object = _LARGE_OBJECT.match(piece.text) is not None
        self._strings_set = self._strings_set and large_object
        if data and not self._dropping and not self._strings_set and b"\\" in piece.text:
            self._strings_set = large_object
            return b"\nSET standard_conforming_strings = " + self._strings + b";" + (b"" if data.startswith(b"\n") else b"\n") + data
        return data

    def _statement(self, piece: Piece) -> bytes:
        text = piece.text
        lead = piece.data[: piece.start]
        first = text[:6].upper()
        if _DROPPED.match(text) or ((extension := _EXTENSION.match(text)) and self._leaves_out(unquote(extension[1]))):
            return b""
        if strings := _STRINGS.match(text):
            self._strings = strings[1]
            return piece.data + _MEANINGS if self._stored else piece.data
        if self._dropping and self._in_drop_section(lead, text):
            return piece.data if _HARMLESS.match(text) else lead + _where_it_exists(text)
        if first == b"CREATE":
            return lead + self._create(text)
        if first[:5] == b"ALTER" and b"pg_attver" in text:
            return self._column_options(lead, text)
        if first == b"COMMEN" and (comment := _COMMENT.match(text)):
            return lead + _as_far_as_allowed(comment)
        return piece.data

    def _in_drop_section(self, lead: bytes, text: bytes) -> bool:
        """The section is between the settings at the start and the first statement that pg_dump
        writes a comment before."""
        if not self._dropped and _SETTING.match(text):
            return False
        self._dropping = self._dropped = _DROPS.match(text) is not None and b"--" not in lead
        return self._dropping

    def _create(self, text: bytes) -> bytes:
        if self._stored and b"begin" in text and _ROUTINE.match(text):
            return _BEGIN.sub(lambda found: b'"begin"' if found["name"] else found[0], text)
        if schema := _CREATE_SCHEMA.match(text):
            self._schemas.add(text[schema.end() :].rstrip(b" ;"))
            return b"CREATE SCHEMA IF NOT EXISTS " + text[schema.end() :]
        if (extension := _CREATE_EXTENSION.match(text)) and not self._exists(extension["schema"]):
            self._schemas.add(extension["schema"])
            return b"CREATE SCHEMA IF NOT EXISTS " + extension["schema"] + b";\n" + text
        return text

    def _exists(self, schema: bytes) -> bool:
        """Whether every database has the schema, or the dump made it before. Nobody may make one of
        the system's, not even with IF NOT EXISTS."""
        return schema in self._schemas or is_system_schema(unquote(schema))

    @staticmethod
    def _column_options(lead: bytes, text: bytes) -> bytes:
        found = _COLUMN_OPTIONS.match(text)
        if not found:
            return lead + text
        options = [option for option in found[2].split(b",") if not option.strip().startswith(b"pg_attver")]
        return lead + found[1] + b",".join(options).strip() + found[3] if options else b""


def is_system_schema(name: str) -> bool:
    """Whether the server keeps the name for itself."""
    return name.startswith("pg_") or name == "information_schema"


def _where_it_exists(text: bytes) -> bytes:
    missing = b"undefined_table OR invalid_schema_name OR undefined_object OR undefined_column OR undefined_function"
    return _block(text, b"EXCEPTION WHEN " + missing + b" THEN NULL;")


def _as_far_as_allowed(comment: re.Match[bytes]) -> bytes:
    """The statement, so that a user who does not own the object gets a warning, and only where the
    comment is another one."""
    kind, name, new = comment.groups()
    literal = b"E'" + unquote(name).replace("\\", "\\\\").replace("'", "''").encode("utf-8", "surrogateescape") + b"'"
    catalog, column = (b"pg_extension", b"extname") if kind == b"EXTENSION" else (b"pg_namespace", b"nspname")
    found = b"(SELECT oid FROM pg_catalog." + catalog + b" WHERE " + column + b" = " + literal + b")"
    return _block(
        comment[0],
        b"EXCEPTION WHEN insufficient_privilege THEN\n"
        b"IF coalesce(pg_catalog.obj_description(" + found + b", '" + catalog + b"'), '') <> " + new + b" THEN\n"
        b"RAISE WARNING '" + COMMENT_WARNING.encode() + kind.lower() + b" % was not set: %', " + literal + b", SQLERRM;\nEND IF;",
    )


def _block(text: bytes, exception: bytes) -> bytes:
    tag = b"$dbbackup$"
    while tag in text:
        tag = tag[:-1] + b"_$"
    return b"DO " + tag + b"\nBEGIN\n" + text + b"\n" + exception + b"\nEND\n" + tag + b";"
