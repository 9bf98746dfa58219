"""Patterns for database names."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(char) or re.escape(char) for char in pattern), re.DOTALL)


def matches(pattern: str, name: str) -> bool:
    """Whether the whole name matches: `*` stands for any characters, `?` for one. Upper and lower
    case differ, as they do for PostgreSQL."""
    return _compiled(pattern).fullmatch(name) is not None
