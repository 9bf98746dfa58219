"""Objects that need each other in circles, or whose DROP is spelled in unusual ways: no order of
single DROPs exists for them, and every Replace brings them back."""

from __future__ import annotations

import pytest
from tests.integration.conftest import PASSWORD, Job, Postgres
from tests.integration.test_restore_refused import restore
from tests.integration.test_restore_replace import safety_of

CIRCLES = {
    "policy_view": "CREATE TABLE t (a int); CREATE VIEW v AS SELECT a FROM t; CREATE POLICY p ON t USING (a IN (SELECT a FROM v))",
    "policy_matview": "CREATE TABLE t (a int); CREATE MATERIALIZED VIEW v AS SELECT a FROM t; CREATE POLICY p ON t USING (a IN (SELECT a FROM v))",
    "default_function": "CREATE TABLE t (id int); CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT max(id) + 1 FROM t; END;"
    "ALTER TABLE t ALTER id SET DEFAULT f()",
    "default_function_view": "CREATE TABLE t (id int); CREATE VIEW v AS SELECT id FROM t;"
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT max(id) FROM v; END; ALTER TABLE t ALTER id SET DEFAULT f()",
    "check_of_row": "CREATE TABLE t (id int); CREATE FUNCTION f(t) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';"
    "ALTER TABLE t ADD CONSTRAINT c CHECK (f(t.*))",
    "index_of_row": "CREATE TABLE t (id int, b text); CREATE FUNCTION f(t) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1.b';"
    "CREATE INDEX i ON t (f(t)); INSERT INTO t SELECT i, 'x' || i FROM generate_series(1, 9) i",
    "trigger_of_row": "CREATE TABLE t (id int); CREATE FUNCTION w(t) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';"
    "CREATE FUNCTION tr() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';"
    "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW WHEN (w(new.*)) EXECUTE FUNCTION tr()",
    "view_column": "CREATE VIEW v AS SELECT 1 AS a; CREATE FUNCTION f(v) RETURNS int LANGUAGE sql AS 'SELECT $1.a';"
    "CREATE OR REPLACE VIEW v AS SELECT 1 AS a, NULL::int AS b; CREATE TABLE t (x v); CREATE VIEW w AS SELECT f(x) FROM t",
    "view_default": "CREATE TABLE t (a int); CREATE VIEW v AS SELECT a FROM t; CREATE FUNCTION f(v) RETURNS int LANGUAGE sql AS 'SELECT 1';"
    "ALTER VIEW v ALTER a SET DEFAULT f(NULL)",
    "domain": "CREATE DOMAIN d AS int; CREATE FUNCTION f(d) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';"
    "ALTER DOMAIN d ADD CHECK (f(VALUE)); CREATE TABLE t (a d)",
    "domain_not_valid": "CREATE DOMAIN d AS int; ALTER DOMAIN d ADD CONSTRAINT c CHECK (VALUE > 0) NOT VALID",
    "generated": "CREATE TABLE t (a int, b int); CREATE FUNCTION f(t) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';"
    "CREATE TABLE u (x t, y int GENERATED ALWAYS AS (f(x)) STORED); CREATE FUNCTION g(u) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'",
    "partition_key": "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1'; CREATE TABLE pt (x int) PARTITION BY LIST (f(x));"
    "CREATE TABLE pt1 PARTITION OF pt FOR VALUES IN (1); INSERT INTO pt VALUES (1); CREATE FUNCTION g(pt) RETURNS int LANGUAGE sql AS 'SELECT 1';"
    "CREATE VIEW v AS SELECT g(pt) FROM pt; CREATE INDEX ON pt (x)",
    "keys": "CREATE TABLE a (id int PRIMARY KEY, b int); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);"
    "ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b",
    "quoted": 'CREATE TABLE "t.x" ("a.b" int, id int); CREATE INDEX "i.x" ON "t.x" ("a.b");'
    'CREATE FUNCTION next_of() RETURNS int BEGIN ATOMIC SELECT coalesce(max("a.b"), 0) + 1 FROM "t.x"; END;'
    'ALTER TABLE "t.x" ALTER COLUMN "a.b" SET DEFAULT next_of();'
    "CREATE FUNCTION fine(\"t.x\") RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';"
    'ALTER TABLE "t.x" ADD CONSTRAINT "is on time" CHECK (fine("t.x")); INSERT INTO "t.x" (id) VALUES (1), (2);'
    'CREATE PROCEDURE "p(""x"(a int) LANGUAGE sql AS \'\'; CREATE DOMAIN "d(o)." AS int;'
    'CREATE FUNCTION "f,"("d(o).") RETURNS int LANGUAGE sql AS \'SELECT 1\'',
    "procedures": "CREATE PROCEDURE p(OUT a int, IN b int, IN c int) LANGUAGE sql AS 'SELECT 1';"
    "CREATE PROCEDURE p(IN a int, IN b int, IN c int) LANGUAGE sql AS 'SELECT 1'; CREATE PROCEDURE p(VARIADIC d int[]) LANGUAGE sql AS ''",
    "casts": "CREATE TYPE colour AS ENUM ('red'); CREATE CAST (colour AS text) WITH INOUT; CREATE CAST (text AS colour) WITH INOUT AS ASSIGNMENT",
    "view_without_columns": "CREATE TABLE t (id int PRIMARY KEY, d text); CREATE VIEW v AS SELECT FROM t GROUP BY id HAVING length(d) > 0",
    "shell_operator": "CREATE FUNCTION f(int, bigint) RETURNS bool LANGUAGE sql AS 'SELECT true';"
    "CREATE OPERATOR === (leftarg = int, rightarg = bigint, function = f, commutator = ====);"
    "CREATE TYPE e AS ENUM ('x'); CREATE FUNCTION g(e, int) RETURNS bool LANGUAGE sql AS 'SELECT true';"
    "CREATE OPERATOR <<>> (leftarg = e, rightarg = int, function = g, commutator = <<<>>>, negator = !<<>>)",
    "families": "CREATE OPERATOR FAMILY n USING btree; CREATE OPERATOR CLASS o FOR TYPE int USING btree FAMILY n AS"
    " OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 btint4cmp(int, int); CREATE TABLE t (a int);"
    "CREATE INDEX i ON t (a o); ALTER OPERATOR FAMILY n USING btree ADD OPERATOR 1 < (int, bigint)",
    "aggregates": "CREATE AGGREGATE g(*) (sfunc = int8inc, stype = bigint, initcond = '0');"
    "CREATE AGGREGATE h(float8 ORDER BY anyelement) (sfunc = ordered_set_transition, stype = internal, finalfunc = percentile_disc_final,"
    " finalfunc_extra)",
    "inheritance": "CREATE TABLE a (x int); CREATE TABLE b (y int) INHERITS (a); CREATE VIEW v AS SELECT * FROM a; CREATE FUNCTION f(b) RETURNS a"
    " LANGUAGE sql AS 'SELECT $1.x'; CREATE RULE r AS ON INSERT TO b DO ALSO SELECT * FROM v; CREATE STATISTICS s ON x, y FROM b",
}
"""Schema -> what is made in it."""
FOR_SUPERUSERS = {
    "base_type": "CREATE TYPE w; CREATE FUNCTION w_in(cstring) RETURNS w LANGUAGE internal IMMUTABLE STRICT AS 'int4in';"
    "CREATE FUNCTION w_out(w) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';"
    "CREATE TYPE w (INPUT = w_in, OUTPUT = w_out, LIKE = int4); CREATE TABLE t (a w); INSERT INTO t VALUES ('5');"
    "CREATE CAST (w AS int) WITH INOUT",
    "foreign_tables": "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER s FOREIGN DATA WRAPPER nowhere; CREATE FOREIGN TABLE f (a serial) SERVER s;"
    " CREATE FOREIGN TABLE fu (a int) SERVER s; ALTER FOREIGN TABLE fu ADD CONSTRAINT c CHECK (a > 0) NOT VALID;"
    "CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (a 'b'); CREATE USER MAPPING FOR CURRENT_USER SERVER s",
    "others": "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER e ON ddl_command_end"
    " WHEN tag IN ('CREATE CAST') EXECUTE FUNCTION f(); CREATE ACCESS METHOD m TYPE INDEX HANDLER bthandler;"
    "CREATE OPERATOR CLASS o FOR TYPE int USING m AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,"
    " FUNCTION 1 btint4cmp(int, int);"
    "CREATE TEXT SEARCH PARSER p (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);"
    "CREATE TEXT SEARCH TEMPLATE te (LEXIZE = dsimple_lexize); CREATE TEXT SEARCH DICTIONARY d (TEMPLATE = te);"
    "CREATE TEXT SEARCH CONFIGURATION c (PARSER = p); CREATE TABLE pub (a int); CREATE PUBLICATION pubbed FOR TABLE pub;"
    "CREATE CONVERSION con FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8; CREATE COLLATION col FROM \"C\";"
    "SELECT lo_from_bytea(17, 'x'); SELECT lo_from_bytea(18, 'y')",
    "languages": "CREATE FUNCTION h() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';"
    "CREATE TRUSTED LANGUAGE owned HANDLER h; CREATE FUNCTION f() RETURNS int LANGUAGE owned AS 'BEGIN RETURN 1; END';"
    "REVOKE ALL ON LANGUAGE owned FROM PUBLIC; GRANT USAGE ON LANGUAGE owned TO pg_monitor; ALTER LANGUAGE owned OWNER TO pg_database_owner",
}


