"""What is removed from a dump, what is rewritten, and what stays as it is."""

from __future__ import annotations

import pytest

from dbbackup.contract.errors import Failure
from dbbackup.dataplane.backup.plain_stream import PlainStream
from dbbackup.dataplane.sql.filter import Filter
from dbbackup.dataplane.sql.splitter import Splitter, SqlError


def filtered(dump: bytes) -> bytes:
    splitter, rules = Splitter(), Filter()
    return b"".join(rules.apply(piece) for piece in [*splitter.feed(dump), *splitter.finish()])


@pytest.mark.parametrize(
    "statement",
    [
        b"SET transaction_timeout = 0;",
        b"DROP SCHEMA IF EXISTS auth;",
        b"DROP SCHEMA public;",
        b"DROP EXTENSION IF EXISTS citext;",
        b"COMMENT ON EXTENSION citext IS 'data type; for strings';",
        b"COMMENT ON SCHEMA public IS 'standard public schema';",
        b"BEGIN;",
        b"COMMIT;",
        b"ALTER TABLE ONLY public.t ALTER COLUMN a SET (pg_attver=3);",
        b"\\restrict oFhM4Ub2\n",
        b"\\unrestrict oFhM4Ub2\n",
    ],
)
def test_statements_that_the_filter_removes(statement: bytes) -> None:
    assert filtered(b"SELECT 1;\n\n--\n-- x\n--\n\n" + statement + b"\nSELECT 2;\n").replace(b"--\n-- x\n--", b"").split() == [
        b"SELECT",
        b"1;",
        b"SELECT",
        b"2;",
    ]


@pytest.mark.parametrize(
    "statement",
    [
        b"SET statement_timeout = 0;",
        b"SET transaction_isolation = 'x';",
        b"DROP TABLE IF EXISTS public.t;",
        b"COMMENT ON SCHEMA auth IS 'x';",
        b"COMMENT ON SCHEMA publications IS 'x';",
        b"COMMENT ON TABLE public.t IS 'SET transaction_timeout = 0;';",
        b"CREATE FUNCTION public.f() RETURNS void LANGUAGE plpgsql AS $$\nBEGIN\nDROP SCHEMA IF EXISTS auth;\nCOMMIT;\nEND $$;",
        b"CREATE FUNCTION public.g() RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT 1; END;",
        b"ALTER TABLE ONLY public.t ALTER COLUMN a SET (n_distinct=5);",
        b"ALTER TABLE ONLY public.t ALTER COLUMN a SET DEFAULT 'pg_attver';",
        b"CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public;",
        b"CREATE SCHEMA IF NOT EXISTS auth;",
    ],
)
def test_statements_that_the_filter_keeps(statement: bytes) -> None:
    dump = b"CREATE TABLE public.a ();\n\n--\n-- x\n--\n\n" + statement + b"\n"
    assert filtered(dump) == dump


@pytest.mark.parametrize(
    ("statement", "becomes"),
    [
        (b"CREATE SCHEMA auth;", b"CREATE SCHEMA IF NOT EXISTS auth;"),
        (b'CREATE SCHEMA "IF x";', b'CREATE SCHEMA IF NOT EXISTS "IF x";'),
        (
            b"ALTER TABLE ONLY public.t ALTER COLUMN a SET (n_distinct=5, pg_attver=3);",
            b"ALTER TABLE ONLY public.t ALTER COLUMN a SET (n_distinct=5);",
        ),
        (
            b"ALTER TABLE ONLY public.t ALTER COLUMN a SET (pg_attver=3,n_distinct=5);",
            b"ALTER TABLE ONLY public.t ALTER COLUMN a SET (n_distinct=5);",
        ),
        (
            b"CREATE EXTENSION IF NOT EXISTS pgcrypto WITH SCHEMA extensions;",
            b"CREATE SCHEMA IF NOT EXISTS extensions;\nCREATE EXTENSION IF NOT EXISTS pgcrypto WITH SCHEMA extensions;",
        ),
        (
            b"CREATE SCHEMA extensions;\nCREATE EXTENSION IF NOT EXISTS pgcrypto WITH SCHEMA extensions;",
            b"CREATE SCHEMA IF NOT EXISTS extensions;\nCREATE EXTENSION IF NOT EXISTS pgcrypto WITH SCHEMA extensions;",
        ),
    ],
)
def test_statements_that_the_filter_rewrites(statement: bytes, becomes: bytes) -> None:
    assert filtered(b"SELECT 1;\n" + statement + b"\n") == b"SELECT 1;\n" + becomes + b"\n"


def test_a_dummy_view_is_created_only_over_an_existing_view() -> None:
    dummy = b'CREATE OR REPLACE VIEW public."v\'$dbbackup$" AS\nSELECT\n    NULL::integer AS id;'
    real = b"CREATE OR REPLACE VIEW public.v AS\n SELECT NULL::integer AS id;"
    text = filtered(b"DROP TABLE IF EXISTS public.t;\n" + dummy + b"\nCREATE TABLE public.t ();\n" + real + b"\n")
    assert b"to_regclass('public.\"v''$dbbackup$\"') IS NOT NULL THEN\n" + dummy in text
    assert text.count(b"$dbbackup_$") == 2
    assert text.endswith(b"\nCREATE TABLE public.t ();\n" + real + b"\n")
    assert [piece.text for piece in Splitter().feed(text)][1].startswith(b"DO $dbbackup_$")


@pytest.mark.parametrize("line", [b"\\! rm -rf /\n", b"\\connect other\n", b"\\restrictx\n", b"\\i /etc/passwd\n"])
def test_any_other_meta_command_fails_the_backup(line: bytes) -> None:
    with pytest.raises(SqlError, match="meta-command"):
        filtered(b"-- Name: evil\n" + line)


def test_the_stream_counts_rows_and_filters() -> None:
    dump = (
        b"\\restrict x\n\nCREATE FUNCTION f() AS $$\nCOPY public.t (a) FROM stdin;\n1\n\\.\n$$;\n"
        b'COPY public.t (a) FROM stdin;\n1\n2\nBEGIN;\n\\.\n\nCOPY auth."U s" (a) FROM stdin;\n\\.\n\n\\unrestrict x\n'
    )
    for size in (1, 7, len(dump)):
        stream = PlainStream(dump[i : i + size] for i in range(0, len(dump), size))
        out = b"".join(stream)
        assert out == dump.replace(b"\\restrict x\n", b"").replace(b"\\unrestrict x\n", b"")
        assert stream.rows == {("public", "t"): 3, ("auth", "U s"): 0}
        assert (stream.bytes_read, stream.bytes_kept) == (len(dump), len(out))


def test_a_stream_cut_short_is_no_dump() -> None:
    with pytest.raises(Failure, match="ends within COPY data") as caught:
        list(PlainStream([b"COPY public.t (a) FROM stdin;\n1\n"]))
    assert caught.value.reason.name == "DumpFailed"
