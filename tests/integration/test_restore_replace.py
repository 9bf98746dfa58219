"""Replacing in place: what drifted since the backup, what stays, what is put back. And databases
that a restore creates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.conftest import PASSWORD, Ended, Job, Postgres
from tests.integration.test_restore_refused import SOURCE, restore, untouched

from dbbackup.contract.errors import Failure
from dbbackup.contract.run import RestoreOptions
from dbbackup.dataplane.postgres.locks import hold_run_lock


@pytest.fixture
def source(postgres: Postgres, database: str) -> str:
    postgres.load(SOURCE, database)
    return database


def safety_of(job: Job, ended: Ended) -> Ended:
    """The safety backup, as if it were the backup to restore."""
    assert ended.report.safety_backup
    assert ended.report.artifact
    made = ended.report.safety_backup
    report = ended.report.artifact.model_copy(update={"key": made.key, "manifest_sha256": made.manifest_sha256})
    return Ended(ended.code, ended.report.model_copy(update={"artifact": report}), ended.events, ended.log)


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_what_drifted_since_the_backup_is_taken_back(job: Job, postgres: Postgres, source: str, form: str) -> None:
    postgres.load("CREATE TABLE third (id int PRIMARY KEY); CREATE VIEW paired AS SELECT 1 AS one", source)
    backup = job.backup(format=form)
    before = postgres.dump(source)
    postgres.load(
        "ALTER TABLE parent ADD third int REFERENCES third; ALTER TABLE third ADD child int REFERENCES child;"
        "ALTER TABLE child ADD CONSTRAINT newer FOREIGN KEY (id) REFERENCES third NOT VALID;"
        "CREATE OR REPLACE VIEW paired AS SELECT p.id AS one FROM parent p JOIN third USING (id);"
        "ALTER TYPE mood ADD VALUE 'c'; ALTER TABLE parent DROP COLUMN text; CREATE INDEX newer_index ON child (parent);"
        "CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';"
        "CREATE TRIGGER newer_trigger BEFORE INSERT ON parent FOR EACH ROW EXECUTE FUNCTION tf();"
        "DROP VIEW seen; DROP FUNCTION one()",
        source,
    )
    drifted = postgres.dump(source)
    ended = restore(job, backup, source, on_existing="Replace")
    assert ended.code == 0, ended.log
    warnings = " ".join(ended.report.warnings)
    for gone in ("index public.newer_index", "trigger newer_trigger on public.parent", "newer on public.child"):
        assert gone in warnings
    postgres.execute("DROP FUNCTION tf()", source)
    assert postgres.dump(source) == before
    postgres.execute("CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'", source)
    # and the safety backup takes that back again
    postgres.execute("DROP VIEW seen; DROP FUNCTION one()", source)
    again = restore(job, safety_of(job, ended), source, on_existing="Replace", safety_backup=False)
    assert again.code == 0, again.log
    assert postgres.dump(source) == drifted


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_everything_dropped_with_replaced_objects_is_reported(job: Job, postgres: Postgres, source: str, form: str) -> None:
    postgres.load("CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM child; CREATE INDEX older_index ON counted (n)", source)
    postgres.load("CREATE RULE older_rule AS ON UPDATE TO seen DO INSTEAD NOTHING; CREATE STATISTICS older_stats ON id, text FROM parent", source)
    backup = job.backup(format=form)
    postgres.load(
        "CREATE RULE newer_rule AS ON DELETE TO child DO ALSO SELECT 1; CREATE STATISTICS newer_stats ON id, mood FROM parent;"
        "CREATE INDEX newer_index ON counted (n); CREATE SEQUENCE newer_sequence OWNED BY child.parent;"
        "CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';"
        "CREATE TRIGGER newer_trigger INSTEAD OF INSERT ON seen FOR EACH ROW EXECUTE FUNCTION tf();"
        "CREATE RULE newer_rule AS ON DELETE TO seen DO INSTEAD NOTHING; CREATE TABLE above (id int); ALTER TABLE parent INHERIT above",
        source,
    )
    ended = restore(job, backup, source, on_existing="Replace")
    assert ended.code == 0, ended.log
    warning = (
        "not in the artifact, so dropped with the objects that were replaced: index public.newer_index,"
        " place of public.parent among the children of public.above, rule newer_rule on public.child, rule newer_rule on public.seen,"
        " sequence public.newer_sequence, statistics object public.newer_stats, trigger newer_trigger on public.seen"
    )
    assert ended.report.warnings == (warning,)


def test_foreign_keys_that_the_server_names_are_not_told_of(job: Job, postgres: Postgres, database: str) -> None:
    """It makes one for each partition of either side, and chooses a free name."""
    postgres.load(
        "CREATE TABLE whole (a int PRIMARY KEY) PARTITION BY RANGE (a); CREATE TABLE first PARTITION OF whole FOR VALUES FROM (0) TO (9);"
        "CREATE TABLE other PARTITION OF whole FOR VALUES FROM (9) TO (99); CREATE TABLE refers (a int REFERENCES whole) PARTITION BY RANGE (a);"
        "CREATE TABLE refers_first PARTITION OF refers FOR VALUES FROM (0) TO (9); ALTER TABLE whole DETACH PARTITION first",
        database,
    )
    names = "SELECT conname FROM pg_constraint WHERE contype = 'f' ORDER BY 1"
    backup, before = job.backup(), postgres.execute(names, database)
    ended = restore(job, backup, database, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.execute(names, database) != before
    assert ended.report.warnings == ()


def test_a_replace_takes_few_subtransactions(job: Job, postgres: Postgres, database: str) -> None:
    """Each makes the server look through all relations that the transaction has made."""
    tables = "".join(
        f"CREATE TABLE t{n} (a int PRIMARY KEY, b int); GRANT SELECT ON t{n} TO PUBLIC; GRANT UPDATE (b) ON t{n} TO PUBLIC;" for n in range(200)
    )
    postgres.load(tables, database)
    backup, before = job.backup(), postgres.dump(database)
    ended = restore(job, backup, database, on_existing="Replace", safety_backup=False)
    assert ended.code == 0, ended.log
    [own] = [int(event["xid"]) for event in ended.events if event["event"] == "transaction"]
    analyzed = 200
    assert postgres.execute("SELECT txid_current()")[0][0] - own - analyzed < 100
    assert postgres.dump(database) == before


def test_foreign_keys_of_tables_that_stay_come_back_as_they_were(job: Job, postgres: Postgres, source: str) -> None:
    backup = job.backup()
    postgres.load(
        "CREATE TABLE newer (a int REFERENCES parent DEFERRABLE INITIALLY DEFERRED, b int);"
        "INSERT INTO newer VALUES (1, 100000);"
        "ALTER TABLE newer ADD CONSTRAINT odd FOREIGN KEY (b) REFERENCES parent ON DELETE CASCADE NOT VALID;"
        "COMMENT ON CONSTRAINT odd ON newer IS 'it''s odd';"
        "CREATE TABLE parted (a int REFERENCES parent) PARTITION BY LIST (a); CREATE TABLE parted1 PARTITION OF parted FOR VALUES IN (1);"
        "INSERT INTO parted VALUES (1)",
        source,
    )
    before = postgres.dump(source)
    postgres.execute("DELETE FROM child", source)
    ended = restore(job, backup, source, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.dump(source) == before
    assert ended.report.warnings == ()


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_only_the_same_arguments_make_the_same_function(job: Job, postgres: Postgres, source: str, form: str) -> None:
    body = "RETURNS text LANGUAGE sql AS 'SELECT ''{}''::text'"
    postgres.load("CREATE TYPE ab AS ENUM ('x')", source)
    postgres.load(f"CREATE FUNCTION f(a integer) {body.format('old')}; CREATE FUNCTION g(ab) {body.format('old')}", source)
    postgres.load(f"CREATE FUNCTION h(a integer, OUT text) {body.format('old')}; CREATE PROCEDURE p(VARIADIC a text[]) LANGUAGE sql AS ''", source)
    backup = job.backup(format=form)
    postgres.load("DROP FUNCTION f(integer); DROP FUNCTION h(integer); DROP PROCEDURE p", source)
    postgres.load(f"CREATE FUNCTION f(a text) {body.format('new')}; CREATE FUNCTION h(b integer, OUT text) {body.format('new')}", source)
    postgres.load("CREATE PROCEDURE p(VARIADIC b text[]) LANGUAGE sql AS ''", source)
    keeper = "CREATE TYPE kept AS ENUM ('x'); CREATE FUNCTION g(kept) {0}; CREATE FUNCTION g(integer) {0}"
    postgres.load(keeper.format(body.format("new")), source)
    ended = restore(job, backup, source, on_existing="Replace")
    assert ended.code == 0, ended.log
    with postgres.connect(source) as session:
        rows = session.execute("SELECT f(1), f('1'::text), g('x'::ab), g('x'::kept), g(1), h(1)").fetchall()
        names = session.execute("SELECT proargnames FROM pg_proc WHERE proname = 'p'").fetchall()
    assert rows == [("old", "new", "old", "new", "new", "old")]
    assert names == [(["a"],)]


OPERATORS = """
CREATE SCHEMA "App"; CREATE TYPE "App"."a, b" AS ENUM ('x');
CREATE FUNCTION "App".same("App"."a, b", "App"."a, b") RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION "App".near(double precision, double precision) RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION "App".at(timestamp with time zone) RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR "App".=== (leftarg = "App"."a, b", rightarg = "App"."a, b", function = "App".same);
CREATE OPERATOR "App".=== (leftarg = double precision, rightarg = double precision, function = "App".near);
CREATE OPERATOR public.<@> (rightarg = timestamp with time zone, function = "App".at);
CREATE OPERATOR CLASS public.numbers FOR TYPE int USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(int);
"""


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_operators_of_any_type_and_schema_are_replaced(
    job: Job, postgres: Postgres, database: str, new_database: Callable[..., str], form: str
) -> None:
    postgres.load(OPERATORS, database)
    backup = job.backup(format=form)
    postgres.load(
        'CREATE OPERATOR "App".=== (leftarg = int, rightarg = int, function = int4eq);'
        "CREATE OPERATOR CLASS public.numbers FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,"
        " FUNCTION 1 btint4cmp(int, int)",
        database,
    )
    before = postgres.dump(database)
    ended = restore(job, backup, database, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.dump(database) == before
    target = new_database()
    postgres.execute("CREATE TABLE other ()", target)
    ended = restore(job, backup, target, on_existing="Replace")
    assert ended.code == 0, "types of the operators are not there: " + ended.log


def test_functions_whose_types_names_differ_by_a_space_are_two(job: Job, postgres: Postgres, source: str) -> None:
    postgres.load("CREATE TYPE ab AS ENUM ('x'); CREATE FUNCTION g(ab) RETURNS int LANGUAGE sql AS 'SELECT 1'", source)
    backup = job.backup()
    postgres.load("CREATE TYPE \"a b\" AS ENUM ('x'); CREATE FUNCTION g(\"a b\") RETURNS int LANGUAGE sql AS 'SELECT 2'", source)
    ended = restore(job, backup, source, on_existing="Replace")
    assert ended.code == 0, ended.log
    with postgres.connect(source) as session:
        assert session.execute("SELECT g('x'::ab), g('x'::\"a b\")").fetchall() == [(1, 2)]


def test_publications_keep_their_tables(job: Job, postgres: Postgres, source: str) -> None:
    backup = job.backup(schemas=["public"])
    postgres.load(
        "CREATE PUBLICATION chosen FOR TABLE child, parent (id, text) WHERE (id > 5);"
        "CREATE TABLE other (a int); ALTER PUBLICATION chosen ADD TABLE other",
        source,
    )
    before = postgres.dump(source)
    ended = restore(job, backup, source, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.dump(source) == before


def test_rows_that_the_artifact_lacks_are_reported(job: Job, postgres: Postgres, source: str) -> None:
    backup = job.backup(exclude_table_data=["public.child"])
    ended = restore(job, backup, source, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.execute("SELECT count(*) FROM child", source) == [(0,)]
    assert ended.report.warnings == (
        "public.child: its 200 rows are gone, because the artifact holds only its definition; the safety backup has them",
    )
    assert restore(job, safety_of(job, ended), source, on_existing="Replace", safety_backup=False).code == 0
    assert postgres.execute("SELECT count(*) FROM child", source) == [(200,)]


@pytest.mark.parametrize("superuser", [True, False])
def test_grants_keep_who_made_them_where_that_can_be(job: Job, postgres: Postgres, database: str, *, superuser: bool) -> None:
    owner, first, second, third = (f"{database}_{name}" for name in ("owner", "first", "second", "third"))
    password = PASSWORD.replace("'", "''")
    postgres.load(
        f"CREATE ROLE {owner} LOGIN PASSWORD '{password}'; CREATE ROLE {first}; CREATE ROLE {second}; CREATE ROLE {third}; CREATE TABLE t (a int);"
        f"GRANT CREATE, USAGE ON SCHEMA public TO {owner}; ALTER TABLE t OWNER TO {owner}; GRANT SELECT, UPDATE ON t TO {first} WITH GRANT OPTION;"
        f"SET ROLE {first}; GRANT SELECT ON t TO {second} WITH GRANT OPTION; GRANT UPDATE (a) ON t TO {third}; RESET ROLE;"
        f"SET ROLE {second}; GRANT SELECT ON t TO {third}",
        database,
    )
    before = postgres.dump(database)
    user = "postgres" if superuser else owner
    ended = restore(job, job.backup(), database, user, on_existing="Replace")
    assert ended.code == 0, ended.log
    if superuser:
        assert postgres.dump(database) == before
        assert ended.report.warnings == ()
    else:
        assert ended.report.warnings == (f"grants that {first}, {second} had made are now the owner's, as this user may not act as that role",)
        rights = f"has_table_privilege('{third}', 't', 'SELECT'), has_column_privilege('{third}', 't', 'a', 'UPDATE')"
        assert postgres.execute(f"SELECT {rights}, has_table_privilege('{second}', 't', 'SELECT WITH GRANT OPTION')", database) == [(True,) * 3]


def test_default_privileges_of_the_target_do_not_leak_in(job: Job, postgres: Postgres, source: str) -> None:
    postgres.execute(f"CREATE ROLE {source}_reader", source)
    backup = job.backup()
    before = postgres.dump(source)
    defaults = f"ALTER DEFAULT PRIVILEGES {{}} ALL ON TABLES {{}} {source}_reader"
    postgres.execute(defaults.format("GRANT", "TO"), source)
    postgres.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC", source)
    assert restore(job, backup, source, on_existing="Replace").code == 0
    postgres.execute(defaults.format("REVOKE", "FROM"), source)
    postgres.execute("ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC", source)
    assert postgres.dump(source) == before


def test_replace_into_an_empty_database_needs_no_safety_backup(job: Job, postgres: Postgres, source: str, new_database: Callable[..., str]) -> None:
    target = new_database()
    ended = restore(job, job.backup(), target, on_existing="Replace")
    assert ended.code == 0
    assert ended.report.safety_backup is None
    assert postgres.dump(target) == postgres.dump(source)


def drop_afterwards(new_database: Callable[..., str], postgres: Postgres) -> str:
    """The name of a database that is not there, and is dropped after the test if it is then."""
    name = new_database()
    postgres.execute(f'DROP DATABASE "{name}"')
    return name


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_a_database_is_created_like_the_source(job: Job, postgres: Postgres, new_database: Callable[..., str], form: str) -> None:
    source = new_database("TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'", 'odd "name" = \'x')
    postgres.load("SET client_encoding = 'UTF8'; CREATE TABLE t (a text); INSERT INTO t VALUES ('älter')", source)
    job.connect_to(source)
    backup = job.backup(format=form)
    target = drop_afterwards(new_database, postgres)
    ended = restore(job, backup, target, create_database=True)
    assert ended.code == 0, ended.log
    query = "SELECT pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database WHERE datname = current_database()"
    assert postgres.execute(query, target) == [("LATIN1", "C", "C")]
    assert postgres.execute("SELECT a FROM t", target) == [("älter",)]


def test_a_created_database_goes_again_when_the_restore_fails(job: Job, postgres: Postgres, source: str, new_database: Callable[..., str]) -> None:
    backup = job.backup()
    assert backup.report.artifact
    key = next(key for key in job.keys() if key.endswith(".zst"))  # noqa: SIM118
    data = job.storage.get(key, 1 << 30)
    job.storage.put(key, data[:-1] + bytes([data[-1] ^ 1]), "application/zstd")
    target = drop_afterwards(new_database, postgres)
    ended = restore(job, backup, target, create_database=True)
    assert ended.reason == "ArtifactCorrupt", ended.log
    assert postgres.execute(f"SELECT 1 FROM pg_database WHERE datname = '{target}'") == []


def test_a_created_database_stays_when_somebody_has_used_it(
    job: Job, postgres: Postgres, source: str, new_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application that waits for its database migrates it as soon as it is there: before the
    restore has begun."""
    backup = job.backup()
    target = drop_afterwards(new_database, postgres)

    def migrate(*arguments: Any) -> None:
        postgres.execute("CREATE TABLE public.migrated AS SELECT 1 AS version", target)
        hold_run_lock(*arguments)

    monkeypatch.setattr("dbbackup.dataplane.restore.run.hold_run_lock", migrate)
    ended = restore(job, backup, target, create_database=True)
    assert ended.reason == "TargetNotEmpty", ended.log
    assert postgres.execute("SELECT version FROM migrated", target) == [(1,)]
    assert len(ended.report.warnings) == 1
    assert "had created, stays: somebody else has created objects in it meanwhile (table public.migrated)" in ended.report.warnings[0]
    assert not ended.report.uncleared
    assert not [key for key in job.keys() if "=restores" in key]  # noqa: SIM118


