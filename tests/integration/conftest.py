"""A real PostgreSQL and a real S3 server for the whole session, and runs of the Job's entry point
in this process.

PostgreSQL: the newest of /usr/lib/postgresql, or `DBBACKUP_TEST_POSTGRES=/usr/lib/postgresql/17`.
Root may not run a server: it is run as the user `postgres` then.
"""

from __future__ import annotations

import io
import json
import os
import pwd
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.contract.servers import OWNER as S3_KEYS
from tests.contract.servers import Versitygw

from dbbackup.contract.manifest import Manifest, parse_manifest
from dbbackup.contract.report import Report
from dbbackup.contract.run import BackupOptions, DatabaseTarget, Owner, RunSpec, StorageTarget
from dbbackup.dataplane import main
from dbbackup.dataplane.logs import Reporter
from dbbackup.dataplane.paths import Paths
from dbbackup.storage.base import Storage
from dbbackup.storage.s3 import open_storage

PASSWORD = "s3cr:t\\p w'd"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Postgres:
    """A server on 127.0.0.1; the superuser is `postgres`. `bin` holds its clients."""

    port: int
    bin: Path
    data: Path
    host: str = "127.0.0.1"

    @property
    def major(self) -> int:
        return int(self.bin.parent.name)

    def connect(self, database: str = "postgres", user: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(host=self.host, port=self.port, dbname=database, user=user, password=PASSWORD, client_encoding="UTF8", autocommit=True)

    def execute(self, query: str, database: str = "postgres", user: str = "postgres") -> list[tuple[Any, ...]]:
        with self.connect(database, user) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description is not None else []

    def environment(self, database: str, user: str = "postgres") -> dict[str, str]:
        return {**os.environ, "PGHOST": self.host, "PGPORT": str(self.port), "PGDATABASE": database, "PGUSER": user, "PGPASSWORD": PASSWORD}

    def tool(self, name: str, *arguments: str | Path, database: str, user: str = "postgres", stdin: bytes | None = None) -> bytes:
        """Runs a stock client; its output. Fails the test with what it said."""
        done = subprocess.run([self.bin / name, *arguments], env=self.environment(database, user), input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, f"{name}: {done.stderr.decode()}"
        return done.stdout

    def load(self, sql: str | bytes, database: str, user: str = "postgres") -> None:
        script = sql if isinstance(sql, bytes) else sql.encode()
        self.tool("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", "-", database=database, user=user, stdin=script)

    def dump(self, database: str, *arguments: str) -> str:
        """A plain dump of it all, with owners and privileges: two databases are equal when these
        are."""
        text = self.tool("pg_dump", *arguments, database=database).decode("utf-8", "surrogateescape")
        return "\n".join(line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))


def _as_server_user() -> list[str]:
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


def _installed() -> Path:
    if chosen := os.environ.get("DBBACKUP_TEST_POSTGRES"):
        return Path(chosen)
    found = sorted((d for d in Path("/usr/lib/postgresql").glob("*") if (d / "bin/postgres").exists()), key=lambda d: int(d.name))
    if not found:
        pytest.fail("no PostgreSQL server below /usr/lib/postgresql: apt-get install postgresql")
    return found[-1]


def start_postgres(directory: Path, **settings: str) -> Iterator[Postgres]:
    """A new cluster in `directory`, which is removed afterwards."""
    bin_ = _installed() / "bin"
    directory.mkdir(parents=True)
    (directory / "password").write_text(PASSWORD)
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        for path in (directory, directory / "password"):
            os.chown(path, user.pw_uid, user.pw_gid)
    data = directory / "data"
    run = _as_server_user()
    initdb: list[str | Path] = [
        *run,
        bin_ / "initdb",
        "-D",
        data,
        "-U",
        "postgres",
        "-A",
        "scram-sha-256",
        f"--pwfile={directory}/password",
        "-E",
        "UTF8",
    ]
    subprocess.run([*initdb, "--locale=C.UTF-8", "--no-sync"], check=True, capture_output=True, cwd="/")
    port = free_port()
    options = {
        "unix_socket_directories": str(directory),
        "fsync": "off",
        "max_connections": "60",
        "wal_level": "logical",
        **settings,
    }
    yield from _serve(Postgres(port, bin_, data), directory, options)


def _serve(postgres: Postgres, directory: Path, options: dict[str, str]) -> Iterator[Postgres]:
    """Runs the server over its data and removes the directory afterwards."""
    run, bin_, data = _as_server_user(), postgres.bin, postgres.data
    options = {"listen_addresses": "127.0.0.1", **options, "port": str(postgres.port)}
    command: list[str | Path] = [*run, bin_ / "postgres", "-D", data, *(f"--{name}={value}" for name, value in options.items())]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", start_new_session=True)
    try:
        for _ in range(200):
            ready = subprocess.run([bin_ / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(postgres.port), "-t", "1"], check=False)
            if ready.returncode == 0:
                break
            time.sleep(0.05)
        yield postgres
    finally:
        subprocess.run([*run, bin_ / "pg_ctl", "stop", "-D", data, "-m", "immediate", "-s"], check=False, cwd="/")
        process.wait(30)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    directory = Path("/tmp") / f"dbbackup-postgres-{os.getpid()}"
    yield from start_postgres(directory)


@pytest.fixture(scope="session")
def standby(postgres: Postgres) -> Iterator[Postgres]:
    """A hot standby of `postgres`."""
    directory = Path("/tmp") / f"dbbackup-standby-{os.getpid()}"
    directory.mkdir()
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(directory, user.pw_uid, user.pw_gid)
    run, data, port = _as_server_user(), directory / "data", free_port()
    copy: list[str | Path] = [*run, postgres.bin / "pg_basebackup", "-D", data, "-R", "-X", "stream", "-c", "fast", "--no-sync"]
    subprocess.run(copy, env=postgres.environment("postgres"), check=True, capture_output=True, cwd="/")
    yield from _serve(
        Postgres(port, postgres.bin, data), directory, {"fsync": "off", "max_connections": "60", "unix_socket_directories": str(directory)}
    )


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Versitygw]:
    server = Versitygw(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """An empty database of its own."""
    name = f"t_{uuid.uuid4().hex[:10]}"
    postgres.execute(f'CREATE DATABASE "{name}"')
    yield name
    postgres.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def owner(postgres: Postgres, database: str) -> str:
    """A role that owns nothing yet and may create in the test's database."""
    name = f"owner_{database}"
    postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD 's3cr:t\\p w''d'")
    postgres.execute(f"GRANT ALL ON DATABASE {database} TO {name}; GRANT ALL ON SCHEMA public TO {name}", database)
    return name


@pytest.fixture
def new_database(postgres: Postgres) -> Iterator[Callable[..., str]]:
    """`new_database(options="", name=None)`: further databases."""
    made: list[str] = []

    def make(options: str = "", name: str | None = None) -> str:
        name = name or f"n_{uuid.uuid4().hex[:10]}"
        quoted = '"' + name.replace('"', '""') + '"'
        postgres.execute(f"CREATE DATABASE {quoted} {options}")
        made.append(quoted)
        return name

    yield make
    for quoted in made:
        postgres.execute(f"DROP DATABASE IF EXISTS {quoted} WITH (FORCE)")


@dataclass(slots=True)
class Ended:
    """What a run left: exit code, termination message, log lines."""

    code: int
    report: Report
    events: list[dict[str, Any]]
    log: str

    @property
    def reason(self) -> str | None:
        return self.report.failure.reason if self.report.failure else None


@dataclass(slots=True)
class Job:
    """Runs of one object: mounts in a directory of its own, in this process."""

    postgres: Postgres
    s3: Versitygw
    directory: Path
    bucket: str
    owner: Owner
    storage_target: StorageTarget
    paths: Paths
    target: DatabaseTarget = field(default_factory=lambda: DatabaseTarget(secret="app-db"))

    @property
    def storage(self) -> Storage:
        return open_storage(self.storage_target, secret_dir=str(self.paths.storage_secret))

    def secret(self, **values: str) -> None:
        """The database's connection Secret."""
        shutil.rmtree(self.paths.database_secret, ignore_errors=True)
        self.paths.database_secret.mkdir()
        for key, value in values.items():
            (self.paths.database_secret / key.replace("_", "-")).write_text(value)

    def connect_to(self, database: str, user: str = "postgres", password: str = PASSWORD) -> None:
        self.secret(host=self.postgres.host, port=str(self.postgres.port), dbname=database, username=user, password=password)

    def spec(self, kind: str = "backup", **fields: Any) -> RunSpec:
        defaults: dict[str, Any] = {"owner": self.owner, "storage": self.storage_target, "database": self.target, "timeout_seconds": 120}
        if kind == "backup":
            defaults["backup"] = BackupOptions()
        return RunSpec.model_validate({"run": kind, **defaults, **fields})

    def run(self, spec: RunSpec) -> Ended:
        stream = io.StringIO()
        reporter = Reporter(stream)
        code = main.run(spec, self.paths, reporter)
        log = stream.getvalue()
        report = Report.model_validate_json(self.paths.termination_log.read_text())
        return Ended(code, report, [json.loads(line) for line in log.splitlines()], log)

    def backup(self, **options: Any) -> Ended:
        return self.run(self.spec("backup", backup=BackupOptions(**options)))

    def another(self, name: str = "another", kind: str = "DatabaseBackup") -> Job:
        """The same mounts for another object."""
        owner = Owner.model_validate({"kind": kind, "namespace": "demo", "name": name, "uid": str(uuid.uuid4()), "created_at": datetime.now(UTC)})
        paths = replace(self.paths, termination_log=self.directory / f"termination-{name}")
        return replace(self, owner=owner, paths=paths)

    def keys(self) -> list[str]:
        """All keys in the bucket."""
        return sorted(item.key for item in self.storage.list(""))

    def leftovers(self) -> list[str]:
        """Keys and unfinished uploads: what a failed backup must not leave."""
        return self.keys() + [upload.key for upload in self.storage.list_uploads("")]

    def manifest(self, ended: Ended) -> Manifest:
        assert ended.report.artifact
        key = f"{ended.report.artifact.key}/manifest.json"
        return parse_manifest(self.storage.get(key, 1 << 26), key, ended.report.artifact.manifest_sha256)

    def fetch(self, ended: Ended, into: Path) -> Path:
        """Downloads the artifact's directory."""
        assert ended.report.artifact
        into.mkdir(parents=True, exist_ok=True)
        for item in self.storage.list(ended.report.artifact.key + "/"):
            (into / item.key.rpartition("/")[2]).write_bytes(self.storage.get(item.key, 1 << 32))
        return into


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Gate:
    """Holds a script up: `shell` says that it has come so far, and goes on once it may."""

    directory: Path

    @property
    def shell(self) -> str:
        return f"touch {self.directory}/came; until [ -e {self.directory}/open ]; do sleep 0.02; done"

    def wait(self) -> None:
        wait_for((self.directory / "came").exists)

    def open(self) -> None:
        (self.directory / "open").touch()


def make_job(postgres: Postgres, s3: Versitygw, directory: Path, database: str) -> Job:
    """A DatabaseBackup's Job on `database` and a bucket of its own, as the superuser unless asked
    otherwise."""
    for name in ("storage", "scratch"):
        (directory / name).mkdir()
    (directory / "storage" / "accessKeyId").write_text(S3_KEYS[0])
    (directory / "storage" / "secretAccessKey").write_text(S3_KEYS[1])
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    made = Job(
        postgres=postgres,
        s3=s3,
        directory=directory,
        bucket=bucket,
        owner=Owner.model_validate(
            {"kind": "DatabaseBackup", "namespace": "demo", "name": "nightly", "uid": str(uuid.uuid4()), "created_at": datetime.now(UTC)}
        ),
        storage_target=StorageTarget(name="default", bucket=bucket, prefix="team", endpoint=s3.endpoint, credentials_secret="s3", create_bucket=True),
        paths=Paths(
            database_secret=directory / "database",
            database_ca=directory / "database-ca",
            storage_secret=directory / "storage",
            storage_ca=directory / "storage-ca",
            scratch=directory / "scratch",
            termination_log=directory / "termination-log",
            postgresql=postgres.bin.parent.parent,
            secret_grace=0.3,
        ),
    )
    made.storage.ensure_bucket(create=True)
    made.connect_to(database)
    return made


@pytest.fixture
def job(postgres: Postgres, s3: Versitygw, tmp_path: Path, database: str) -> Job:
    return make_job(postgres, s3, tmp_path, database)
