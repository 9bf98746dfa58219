"""A PostgreSQL server and an S3 server (versitygw) of the bench's own, on loopback, in a directory
that is removed afterwards."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.cgroup import BenchError, Group, entering
from tests.root import ROOT

POSTGRESQL = Path("/usr/lib/postgresql")
USER = "bench"
BUCKET = "bench"
ZSTD_CLIENT = 16
"""The first pg_dump that compresses with zstd itself."""
_SETTINGS = """
listen_addresses = '127.0.0.1'
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
max_wal_size = 8GB
shared_buffers = 256MB
jit = off
"""


@dataclass(frozen=True, slots=True)
class Postgres:
    """`binaries` holds the clients of the server's own version."""

    port: int
    password: str
    binaries: Path
    group: Group

    def environment(self, database: str) -> dict[str, str]:
        """For libpq's programs; C locale, the server's own clients first on the PATH."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "AWS_", "DBBACKUP_"))}
        own = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": USER, "PGPASSWORD": self.password, "PGDATABASE": database}
        return {**kept, **own, "PGSSLMODE": "disable", "LC_ALL": "C", "PATH": f"{self.binaries}:{kept.get('PATH', '')}"}

    def client(self, least: int) -> Path | None:
        """The pg_dump of the newest version that is installed, at least `least`."""
        found = {int(path.parents[1].name): path for path in POSTGRESQL.glob("*/bin/pg_dump")}
        newest = max(found, default=0)
        return found[newest] if newest >= least else None

    def sql(self, text: str, database: str = "postgres") -> str:
        argv = [str(self.binaries / "psql"), "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1"]
        done = subprocess.run(argv, input=text, env=self.environment(database), capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"psql: {done.stderr.strip()[-1000:]}")
        return done.stdout


@dataclass(frozen=True, slots=True)
class S3:
    endpoint: str
    key: str
    secret: str
    directory: Path
    group: Group


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def postgres(directory: Path) -> Iterator[Postgres]:
    """A new cluster of the newest server that is installed; the server refuses to run as root, so
    root starts it as `postgres` or `nobody`."""
    found = sorted((path.parent for path in POSTGRESQL.glob("*/bin/initdb")), key=lambda path: int(path.parent.name))
    if not found:
        raise BenchError(f"no PostgreSQL server below {POSTGRESQL}: install one, such as Debian's postgresql-15")
    binaries, data, port, password = found[-1], directory / "postgres", free_port(), secrets.token_hex(12)
    data.mkdir(parents=True)
    secret = data.parent / "initdb-password"
    secret.write_text(password)
    prefix: list[str] = []
    if os.geteuid() == 0:
        user = next(name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()})
        prefix = ["runuser", "-u", user, "--"]
        for path in (data, secret):
            shutil.chown(path, user)
    _run([*prefix, str(binaries / "initdb"), "-D", str(data / "d"), "-U", USER, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
          "--auth=scram-sha-256", f"--pwfile={secret}"])  # fmt: skip
    with (data / "d" / "postgresql.conf").open("a") as file:
        file.write(f"{_SETTINGS}port = {port}\nunix_socket_directories = ''\n")
    control = [*prefix, str(binaries / "pg_ctl"), "-D", str(data / "d")]
    group = Group.make()
    _run([*control, "-w", "-l", str(data / "log"), "start"], group)
    try:
        yield Postgres(port, password, binaries, group)
    finally:
        _run([*control, "-w", "-m", "immediate", "stop"])
        group.remove()


def _run(argv: list[str], group: Group = Group(None, None)) -> None:  # noqa: B008 - it is frozen
    argv, environment = entering(argv, os.environ, group)
    done = subprocess.run(
        argv, env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise BenchError(f"{' '.join(argv)[:200]}: {done.stderr.strip()[-1000:]}")


@contextmanager
def s3(directory: Path) -> Iterator[S3]:
    binary = next((path for path in (ROOT / "build/rig/bin/versitygw", Path(shutil.which("versitygw") or "-")) if path.is_file()), None)
    if not binary:
        raise BenchError("versitygw is not there; `make cluster` makes it")
    data = directory / "s3"
    (data / BUCKET).mkdir(parents=True)
    group = Group.make()
    server = S3(f"http://127.0.0.1:{free_port()}", "bench", secrets.token_hex(16), data, group)
    environment = {**os.environ, "ROOT_ACCESS_KEY": server.key, "ROOT_SECRET_KEY": server.secret}
    argv = [str(binary), "--port", server.endpoint.removeprefix("http://"), "--quiet", "--health", "/health", "posix", str(data)]
    argv, environment = entering(argv, environment, group)
    with (directory / "s3.log").open("wb") as log, subprocess.Popen(argv, env=environment, stdout=log, stderr=log) as process:
        try:
            _await(process, f"{server.endpoint}/health")
            yield server
        finally:
            process.terminate()
            process.wait()
            group.remove()


def _await(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"versitygw does not answer: {error}") from None
        time.sleep(0.05)
