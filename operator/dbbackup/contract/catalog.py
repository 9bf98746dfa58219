"""The catalog of an artifact: every object that its dump holds, with what a restore must know of
it. It lies beside the manifest, which has its digest; docs/bucket.md documents it for users.

It is JSON Lines, in gzip: `gunzip -c catalog.jsonl.gz | jq` reads it. The first line is a header.
An object is named as pg_identify_object_as_address names it, so that the same names find it in
another database.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Final

from dbbackup.contract.errors import Failure
from dbbackup.text import presentable

HEADER: Final = {"type": "dbbackup.io/catalog", "formatVersion": 1}
CATALOG_LIMIT = 256 << 20
"""Maximum bytes of a catalog, compressed; a million objects fit."""

Address = tuple[str, int]
"""(name of the system catalog, such as pg_class; oid in the source)."""
ObjectKey = tuple[str, tuple[str, ...], tuple[str, ...]]
"""(system catalog, names, arguments): at most one object of a database has it."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One effective privilege. `grantee` is empty for PUBLIC. `column` is empty for the whole
    object."""

    grantor: str
    grantee: str
    privilege: str
    grantable: bool = False
    column: str = ""


@dataclass(frozen=True, slots=True)
class CatalogObject:
    """One object of the dump, or a part of one: then `of` is the object that it belongs to.

    Parts are defaults, indexes, constraints, triggers, rules, policies, statistics and owned
    sequences of a relation, constraints of a domain, the multirange type of a range type, members
    of a publication. A policy may belong to a table of an extension, which is not in the catalog.
    Partitions and user mappings are whole.

    `type`, `names` and `args` are those of pg_identify_object_as_address, `identity` is the text of
    pg_identify_object, for SQL. `columns` are those of a relation or composite type. `needs` are
    the extensions without whose members it, or a part of it, cannot be made. `comment` is there for
    schemas and extensions. `superuser`: only a superuser may make it. `hidden`: a user mapping
    whose options the backup's user may not see, so that the dump lacks them. `outside`: the dump
    refers to it and lacks it; collations of pg_catalog, which another system may lack, are among
    these. `oids` are large objects with the same owner and privileges.
    """

    catalog: str
    oid: int
    type: str = ""
    names: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    identity: str = ""
    of: Address | None = None
    owner: str | None = None
    grants: tuple[Grant, ...] = ()
    columns: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    comment: str | None = None
    superuser: bool = False
    hidden: bool = False
    outside: bool = False
    oids: tuple[int, ...] = ()

    @property
    def address(self) -> Address:
        return self.catalog, self.oid

    @property
    def key(self) -> ObjectKey:
        return self.catalog, self.names, self.args


@dataclass(frozen=True, slots=True)
class Catalog:
    """All objects of a dump, parts included, in no order."""

    objects: tuple[CatalogObject, ...] = field(default=())

    @property
    def whole(self) -> Iterator[CatalogObject]:
        """The objects that the dump makes, without parts and without what it only refers to."""
        return (held for held in self.objects if held.of is None and not held.outside)

    def by_address(self) -> dict[Address, CatalogObject]:
        return {held.address: held for held in self.objects}


def pack_catalog(objects: Iterable[CatalogObject]) -> bytes:
    """The stored form. The objects pass one by one, so that a million of them need no memory."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as file:
        file.write(json.dumps(HEADER).encode() + b"\n")
        for held in objects:
            file.write(presentable(json.dumps(_line(held), ensure_ascii=False, separators=(",", ":"))).encode() + b"\n")
    return packed.getvalue()


def unpack_catalog(data: bytes, key: str) -> Catalog:
    """The catalog that was stored at `key`; Failure ManifestInvalid or FormatUnsupported."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as lines:
            header = json.loads(lines.readline())
            if header.get("type") != HEADER["type"]:
                raise Failure("ManifestInvalid", f"{key} is not the catalog of an artifact")
            if int(header["formatVersion"]) > 1:
                raise Failure("FormatUnsupported", f"{key}: format version {header['formatVersion']}; this operator reads up to 1")
            read = _Reader()
            return Catalog(tuple(read.object(json.loads(line)) for line in lines))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Failure("ManifestInvalid", f"{key} cannot be read: {type(error).__name__}") from None


def _line(held: CatalogObject) -> dict[str, Any]:
    """Only what is set: most objects have few of the fields."""
    line: dict[str, Any] = {}
    for item in fields(held):
        value = getattr(held, item.name)
        if value not in ((), None, False, ""):
            line[item.name] = value
    if held.grants:
        line["grants"] = [[g.grantor, g.grantee, g.privilege, g.grantable, g.column] for g in held.grants]
    return line


_TUPLES = frozenset({"names", "args", "columns", "needs", "oids"})
_REPEATED = frozenset({"catalog", "type", "args", "owner", "columns", "needs"})
_KNOWN = frozenset(item.name for item in fields(CatalogObject))


class _Reader:
    """Makes objects that share what is equal in them: there may be a million."""

    def __init__(self) -> None:
        self._seen: dict[Any, Any] = {}

    def _shared(self, value: Any) -> Any:
        return self._seen.setdefault(value, value)

    def object(self, line: dict[str, Any]) -> CatalogObject:
        values = {name: value for name, value in line.items() if name in _KNOWN}
        for name in _TUPLES & values.keys():
            values[name] = tuple(values[name])
        for name in _REPEATED & values.keys():
            values[name] = self._shared(values[name])
        if "names" in values:
            *places, own = values["names"]
            values["names"] = (*map(self._shared, places), own)
        if "grants" in values:
            values["grants"] = self._shared(tuple(Grant(*grant) for grant in values["grants"]))
        if "of" in values:
            catalog, oid = values["of"]
            values["of"] = self._shared((self._shared(catalog), oid))
        return CatalogObject(**values)
