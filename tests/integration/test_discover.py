"""Discovery of a server's databases, and the lifetime in manifests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime

import pytest
from tests.integration.conftest import PASSWORD, Ended, Job, Postgres

from dbbackup.contract import pages
from dbbackup.contract.manifest import parse_manifest
from dbbackup.contract.report import DiscoveredItem
from dbbackup.contract.run import Lifetime, RestoreOptions
from dbbackup.dataplane.upkeep import discover as discover_module


def discover(job: Job) -> Ended:
    return job.run(job.spec("discover"))


def names(ended: Ended) -> list[str]:
    assert ended.code == 0, ended.log
    assert ended.report.pages
    return [item.name for item in pages.read(ended.log.splitlines(), ended.report.pages, DiscoveredItem)]


def test_every_database_that_allows_connections_is_listed(job: Job, database: str, new_database: Callable[..., str], postgres: Postgres) -> None:
    awkward = new_database(name='A "quoted" näme=x host=evil')
    closed, template, invalid = new_database("ALLOW_CONNECTIONS false"), new_database("IS_TEMPLATE true"), new_database()
    postgres.execute(f"UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{invalid}'")
    try:
        found = names(discover(job))
    finally:
        postgres.execute(f'ALTER DATABASE "{template}" IS_TEMPLATE false')
    assert {database, awkward, "postgres"} <= set(found)
    assert not {closed, template, invalid, "template0", "template1"} & set(found)
    assert found == sorted(found)


def test_a_discovery_needs_no_database_name(job: Job, database: str) -> None:
    job.secret(host=job.postgres.host, port=str(job.postgres.port), dbname="*", username="postgres", password=PASSWORD)
    assert database in names(discover(job))


def test_the_named_database_may_be_gone(job: Job, database: str) -> None:
    job.connect_to("no_such_database_any_more")
    assert database in names(discover(job))


def test_a_user_that_may_only_use_its_own_database(job: Job, database: str, postgres: Postgres) -> None:
    """`postgres` is often closed to an application's user."""
    postgres.execute("CREATE ROLE narrow LOGIN PASSWORD 'narrow'")
    postgres.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    try:
        job.connect_to(database, "narrow", "narrow")
        assert {database, "postgres"} <= set(names(discover(job)))
    finally:
        postgres.execute("GRANT CONNECT ON DATABASE postgres TO PUBLIC")
        postgres.execute("DROP ROLE narrow")


def test_failures_of_a_discovery(job: Job, database: str) -> None:
    job.connect_to(database, password="wrong-password")
    ended = discover(job)
    assert (ended.reason, ended.report.pages) == ("AuthenticationFailed", None)
    assert "wrong-password" not in ended.log
    job.secret()
    assert discover(job).reason == "SecretMissing"
    job.secret(host="127.0.0.1", port="1", dbname=database, username="postgres", password=PASSWORD)
    assert discover(job).reason == "DatabaseUnreachable"


def test_a_name_that_is_not_utf_8_is_left_out_with_a_warning(job: Job, database: str, postgres: Postgres) -> None:
    """The bytes are taken as they lie in the catalog: no conversion fails, and none makes up
    another name."""
    postgres.execute("CREATE DATABASE renamed TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        with closing(postgres.connect("renamed")) as connection:
            connection.execute("SET client_encoding = 'LATIN1'")
            connection.execute("CREATE DATABASE \"café\" TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
        ended = discover(job)
        found = names(ended)
        assert database in found
        assert not [name for name in found if name.startswith("caf")]
        assert len(ended.report.warnings) == 1
        assert "its name is not UTF-8" in ended.report.warnings[0]
    finally:
        with closing(postgres.connect("renamed")) as connection:
            connection.execute("SET client_encoding = 'LATIN1'")
            connection.execute('DROP DATABASE IF EXISTS "café"')
        postgres.execute("DROP DATABASE renamed")


def test_a_discovery_that_is_stopped_cancels_its_query(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover_module, "_QUERY", "SELECT datname FROM pg_catalog.pg_database, pg_catalog.pg_sleep(60)")
    ended = job.run(job.spec("discover", timeout_seconds=1))
    assert ended.reason == "Timeout"
    assert (ended.report.finished_at - ended.report.started_at).total_seconds() < 20


# lifetime


def note(job: Job, key: str) -> str:
    return job.storage.get(f"{key}/RESTORE.md", 1 << 20).decode()


def test_the_manifest_has_its_expiry_and_its_schedule(job: Job, database: str) -> None:
    expires = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
    ended = job.run(job.spec("backup", lifetime=Lifetime(expires_at=expires, schedule="nightly")))
    manifest = job.manifest(ended)
    assert (manifest.expires_at, manifest.schedule) == (expires, "nightly")
    assert "may delete it after 2027-01-02 03:04:05 UTC" in note(job, str(ended.report.artifact and ended.report.artifact.key))
    again = job.run(job.spec("backup", lifetime=Lifetime(expires_at=expires.replace(year=2028))))
    assert again.report.artifact == ended.report.artifact, "a second attempt finds the first one's, with its expiry"


def test_a_backup_without_a_lifetime_never_expires(job: Job, database: str) -> None:
    ended = job.backup()
    assert ended.report.artifact
    assert (job.manifest(ended).expires_at, job.manifest(ended).schedule) == (None, None)
    assert "may delete" not in note(job, ended.report.artifact.key)
    document = job.storage.get(f"{ended.report.artifact.key}/manifest.json", 1 << 20)
    assert b"expiresAt" not in document
    assert b"schedule" not in document


def test_a_safety_backup_expires_too(job: Job, database: str, postgres: Postgres) -> None:
    postgres.execute("CREATE TABLE public.t (id int)", database)
    source = job.backup()
    assert source.report.artifact
    expires = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
    restore = job.another("restore", kind="DatabaseRestore")
    options = RestoreOptions(key=source.report.artifact.key, on_existing="Replace")
    ended = restore.run(restore.spec("restore", restore=options, lifetime=Lifetime(expires_at=expires)))
    assert ended.report.safety_backup, ended.log
    key = f"{ended.report.safety_backup.key}/manifest.json"
    assert parse_manifest(job.storage.get(key, 1 << 20), key).expires_at == expires
    assert "may delete it after" in note(job, ended.report.safety_backup.key)
