"""Connection Secrets of every shape that operators write, and what errors mean."""

from __future__ import annotations

import stat
from pathlib import Path

import psycopg
import pytest
from tests.unit.support.passing import FakeTime

from dbbackup.contract.errors import Failure
from dbbackup.contract.run import DatabaseTarget
from dbbackup.dataplane.paths import Paths
from dbbackup.dataplane.postgres import conninfo
from dbbackup.dataplane.postgres.connection import child_environment, to_failure
from dbbackup.dataplane.postgres.conninfo import Conninfo, resolve
from dbbackup.storage import mounted_secret

CLOUDNATIVE_PG = {
    "uri": "postgresql://app:p%40ss%2Fw%3Ard@cluster-rw.team-a:5432/app",
    "fqdn-uri": "postgresql://app:p%40ss%2Fw%3Ard@cluster-rw.team-a.svc.cluster.local:5432/app",
    "jdbc-uri": "jdbc:postgresql://cluster-rw.team-a:5432/app?password=p%40ss%2Fw%3Ard&user=app",
    "host": "cluster-rw",
    "port": "5432",
    "dbname": "app",
    "username": "app",
    "user": "app",
    "password": "p@ss/w:rd",
    "pgpass": "cluster-rw:5432:app:app:p@ss/w:rd\n",
}
ZALANDO = {"username": "app", "password": "p@ss/w:rd"}
CRUNCHY_PGO = {
    "dbname": "app",
    "host": "hippo-primary.team-a.svc",
    "port": "5432",
    "user": "app",
    "password": "p@ss/w:rd",
    "verifier": "SCRAM-SHA-256$4096:...",
    "uri": "postgresql://app:p%40ss%2Fw%3Ard@hippo-primary.team-a.svc:5432/app",
    "jdbc-uri": "jdbc:postgresql://hippo-primary.team-a.svc:5432/app?password=p%40ss%2Fw%3Ard&user=app",
    "pgbouncer-host": "hippo-pgbouncer.team-a.svc",
    "pgbouncer-port": "5432",
    "pgbouncer-uri": "postgresql://app:p%40ss%2Fw%3Ard@hippo-pgbouncer.team-a.svc:5432/app",
}
PERCONA = {key: value for key, value in CRUNCHY_PGO.items() if key != "verifier"}
SERVICE_BINDING = {
    "type": "postgresql",
    "provider": "bitnami",
    "host": "db.team-a.svc",
    "port": "5433",
    "database": "app",
    "username": "app",
    "password": "p@ss/w:rd",
    "uri": "postgresql://app:p%40ss%2Fw%3Ard@db.team-a.svc:5433/app",
}
URI_ONLY = {"uri": "postgres://app:p%40ss%2Fw%3Ard@[::1]/app?sslmode=require&application_name=x"}


def secret(values: dict[str, str]) -> dict[str, bytes]:
    return {key: value.encode() for key, value in values.items()}


def target(**fields: object) -> DatabaseTarget:
    return DatabaseTarget.model_validate({"secret": "app-db", **fields})


@pytest.mark.parametrize(
    ("values", "fields", "host", "port", "sslmode"),
    [
        (CLOUDNATIVE_PG, {}, "cluster-rw", 5432, "prefer"),
        (ZALANDO, {"host": "acid-minimal", "name": "app"}, "acid-minimal", 5432, "prefer"),
        (CRUNCHY_PGO, {}, "hippo-primary.team-a.svc", 5432, "prefer"),
        (PERCONA, {}, "hippo-primary.team-a.svc", 5432, "prefer"),
        (SERVICE_BINDING, {}, "db.team-a.svc", 5433, "prefer"),
        (URI_ONLY, {}, "::1", 5432, "require"),
        (CLOUDNATIVE_PG, {"host": "replica", "port": 6543, "ssl_mode": "verify-full"}, "replica", 6543, "verify-full"),
        ({"uri": CLOUDNATIVE_PG["uri"]}, {"host": "replica"}, "replica", 5432, "prefer"),
        ({**CLOUDNATIVE_PG, "other": URI_ONLY["uri"]}, {"keys": {"uri": "other"}}, "::1", 5432, "require"),
        (
            {"H": "h", "P": "1\n", "D": "app", "U": "app", "W": "p@ss/w:rd\n", "S": "disable"},
            {"keys": {"host": "H", "port": "P", "name": "D", "user": "U", "password": "W", "sslMode": "S"}},
            "h",
            1,
            "disable",
        ),
    ],
)
def test_secrets_of_each_shape(values: dict[str, str], fields: dict[str, object], host: str, port: int, sslmode: str) -> None:
    assert resolve(target(**fields), secret(values)) == Conninfo(host, port, "app", "app", "p@ss/w:rd", sslmode)


def test_cloudnative_pg_superuser_secret_names_no_database() -> None:
    values = secret({**CLOUDNATIVE_PG, "dbname": "*", "uri": "postgresql://postgres:x@cluster-rw:5432/*"})
    assert resolve(target(name="app"), values).name == "app"
    with pytest.raises(Failure, match=r"looked for the keys dbname, database, uri and database\.name is not set") as caught:
        resolve(target(), values)
    assert caught.value.reason.name == "KeyMissing"