def test_a_created_database_that_could_not_be_dropped_again_is_a_checks_to_drop(
    job: Job, postgres: Postgres, source: str, new_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: Any) -> None:
        raise Failure("ConnectionLost", "gone")

    backup = job.backup()
    assert backup.report.artifact
    target = drop_afterwards(new_database, postgres)
    with monkeypatch.context() as patched:
        patched.setattr("dbbackup.dataplane.restore.run.hold_run_lock", break_down)
        patched.setattr("dbbackup.dataplane.restore.databases.drop_database", break_down)
        other = job.another("restore", "DatabaseRestore")
        other.connect_to(target)
        options = RestoreOptions(key=backup.report.artifact.key, create_database=True)
        ended = other.run(other.spec("restore", restore=options))
    assert (ended.reason, ended.report.uncleared) == ("ConnectionLost", True), ended.log
    checked = other.run(other.spec("check", check={"run": "restore", "lostReason": "ConnectionLost", "lostMessage": "gone"}, timeout_seconds=20))
    assert checked.reason == "ConnectionLost", checked.log
    assert postgres.execute(f"SELECT 1 FROM pg_database WHERE datname = '{target}'") == []


def test_a_database_that_is_there_is_taken_as_it_is(job: Job, postgres: Postgres, source: str, new_database: Callable[..., str]) -> None:
    backup = job.backup()
    target = new_database()
    postgres.execute("CREATE TABLE mine (a int)", target)
    with untouched(postgres, target):
        assert restore(job, backup, target, create_database=True).reason == "TargetNotEmpty"
    postgres.execute("DROP TABLE mine", target)
    assert restore(job, backup, target, create_database=True).code == 0


def test_a_user_who_may_not_create_databases_is_refused(job: Job, postgres: Postgres, source: str, new_database: Callable[..., str]) -> None:
    password = PASSWORD.replace("'", "''")
    postgres.execute(f"CREATE ROLE {source}_user LOGIN PASSWORD '{password}'")
    target = drop_afterwards(new_database, postgres)
    ended = restore(job, job.backup(), target, f"{source}_user", create_database=True)
    assert ended.reason == "InsufficientPrivilege", ended.log
    assert ended.report.failure
    assert "creating the database" in ended.report.failure.message


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_a_percent_sign_in_a_name_is_no_placeholder(job: Job, postgres: Postgres, database: str, form: str) -> None:
    postgres.load(
        'CREATE TABLE "a%s" (a int); INSERT INTO "a%s" VALUES (1), (2); CREATE TABLE "100%" (a int); INSERT INTO "100%" VALUES (1)', database
    )
    backup = job.backup(format=form, exclude_table_data=['public."100%"'])
    assert backup.report.warnings == ()
    ended = restore(job, backup, database, on_existing="Replace", safety_backup=False)
    assert ended.code == 0, ended.log
    assert ended.report.warnings == ("public.100%: its 1 rows are gone, because the artifact holds only its definition",)
