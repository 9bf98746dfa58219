"""Databases in every kind of encoding come back byte for byte: both formats, into a database that
the restore makes and by Replace, compared by stock pg_dump in the database's own encoding."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.conftest import Job, Postgres
from tests.integration.stock import follow_note
from tests.integration.test_restore_refused import restore, untouched

from dbbackup.text import presentable

FORMS = ["plain", "custom"]


@dataclass(frozen=True, slots=True)
class Case:
    """`sql` fills the source and `change` is done between backup and Replace, both in the
    database's own encoding. `names` are among its tables in the manifest."""

    encoding: str
    sql: bytes
    change: bytes
    names: tuple[str, ...]
    locale: str = "LOCALE 'C'"


BYTES = bytes(range(0xA0, 0x100))
SIZE = b'"sch\xf6n"."gr\xf6\xdfe ""\'"'
CASES = {
    "latin1": Case(
        "LATIN1",
        b'CREATE SCHEMA "sch\xf6n"; CREATE TABLE ' + SIZE + b' ("\xe4;" text PRIMARY KEY, b bytea);'
        b"INSERT INTO " + SIZE + b" SELECT chr(i), '\\x80ff' FROM generate_series(1, 255) i;"
        b"COMMENT ON TABLE " + SIZE + b" IS '" + BYTES + b"';"
        b"CREATE TABLE child (k text REFERENCES " + SIZE + b");"
        b"CREATE FUNCTION \"f\xfcr\"(text) RETURNS text LANGUAGE sql AS $$SELECT '\xe9'$$;"
        b'CREATE VIEW v AS SELECT \'\xa7\' AS "\xb5"; CREATE SEQUENCE "n\xb0";'
        b"GRANT SELECT ON " + SIZE + b" TO PUBLIC",
        b"DELETE FROM " + SIZE + b' WHERE "\xe4;" > \'a\'; DROP VIEW v; ALTER TABLE child ADD "n\xe9" text',
        ("größe \"'", "child"),
    ),
    "win1252": Case(
        "WIN1252",
        b"CREATE TABLE \"certificate \x81\" (a text); INSERT INTO \"certificate \x81\" VALUES ('\x81\x8d\x8f\x90\x9d'), ('\x80');"
        b"CREATE TABLE plain AS SELECT '\x8d'::text AS t; COMMENT ON TABLE plain IS '\x90';"
        b'CREATE SCHEMA "\x81"; CREATE EXTENSION citext SCHEMA "\x81"; ALTER TABLE plain ADD c "\x81".citext',
        b'DELETE FROM "certificate \x81"; DROP TABLE plain',
        ("certificate \ufffd81", "plain"),
    ),
    "euc_jp": Case(
        "EUC_JP",
        # two codes each of one character, as values of a key and as names
        b"CREATE TABLE t (a text PRIMARY KEY); INSERT INTO t VALUES ('\xa2\xcc'), ('\xad\xa1'), ('\xf9\xa1'), ('\xa1\xc1'), ('\x8f\xa2\xb7');"
        b'CREATE TABLE "\xc9\xbd" (a int); INSERT INTO "\xc9\xbd" VALUES (1); CREATE TABLE "\xa2\xcc" (a int); CREATE TABLE "\xad\xfc" ();'
        b'CREATE TABLE "\xa2\xe8" ()',
        b'DELETE FROM t; DROP TABLE "\xa2\xcc"; INSERT INTO "\xc9\xbd" VALUES (2)',
        ("表",),
    ),
    "sql_ascii": Case(
        "SQL_ASCII",
        b"CREATE TABLE \"\xe9\" (a text); INSERT INTO \"\xe9\" VALUES ('\xff\xfe'), ('\xe9\\'), (E'\\\\.');"
        b'CREATE SCHEMA "\xc3\xa9"; CREATE TABLE "\xc3\xa9"."\xc3\xbc" (a text); INSERT INTO "\xc3\xa9"."\xc3\xbc" VALUES (\'\xe9\');'
        b"CREATE FUNCTION f(a text) RETURNS text LANGUAGE sql AS $$SELECT '\xe9'$$; CREATE TYPE e AS ENUM ('\xe9');"
        b"CREATE VIEW v AS SELECT '\xe9\\'::text AS \"\xe9\"; COMMENT ON TABLE \"\xe9\" IS '\xff';"
        b'CREATE TABLE "\xfe""" (x e DEFAULT \'\xe9\')',
        b'DROP TABLE "\xfe"""; DELETE FROM "\xe9"; DROP VIEW v',
        ("\ufffde9", "ü", '\ufffdfe"'),
    ),
    "mule": Case(
        "MULE_INTERNAL",
        b"CREATE TABLE note (t text); INSERT INTO note VALUES ('plain'), ('\x81\xe9'), ('\x92\xb4\xc1');"
        # the second one has bytes that would be UTF-8
        b'CREATE TABLE "n\x81\xe9" (a int); INSERT INTO "n\x81\xe9" VALUES (1); CREATE TABLE "\x92\xc4\xbb" AS SELECT 1 AS "\x92\xc4\xbb"',
        b'DELETE FROM note; DROP TABLE "n\x81\xe9"',
        ("note", "n\ufffd81\ufffde9", "\ufffd92\ufffdc4\ufffdbb"),
    ),
    "euc_tw": Case(
        "EUC_TW",
        b'CREATE TABLE "\xc4\xe3" (t text); INSERT INTO "\xc4\xe3" VALUES (\'\x8e\xa2\xa1\xa1\')',
        b'DELETE FROM "\xc4\xe3"',
        ("\ufffdc4\ufffde3",),
    ),
    "koi8r": Case("KOI8R", b"CREATE TABLE \"\xd4\" AS SELECT '\xc1'::text AS a", b'DROP TABLE "\xd4"', ("т",)),
    "icu": Case(
        "UTF8",
        "CREATE TABLE t (n text UNIQUE); INSERT INTO t VALUES ('ä'), ('z'), ('a'); CREATE TABLE \"größe\" (\"ü\" int)".encode(),
        b"DELETE FROM t",
        ("t", "größe"),
        "LOCALE_PROVIDER icu ICU_LOCALE 'de' LOCALE 'C.UTF-8'",
    ),
}


