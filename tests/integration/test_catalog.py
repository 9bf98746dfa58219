"""The catalog of an artifact: it holds what the dump holds, as pg_dump's own table of contents
says it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.conftest import Ended, Job, Postgres
from tests.integration.stock import EVERYTHING

from dbbackup.contract.catalog import Address, Catalog, CatalogObject
from dbbackup.contract.run import Compression
from dbbackup.dataplane.bucket import load_catalog
from dbbackup.dataplane.sql.archive_toc import TocEntry, read_toc

NO_OBJECTS = {
    "ACL", "BLOBS", "BLOB COMMENTS", "COMMENT", "DATABASE", "ENCODING", "INDEX ATTACH", "MATERIALIZED VIEW DATA", "ROW SECURITY", "SEARCHPATH",
    "SECURITY LABEL", "SEQUENCE OWNED BY", "SEQUENCE SET", "SHELL TYPE", "STDSTRINGS", "TABLE ATTACH", "TABLE DATA",
}  # fmt: skip
"""Entries that say something of an object, or of the archive, and make none."""


PUBLIC = ("pg_namespace", ("public",), ())
"""Every database has it: a dump of a whole one does not make it."""


def catalog_of(job: Job, ended: Ended) -> Catalog:
    assert ended.report.artifact
    found = load_catalog(job.storage, ended.report.artifact.key, job.manifest(ended))
    assert found
    return found


def toc_of(job: Job, ended: Ended) -> list[TocEntry]:
    assert ended.report.artifact
    return read_toc(iter([job.storage.get(f"{ended.report.artifact.key}/dump.custom", 1 << 30)]))


def assert_same(catalog: Catalog, toc: list[TocEntry]) -> None:
    """Every entry is of an object in the catalog, and every whole object has an entry."""
    made = {identity(entry): entry for entry in toc if entry.kind not in NO_OBJECTS and not entry.tag.endswith(" _RETURN")}
    held = {identity for found in catalog.objects for identity in identities(found)}
    whole = {identity: found for found in catalog.whole for identity in identities(found)}
    assert [entry for identity, entry in made.items() if identity not in held] == []
    assert [found for identity, found in whole.items() if identity not in made and found.key != PUBLIC] == []


def identity(entry: TocEntry) -> Address | str:
    """A user mapping has no oid in the table of contents."""
    return entry.tag if entry.kind == "USER MAPPING" else entry.address or f"{entry.kind} without an oid"


def identities(held: CatalogObject) -> Iterator[Address | str]:
    if held.catalog == "pg_user_mapping":
        return iter([f"USER MAPPING {held.names[0]} SERVER {held.args[0]}"])
    return ((held.catalog, oid) for oid in held.oids or (held.oid,))


@pytest.fixture
def filled(postgres: Postgres, database: str) -> str:
    script = (Path(__file__).parent / "everything.sql").read_text()
    for role in ("app", "reader"):
        postgres.execute(f"CREATE ROLE {database}_{role} LOGIN")
        script = script.replace(f"@{role}@", f"{database}_{role}")
    postgres.load(script, database)
    return database


CUSTOM = {"format": "custom", "compression": Compression(algorithm="none")}


def test_one_of_every_kind(job: Job, filled: str) -> None:
    ended = job.backup(**CUSTOM)
    assert ended.code == 0, ended.log
    assert_same(catalog_of(job, ended), toc_of(job, ended))


def test_stock(job: Job, postgres: Postgres, database: str) -> None:
    postgres.load(EVERYTHING, database)
    ended = job.backup(**CUSTOM)
    assert ended.code == 0, ended.log
    assert_same(catalog_of(job, ended), toc_of(job, ended))
