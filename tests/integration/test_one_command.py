"""One statement of the splitter is one command for the server, and the SQL of an artifact can
neither end the restore's transaction nor bend our own queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.integration.conftest import Job, Postgres
from tests.integration.test_restore_faults import forge
from tests.integration.test_restore_refused import SOURCE, restore, untouched

from dbbackup.contract.run import Compression
from dbbackup.dataplane.postgres.one_command import CopyIn, run_command
from dbbackup.dataplane.sql.splitter import Kind, Splitter

# The splitter and the server's own parse


class Judge:
    """The server's parser alone: in an aborted transaction it parses what it gets, and then runs
    nothing."""

    def __init__(self, connection: psycopg.Connection, strings: str) -> None:
        self._pgconn = connection.pgconn
        self._pgconn.exec_(f"SET standard_conforming_strings = {strings}; SET backslash_quote = on".encode())
        self._pgconn.exec_(b"BEGIN; SELECT 1 / 0")

    def parses(self, text: bytes) -> bool:
        """By the simple protocol: any number of commands."""
        return self._took(self._pgconn.exec_(text))

    def is_one_command(self, text: bytes) -> bool:
        """By the extended protocol."""
        return self._took(self._pgconn.prepare(b"", text))

    def _took(self, result: psycopg.pq.abc.PGresult) -> bool:
        """All that was wrong is the aborted transaction."""
        return result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) in {None, b"25P02"}


@pytest.fixture(scope="module", params=["on", "off"])
def judge(postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[tuple[Judge, str]]:
    with postgres.connect() as connection:
        yield Judge(connection, request.param), request.param


GAPS = [" ", " ", " ", "\n", "\r", "\t", " -- ;'\"\n", "-- \\ ' $$\r", " /* ; ' /* \" */ */ ", "\r\n"]
NAMES = ["a", "begin", "atomic", '"end"', '"case"', '"x;y"', '"a""b"', '"\\"', "function", "replace", "s.begin", "t.end", "e", "foo$a$", "é"]
TEXTS = [
    "'x'",
    "''",
    "'it''s'",
    "';'",
    "' -- '",
    "'/*'",
    "E'\\\\'",
    "E'\\';'",
    "E'a'\n'\\'b'",
    "E'a' -- '\r '\\';'",
    "'a'\n';b'",
    "U&'\\0041'",
    "B'1'",
]
TEXTS += ["$$;$$", "$$'$$", "$a$ $$ ; $a$", "$_$END;$_$", "1", "1.5e3", "N'x'", "'$$'"]
LABELS = ["", "", " AS begin", ' AS "end"', " AS case", " AS end", " end", " case", " AS atomic"]

names, texts_ = st.sampled_from(NAMES), st.sampled_from(TEXTS)
expressions = st.recursive(
    st.one_of(names, texts_),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", " - ", " / ", " * ", " || ", " <-> "]), inner).map("".join),
        inner.map(lambda e: f"({e})"),
        st.tuples(inner, inner, inner).map(lambda e: f"CASE WHEN {e[0]} THEN {e[1]} ELSE {e[2]} END"),
        st.tuples(inner, inner).map(lambda e: f"case {e[0]} when 1 then {e[1]} end"),
        st.tuples(inner, inner).map(lambda e: f"f({e[0]}, {e[1]})"),
        st.tuples(inner, inner).map(lambda e: f"(SELECT {e[0]} FROM begin atomic WHERE {e[1]})"),
    ),
    max_leaves=6,
)
selects = st.tuples(st.lists(st.tuples(expressions, st.sampled_from(LABELS)).map("".join), min_size=1, max_size=3), names).map(
    lambda s: f"SELECT {', '.join(s[0])} FROM {s[1]}"
)
inserts = st.tuples(names, expressions).map(lambda s: f"INSERT INTO {s[0]} SELECT {s[1]} FROM begin atomic")
inner = st.one_of(selects, inserts)
bodies = st.lists(inner, max_size=3).map(lambda body: "BEGIN ATOMIC" + "".join(f" {s};" for s in body) + " END")
statements = st.one_of(
    inner,
    st.tuples(names, texts_).map(lambda s: f"COMMENT ON TABLE {s[0]} IS {s[1]}"),
    st.tuples(names, expressions).map(lambda s: f"CREATE TABLE {s[0]} (a int DEFAULT ({s[1]}), begin int)"),
    st.tuples(names, st.sampled_from(["", "OR REPLACE "]), bodies).map(
        lambda s: f"CREATE {s[1]}FUNCTION {s[0]}(begin int) RETURNS int LANGUAGE sql {s[2]}"
    ),
    st.tuples(names, bodies).map(lambda s: f"CREATE PROCEDURE {s[0]}() LANGUAGE sql {s[1]}"),
    st.tuples(names, texts_).map(lambda s: f"CREATE FUNCTION {s[0]}() RETURNS begin LANGUAGE sql AS {s[1]}"),
    st.lists(inner, min_size=1, max_size=3).map(lambda s: f"CREATE RULE r AS ON INSERT TO t DO INSTEAD ({'; '.join(s)})"),
    selects.map(lambda s: f"CREATE VIEW begin AS {s}"),
    texts_.map(lambda s: f"DO {s}"),
    st.just(""),
)


@st.composite
def scripts(draw: st.DrawFn) -> bytes:
    """Statements with blanks and comments wherever the sampled text has a blank."""
    made = [draw(statements) for _ in range(draw(st.integers(1, 4)))]
    text = "".join(draw(st.sampled_from(GAPS)) + statement + ";" for statement in made)
    parts = text.split(" ")
    return "".join(part + (draw(st.sampled_from(GAPS)) if draw(st.integers(0, 9)) == 0 else " ") for part in parts).encode()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scripts())
@example(b"CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1 AS case; END; SELECT 1;")
@example(b"SELECT 1 -- \r; SELECT 2;")
@example(b"CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT atomic.a, begin FROM begin atomic; END; SELECT 1;")
@example(b"SELECT E'a'\n'\\'; SELECT ';")
def test_what_the_splitter_takes_for_one_statement_the_server_does_too(judge: tuple[Judge, str], script: bytes) -> None:
    server, strings = judge
    if not server.parses(script):
        return
    splitter = Splitter()
    list(splitter.feed(f"SET standard_conforming_strings = {strings};".encode()))
    pieces = [*splitter.feed(script), *splitter.finish()]
    assert b"".join(piece.data for piece in pieces) == script
    assert {piece.kind for piece in pieces} <= {Kind.STATEMENT, Kind.BLANK}
    for piece in pieces:
        assert server.is_one_command(piece.data), piece


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from([*GAPS, *NAMES, *TEXTS, "SELECT ", "(", ")", ",", ";", "'", '"', "$a$", "\\", "--", "/*", "*/", "E'", "END", " COMMIT;"])
    ).map("".join)
)
def test_what_is_valid_for_the_server_the_splitter_understands(judge: tuple[Judge, str], script: str) -> None:
    """Tokens in any order: few are SQL, and those mean the same to both."""
    server, strings = judge
    if not server.parses(script.encode() + b"\n;"):
        return
    splitter = Splitter()
    list(splitter.feed(f"SET standard_conforming_strings = {strings};".encode()))
    for piece in [*splitter.feed(script.encode() + b"\n;"), *splitter.finish()]:
        assert server.is_one_command(piece.data), piece


# Content that would end the restore's transaction

HOSTILE = """
CREATE FUNCTION public.flip() RETURNS bool LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_catalog.set_config('standard_conforming_strings', 'off', false); RETURN true; END $$;
CREATE TABLE public.mine (a int CHECK (public.flip()), b int);
INSERT INTO public.mine SELECT g, g FROM generate_series(1, 10) g;
SET standard_conforming_strings = on;
CREATE INDEX mine_a ON public.mine (a);
CREATE INDEX mine_b ON public.mine (b);
COMMENT ON INDEX public.mine_a IS '\\''; COMMIT; BEGIN; --';
COMMENT ON INDEX public.mine_b IS '\\''; DROP TABLE nowhere; --';
"""


@pytest.fixture
def hostile(postgres: Postgres, database: str) -> str:
    """A genuine database, whose owner wishes others ill."""
    postgres.load(SOURCE + HOSTILE, database)
    return database


@pytest.mark.parametrize("form", ["plain", "custom"])
@pytest.mark.parametrize("where", ["in place", "new"])
def test_a_backup_of_hostile_content_comes_back_and_commits_nothing_by_itself(
    job: Job, postgres: Postgres, hostile: str, new_database: Callable[..., str], form: str, where: str
) -> None:
    backup = job.backup(format=form)
    before = postgres.dump(hostile)
    target = hostile if where == "in place" else new_database()
    if where == "in place":
        postgres.execute("DELETE FROM child WHERE id > 5; INSERT INTO parent VALUES (1000, 'b', 'newer')", target)
    assert restore(job, backup, target, on_existing="Replace").reason is None
    assert postgres.dump(target) == before


def as_of_0_1(dump: bytes) -> bytes:
    """Artifacts of 0.1 lack what keeps the end of a string where it is."""
    rule = b"\nSET standard_conforming_strings = on;"
    head, first, rest = dump.partition(rule)
    assert rest.count(rule) >= 2
    return head + first + rest.replace(rule, b"")


def test_a_hostile_artifact_of_0_1_commits_nothing(job: Job, postgres: Postgres, hostile: str) -> None:
    backup = job.backup()
    digest = forge(job, backup, as_of_0_1)
    postgres.execute("DELETE FROM child WHERE id > 5; INSERT INTO parent VALUES (1000, 'b', 'newer')", hostile)
    with untouched(postgres, hostile):
        ended = restore(job, backup, hostile, on_existing="Replace", manifest_sha256=digest)
    assert ended.reason == "RestoreFailed", ended.log
    assert ended.report.failure
    assert "COMMENT ON INDEX public.mine_a" in ended.report.failure.message
    assert "cannot insert multiple commands" in ended.report.failure.message
    assert ended.report.failure.message.endswith("; everything was rolled back")


SHELL = """
DO $$ BEGIN EXECUTE format('COMMENT ON INDEX public.mine_a IS %L', E'\\\\\\'; COMMIT;\\n\\\\! touch OWNED\\n--'); END $$;
"""


def test_stock_psql_restores_hostile_content_and_runs_no_command_of_it(
    job: Job, postgres: Postgres, hostile: str, new_database: Callable[..., str], tmp_path: Path
) -> None:
    postgres.load(SHELL.replace("OWNED", f"{tmp_path}/owned"), hostile)
    backup = job.backup(compression=Compression(algorithm="none"))
    dump = (job.fetch(backup, tmp_path / "fetched") / "dump.sql").read_bytes()
    psql = ("psql", "-X", "-1", "-v", "ON_ERROR_STOP=1", "-f", "-")
    target, other = new_database(), new_database()
    postgres.tool(*psql, database=target, stdin=dump)
    assert postgres.dump(target) == postgres.dump(hostile)
    weaker = as_of_0_1(dump)
    with pytest.raises(AssertionError, match="backslash commands are restricted"):
        postgres.tool(*psql, database=other, stdin=weaker)
    assert not (tmp_path / "owned").exists()
    with suppress(AssertionError):
        postgres.tool(*psql, database=other, stdin=b"".join(line for line in weaker.splitlines(keepends=True) if b"restrict " not in line))
    assert (tmp_path / "owned").exists(), "this input shows nothing"


def test_where_content_did_commit_the_status_says_so(job: Job, postgres: Postgres, hostile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by the simple protocol, which nothing here uses any more for an artifact."""

    def by_the_simple_protocol(connection: psycopg.Connection, command: bytes | str) -> None:
        connection.execute(command if isinstance(command, bytes) else command.encode())

    backup = job.backup()
    digest = forge(job, backup, as_of_0_1)
    postgres.execute("DELETE FROM child", hostile)
    monkeypatch.setattr("dbbackup.dataplane.restore.second_try.run_command", by_the_simple_protocol)
    ended = restore(job, backup, hostile, on_existing="Replace", manifest_sha256=digest)
    assert postgres.execute("SELECT count(*) FROM child", hostile) == [(200,)]
    assert ended.reason == "OutcomeUnknown", ended.log
    assert ended.report.failure
    assert ended.report.safety_backup
    assert f"the safety backup {ended.report.safety_backup.key} holds what was there before" in ended.report.failure.message
    assert "rolled back" not in ended.report.failure.message
    assert [key for key in job.keys() if "=restores" in key], "the record of the transaction stays"  # noqa: SIM118


ENDINGS = {
    "a CR ends a comment": b"SELECT 1 -- \r; COMMIT; BEGIN; SELECT 2\n;",
    "a label CASE": b"CREATE FUNCTION public.f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1 AS case; END; COMMIT; BEGIN;"
    b" SELECT CASE WHEN true THEN 1 END;",
    "a label END": b"CREATE FUNCTION public.f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1 end; END; COMMIT; BEGIN; SELECT 2;",
    "an escape goes on": b"SELECT E'a'\n'\\'; COMMIT; BEGIN; SELECT '\n;",
    "strings turned off": b"SELECT pg_catalog.set_config('standard_conforming_strings', 'off', false); SELECT '\\''; COMMIT; BEGIN; --';\n",
    "a commit after blanks": b"/* */ -- x\n ; COMMIT AND CHAIN;",
    "a procedure": b"CREATE PROCEDURE public.p() LANGUAGE plpgsql AS 'BEGIN COMMIT; END'; CALL public.p();",
    "another COPY": b"COPY public.parent FROM stdin WITH (FORMAT text);\n\\.\n",
    "a COPY of a program": b"COPY public.parent FROM PROGRAM 'touch /tmp/owned';",
    "a COPY that hides one": b"COPY public.parent (id) FROM stdin; COMMIT; COPY public.parent (id) FROM stdin;\n\\.\n",
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_forged_artifact_commits_nothing(job: Job, postgres: Postgres, database: str, name: str) -> None:
    postgres.load(SOURCE, database)
    backup = job.backup()
    digest = forge(job, backup, lambda dump: dump + b"\n" + ENDINGS[name] + b"\nSELECT 1 / 0;\n")
    postgres.execute("DELETE FROM child", database)
    with untouched(postgres, database):
        ended = restore(job, backup, database, on_existing="Replace", safety_backup=False, manifest_sha256=digest)
    assert ended.reason in {"RestoreFailed", "ArtifactCorrupt"}, ended.log
    assert ended.report.failure
    assert ended.report.failure.message.endswith("; everything was rolled back")


def test_the_server_refuses_two_commands_in_one(postgres: Postgres, database: str) -> None:
    with postgres.connect(database) as connection:
        for command in (b"SELECT 1; SELECT 2", b"SELECT 1; COPY t FROM stdin", b"COPY t FROM stdin; COMMIT"):
            connection.execute("BEGIN; CREATE TABLE t (a int)")
            with pytest.raises(psycopg.errors.SyntaxError, match="multiple commands"):
                CopyIn(connection, command) if b"COPY" in command else run_command(connection, command)
            connection.execute("ROLLBACK")
        connection.execute("CREATE TABLE t (a int)")
        with CopyIn(connection, b"COPY t FROM stdin") as copy:
            copy.write(b"1\n" * 300_000)
            assert copy.end() == 300_000
        with suppress(ValueError), CopyIn(connection, b"COPY t FROM stdin") as copy:
            copy.write(b"1\n")
            raise ValueError("of ours")
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (300_000,)


# Content that would bend our own queries

EVIL = """
CREATE SCHEMA evil;
CREATE FUNCTION evil.bent(oid, oid) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'bent'; END $$;
CREATE FUNCTION evil.unnest(oid[]) RETURNS SETOF oid LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'bent'; END $$;
CREATE OPERATOR evil.= (leftarg = oid, rightarg = oid, function = evil.bent);
CREATE DOMAIN evil.text AS int;
CREATE FUNCTION public.bend() RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.set_config(name, value, false) FROM (VALUES
    ('standard_conforming_strings', 'off'), ('quote_all_identifiers', 'on'), ('DateStyle', 'German'), ('IntervalStyle', 'iso_8601'),
    ('session_replication_role', 'replica'), ('row_security', 'on'), ('bytea_output', 'escape'),
    ('search_path', 'evil, pg_catalog')OTHERS) s(name, value);
  RETURN true;
END $$;
CREATE TABLE public.zz (a int);
INSERT INTO public.zz VALUES (1);
GRANT SELECT ON public.zz TO PUBLIC;
"""
STAYING = """
CREATE PUBLICATION everything FOR TABLE public.zz WHERE (a <> 2);
CREATE TABLE public.early (a int PRIMARY KEY, at interval DEFAULT '1 day 02:00', b bytea DEFAULT '\\x00ff');
CREATE TABLE public.later (a int CONSTRAINT refers REFERENCES public.early DEFERRABLE);
COMMENT ON CONSTRAINT refers ON public.later IS '\\''; DROP TABLE public.early; --';
GRANT SELECT (a) ON public.early TO PUBLIC;
"""


@pytest.mark.parametrize(("others", "more"), [("", STAYING), (", ('role', 'pg_monitor'), ('lock_timeout', '1ms')", "")])
def test_settings_that_content_changes_do_not_bend_what_is_put_back(job: Job, postgres: Postgres, database: str, others: str, more: str) -> None:
    """The last rows of the artifact run a CHECK that changes what it can."""
    postgres.load(EVIL.replace("OTHERS", others) + more, database)
    postgres.execute("ALTER TABLE zz ADD CHECK (public.bend())", database)
    backup = job.backup(exclude_tables=["public.later"])
    before = postgres.dump(database)
    ended = restore(job, backup, database, on_existing="Replace", safety_backup=False)
    assert ended.reason is None, ended.log
    assert postgres.dump(database) == before


# Event triggers

AUDIT = """
CREATE TABLE public.ddl_log (id bigint GENERATED ALWAYS AS IDENTITY, tag text);
CREATE FUNCTION public.log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO ddl_log (tag) VALUES (tg_tag); END $$;
CREATE TABLE public.orders (id int PRIMARY KEY, note text);
CREATE TABLE public.lines (id int REFERENCES public.orders);
CREATE MATERIALIZED VIEW public.counted AS SELECT count(*) FROM public.orders;
INSERT INTO public.orders VALUES (1, 'x');
ALTER TABLE public.orders OWNER TO pg_monitor;
GRANT SELECT ON public.orders TO PUBLIC;
CREATE PUBLICATION p FOR TABLE public.orders;
INSERT INTO public.ddl_log (tag) VALUES ('first');
CREATE EVENT TRIGGER log_ddl ON ddl_command_end EXECUTE FUNCTION public.log_ddl();
ALTER EVENT TRIGGER log_ddl ENABLE ALWAYS;
CREATE EVENT TRIGGER log_drop ON sql_drop EXECUTE FUNCTION public.log_ddl();
COMMENT ON EVENT TRIGGER log_drop IS 'keeps \\ a log';
"""


@pytest.mark.parametrize("form", ["plain", "custom"])
@pytest.mark.parametrize("where", ["in place", "new"])
def test_event_triggers_of_the_artifact_fire_on_nothing(
    job: Job, postgres: Postgres, database: str, new_database: Callable[..., str], form: str, where: str
) -> None:
    """Their function relies on the search_path: where it fires the restore fails."""
    postgres.load(AUDIT, database)
    backup = job.backup(format=form)
    target = database if where == "in place" else new_database()
    assert restore(job, backup, target, on_existing="Replace", safety_backup=False).reason is None
    options = ["--no-owner", "--no-privileges"] if where == "new" else []
    assert postgres.dump(target, *options) == postgres.dump(database, *options)


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_newer_event_triggers_do_not_write_into_what_is_replaced(job: Job, postgres: Postgres, database: str, form: str) -> None:
    """A DDL log that is in the artifact: its rows are those of the backup."""
    postgres.load("CREATE TABLE b_log (id int GENERATED ALWAYS AS IDENTITY, tag text); INSERT INTO b_log (tag) VALUES ('x')", database)
    postgres.load("CREATE TABLE a (id int); CREATE TABLE c (id int); CREATE SCHEMA kept; CREATE TABLE kept.d (id int)", database)
    backup = job.backup(format=form)
    postgres.load(
        "CREATE FUNCTION kept.log() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.b_log (tag) VALUES (tg_tag); END $$;"
        "CREATE EVENT TRIGGER newer ON ddl_command_end EXECUTE FUNCTION kept.log(); ALTER EVENT TRIGGER newer ENABLE ALWAYS",
        database,
    )
    assert restore(job, backup, database, on_existing="Replace").reason is None
    assert postgres.execute("SELECT tag FROM b_log", database) == [("x",)]
    postgres.execute("CREATE TABLE again (id int)", database)
    assert postgres.execute("SELECT tag FROM b_log", database) == [("x",), ("CREATE TABLE",)]


def test_event_triggers_of_the_target_do_not_fire_on_what_is_dropped_and_put_back(job: Job, postgres: Postgres, database: str) -> None:
    kept = """
    CREATE SCHEMA kept;
    CREATE TABLE kept.log (tag text);
    CREATE FUNCTION kept.log() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO kept.log VALUES (tg_event || ' ' || tg_tag); END $$;
    CREATE TABLE kept.later (id int);
    """
    triggers = """
    CREATE EVENT TRIGGER "a" ON sql_drop EXECUTE FUNCTION kept.log();
    CREATE EVENT TRIGGER "b ""b" ON ddl_command_end WHEN tag IN ('GRANT', 'REVOKE', 'DROP TABLE', 'ALTER PUBLICATION')
      EXECUTE FUNCTION kept.log();
    CREATE EVENT TRIGGER "c" ON ddl_command_start WHEN tag IN ('DROP TABLE') EXECUTE FUNCTION kept.log();
    ALTER EVENT TRIGGER "a" ENABLE ALWAYS;
    ALTER EVENT TRIGGER "c" ENABLE REPLICA;
    CREATE EVENT TRIGGER "d" ON ddl_command_end EXECUTE FUNCTION kept.log();
    ALTER EVENT TRIGGER "d" DISABLE;
    """
    postgres.load("CREATE TABLE public.t (a int); GRANT SELECT ON public.t TO PUBLIC; CREATE PUBLICATION p FOR TABLE public.t;" + kept, database)
    backup = job.backup(schemas=["public"])
    postgres.load(triggers, database)
    states = "SELECT evtname, evtenabled FROM pg_event_trigger ORDER BY 1"
    before = postgres.execute(states, database), postgres.dump(database)
    assert restore(job, backup, database, on_existing="Replace", safety_backup=False).reason is None
    assert (postgres.execute(states, database), postgres.dump(database)) == before
    postgres.execute("DROP TABLE public.t", database)
    assert ("sql_drop DROP TABLE",) in postgres.execute("SELECT tag FROM kept.log", database)


# Settings of the target, and names that psql misreads

SETTINGS = [
    "statement_timeout = '20ms'", "lock_timeout = '10ms'", "idle_in_transaction_session_timeout = '200ms'", "standard_conforming_strings = off",
    "backslash_quote = off", "DateStyle = 'German, DMY'", "IntervalStyle = 'sql_standard'", "bytea_output = 'escape'", "extra_float_digits = -3",
    "xmloption = document", "TimeZone = 'Asia/Kolkata'", "default_transaction_isolation = 'serializable'", "default_transaction_deferrable = on",
    "quote_all_identifiers = on", "array_nulls = off", "transform_null_equals = on", "client_min_messages = 'error'", "search_path = 'pgapp'",
]  # fmt: skip
VALUES = """
CREATE TABLE vals (id serial PRIMARY KEY, d date, ts timestamptz, i interval, b bytea, f float8, a text[], s text DEFAULT 'a\\b''c',
  c bool DEFAULT (NULL = NULL));
INSERT INTO vals (d, ts, i, b, f, a, s) SELECT date '2024-02-03' + g, timestamptz '2024-02-03 04:05:06+00',
  interval '-1 year 2 months -3 days 4:05:06.7', '\\x00ff5c27'::bytea, 1.0/3 * g, ARRAY[NULL, 'NULL', 'x\\y"z'], E'back\\\\slash\\t'
  FROM generate_series(1, 3) g;
CREATE FUNCTION esc(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT replace($1, ''\\'', ''\\\\'')';
CREATE VIEW sh AS SELECT id, s || '\\n' AS t, d = NULL AS n FROM vals WHERE s LIKE '%\\\\%';
"""


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_settings_of_the_target_do_not_change_what_is_restored(
    job: Job, postgres: Postgres, database: str, new_database: Callable[..., str], form: str, tmp_path: Path
) -> None:
    postgres.load(VALUES, database)
    before = postgres.dump(database)
    backup = job.backup(format=form, compression=Compression(algorithm="none"))
    target, other = new_database(), new_database()
    for name in (target, other, database):
        postgres.load("".join(f"ALTER DATABASE {name} SET {setting};" for setting in SETTINGS), "postgres")
    for name in (target, database):
        ended = restore(job, backup, name, on_existing="Replace", safety_backup=False)
        assert ended.reason is None, ended.log
    restored = [target, database]
    if form == "plain":
        postgres.execute(f"ALTER DATABASE {other} RESET statement_timeout")
        postgres.tool("psql", "-X", "-1", "-v", "ON_ERROR_STOP=1", "-f", job.fetch(backup, tmp_path / "fetched") / "dump.sql", database=other)
        restored.append(other)
    for name in restored:
        postgres.execute(f"ALTER DATABASE {name} RESET ALL")
        assert postgres.dump(name) == before


def test_a_schema_whose_name_begins_like_the_systems_fills_a_target(
    job: Job, postgres: Postgres, database: str, new_database: Callable[..., str]
) -> None:
    postgres.execute("CREATE TABLE t (a int)", database)
    backup = job.backup()
    target = new_database()
    postgres.load(f"ALTER DATABASE {target} SET standard_conforming_strings = off; CREATE SCHEMA pgapp; CREATE TABLE pgapp.t (a int)", target)
    with untouched(postgres, target):
        ended = restore(job, backup, target)
    assert ended.reason == "TargetNotEmpty", ended.log


BEGINNINGS = """
CREATE TABLE begin (begin int, "end" int, "case" int);
CREATE FUNCTION begin() RETURNS SETOF int LANGUAGE sql BEGIN ATOMIC SELECT begin FROM begin; SELECT b.begin + b."end" AS "case" FROM begin b; END;
CREATE FUNCTION alias() RETURNS SETOF int LANGUAGE sql BEGIN ATOMIC WITH begin AS (SELECT 1 AS a) SELECT atomic.a FROM begin atomic; END;
CREATE FUNCTION labels() RETURNS SETOF int LANGUAGE sql BEGIN ATOMIC SELECT 1 AS case; SELECT 2 end; SELECT CASE WHEN true THEN 3 END case; END;
CREATE FUNCTION plain(begin int) RETURNS begin LANGUAGE plpgsql AS $$ BEGIN RETURN (1, 2, 3); END $$;
CREATE PROCEDURE "begin;"(INOUT begin int) LANGUAGE sql BEGIN ATOMIC SELECT begin; END;
CREATE TABLE z (a text);
INSERT INTO z VALUES ('END; DROP TABLE begin;');
"""


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_names_that_are_words_of_sql_restore(
    job: Job, postgres: Postgres, database: str, new_database: Callable[..., str], form: str, tmp_path: Path
) -> None:
    for statement in BEGINNINGS.strip().splitlines():  # psql cannot even send them
        postgres.execute(statement, database)
    before = postgres.dump(database)
    backup = job.backup(format=form, compression=Compression(algorithm="none"))
    target, other = new_database(), new_database()
    assert restore(job, backup, target).reason is None
    assert restore(job, backup, database, on_existing="Replace", safety_backup=False).reason is None
    assert (postgres.dump(target), postgres.dump(database)) == (before, before)
    if form == "plain":
        postgres.tool("psql", "-X", "-1", "-v", "ON_ERROR_STOP=1", "-f", job.fetch(backup, tmp_path / "fetched") / "dump.sql", database=other)
        assert postgres.dump(other) == before
