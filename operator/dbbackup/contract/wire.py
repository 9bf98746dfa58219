"""The wire between a serving pod (`dataplane.tools.serve`) and the kubectl plugin (`cli.transfer`,
`cli.fetch`): GET requests over a port-forward, which may lose bytes and report no error.

Paths: HELLO; ARTIFACTS, one JSON object per line; MANIFEST; ARTIFACT, with Range; SQL, frames from
byte `FROM` of the dump on. The query parameter KEY names the artifact. An answer of known content
carries the SHA-256 of its body in DIGEST_HEADER; a failure is JSON: reason, message, hint.

It imports no models: the plugin starts without pydantic.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator

PORT = 8765
HELLO, ARTIFACTS, MANIFEST, ARTIFACT, SQL = (f"/v1/{name}" for name in ("hello", "artifacts", "manifest", "artifact", "sql"))
KEY, FROM = "key", "from"
DIGEST_HEADER = "X-SHA256"
"""SHA-256 of the body, in hexadecimal."""
CHUNK = 1 << 20
"""Bytes at most that are sent, or read, at a time; a frame holds no more."""
_DIGEST_SIZE = 32
_RANGE = re.compile(r"bytes=(\d+)-(\d+)?")


class DamagedError(Exception):
    """The bytes that arrived are not the bytes that were sent."""


def token_sha256(token: str) -> str:
    """What the pod's spec says about the token: its SHA-256, in hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def bearer(token: str) -> str:
    """The value of the header Authorization."""
    return f"Bearer {token}"


def range_header(start: int, end: int) -> str:
    """The value of the header Range for the bytes from `start` up to, not including, `end`."""
    return f"bytes={start}-{end - 1}"


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """(start, end) as in `range_header`; None if the header does not name one range of bytes."""
    match = _RANGE.fullmatch(header)
    return (int(match[1]), min(int(match[2] or size) + 1, size)) if match else None


def frames(chunks: Iterable[bytes], skip: int) -> Iterator[bytes]:
    """The stream after its first `skip` bytes, as frames that can be checked one by one: length (4
    bytes, big-endian), SHA-256 of the data (32 bytes), data. A frame of length 0 ends the stream;
    its digest is that of the whole stream, the skipped bytes included."""
    whole = hashlib.sha256()
    for chunk in chunks:
        whole.update(chunk)
        data, skip = chunk[skip:], max(skip - len(chunk), 0)
        for at in range(0, len(data), CHUNK):
            piece = data[at : at + CHUNK]
            yield len(piece).to_bytes(4, "big") + hashlib.sha256(piece).digest() + piece
    yield bytes(4) + whole.digest()


def read_frame(read: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    """(data, digest) of the next frame. Data is empty at the end of the stream; the caller then
    compares the digest with that of everything it has. `read(n)` returns 1 to n bytes, or none
    where the connection has ended. DamagedError if the frame is incomplete or fails its digest."""
    head = _exactly(read, 4 + _DIGEST_SIZE)
    length, digest = int.from_bytes(head[:4], "big"), head[4:]
    if length > CHUNK:
        raise DamagedError(f"a frame claims {length} bytes, more than {CHUNK}")
    data = _exactly(read, length)
    if data and hashlib.sha256(data).digest() != digest:
        raise DamagedError("a frame arrived damaged")
    return data, digest


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = read(size - len(data))
        if not more:
            raise DamagedError(f"the connection ended {size - len(data)} bytes too early")
        data += more
    return bytes(data)
