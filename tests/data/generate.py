"""The demo database as SQL for psql: `python -m tests.data.generate [--servers 276] [--role-prefix
''] > inventory.sql`.

Load it as a superuser into an empty database, PostgreSQL 13 or newer: `psql -X -v ON_ERROR_STOP=1
-d assetdex -f inventory.sql`. The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.data import rows

HERE = Path(__file__).parent
SERVERS = 276
EXCLUDED_ROWS = ("auth.sessions", "auth.refresh_tokens")
"""Tables whose rows the examples leave out of backups."""


@dataclass(frozen=True, slots=True)
class Roles:
    """Names of the roles, which every database of a server shares; `owner` owns all and may log in
    (it is given no password here)."""

    owner: str
    readonly: str
    authenticated: str
    service: str

    @classmethod
    def with_prefix(cls, prefix: str = "") -> Roles:
        if not re.fullmatch(r"([a-z_][a-z0-9_]*)?", prefix):
            raise ValueError(f"{prefix!r}: a role prefix holds lower-case letters, digits and underscores")
        return cls(*(f"{prefix}inventory_{name}" for name in ("owner", "readonly", "authenticated", "service")))


def _sql_file(name: str, roles: Roles) -> str:
    text = (HERE / name).read_text()
    for field in ("owner", "readonly", "authenticated", "service"):
        text = text.replace(f"@{field}@", getattr(roles, field))
    return text


def render(servers: int = SERVERS, role_prefix: str = "") -> str:
    """SQL that fills an empty database; every server has one row in power_specs. `role_prefix`
    keeps databases of one server apart."""
    roles = Roles.with_prefix(role_prefix)
    parts = [
        "SET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\n",
        _sql_file("schema.sql", roles),
        _sql_file("functions.sql", roles),
        "BEGIN;\n",
    ]
    for table in rows.tables(servers):
        lines = "".join("\t".join(map(rows.copy_field, row)) + "\n" for row in table.rows)
        parts.append(f"COPY {table.name} ({', '.join(table.columns)}) FROM stdin;\n{lines}\\.\n")
    for name, column in rows.SEQUENCES.items():
        parts.append(f"SELECT setval(pg_get_serial_sequence('{name}', '{column}'), max({column})) FROM {name} \\g /dev/null\n")
    parts += ["COMMIT;\n", _sql_file("access.sql", roles)]
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=SERVERS)
    parser.add_argument("--role-prefix", default="")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    sys.stdout.write(render(arguments.servers, arguments.role_prefix))


if __name__ == "__main__":
    main()
