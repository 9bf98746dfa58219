"""The head of a dump: which objects it means to replace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbbackup.contract.errors import Failure
from dbbackup.dataplane.restore.dump_head import read_dump_head
from dbbackup.dataplane.restore.legacy_drops import (
    DroppedObject,
    argument_list,
    find_named,
    normalized,
    parse_drop_section,
    parse_drop_statement,
    takes_types,
    wanted_by_name,
)
from dbbackup.dataplane.restore.roots import HeldObject
from dbbackup.dataplane.sql.splitter import Piece, Splitter, split_qualified_name


@pytest.mark.parametrize(
    ("statement", "drop"),
    [
        ("DROP TABLE IF EXISTS app.users;", DroppedObject("TABLE", "app", "users")),
        ('DROP TABLE IF EXISTS "We.ird ""x"""."t.a""b";', DroppedObject("TABLE", 'We.ird "x"', 't.a"b')),
        ("DROP MATERIALIZED VIEW app.mv;", DroppedObject("MATERIALIZED VIEW", "app", "mv")),
        ("DROP FOREIGN TABLE IF EXISTS app.ft;", DroppedObject("FOREIGN TABLE", "app", "ft")),
        ("DROP FOREIGN DATA WRAPPER IF EXISTS fdw;", DroppedObject("FOREIGN DATA WRAPPER", "", "fdw")),
        (
            'DROP PROCEDURE IF EXISTS app.p(INOUT a int, IN "w d" app.mood);',
            DroppedObject("PROCEDURE", "app", "p", '(INOUT a int, IN "w d" app.mood)'),
        ),
        ("DROP AGGREGATE IF EXISTS app.anything(*);", DroppedObject("AGGREGATE", "app", "anything", "(*)")),
        ("DROP OPERATOR IF EXISTS app.=== (integer, integer);", DroppedObject("OPERATOR", "app", "===", "(integer, integer)")),
        ('DROP OPERATOR IF EXISTS "A.p".<@> (NONE, "A.p"."a, b");', DroppedObject("OPERATOR", "A.p", "<@>", '(NONE, "A.p"."a, b")')),
        ("DROP OPERATOR CLASS IF EXISTS app.int_ops USING hash;", DroppedObject("OPERATOR CLASS", "app", "int_ops", "USING hash")),
        ("DROP CAST IF EXISTS (app.comp AS text);", DroppedObject("CAST", "", "(app.comp AS text)")),
        ("DROP USER MAPPING IF EXISTS FOR app SERVER srv;", DroppedObject("USER MAPPING", "", "FOR app SERVER srv")),
        ("DROP TEXT SEARCH CONFIGURATION IF EXISTS app.tsc;", DroppedObject("TEXT SEARCH CONFIGURATION", "app", "tsc")),
        ("DROP EVENT TRIGGER IF EXISTS et;", DroppedObject("EVENT TRIGGER", "", "et")),
        (
            "SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata WHERE oid = '16762';",
            DroppedObject("LARGE OBJECT", "", "16762"),
        ),
        ("SELECT pg_catalog.lo_unlink('4711');", DroppedObject("LARGE OBJECT", "", "4711")),
        ("ALTER TABLE IF EXISTS ONLY app.s DROP CONSTRAINT IF EXISTS s_u_fkey;", True),
        ("ALTER TABLE IF EXISTS app.s ALTER COLUMN id DROP DEFAULT;", True),
        ("DROP TRIGGER IF EXISTS tg ON app.s;", True),
        ("DROP POLICY IF EXISTS \"a; b\" ON app.s;", True),
        ("ALTER FOREIGN TABLE app.ft ALTER COLUMN f1 DROP DEFAULT;", True),
        ("ALTER DOMAIN app.d DROP CONSTRAINT c;", True),
        ("CREATE OR REPLACE VIEW app.v AS\nSELECT;", True),
        ("DROP SCHEMA IF EXISTS app;", True),
        ("DROP EXTENSION IF EXISTS citext;", True),
        ("CREATE OR REPLACE VIEW app.pk AS\nSELECT\n    NULL::integer AS id,\n    NULL::text AS t;", True),
        ("DO $dbbackup$\nBEGIN\nIF pg_catalog.to_regclass('a.v') IS NOT NULL THEN\nCREATE OR REPLACE VIEW a.v AS SELECT NULL::int AS id;", True),
        ("CREATE OR REPLACE VIEW app.v AS SELECT id FROM app.users;", False),
        ("CREATE TABLE app.users (id int);", False),
        ("SELECT pg_catalog.setval('app.s', 1);", False),
        ("ALTER TABLE ONLY app.s ADD CONSTRAINT c CHECK (a);", False),
    ],
)  # fmt: skip
def test_the_object_that_a_drop_statement_names(statement: str, drop: DroppedObject | bool) -> None:
    assert parse_drop_statement(statement) == drop


