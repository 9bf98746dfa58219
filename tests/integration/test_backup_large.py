"""Large values: neither format holds one in memory, apart from pg_dump itself."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.conftest import Job, Postgres
from tests.integration.stock import follow_note

MEGABYTES = 100


@pytest.mark.parametrize("fmt", ["plain", "custom"])
def test_a_value_of_100_megabytes(job: Job, postgres: Postgres, database: str, new_database: Callable[..., str], tmp_path: Path, fmt: str) -> None:
    postgres.execute(
        f"CREATE TABLE public.t AS SELECT i AS id, repeat(md5(i::text), 1000000 * {MEGABYTES} / 32) AS value FROM generate_series(1, 2) i", database
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ended = job.backup(format=fmt)
    assert ended.code == 0, ended.log
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert grown < 90, f"{grown} MiB more than before"
    assert ended.report.bytes_read is not None
    assert ended.report.bytes_read > 2 * MEGABYTES * 1_000_000
    target = new_database()
    follow_note(postgres, job.fetch(ended, tmp_path / "fetched"), target)
    query = "SELECT id, md5(value), length(value) FROM public.t ORDER BY 1"
    assert postgres.execute(query, target) == postgres.execute(query, database)


@pytest.mark.parametrize("fmt", ["plain", "custom"])
def test_a_bytea_that_no_client_can_dump_is_reported(job: Job, postgres: Postgres, database: str, fmt: str) -> None:
    """600 MB are 1,200 million hexadecimal digits: more than the server makes in one piece. As a
    large object they can be dumped."""
    postgres.execute("CREATE TABLE public.t AS SELECT convert_to(repeat('x', 600000000), 'UTF8') AS value", database)
    ended = job.backup(format=fmt)
    assert ended.reason == "ValueTooLarge", ended.log
    assert ended.report.failure
    assert "invalid memory alloc request size" in ended.report.failure.message
    assert "large object" in ended.report.failure.hint
    assert job.leftovers() == []
