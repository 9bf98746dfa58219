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
        b"COMMENT ON SCHEMA public IS 'standard public schema';",
        b"BEGIN;",
        b"COMMIT;",
        b"ALTER TABLE ONLY public.t ALTER COLUMN a SET (pg_attver=3);",
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
        b"COMMENT ON COLUMN public.t.a IS 'x';",
        b"COMMENT ON TABLE public.t IS 'SET transaction_timeout = 0;';",
        b"CREATE FUNCTION public.f() RETURNS void LANGUAGE plpgsql AS $$\nBEGIN\nDROP SCHEMA IF EXISTS auth;\nCOMMIT;\nEND $$;",
        b"CREATE FUNCTION public.g() RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT 1; END;",
        b"ALTER TABLE ONLY public.t ALTER COLUMN a SET (n_distinct=5);",
        b"ALTER TABLE ONLY public.t ALTER COLUMN a SET DEFAULT 'pg_attver';",
        b"CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public;",
        b"CREATE EXTENSION IF NOT EXISTS adminpack WITH SCHEMA pg_catalog;",
        b'CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA "pg_x y";',
        b"CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA information_schema;",
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


def test_what_fails_where_nothing_exists_is_made_harmless_in_the_drop_section_alone() -> None:
    kept = b"DROP TABLE IF EXISTS public.t;\nALTER TABLE IF EXISTS ONLY public.t DROP CONSTRAINT IF EXISTS c;\n"
    risky = [
        b'CREATE OR REPLACE VIEW public."v\'$dbbackup$" AS\nSELECT\n    NULL::integer AS id;',
        b"CREATE OR REPLACE VIEW public.v AS\nSELECT;",
        b"ALTER FOREIGN TABLE public.f ALTER COLUMN a DROP DEFAULT;",
        b"ALTER DOMAIN public.d DROP CONSTRAINT IF EXISTS c;",
        b"DROP OPERATOR CLASS IF EXISTS public.c USING am;",
        b"DROP TABLE public.t;",
    ]
    made = b"--\n-- Name: v\n--\n\n" + risky[0] + b"\n" + risky[2] + b"\n"
    start = b"--\n-- PostgreSQL database dump\n--\n\nSET statement_timeout = 0;\nSELECT pg_catalog.set_config('search_path', '', false);\n\n"
    text = filtered(start + kept + b"\n".join(risky) + b"\n" + made)
    assert text.startswith(start + kept + b"DO $dbbackup_$\nBEGIN\n" + risky[0] + b"\nEXCEPTION WHEN undefined_table OR ")
    assert text.endswith(made)
    between = list(Splitter().feed(text[len(start + kept) : -len(made)]))
    assert len(between) == len(risky)
    assert all(piece.text.startswith(b"DO $dbbackup") and statement in piece.text for piece, statement in zip(between, risky, strict=True))
    rules, splitter = Filter(stored=False), Splitter()
    assert (
        b"".join(rules.apply(piece) for piece in splitter.feed(start + kept + risky[1] + b"\n" + made)) == start + kept + risky[1] + b"\n" + made[:-1]
    )


@pytest.mark.parametrize("setting", [b"SET client_encoding = 'UTF8';", b"SELECT 1;"])
def test_a_dump_without_a_drop_section_has_nothing_made_harmless(setting: bytes) -> None:
    dump = b"-- dump\n" + setting + b"\n\n--\n-- Name: d\n--\n\nALTER DOMAIN public.d DROP CONSTRAINT c;\n"
    assert filtered(dump) == dump


@pytest.mark.parametrize(
    ("kind", "name", "found"),
    [
        (b"EXTENSION", b"citext", b"pg_extension WHERE extname = E'citext'), 'pg_extension')"),
        (b"SCHEMA", b'"it\'s \\ ""odd"""', b"pg_namespace WHERE nspname = E'it''s \\\\ \"odd\"'), 'pg_namespace')"),
    ],
)
def test_comments_that_only_an_owner_may_set_become_a_warning(kind: bytes, name: bytes, found: bytes) -> None:
    comment = b"COMMENT ON " + kind + b" " + name + b" IS 'IS it''s; $dbbackup$';"
    text = filtered(b"-- x\n" + comment + b"\n")
    rule = b"\nSET standard_conforming_strings = on;\n" if b"\\" in name else b""
    assert text.startswith(rule + b"-- x\n" + b"DO $dbbackup_$\nBEGIN\n" + comment + b"\nEXCEPTION WHEN insufficient_privilege THEN\n")
    assert found + b", '') <> 'IS it''s; $dbbackup$' THEN" in text