@given(st.text(min_size=1).filter(lambda s: "\0" not in s), st.text(min_size=1).filter(lambda s: "\0" not in s))
def test_any_quoted_name_is_read_back(schema: str, name: str) -> None:
    quoted = ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name))
    assert split_qualified_name(f"{quoted}(a int)") == ([schema, name], "(a int)")


def test_arguments() -> None:
    assert argument_list("(a integer,\n  b text)") == "a integer, b text"
    assert argument_list("(*)") == ""
    assert argument_list("()") == ""
    assert argument_list('("a  b", public."c,d")') == '"a  b", public."c,d"', "a quoted name is left as it is"


def test_unnecessary_quotes_do_not_change_a_name() -> None:
    assert normalized('FOR "user" SERVER\n  srv') == normalized("FOR user SERVER srv") == "FOR user SERVER srv"
    assert normalized('("a  b" AS text)') == '("a  b" AS text)' != normalized("(ab AS text)")


@pytest.mark.parametrize(
    ("expected", "types", "same"),
    [
        ("a integer", ["integer"], True),
        ("integer", ["integer"], True),
        ("a integer", ["text"], False),
        ("a integer", ["integer", "integer"], False),
        ("", [], True),
        ("", ["integer"], False),
        ("a integer", [], False),
        ("double precision", ["double precision"], True),
        ('IN "o, p" timestamp with time zone, OUT r text', ["timestamp with time zone"], True),
        ("a integer, VARIADIC b text[]", ["integer", "text[]"], True),
        ('public."a b"', ['public."a b"'], True),
        ('public."a b"', ["public.ab"], False),
        ("public.ab", ['public."a b"'], False),
        ("public.ab", ["b"], False),
        ('public."x,y"', ['public."x,y"'], True),
    ],
)
def test_a_routine_is_identified_by_its_argument_types(expected: str, types: list[str], same: bool) -> None:
    assert takes_types(expected, types) is same


def pieces(sql: str) -> Iterator[Piece]:
    splitter = Splitter()
    yield from splitter.feed(sql.encode())
    yield from splitter.finish()


def test_the_drop_section_ends_at_the_first_commented_statement() -> None:
    head = read_dump_head(
        pieces("-- dump\nSET client_encoding = 'UTF8';\nSELECT pg_catalog.set_config('search_path', '', false);\nDROP TABLE a.b;\n"
               "ALTER DOMAIN a.d DROP CONSTRAINT c;\n\n\n--\n-- Name: a; Type: SCHEMA\n--\n\nCREATE SCHEMA a;\nDROP TABLE a.later;\n"),
        keep_drops=True,
    )  # fmt: skip
    assert [piece.text for piece in head.preamble] == [b"SET client_encoding = 'UTF8';", b"SELECT pg_catalog.set_config('search_path', '', false);"]
    assert head.drops == (b"DROP TABLE a.b;", b"ALTER DOMAIN a.d DROP CONSTRAINT c;")
    assert [piece.text for piece in head.first] == [b"CREATE SCHEMA a;"]
    assert next(piece.text for piece in head.rest) == b"DROP TABLE a.later;"


def test_the_drop_section_ends_at_a_setting_too() -> None:
    head = read_dump_head(pieces("SET a = 1;\nDROP TABLE a.b;\nSET default_tablespace = '';\n\n--\n-- Name: b\n--\n\nCREATE TABLE a.b ();\n"))
    assert head.drops == ()
    assert [piece.text for piece in head.first] == [b"SET default_tablespace = '';"]


def test_a_dump_without_drop_statements_has_an_empty_drop_section() -> None:
    head = read_dump_head(pieces("SET a = 1;\nCOPY a.b FROM stdin;\n1\n\\.\n"), keep_drops=True)
    assert head.drops == ()
    assert len(head.first) == 1
    head = read_dump_head(pieces("SET a = 1;\n\n--\n-- Name: a\n--\n\nCREATE SCHEMA a;\n"), keep_drops=True)
    assert head.drops == ()
    assert [piece.text for piece in head.first] == [b"CREATE SCHEMA a;"]


def test_a_statement_that_is_not_understood_refuses_the_artifact() -> None:
    statements = [b"DROP TABLE a.b;", b"DROP SCHEMA a;", b"ALTER PUBLICATION p DROP TABLE a.b;", b"DROP VIEW a.c;"]
    with pytest.raises(Failure, match=r"contains ALTER PUBLICATION p DROP TABLE a\.b, so") as caught:
        parse_drop_section(statements)
    assert caught.value.reason.name == "FormatUnsupported"
    assert "empty database" in caught.value.hint
    assert parse_drop_section(statements[:2]) == [DroppedObject("TABLE", "a", "b")]


