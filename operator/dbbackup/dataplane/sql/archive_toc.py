"""Reads the table of contents at the start of a custom archive of pg_dump. Pure.

`pg_restore -l` prints it too, but without quotes, so that names with blanks are ambiguous, and
without the dependencies, which say what belongs to a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from dbbackup.contract.catalog import Address
from dbbackup.dataplane.sql.encodings import codec_of, decode, dump_encoding, encode
from dbbackup.dataplane.sql.splitter import split_qualified_name

MAGIC = b"PGDMP"
OLDEST, NEWEST = (1, 12), (1, 16)
"""Archive versions of pg_dump 9.x to 18."""
LIMIT = 256 << 20
"""Maximum bytes of a table of contents: some 100,000 objects with their definitions."""
_CUSTOM = 1
SYSTEM_CATALOGS = {
    826: "pg_default_acl",
    1247: "pg_type",
    1255: "pg_proc",
    1259: "pg_class",
    1417: "pg_foreign_server",
    2328: "pg_foreign_data_wrapper",
    2601: "pg_am",
    2604: "pg_attrdef",
    2605: "pg_cast",
    2606: "pg_constraint",
    2607: "pg_conversion",
    2612: "pg_language",
    2613: "pg_largeobject",
    2615: "pg_namespace",
    2616: "pg_opclass",
    2617: "pg_operator",
    2618: "pg_rewrite",
    2620: "pg_trigger",
    2753: "pg_opfamily",
    3079: "pg_extension",
    3256: "pg_policy",
    3381: "pg_statistic_ext",
    3456: "pg_collation",
    3466: "pg_event_trigger",
    3576: "pg_transform",
    3600: "pg_ts_dict",
    3601: "pg_ts_parser",
    3602: "pg_ts_config",
    3764: "pg_ts_template",
    6104: "pg_publication",
    6106: "pg_publication_rel",
    6237: "pg_publication_namespace",
}
"""Their oids, which are the same in every server."""


class TocError(ValueError):
    """The input is not a custom archive of a known version."""


class UnknownVersion(TocError):
    """The input is an archive of a version that is not known here."""


class _Short(Exception):
    """The bytes so far end within the table of contents."""


@dataclass(frozen=True, slots=True)
class TocEntry:
    """One object of the archive. `kind`: TABLE, TABLE DATA, FK CONSTRAINT, ...; `tag` is the
    object's name, for parts of a table often `table part`; `needs`: ids of the entries that it
    depends on. `copy` is the COPY statement of a TABLE DATA. `tableoid` and `oid` name the object
    in the source as pg_depend does; TABLE DATA has the table's oid and a tableoid of 0."""

    id: int
    kind: str
    schema: str
    tag: str
    definition: str
    drop: str
    needs: tuple[int, ...]
    copy: str = ""
    tableoid: int = 0
    oid: int = 0

    @property
    def address(self) -> Address | None:
        """As the artifact's catalog has it. None where the entry is about no object of its own, and
        for a USER MAPPING, whose tag names it."""
        catalog = SYSTEM_CATALOGS.get(self.tableoid)
        return (catalog, self.oid) if catalog else None


def read_toc(chunks: Iterator[bytes]) -> list[TocEntry]:
    """The entries in their order. Takes no more chunks than it needs."""
    scan = TocScan()
    for chunk in chunks:
        if scan.feed(chunk):
            break
    return scan.finish()


class TocScan:
    """Reads the table of contents from the chunks of an archive as they pass. TocError where they
    are not the start of one."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._due = 0
        self._entries: list[TocEntry] | None = None

    def feed(self, chunk: bytes) -> bool:
        """Whether the table of contents is complete; later chunks are ignored."""
        if self._entries is not None:
            return True
        self._head += chunk
        if len(self._head) >= self._due:
            self._due = 2 * len(self._head)
            with suppress(_Short):
                self._entries = _Reader(bytes(self._head)).toc()
        if self._entries is None and len(self._head) > LIMIT:
            raise TocError(f"its table of contents is larger than {LIMIT} bytes")
        return self._entries is not None

    def finish(self) -> list[TocEntry]:
        if self._entries is None:
            try:
                self._entries = _Reader(bytes(self._head)).toc()
            except _Short:
                raise TocError("it ends within its table of contents") from None
        self._head.clear()
        return self._entries


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._int_size = 4

    def _take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if len(found) < size:
            raise _Short
        self._at += size
        return found

    def _byte(self) -> int:
        return self._take(1)[0]

    def _int(self) -> int:
        sign = self._byte()
        value = int.from_bytes(self._take(self._int_size), "little")
        return -value if sign else value

    def _text(self) -> str | None:
        size = self._int()
        return None if size < 0 else self._take(size).decode("utf-8", "surrogateescape")

    def toc(self) -> list[TocEntry]:
        if self._take(len(MAGIC)) != MAGIC:
            raise TocError("it is not an archive of pg_dump")
        version = (self._byte(), self._byte())
        self._byte()
        self._int_size, offset_size, form = self._byte(), self._byte(), self._byte()
        if not OLDEST <= version <= NEWEST:
            known = f"supported are {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
            raise UnknownVersion(f"it is an archive of version {version[0]}.{version[1]}; {known}")
        if form != _CUSTOM:
            raise TocError("it is not in the custom format")
        self._byte() if version >= (1, 15) else self._int()
        for _ in range(7):
            self._int()
        for _ in range(3):
            self._text()
        entries = [self._entry(version, offset_size) for _ in range(self._int())]
        encoding = next((found for e in entries if e.kind == "ENCODING" and (found := dump_encoding(encode(e.definition.strip(), "utf-8")))), "UTF8")
        codec = codec_of(encoding)
        return entries if codec == "utf-8" else [_decoded(entry, codec) for entry in entries]

    def _entry(self, version: tuple[int, int], offset_size: int) -> TocEntry:
        number = self._int()
        self._int()
        tableoid, oid = self._text(), self._text()
        tag, kind = self._text(), self._text()
        self._int()
        definition, drop, copy = self._text(), self._text(), self._text()
        schema = self._text()
        self._text()
        if version >= (1, 14):
            self._text()
        if version >= (1, 16):
            self._int()
        self._text(), self._text()
        needs: list[int] = []
        while (need := self._text()) is not None:
            needs.append(int(need))
        self._take(1 + offset_size)
        texts = (kind or "", schema or "", tag or "", definition or "", drop or "")
        return TocEntry(number, *texts, tuple(needs), copy or "", int(tableoid or 0), int(oid or 0))


def _decoded(entry: TocEntry, codec: str) -> TocEntry:
    """The entry, read as UTF-8, with its texts in the encoding that the archive names."""
    kind, schema, tag, definition, drop, copy = (
        decode(encode(text, "utf-8"), codec) for text in (entry.kind, entry.schema, entry.tag, entry.definition, entry.drop, entry.copy)
    )
    return replace(entry, kind=kind, schema=schema, tag=tag, definition=definition, drop=drop, copy=copy)


def copy_target(entry: TocEntry) -> tuple[str, str] | None:
    """(schema, name) of the table that the entry's COPY statement fills: of a partition, it may be
    the topmost table."""
    names, _ = split_qualified_name(entry.copy.removeprefix("COPY "))
    return (names[0], names[1]) if len(names) == 2 else None
