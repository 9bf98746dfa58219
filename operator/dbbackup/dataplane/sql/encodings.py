"""Bytes in PostgreSQL's server encodings, as text and back, without a loss. Pure.

What Python cannot decode, or would not encode to the same bytes (EUC_JP has two codes for one
character), becomes one lone surrogate a byte. `dbbackup.text.presentable` makes it valid Unicode
for people and JSON, and `named` takes that back.
"""

from __future__ import annotations

import codecs
import re

_CODECS = {
    "UTF8": "utf-8",
    "SQL_ASCII": "utf-8",  # any bytes: most often they are UTF-8
    "EUC_CN": "gb2312",
    "EUC_JIS_2004": "euc_jis_2004",
    "EUC_JP": "euc_jp",
    "EUC_KR": "euc_kr",
    "KOI8R": "koi8-r",
    "KOI8U": "koi8-u",
    "LATIN1": "iso8859-1",
    "LATIN2": "iso8859-2",
    "LATIN3": "iso8859-3",
    "LATIN4": "iso8859-4",
    "LATIN5": "iso8859-9",
    "LATIN6": "iso8859-10",
    "LATIN7": "iso8859-13",
    "LATIN8": "iso8859-14",
    "LATIN9": "iso8859-15",
    "LATIN10": "iso8859-16",
    "WIN866": "cp866",
    "WIN874": "cp874",
    **{f"ISO_8859_{number}": f"iso8859-{number}" for number in (5, 6, 7, 8)},
    **{f"WIN{number}": f"cp{number}" for number in range(1250, 1259)},
}
WITHOUT_CODEC = frozenset({"EUC_TW", "MULE_INTERNAL"})
"""Server encodings that Python does not know: only their ASCII is text."""

_CLIENT_ENCODING = re.compile(rb"SET client_encoding\s*(?:=|TO)\s*'([^']+)'\s*;\Z")
_BYTE = re.compile("\ufffd([89a-f][0-9a-f])")


def codec_of(encoding: str) -> str:
    """Python's codec for an encoding, as PostgreSQL names it."""
    return _CODECS.get(encoding.upper(), "ascii")


def dump_encoding(statement: bytes) -> str | None:
    """The encoding that a dump's `SET client_encoding` names; None for any other statement."""
    found = _CLIENT_ENCODING.match(statement)
    return found[1].decode("ascii", "replace").upper() if found else None


def decode(data: bytes, codec: str) -> str:
    """Text that `encode` makes the same bytes of."""
    text = data.decode(codec, "surrogateescape")
    if codec == "utf-8" or encode(text, codec) == data:
        return text
    return data.decode("ascii", "surrogateescape")


def encode(text: str, codec: str) -> bytes:
    return text.encode(codec, _ERRORS)


def named(text: str, encoding: str) -> str:
    """The name that `presentable` showed as `text`, in a database of this encoding."""
    return text if encoding == "UTF8" else _BYTE.sub(lambda found: chr(0xDC00 + int(found[1], 16)), text)


def _escape(error: UnicodeError) -> tuple[bytes, int]:
    """Surrogates become their bytes. What the encoding lacks becomes a text that is no object's
    name, as nothing there can have that name."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    escaped = (ord(char) - 0xDC00 if "\udc80" <= char <= "\udcff" else char for char in error.object[error.start : error.end])
    return b"".join(bytes([part]) if isinstance(part, int) else f"\\N{{U+{ord(part):04X}}}".encode() for part in escaped), error.end


_ERRORS = "dbbackup-bytes"
codecs.register_error(_ERRORS, _escape)
