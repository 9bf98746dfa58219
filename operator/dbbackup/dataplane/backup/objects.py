"""Reads the artifact's catalog from the source, in the dump's own snapshot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from sys import intern
from typing import Any

from dbbackup.contract.catalog import Address, CatalogObject, Grant, pack_catalog
from dbbackup.dataplane.backup import object_queries
from dbbackup.dataplane.postgres.connection import Connection

_BATCH = 2000
"""Rows in memory at a time: a database may have a million objects."""


@dataclass(frozen=True, slots=True)
class Dumped:
    """What the options select: `namespaces` and `excluded` are oids of the dumped schemas and of
    relations that are left out, `extensions` the names of those in the dump."""

    all: bool
    namespaces: Sequence[int]
    excluded: Sequence[int]
    extensions: Sequence[str]


@dataclass(frozen=True, slots=True)
class ReadCatalog:
    """`packed` is the catalog's stored form. `outside` describes what the dump refers to and the
    options left out."""

    packed: bytes
    outside: tuple[str, ...]


def read_catalog(connection: Connection, version_num: int, dumped: Dumped) -> ReadCatalog:
    """The catalog of the dump. The objects pass one by one, so that a million of them need little
    memory."""
    parameters: dict[str, Any] = {
        "all": dumped.all,
        "namespaces": list(dumped.namespaces),
        "excluded": list(dumped.excluded),
        "extensions": list(dumped.extensions),
    }
    needs: dict[Address, tuple[str, ...]] = {}
    outside: list[CatalogObject] = []
    described: list[str] = []
    same: dict[tuple[str, ...], tuple[str, ...]] = {}
    for catalog, oid, extensions, description, *identity in _rows(connection, object_queries.references(version_num), parameters):
        if extensions is not None:
            needs[intern(catalog), oid] = same.setdefault(tuple(extensions), tuple(extensions))
            continue
        kind, names, args, text = identity
        outside.append(CatalogObject(catalog, oid, kind, tuple(names), tuple(args), text, outside=True))
        if catalog != "pg_collation" or names[0] != "pg_catalog":
            described.append(description)

    def objects() -> Iterator[CatalogObject]:
        roles = _roles(connection)
        for kind in object_queries.kinds(version_num):
            for row in _rows(connection, object_queries.objects(kind), parameters):
                yield _object(row, roles, needs)
        yield from outside

    return ReadCatalog(pack_catalog(objects()), tuple(sorted(described)))


def _rows(connection: Connection, query: str, parameters: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    with connection.cursor("objects") as cursor:
        cursor.itersize = _BATCH
        cursor.execute(query.encode(), parameters)
        yield from cursor


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
            Grant(self.name(grantor), self.name(grantee), privilege, grantable, *column)
            for grantor, grantee, privilege, grantable, *column in json.loads(text)
        )


def _roles(connection: Connection) -> _Roles:
    return _Roles(dict(connection.execute("SELECT oid::bigint, rolname::text FROM pg_catalog.pg_roles").fetchall()))


def _object(row: tuple[Any, ...], roles: _Roles, needs: dict[Address, tuple[str, ...]]) -> CatalogObject:
    catalog, oid, of_catalog, of_oid, owner, grants, column_grants, columns, oids, comment, superuser, hidden, kind, names, args, identity = row
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
        needs=needs.get((catalog, oid), ()),
        comment=comment,
        superuser=superuser,
        hidden=hidden,
        oids=tuple(oids or ()),
    )
