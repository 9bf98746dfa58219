"""The extensions that a restore needs: whether the target has them or can have them, and the
statements that make them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dbbackup.contract.manifest import ExtensionEntry
from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.postgres.encoding import encoded, manifest_identifier, server_encoding
from dbbackup.dataplane.sql.encodings import named
from dbbackup.text import presentable

_STATES = """
SELECT w.name, a.name IS NOT NULL, n.nspname, coalesce(v.superuser, true), coalesce(v.trusted, false), v.requires,
       EXISTS (SELECT FROM pg_catalog.pg_namespace h WHERE h.nspname = w.home)
FROM ROWS FROM (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::text[])) w(name, home)
LEFT JOIN pg_catalog.pg_available_extensions a ON a.name = w.name
LEFT JOIN pg_catalog.pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version
LEFT JOIN pg_catalog.pg_extension e ON e.extname = w.name LEFT JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
"""


@dataclass(frozen=True, slots=True)
class ExtensionState:
    """An extension of the artifact, in the target. `schema` is where it is installed, None where it
    is not. `home_exists`: the target has the schema that it is in in the artifact."""

    name: str
    available: bool
    schema: str | None
    superuser: bool
    trusted: bool
    requires: tuple[str, ...]
    home_exists: bool = True

    def may_create(self, *, privileged: bool, create_on_database: bool) -> bool:
        """Whether the user can run CREATE EXTENSION for it."""
        return self.available and (privileged or (create_on_database and (self.trusted or not self.superuser)))


def extension_states(connection: Connection, wanted: Sequence[ExtensionEntry]) -> tuple[ExtensionState, ...]:
    """With names as manifests show them."""
    encoding = server_encoding(connection)
    rows = connection.execute(_STATES, ([named(e.name, encoding) for e in wanted], [named(e.schema_, encoding) for e in wanted]))
    return tuple(
        ExtensionState(presentable(name), available, schema and presentable(schema), superuser, trusted, tuple(requires or ()), home)
        for name, available, schema, superuser, trusted, requires, home in rows
    )


def creating_statements(connection: Connection, wanted: Iterable[ExtensionEntry], states: Sequence[ExtensionState]) -> list[bytes]:
    """The statements that make the extensions that the target lacks, each with its schema where
    that is missing too."""
    missing = {state.name: state for state in states if state.schema is None}
    statements: list[bytes] = []
    for extension in extension_order([e for e in wanted if e.name in missing], list(missing.values())):
        name, home = (manifest_identifier(connection, text) for text in (extension.name, extension.schema_))
        if not missing[extension.name].home_exists:
            statements.append(encoded(connection, f"CREATE SCHEMA IF NOT EXISTS {home}"))
        statements.append(encoded(connection, f"CREATE EXTENSION IF NOT EXISTS {name} WITH SCHEMA {home}"))
    return list(dict.fromkeys(statements))


def extension_order(wanted: Sequence[ExtensionEntry], states: Sequence[ExtensionState]) -> list[ExtensionEntry]:
    """Extensions that others require come first."""
    requires = {state.name: state.requires for state in states}
    by_name = {extension.name: extension for extension in wanted}
    ordered: dict[str, ExtensionEntry] = {}

    def add(name: str, above: tuple[str, ...]) -> None:
        for needed in requires.get(name, ()):
            if needed in by_name and needed not in above:
                add(needed, (*above, name))
        ordered.setdefault(name, by_name[name])

    for name in by_name:
        add(name, ())
    return list(ordered.values())
