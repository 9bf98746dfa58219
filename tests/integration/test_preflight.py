"""What would fail late in a restore is refused before anything is touched, by name and all at once;
what looks as if it would fail and does not, is restored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.integration.conftest import PASSWORD, Ended, Job, Postgres
from tests.integration.test_restore_refused import nothing_written, restore, untouched

NewDatabase = Callable[..., str]


@pytest.fixture
def user(postgres: Postgres, database: str) -> str:
    """A role that may log in, and owns nothing. Its own group is `<name>_group`."""
    name, password = f"u_{database}", PASSWORD.replace("'", "''")
    postgres.load(f"CREATE ROLE {name}_group NOLOGIN; CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE {name}_group", "postgres")
    return name


def refused(ended: Ended, reason: str, *words: str) -> None:
    assert ended.reason == reason, ended.log
    assert ended.report.failure
    for word in words:
        assert word in ended.report.failure.message, ended.report.failure.message
    assert "nothing was touched" in ended.report.failure.message


def test_an_owner_that_may_not_create_any_more(job: Job, postgres: Postgres, database: str, user: str) -> None:
    """Its objects could not be given back to it: ALTER ... OWNER asks for CREATE on the schema."""
    group = f"{user}_group"
    postgres.load(
        f"""CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); ALTER TABLE t OWNER TO {group}; GRANT ALL ON SCHEMA public TO {user};
        REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE SCHEMA own AUTHORIZATION {group}; GRANT ALL ON SCHEMA own TO {user};
        CREATE TABLE own.t (); ALTER TABLE own.t OWNER TO {group};""",
        database,
    )
    backup = job.backup()
    with untouched(postgres, database):
        ended = restore(job, backup, database, user, on_existing="Replace", safety_backup=False)
    refused(ended, "InsufficientPrivilege", f"table public.t to {group}, who lacks CREATE on schema public")
    assert "own.t" not in ended.log
    assert nothing_written(job)
    before = postgres.dump(database)
    assert restore(job, backup, database, on_existing="Replace").code == 0, "a superuser may"
    assert postgres.dump(database) == before
    postgres.load(f"GRANT CREATE ON SCHEMA public TO {group}", database)
    before = postgres.dump(database)
    ended = restore(job, backup, database, user, on_existing="Replace", safety_backup=False)
    assert ended.code == 0, ended.log
    assert postgres.dump(database) == before


def test_a_schema_in_which_nothing_is_made_may_be_closed(job: Job, postgres: Postgres, database: str, user: str, new_database: NewDatabase) -> None:
    postgres.load("CREATE SCHEMA empty; CREATE SCHEMA typed; CREATE TYPE typed.mood AS ENUM ('a')", database)
    backup = job.backup()
    target = new_database()
    postgres.load(f"CREATE SCHEMA empty; CREATE SCHEMA typed; GRANT CREATE ON SCHEMA public TO {user}", target)
    with untouched(postgres, target):
        ended = restore(job, backup, target, user, on_existing="Replace", safety_backup=False)
    refused(ended, "InsufficientPrivilege", f"{user} lacks CREATE on the schemas typed")
    assert "empty" not in (ended.report.failure.message if ended.report.failure else "")
    postgres.load(f"GRANT ALL ON SCHEMA typed TO {user}", target)
    ended = restore(job, backup, target, user, on_existing="Replace", safety_backup=False)
    assert ended.code == 0, ended.log
