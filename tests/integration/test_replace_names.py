"""What is in the way of a Replace: names that are taken, newer parts of replaced objects that are
objects of their own, and what an artifact could not bring back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.integration.conftest import Job, Postgres
from tests.integration.test_replace_circles import owner
from tests.integration.test_restore_refused import nothing_written, restore, untouched

__all__ = ["owner"]

SOURCE = """
CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text); INSERT INTO orders (note) VALUES ('x');
CREATE INDEX orders_note ON orders (note); CREATE TABLE items (id serial, number bigint); CREATE TYPE size AS (a int, b int);
CREATE FUNCTION less(point, point) RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR <<< (leftarg = point, rightarg = point, function = less);
CREATE FUNCTION span(int, int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE OPERATOR FAMILY family USING btree; CREATE TABLE measured (a int, b int); CREATE STATISTICS correlated ON a, b FROM measured;
CREATE TYPE gap AS RANGE (SUBTYPE = int, MULTIRANGE_TYPE_NAME = gaps);
"""
TAKEN = {
    "ALTER TABLE orders RENAME TO orders_old": (
        "index public.orders_pkey of table public.orders_old has the name of another index in the artifact",
        "sequence public.orders_id_seq of table public.orders_old has the name of another sequence in the artifact",
        "index public.orders_note of table public.orders_old has the name of another index in the artifact",
    ),
    "ALTER TABLE measured RENAME TO measured_old": (
        "statistics object public.correlated of table public.measured_old has the name of another statistics object in the artifact",
    ),
    "ALTER TABLE items RENAME TO items_old": (
        "default value for column id of table public.items_old is not in the artifact and depends on sequence public.items_id_seq",
    ),
    "DROP TYPE size; CREATE TABLE stays (a int); CREATE INDEX size ON stays (a)": (
        "index public.size has the same name as a composite type in the artifact, but is of another kind",
    ),
    "DROP TYPE gap; CREATE TYPE gaps AS ENUM ('x')": ("type public.gaps has the name of another type in the artifact",),
    "DROP TYPE gap; CREATE TYPE newer AS RANGE (SUBTYPE = int, MULTIRANGE_TYPE_NAME = gaps)": (
        "type public.gaps has the name of another type in the artifact",
    ),
    "DROP TABLE items; CREATE EXTENSION citext; CREATE TABLE items (a int); ALTER EXTENSION citext ADD TABLE items": (
        "table public.items has the same name as a table in the artifact, but belongs to an extension",
    ),
    "CREATE OPERATOR CLASS newer FOR TYPE int USING btree FAMILY family AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,"
    " FUNCTION 1 btint4cmp(int, int)": (
        "operator class public.newer for access method btree is not in the artifact and depends on operator family public.family",
    ),
    "CREATE VIEW first AS SELECT note FROM orders; CREATE VIEW second AS SELECT * FROM first": (
        "view public.first is not in the artifact and depends on ",
        "view public.second is not in the artifact and depends on view public.first, which is not either",
    ),
    "CREATE TABLE stays (a int); CREATE RULE newer AS ON INSERT TO stays DO ALSO DELETE FROM orders": (
        "rule newer on table public.stays is not in the artifact and depends on ",
    ),
    "CREATE TABLE stays (a int); CREATE CONSTRAINT TRIGGER newer AFTER INSERT ON stays FROM orders"
    " FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()": (
        "trigger newer on table public.stays is not in the artifact and depends on table public.orders",
    ),
    "DROP FUNCTION span; CREATE TYPE span AS RANGE (subtype = int)": (
        "function public.span(integer,integer) has the same name as a function in the artifact, but belongs to a range type",
    ),
    "CREATE OPERATOR FAMILY newer USING btree; ALTER OPERATOR FAMILY newer USING btree ADD OPERATOR 1 <<< (point, point)": (
        "operator 1 (point, point) of operator family public.newer for access method btree: public.<<<(point,point) is not in the artifact and",
    ),
    "CREATE FUNCTION more(point, point) RETURNS bool LANGUAGE sql AS 'SELECT false';"
    "CREATE OPERATOR >>>> (leftarg = point, rightarg = point, function = more, negator = <<<)": (
        "operator public.>>>>(point,point) is not in the artifact and depends on operator public.<<<(point,point)",
    ),
}  # fmt: skip
"""What has happened since the backup -> parts of the refusal."""


def test_names_that_are_taken_and_newer_objects_are_named(job: Job, postgres: Postgres, database: str, new_database: Callable[..., str]) -> None:
    postgres.load(SOURCE, database)
    backup = job.backup()
    for since, parts in TAKEN.items():
        target = new_database(f'TEMPLATE "{database}"')
        postgres.load(since, target)
        with untouched(postgres, target):
            ended = restore(job, backup, target, on_existing="Replace")
        assert ended.reason == "DependentObjects", since + ended.log
        assert ended.report.failure
        for part in parts:
            assert part in ended.report.failure.message, ended.report.failure.message
    assert nothing_written(job)


def test_names_that_go_with_replaced_tables_are_free_again(job: Job, postgres: Postgres, database: str) -> None:
    postgres.load(
        "CREATE TABLE a (x int); CREATE TABLE b (y int); CREATE INDEX named ON a (x); CREATE SEQUENCE s OWNED BY a.x;"
        "CREATE STATISTICS measured ON x, (x + 1) FROM a",
        database,
    )
    before = postgres.dump(database)
    backup = job.backup()
    postgres.load(
        "DROP INDEX named; DROP SEQUENCE s; CREATE INDEX named ON b (y); CREATE SEQUENCE s OWNED BY b.y;"
        "DROP STATISTICS measured; CREATE STATISTICS measured ON y, (y + 1) FROM b",
        database,
    )
    ended = restore(job, backup, database, on_existing="Replace")
    assert ended.code == 0, ended.log
    assert postgres.dump(database) == before
    assert ended.report.warnings == ()


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_a_newer_partition_is_refused_whatever_the_drop_section_holds(job: Job, postgres: Postgres, database: str, form: str) -> None:
    postgres.load(
        "CREATE TABLE m (id int, k int) PARTITION BY LIST (k); CREATE TABLE m1 PARTITION OF m FOR VALUES IN (1); INSERT INTO m VALUES (1, 1);"
        "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER s FOREIGN DATA WRAPPER nowhere; CREATE FOREIGN TABLE ft (a serial) SERVER s;"
        "ALTER FOREIGN TABLE ft ADD CONSTRAINT c CHECK (a > 0) NOT VALID; CREATE VIEW v AS SELECT FROM m; CREATE DOMAIN d AS int;"
        "ALTER DOMAIN d ADD CONSTRAINT c CHECK (VALUE > 0) NOT VALID",
        database,
    )
    backup = job.backup(format=form)
    postgres.load("CREATE TABLE m2 PARTITION OF m FOR VALUES IN (2); INSERT INTO m VALUES (2, 2), (3, 2)", database)
    with untouched(postgres, database):
        ended = restore(job, backup, database, on_existing="Replace")
    assert ended.reason == "DependentObjects", ended.log
    assert ended.report.failure
    assert ended.report.failure.message.endswith(
        "partitions that the artifact lacks would be dropped with their tables: public.m2; nothing was touched"
    )
    postgres.execute("DROP TABLE m2", database)
    before = postgres.dump(database)
    assert restore(job, backup, database, on_existing="Replace").code == 0
    assert postgres.dump(database) == before


def test_options_of_user_mappings_are_never_emptied(job: Job, postgres: Postgres, database: str, owner: str) -> None:
    postgres.load(f"CREATE FOREIGN DATA WRAPPER nowhere; GRANT USAGE ON FOREIGN DATA WRAPPER nowhere TO {owner}; CREATE ROLE {owner}_other", database)
    postgres.load(
        f"CREATE SERVER s FOREIGN DATA WRAPPER nowhere; CREATE USER MAPPING FOR {owner} SERVER s OPTIONS (a 'b');"
        f"CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (c 'd'); CREATE FOREIGN TABLE t (a int) SERVER s",
        database,
        owner,
    )
    postgres.execute(
        f"ALTER FOREIGN DATA WRAPPER nowhere OWNER TO postgres; CREATE USER MAPPING FOR {owner}_other SERVER s OPTIONS (e 'f')", database
    )
    backup = job.backup()
    with untouched(postgres, database):
        ended = restore(job, backup, database, owner, on_existing="Replace")
    assert ended.reason in {"InsufficientPrivilege", "NotOwner"}, ended.log
    assert ended.report.failure
    assert f"may not see the options of user mapping for {owner}_other on server s" in ended.report.failure.message
    assert nothing_written(job)
    before = postgres.dump(database)
    assert restore(job, backup, database, on_existing="Replace").code == 0
    assert postgres.dump(database) == before


def test_options_that_the_backups_user_might_not_see_are_not_lost(job: Job, postgres: Postgres, database: str, owner: str) -> None:
    postgres.load(
        f"CREATE FOREIGN DATA WRAPPER nowhere; CREATE ROLE {owner}_other; CREATE SERVER s FOREIGN DATA WRAPPER nowhere;"
        f"CREATE USER MAPPING FOR {owner}_other SERVER s OPTIONS (e 'f')",
        database,
    )
    job.connect_to(database, owner)
    backup = job.backup()
    assert backup.code == 0, backup.log
    with untouched(postgres, database):
        ended = restore(job, backup, database, on_existing="Replace")
    assert ended.reason == "InsufficientPrivilege", ended.log
    assert ended.report.failure
    assert f"the artifact lacks the options of user mapping {owner}_other on server s" in ended.report.failure.message
    assert nothing_written(job)
