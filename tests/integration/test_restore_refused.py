"""Restores that must not happen: each is refused by its own reason, and the target is row for row
as it was."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.integration.conftest import PASSWORD, Ended, Job, Postgres

from dbbackup.contract.errors import REASONS
from dbbackup.contract.run import RestoreOptions

SOURCE = """
CREATE TYPE mood AS ENUM ('a', 'b');
CREATE TABLE parent (id int PRIMARY KEY, mood mood, text text);
CREATE TABLE child (id serial PRIMARY KEY, parent int REFERENCES parent);
CREATE VIEW seen AS SELECT id FROM parent;
CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1';
INSERT INTO parent SELECT i, 'a', 'secret-' || i FROM generate_series(1, 200) i;
INSERT INTO child (parent) SELECT id FROM parent;
SELECT lo_from_bytea(0, repeat('x', 100000)::bytea) \\g /dev/null
"""


def restore(job: Job, backup: Ended, target: str, user: str = "postgres", **options: Any) -> Ended:
    assert backup.report.artifact, backup.log
    other = job.another("restore", "DatabaseRestore")
    other.connect_to(target, user)
    fields: dict[str, Any] = {"key": backup.report.artifact.key, "manifest_sha256": backup.report.artifact.manifest_sha256, **options}
    return other.run(other.spec("restore", restore=RestoreOptions(**fields)))


@contextmanager
def untouched(postgres: Postgres, database: str) -> Iterator[None]:
    before = postgres.dump(database)
    yield
    assert postgres.dump(database) == before
    sessions = (
        "SELECT pid, application_name, query FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    deadline = time.monotonic() + 5  # the server notices the end of a session a moment later
    while left := postgres.execute(sessions, database):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def nothing_written(job: Job) -> bool:
    """Neither a safety backup nor a transaction's record."""
    keys = job.keys()
    return not [key for key in keys if "=restores" in key or "safety" in key]


@pytest.fixture
def source(postgres: Postgres, database: str) -> str:
    postgres.load(SOURCE, database)
    return database


@pytest.fixture
def user(postgres: Postgres, database: str) -> str:
    """A role that may log in, and create in the test's database."""
    name = f"{database}_user"
    password = PASSWORD.replace("'", "''")
    postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    return name


KINDS = [
    "CREATE TABLE x (a int)",
    "CREATE VIEW x AS SELECT 1",
    "CREATE MATERIALIZED VIEW x AS SELECT 1",
    "CREATE SEQUENCE x",
    "CREATE FUNCTION x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE PROCEDURE x() LANGUAGE sql AS 'SELECT 1'",
    "CREATE AGGREGATE x(int) (sfunc = int4pl, stype = int)",
    "CREATE TYPE x AS ENUM ('a')",
    "CREATE TYPE x AS (a int)",
    "CREATE TYPE x AS RANGE (subtype = int)",
    "CREATE DOMAIN x AS int",
    "CREATE OPERATOR === (leftarg = int, rightarg = int, function = int4eq)",
    "CREATE OPERATOR FAMILY x USING btree",
    'CREATE COLLATION x FROM "C"',
    "CREATE TEXT SEARCH CONFIGURATION x (COPY = simple)",
    "CREATE TEXT SEARCH DICTIONARY x (TEMPLATE = simple)",
    "CREATE SCHEMA x",
    "CREATE FOREIGN DATA WRAPPER x",
    "CREATE PUBLICATION x",
    "CREATE CAST (bigint AS point) WITH INOUT",
    "SELECT lo_create(17)",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    "CREATE SUBSCRIPTION x CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE)",
]


def test_a_target_that_holds_anything_is_refused(job: Job, postgres: Postgres, source: str, new_database: Callable[..., str]) -> None:
    backup = job.backup()
    for made in KINDS:
        target = new_database()
        postgres.execute(made, target)
        with untouched(postgres, target):
            ended = restore(job, backup, target)
        assert ended.reason == "TargetNotEmpty", made + ended.log
        assert ended.report.failure
        assert "holds 1 objects: " in ended.report.failure.message, made
        assert ended.code == REASONS["TargetNotEmpty"].exit_code
        if "SUBSCRIPTION" in made:
            postgres.execute("DROP SUBSCRIPTION x", target)
    assert nothing_written(job)


