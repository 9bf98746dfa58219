"""Decompresses a stored artifact: with the zstd of Python 3.14, that of backports.zstd, or the
program `zstd`. Without any of them the pod decompresses."""

from __future__ import annotations

import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from dbbackup.cli.errors import CliError, CliExit

CHUNK = 1 << 20
SLICE = 64 << 10
"""Bytes decoded at a time: small enough that output a thousand times as large fits into memory."""


class Decoder(Protocol):
    """The common part of zlib's and zstd's decompression objects."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def zstd_decoder() -> Callable[[], Decoder] | None:
    """Creates a decoder of one zstd frame; None if this Python has no zstd."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            module: Any = __import__(name, fromlist=["ZstdDecompressor"])
        except ImportError:
            continue
        make: Callable[[], Decoder] = module.ZstdDecompressor
        return make
    return None


def available(algorithm: str) -> bool:
    """Whether this machine can decompress it."""
    return algorithm in ("none", "gzip") or zstd_decoder() is not None or shutil.which("zstd") is not None


def chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            yield data


def decompress(algorithm: str, stored: Iterable[bytes]) -> Iterator[bytes]:
    """CliError CORRUPT if the stream is damaged or ends early."""
    if algorithm == "none":
        yield from stored
        return
    if algorithm == "gzip":
        yield from _frames(lambda: zlib.decompressobj(wbits=31), stored)
        return
    if algorithm != "zstd":
        raise CliError(f"the artifact is compressed with {algorithm}, which this plugin does not know", CliExit.FAILED, "Use a newer plugin.")
    make = zstd_decoder()
    yield from _frames(make, stored) if make is not None else _program(stored)


def _frames(make: Callable[[], Any], stored: Iterable[bytes]) -> Iterator[bytes]:
    decoder, fresh = make(), True
    for piece in (data[at : at + SLICE] for data in stored for at in range(0, len(data), SLICE)):
        rest, fresh = piece, False
        while rest:
            if decoder.eof:
                decoder = make()
            try:
                out = decoder.decompress(rest)
            except Exception as error:  # noqa: BLE001 - each library raises its own type
                raise CliError(f"the artifact cannot be decompressed: {error}", CliExit.CORRUPT) from None
            rest = decoder.unused_data if decoder.eof else b""
            if out:
                yield out
    if fresh or not decoder.eof:
        raise CliError("the artifact ends before its compressed stream does", CliExit.CORRUPT)


def _program(stored: Iterable[bytes]) -> Iterator[bytes]:
    import threading  # noqa: PLC0415

    process = subprocess.Popen(["zstd", "-dcq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    stdin, broken = process.stdin, []

    def feed() -> None:
        try:
            for data in stored:
                stdin.write(data)
            stdin.close()
        except BrokenPipeError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the reader
            broken.append(error)
            process.kill()

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        while out := process.stdout.read(CHUNK):
            yield out
        feeder.join()
        if broken:
            raise broken[0]
        if process.wait():
            raise CliError(f"the artifact cannot be decompressed: {process.stderr.read().decode(errors='replace').strip()}", CliExit.CORRUPT)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr, stdin):
            with suppress(OSError):
                pipe.close()
