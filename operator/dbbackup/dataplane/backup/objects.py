"""Reads the artifact's catalog from the source, in the dump's own snapshot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from sys import intern
from typing import Any

from dbbackup.contract.catalog import CatalogObject, Grant
from dbbackup.dataplane.backup import object_queries
from dbbackup.dataplane.postgres.connection import Connection

_BATCH = 2000
"""Rows in memory at a time: a database may have a million objects."""


@dataclass(frozen=True, slots=True)
class Dumped:
    """What the options select: `schemas` are names, `excluded` the oids of relations that are left
    out, `extensions` the names of those in the dump."""

    all: bool
    namespaces: Sequence[int]
    excluded: Sequence[int]
    extensions: Sequence[str]


def read_objects(connection: Connection, version_num: int, dumped: Dumped) -> Iterator[CatalogObject]:
    """Every object of the dump, kind by kind."""
    parameters: dict[str, Any] = {
        "all": dumped.all,
        "namespaces": list(dumped.namespaces),
        "excluded": list(dumped.excluded),
        "extensions": list(dumped.extensions),
    }
    roles = _roles(connection)
    for kind in object_queries.kinds(version_num):
        with connection.cursor("objects") as cursor:
            cursor.itersize = _BATCH
            cursor.execute(object_queries.query(kind).encode(), parameters)
            for row in cursor:
                yield _object(row, roles)


class _Roles:
    """Role names, and privileges by them."""

    def __init__(self, names: dict[int, str]) -> None:
        self._names = names
        self.grants = cache(self._grants)

    def name(self, oid: int) -> str:
        """Empty for PUBLIC."""
        return self._names.get(oid, str(oid)) if oid else ""

    def _grants(self, text: str) -> tuple[Grant, ...]:
        return tuple(
            Grant(self.name(grantor), self.name(grantee), intern(privilege), grantable, *column)
            for grantor, grantee, privilege, grantable, *column in json.loads(text)
        )


def _roles(connection: Connection) -> _Roles:
    return _Roles({oid: intern(name) for oid, name in connection.execute("SELECT oid::bigint, rolname FROM pg_catalog.pg_roles")})


def _object(row: tuple[Any, ...], roles: _Roles) -> CatalogObject:
    catalog, oid, of_catalog, of_oid, owner, grants, column_grants, columns, oids, comment, kind, names, args, identity = row
    return CatalogObject(
        catalog=catalog,
        oid=oid,
        type=kind,
        names=tuple(names),
        args=tuple(args),
        identity=identity,
        of=None if of_oid is None else (of_catalog, of_oid),
        owner=None if owner is None else roles.name(owner),
        grants=tuple(grant for text in (grants, column_grants) if text for grant in roles.grants(text)),
        columns=tuple(columns or ()),
        comment=comment,
        oids=tuple(oids or ()),
    )