def test_extensions_and_their_schema_do_not_fill_a_target(job: Job, postgres: Postgres, source: str, new_database: Callable[..., str]) -> None:
    backup = job.backup()
    target = new_database()
    postgres.execute("CREATE SCHEMA extensions; CREATE EXTENSION citext WITH SCHEMA extensions; CREATE EXTENSION pgcrypto", target)
    assert restore(job, backup, target).reason is None


DEPENDANTS = {
    "CREATE VIEW newer AS SELECT text FROM parent": ("view public.newer", ""),
    "CREATE VIEW first AS SELECT id FROM seen": ("view public.first", "view public.seen"),
    "CREATE TABLE stays (mood mood)": ("column mood of table public.stays", "type public.mood"),
    "CREATE TABLE stays (a int DEFAULT one())": ("default value for column a of table public.stays", "function public.one()"),
    "CREATE FUNCTION newer() RETURNS SETOF parent LANGUAGE sql AS 'SELECT * FROM parent'": ("function public.newer()", "type public.parent"),
    "CREATE TABLE stays () INHERITS (parent)": ("table public.stays", "table public.parent"),
    "CREATE TABLE stays (a int CHECK (a > one()))": ("constraint stays_a_check on table public.stays", "function public.one()"),
    "CREATE MATERIALIZED VIEW newer AS SELECT count(*) FROM child": ("materialized view public.newer", ""),
}


def test_replace_names_dependants_outside_the_artifact(job: Job, postgres: Postgres, source: str, new_database: Callable[..., str]) -> None:
    backup = job.backup()
    for made, (dependant, replaced) in DEPENDANTS.items():
        target = new_database(f'TEMPLATE "{source}"')
        postgres.execute(made, target)
        with untouched(postgres, target):
            ended = restore(job, backup, target, on_existing="Replace")
        assert ended.reason == "DependentObjects", made + ended.log
        assert ended.report.failure
        assert f"{dependant} is not in the artifact and depends on {replaced}" in ended.report.failure.message
    assert nothing_written(job)


CHANGED = {
    "DROP VIEW seen; CREATE TABLE seen ()": ("table public.seen", "view"),
    "DROP TABLE child; CREATE VIEW child AS SELECT 1": ("view public.child", "table"),
    "DROP TABLE child; CREATE TABLE stays (a int); CREATE INDEX child ON stays (a)": ("index public.child", "table"),
    "DROP TABLE child; CREATE TYPE child AS ENUM ()": ("type public.child", "table"),
    "ALTER TYPE mood RENAME TO old; CREATE TABLE mood ()": ("table public.mood", "type"),
    "DROP FUNCTION one(); CREATE PROCEDURE one() LANGUAGE sql AS ''": ("procedure public.one()", "function"),
}


def test_replace_names_what_has_changed_its_kind(job: Job, postgres: Postgres, source: str, new_database: Callable[..., str]) -> None:
    backup = job.backup()
    for made, (found, wanted) in CHANGED.items():
        target = new_database(f'TEMPLATE "{source}"')
        postgres.load(made, target)
        with untouched(postgres, target):
            ended = restore(job, backup, target, on_existing="Replace")
        assert ended.reason == "DependentObjects", made + ended.log
        assert ended.report.failure
        assert f"{found} has the same name as a {wanted} in the artifact, but is of another kind" in ended.report.failure.message
    assert nothing_written(job)


