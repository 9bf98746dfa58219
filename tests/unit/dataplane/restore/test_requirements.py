"""What an artifact's catalog says that a restore will need."""

from __future__ import annotations

import pytest

from dbbackup.contract.catalog import Catalog, CatalogObject
from dbbackup.dataplane.restore.requirements import requirements, schema_of

TABLE = CatalogObject("pg_class", 1, "table", ("a", "t"), identity="a.t", needs=("btree_gist",))
INDEX = CatalogObject("pg_class", 2, "index", ("ix", "t_key"), identity="ix.t_key", of=TABLE.address, needs=("pg_trgm",))
FUNCTION = CatalogObject("pg_proc", 3, "function", ("b", "neg"), ("integer",), "b.neg(integer)", superuser=True)
SERVER = CatalogObject("pg_foreign_server", 4, "server", ("far",), identity="far", needs=("postgres_fdw",))
CATALOG = Catalog(
    (
        TABLE,
        INDEX,
        FUNCTION,
        SERVER,
        CatalogObject("pg_namespace", 5, "schema", ("a",), identity="a"),
        CatalogObject("pg_namespace", 6, "schema", ("empty",), identity="empty"),
        CatalogObject("pg_event_trigger", 7, "event trigger", ("et",), identity="et", superuser=True),
        CatalogObject("pg_publication", 8, "publication", ("p",), identity="p"),
        CatalogObject("pg_collation", 9, "collation", ("pg_catalog", "xx"), identity="pg_catalog.xx", outside=True),
    )
)


def test_all_of_an_artifact() -> None:
    wanted = requirements(CATALOG)
    assert wanted.superuser == ("event trigger et", "function b.neg(integer)")
    assert wanted.made == {"a", "empty"}
    assert wanted.filled == {"a", "b"}, "an index is made with its table"
    assert wanted.extensions == {"btree_gist", "pg_trgm", "postgres_fdw"}
    assert [held.identity for held in wanted.outside] == ["pg_catalog.xx"]
    assert wanted.wrapping == {"postgres_fdw"}
    assert wanted.publishes


def test_a_selection_of_it() -> None:
    wanted = requirements(CATALOG, {TABLE.address})
    assert wanted.superuser == ()
    assert wanted.made == set()
    assert wanted.filled == {"a"}
    assert wanted.extensions == {"btree_gist", "pg_trgm"}, "those of its parts too"
    assert wanted.outside == ()
    assert not wanted.publishes
    wanted = requirements(CATALOG, {TABLE.address}, "CREATE TABLE a.t (n text COLLATE pg_catalog.xx);")
    assert [held.identity for held in wanted.outside] == ["pg_catalog.xx"]


@pytest.mark.parametrize(
    ("held", "schema"),
    [
        (CatalogObject("pg_operator", 1, "operator", ("a", "==="), ("integer", "integer")), "a"),
        (CatalogObject("pg_opclass", 1, "operator class", ("btree", "a", "o")), "a"),
        (CatalogObject("pg_type", 1, "type", ('"We.ird"."T"',), identity='"We.ird"."T"'), "We.ird"),
        (CatalogObject("pg_class", 1, "sequence", ("a", "s"), of=("pg_class", 2)), "a"),
        (CatalogObject("pg_statistic_ext", 1, "statistics object", ("b", "s"), of=("pg_class", 2)), "b"),
        (CatalogObject("pg_trigger", 1, "trigger", ("a", "t", "tg"), of=("pg_class", 2)), None),
        (CatalogObject("pg_cast", 1, "cast", ("bigint",), ("text",)), None),
        (CatalogObject("pg_language", 1, "language", ("l",)), None),
    ],
)
def test_the_schema_of_an_object(held: CatalogObject, schema: str | None) -> None:
    assert schema_of(held) == schema
