from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbbackup.contract.catalog import Catalog, CatalogObject, Grant, pack_catalog, unpack_catalog
from dbbackup.contract.errors import Failure

_TEXT = st.text(max_size=5)
_TEXTS = st.lists(_TEXT, max_size=3).map(tuple)
_OIDS = st.integers(1, 2**32 - 1)
_GRANTS = st.builds(Grant, _TEXT, _TEXT, _TEXT, st.booleans(), _TEXT)
_OBJECTS = st.builds(
    CatalogObject,
    catalog=st.sampled_from(["pg_class", "pg_proc"]),
    oid=_OIDS,
    type=_TEXT,
    names=_TEXTS,
    args=_TEXTS,
    identity=_TEXT,
    of=st.none() | st.tuples(st.just("pg_class"), _OIDS),
    owner=st.none() | _TEXT.filter(bool),
    grants=st.lists(_GRANTS, max_size=2).map(tuple),
    columns=_TEXTS,
    needs=_TEXTS,
    comment=st.none() | _TEXT.filter(bool),
    superuser=st.booleans(),
    hidden=st.booleans(),
    outside=st.booleans(),
    oids=st.lists(_OIDS, max_size=2).map(tuple),
)


@given(st.lists(_OBJECTS, max_size=4).map(tuple))
def test_a_catalog_is_read_as_it_was_written(objects: tuple[CatalogObject, ...]) -> None:
    assert unpack_catalog(pack_catalog(objects), "k") == Catalog(objects)


def test_what_a_newer_operator_adds_to_an_object_is_ignored() -> None:
    data = gzip.compress(b'{"type":"dbbackup.io/catalog","formatVersion":1}\n{"catalog":"pg_class","oid":1,"type":"table","newer":[1]}\n')
    assert unpack_catalog(data, "k").objects == (CatalogObject("pg_class", 1, "table"),)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "ManifestInvalid", id="empty"),
        pytest.param(b"not gzip", "ManifestInvalid", id="not gzip"),
        pytest.param(gzip.compress(b""), "ManifestInvalid", id="no line"),
        pytest.param(gzip.compress(b"[]\n"), "ManifestInvalid", id="no object"),
        pytest.param(gzip.compress(b'{"type":"dbbackup.io/manifest","formatVersion":1}\n'), "ManifestInvalid", id="a manifest"),
        pytest.param(gzip.compress(b'{"type":"dbbackup.io/catalog","formatVersion":2}\n'), "FormatUnsupported", id="newer format"),
        pytest.param(gzip.compress(b'{"type":"dbbackup.io/catalog","formatVersion":1}\n{"oid":1}\n'), "ManifestInvalid", id="fields missing"),
        pytest.param(pack_catalog([CatalogObject("pg_class", 1, "table")])[:-9], "ManifestInvalid", id="truncated"),
    ],
)
def test_what_is_no_catalog_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Failure) as raised:
        unpack_catalog(data, "dir/catalog.jsonl.gz")
    assert raised.value.reason.name == reason
    assert "dir/catalog.jsonl.gz" in raised.value.message


def test_parts_and_what_is_outside_are_no_objects_of_their_own() -> None:
    table = CatalogObject("pg_class", 1, "table", ("public", "t"))
    index = CatalogObject("pg_class", 2, "index", ("public", "t_pkey"), of=table.address)
    server = CatalogObject("pg_foreign_server", 3, "server", ("far",), outside=True)
    catalog = Catalog((table, index, server))
    assert list(catalog.whole) == [table]
    assert catalog.by_address()["pg_class", 2] == index
