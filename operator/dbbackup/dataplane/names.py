"""Table patterns of the spec (`schema.table`) -> the tables they mean, and names -> the patterns that pg_dump takes.

A part is literal and case-sensitive, but for `*` and `?`; in double quotes it is wholly literal and may hold a dot. Without a schema it means
every schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dbbackup.errors import Failure

_PART = r'"(?:[^"]|"")+"|[^."]+'
_PATTERN = re.compile(rf"(?:(?P<schema>{_PART})\.)?(?P<name>{_PART})\Z")


def matches(pattern: str, tables: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """The (schema, name) pairs that `pattern` means; Failure InvalidSpec where it is none."""
    found = _PATTERN.match(pattern)
    if not found:
        raise Failure("InvalidSpec", f'{pattern!r} is not a table: write schema.table, and "quote" a part that holds a dot')
    schema = re.compile(_regex(found["schema"] or "*"))
    name = re.compile(_regex(found["name"]))
    return {(s, n) for s, n in tables if schema.fullmatch(s) and name.fullmatch(n)}


def _regex(part: str) -> str:
    if part.startswith('"'):
        return re.escape(part[1:-1].replace('""', '"'))
    return "".join({"*": "(?s:.*)", "?": "(?s:.)"}.get(c) or re.escape(c) for c in part)


def pg_dump_pattern(*parts: str) -> str:
    """The pattern by which pg_dump means exactly this name: quoted, nothing in it is a wildcard."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)
