"""Whether two databases are the same: definitions, owners, grants, rows, sequences, large objects,
as one pg_dump tells them."""

from __future__ import annotations

import difflib
import itertools

from tests.e2e.lib.postgres import PASSWORD, SUPERUSER, Database, Postgres

BARE = ("--no-owner", "--no-privileges")
"""What a restore into a new database keeps: owners and grants are the target's."""


def everything(database: Database, *options: str, client: Postgres | None = None) -> str:
    """All that pg_dump knows, with owners and grants unless `options` leave them out; rows in their
    stored order.

    `client` is the server whose pg_dump is used, so that databases of two majors can be compared;
    the database's own where none is given.
    """
    server = database.server
    environment = {
        # By address: a name would be one more thing to fail on a busy machine.
        "PGHOST": server.kube.get("pod", server.pod)["status"]["podIP"] if client else "127.0.0.1",
        "PGUSER": SUPERUSER,
        "PGPASSWORD": PASSWORD,
        "PGDATABASE": database.name,
    }
    text = (client or server).client("pg_dump", "--restrict-key=tests", *options, environment=environment).decode()
    return "\n".join(line for line in text.splitlines() if not line.startswith("-- Dumped "))


def portable(database: Database, client: Postgres) -> str:
    """What equal databases on servers of two majors have in common, as each words views in its own
    way: all objects by name and type, all rows."""
    definitions = everything(database, *BARE, "--schema-only", client=client).splitlines()
    objects = sorted(line for line in definitions if line.startswith("-- Name: "))
    return "\n".join([*objects, everything(database, *BARE, "--data-only", client=client)])


def assert_same(one: str, other: str) -> None:
    """Fails with the first lines that differ: pytest's own comparison takes minutes on dumps."""
    if one != other:
        lines = difflib.unified_diff(one.splitlines(), other.splitlines(), "before", "after", n=1, lineterm="")
        raise AssertionError("\n".join(line[:300] for line in itertools.islice(lines, 60)))
