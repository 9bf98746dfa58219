"""Text of a database in its own encoding, byte for byte: what sessions read, what they send, names
in statements.

A session to a database that is not in UTF8 has the client encoding SQL_ASCII, with which the server
converts nothing: conversions fail for bytes without Unicode, do not exist for MULE_INTERNAL, and
change codes of EUC_JP. Text becomes Python's by the database's codec (`sql.encodings`), and back.
"""

from __future__ import annotations

from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from psycopg import BaseConnection, DataError
from psycopg.abc import AdaptContext
from psycopg.adapt import Buffer, Loader
from psycopg.types.string import StrDumperUnknown

from dbbackup.dataplane.sql import encodings

_AnyConnection: TypeAlias = BaseConnection[Any]
_READ_AS: WeakKeyDictionary[_AnyConnection, str] = WeakKeyDictionary()
_ANY_OTHER = 0
_TYPES = (_ANY_OTHER, "text", "name", "varchar", "bpchar", '"char"')


def server_encoding(connection: _AnyConnection) -> str:
    """The database's encoding, as PostgreSQL names it."""
    return _status(connection, b"server_encoding")


def session_codec(connection: _AnyConnection) -> str:
    """Python's codec for what the session sends and reads now: a dump's own encoding while it
    runs."""
    client = _status(connection, b"client_encoding")
    return encodings.codec_of(_READ_AS.get(connection) or server_encoding(connection) if client == "SQL_ASCII" else client)


def read_as(connection: _AnyConnection, encoding: str) -> None:
    """Names mean the same bytes as in a dump of this `encoding`. Where the dump or the database is
    in SQL_ASCII, the server converts nothing."""
    if "SQL_ASCII" in {encoding, server_encoding(connection)}:
        _READ_AS[connection] = encoding


def _status(connection: _AnyConnection, name: bytes) -> str:
    return (connection.pgconn.parameter_status(name) or b"UTF8").decode("ascii", "replace")


def own_client_encoding(connection: _AnyConnection) -> str:
    return "UTF8" if server_encoding(connection) == "UTF8" else "SQL_ASCII"


def prepare(connection: _AnyConnection) -> None:
    """Makes the session read and send text by `session_codec`. Its client encoding is SQL_ASCII
    now; `OwnSettings.pin` sets its own."""
    for name in _TYPES:
        connection.adapters.register_loader(name, _TextLoader)
    connection.adapters.register_dumper(str, _TextDumper)


def literal(text: str) -> str:
    """A quoted text for a statement, whatever the session's settings."""
    quoted = "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
    return " E" + quoted if "\\" in text else quoted


def identifier(*parts: str) -> str:
    """A quoted name, qualified where it has several parts, for a statement. Every server encoding
    holds ASCII unchanged, so quotes are never a part of another character."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def manifest_identifier(connection: _AnyConnection, *parts: str) -> str:
    """`identifier` of a name as manifests and catalogs show it."""
    return identifier(*(encodings.named(part, server_encoding(connection)) for part in parts))


def encoded(connection: _AnyConnection, statement: str) -> bytes:
    """A statement as the session must send it. psycopg would refuse names that are not ASCII, or
    send them as UTF-8: run whatever may contain one through this."""
    return encodings.encode(statement, session_codec(connection))


class _TextLoader(Loader):
    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._codec = session_codec(self.connection) if self.connection else "utf-8"

    def load(self, data: Buffer) -> str:
        return encodings.decode(bytes(data), self._codec)


class _TextDumper(StrDumperUnknown):
    def __init__(self, cls: type, context: AdaptContext | None = None) -> None:
        super().__init__(cls, context)
        self._codec = session_codec(self.connection) if self.connection else "utf-8"

    def dump(self, obj: str) -> bytes:
        if "\x00" in obj:
            raise DataError("PostgreSQL text cannot contain NUL (0x00) bytes")
        return encodings.encode(obj, self._codec)
