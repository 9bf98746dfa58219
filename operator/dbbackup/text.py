"""Texts kept short for people: cut with an ellipsis, or the first few of many."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SURROGATE = re.compile("[\ud800-\udfff]")


def presentable(text: str) -> str:
    """`text` without lone surrogates, which stand for bytes that are no text in a database's
    encoding, and which neither UTF-8 nor JSON can hold: byte E9 becomes `�e9`."""
    return _SURROGATE.sub(lambda found: f"\ufffd{ord(found[0]) - 0xDC00:02x}" if "\udc80" <= found[0] <= "\udcff" else "\ufffd", text)


def cut(text: str, limit: int) -> str:
    """`text`, at most `limit` characters of it."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"[:limit]


def few(items: Iterable[str], limit: int) -> list[str]:
    """At most `limit` items, the last of which says how many more there are."""
    found = list(items)
    rest = len(found) - limit + 1
    return found if rest <= 1 else [*found[: limit - 1], f"and {rest} more"]


def listed(names: Iterable[str], limit: int = 10, *, total: int | None = None) -> str:
    """The first `limit` names, and how many more there are of `total` (default: all that came)."""
    found = list(names)
    rest = (len(found) if total is None else total) - min(len(found), limit)
    return ", ".join(found[:limit]) + (f" and {rest} more" if rest > 0 else "")
