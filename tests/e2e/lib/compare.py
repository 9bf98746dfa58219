"""Whether two databases are the same: definitions, owners, grants, rows, sequences, large objects, as the server's own pg_dump tells them."""

from __future__ import annotations

import difflib
import itertools

from tests.e2e.lib.postgres import Database

BARE = ("--no-owner", "--no-privileges")
"""What a restore into a new database keeps: owners and grants are the target's."""


def everything(database: Database, *options: str) -> str:
    """All that pg_dump knows, with owners and grants unless `options` leave them out; rows in their stored order."""
    return database.dump("--restrict-key=tests", *options).decode()


def assert_same(one: str, other: str) -> None:
    """Fails with the first lines that differ: pytest's own comparison takes minutes on dumps."""
    if one != other:
        lines = difflib.unified_diff(one.splitlines(), other.splitlines(), "before", "after", n=1, lineterm="")
        raise AssertionError("\n".join(line[:300] for line in itertools.islice(lines, 60)))
