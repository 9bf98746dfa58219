"""Whether two databases are the same: definitions, owners, grants, rows, sequences, large objects, as one pg_dump tells them."""

from __future__ import annotations

import difflib
import itertools

from tests.e2e.lib.postgres import PASSWORD, SUPERUSER, Database, Postgres

BARE = ("--no-owner", "--no-privileges")
"""What a restore into a new database keeps: owners and grants are the target's."""


def everything(database: Database, *options: str, client: Postgres | None = None) -> str:
    """All that pg_dump knows, with owners and grants unless `options` leave them out; rows in their stored order.

    `client` is the server whose pg_dump is used, so that databases of two majors can be compared; the database's own where none is given.
    """
    environment = {"PGHOST": database.server.host, "PGUSER": SUPERUSER, "PGPASSWORD": PASSWORD, "PGDATABASE": database.name}
    text = (client or database.server).client("pg_dump", "--restrict-key=tests", *options, environment=environment).decode()
    return "\n".join(line for line in text.splitlines() if not line.startswith("-- Dumped "))


def assert_same(one: str, other: str) -> None:
    """Fails with the first lines that differ: pytest's own comparison takes minutes on dumps."""
    if one != other:
        lines = difflib.unified_diff(one.splitlines(), other.splitlines(), "before", "after", n=1, lineterm="")
        raise AssertionError("\n".join(line[:300] for line in itertools.islice(lines, 60)))
