"""PostgreSQL servers in the cluster, and databases on them with an owner of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from tests.data import generate
from tests.e2e.lib import pods
from tests.e2e.lib.kube import Kube, Raw

SUPERUSER, PASSWORD = "postgres", "superuser-of-tests"
DATA = "/var/lib/postgresql/data"


@dataclass(frozen=True, slots=True)
class Postgres:
    """One server. `host` is its name within the cluster; `address` is where this machine reaches
    it."""

    kube: Kube
    pod: str
    major: int
    address: tuple[str, int]

    @property
    def host(self) -> str:
        return f"{self.pod}.{self.kube.name}.svc"

    @property
    def port(self) -> int:
        return 5432

    def connect(self, database: str = "postgres", user: str = SUPERUSER, password: str = PASSWORD) -> psycopg.Connection[tuple[Any, ...]]:
        """An autocommit connection."""
        host, port = self.address
        return psycopg.connect(host=host, port=port, dbname=database, user=user, password=password, autocommit=True, connect_timeout=10)

    def psql(self, text: str, database: str = "postgres") -> str:
        """A script, COPY blocks and all, through psql in the server's pod as the superuser.
        Unaligned rows."""
        argv = ("psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-U", SUPERUSER, "-d", database, "-f", "-")
        return self.kube.exec(self.pod, *argv, stdin=text, timeout=600)

    def psql_bytes(self, script: bytes, database: str, *options: str, user: str = SUPERUSER, password: str = PASSWORD) -> None:
        """As a person restores: bytes into a stock psql of the server's version, as that user."""
        environment = {"PGPASSWORD": password, "PGHOST": "127.0.0.1", "PGUSER": user, "PGDATABASE": database}
        self.client("psql", "-X", "-v", "ON_ERROR_STOP=1", *options, stdin=script, environment=environment)

    def client(self, *argv: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> bytes:
        """A client program in the server's pod, bytes in and out; AssertionError with its stderr
        where it fails."""
        assignments = [f"{key}={value}" for key, value in (environment or {}).items()]
        command = [*self.kube.cluster.kubectl_argv, "-n", self.kube.name, "exec", "-i", self.pod, "--", "env", *assignments, *argv]
        done = subprocess.run(command, input=stdin, env=self.kube.cluster.environment(), capture_output=True, timeout=900, check=False)
        assert done.returncode == 0, f"{argv}: exit code {done.returncode}\n{done.stderr.decode(errors='replace')[-4000:]}"
        return done.stdout

    def database(self, name: str, owner: str, password: str = "owner-of-tests", *, options: str = "") -> Database:
        """A new, empty database that belongs to a new login role, neither a superuser nor able to
        create databases."""
        with self.connect() as connection:
            for statement in (
                sql.SQL("CREATE ROLE {owner} LOGIN PASSWORD {password}"),
                sql.SQL("CREATE DATABASE {name} OWNER {owner} " + options),
            ):
                connection.execute(statement.format(owner=sql.Identifier(owner), password=sql.Literal(password), name=sql.Identifier(name)))
        return Database(self, name, owner, password)

    def drop(self, database: str, *roles: str) -> None:
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))
            for role in roles:
                try:
                    connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))
                except psycopg.errors.DependentObjectsStillExist:
                    continue


@dataclass(frozen=True, slots=True)
class Database:
    """One database. `owner` owns what tests load into it, unless they say otherwise."""

    server: Postgres
    name: str
    owner: str
    password: str
    prefix: str = ""

    @property
    def identity(self) -> str:
        """As the Job resolves it."""
        return f"{self.server.host}:{self.server.port}/{self.name}"

    def secret(self, name: str) -> Raw:
        """A connection Secret as CloudNativePG makes it."""
        values = {
            "host": self.server.host,
            "port": str(self.server.port),
            "dbname": self.name,
            "username": self.owner,
            "password": self.password,
        }
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}

    def connect(self, *, superuser: bool = False) -> psycopg.Connection[tuple[Any, ...]]:
        """As the owner, or the superuser."""
        return self.server.connect(self.name) if superuser else self.server.connect(self.name, self.owner, self.password)

    def execute(self, *statements: str, superuser: bool = False) -> None:
        """As the owner, or the superuser; each statement commits."""
        with self.connect(superuser=superuser) as connection:
            for statement in statements:
                connection.execute(statement)

    def query(self, text: str, *, superuser: bool = True) -> list[tuple[Any, ...]]:
        with self.connect(superuser=superuser) as connection:
            return connection.execute(text).fetchall()

    def value(self, text: str) -> Any:
        """The first column of the first row, as the superuser."""
        return self.query(text)[0][0]

    def script(self, text: str) -> str:
        """A psql script as the superuser."""
        return self.server.psql(text, self.name)

    def inventory(self, servers: int = generate.SERVERS) -> None:
        """The demo's data; its roles carry this database's prefix, and the owner of the tables
        becomes this database's owner."""
        owner = generate.Roles.with_prefix(self.prefix).owner
        self.script(generate.render(servers, self.prefix))
        self.server.psql(f"ALTER ROLE \"{owner}\" LOGIN PASSWORD '{self.password}';", self.name)

    def as_owner_of_inventory(self) -> Database:
        """The same database by the role that owns the inventory's tables."""
        return Database(self.server, self.name, generate.Roles.with_prefix(self.prefix).owner, self.password, self.prefix)

    def schema(self, *options: str) -> str:
        """All definitions with owners and grants, as the server's own pg_dump writes them; equal
        for equal schemas."""
        text = self.server.client("pg_dump", "-s", "--restrict-key=tests", *options, environment={"PGUSER": SUPERUSER, "PGDATABASE": self.name})
        return text.decode()

    def dump(self, *options: str) -> bytes:
        return self.server.client("pg_dump", *options, environment={"PGUSER": SUPERUSER, "PGDATABASE": self.name})

    def contents(self) -> dict[str, tuple[int, str | None]]:
        """Rows and a digest over them, whatever their order, of each table and materialized view;
        sequences with their values."""
        digests: dict[str, tuple[int, str | None]] = {}
        with self.connect(superuser=True) as connection:
            connection.execute("SET search_path = ''")
            relations = connection.execute(
                "SELECT c.oid::regclass::text, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE c.relkind IN ('r', 'm', 'S') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1"
            ).fetchall()
            for name, kind in relations:
                what = "last_value::text || is_called" if kind == "S" else "t::text"
                query = f"SELECT count(*), md5(string_agg({what}, E'\\n' ORDER BY ({what}) COLLATE \"C\")) FROM {name} t"
                row = connection.execute(query).fetchone()
                assert row is not None
                digests[name] = (row[0], row[1])
        return digests


def start(kube: Kube, name: str, major: int, *, args: Sequence[str] = (), volumes: Mapping[str, Raw] | None = None) -> Postgres:
    """A server of its own, ready to serve. Its data are in memory-like storage that goes with the
    pod."""
    environment = {"POSTGRES_PASSWORD": PASSWORD, "PGDATA": f"{DATA}/cluster"}
    tuning = ("-c", "fsync=off", "-c", "max_connections=200", *args)
    probe: Raw = {"exec": {"command": ["pg_isready", "-q", "-h", "127.0.0.1", "-U", SUPERUSER]}}
    image = kube.cluster.postgres_image(major)
    objects = pods.server(name, image, 5432, user=999, probe=probe, env=environment, args=tuning, volumes={DATA: {}, **(volumes or {})})
    pods.start(kube, name, objects)
    return Postgres(kube, name, major, kube.reach(name, 5432))