def held(catalog: str, kind: str, names: tuple[str, ...], args: tuple[str, ...] = (), drop: str = "") -> HeldObject:
    return HeldObject((1, 1), catalog, kind, names, args, "", drop, "app", True)


@pytest.mark.parametrize(
    ("statement", "found", "same"),
    [
        ("DROP TABLE a.t;", held("pg_class", "table", ("a", "t")), True),
        ("DROP TABLE a.t;", held("pg_class", "table", ("b", "t")), False),
        ('DROP DOMAIN a."d.e";', held("pg_type", "type", ('a."d.e"',)), True),
        ("DROP FUNCTION a.f(x integer, OUT y text);", held("pg_proc", "function", ("a", "f"), ("integer",), "a.f(z integer, OUT text)"), True),
        ("DROP FUNCTION a.f(tsvector);", held("pg_proc", "function", ("a", "f"), ("pg_catalog.tsvector",), "a.f(tsvector)"), True),
        ("DROP FUNCTION a.f(x integer);", held("pg_proc", "function", ("a", "f"), ("pg_catalog.text",), "a.f(x text)"), False),
        (
            "DROP AGGREGATE a.g(double precision ORDER BY anyelement);",
            held("pg_proc", "aggregate", ("a", "g"), ("double precision", "anyelement"), "a.g(double precision ORDER BY anyelement)"),
            True,
        ),
        ("DROP AGGREGATE a.g(*);", held("pg_proc", "aggregate", ("a", "g"), (), "a.g(*)"), True),
        ("DROP OPERATOR a.<@> (NONE, integer);", held("pg_operator", "operator", ("a", "<@>"), ("integer",)), True),
        ('DROP OPERATOR a.= (text, "A"."b, c");', held("pg_operator", "operator", ("a", "="), ("pg_catalog.text", '"A"."b, c"')), True),
        ("DROP OPERATOR a.= (text, text);", held("pg_operator", "operator", ("a", "="), ("integer", "integer")), False),
        ("DROP OPERATOR CLASS a.o USING hash;", held("pg_opclass", "operator class", ("hash", "a", "o")), True),
        ("DROP OPERATOR CLASS a.o USING btree;", held("pg_opclass", "operator class", ("hash", "a", "o")), False),
        ("DROP CAST (a.x AS text);", held("pg_cast", "cast", ("a.x",), ("pg_catalog.text",)), True),
        ("DROP TRANSFORM FOR a.x LANGUAGE l;", held("pg_transform", "transform", ("a.x",), ("l",)), True),
        ('DROP USER MAPPING FOR "user" SERVER s;', held("pg_user_mapping", "user mapping", ("user",), ("s",), 'FOR "user" SERVER s'), True),
        ("DROP USER MAPPING FOR public SERVER s;", held("pg_user_mapping", "user mapping", ("public",), ("s",), "FOR PUBLIC SERVER s"), True),
        ("SELECT pg_catalog.lo_unlink('17');", held("pg_largeobject", "large object", ("17",)), True),
        ("DROP EVENT TRIGGER e;", held("pg_event_trigger", "event trigger", ("e",)), True),
        ("DROP TEXT SEARCH PARSER a.p;", held("pg_ts_parser", "text search parser", ("a", "p")), True),
        ("DROP ACCESS METHOD m;", held("pg_am", "access method", ("m",)), True),
        ("DROP PROCEDURAL LANGUAGE l;", held("pg_language", "language", ("l",)), True),
    ],
)  # fmt: skip
def test_the_object_of_the_target_that_a_statement_names(statement: str, found: HeldObject, *, same: bool) -> None:
    drops = parse_drop_section([statement.encode()])
    assert [hit for _, hit in find_named([found], drops)] == [found] * same


def test_another_kind_under_the_name_is_no_match_of_its_type() -> None:
    view, function = held("pg_class", "view", ("a", "t")), held("pg_proc", "function", ("a", "p"), (), "a.p()")
    drops = parse_drop_section([b"DROP TABLE a.t;", b"DROP ROUTINE a.p();"])
    assert wanted_by_name([view, function], drops) == {view.key: "table", function.key: "function"}


def test_a_meta_command_in_the_drop_section_refuses_the_artifact() -> None:
    with pytest.raises(Failure, match="psql command") as caught:
        read_dump_head(pieces("\\restrict x\nSET a = 1;\n\\! rm -rf /\nDROP TABLE a.b;\n"))
    assert caught.value.reason.name == "ArtifactCorrupt"
