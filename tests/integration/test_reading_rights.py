"""What a backup's user may not read is named before the dump, and what the owner can't restore
before anything is touched: large objects of others, row-level security that holds for owners."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from tests.integration.conftest import PASSWORD, Job, Postgres
from tests.integration.test_restore_refused import restore, untouched

FORMS = ["plain", "custom"]


@pytest.fixture
def owner(postgres: Postgres) -> Iterator[Callable[[str], str]]:
    """Gives a role, always the same, what it needs to own the objects of a database."""
    name = f"o_{uuid.uuid4().hex[:10]}"
    postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD.replace(chr(39), chr(39) * 2)}'")
    databases: list[str] = []

    def admit(database: str) -> str:
        postgres.execute(f"GRANT ALL ON DATABASE {database} TO {name}")
        postgres.execute(f"GRANT ALL ON SCHEMA public TO {name}", database)
        databases.append(database)
        return name

    yield admit
    for database in databases:
        postgres.execute(f"DROP OWNED BY {name} CASCADE", database)
    postgres.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize("form", FORMS)
def test_large_objects_of_others_are_named_beforehand(job: Job, postgres: Postgres, database: str, owner: Callable[[str], str], form: str) -> None:
    user = owner(database)
    postgres.load(
        f"SELECT lo_from_bytea(6001, 'not yours'), lo_from_bytea(6002, 'granted'), lo_from_bytea(6003, 'for all'), lo_from_bytea(6004, 'own'),"
        " lo_from_bytea(6005, 'taken');"
        f"GRANT SELECT ON LARGE OBJECT 6002 TO {user}; GRANT SELECT ON LARGE OBJECT 6003 TO PUBLIC; ALTER LARGE OBJECT 6004 OWNER TO {user};"
        f"ALTER LARGE OBJECT 6005 OWNER TO {user}; REVOKE SELECT ON LARGE OBJECT 6005 FROM {user}; CREATE TABLE closed (a int)",
        database,
    )
    job.connect_to(database, user)
    ended = job.backup(format=form)
    assert ended.reason == "InsufficientPrivilege", ended.log
    assert ended.report.failure
    message = ended.report.failure.message
    assert "public.closed; no SELECT on the large objects 6001 (of postgres), 6005 (of " in message
    assert "GRANT SELECT ON LARGE OBJECT 6001" in message
    assert not [readable for readable in ("6002", "6003", "6004") if readable in message]
    assert job.leftovers() == []
    postgres.execute(f"GRANT SELECT ON LARGE OBJECT 6001, 6005 TO {user}; GRANT SELECT ON closed TO {user}", database)
    ended = job.another().backup(format=form)
    assert ended.code == 0, ended.log


@pytest.mark.parametrize("form", FORMS)
def test_a_server_that_does_not_check_large_objects(job: Job, postgres: Postgres, database: str, owner: Callable[[str], str], form: str) -> None:
    user = owner(database)
    postgres.execute("SELECT lo_from_bytea(6001, 'not yours')", database)
    postgres.execute(f"ALTER DATABASE {database} SET lo_compat_privileges = on")
    job.connect_to(database, user)
    ended = job.backup(format=form)
    assert ended.code == 0, ended.log


FORCED = """
CREATE TABLE tenant_row (id int PRIMARY KEY, tenant text); INSERT INTO tenant_row VALUES (1, 'a'), (2, 'b');
CREATE TABLE child (id int PRIMARY KEY, r int REFERENCES tenant_row); INSERT INTO child VALUES (1, 1);
ALTER TABLE tenant_row ENABLE ROW LEVEL SECURITY; ALTER TABLE tenant_row FORCE ROW LEVEL SECURITY;
CREATE POLICY t ON tenant_row USING (tenant = current_setting('app.tenant'));
"""


@pytest.mark.parametrize("form", FORMS)
def test_row_security_that_is_forced_on_the_owner(
    job: Job, postgres: Postgres, database: str, new_database: Callable[..., str], owner: Callable[[str], str], form: str
) -> None:
    """Refused by name as the owner; what a superuser backed up, the owner restores whole."""
    user = owner(database)
    postgres.load(f"SET ROLE {user}; {FORCED}", database)
    before = postgres.dump(database)
    job.connect_to(database, user)
    refused = job.backup(format=form)
    assert refused.reason == "RowSecurity", refused.log
    assert refused.report.failure
    assert "public.tenant_row" in refused.report.failure.message
    job.connect_to(database)
    backup = job.backup(format=form)
    assert backup.code == 0, backup.log
    target = new_database()
    owner(target)
    ended = restore(job, backup, target, user)
    assert ended.code == 0, ended.log
    assert postgres.dump(target) == before
    postgres.load("INSERT INTO tenant_row VALUES (3, 'c'); CREATE TABLE stays (r int REFERENCES tenant_row)", database)
    postgres.load(f"ALTER TABLE stays OWNER TO {user}; INSERT INTO stays VALUES (2)", database)
    with untouched(postgres, database):
        ended = restore(job, backup, database, user, on_existing="Replace")
    assert ended.reason == "SafetyBackupFailed", ended.log
    assert ended.report.failure
    assert "public.tenant_row" in ended.report.failure.message
    ended = restore(job, backup, database, user, on_existing="Replace", safety_backup=False)
    assert ended.code == 0, ended.log
    postgres.execute("DROP TABLE stays", database)
    assert postgres.dump(database) == before


@pytest.mark.parametrize("form", FORMS)
def test_rows_that_cannot_be_counted_are_no_hindrance(job: Job, postgres: Postgres, database: str, owner: Callable[[str], str], form: str) -> None:
    """Of a table that the artifact holds without its rows, a restore tells how many are gone."""
    user = owner(database)
    postgres.load(f"SET ROLE {user}; {FORCED}", database)
    backup = job.backup(format=form, exclude_table_data=("public.tenant_row", "public.child"))
    assert backup.code == 0, backup.log
    ended = restore(job, backup, database, user, on_existing="Replace", safety_backup=False)
    assert ended.code == 0, ended.log
    warnings = " ".join(ended.report.warnings)
    assert "public.tenant_row: its unknown number of rows are gone" in warnings
    assert "public.child: its 1 rows are gone" in warnings
