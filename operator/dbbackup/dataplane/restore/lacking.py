"""Which objects of an archive the target lacks: by the artifact's catalog, or by their names where
it has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dbbackup.contract.catalog import Address, CatalogObject
from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.restore.legacy_drops import DroppedObject, find_named, parse_drop_statement
from dbbackup.dataplane.restore.roots import held_objects
from dbbackup.dataplane.restore.selection import Lacking
from dbbackup.dataplane.restore.target import schemas
from dbbackup.dataplane.sql.archive_toc import TocEntry


def lacking_by_key(connection: Connection, catalog: Mapping[Address, CatalogObject]) -> Lacking:
    """Entries without an object in the catalog count as there: they are parts of others."""
    there = {(found.key, found.type) for found in held_objects(connection)}
    there_schemas = set(schemas(connection))

    def lacking(entries: Sequence[TocEntry]) -> set[int]:
        absent = {entry.id for entry in entries if entry.kind == "SCHEMA" and entry.tag not in there_schemas}
        for entry in entries:
            if entry.kind in {"SCHEMA", "EXTENSION"} or entry.address is None:
                continue
            held = catalog.get(entry.address)
            if held is not None and not held.outside and (held.key, held.type) not in there:
                absent.add(entry.id)
        return absent

    return lacking


def lacking_by_name(connection: Connection) -> Lacking:
    """By the DROP statements of the archive's entries; one without a statement counts as there."""
    held = held_objects(connection)
    there_schemas = set(schemas(connection))

    def lacking(entries: Sequence[TocEntry]) -> set[int]:
        drops = {entry.id: drop for entry in entries if isinstance(drop := parse_drop_statement(entry.drop.strip()), DroppedObject)}
        there = {drop for drop, _ in find_named(held, drops.values())}
        absent = {number for number, drop in drops.items() if drop not in there}
        return absent | {entry.id for entry in entries if entry.kind == "SCHEMA" and entry.tag not in there_schemas}

    return lacking
