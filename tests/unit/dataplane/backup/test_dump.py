from __future__ import annotations

import pytest

from dbbackup.contract.errors import Failure
from dbbackup.dataplane.backup.dump import PgDump
from dbbackup.dataplane.context import Stop
from dbbackup.dataplane.postgres.conninfo import Conninfo
from dbbackup.dataplane.postgres.pipes import CHUNK


def dump_of(script: str) -> PgDump:
    """A program in place of pg_dump."""
    info = Conninfo(host="h", port=5432, name="d", user="u", password="")
    return PgDump([b"sh", b"-c", script.encode()], {"PATH": "/usr/bin:/bin"}, info, (), Stop(), lambda _: None)


def test_output_comes_whole_and_in_chunks() -> None:
    dump = dump_of("dd if=/dev/zero bs=4095 count=150 status=none; echo end")
    chunks = list(dump.chunks())
    dump.close()
    assert b"".join(chunks) == bytes(4095 * 150) + b"end\n"
    assert all(len(chunk) >= CHUNK for chunk in chunks[:-1])


def test_an_end_of_the_output_is_no_end_of_the_dump() -> None:
    dump = dump_of("echo all of it; echo 'pg_dump: error: it broke' >&2; exit 1")
    chunks = dump.chunks()
    assert next(chunks) == b"all of it\n"
    with pytest.raises(Failure, match="it broke"):
        next(chunks)
    dump.close()