def load(postgres: Postgres, database: str, sql: bytes) -> None:
    environment = {**postgres.environment(database), "PGCLIENTENCODING": "SQL_ASCII", "LC_ALL": "C"}
    command = [str(postgres.bin / "psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-f", "-"]
    done = subprocess.run(command, env=environment, input=sql, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def dump(postgres: Postgres, database: str, *arguments: str) -> bytes:
    """Byte for byte, in the database's own encoding."""
    found = postgres.tool("pg_dump", *arguments, database=database)
    return b"\n".join(line for line in found.splitlines() if not line.startswith((b"\\restrict", b"\\unrestrict")))


@pytest.fixture
def source(postgres: Postgres, new_database: Callable[..., str], request: pytest.FixtureRequest) -> tuple[Case, str]:
    case = CASES[request.param]
    name = new_database(f"TEMPLATE template0 ENCODING '{case.encoding}' {case.locale}")
    load(postgres, name, case.sql)
    return case, name


@pytest.fixture
def created(postgres: Postgres) -> Iterator[Callable[[str], str]]:
    """Names of databases that a restore makes."""
    made: list[str] = []

    def name(text: str) -> str:
        made.append(text)
        return text

    yield name
    for text in made:
        postgres.execute(f'DROP DATABASE IF EXISTS "{text}" WITH (FORCE)')


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("source", CASES, indirect=True)
def test_every_byte_comes_back(
    job: Job, postgres: Postgres, source: tuple[Case, str], created: Callable[[str], str], tmp_path: Path, form: str
) -> None:
    case, database = source
    before = dump(postgres, database)
    job.connect_to(database)
    backup = job.backup(format=form)
    assert backup.code == 0, backup.log
    assert backup.report.warnings == ()
    manifest = job.manifest(backup)
    assert manifest.database.encoding == case.encoding
    tables = {table.name: table.rows for table in manifest.contents.tables}
    assert set(case.names) <= set(tables)
    assert all(name == presentable(name) for name in tables)
    assert None not in tables.values()
    target = created(f"made_{database}")
    ended = restore(job, backup, target, create_database=True)
    assert ended.code == 0, ended.log
    stored = ("--no-owner", "--no-privileges")
    assert dump(postgres, target, *stored) == dump(postgres, database, *stored)
    locales = "SELECT encoding, datcollate, datctype, datlocprovider, daticulocale FROM pg_database WHERE datname = "
    if postgres.major < 17:
        assert postgres.execute(f"{locales}'{target}'") == postgres.execute(f"{locales}'{database}'")
    load(postgres, database, case.change)
    ended = restore(job, backup, database, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert dump(postgres, database) == before
    fresh = created(f"note_{database}")
    postgres.execute(f"CREATE DATABASE {fresh} TEMPLATE template0 ENCODING '{case.encoding}' {case.locale}")
    follow_note(postgres, job.fetch(backup, tmp_path / "fetched"), fresh)
    assert dump(postgres, fresh, *stored) == dump(postgres, database, *stored)


def quoted(schema: str, name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("source", ["latin1", "sql_ascii", "euc_jp"], indirect=True)
def test_names_in_the_options_are_those_of_the_database(job: Job, source: tuple[Case, str], form: str) -> None:
    """pg_dump takes them in the encoding that it dumps in."""
    job.connect_to(source[1])
    whole = job.manifest(job.backup(format=form)).contents
    everything = {(table.schema_, table.name) for table in whole.tables}
    for key in everything - {("public", "child")}:
        without = job.another("rows").backup(format=form, exclude_table_data=(quoted(*key),))
        assert without.code == 0, without.log
        assert without.report.warnings == ()
        excluded = {(table.schema_, table.name) for table in job.manifest(without).contents.tables if table.data_excluded}
        assert excluded == {key}
    excluded = {key for key in everything if key != ("public", "child")}
    ended = job.another("tables").backup(format=form, exclude_tables=tuple(quoted(*key) for key in excluded))
    assert ended.code == 0, ended.log
    assert {(t.schema_, t.name) for t in job.manifest(ended).contents.tables} == everything - excluded
    for schema in whole.schemas:
        ended = job.another("schema").backup(format=form, schemas=(schema,))
        assert ended.code == 0, ended.log
        assert {t.schema_ for t in job.manifest(ended).contents.tables} <= {schema}


@pytest.mark.parametrize("source", ["latin1", "sql_ascii", "win1252"], indirect=True)
def test_one_table_of_an_archive(job: Job, postgres: Postgres, source: tuple[Case, str]) -> None:
    case, database = source
    job.connect_to(database)
    backup = job.backup(format="custom")
    before = dump(postgres, database)
    table = next(t for t in job.manifest(backup).contents.tables if t.name == case.names[0])
    ended = restore(job, backup, database, on_existing="Replace", tables=[quoted(table.schema_, table.name)])
    assert ended.code == 0, ended.log
    assert dump(postgres, database) == before


@pytest.mark.parametrize("form", FORMS)
def test_a_client_encoding_that_a_database_sets_changes_nothing(job: Job, postgres: Postgres, new_database: Callable[..., str], form: str) -> None:
    options = "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"
    database, target = new_database(options), new_database(options)
    load(postgres, database, CASES["latin1"].sql)
    for name in (database, target):
        postgres.execute(f"ALTER DATABASE {name} SET client_encoding = 'UTF8'")
    job.connect_to(database)
    backup = job.backup(format=form)
    assert backup.code == 0, backup.log
    ended = restore(job, backup, target)
    assert ended.code == 0, ended.log
    stored = ("--no-owner", "--no-privileges", "--encoding=LATIN1")
    assert dump(postgres, target, *stored) == dump(postgres, database, *stored)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("encoding", "other"), [("LATIN1", "UTF8"), ("UTF8", "LATIN1"), ("EUC_JP", "UTF8"), ("LATIN1", "SQL_ASCII")])
def test_the_server_converts_into_another_encoding(
    job: Job, postgres: Postgres, new_database: Callable[..., str], form: str, encoding: str, other: str
) -> None:
    name = "表" if encoding == "EUC_JP" else "größe"
    options = "TEMPLATE template0 ENCODING '{}' LOCALE 'C'"
    source, target = new_database(options.format(encoding)), new_database(options.format(other))
    codecs = {"EUC_JP": "euc_jp", "LATIN1": "latin-1", "UTF8": "utf-8"}
    sql = f"""CREATE SCHEMA "{name}"; CREATE TABLE "{name}"."{name}" AS SELECT '{name}'::text AS "{name}"; CREATE TABLE "{name}".t ()"""
    load(postgres, source, sql.encode(codecs[encoding]))
    job.connect_to(source)
    backup = job.backup(format=form)
    assert backup.code == 0, backup.log
    ended = restore(job, backup, target)
    assert ended.code == 0, ended.log
    if other == "SQL_ASCII":
        assert dump(postgres, target) == dump(postgres, source).replace(b"'LATIN1'", b"'SQL_ASCII'")
        return
    assert dump(postgres, target, f"--encoding={encoding}") == dump(postgres, source)
    load(postgres, target, f'DELETE FROM "{name}"."{name}"'.encode(codecs[other]))
    ended = restore(job, backup, target, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert dump(postgres, target, f"--encoding={encoding}") == dump(postgres, source)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("encoding", "other"), [("LATIN1", "SQL_ASCII"), ("EUC_JP", "SQL_ASCII"), ("SQL_ASCII", "LATIN1")])
def test_names_are_the_same_bytes_where_nothing_is_converted(
    job: Job, postgres: Postgres, new_database: Callable[..., str], form: str, encoding: str, other: str
) -> None:
    name = b"\xc6\xfc" if encoding == "EUC_JP" else b"gr\xf6\xc3\xa9"
    options = "TEMPLATE template0 ENCODING '{}' LOCALE 'C'"
    source, target = new_database(options.format(encoding)), new_database(options.format(other))
    load(
        postgres,
        source,
        b"""CREATE SCHEMA "%(n)s"; CREATE EXTENSION citext SCHEMA "%(n)s"; CREATE TYPE "%(n)s"."%(n)s" AS ENUM ('%(n)s');
        CREATE TABLE "%(n)s".t (id serial, a "%(n)s".citext DEFAULT '%(n)s', b "%(n)s"."%(n)s"); INSERT INTO "%(n)s".t DEFAULT VALUES;"""
        % {b"n": name},
    )
    before = dump(postgres, source).replace(f"'{encoding}'".encode(), f"'{other}'".encode())
    job.connect_to(source)
    backup = job.backup(format=form)
    assert backup.code == 0, backup.log
    for existing in ("Fail", "Replace"):
        ended = restore(job, backup, target, on_existing=existing)
        assert ended.code == 0, ended.log
        assert ended.report.warnings == ()
        assert dump(postgres, target) == before
        load(postgres, target, b'DELETE FROM "%s".t' % name)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("source", ["mule", "euc_tw", "euc_jp"], indirect=True)
def test_encodings_without_a_conversion_are_refused_beforehand(
    job: Job, postgres: Postgres, source: tuple[Case, str], new_database: Callable[..., str], form: str
) -> None:
    case, database = source
    job.connect_to(database)
    backup = job.backup(format=form)
    target = new_database("TEMPLATE template0 ENCODING 'KOI8R' LOCALE 'C'")
    with untouched(postgres, target):
        ended = restore(job, backup, target)
    assert ended.reason == "EncodingMismatch", ended.log
    assert ended.report.failure
    assert f"{case.encoding}, the target's KOI8R" in ended.report.failure.message
    assert "createDatabase" in ended.report.failure.hint


def test_names_of_roles_in_another_encoding_are_no_hindrance(job: Job, postgres: Postgres, database: str, new_database: Callable[..., str]) -> None:
    """Roles belong to all databases, and have the bytes of the one where they were made."""
    latin = new_database("TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    load(postgres, latin, b'CREATE ROLE "ren\xe9"')
    try:
        load(postgres, database, b"CREATE TABLE t (a int); ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE TABLE u ()")
        policy = b"DO $$ BEGIN EXECUTE 'CREATE POLICY p ON t TO ' || (SELECT quote_ident(rolname) FROM pg_roles WHERE rolname LIKE 'ren%'); END $$"
        load(postgres, database, policy)
        backup = job.backup()
        assert backup.code == 0, backup.log
        assert job.manifest(backup).contents.roles == ("ren\ufffde9",)
    finally:
        load(postgres, database, b"DROP TABLE t")
        load(postgres, latin, b'DROP ROLE "ren\xe9"')