def test_an_array_type_that_has_a_types_name_makes_room(job: Job, postgres: Postgres, database: str) -> None:
    postgres.load("CREATE TYPE _later AS ENUM ('x')", database)
    backup = job.backup()
    postgres.load("DROP TYPE _later; CREATE TYPE later AS ENUM ('x')", database)
    ended = restore(job, backup, database, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.execute("SELECT 'x'::public._later", database) == [("x",)]


def test_replace_does_not_drop_newer_partitions(job: Job, postgres: Postgres, database: str) -> None:
    postgres.load("CREATE TABLE t (a int) PARTITION BY LIST (a); CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)", database)
    backup = job.backup()
    postgres.load("CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2); INSERT INTO t VALUES (1), (2)", database)
    with untouched(postgres, database):
        ended = restore(job, backup, database, on_existing="Replace")
    assert ended.reason == "DependentObjects"
    assert ended.report.failure
    assert "public.t2" in ended.report.failure.message or " t2" in ended.report.failure.message


def test_replace_of_what_others_own_is_refused_by_name(job: Job, postgres: Postgres, source: str, user: str) -> None:
    backup = job.backup()
    postgres.execute(f"GRANT ALL ON SCHEMA public TO {user}; ALTER TABLE child OWNER TO {user}", source)
    with untouched(postgres, source):
        ended = restore(job, backup, source, user, on_existing="Replace")
    assert ended.reason == "NotOwner", ended.log
    assert ended.report.failure
    assert "table public.parent (postgres)" in ended.report.failure.message
    assert "large object" in ended.report.failure.message
    assert "public.child (" not in ended.report.failure.message


def test_a_publication_of_another_owner_is_reported_before_any_change(job: Job, postgres: Postgres, database: str, user: str) -> None:
    postgres.load(f"CREATE TABLE t (a int PRIMARY KEY); ALTER TABLE t OWNER TO {user}; GRANT CREATE ON SCHEMA public TO {user}", database)
    backup = job.backup()
    postgres.execute("CREATE PUBLICATION theirs FOR TABLE t", database)
    with untouched(postgres, database):
        ended = restore(job, backup, database, user, on_existing="Replace")
    assert ended.reason == "NotOwner", ended.log
    assert ended.report.failure
    assert "does not own the publications theirs (postgres)" in ended.report.failure.message
    assert nothing_written(job)


def test_a_subscription_that_fills_a_replaced_table_is_refused(job: Job, postgres: Postgres, source: str, new_database: Callable[..., str]) -> None:
    backup = job.backup()
    target = new_database(f'TEMPLATE "{source}"')
    postgres.execute("CREATE PUBLICATION p FOR TABLE parent", source)
    password = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
    connection = f"host=127.0.0.1 port={postgres.port} user=postgres dbname={source} password='{password}'".replace("'", "''")
    postgres.execute(f"CREATE SUBSCRIPTION filler CONNECTION '{connection}' PUBLICATION p WITH (enabled = false, create_slot = false)", target)
    try:
        with untouched(postgres, target):
            ended = restore(job, backup, target, on_existing="Replace")
        assert ended.reason == "DependentObjects", ended.log
        assert ended.report.failure
        assert "replication into replaced tables would end: subscription filler fills table public.parent:" in ended.report.failure.message
        assert nothing_written(job)
    finally:
        postgres.execute("ALTER SUBSCRIPTION filler SET (slot_name = NONE)", target)
        postgres.execute("DROP SUBSCRIPTION filler", target)


def test_all_problems_are_reported_at_once(job: Job, postgres: Postgres, database: str, user: str) -> None:
    postgres.load(
        f"CREATE ROLE {database}_gone; CREATE EXTENSION dblink; CREATE TABLE t (a int);"
        f"CREATE POLICY p ON t TO {database}_gone; CREATE SCHEMA closed; CREATE TABLE closed.t (a int);"
        "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        "CREATE EVENT TRIGGER et ON ddl_command_end EXECUTE FUNCTION f(); CREATE PUBLICATION everything FOR ALL TABLES",
        database,
    )
    backup = job.backup()
    postgres.load(
        f"DROP EVENT TRIGGER et; DROP PUBLICATION everything; DROP POLICY p ON t; DROP ROLE {database}_gone; DROP EXTENSION dblink", database
    )
    with untouched(postgres, database):
        ended = restore(job, backup, database, user, on_existing="Replace")
    assert ended.report.failure
    message = ended.report.failure.message
    for part in ("NotOwner", "ExtensionMissing: extension dblink", f"RoleMissing: policies or user mappings name these roles: {database}_gone",
                 "event trigger et, publication everything", "lacks CREATE on the schemas closed, public"):  # fmt: skip
        assert part in message, message
    assert ended.reason == "NotOwner"
    assert "Restore as the owner" in ended.report.failure.hint
    assert "Create the roles" in ended.report.failure.hint


def test_an_event_trigger_without_superuser_is_refused_by_name(
    job: Job, postgres: Postgres, database: str, user: str, new_database: Callable[..., str]
) -> None:
    postgres.load(
        "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        "CREATE EVENT TRIGGER watcher ON ddl_command_end EXECUTE FUNCTION f()",
        database,
    )
    backup = job.backup()
    target = new_database(f"OWNER {user}")
    with untouched(postgres, target):
        ended = restore(job, backup, target, user)
    assert ended.reason == "RequiresSuperuser"
    assert ended.report.failure
    assert "event trigger watcher" in ended.report.failure.message


def test_a_selection_of_a_plain_artifact_is_refused_with_advice(job: Job, source: str, new_database: Callable[..., str]) -> None:
    ended = restore(job, job.backup(), new_database(), tables=("public.parent",))
    assert ended.reason == "SelectionUnsupported"
    assert ended.report.failure
    assert "format: custom" in ended.report.failure.hint


def test_a_lock_timeout_names_the_lock_holders(job: Job, postgres: Postgres, source: str) -> None:
    backup = job.backup()
    before = postgres.dump(source)
    with postgres.connect(source) as other, other.transaction():
        other.execute("SET LOCAL application_name = 'the migration'")
        other.execute("INSERT INTO parent VALUES (1000)")
        ended = restore(job, backup, source, on_existing="Replace", lock_timeout_seconds=1, safety_backup=False)
        assert ended.reason == "LockTimeout", ended.log
        assert ended.report.failure
        assert re.search(
            r"\(user postgres, the migration, transaction since [-0-9]+ [:0-9]+ UTC\) holds public\.parent", ended.report.failure.message
        )
        raise_rollback = other.execute("DELETE FROM parent WHERE id = 1000")
        assert raise_rollback.rowcount == 1
    assert postgres.dump(source) == before


def test_a_read_only_target_is_refused(job: Job, postgres: Postgres, source: str, new_database: Callable[..., str]) -> None:
    backup = job.backup()
    target = new_database()
    postgres.execute(f'ALTER DATABASE "{target}" SET default_transaction_read_only = on')
    with untouched(postgres, target):
        assert restore(job, backup, target).reason == "TargetReadOnly"


def test_a_failed_safety_backup_leaves_the_target_alone(job: Job, postgres: Postgres, source: str, user: str) -> None:
    postgres.load("CREATE SCHEMA other; CREATE TABLE other.private (a int)", source)
    postgres.load(f"GRANT ALL ON SCHEMA public TO {user}", source)
    backup = job.backup(schemas=["public"])
    for kind, name in (("TABLE", "parent"), ("TABLE", "child"), ("VIEW", "seen"), ("TYPE", "mood"), ("FUNCTION", "one()")):
        postgres.execute(f"ALTER {kind} {name} OWNER TO {user}", source)
    oid = postgres.execute("SELECT oid FROM pg_largeobject_metadata", source)[0][0]
    postgres.execute(f"ALTER LARGE OBJECT {oid} OWNER TO {user}", source)
    with untouched(postgres, source):
        ended = restore(job, backup, source, user, on_existing="Replace")
    assert ended.reason == "SafetyBackupFailed", ended.log
    assert ended.report.failure
    assert "other.private" in ended.report.failure.message
    again = restore(job, backup, source, user, on_existing="Replace", safety_backup=False)
    assert again.code == 0, again.log
    assert postgres.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'parent'", source) == [(user,)]
