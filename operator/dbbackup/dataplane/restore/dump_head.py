"""Reads a dump up to the end of its DROP section, without running any of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dbbackup.dataplane.restore.executor import refuse_meta
from dbbackup.dataplane.sql.encodings import dump_encoding
from dbbackup.dataplane.sql.splitter import Kind, Piece

_SETTINGS = (b"SET ", b"SELECT pg_catalog.set_config(")


@dataclass(frozen=True, slots=True)
class DumpHead:
    """The start of a dump. `preamble`: the session's settings. `drops`: the texts of the DROP
    section, where they were asked for. `first` and `rest` are all pieces after it; `bytes` is the
    size of preamble and DROP section. `encoding` is the dump's.
    """

    preamble: tuple[Piece, ...]
    drops: tuple[bytes, ...]
    first: tuple[Piece, ...]
    rest: Iterator[Piece]
    bytes: int
    encoding: str = "UTF8"


def read_dump_head(pieces: Iterator[Piece], *, keep_drops: bool = False) -> DumpHead:
    """Takes no more from `pieces` than it needs.

    pg_dump writes a comment before each object that it makes, and none before what it drops; some
    objects have a SET before their comment.
    """
    preamble: list[Piece] = []
    drops: list[bytes] = []
    dropping = False
    size = 0
    encoding = "UTF8"
    for piece in pieces:
        if piece.kind is Kind.META:
            refuse_meta(piece)
        elif piece.kind is Kind.STATEMENT:
            setting = piece.text.startswith(_SETTINGS)
            if setting and not dropping:
                preamble.append(piece)
                encoding = dump_encoding(piece.text) or encoding
            elif setting or b"--" in piece.data[: piece.start]:
                return DumpHead(tuple(preamble), tuple(drops), (piece,), pieces, size, encoding)
            else:
                dropping = True
                if keep_drops:
                    drops.append(piece.text)
        elif piece.kind is not Kind.BLANK:
            return DumpHead(tuple(preamble), tuple(drops), (piece,), pieces, size, encoding)
        size += len(piece.data)
    return DumpHead(tuple(preamble), tuple(drops), (), pieces, size, encoding)
