"""Compressors and decompressors over chunks. A stream that is cut short or damaged raises
ArtifactCorrupt; it never ends cleanly."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from dbbackup.contract.errors import Failure
from dbbackup.contract.formats import Algorithm

if TYPE_CHECKING or sys.version_info < (3, 14):
    from backports import zstd
else:
    from compression import zstd

Chunk = bytes | bytearray | memoryview

CHUNK = 1 << 20
"""Maximum bytes that a decompressor yields at a time, whatever the ratio."""
SLICE = 256 << 10
"""Bytes of input decoded at a time: after each of many small frames the rest of it is copied."""
WINDOW_LOG_MAX = 27
"""Bits: the most that stock `zstd -d` takes without --long; a frame that asks for more is
refused."""
# zstd's level 3 takes twice the time of level 1 and makes a dump of rows hardly smaller; gzip takes
# more time than either.
DEFAULT_LEVEL: dict[Algorithm, int] = {"zstd": 1, "gzip": 1, "none": 0}
HASH_LOG = 13
"""Of zstd's level 1: a table that fits the processor's first cache is up to a tenth faster than
zstd's own 2^14; rows come out smaller (0 to 1.5 %), prose larger (1 to 3 %)."""
CONTENT_TYPE: dict[Algorithm, str] = {"zstd": "application/zstd", "gzip": "application/gzip", "none": "application/octet-stream"}


class Compressor(Protocol):
    def feed(self, chunk: Chunk) -> bytes:
        """The bytes that are ready, often none."""

    def finish(self) -> bytes:
        """The rest. Call `feed` no more after it."""


class Decompressor(Protocol):
    def feed(self, chunk: Chunk) -> Iterator[bytes]:
        """Chunks of at most CHUNK bytes. The iterator must be exhausted before the next `feed`."""

    def finish(self) -> None:
        """Failure ArtifactCorrupt unless the stream ended where it should."""


def compressor(algorithm: Algorithm, level: int | None = None, threads: int | None = None) -> Compressor:
    """`level` absent: DEFAULT_LEVEL. `threads` of zstd beside the caller's; absent: none up to
    level 1, which keeps up with pg_dump in the caller's thread (300 MB/s of a processor's time),
    else one for each processor that the process may use, at most 4."""
    level = DEFAULT_LEVEL[algorithm] if level is None else level
    if algorithm == "zstd":
        return _ZstdCompressor(level, (0 if level <= 1 else min(4, len(os.sched_getaffinity(0)))) if threads is None else threads)
    return _GzipCompressor(level) if algorithm == "gzip" else _NoCompressor()


def decompressor(algorithm: Algorithm, name: str = "the artifact") -> Decompressor:
    """`name` is for messages."""
    if algorithm == "zstd":
        return _ZstdDecompressor(name)
    return _GzipDecompressor(name) if algorithm == "gzip" else _NoDecompressor()


def decompress(algorithm: Algorithm, chunks: Iterable[Chunk], name: str = "the artifact") -> Iterator[bytes]:
    """The whole stream: chunks of at most CHUNK bytes, or Failure ArtifactCorrupt."""
    decoder = decompressor(algorithm, name)
    for chunk in chunks:
        yield from decoder.feed(chunk)
    decoder.finish()


class _NoCompressor:
    def feed(self, chunk: Chunk) -> bytes:
        return bytes(chunk)

    def finish(self) -> bytes:
        return b""


class _ZstdCompressor:
    def __init__(self, level: int, threads: int) -> None:
        parameter = zstd.CompressionParameter
        options: dict[int, int] = {parameter.compression_level: level, parameter.checksum_flag: 1, parameter.nb_workers: threads}
        if level == 1:
            options[parameter.hash_log] = HASH_LOG
        self._stream = zstd.ZstdCompressor(options=options)

    def feed(self, chunk: Chunk) -> bytes:
        return self._stream.compress(chunk)

    def finish(self) -> bytes:
        return self._stream.flush()


class _GzipCompressor:
    def __init__(self, level: int) -> None:
        self._stream = zlib.compressobj(level, zlib.DEFLATED, 31)

    def feed(self, chunk: Chunk) -> bytes:
        return self._stream.compress(chunk)

    def finish(self) -> bytes:
        return self._stream.flush()


class _NoDecompressor:
    def feed(self, chunk: Chunk) -> Iterator[bytes]:
        view = memoryview(chunk)
        for at in range(0, len(view), CHUNK):
            yield bytes(view[at : at + CHUNK])

    def finish(self) -> None:
        """Any length is valid here: only the parts' digests show a loss."""


class _ZstdDecompressor:
    def __init__(self, name: str) -> None:
        self._name, self._stream = name, self._frame()

    @staticmethod
    def _frame() -> zstd.ZstdDecompressor:
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG_MAX})

    def feed(self, chunk: Chunk) -> Iterator[bytes]:
        view = memoryview(chunk)
        for at in range(0, len(view), SLICE):
            yield from self._feed(view[at : at + SLICE])

    def _feed(self, data: Chunk) -> Iterator[bytes]:
        while len(data) or not (self._stream.eof or self._stream.needs_input):
            if self._stream.eof:
                self._stream = self._frame()
            try:
                out = self._stream.decompress(data, CHUNK)
            except zstd.ZstdError as error:
                raise Failure("ArtifactCorrupt", f"{self._name}: {error}") from None
            if out:
                yield out
            data = self._stream.unused_data if self._stream.eof else b""

    def finish(self) -> None:
        if not self._stream.eof:
            raise Failure("ArtifactCorrupt", f"{self._name}: its zstd stream ends before its last frame does")


class _GzipDecompressor:
    def __init__(self, name: str) -> None:
        self._name, self._stream = name, zlib.decompressobj(31)

    def feed(self, chunk: Chunk) -> Iterator[bytes]:
        view = memoryview(chunk)
        for at in range(0, len(view), SLICE):
            yield from self._feed(view[at : at + SLICE])

    def _feed(self, data: Chunk) -> Iterator[bytes]:
        while len(data):
            if self._stream.eof:
                self._stream = zlib.decompressobj(31)
            try:
                out = self._stream.decompress(data, CHUNK)
            except zlib.error as error:
                raise Failure("ArtifactCorrupt", f"{self._name}: {error}") from None
            if out:
                yield out
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail

    def finish(self) -> None:
        if not self._stream.eof:
            raise Failure("ArtifactCorrupt", f"{self._name}: its gzip stream ends before its last member does")