def script(schemas: dict[str, str]) -> str:
    return "".join(f"CREATE SCHEMA {name}; SET search_path = {name}; {made};\n" for name, made in schemas.items())


@pytest.fixture
def owner(postgres: Postgres, database: str) -> str:
    """The owner of the test's database, and not a superuser."""
    name = f"{database}_owner"
    password = PASSWORD.replace("'", "''")
    postgres.load(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'; ALTER DATABASE {database} OWNER TO {name}", database)
    return name


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_circles_are_replaced_by_a_superuser(job: Job, postgres: Postgres, database: str, form: str) -> None:
    postgres.load(script(CIRCLES | FOR_SUPERUSERS), database)
    before = postgres.dump(database)
    ended = restore(job, job.backup(format=form), database, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.dump(database) == before
    assert ended.report.warnings == ()
    again = restore(job, safety_of(job, ended), database, on_existing="Replace", safety_backup=False)
    assert again.code == 0, again.log
    assert postgres.dump(database) == before


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_circles_are_replaced_by_their_owner(job: Job, postgres: Postgres, database: str, owner: str, form: str) -> None:
    for_owners = {name: made for name, made in CIRCLES.items() if name not in {"families", "aggregates"}}
    postgres.load(script(for_owners), database, owner)
    before = postgres.dump(database)
    job.connect_to(database, owner)
    ended = restore(job, job.backup(format=form), database, owner, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.dump(database) == before
    assert ended.report.warnings == ()
