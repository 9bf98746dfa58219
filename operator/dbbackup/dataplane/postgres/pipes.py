"""Pipes between us and PostgreSQL's programs, which write 4 KiB at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import suppress

SIZE = 1 << 20
CHUNK = 1 << 17
"""Bytes that a chunk has at least, except the last."""
_READ = 1 << 18
_FASTEST = 500_000_000
"""Bytes a second, faster than any of the programs: in this time a pipe cannot fill from empty."""


def widen(pipe: int) -> None:
    """Makes it hold SIZE bytes, where the system's limit for pipes is not lower."""
    with suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, SIZE)


def read_chunks(pipe: int) -> Iterator[bytes]:
    """What is written to it, up to its end. A reader that waits in `read` is woken for each 4 KiB;
    one that sleeps while the pipe fills spares itself and the writer the switches."""
    pause = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) / _FASTEST
    gathered: list[bytes] = []
    size = 0
    while data := os.read(pipe, _READ):
        gathered.append(data)
        size += len(data)
        if size >= CHUNK:
            yield b"".join(gathered)
            gathered.clear()
            size = 0
        if len(data) < _READ:
            time.sleep(pause)
    if gathered:
        yield b"".join(gathered)
