"""Matches the spec's table patterns (`schema.table`) with tables, and makes pg_dump's patterns from
names.

A part is literal and case-sensitive, except for `*` and `?` in the tables that a backup leaves out.
In double quotes it is entirely literal and may contain a dot. Without a schema it means every
schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dbbackup.contract.errors import Failure
from dbbackup.text import presentable

_PART = r'"(?:[^"]|"")+"|[^."]+'
_PATTERN = re.compile(rf"(?:(?P<schema>{_PART})\.)?(?P<name>{_PART})\Z")


def matching_tables(pattern: str, tables: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """The (schema, name) pairs that `pattern` matches; Failure InvalidSpec where it is
    malformed."""
    schema, name = (re.compile(_regex(part)) for part in _parts(pattern))
    return {(s, n) for s, n in tables if schema.fullmatch(presentable(s)) and name.fullmatch(presentable(n))}


def matching_names(pattern: str, names: Iterable[str]) -> set[str]:
    """The names, of schemas or extensions, that `pattern` matches; Failure InvalidSpec where it is
    malformed."""
    if not re.fullmatch(_PART, pattern):
        raise Failure("InvalidSpec", f'{pattern!r} is not one name: "quote" a name that holds a dot')
    regex = re.compile(_regex(pattern))
    return {name for name in names if regex.fullmatch(presentable(name))}


def tables_named(name: str, tables: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """The (schema, name) pairs that an exact name means: `*` and `?` in it are literal. Failure
    InvalidSpec where it is malformed."""
    schema, table = _parts(name)
    return {(s, n) for s, n in tables if presentable(n) == _literal(table) and (not schema or presentable(s) == _literal(schema))}


def _parts(text: str) -> tuple[str, str]:
    """(schema, name); the schema is empty where the text has none."""
    found = _PATTERN.match(text)
    if not found:
        raise Failure("InvalidSpec", f'{text!r} is not the name of a table: write schema.table, and "quote" a part that holds a dot')
    return found["schema"] or "", found["name"]


def _literal(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def _regex(part: str) -> str:
    if part.startswith('"'):
        return re.escape(_literal(part))
    return "".join({"*": "(?s:.*)", "?": "(?s:.)"}.get(c) or re.escape(c) for c in part or "*")


def pg_dump_pattern(*parts: str) -> str:
    """The pattern that matches exactly this name in pg_dump: quoted, so that nothing is a
    wildcard."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)
