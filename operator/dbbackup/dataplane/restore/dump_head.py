"""Reads a dump up to the end of its DROP section, without running any of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dbbackup.dataplane.restore.drop_section import DroppedObject, parse_drop_statement
from dbbackup.dataplane.restore.executor import refuse_meta
from dbbackup.dataplane.sql.splitter import Kind, Piece


@dataclass(frozen=True, slots=True)
class DumpHead:
    """The start of a dump. `preamble`: the session's settings. `drops`: the objects that the dump
    replaces. `first` and `rest` are all pieces after the DROP section; `bytes` is its size.
    """

    preamble: tuple[Piece, ...]
    drops: tuple[DroppedObject, ...]
    first: tuple[Piece, ...]
    rest: Iterator[Piece]
    bytes: int


def read_dump_head(pieces: Iterator[Piece]) -> DumpHead:
    """Takes no more from `pieces` than it needs; memory is bounded by the number of objects."""
    preamble: list[Piece] = []
    drops: list[DroppedObject] = []
    size = 0
    for piece in pieces:
        if piece.kind is Kind.META:
            refuse_meta(piece)
        elif piece.kind is Kind.STATEMENT:
            text = piece.text
            if text.startswith((b"SET ", b"SELECT pg_catalog.set_config(")) and not drops:
                preamble.append(piece)
                continue
            found = parse_drop_statement(text.decode("utf-8", "surrogateescape"))
            if found is False:
                return DumpHead(tuple(preamble), tuple(drops), (piece,), pieces, size)
            if isinstance(found, DroppedObject):
                drops.append(found)
        elif piece.kind is not Kind.BLANK:
            return DumpHead(tuple(preamble), tuple(drops), (piece,), pieces, size)
        size += len(piece.data)
    return DumpHead(tuple(preamble), tuple(drops), (), pieces, size)