@pytest.mark.parametrize(
    ("values", "fields", "reason", "words"),
    [
        ({}, {}, "SecretMissing", "Secret app-db"),
        ({"username": "app"}, {}, "KeyMissing", "no password: looked for the keys password, uri; it has username"),
        ({"password": ""}, {}, "KeyMissing", "no password"),
        (ZALANDO, {"name": "app"}, "KeyMissing", "no host: looked for the keys host, uri and database.host is not set"),
        (CLOUDNATIVE_PG, {"keys": {"password": "secret"}}, "KeyMissing", "no key secret for the password"),
        (CLOUDNATIVE_PG, {"keys": {"uri": "nope"}}, "KeyMissing", "no key nope"),
        ({**CLOUDNATIVE_PG, "port": "http"}, {}, "SecretInvalid", "port"),
        ({**CLOUDNATIVE_PG, "port": "70000"}, {}, "SecretInvalid", "port"),
        ({**CLOUDNATIVE_PG, "host": "a,b"}, {}, "SecretInvalid", "several hosts"),
        ({"uri": "postgresql://app:x@a:1,b:2/app"}, {}, "SecretInvalid", "several hosts"),
        ({"uri": "jdbc:postgresql://a/b"}, {}, "SecretInvalid", "postgresql://"),
        ({"uri": "postgresql://app:geheim%zz@a/b"}, {}, "SecretInvalid", "uri"),
        ({**CLOUDNATIVE_PG, "password": "a\nb"}, {}, "SecretInvalid", "line break"),
        ({**CLOUDNATIVE_PG, "sslmode": "yes"}, {}, "SecretInvalid", "sslmode"),
    ],
)
def test_unusable_values_are_named(values: dict[str, str], fields: dict[str, object], reason: str, words: str) -> None:
    with pytest.raises(Failure, match=words) as caught:
        resolve(target(**fields), secret(values))
    assert caught.value.reason.name == reason
    assert "geheim" not in caught.value.message
    assert "p@ss" not in caught.value.message


def test_an_explicit_host_resolves_a_list_of_hosts() -> None:
    info = resolve(target(host="a", port=7), secret({"uri": "postgresql://app:x@a:1,b:2/app"}))
    assert (info.host, info.port) == ("a", 7)


def test_messages_never_hold_the_password() -> None:
    info = Conninfo("h", 5432, "db", "app", "very-secret")
    assert "very-secret" not in repr(info)
    assert "very-secret" not in info.who
    failure = to_failure(psycopg.OperationalError("no such option: very-secret!"), info, "connecting", "DatabaseUnreachable")
    assert failure.message.endswith("connecting: no such option: ***!")


def test_a_late_secret_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keys, and the CA's, whichever comes last."""
    time = FakeTime()
    monkeypatch.setattr(mounted_secret, "time", time)
    started = time.now
    paths = Paths(database_secret=tmp_path / "database", database_ca=tmp_path / "ca", secret_grace=10)

    def mount() -> None:
        paths.database_secret.mkdir()
        for key, value in CLOUDNATIVE_PG.items():
            (paths.database_secret / key).write_text(value)

    def mount_ca() -> None:
        paths.database_ca.mkdir()
        (paths.database_ca / "ca.crt").write_text("x")

    time.after(3, mount)
    time.after(7, mount_ca)
    assert conninfo.load_conninfo(target(ca_secret="db-ca"), paths).host == "cluster-rw"
    assert 7 <= time.now - started < 8


def test_a_secret_that_never_comes(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        conninfo.load_conninfo(target(), Paths(database_secret=tmp_path / "none", secret_grace=0))
    assert caught.value.reason.name == "SecretMissing"


def test_a_ca_is_used(tmp_path: Path) -> None:
    paths = Paths(database_secret=tmp_path / "database", database_ca=tmp_path / "ca", secret_grace=0)
    for directory in (paths.database_secret, paths.database_ca):
        directory.mkdir()
    for key, value in CLOUDNATIVE_PG.items():
        (paths.database_secret / key).write_text(value)
    wanted = target(ca_secret="db-ca")
    with pytest.raises(Failure, match="Secret db-ca") as caught:
        conninfo.load_conninfo(wanted, paths)
    assert caught.value.reason.name == "SecretMissing"
    (paths.database_ca / "tls.crt").write_text("x")
    with pytest.raises(Failure, match=r"no key ca\.crt for the database's CA; it has tls\.crt") as caught:
        conninfo.load_conninfo(wanted, paths)
    assert caught.value.reason.name == "KeyMissing"
    (paths.database_ca / "ca.crt").write_text("x")
    info = conninfo.load_conninfo(wanted, paths)
    assert (info.sslmode, info.sslrootcert) == ("verify-full", str(paths.database_ca / "ca.crt"))
    assert conninfo.load_conninfo(target(ca_secret="db-ca", ssl_mode="verify-ca"), paths).sslmode == "verify-ca"


def test_children_get_no_password_in_their_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c x=y")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    info = Conninfo("h", 1, "host=evil", "app", "a:b\\c")
    with child_environment(info, tmp_path) as environment:
        file = Path(environment["PGPASSFILE"])
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text() == "*:*:*:*:a\\:b\\\\c\n"
        assert environment["PGDATABASE"] == "host=evil"
        assert "PGOPTIONS" not in environment
        assert "AWS_SECRET_ACCESS_KEY" not in environment
        assert "a:b" not in "".join(environment.values())
    assert not file.exists()