@pytest.mark.parametrize("line", [b"\\! rm -rf /\n", b"\\connect other\n", b"\\restrictx\n", b"\\i /etc/passwd\n"])
def test_any_other_meta_command_fails_the_backup(line: bytes) -> None:
    with pytest.raises(SqlError, match="meta-command"):
        filtered(b"-- Name: evil\n" + line)


def test_what_texts_mean_is_set_once_in_an_artifact() -> None:
    dump = b"\\restrict x\n\nSET standard_conforming_strings = on;\nSELECT 1;\n\\unrestrict x\n"
    head, mark, tail = dump.partition(b" = on;")
    text = filtered(dump)
    assert text.startswith(head + mark)
    assert text.endswith(tail)
    added = {line.split()[1] for line in text[len(head + mark) : -len(tail)].splitlines() if line}
    assert added == {b"array_nulls", b"transform_null_equals", b"DateStyle", b"IntervalStyle", b"backslash_quote"}


@pytest.mark.parametrize("strings", [b"on", b"off"])
def test_where_a_backslash_matters_the_rule_for_strings_is_set(strings: bytes) -> None:
    head = b"SET standard_conforming_strings = " + strings + b";"
    dump = head + b"\n-- x\nCOMMENT ON INDEX public.i IS 'a\\\\';\nCREATE FUNCTION public.f() RETURNS int AS $$1$$;\nSELECT 'b\\\\';\n"
    dump += b"SELECT pg_catalog.lowrite(0, '\\\\x00');\n" * 3 + b"SELECT pg_catalog.lo_close(0);\n"
    text = filtered(dump)
    assert text.count(head) == 4
    assert head + b"\n-- x\nCOMMENT ON INDEX public.i" in text, "the comment stays at its statement: it shows where the DROP section ends"
    assert head + b"\nSELECT 'b" in text
    assert text.replace(b"\n" + head, b"").endswith(dump[len(head) :])


def test_what_psql_would_take_for_the_beginning_of_a_body_is_quoted() -> None:
    routine = (
        b"CREATE FUNCTION public.begin(a int DEFAULT 'begin'::text, E'\\\\' begin, \"begin\" x) RETURNS public.begin LANGUAGE sql\n"
        b"    BEGIN ATOMIC\n SELECT begin.a, t.begin, beginning FROM public.begin begin;\nEND;"
    )
    quoted = filtered(routine + b"\n").rpartition(b";\nCREATE")
    text = b"CREATE" + quoted[2] if quoted[1] else quoted[2]
    assert text == (
        b'CREATE FUNCTION public."begin"(a int DEFAULT \'begin\'::text, E\'\\\\\' "begin", "begin" x) RETURNS public."begin" LANGUAGE sql\n'
        b'    BEGIN ATOMIC\n SELECT "begin".a, t."begin", beginning FROM public."begin" "begin";\nEND;\n'
    )
    body = b"CREATE FUNCTION public.f() RETURNS int LANGUAGE plpgsql AS $$ begin return 1; end $$;\nCREATE TABLE public.begin (begin int);\n"
    assert filtered(body) == body


def test_the_stream_counts_rows_and_filters() -> None:
    dump = (
        b"\\restrict x\n\nCREATE FUNCTION f() AS $$\nCOPY public.t (a) FROM stdin;\n1\n$$;\n"
        b'COPY public.t (a) FROM stdin;\n1\n2\nBEGIN;\n\\.\n\nCOPY auth."U s" (a) FROM stdin;\n\\.\n\n\\unrestrict x\n'
    )
    for size in (1, 7, len(dump)):
        stream = PlainStream(dump[i : i + size] for i in range(0, len(dump), size))
        out = b"".join(stream)
        assert out == dump
        assert stream.rows == {("public", "t"): 3, ("auth", "U s"): 0}
        assert (stream.bytes_read, stream.bytes_kept) == (len(dump), len(out))


def test_a_stream_cut_short_is_no_dump() -> None:
    with pytest.raises(Failure, match="ends within COPY data") as caught:
        list(PlainStream([b"COPY public.t (a) FROM stdin;\n1\n"]))
    assert caught.value.reason.name == "DumpFailed"
