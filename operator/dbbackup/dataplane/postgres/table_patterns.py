"""Table patterns of the spec (`schema.table`) -> the tables they mean, and names -> the patterns
that pg_dump takes.

A part is literal and case-sensitive, but for `*` and `?` in what a backup leaves out; in double
quotes it is wholly literal and may hold a dot. Without a schema it means every schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dbbackup.contract.errors import Failure

_PART = r'"(?:[^"]|"")+"|[^."]+'
_PATTERN = re.compile(rf"(?:(?P<schema>{_PART})\.)?(?P<name>{_PART})\Z")


def matching_tables(pattern: str, tables: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """The (schema, name) pairs that `pattern` means; Failure InvalidSpec where it is none."""
    schema, name = (re.compile(_regex(part)) for part in _parts(pattern))
    return {(s, n) for s, n in tables if schema.fullmatch(s) and name.fullmatch(n)}


def tables_named(name: str, tables: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """The (schema, name) pairs that an exact name means, `*` and `?` in it being nothing special;
    Failure InvalidSpec where it is none."""
    schema, table = _parts(name)
    return {(s, n) for s, n in tables if n == _literal(table) and (not schema or s == _literal(schema))}


def _parts(text: str) -> tuple[str, str]:
    """Schema, empty where none is told, and name."""
    found = _PATTERN.match(text)
    if not found:
        raise Failure("InvalidSpec", f'{text!r} is not a table: write schema.table, and "quote" a part that holds a dot')
    return found["schema"] or "", found["name"]


def _literal(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def _regex(part: str) -> str:
    if part.startswith('"'):
        return re.escape(_literal(part))
    return "".join({"*": "(?s:.*)", "?": "(?s:.)"}.get(c) or re.escape(c) for c in part or "*")


def pg_dump_pattern(*parts: str) -> str:
    """The pattern by which pg_dump means exactly this name: quoted, nothing in it is a wildcard."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)
