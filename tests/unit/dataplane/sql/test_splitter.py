"""The splitter: what is a statement, what is COPY data, whatever the chunks."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbbackup.dataplane.sql.splitter import Kind, Piece, Splitter, SqlError, copy_table, qualified_name


def split(data: bytes, size: int = 0) -> list[Piece]:
    splitter = Splitter()
    pieces: list[Piece] = []
    for i in range(0, len(data), size or max(1, len(data))):
        pieces += splitter.feed(data[i : i + (size or len(data))])
    return pieces + list(splitter.finish())


def merged(pieces: list[Piece]) -> list[tuple[Kind, bytes, int, int]]:
    """Pieces with adjacent DATA slices joined: chunk boundaries may cut data anywhere."""
    result: list[tuple[Kind, bytes, int, int]] = []
    for piece in pieces:
        if piece.kind is Kind.DATA and result and result[-1][0] is Kind.DATA:
            _, data, start, rows = result[-1]
            result[-1] = (Kind.DATA, data + piece.data, start, rows + piece.rows)
        else:
            result.append((piece.kind, piece.data, piece.start, piece.rows))
    return result


def texts(data: bytes, size: int = 0) -> list[bytes]:
    return [piece.text for piece in split(data, size)]


STATEMENTS = [
    b"SELECT 1;",
    b"SELECT ';', 'it''s;', ';' ;",
    b"SELECT E'\\';', e'a\\\\', E'x'';';",
    b'SELECT ";" , "a"";" FROM "we;ird";',
    b"SELECT $$;$$, $a$ $b$ ; $$ $a$, $1, foo$bar$;",
    b"CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $_$\nCOPY t (a) FROM stdin;\n1\n\\.\nBEGIN; END;$_$;",
    b"SELECT 1 -- ; '\n + 2;",
    b"SELECT /* ; /* ' */ ; */ 1;",
    b"SELECT 5 - -3 / 2;",
    b"CREATE RULE r AS ON INSERT TO t DO INSTEAD (INSERT INTO a VALUES (1); INSERT INTO b VALUES (2));",
    b"CREATE FUNCTION f(a integer) RETURNS integer LANGUAGE sql\n    BEGIN ATOMIC\n SELECT CASE WHEN (a > 1) THEN 2 ELSE 3 END;\n SELECT 1;\nEND;",
    b"CREATE OR REPLACE PROCEDURE p() LANGUAGE sql begin atomic insert into t values (1); END;",
    b'CREATE FUNCTION g(case_id integer, ending integer) RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT case_id, begin, "end" FROM t; END;',
    b"CREATE VIEW v AS SELECT CASE WHEN true THEN 1 ELSE 2 END AS begin;",
    b'CREATE FUNCTION f() RETURNS SETOF int LANGUAGE sql BEGIN ATOMIC SELECT begin FROM t;\n SELECT t.begin, t."end" FROM public.begin t;\nEND;',
    b"CREATE FUNCTION f() RETURNS SETOF int LANGUAGE sql\n BEGIN ATOMIC\n WITH begin AS (SELECT 1 AS a) SELECT atomic.a FROM begin atomic;\nEND;",
    b'CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1 AS "case"; SELECT CASE WHEN true THEN 1 END; END;',
    b"CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1 AS case; SELECT 2 end; SELECT t.end, 3 case FROM t; END;",
    b"CREATE PROCEDURE p() LANGUAGE sql BEGIN /* ; */ ATOMIC -- END;\n END;",
    b"CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; -- END;\r /* END; */ /* ; */\n END ;",
    b"CREATE /* a */ FUNCTION begin(atomic int) RETURNS begin LANGUAGE sql BEGIN ATOMIC SELECT 1; END;",
    b"CREATE FUNCTION public.begin() RETURNS int LANGUAGE sql AS $$SELECT 1;$$;",
    b"SELECT 1 -- ; '\r + 2;",
    b"SELECT E'a'\n 'b\\'; SELECT' -- it\r '\\';';",
    b"SELECT E'a' -- ; '\n\t -- '\n\r'b\\';';",
    b"COMMENT ON TABLE t IS 'BEGIN ATOMIC \\ ;';",
    b"COMMENT ON TABLE t IS 'ends in a backslash \\';",
    b"COPY t TO stdout;",
    b"SELECT 'COPY t FROM stdin;';",
]
DATA = [b"", b"1\t2\n", b"\\N\tx\n\\\\.\n", b"a\\.\n", b"\n\n", b"\\\\.x\n", b".\n", b"x" * 300 + b"\n" + b"\\n\n"]
BLANKS = [b"", b"\n", b"-- a\r-- ;'\r", b"\n\n--\n-- Name: t; Type: TABLE 'it\n--\n\n", b"/* a ; */ ", b"  -- x\n", b"\r\n\t"]


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("size", [0, 1, 7])
def test_each_statement_is_one_piece(statement: bytes, size: int) -> None:
    assert texts(statement + b"\n" + statement + b"\nSELECT 2;\n", size) == [statement, statement, b"SELECT 2;", b"\n"]


blank = st.sampled_from(BLANKS)
statement = st.sampled_from([(Kind.STATEMENT, s) for s in STATEMENTS])
meta = st.sampled_from([(Kind.META, m) for m in (b"\\restrict abc;'\n", b"\\unrestrict abc\n", b"\\connect -reuse-previous=on \"dbname='x'\"\n")])
copy = st.tuples(
    st.sampled_from(
        [b"COPY public.t (a, b) FROM stdin;\n", b'COPY "a b"."c;FROM stdin;" ("x;") FROM stdin;\n', b"COPY t FROM stdin WITH (FORMAT text);\n"]
    ),
    st.lists(st.sampled_from(DATA), max_size=5).map(b"".join),
)


@st.composite
def dumps(draw: st.DrawFn) -> tuple[bytes, list[tuple[Kind, bytes]]]:
    data, expected = b"", []
    for part in draw(st.lists(st.one_of(statement, meta, copy), max_size=6)):
        lead = draw(blank)
        if isinstance(part[0], Kind):
            expected.append((part[0], lead + part[1]))
            data += lead + part[1]
        else:
            header, rows = part
            expected.append((Kind.COPY, lead + header))
            expected += [(Kind.DATA, rows)] * bool(rows)
            expected.append((Kind.COPY_END, b"\\.\n"))
            data += lead + header + rows + b"\\.\n"
    if tail := draw(blank):
        expected.append((Kind.BLANK, tail))
    return data + tail, expected


@given(dumps(), st.data())
def test_any_chunking_gives_the_same_pieces(dump: tuple[bytes, list[tuple[Kind, bytes]]], draw: st.DataObject) -> None:
    data, expected = dump
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=12)))
    splitter = Splitter()
    pieces: list[Piece] = []
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        pieces += splitter.feed(data[begin:end])
    pieces += splitter.finish()
    assert b"".join(piece.data for piece in pieces) == data
    assert [(kind, text) for kind, text, _, _ in merged(pieces)] == expected
    assert sum(piece.rows for piece in pieces) == sum(text.count(b"\n") for kind, text in expected if kind is Kind.DATA)


def outcome(data: bytes, sizes: list[int]) -> object:
    splitter = Splitter()
    pieces: list[Piece] = []
    position = 0
    try:
        for size in sizes:
            pieces += splitter.feed(data[position : position + size])
            position += size
        pieces += splitter.feed(data[position:])
        pieces += splitter.finish()
    except SqlError as error:
        return str(error)
    return merged(pieces)


@given(
    st.lists(
        st.sampled_from(
            [*"'\"$;()-/*\\\n eE.aN", "$a$", "--", "/*", "*/", "BEGIN ATOMIC", "END", "CASE ", "\\.\n", "COPY t FROM stdin;\n", "CREATE FUNCTION "]
        )
    )
    .map("".join)
    .map(str.encode),
    st.lists(st.integers(1, 9)),
)
def test_any_chunking_of_anything_gives_the_same_outcome(data: bytes, sizes: list[int]) -> None:
    whole = outcome(data, [])
    assert outcome(data, sizes) == whole or (isinstance(whole, str) and isinstance(outcome(data, sizes), str))


@pytest.mark.parametrize(
    "cut", [b"SELECT 1", b"SELECT 'a;", b"SELECT $$ ;", b"COPY t FROM stdin;", b"COPY t FROM stdin;\n1\t2\n", b"/* x", b"SELECT (1;"]
)
def test_a_cut_dump_is_refused(cut: bytes) -> None:
    with pytest.raises(SqlError, match="ends within"):
        split(cut)


def test_a_meta_command_within_a_statement_is_refused() -> None:
    with pytest.raises(SqlError, match="meta-command"):
        split(b"SELECT 1 \\gexec\n;")


def test_strings_with_backslashes_follow_the_dump() -> None:
    off = b"SET standard_conforming_strings = off;"
    assert texts(off + b"SELECT '\\';';SELECT 2;") == [off, b"SELECT '\\';';", b"SELECT 2;"]


def test_a_large_row_is_never_held() -> None:
    splitter = Splitter()
    pieces = list(splitter.feed(b"COPY t FROM stdin;\n"))
    for _ in range(200):
        pieces = list(splitter.feed(b"x" * 65536))
        assert [len(piece.data) for piece in pieces] == [65536]
        assert pieces[0].rows == 0
    assert [(piece.kind, piece.rows) for piece in splitter.feed(b"\n\\.\n")] == [(Kind.DATA, 1), (Kind.COPY_END, 0)]
    assert list(splitter.finish()) == []


@pytest.mark.parametrize("backslashes", [0, 1, 511, 512, 513, 2000])
@pytest.mark.parametrize("rest", [b"", b"COPY u FROM stdin;\n\\N\n\\.\n"])
def test_the_end_of_data_is_found_behind_any_number_of_backslashes(backslashes: int, rest: bytes) -> None:
    data = b"a\\.\n" * backslashes + b"b\n"
    pieces = merged(split(b"COPY t FROM stdin;\n" + data + b"\\.\n" + rest))
    assert [(kind, rows) for kind, _, _, rows in pieces[:3]] == [(Kind.COPY, 0), (Kind.DATA, backslashes + 1), (Kind.COPY_END, 0)]
    assert len(pieces) == (6 if rest else 3)
    unended = Splitter()
    assert [piece.kind for piece in unended.feed(b"COPY t FROM stdin;\n" + data)] == [Kind.COPY, Kind.DATA]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"COPY public.t (a) FROM stdin;\n", ("public", "t")),
        (b'\n--x\nCOPY "Sch.ema"."t""q" (a) FROM stdin;\n', ("Sch.ema", 't"q')),
        ("COPY public.größe (a) FROM stdin;\n".encode(), ("public", "größe")),
    ],
)
def test_copy_table(text: bytes, name: tuple[str, str]) -> None:
    header = next(Splitter().feed(text))
    assert header.kind is Kind.COPY
    assert copy_table(header) == name


def test_qualified_name_refuses_other_text() -> None:
    with pytest.raises(SqlError):
        qualified_name(b"t (a)")


def test_speed_of_copy_data() -> None:
    """The bench holds it to 0.9 GB/s; here only a fault of kind (row by row) fails, on a busy
    machine too."""
    chunk = (b"123456\thello world\t\\N\t3.14159\t2026-01-01\n" * 7000)[:262144]
    splitter = Splitter()
    list(splitter.feed(b"COPY t FROM stdin;\n"))
    begin = time.process_time()
    for _ in range(400):
        for _piece in splitter.feed(chunk):
            pass
    assert 400 * len(chunk) / (time.process_time() - begin) > 0.2e9


def test_speed_of_statements() -> None:
    table = (
        b"\n--\n-- Name: t; Type: TABLE; Schema: public; Owner: -\n--\n\nCREATE TABLE public.t (\n"
        + b"    a integer DEFAULT 'x' NOT NULL,\n" * 20
        + b"    z text\n);\n"
    )
    data = table * 5000
    begin = time.process_time()
    assert len(split(data, 262144)) == 5001
    assert time.process_time() - begin < 5
